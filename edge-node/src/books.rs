//! This node's own books: what its operator allows to leave, and what has left. The coordinator is not asked.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use sapwood_privacy::{
    dp::Unit,
    ledger::{NodeEvent, NodeLedger, Offer, Policy, Protection, Rho},
    secagg,
};
use sapwood_protocol::{
    Fault, SessionId,
    ledger::BudgetTerms,
    round::{Codec, Decline, Terms, unit},
    spec::{AggregationProfile, PrivacyUnit},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::{
    config::Rules,
    store::{Store, StoreError, read_privacy_ledger},
};

/// An entry as it is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
enum Entry {
    /// An input of this session may leave, at this cost.
    Charged {
        session: SessionId,
        unit: PrivacyUnit,
        rho: u64,
        /// Under the unit entity: the column that told entities apart.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    /// It may leave without noise.
    Unprotected { session: SessionId },
}

/// The node's policy and its ledger; cheap to clone.
#[derive(Clone)]
pub(crate) struct Books {
    store: Store,
    rules: Arc<Rules>,
    policy: Arc<Policy>,
    ledger: Arc<Mutex<NodeLedger<SessionId>>>,
    /// A column by which entities were told apart that have spent of the budget, if there is one but the policy's.
    another_key: Option<Arc<str>>,
}

impl Books {
    /// # Errors
    /// If the stored ledger cannot be read: then nothing may leave.
    pub(crate) async fn open(store: Store, rules: &Rules) -> Result<Self, StoreError> {
        let (mut ledger, mut another_key) = (NodeLedger::default(), None);
        let kept = rules.budgets.get(&PrivacyUnit::Entity).and_then(|budget| budget.key.as_ref());
        for entry in store.privacy_ledger::<Entry>().await? {
            ledger.apply(&entry.event());
            if let Entry::Charged { key: Some(key), .. } = &entry
                && Some(key) != kept
            {
                another_key = Some(key.as_str().into());
            }
        }
        let budget = |(word, terms): (&PrivacyUnit, &BudgetTerms)| Some((unit(*word)?, terms.budget(*word).ok()?));
        let policy = Policy {
            models: rules.models.clone(),
            budgets: rules.budgets.iter().filter_map(budget).collect::<BTreeMap<_, _>>(),
            most_clip: rules.most_clip,
            least_cohort: rules.minimum_cohort,
            corruption: rules.corruption,
            allow_central: rules.allow_central,
            allow_no_noise: rules.allow_no_noise,
            allow_clear: rules.allow_clear,
        };
        Ok(Self { store, rules: Arc::new(rules.clone()), policy: Arc::new(policy), ledger: Arc::new(Mutex::new(ledger)), another_key })
    }

    /// What a secure sum must be like.
    pub(crate) fn aggregation(&self) -> secagg::Policy {
        secagg::Policy {
            minimum: self.rules.minimum_cohort,
            corruption: secagg::Rate::from_share(self.rules.corruption).unwrap_or(secagg::Rate::ZERO),
            profile: match self.rules.profile {
                AggregationProfile::SemiMalicious => secagg::Profile::SemiMalicious,
                AggregationProfile::HonestButCurious => secagg::Profile::Curious,
            },
        }
    }

    /// Whether an input under these terms may leave as things stand, before anybody trains for it.
    ///
    /// # Errors
    /// [`Decline::Policy`] with the rule that forbids it.
    pub(crate) async fn look(&self, terms: &Terms) -> Result<(), Decline> {
        let refuse = |why: String| Decline::Policy { why };
        if let Some(agreed) = terms.aggregation().map_err(|fault| refuse(fault.to_string()))? {
            self.aggregation().check(&agreed).map_err(|fault| refuse(fault.to_string()))?;
        }
        let ledger = self.ledger.lock().await;
        fresh(self.decide(&ledger, terms)?, terms).map(drop)
    }

    /// Charges the session at its worst case. What is paid for may leave when this has returned.
    ///
    /// # Errors
    /// [`Decline::Policy`]; [`Decline::Resources`] if the charge could not be written down.
    pub(crate) async fn charge(&self, terms: &Terms) -> Result<(), Decline> {
        let mut ledger = self.ledger.lock().await;
        let Some(event) = fresh(self.decide(&ledger, terms)?, terms)? else { return Ok(()) };
        if let Some(entry) = Entry::of(&event, terms) {
            self.store.charge(&entry).await.map_err(|error| Decline::Resources { why: format!("the privacy ledger: {error}") })?;
        }
        ledger.apply(&event);
        Ok(())
    }

    fn decide(&self, ledger: &NodeLedger<SessionId>, terms: &Terms) -> Result<Option<NodeEvent<SessionId>>, Decline> {
        let refuse = |why: String| Decline::Policy { why };
        let codec = terms.codec().map_err(|fault: Fault| refuse(fault.to_string()))?;
        let protection = match &codec {
            Codec::Exact(_) => Protection::None,
            Codec::Noised(mechanism) => Protection::Noise(mechanism),
        };
        if let Some(noise) = &terms.noise
            && let Some(budget) = self.rules.budgets.get(&noise.unit)
        {
            budget.covers(noise.entity_key.as_deref()).map_err(refuse)?;
            if let Some(other) = self.another_key.as_ref().filter(|_| noise.unit == PrivacyUnit::Entity) {
                return Err(refuse(format!(
                    "this node's books have charges for entities that the column `{other}` tells apart; costs of others would not add up"
                )));
            }
        }
        let model = terms.model.to_string();
        let masked = terms.secure.is_some();
        let minimum = match (masked, &protection) {
            // What is seen in clear is not hidden by others.
            (false, Protection::None) => terms.minimum.max(self.rules.minimum_cohort),
            _ => terms.minimum,
        };
        let cohort = u32::try_from(terms.cohort.len()).unwrap_or(u32::MAX);
        let offer = Offer { model: &model, minimum, cohort, masked, protection };
        ledger.decide(&self.policy, terms.session, &offer).map_err(|refusal| refuse(refusal.to_string()))
    }
}

/// What has left a node, for its operator.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Account {
    /// Each unit that has a budget, or had one.
    pub budgets: Vec<Spent>,
    /// Inputs that may have left without noise.
    pub without_noise: usize,
}

/// One budget of a node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spent {
    /// Whom it protects.
    pub unit: PrivacyUnit,
    /// As the policy has it; none if it was taken away since.
    pub budget: Option<BudgetTerms>,
    /// ε that has been spent, at the budget's δ.
    pub epsilon_spent: Option<f64>,
    /// ρ that has been spent.
    pub rho_spent: f64,
    /// Inputs that may have left.
    pub sessions: usize,
}

/// What the node whose state lies in `folder` has spent, whether or not it runs.
///
/// # Errors
/// [`StoreError`], most often that there is no node in `folder`.
pub async fn account(folder: &Path, rules: &Rules) -> Result<Account, StoreError> {
    let entries = read_privacy_ledger::<Entry>(folder).await?;
    let ledger = NodeLedger::replay(entries.iter().map(Entry::event).collect::<Vec<_>>().iter());
    let mut sessions: BTreeMap<PrivacyUnit, usize> = rules.budgets.keys().map(|unit| (*unit, 0)).collect();
    for entry in &entries {
        if let Entry::Charged { unit, .. } = entry {
            *sessions.entry(*unit).or_default() += 1;
        }
    }
    let without_noise = entries.iter().filter(|entry| matches!(entry, Entry::Unprotected { .. })).count();
    let spent = |(word, sessions)| {
        let rho = unit(word).map_or(Rho::ZERO, |unit| ledger.spent(unit));
        let budget = rules.budgets.get(&word).cloned();
        let epsilon = |terms: &BudgetTerms| match rho {
            Rho::ZERO => Some(0.0),
            rho => terms.budget(word).ok()?.epsilon_of(rho).ok(),
        };
        Spent { unit: word, epsilon_spent: budget.as_ref().and_then(epsilon), budget, rho_spent: rho.get(), sessions }
    };
    Ok(Account { budgets: sessions.into_iter().map(spent).collect(), without_noise })
}

/// Under a budget a session that was charged before is over for this node: an input may have left in an earlier life of its process, and a
/// second one would carry other noise.
fn fresh(event: Option<NodeEvent<SessionId>>, terms: &Terms) -> Result<Option<NodeEvent<SessionId>>, Decline> {
    match (&event, &terms.noise) {
        (None, Some(_)) => Err(Decline::Policy { why: "this node was charged for the session before it restarted".into() }),
        _ => Ok(event),
    }
}

impl Entry {
    fn of(event: &NodeEvent<SessionId>, terms: &Terms) -> Option<Self> {
        let word = |unit| match unit {
            Unit::Node => PrivacyUnit::Node,
            Unit::Entity => PrivacyUnit::Entity,
            Unit::Example => PrivacyUnit::Example,
        };
        match event {
            NodeEvent::Charged { session, unit, rho } => Some(Self::Charged {
                session: *session,
                unit: word(*unit),
                rho: rho.trillionths(),
                key: terms.noise.as_ref().and_then(|noise| noise.entity_key.clone()),
            }),
            NodeEvent::Unprotected { session } => Some(Self::Unprotected { session: *session }),
            NodeEvent::Restored { .. } => None,
        }
    }

    fn event(&self) -> NodeEvent<SessionId> {
        match self {
            Self::Charged { session, unit: word, rho, .. } => {
                // An entry of no unit was never written; should one be read, it counts against the strictest.
                let unit = unit(*word).unwrap_or(Unit::Node);
                NodeEvent::Charged { session: *session, unit, rho: Rho::from_trillionths(*rho) }
            }
            Self::Unprotected { session } => NodeEvent::Unprotected { session: *session },
        }
    }
}

#[cfg(test)]
mod tests;

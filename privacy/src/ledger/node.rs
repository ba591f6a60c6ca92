//! The node's own ledger, under its operator's policy. The coordinator is not asked.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::{Budget, Rho};
use crate::{
    accountant::Observer,
    dp::{Mechanism, Parameters, Trust, Unit},
};

/// What the operator of a node allows. Everything that is off is off because it is written here.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Models that may be trained here; any if none are named.
    pub models: Option<BTreeSet<String>>,
    /// The budget of each unit that may be promised; a unit without one is refused.
    pub budgets: BTreeMap<Unit, Budget>,
    /// Largest clip norm.
    pub most_clip: f64,
    /// Fewest nodes in a sum that this node's input may enter.
    pub least_cohort: u32,
    /// Share of a cohort that is assumed to collude with the coordinator, whatever the coordinator assumes.
    pub corruption: f64,
    /// Whether the coordinator may be trusted to add the noise.
    pub allow_central: bool,
    /// Whether an update may leave without noise.
    pub allow_no_noise: bool,
    /// Whether an update may leave without masks.
    pub allow_clear: bool,
}

/// How an offered round protects what the node sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Protection<'a> {
    /// No noise.
    None,
    /// By this mechanism, which the node made from the terms itself.
    Noise(&'a Mechanism),
}

/// A round that a node may enter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer<'a> {
    /// Which model.
    pub model: &'a str,
    /// Fewest nodes in the sum, by the terms that the node signs.
    pub minimum: u32,
    /// Most nodes that may be asked, by the terms: colluders are a share of them.
    pub cohort: u32,
    /// Whether the coordinator sees only sums.
    pub masked: bool,
    /// Noise.
    pub protection: Protection<'a>,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeEvent<S> {
    /// An input of this session may leave, at this cost.
    Charged {
        /// Which session.
        session: S,
        /// Whom it costs.
        unit: Unit,
        /// How much, at worst.
        rho: Rho,
    },
    /// An input of this session may leave without noise, as the policy allows.
    Unprotected {
        /// Which session.
        session: S,
    },
    /// The store was restored, or lost: at least this is spent.
    Restored {
        /// Which budget.
        unit: Unit,
        /// In all.
        at_least: Rho,
    },
}

/// What the policy forbids. The node declines with it.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum NodeRefusal {
    /// Not on the list.
    #[error("this node's policy does not allow the model {model:?}; add it to the policy's models")]
    Model {
        /// As offered.
        model: String,
    },
    /// No masks.
    #[error("the coordinator would see the update, and this node's policy demands secure aggregation")]
    Clear,
    /// No noise.
    #[error("the update would leave without noise, and this node's policy demands a privacy budget")]
    NoNoise,
    /// Noise by the coordinator.
    #[error("the coordinator would add the noise, and this node's policy does not trust it to")]
    Central,
    /// A share of the noise without masks.
    #[error("each node would add a share of the noise only, and the coordinator would see it without the others': a share protects nobody")]
    ShareAlone,
    /// Too small a sum.
    #[error("as few as {minimum} nodes may be in the sum, and this node's policy demands {least}")]
    Cohort {
        /// As offered.
        minimum: u32,
        /// By the policy.
        least: u32,
    },
    /// Terms that contradict each other.
    #[error("the round says that {minimum} nodes are in the sum at least, and its noise says {noise}")]
    Minimum {
        /// Of the terms.
        minimum: u32,
        /// Of the noise.
        noise: u32,
    },
    /// A unit without a budget.
    #[error("this node's policy has no budget for the unit {:?}", .unit.word())]
    Unit {
        /// As offered.
        unit: Unit,
    },
    /// Too long.
    #[error("a clip norm of {clip}, and this node's policy allows {most}")]
    Clip {
        /// As offered.
        clip: f64,
        /// By the policy.
        most: f64,
    },
    /// Nobody's noise would count.
    #[error("this node's policy assumes that {colluders} nodes collude, and as few as {minimum} may be in the sum")]
    Colluders {
        /// Assumed.
        colluders: u32,
        /// In the sum.
        minimum: u32,
    },
    /// The budget does not allow it.
    #[error("the node's budget is spent: the round costs rho {asked} at worst, and {left} of {budget} is left for the unit {:?}", .unit.word())]
    Exceeded {
        /// Which budget.
        unit: Unit,
        /// At worst.
        asked: Rho,
        /// Of the budget.
        left: Rho,
        /// In all.
        budget: Rho,
    },
    /// The session was charged for something else.
    #[error("this session was charged rho {charged} and now asks for {asked}: a session is never used twice")]
    SessionDiffers {
        /// Then.
        charged: Rho,
        /// Now.
        asked: Rho,
    },
    /// A cost that is no number.
    #[error("the round's cost cannot be accounted")]
    Account(#[from] crate::accountant::Fault),
}

/// The state: replayed from events. The policy stays outside: its operator may change it, what was spent stays spent.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeLedger<S> {
    spent: BTreeMap<Unit, Rho>,
    sessions: BTreeMap<S, Option<(Unit, Rho)>>,
}

impl<S> Default for NodeLedger<S> {
    fn default() -> Self {
        Self { spent: BTreeMap::new(), sessions: BTreeMap::new() }
    }
}

impl<S: Ord + Clone> NodeLedger<S> {
    /// From a store.
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a NodeEvent<S>>) -> Self
    where
        S: 'a,
    {
        let mut ledger = Self::default();
        for event in events {
            ledger.apply(event);
        }
        ledger
    }

    /// Spent of the budget of `unit`.
    pub fn spent(&self, unit: Unit) -> Rho {
        self.spent.get(&unit).copied().unwrap_or_default()
    }

    /// Whether an input of `session` may leave, and what that costs; nothing if it was charged before. The event must be durable before
    /// the input leaves.
    ///
    /// # Errors
    /// The first rule of `policy` that forbids it.
    pub fn decide(&self, policy: &Policy, session: S, offer: &Offer<'_>) -> Result<Option<NodeEvent<S>>, NodeRefusal> {
        if policy.models.as_ref().is_some_and(|models| !models.contains(offer.model)) {
            return Err(NodeRefusal::Model { model: offer.model.to_owned() });
        }
        if !offer.masked && !policy.allow_clear {
            return Err(NodeRefusal::Clear);
        }
        if offer.minimum < policy.least_cohort {
            return Err(NodeRefusal::Cohort { minimum: offer.minimum, least: policy.least_cohort });
        }
        let known = self.sessions.get(&session);
        let Protection::Noise(mechanism) = offer.protection else {
            if !policy.allow_no_noise {
                return Err(NodeRefusal::NoNoise);
            }
            return match known {
                None => Ok(Some(NodeEvent::Unprotected { session })),
                Some(None) => Ok(None),
                // What was charged as noised must not leave without noise as well.
                Some(Some((_, charged))) => Err(NodeRefusal::SessionDiffers { charged: *charged, asked: Rho::ZERO }),
            };
        };
        let unit = mechanism.parameters().unit;
        let rho = Self::worst_case(policy, offer, mechanism)?;
        match known {
            Some(Some((charged_unit, charged))) if *charged_unit == unit && rho <= *charged => return Ok(None),
            Some(before) => {
                let charged = before.map_or(Rho::ZERO, |(_, rho)| rho);
                return Err(NodeRefusal::SessionDiffers { charged, asked: rho });
            }
            None => {}
        }
        let budget = policy.budgets.get(&unit).ok_or(NodeRefusal::Unit { unit })?.rho();
        let left = budget.less(self.spent(unit));
        if rho > left {
            return Err(NodeRefusal::Exceeded { unit, asked: rho, left, budget });
        }
        Ok(Some(NodeEvent::Charged { session, unit, rho }))
    }

    /// ρ with as few survivors as possible and as many colluders as either side assumes.
    fn worst_case(policy: &Policy, offer: &Offer<'_>, mechanism: &Mechanism) -> Result<Rho, NodeRefusal> {
        let (parameters, clip) = (mechanism.parameters(), mechanism.clip());
        if parameters.trust == Trust::Central && !policy.allow_central {
            return Err(NodeRefusal::Central);
        }
        // σ is made for the sum of all shares.
        if parameters.trust == Trust::Distributed && !offer.masked {
            return Err(NodeRefusal::ShareAlone);
        }
        if parameters.minimum != offer.minimum {
            return Err(NodeRefusal::Minimum { minimum: offer.minimum, noise: parameters.minimum });
        }
        if !policy.budgets.contains_key(&parameters.unit) {
            return Err(NodeRefusal::Unit { unit: parameters.unit });
        }
        let short = clip <= policy.most_clip;
        if !short {
            return Err(NodeRefusal::Clip { clip, most: policy.most_clip });
        }
        // The noise may be made for fewer nodes than are asked; whoever is asked may collude.
        let assumed = (policy.corruption * f64::from(parameters.nodes.max(offer.cohort))).ceil() as u32;
        let colluders = parameters.colluders.max(assumed);
        if parameters.trust == Trust::Distributed && colluders >= parameters.minimum {
            return Err(NodeRefusal::Colluders { colluders, minimum: parameters.minimum });
        }
        let mine = Parameters { colluders, ..parameters.clone() };
        Ok(Rho::cost(mine.worst_case_rho(Observer::Coordinator))?)
    }

    /// The state after `event`. Whatever the events are, what was charged stays charged.
    pub fn apply(&mut self, event: &NodeEvent<S>) {
        match event {
            NodeEvent::Charged { session, unit, rho } => {
                // The same session twice in a store is one charge, the larger one; under another unit it is another charge.
                let paid = self.sessions.entry(session.clone()).or_insert(None);
                let before = paid.filter(|(charged, _)| charged == unit).map_or(Rho::ZERO, |(_, rho)| rho);
                *paid = Some((*unit, before.max(*rho)));
                let spent = self.spent.entry(*unit).or_default();
                *spent = spent.plus(rho.less(before));
            }
            NodeEvent::Unprotected { session } => {
                self.sessions.entry(session.clone()).or_insert(None);
            }
            NodeEvent::Restored { unit, at_least } => {
                let spent = self.spent.entry(*unit).or_default();
                *spent = (*spent).max(*at_least);
            }
        }
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;

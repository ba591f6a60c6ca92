//! The coordinator's privacy ledger of one population and one unit, as a [`Machine`]: its events are a stream of their own, and one driver
//! decides on all runs, so none can race another. The rules are [`CoordinatorLedger`]'s.

use sapwood_privacy::ledger::{self, Budget, Command, CoordinatorLedger, Rho};
use serde::{Deserialize, Serialize};

use crate::{
    fault::{Fault, Misuse},
    ids::{RunId, SessionId},
    machine::{Cx, Decision, Machine},
    round::check_key,
    spec::PrivacyUnit,
    time::Timestamp,
};

/// What may be asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Before a run starts: `total` is all it may ever cost, in trillionths of ρ.
    Reserve {
        /// Which run.
        run: RunId,
        /// In all.
        total: u64,
        /// Under the unit entity: the column that the run tells entities apart by.
        key: Option<String>,
    },
    /// Before anybody is asked to unmask.
    Charge {
        /// Which run.
        run: RunId,
        /// Which attempt.
        session: SessionId,
        /// Trillionths of ρ.
        rho: u64,
    },
    /// The run is over: what it reserved and was not charged is free again. Nothing if it never reserved.
    Settle {
        /// Which run.
        run: RunId,
    },
    /// The store was restored from a backup: what was reserved counts as spent, and at least so much is gone.
    Restore {
        /// Trillionths of ρ.
        at_least: u64,
    },
    /// Another budget from now on. What was spent stays spent.
    Rebudget {
        /// ε and δ.
        budget: BudgetTerms,
    },
    /// Time has passed; it does not matter here.
    Tick,
}

/// A budget as it is configured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetTerms {
    /// ε in all, over all runs.
    pub epsilon: f64,
    /// δ in all.
    pub delta: f64,
    /// Under the unit entity: the column that tells entities apart. Costs of entities of two kinds would not add up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl BudgetTerms {
    /// ε and δ, for units that need no column.
    pub fn new(epsilon: f64, delta: f64) -> Self {
        Self { epsilon, delta, key: None }
    }

    /// As the rules know it.
    ///
    /// # Errors
    /// [`Misuse::Setting`], also if there is a column and `unit` needs none, or the other way round.
    pub fn budget(&self, unit: PrivacyUnit) -> Result<Budget, Fault> {
        check_key(&format!("budgets.{unit}.key"), unit, self.key.as_deref())?;
        self.amount(unit)
    }

    fn amount(&self, unit: PrivacyUnit) -> Result<Budget, Fault> {
        let refuse = |why: String| Fault::from(Misuse::Setting { key: format!("budgets.{unit}"), why });
        Budget::new(self.epsilon, self.delta).map_err(|fault| refuse(fault.to_string()))
    }

    /// Whether entities that `asked` tells apart may be counted here.
    ///
    /// # Errors
    /// Why not, and what would do.
    pub fn covers(&self, asked: Option<&str>) -> Result<(), String> {
        if self.key.as_deref() == asked {
            return Ok(());
        }
        let name = |key: Option<&str>| key.map_or_else(|| "no column".to_owned(), |key| format!("the column `{key}`"));
        let (kept, asked) = (name(self.key.as_deref()), name(asked));
        Err(format!("the budget is for entities that {kept} tells apart, the run asks for {asked}: their costs would not add up"))
    }
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// The first, and each change.
    Budgeted {
        /// Whom it protects.
        unit: PrivacyUnit,
        /// From now on.
        budget: BudgetTerms,
        /// When.
        at: Timestamp,
    },
    /// The run may cost so much.
    Reserved {
        /// Which run.
        run: RunId,
        /// Trillionths of ρ, in all.
        total: u64,
        /// When.
        at: Timestamp,
    },
    /// The session is paid for.
    Charged {
        /// Which run.
        run: RunId,
        /// Which attempt.
        session: SessionId,
        /// Trillionths of ρ.
        rho: u64,
        /// When.
        at: Timestamp,
    },
    /// The rest of the run's reservation is free.
    Settled {
        /// Which run.
        run: RunId,
        /// When.
        at: Timestamp,
    },
    /// The store was restored.
    Restored {
        /// Trillionths of ρ, in all.
        at_least: u64,
        /// When.
        at: Timestamp,
    },
}

impl Event {
    /// Every kind.
    pub const KINDS: &[&str] = &["budgeted", "reserved", "charged", "settled", "restored"];
    /// The kind, as in the JSON key `event`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Budgeted { .. } => "budgeted",
            Self::Reserved { .. } => "reserved",
            Self::Charged { .. } => "charged",
            Self::Settled { .. } => "settled",
            Self::Restored { .. } => "restored",
        }
    }

    fn rule(&self) -> Option<ledger::Event<RunId, SessionId>> {
        let rho = Rho::from_trillionths;
        Some(match self.clone() {
            Self::Budgeted { .. } => return None,
            Self::Reserved { run, total, .. } => ledger::Event::Reserved { run, total: rho(total) },
            Self::Charged { run, session, rho: amount, .. } => ledger::Event::Charged { run, session, rho: rho(amount) },
            Self::Settled { run, .. } => ledger::Event::Settled { run },
            Self::Restored { at_least, .. } => ledger::Event::Restored { at_least: rho(at_least) },
        })
    }
}

/// One ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Ledger {
    unit: PrivacyUnit,
    budget: BudgetTerms,
    rules: CoordinatorLedger<RunId, SessionId>,
}

/// What people and scripts are shown of a ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerView {
    /// Whom it protects.
    pub unit: PrivacyUnit,
    /// ε in all.
    pub epsilon: f64,
    /// δ in all.
    pub delta: f64,
    /// Under the unit entity: the column that tells entities apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// ε that has been spent.
    pub epsilon_spent: f64,
    /// ε of what has been spent or is reserved by runs.
    pub epsilon_held: f64,
    /// ρ: in all, spent, and spent or reserved.
    pub rho: [f64; 3],
}

impl Ledger {
    /// The ledger that these events tell of.
    ///
    /// # Errors
    /// If the first one is not [`Event::Budgeted`].
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<Self, Fault> {
        let mut events = events.into_iter();
        let Some(Event::Budgeted { unit, budget, .. }) = events.next() else {
            return Err(Misuse::State { what: "a ledger's events".into(), why: "the first one is not `budgeted`".into() }.into());
        };
        // Found by review: what an older version wrote without a key must be read, so that a key can be given to it.
        let begun = Self { unit: *unit, budget: budget.clone(), rules: CoordinatorLedger::new(budget.amount(*unit)?) };
        Ok(events.fold(begun, Machine::apply))
    }

    /// An untouched one; [`Event::Budgeted`] with the same content is the first event of its stream.
    ///
    /// # Errors
    /// As [`BudgetTerms::budget`].
    pub fn new(unit: PrivacyUnit, budget: BudgetTerms) -> Result<Self, Fault> {
        let rules = CoordinatorLedger::new(budget.budget(unit)?);
        Ok(Self { unit, budget, rules })
    }

    /// The rules and the state.
    pub fn rules(&self) -> &CoordinatorLedger<RunId, SessionId> {
        &self.rules
    }
    /// The budget at hand.
    pub fn budget(&self) -> &BudgetTerms {
        &self.budget
    }
    /// Whom it protects.
    pub fn unit(&self) -> PrivacyUnit {
        self.unit
    }

    /// For people and scripts.
    pub fn view(&self) -> LedgerView {
        let epsilon = |rho: Rho| if rho == Rho::ZERO { 0.0 } else { self.rules.budget().epsilon_of(rho).unwrap_or(f64::MAX) };
        let (spent, held) = (self.rules.spent(), self.rules.held());
        LedgerView {
            unit: self.unit,
            epsilon: self.budget.epsilon,
            delta: self.budget.delta,
            key: self.budget.key.clone(),
            epsilon_spent: epsilon(spent),
            epsilon_held: epsilon(held),
            rho: [self.rules.budget().rho(), spent, held].map(Rho::get),
        }
    }
}

impl Machine for Ledger {
    type Input = Input;
    type Event = Event;
    type Effect = std::convert::Infallible;

    fn decide(&self, cx: &mut Cx<'_>, input: Input) -> Result<Decision<Event, Self::Effect>, Fault> {
        let rho = Rho::from_trillionths;
        let command = match input {
            Input::Tick => return Ok(Decision::nothing()),
            Input::Rebudget { budget } => {
                budget.budget(self.unit)?;
                if budget.key != self.budget.key && self.rules.held() > Rho::ZERO {
                    let kept = self.budget.key.as_deref().unwrap_or("another column");
                    let why = format!(
                        "the budget was spent on entities that `{kept}` tells apart, and costs of others would not add up; keep it"
                    );
                    return Err(Misuse::Setting { key: format!("budgets.{}.key", self.unit), why }.into());
                }
                let changed = budget != self.budget;
                let event = Event::Budgeted { unit: self.unit, budget, at: cx.now };
                return Ok(if changed { Decision::nothing().event(event) } else { Decision::nothing() });
            }
            Input::Settle { run } if self.rules.run(&run).is_none() => return Ok(Decision::nothing()),
            Input::Reserve { run, total, key } => {
                self.budget.covers(key.as_deref()).map_err(|why| Misuse::Setting { key: "privacy.entity_key".into(), why })?;
                Command::Reserve { run, total: rho(total) }
            }
            Input::Charge { run, session, rho: amount } => Command::Charge { run, session, rho: rho(amount) },
            Input::Settle { run } => Command::Settle { run },
            Input::Restore { at_least } => Command::Restore { at_least: rho(at_least) },
        };
        let what = format!("the privacy budget of the unit {:?}", self.unit.word());
        let event = self.rules.decide(command).map_err(|refusal| Misuse::State { what, why: refusal.to_string() })?;
        let at = cx.now;
        Ok(match event {
            None => Decision::nothing(),
            Some(ledger::Event::Reserved { run, total }) => {
                Decision::nothing().event(Event::Reserved { run, total: total.trillionths(), at })
            }
            Some(ledger::Event::Charged { run, session, rho }) => {
                Decision::nothing().event(Event::Charged { run, session, rho: rho.trillionths(), at })
            }
            Some(ledger::Event::Settled { run }) => Decision::nothing().event(Event::Settled { run, at }),
            Some(ledger::Event::Restored { at_least }) => {
                Decision::nothing().event(Event::Restored { at_least: at_least.trillionths(), at })
            }
        })
    }

    fn apply(mut self, event: &Event) -> Self {
        match event {
            Event::Budgeted { budget, .. } => {
                // It was checked before it was written.
                if let Ok(rule) = budget.amount(self.unit) {
                    self.budget = budget.clone();
                    self.rules.rebudget(rule);
                }
            }
            event => {
                if let Some(rule) = event.rule() {
                    self.rules.apply(&rule);
                }
            }
        }
        self
    }

    fn recover(&self, _: &mut Cx<'_>) -> Decision<Event, Self::Effect> {
        Decision::nothing()
    }

    fn deadline(&self) -> Option<Timestamp> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Secrets;

    struct Zero;
    impl Secrets for Zero {
        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill(0);
        }
    }

    fn tell(ledger: &mut Ledger, events: &mut Vec<Event>, input: Input) -> Result<usize, Fault> {
        let decision = ledger.decide(&mut Cx { now: Timestamp::from_millis(7), secrets: &mut Zero }, input)?;
        *ledger = decision.events.iter().fold(ledger.clone(), Machine::apply);
        let count = decision.events.len();
        events.extend(decision.events);
        Ok(count)
    }

    /// A run reserves, charges, settles; what is refused changes nothing; the stream gives the same ledger again.
    #[test]
    fn a_ledger_is_the_fold_of_its_events() {
        let budget = BudgetTerms::new(4.0, 1e-5);
        let mut ledger = Ledger::new(PrivacyUnit::Example, budget.clone()).unwrap();
        let mut events = vec![Event::Budgeted { unit: PrivacyUnit::Example, budget, at: Timestamp::from_millis(1) }];
        let run: RunId = "r1".parse().unwrap();
        let most = ledger.rules().budget().rho().trillionths();
        let session = SessionId::new([1; 32]);
        assert_eq!(tell(&mut ledger, &mut events, Input::Settle { run: run.clone() }), Ok(0), "it never reserved");
        assert!(tell(&mut ledger, &mut events, Input::Reserve { run: run.clone(), total: most + 1, key: None }).is_err());
        assert_eq!(tell(&mut ledger, &mut events, Input::Reserve { run: run.clone(), total: most / 2, key: None }), Ok(1));
        assert_eq!(tell(&mut ledger, &mut events, Input::Reserve { run: run.clone(), total: most / 2, key: None }), Ok(0), "again");
        assert_eq!(tell(&mut ledger, &mut events, Input::Charge { run: run.clone(), session, rho: most / 4 }), Ok(1));
        assert_eq!(tell(&mut ledger, &mut events, Input::Charge { run: run.clone(), session, rho: most / 4 }), Ok(0), "once a session");
        let other = SessionId::new([2; 32]);
        let refused = tell(&mut ledger, &mut events, Input::Charge { run: run.clone(), session: other, rho: most / 2 }).unwrap_err();
        assert!(refused.to_string().contains("reservation"), "{refused}");
        let more = BudgetTerms::new(8.0, 1e-5);
        assert_eq!(tell(&mut ledger, &mut events, Input::Rebudget { budget: more }), Ok(1));
        assert_eq!(tell(&mut ledger, &mut events, Input::Settle { run }), Ok(1));
        let view = ledger.view();
        assert!(view.epsilon_spent > 0.0 && view.epsilon_spent == view.epsilon_held && view.epsilon == 8.0, "{view:?}");
        let json: Vec<Event> = events.iter().map(|event| serde_json::from_slice(&serde_json::to_vec(event).unwrap()).unwrap()).collect();
        assert_eq!(Ledger::replay(&json).unwrap(), ledger);
        assert!(events.iter().all(|event| Event::KINDS.contains(&event.kind())));
    }
    /// A budget for entities is for those of one column, and says which; other units have none.
    #[test]
    fn entities_of_two_kinds_are_not_counted_together() {
        let plain = BudgetTerms::new(4.0, 1e-5);
        let keyed = |key: &str| BudgetTerms { key: Some(key.into()), ..plain.clone() };
        for (unit, terms) in [(PrivacyUnit::Entity, plain.clone()), (PrivacyUnit::Example, keyed("customer"))] {
            let refused = Ledger::new(unit, terms).unwrap_err().to_string();
            assert!(refused.contains("key"), "{refused}");
        }
        let mut ledger = Ledger::new(PrivacyUnit::Entity, keyed("customer")).unwrap();
        let reserve = |key: Option<&str>| Input::Reserve { run: "r1".parse().unwrap(), total: 1000, key: key.map(Into::into) };
        for other in [None, Some("household")] {
            let refused = tell(&mut ledger, &mut Vec::new(), reserve(other)).unwrap_err().to_string();
            assert!(refused.contains("`customer`"), "{refused}");
        }
        assert_eq!(tell(&mut ledger, &mut Vec::new(), reserve(Some("customer"))), Ok(1));
        assert!(tell(&mut ledger, &mut Vec::new(), Input::Rebudget { budget: plain.clone() }).is_err());
        assert_eq!(ledger.view().key.as_deref(), Some("customer"));
        // Found by review: what customers had spent was then said to be what households had spent.
        let refused = tell(&mut ledger, &mut Vec::new(), Input::Rebudget { budget: keyed("household") }).unwrap_err().to_string();
        assert!(refused.contains("`customer`"), "{refused}");
        assert_eq!(
            tell(&mut ledger, &mut Vec::new(), Input::Rebudget { budget: BudgetTerms { epsilon: 5.0, ..keyed("customer") } }),
            Ok(1)
        );
    }

    /// Found by review: a stream that was begun before there were keys stopped the coordinator for good.
    #[test]
    fn a_ledger_without_a_key_is_read_and_gets_one() {
        let text = r#"{"event":"budgeted","unit":"entity","budget":{"epsilon":4.0,"delta":1e-5},"at":1}"#;
        let mut ledger = Ledger::replay([&serde_json::from_str::<Event>(text).unwrap()]).unwrap();
        let reserve = |key: Option<&str>| Input::Reserve { run: "r1".parse().unwrap(), total: 1000, key: key.map(Into::into) };
        assert!(tell(&mut ledger, &mut Vec::new(), reserve(Some("customer"))).is_err());
        let budget = BudgetTerms { key: Some("customer".into()), ..BudgetTerms::new(4.0, 1e-5) };
        assert_eq!(tell(&mut ledger, &mut Vec::new(), Input::Rebudget { budget }), Ok(1));
        assert_eq!(tell(&mut ledger, &mut Vec::new(), reserve(Some("customer"))), Ok(1));
    }
}

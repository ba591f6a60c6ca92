//! The privacy ledgers of this coordinator's population, one for each unit that has a budget.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sapwood_failpoint::Killed;
use sapwood_protocol::{
    Fault, RunId,
    fault::Misuse,
    ledger::{BudgetTerms, Event, Input, Ledger, LedgerView},
    spec::PrivacyUnit,
};
use tokio::sync::watch;

use crate::{
    app::CoordinatorError,
    drive::{Actor, Address, Context, ledger::LedgerHands},
    store::{StoreError, StreamName},
};

/// So long it may take until it is known that a test has killed this process.
const PAUSE: Duration = Duration::from_millis(100);

/// What the operator allows, by unit.
pub type Budgets = BTreeMap<PrivacyUnit, BudgetTerms>;

/// The ledgers that are being driven.
#[derive(Default)]
pub struct Ledgers(Mutex<BTreeMap<PrivacyUnit, Handle>>);

#[derive(Clone)]
struct Handle {
    address: Address<Input>,
    states: watch::Receiver<Arc<Ledger>>,
    /// Its operator grants a budget now. What was reserved before may be charged all the same.
    granted: bool,
}

type Driven = (Handle, Actor<Ledger, LedgerHands>);

impl Ledgers {
    fn all(&self) -> MutexGuard<'_, BTreeMap<PrivacyUnit, Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until what follows from `input` is durable, or it was refused.
    ///
    /// # Errors
    /// [`Misuse::Setting`] if the unit has no budget; the ledger's own refusal.
    pub async fn ask(&self, unit: PrivacyUnit, input: Input) -> Result<(), Fault> {
        let reserves = matches!(input, Input::Reserve { .. });
        let handle = self.all().get(&unit).filter(|handle| handle.granted || !reserves).cloned();
        let handle = handle.ok_or_else(|| Misuse::Setting {
            key: "privacy.unit".into(),
            why: format!(
                "this population has no budget for the unit {unit}; its operator writes one into coordinator.toml: \
                 [budgets.{unit}] with epsilon and delta{key}",
                key = if unit == PrivacyUnit::Entity { ", and as key the column that tells entities apart" } else { "" }
            ),
        })?;
        handle.address.ask(input).await
    }

    /// Whether the run has an account already.
    pub fn knows(&self, run: &RunId) -> bool {
        self.all().values().any(|handle| handle.states.borrow().rules().run(run).is_some())
    }

    /// All of them, for people and scripts.
    pub fn views(&self) -> Vec<LedgerView> {
        self.all().values().map(|handle| handle.states.borrow().view()).collect()
    }

    /// Runs that may still be charged, by unit.
    pub fn open_runs(&self) -> Vec<(PrivacyUnit, RunId)> {
        let mut open = Vec::new();
        for (unit, handle) in &*self.all() {
            open.extend(handle.states.borrow().rules().open_runs().map(|run| (*unit, run.clone())));
        }
        open
    }

    /// Drives every ledger of the store, and those that `budgets` names anew. `restored`: the store comes from a backup, so what was
    /// reserved counts as spent.
    ///
    /// # Errors
    /// If the store cannot be read or written, or a budget is not to be had.
    pub(crate) async fn start(&self, cx: &Context, budgets: &Budgets, restored: bool) -> Result<Result<(), CoordinatorError>, Killed> {
        for unit in [PrivacyUnit::Example, PrivacyUnit::Entity, PrivacyUnit::Node] {
            let (name, budget) = (StreamName::new("ledger", unit.word()), budgets.get(&unit).cloned());
            let driven = match (cx.store.stream(&name).await, &budget) {
                (Err(error), _) => Err(error),
                (Ok(None), None) => continue,
                (Ok(None), Some(budget)) => found(cx, name, unit, budget.clone()).await?,
                (Ok(Some(_)), _) => resume(cx, name).await,
            };
            let (mut handle, actor) = match driven {
                Ok(driven) => driven,
                Err(error) => return Ok(Err(error.into())),
            };
            cx.life.spawn(async move { actor.run(true).await.map(drop) });
            handle.granted = budget.is_some();
            self.all().insert(unit, handle.clone());
            let restore = restored.then_some(Input::Restore { at_least: 0 });
            for input in restore.into_iter().chain(budget.map(|budget| Input::Rebudget { budget })) {
                // Nobody may charge a ledger that is not what it should be.
                if let Err(fault) = handle.address.ask(input).await {
                    return tokio::select! {
                        biased;
                        killed = cx.life.killed() => Err(killed),
                        () = tokio::time::sleep(PAUSE) => Ok(Err(CoordinatorError::File { what: "coordinator.toml".into(), why: fault.to_string() })),
                    };
                }
            }
        }
        Ok(Ok(()))
    }
}

async fn found(cx: &Context, name: StreamName, unit: PrivacyUnit, budget: BudgetTerms) -> Result<Result<Driven, StoreError>, Killed> {
    let machine = match Ledger::new(unit, budget.clone()) {
        Ok(machine) => machine,
        Err(fault) => return Ok(Err(StoreError::Corrupt { what: name.to_string(), why: fault.to_string() })),
    };
    let ((address, mailbox), (sender, states)) = (Address::new(), watch::channel(Arc::new(machine.clone())));
    let first = Event::Budgeted { unit, budget, at: cx.clock.now() };
    let actor = Actor::create(cx.clone(), name, machine, first, LedgerHands::new(sender), mailbox, None).await?;
    Ok(actor.map(|actor| (Handle { address, states, granted: true }, actor)))
}

async fn resume(cx: &Context, name: StreamName) -> Result<Driven, StoreError> {
    let (machine, _) = crate::drive::load::<Ledger>(&*cx.store, &name).await?;
    let ((address, mailbox), (sender, states)) = (Address::new(), watch::channel(Arc::new(machine)));
    let actor = Actor::open(cx.clone(), name, LedgerHands::new(sender), mailbox).await?;
    Ok((Handle { address, states, granted: true }, actor))
}

//! What a privacy ledger asks of its shell: nothing. Its driver makes it durable, one decision after the other.

use std::{convert::Infallible, sync::Arc};

use sapwood_failpoint::Killed;
use sapwood_protocol::{
    Fault,
    ledger::{Event, Input, Ledger},
};
use tokio::sync::watch;

use super::{Hands, Index, Pair, Protocol, points};
use crate::store::Letter;

impl Protocol for Ledger {
    const POINTS: &'static [Pair] = points::LEDGER;
    fn kind(event: &Event) -> &'static str {
        event.kind()
    }
    fn restore(events: &[Event]) -> Result<Self, Fault> {
        Self::replay(events)
    }
    /// What was spent stays spent.
    fn is_over(&self) -> bool {
        false
    }
    fn tick() -> Input {
        Input::Tick
    }
}

/// The hands of one ledger: they only show it.
pub(crate) struct LedgerHands {
    states: watch::Sender<Arc<Ledger>>,
}

impl LedgerHands {
    pub(crate) fn new(states: watch::Sender<Arc<Ledger>>) -> Self {
        Self { states }
    }
}

impl Hands<Ledger> for LedgerHands {
    fn letters(&self, _: &Ledger, _: &[Infallible]) -> Vec<Letter> {
        Vec::new()
    }
    fn index(&self, machine: &Ledger, _: &[Event]) -> Index {
        let summary = serde_json::to_vec(&machine.view()).expect("views have string keys and finite numbers");
        Index { summary: Some(summary), release: None }
    }
    async fn perform(&mut self, _: &Ledger, effect: Infallible) -> Result<Vec<Input>, Killed> {
        match effect {}
    }
    fn adopted(&mut self, machine: &Arc<Ledger>) {
        self.states.send_replace(Arc::clone(machine));
    }
    fn forget(&mut self) {}
    fn roster(&self, _: &Ledger) -> Option<Input> {
        None
    }
}

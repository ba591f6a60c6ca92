//! What a rollout asks of its shell: orders to nodes, and who there is.

use std::sync::Arc;

use bytes::Bytes;
use sapwood_failpoint::Killed;
use sapwood_protocol::{
    Fault,
    release::ReleaseRef,
    rollout::{Effect, Event, Input, Outcome, Rollout},
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Hands, Index, Pair, Protocol, points};
use crate::{
    fleet::{ASSIGNMENT, Fleet},
    store::{Letter, LetterKind},
};

impl Protocol for Rollout {
    const POINTS: &'static [Pair] = points::ROLLOUT;
    fn kind(event: &Event) -> &'static str {
        event.kind()
    }
    fn restore(events: &[Event]) -> Result<Self, Fault> {
        Self::replay(events)
    }
    /// The newest rollout never is: nodes that were away, or are new, still catch up with it.
    fn is_over(&self) -> bool {
        self.is_superseded()
    }
    fn tick() -> Input {
        Input::Tick
    }
}

/// What later rollouts must know of one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Every ring has passed: nodes can go back to it.
    pub(crate) completed: bool,
    /// What was rolled out.
    pub(crate) reference: ReleaseRef,
}

/// The hands of one rollout.
pub(crate) struct RolloutHands {
    fleet: Arc<Fleet>,
    states: watch::Sender<Arc<Rollout>>,
}

impl RolloutHands {
    pub(crate) fn new(fleet: Arc<Fleet>, states: watch::Sender<Arc<Rollout>>) -> Self {
        Self { fleet, states }
    }
}

impl Hands<Rollout> for RolloutHands {
    fn letters(&self, _machine: &Rollout, effects: &[Effect]) -> Vec<Letter> {
        let mut letters = Vec::new();
        for effect in effects {
            if let Effect::Assign { node, assignment } = effect {
                let body = serde_json::to_vec(assignment).expect("domain types have string keys and finite numbers");
                letters.push(Letter {
                    node: node.clone(),
                    topic: ASSIGNMENT.into(),
                    kind: LetterKind::Assignment,
                    body: Bytes::from(body),
                });
            }
        }
        letters
    }

    fn index(&self, machine: &Rollout, _events: &[Event]) -> Index {
        // What no node has confirmed is nothing to go back to.
        let completed = matches!(machine.outcome(), Some(Outcome::Completed { nodes }) if *nodes > 0);
        let summary = Summary { completed, reference: machine.created().release.clone() };
        Index { summary: Some(serde_json::to_vec(&summary).expect("a reference is JSON")), release: None }
    }

    async fn perform(&mut self, _machine: &Rollout, effect: Effect) -> Result<Vec<Input>, Killed> {
        Ok(match effect {
            Effect::Roster => vec![Input::Roster(self.fleet.views())],
            // Told by letter.
            Effect::Assign { .. } => Vec::new(),
        })
    }

    fn adopted(&mut self, machine: &Arc<Rollout>) {
        self.states.send_replace(Arc::clone(machine));
    }

    fn forget(&mut self) {}

    fn roster(&self, _machine: &Rollout) -> Option<Input> {
        Some(Input::Roster(self.fleet.views()))
    }
}

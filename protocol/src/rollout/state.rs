//! The rollout's state.

use serde::{Deserialize, Serialize};

use super::{Created, Effect, Event, Input};
use crate::{
    fault::Fault,
    ids::{NodeId, ReleaseId, RingId},
    machine::{Cx, Decision, Machine},
    release::view::RolloutView,
    time::Timestamp,
};

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// Every ring passed.
    Completed {
        /// Nodes that confirmed; 0: a no-op.
        nodes: usize,
    },
    /// A ring went back, and has arrived there.
    RolledBack {
        /// Which.
        ring: RingId,
    },
    /// A ring went back; some of its nodes have not arrived.
    HaltedNotConverged {
        /// Which.
        ring: RingId,
        /// Who.
        missing: Vec<NodeId>,
    },
    /// Stopped by an operator.
    Aborted {
        /// Who.
        by: String,
    },
    /// Taken over.
    Superseded {
        /// By the rollout of this release.
        by: ReleaseId,
    },
}

/// One rollout. Its first event is [`Event::Created`], which [`Rollout::new`] takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    created: Created,
}

impl Rollout {
    /// The state after [`Event::Created`].
    pub fn new(created: Created) -> Result<Self, Fault> {
        Ok(Self { created })
    }
    /// The state after `events`; the first one must be [`Event::Created`].
    pub fn replay(events: &[Event]) -> Result<Self, Fault> {
        let Some((Event::Created(created), rest)) = events.split_first() else {
            return Err(crate::fault::Misuse::State { what: "rollout".into(), why: "its first event is not Created".into() }.into());
        };
        Ok(rest.iter().fold(Self::new((**created).clone())?, Self::apply))
    }
    /// What it was created with.
    pub fn created(&self) -> &Created {
        &self.created
    }
    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        None
    }
    /// For people and scripts.
    pub fn view(&self) -> RolloutView {
        RolloutView {
            release: self.created.release.release.clone(),
            digest: self.created.release.bundle,
            previous: None,
            outcome: None,
            rings: Vec::new(),
            why: String::new(),
            deadline: None,
        }
    }
}

impl Machine for Rollout {
    type Input = Input;
    type Event = Event;
    type Effect = Effect;

    fn decide(&self, _cx: &mut Cx<'_>, _input: Input) -> Result<Decision<Event, Effect>, Fault> {
        Ok(Decision::nothing())
    }
    fn apply(self, _event: &Event) -> Self {
        self
    }
    fn recover(&self, _cx: &mut Cx<'_>) -> Decision<Event, Effect> {
        Decision::nothing()
    }
    fn deadline(&self) -> Option<Timestamp> {
        None
    }
}

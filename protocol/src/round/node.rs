//! The node's side of a round: train once, submit until it is taken, forget.

use serde::{Deserialize, Serialize};

use super::{Decline, Task};
use crate::{digest::Digest, ids::SessionId};

/// One message, one deadline, or one thing that the trainer says.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeInput {
    /// The coordinator asks us to join an attempt. May come twice.
    Task(Box<Task>),
    /// The coordinator gives the attempt up, or no longer needs us.
    Withdrawn {
        /// Which attempt.
        session: SessionId,
        /// The round will be tried again: keep what was trained.
        keep: bool,
    },
    /// Training ended; the update is in the shell's memory.
    Trained {
        /// [`super::Terms::work`] of the task that was trained for; results of older work are ignored.
        work: Digest,
        /// SHA-256 of the trained update (`length` little-endian `f32`).
        update: Digest,
    },
    /// Training cannot be done.
    TrainingFailed {
        /// [`super::Terms::work`] of the task.
        work: Digest,
        /// What to tell the coordinator.
        reason: Decline,
    },
    /// The coordinator's answer to a submission or a decline.
    Receipt {
        /// Which attempt.
        session: SessionId,
        /// What it said.
        outcome: Receipt,
    },
    /// The link is back: say again what was not answered.
    Reconnected,
    /// Time has passed.
    Tick,
}

/// The coordinator's answer to a submission or a decline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Receipt {
    /// It is in the store.
    Accepted,
    /// That attempt is over; another may follow.
    Expired,
    /// Refused for good: the fault is ours.
    Refused,
}

/// One fact of the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum NodeEvent {
    /// A task for new work.
    Accepted {
        /// The task.
        task: Box<Task>,
    },
    /// Another attempt at the work at hand.
    Rejoined {
        /// The task.
        task: Box<Task>,
    },
    /// The update is ready.
    Trained {
        /// Its digest.
        update: Digest,
    },
    /// We cannot.
    Declined {
        /// Why.
        reason: Decline,
    },
    /// The coordinator has our answer.
    Answered,
    /// The attempt is over; what was trained, or is being trained, is kept for the next one.
    Parked,
    /// Everything of the round is gone.
    Forgotten,
}

/// One thing for the node's shell to do.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeEffect {
    /// Begin to train; end with [`NodeInput::Trained`] or [`NodeInput::TrainingFailed`].
    Train {
        /// For this.
        task: Box<Task>,
        /// [`super::Terms::work`] of it, to be handed back.
        work: Digest,
    },
    /// Encode the trained update under the terms of this attempt and send it; end with [`NodeInput::Receipt`].
    Submit {
        /// The attempt.
        task: Box<Task>,
        /// The trained update.
        update: Digest,
    },
    /// Say that we cannot; end with [`NodeInput::Receipt`].
    Decline {
        /// The attempt.
        session: SessionId,
        /// Why.
        reason: Decline,
    },
    /// Stop training for this work if it still runs, and wipe its update.
    Forget {
        /// Which.
        work: Digest,
    },
}

/// The node's part in one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeRound {
    phase: Phase,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Phase {
    /// Nothing to do.
    #[default]
    Idle,
    /// The shell trains. Not live: the attempt is over, the next one is awaited.
    Training { task: Box<Task>, live: bool },
    /// The update is being sent.
    Ready { task: Box<Task>, update: Digest },
    /// The update is kept for the next attempt.
    Parked { task: Box<Task>, update: Digest },
    /// The coordinator has the update; it is kept until the round is decided.
    Submitted { task: Box<Task>, update: Digest },
    /// We cannot.
    Declined { task: Box<Task>, reason: Decline, answered: bool },
}

impl crate::Machine for NodeRound {
    type Input = NodeInput;
    type Event = NodeEvent;
    type Effect = NodeEffect;

    fn decide(&self, _cx: &mut crate::Cx<'_>, _input: NodeInput) -> Result<crate::Decision<NodeEvent, NodeEffect>, crate::Fault> {
        Ok(crate::Decision::nothing())
    }
    fn apply(self, _event: &NodeEvent) -> Self {
        self
    }
    fn recover(&self, _cx: &mut crate::Cx<'_>) -> crate::Decision<NodeEvent, NodeEffect> {
        crate::Decision::nothing()
    }
    fn deadline(&self) -> Option<crate::Timestamp> {
        None
    }
}

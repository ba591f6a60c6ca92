//! The node's side of a round: train once, submit until it is taken, forget.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Idle
//!     Idle --> Training: Task
//!     Training --> Ready: Trained
//!     Training --> Declined: TrainingFailed
//!     Ready --> Submitted: Receipt Accepted
//!     Ready --> Parked: Withdrawn, keep
//!     Submitted --> Parked: Withdrawn, keep
//!     Parked --> Ready: Task for the same work
//!     Declined --> Training: Task for the same work, if only the policy was against it
//!     Submitted --> Idle: Withdrawn
//!     Parked --> Idle: Withdrawn, or long unheard of
//! ```
//!
//! Two tasks with the same [`super::Terms::work`] ask for the same bits, so a node trains once for all attempts at a round,
//! and a restart of the coordinator costs it one more upload. The update lives in the shell's memory only: after a restart
//! of the node it is trained again, to the same bits, because its seed comes from the run, the round and the node's name.
//!
//! A node keeps one [`NodeRound`] for each run that it takes part in.

use serde::{Deserialize, Serialize};

use super::{Decline, Task};
use crate::{
    digest::Digest,
    fault::{Expiry, Fault},
    ids::SessionId,
    machine::{Cx, Decision, Machine},
    time::Timestamp,
};

type Verdict = Decision<NodeEvent, NodeEffect>;

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
        /// When, by the node's clock.
        at: Timestamp,
    },
    /// Another attempt at the work at hand.
    Rejoined {
        /// The task.
        task: Box<Task>,
        /// When, by the node's clock.
        at: Timestamp,
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

/// The node's part in one run. Starts idle.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeRound {
    phase: Phase,
    /// When the last task came, by the node's clock, which may be far from the coordinator's.
    since: Timestamp,
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

impl NodeRound {
    /// The task at hand, live or kept for another attempt.
    pub fn task(&self) -> Option<&Task> {
        self.phase.task()
    }
    /// Whether there is nothing to do and nothing kept.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    fn task_arrived(&self, at: Timestamp, task: Box<Task>) -> Result<Verdict, Fault> {
        let Some(current) = self.task() else { return Ok(begin(at, task)) };
        let (old, new) = (&current.terms, &task.terms);
        if old.session == new.session {
            return Ok(Decision::nothing());
        }
        // By time first: a coordinator that was restored from a backup counts rounds from an older one.
        if (new.opened, new.round, new.attempt) <= (old.opened, old.round, old.attempt) {
            return Err(Expiry::Session.into());
        }
        if old.work() != new.work() {
            let forget = NodeEffect::Forget { work: old.work() };
            let mut verdict = begin(at, task);
            verdict.effects.insert(0, forget);
            return Ok(verdict);
        }
        // A policy decides about an attempt, not about the work: a session that was charged for may be over, and a budget raised.
        if let Phase::Declined { reason: Decline::Policy { .. }, .. } = &self.phase {
            return Ok(begin(at, task));
        }
        let verdict = Decision::nothing().event(NodeEvent::Rejoined { task: task.clone(), at });
        Ok(match &self.phase {
            Phase::Ready { update, .. } | Phase::Parked { update, .. } | Phase::Submitted { update, .. } => {
                verdict.effect(NodeEffect::Submit { task, update: *update })
            }
            Phase::Declined { reason, .. } => verdict.effect(NodeEffect::Decline { session: task.terms.session, reason: reason.clone() }),
            Phase::Idle | Phase::Training { .. } => verdict,
        })
    }

    fn trained(&self, work: Digest, update: Digest) -> Verdict {
        let Phase::Training { task, live } = &self.phase else { return Decision::nothing() };
        if task.terms.work() != work {
            return Decision::nothing();
        }
        let verdict = Decision::nothing().event(NodeEvent::Trained { update });
        if *live { verdict.effect(NodeEffect::Submit { task: task.clone(), update }) } else { verdict }
    }

    fn training_failed(&self, work: Digest, reason: Decline) -> Verdict {
        let Phase::Training { task, live } = &self.phase else { return Decision::nothing() };
        if task.terms.work() != work {
            return Decision::nothing();
        }
        let verdict = Decision::nothing().event(NodeEvent::Declined { reason: reason.clone() });
        if *live { verdict.effect(NodeEffect::Decline { session: task.terms.session, reason }) } else { verdict }
    }

    fn withdrawn(&self, session: SessionId, keep: bool) -> Verdict {
        match self.task() {
            Some(task) if task.terms.session == session => {
                if !keep {
                    self.forget()
                } else if self.is_live() {
                    Decision::nothing().event(NodeEvent::Parked)
                } else {
                    Decision::nothing()
                }
            }
            // Of an attempt that was superseded already.
            _ => Decision::nothing(),
        }
    }

    fn receipt(&self, session: SessionId, outcome: Receipt) -> Verdict {
        if !self.is_live() || self.task().is_none_or(|task| task.terms.session != session) {
            return Decision::nothing();
        }
        match (&self.phase, outcome) {
            (Phase::Ready { .. } | Phase::Declined { .. }, Receipt::Accepted) => Decision::nothing().event(NodeEvent::Answered),
            (Phase::Ready { .. } | Phase::Submitted { .. } | Phase::Declined { .. }, Receipt::Expired) => {
                Decision::nothing().event(NodeEvent::Parked)
            }
            (Phase::Ready { .. } | Phase::Declined { .. }, Receipt::Refused) => self.forget(),
            _ => Decision::nothing(),
        }
    }

    /// What the coordinator has not answered yet.
    fn again(&self) -> Verdict {
        match &self.phase {
            Phase::Ready { task, update } => Decision::nothing().effect(NodeEffect::Submit { task: task.clone(), update: *update }),
            Phase::Declined { task, reason, answered: false } => {
                Decision::nothing().effect(NodeEffect::Decline { session: task.terms.session, reason: reason.clone() })
            }
            _ => Decision::nothing(),
        }
    }

    fn forget(&self) -> Verdict {
        match self.task() {
            Some(task) => Decision::nothing().event(NodeEvent::Forgotten).effect(NodeEffect::Forget { work: task.terms.work() }),
            None => Decision::nothing(),
        }
    }

    /// Whether the attempt is not known to be over.
    fn is_live(&self) -> bool {
        match &self.phase {
            Phase::Idle | Phase::Parked { .. } => false,
            Phase::Training { live, .. } => *live,
            Phase::Ready { .. } | Phase::Submitted { .. } => true,
            Phase::Declined { answered, .. } => !answered,
        }
    }
}

fn begin(at: Timestamp, task: Box<Task>) -> Verdict {
    let work = task.terms.work();
    Decision::nothing().event(NodeEvent::Accepted { task: task.clone(), at }).effect(NodeEffect::Train { task, work })
}

impl Phase {
    fn task(&self) -> Option<&Task> {
        match self {
            Self::Idle => None,
            Self::Training { task, .. }
            | Self::Ready { task, .. }
            | Self::Parked { task, .. }
            | Self::Submitted { task, .. }
            | Self::Declined { task, .. } => Some(task),
        }
    }
}

impl Machine for NodeRound {
    type Input = NodeInput;
    type Event = NodeEvent;
    type Effect = NodeEffect;

    fn decide(&self, cx: &mut Cx<'_>, input: NodeInput) -> Result<Verdict, Fault> {
        Ok(match input {
            NodeInput::Task(task) => return self.task_arrived(cx.now, task),
            NodeInput::Withdrawn { session, keep } => self.withdrawn(session, keep),
            NodeInput::Trained { work, update } => self.trained(work, update),
            NodeInput::TrainingFailed { work, reason } => self.training_failed(work, reason),
            NodeInput::Receipt { session, outcome } => self.receipt(session, outcome),
            NodeInput::Reconnected => self.again(),
            NodeInput::Tick => match self.deadline() {
                Some(deadline) if cx.now >= deadline => self.forget(),
                _ => Decision::nothing(),
            },
        })
    }

    fn apply(self, event: &NodeEvent) -> Self {
        let since = match event {
            NodeEvent::Accepted { at, .. } | NodeEvent::Rejoined { at, .. } => *at,
            _ => self.since,
        };
        let phase = match (self.phase, event) {
            (_, NodeEvent::Accepted { task, .. }) => Phase::Training { task: task.clone(), live: true },
            (Phase::Training { .. }, NodeEvent::Rejoined { task, .. }) => Phase::Training { task: task.clone(), live: true },
            (
                Phase::Ready { update, .. } | Phase::Parked { update, .. } | Phase::Submitted { update, .. },
                NodeEvent::Rejoined { task, .. },
            ) => Phase::Ready { task: task.clone(), update },
            (Phase::Declined { reason, .. }, NodeEvent::Rejoined { task, .. }) => {
                Phase::Declined { task: task.clone(), reason, answered: false }
            }
            (Phase::Training { task, live: true }, NodeEvent::Trained { update }) => Phase::Ready { task, update: *update },
            (Phase::Training { task, live: false }, NodeEvent::Trained { update }) => Phase::Parked { task, update: *update },
            (Phase::Training { task, live }, NodeEvent::Declined { reason }) => {
                Phase::Declined { task, reason: reason.clone(), answered: !live }
            }
            (Phase::Ready { task, update }, NodeEvent::Answered) => Phase::Submitted { task, update },
            (Phase::Declined { task, reason, .. }, NodeEvent::Answered | NodeEvent::Parked) => {
                Phase::Declined { task, reason, answered: true }
            }
            (Phase::Training { task, .. }, NodeEvent::Parked) => Phase::Training { task, live: false },
            (Phase::Ready { task, update } | Phase::Submitted { task, update }, NodeEvent::Parked) => Phase::Parked { task, update },
            (_, NodeEvent::Forgotten) => Phase::Idle,
            (phase, _) => phase,
        };
        Self { phase, since }
    }

    /// The update was in memory: it is trained again, to the same bits. What was answered stays answered.
    fn recover(&self, cx: &mut Cx<'_>) -> Verdict {
        match &self.phase {
            Phase::Training { task, .. } => Decision::nothing().effect(NodeEffect::Train { task: task.clone(), work: task.terms.work() }),
            Phase::Ready { task, .. } => begin(cx.now, task.clone()),
            // Should the same work be asked for again, it is done again then.
            Phase::Parked { .. } | Phase::Submitted { .. } => self.forget(),
            Phase::Declined { .. } => self.again(),
            Phase::Idle => Decision::nothing(),
        }
    }

    /// Two rounds' time after the task came nobody will ask for the update any more. Only spans are taken from the
    /// coordinator's clock.
    fn deadline(&self) -> Option<Timestamp> {
        let terms = &self.task()?.terms;
        Some(self.since + 2 * terms.deadline.since(terms.opened))
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;

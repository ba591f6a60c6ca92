//! Why a node has no part in an attempt, and why an attempt came to nothing. All typed, all printable.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a node declines a task. It costs the node the round, not its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[serde(tag = "decline", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Decline {
    /// A data set breaks its schema, or the model's input.
    #[error("bad data: {why}")]
    BadData {
        /// File, row, column, and what is wrong there.
        why: String,
    },
    /// No such data set, or an empty one.
    #[error("no data: {why}")]
    NoData {
        /// What was looked for.
        why: String,
    },
    /// The loss or a parameter left the finite numbers.
    #[error("training diverged: {why}")]
    Diverged {
        /// Where.
        why: String,
    },
    /// The model cannot be trained here.
    #[error("the model cannot be trained: {why}")]
    Model {
        /// Which operator and node.
        why: String,
    },
    /// The node's operator does not allow it.
    #[error("against this node's policy: {why}")]
    Policy {
        /// Which rule.
        why: String,
    },
    /// The coordinator, or a neighbour, broke the secure sum's protocol, and this node left it.
    #[error("the secure sum was left: {why}")]
    SecureSum {
        /// What was wrong.
        why: String,
    },
    /// No time, memory or space for it now.
    #[error("out of resources: {why}")]
    Resources {
        /// Which.
        why: String,
    },
}

/// Why a member has no part in an attempt any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[serde(tag = "dropped", rename_all = "snake_case", deny_unknown_fields)]
pub enum DropReason {
    /// It said so.
    #[error("declined: {reason}")]
    Declined {
        /// Why.
        reason: Decline,
    },
    /// No answer by the deadline.
    #[error("no answer by the deadline")]
    Straggler,
    /// Enough others were faster.
    #[error("enough others were faster")]
    Surplus,
}

/// Why an attempt came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[serde(tag = "abort", rename_all = "snake_case", deny_unknown_fields)]
pub enum AbortReason {
    /// Too few eligible nodes when selection ended.
    #[error("{have} of at least {need} nodes were there when selection ended")]
    TooFewNodes {
        /// Eligible.
        have: u32,
        /// The minimum.
        need: u32,
    },
    /// Too few members answered.
    #[error("{have} of at least {need} updates arrived{}", .declined.as_ref().map(|first| format!("; {first}")).unwrap_or_default())]
    TooFewUpdates {
        /// Accepted, or still possible.
        have: u32,
        /// The minimum.
        need: u32,
        /// The first node that declined, and why, if any did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        declined: Option<String>,
    },
    /// The vectors were in memory and are gone. Does not count as a failure of the round.
    #[error("the coordinator restarted")]
    CoordinatorRestarted,
    /// The secure sum cannot be finished. Nothing of it was revealed.
    #[error("the sum was given up in {stage}: {why}")]
    SecureSum {
        /// In which stage.
        stage: String,
        /// Why.
        why: String,
    },
    /// The sum does not decode, or the model it gives is not finite.
    #[error("the sum is unusable: {why}")]
    BadSum {
        /// How.
        why: String,
    },
}

impl AbortReason {
    /// Whether the attempt counts against the limit of the round.
    pub fn counts(&self) -> bool {
        !matches!(self, Self::CoordinatorRestarted)
    }
}

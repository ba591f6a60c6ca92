//! What nodes say about themselves.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    digest::Digest,
    ids::{DeviceClass, NodeId, RingId},
    release::RuntimeVersion,
    time::Timestamp,
};

/// A node's answer to its newest assignment. It is resent whenever it changes and at every connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeStatus {
    /// The newest assignment that the node has taken in; 0 before the first.
    pub assignment: u64,
    /// The bundle that answers requests now. Not the one that it was told to run.
    pub running: Option<Digest>,
    /// How the assignment fares.
    pub health: Health,
}

/// How an assignment fares on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Health {
    /// It runs, and was seen healthy for the node's own window.
    Healthy,
    /// It ran and failed, or what runs now fails; the node has gone back as far as it could.
    Unhealthy {
        /// What was seen.
        why: String,
    },
    /// Under way.
    Working {
        /// Where.
        step: Step,
    },
    /// Not taken; nothing has changed on the node.
    Refused {
        /// The reason.
        why: Refusal,
    },
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Healthy => f.write_str("healthy"),
            Self::Unhealthy { why } => write!(f, "unhealthy: {why}"),
            Self::Working { step } => write!(f, "working: {step}"),
            Self::Refused { why } => write!(f, "refused: {why}"),
        }
    }
}

/// The steps of a change on a node, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Is there room, is it for this device, is the runtime new enough? Before any byte is fetched.
    Preflight,
    /// Bundle and manifest, by digest, resumable.
    Download,
    /// Signatures, checksum, parts.
    Verify,
    /// Unpacked into a slot of its own.
    Stage,
    /// Golden inputs through the staged model.
    Smoke,
    /// The slots change places.
    Exchange,
    /// It serves, and is watched.
    Trial,
    /// Back to the last known good.
    Revert,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Preflight => "preflight",
            Self::Download => "download",
            Self::Verify => "verify",
            Self::Stage => "stage",
            Self::Smoke => "smoke test",
            Self::Exchange => "exchange",
            Self::Trial => "trial",
            Self::Revert => "revert",
        })
    }
}

/// Why a node did not take a release. Nothing has changed on the node.
#[derive(Clone, Debug, PartialEq, Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "refusal")]
pub enum Refusal {
    /// R63: made for another kind of device.
    #[error("the release is for {release}, this device is {device}")]
    DeviceClass {
        /// What the bundle runs on.
        release: DeviceClass,
        /// What the node runs on.
        device: DeviceClass,
    },
    /// R46: needs a newer runtime, or any.
    #[error("the release needs ONNX Runtime {needs}, this device has {}; run `sapwood runtime install`", has.map_or_else(|| "none".to_owned(), |has| has.to_string()))]
    Runtime {
        /// Oldest that will do.
        needs: RuntimeVersion,
        /// Installed.
        has: Option<RuntimeVersion>,
    },
    /// Not enough room for bundle, slot and reserve.
    #[error("{needs} bytes are needed on the disk, {has} are free; make room, then assign again")]
    Space {
        /// Bytes.
        needs: u64,
        /// Bytes.
        has: u64,
    },
    /// A step failed.
    #[error("{step} failed: {why}")]
    Failed {
        /// Which.
        step: Step,
        /// Why.
        why: String,
    },
    /// A step took too long.
    #[error("{step} took longer than this node allows")]
    Timeout {
        /// Which.
        step: Step,
    },
    /// The process died too often.
    #[error("the node restarted {restarts} times during {step}")]
    Restarts {
        /// Where.
        step: Step,
        /// How often.
        restarts: u32,
    },
}

/// What the coordinator knows about an enrolled node, connected or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeView {
    /// Who.
    pub id: NodeId,
    /// Its label `ring`; nodes without one, or with one that the plan does not know, belong to the last ring.
    pub ring: Option<RingId>,
    /// What it can run.
    pub class: DeviceClass,
    /// What it last reported to be running.
    pub running: Option<Digest>,
    /// The newest assignment version ever sent to it or reported by it, by any rollout; 0 if none.
    pub assignment: u64,
    /// When it was last heard; `None` if never.
    pub seen: Option<Timestamp>,
}

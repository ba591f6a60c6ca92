//! What goes into the slots and what comes out.
//!
//! Effects carry a job number and inputs bring it back, so that the answer of an abandoned job is not taken for the current one's.

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    ids::DeviceClass,
    release::{ReleaseRef, RuntimeVersion},
    rollout::{Assignment, NodeStatus, Refusal, Step},
    time::Timestamp,
};

/// What the device is and has, looked at before a download.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Whose bundles it runs.
    pub class: DeviceClass,
    /// Its ONNX Runtime; `None` if there is none.
    pub runtime: Option<RuntimeVersion>,
    /// Free bytes where the slots lie.
    pub free_bytes: u64,
}

/// One message, one result, or one look at the clock.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// An order from the coordinator.
    Assigned(Assignment),
    /// The answer to [`Effect::Preflight`].
    Inspected {
        /// The job of the effect.
        job: u64,
        /// What was found.
        device: Device,
    },
    /// [`Effect::Download`], [`Effect::Verify`], [`Effect::Stage`] or [`Effect::SmokeTest`] succeeded.
    Passed {
        /// The job of the effect.
        job: u64,
        /// Which of them.
        step: Step,
    },
    /// An effect failed for good (a download is retried by the shell until its own patience ends).
    Failed {
        /// The job of the effect.
        job: u64,
        /// Which.
        step: Step,
        /// Why.
        why: String,
    },
    /// [`Effect::Exchange`] succeeded: this bundle answers now.
    Exchanged {
        /// The job of the effect.
        job: u64,
        /// What answers now.
        to: Option<Digest>,
    },
    /// A probe of what answers now succeeded.
    Healthy {
        /// What was probed.
        running: Digest,
    },
    /// A probe of what answers now failed for good.
    Unhealthy {
        /// What was probed.
        running: Digest,
        /// What was seen.
        why: String,
    },
    /// The serving process died and was started again. (A restart of the whole node is seen by `recover`.)
    Restarted,
    /// Connected again: the coordinator wants to know where we are.
    Reconnected,
    /// Look at the clock.
    Tick,
}

/// How an assignment ended on this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// It is what answers.
    Accepted,
    /// Refused before anything changed.
    Refused {
        /// The reason.
        why: Refusal,
    },
    /// It answered for a while; the last known good answers again.
    FellBack {
        /// What was seen.
        why: String,
    },
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// An order was taken in.
    Assigned {
        /// The order.
        assignment: Assignment,
        /// When.
        at: Timestamp,
    },
    /// A step of the installation is done.
    Passed {
        /// Which.
        step: Step,
        /// When.
        at: Timestamp,
    },
    /// The newcomer answers; its trial begins.
    Exchanged {
        /// When.
        at: Timestamp,
    },
    /// The newcomer's first good probe.
    Probed,
    /// The process died while the newcomer was handled.
    Restarted {
        /// When.
        at: Timestamp,
    },
    /// The newcomer is the committed release; the one before is kept as last known good.
    Committed,
    /// The newcomer was refused; nothing has changed.
    Refused {
        /// The reason.
        why: Refusal,
    },
    /// Back to the committed release.
    Reverting {
        /// How the assignment ended; `None`: a newer one waits.
        verdict: Option<Verdict>,
        /// When.
        at: Timestamp,
    },
    /// The committed release answers again.
    Reverted {
        /// When.
        at: Timestamp,
    },
    /// Nothing answers, as ordered.
    Withdrawn,
    /// What answers fails its probes.
    Ailing {
        /// What was seen.
        why: String,
    },
    /// What answers passes its probes again.
    Recovered,
    /// The committed release cannot be loaded any more: the last known good takes its place.
    Demoted {
        /// Why.
        why: String,
        /// When.
        at: Timestamp,
    },
    /// An exchange that must succeed is tried again.
    Retried {
        /// When.
        at: Timestamp,
    },
}

/// One thing to do. All are idempotent: after a crash they are asked for again. They are carried out in order, one at a time;
/// an exchange is never overtaken by another.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Look at the device; answer [`Input::Inspected`].
    Preflight {
        /// To be brought back.
        job: u64,
    },
    /// Fetch manifest and bundle by digest, going on where an earlier try ended; fetch nothing that is held already.
    Download {
        /// To be brought back.
        job: u64,
        /// Which.
        release: ReleaseRef,
    },
    /// Check signatures, checksum and parts against the trust file.
    Verify {
        /// To be brought back.
        job: u64,
        /// Which.
        release: ReleaseRef,
    },
    /// Unpack into a slot named by the bundle's digest, whole or not at all.
    Stage {
        /// To be brought back.
        job: u64,
        /// Which.
        release: ReleaseRef,
    },
    /// Run the golden inputs through the staged model.
    SmokeTest {
        /// To be brought back.
        job: u64,
        /// Which.
        release: ReleaseRef,
    },
    /// Let this bundle answer, or nothing, in one atomic step; answer [`Input::Exchanged`], or [`Input::Failed`] with
    /// [`Step::Exchange`]. A bundle that answers already is loaded again only if it must be.
    Exchange {
        /// To be brought back.
        job: u64,
        /// Which.
        to: Option<ReleaseRef>,
    },
    /// Probe what answers, and say [`Input::Healthy`] or [`Input::Unhealthy`]; a verdict is wanted by `until`.
    Watch {
        /// The end of the trial.
        until: Timestamp,
    },
    /// Tell the coordinator.
    Report(NodeStatus),
    /// Remove every slot, bundle and partial download but these.
    Prune {
        /// Bundles that stay.
        keep: Vec<Digest>,
    },
}

impl Event {
    /// Every kind, for exhaustive tests and stores.
    pub const KINDS: &[&str] = &[
        "assigned",
        "passed",
        "exchanged",
        "probed",
        "restarted",
        "committed",
        "refused",
        "reverting",
        "reverted",
        "withdrawn",
        "ailing",
        "recovered",
        "demoted",
        "retried",
    ];

    /// The kind as stored.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Assigned { .. } => "assigned",
            Self::Passed { .. } => "passed",
            Self::Exchanged { .. } => "exchanged",
            Self::Probed => "probed",
            Self::Restarted { .. } => "restarted",
            Self::Committed => "committed",
            Self::Refused { .. } => "refused",
            Self::Reverting { .. } => "reverting",
            Self::Reverted { .. } => "reverted",
            Self::Withdrawn => "withdrawn",
            Self::Ailing { .. } => "ailing",
            Self::Recovered => "recovered",
            Self::Demoted { .. } => "demoted",
            Self::Retried { .. } => "retried",
        }
    }
}

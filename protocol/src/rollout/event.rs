//! What goes into a rollout and what comes out.

use serde::{Deserialize, Serialize};

use super::{Assignment, NodeStatus, NodeView};
use crate::{
    ids::{NodeId, ReleaseId, RingId},
    release::{ReleaseRef, manifest::RolloutPolicy},
    time::Timestamp,
};

/// One message, or one look at the clock.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Begin.
    Start,
    /// Look at the clock.
    Tick,
    /// All enrolled nodes, connected or not; the answer to [`Effect::Roster`], and sent whenever a node is enrolled or comes back.
    Roster(Vec<NodeView>),
    /// A node's report.
    Report {
        /// By the certificate.
        node: NodeId,
        /// What it says.
        status: NodeStatus,
    },
    /// An operator stops it.
    Abort {
        /// Who.
        by: String,
    },
    /// A newer rollout takes over.
    Supersede {
        /// Of which release.
        by: ReleaseId,
    },
}

/// The first fact of a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Created {
    /// What spreads.
    pub release: ReleaseRef,
    /// What a failing ring goes back to; `None` at the first release.
    pub previous: Option<ReleaseRef>,
    /// Rings in order, soak, timeout.
    pub policy: RolloutPolicy,
    /// When.
    pub at: Timestamp,
}

/// An assignment's version for one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// To whom.
    pub node: NodeId,
    /// Newer than any that the node has seen, as far as we know.
    pub version: u64,
}

/// One fact. Each carries why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// It exists.
    Created(Box<Created>),
    /// It may open its first ring.
    Started {
        /// When.
        at: Timestamp,
    },
    /// A ring without nodes of the release's class: a no-op, on the record.
    RingSkipped {
        /// Which.
        ring: RingId,
        /// Why.
        why: String,
    },
    /// A ring's nodes are assigned the release.
    RingOpened {
        /// Which.
        ring: RingId,
        /// Its nodes.
        members: Vec<Order>,
        /// When.
        at: Timestamp,
        /// What allowed it.
        why: String,
    },
    /// A member runs the release and is healthy.
    NodeConfirmed {
        /// Who.
        node: NodeId,
        /// Since when.
        at: Timestamp,
    },
    /// A node failed: by its report, or by silence.
    NodeFailed {
        /// Who.
        node: NodeId,
        /// How.
        why: String,
    },
    /// Every member has been healthy for the soak time.
    RingPassed {
        /// Which.
        ring: RingId,
        /// The numbers.
        why: String,
    },
    /// A ring goes back, and only this one.
    RingHalted {
        /// Which.
        ring: RingId,
        /// Its nodes, with the versions of their orders to go back.
        reverts: Vec<Order>,
        /// When.
        at: Timestamp,
        /// Why.
        why: String,
    },
    /// A node of the halted ring runs the previous release again.
    NodeReverted {
        /// Who.
        node: NodeId,
    },
    /// A node had seen a newer order than we knew: its order is given again under a newer version.
    Reordered {
        /// To whom, and the new version.
        order: Order,
        /// When.
        at: Timestamp,
        /// What it reported.
        why: String,
    },
    /// A node that was away, or is new, gets the release of its ring, which has passed.
    CaughtUp {
        /// To whom.
        order: Order,
        /// Which ring's release it gets.
        ring: RingId,
        /// When.
        at: Timestamp,
        /// Why.
        why: String,
    },
    /// The end: every ring has passed.
    Completed {
        /// Nodes that confirmed; with none of them, the rollout was a no-op.
        nodes: usize,
        /// The numbers.
        why: String,
    },
    /// The end: the halted ring runs the previous release again.
    RolledBack {
        /// Which ring.
        ring: RingId,
    },
    /// The end: some nodes of the halted ring have not reported the previous release in time.
    HaltedNotConverged {
        /// Which ring.
        ring: RingId,
        /// Who is missing.
        missing: Vec<NodeId>,
    },
    /// The end: an operator stopped it while no ring was open. (An open ring is halted instead, and goes back.)
    Aborted {
        /// Who.
        by: String,
    },
    /// The end: a newer rollout took over.
    Superseded {
        /// Of which release.
        by: ReleaseId,
    },
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "effects are few and soon carried out")]
pub enum Effect {
    /// Send an order; again after a crash.
    Assign {
        /// To whom.
        node: NodeId,
        /// The order.
        assignment: Assignment,
    },
    /// Answer with [`Input::Roster`].
    Roster,
}

impl Event {
    /// Every kind, for exhaustive tests and stores.
    pub const KINDS: &[&str] = &[
        "created",
        "started",
        "ring_skipped",
        "ring_opened",
        "node_confirmed",
        "node_failed",
        "ring_passed",
        "ring_halted",
        "node_reverted",
        "reordered",
        "caught_up",
        "completed",
        "rolled_back",
        "halted_not_converged",
        "aborted",
        "superseded",
    ];

    /// The kind as stored.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Created(_) => "created",
            Self::Started { .. } => "started",
            Self::RingSkipped { .. } => "ring_skipped",
            Self::RingOpened { .. } => "ring_opened",
            Self::NodeConfirmed { .. } => "node_confirmed",
            Self::NodeFailed { .. } => "node_failed",
            Self::RingPassed { .. } => "ring_passed",
            Self::RingHalted { .. } => "ring_halted",
            Self::NodeReverted { .. } => "node_reverted",
            Self::Reordered { .. } => "reordered",
            Self::CaughtUp { .. } => "caught_up",
            Self::Completed { .. } => "completed",
            Self::RolledBack { .. } => "rolled_back",
            Self::HaltedNotConverged { .. } => "halted_not_converged",
            Self::Aborted { .. } => "aborted",
            Self::Superseded { .. } => "superseded",
        }
    }
}

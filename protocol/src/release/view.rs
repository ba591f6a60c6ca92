//! What the command line and `--json` show of releases, rollouts and nodes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{gates::GateReport, manifest::PrivacyStatement, reference::Signatures};
use crate::{
    digest::Digest,
    ids::{DeviceClass, NodeId, ReleaseId, RingId, RunId},
    rollout::{Health, Outcome},
    time::Timestamp,
};

/// One release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleaseView {
    /// `NAME-VERSION`.
    pub release: ReleaseId,
    /// The released digest.
    pub digest: Digest,
    /// Of the manifest.
    pub manifest: Digest,
    /// Length of the bundle.
    pub bytes: u64,
    /// Detached signatures of both.
    pub signatures: Signatures,
    /// For which devices.
    pub class: DeviceClass,
    /// From which run.
    pub run: RunId,
    /// When it was built.
    pub created: Timestamp,
    /// The gates with their numbers.
    pub gates: GateReport,
    /// What is promised.
    pub privacy: PrivacyStatement,
}

/// One rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutView {
    /// Of which release.
    pub release: ReleaseId,
    /// Its digest.
    pub digest: Digest,
    /// What failing nodes go back to.
    pub previous: Option<ReleaseId>,
    /// How it ended; `None` while it goes on.
    pub outcome: Option<Outcome>,
    /// In order.
    pub rings: Vec<RingView>,
    /// The last decision's reason.
    pub why: String,
    /// When it must move on by itself.
    pub deadline: Option<Timestamp>,
}

/// One ring of a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RingView {
    /// Its name.
    pub ring: RingId,
    /// `waiting`, `open`, `passed`, `skipped`, `reverting`, `reverted`.
    pub state: String,
    /// Why it is in this state.
    pub why: String,
    /// Its nodes.
    pub nodes: BTreeMap<NodeId, String>,
}

/// One node of the fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its name.
    pub node: NodeId,
    /// Its ring label.
    pub ring: Option<RingId>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it can run.
    pub class: DeviceClass,
    /// Whether it is connected now.
    pub connected: bool,
    /// When it was last heard.
    pub seen: Option<Timestamp>,
    /// What it reported to be running.
    pub running: Option<Digest>,
    /// How that fares.
    pub health: Option<Health>,
    /// The newest assignment that it has confirmed.
    pub assignment: u64,
}

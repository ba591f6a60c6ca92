//! The slots' state.

use std::time::Duration;

use super::{Effect, Event, Input};
use crate::{
    fault::Fault,
    machine::{Cx, Decision, Machine},
    release::ReleaseRef,
    rollout::{Health, NodeStatus},
    time::Timestamp,
};

/// What a node's operator sets.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Longest download.
    pub download: Duration,
    /// Longest other step.
    pub step: Duration,
    /// How long a newcomer must be healthy before it is committed.
    pub window: Duration,
    /// Restarts during one newcomer's smoke test, exchange and trial that are forgiven.
    pub restarts: u32,
    /// Bytes that must stay free on the disk.
    pub reserve: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { download: Duration::from_secs(24 * 3600), step: Duration::from_secs(120), window: Duration::from_secs(30), restarts: 3, reserve: 64 << 20 }
    }
}

/// A node's slots. Starts empty; every event is kept by the node.
#[derive(Clone, Debug, PartialEq)]
pub struct Slots {
    policy: Policy,
}

impl Slots {
    /// Nothing assigned, nothing served.
    pub fn new(policy: Policy) -> Self {
        Self { policy }
    }
    /// The committed release: what the node falls back to while a newcomer is tried.
    pub fn committed(&self) -> Option<&ReleaseRef> {
        None
    }
    /// The release committed before.
    pub fn last_known_good(&self) -> Option<&ReleaseRef> {
        None
    }
    /// What to tell the coordinator.
    pub fn status(&self) -> NodeStatus {
        NodeStatus { assignment: 0, running: None, health: Health::Healthy }
    }
}

impl Machine for Slots {
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

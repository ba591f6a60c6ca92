//! The rollout's state, and how facts move it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Assignment, Created, Event, Order};
use crate::{
    digest::Digest,
    fault::{Fault, Misuse},
    ids::{NodeId, ReleaseId, RingId},
    machine::Machine,
    release::{
        ReleaseRef,
        manifest::Strategy,
        view::{RingView, RolloutView},
    },
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
    /// Stopped by an operator before any ring was open, or between two.
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

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Completed { nodes } => write!(f, "completed on {nodes} nodes"),
            Self::RolledBack { ring } => write!(f, "rolled back in ring {ring}"),
            Self::HaltedNotConverged { ring, missing } => {
                write!(f, "halted in ring {ring}; {} nodes have not gone back yet", missing.len())
            }
            Self::Aborted { by } => write!(f, "aborted by {by}"),
            Self::Superseded { by } => write!(f, "superseded by {by}"),
        }
    }
}

/// One rollout. Its first event is [`Event::Created`].
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    pub(super) created: Created,
    pub(super) phase: Phase,
    /// In the order of the policy.
    pub(super) rings: Vec<Ring>,
    /// Everyone who was given an order by this rollout.
    pub(super) members: BTreeMap<NodeId, Member>,
    /// A newer rollout gives the orders now.
    pub(super) superseded: bool,
    why: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Phase {
    /// Not started.
    Created,
    /// This ring opens at the next roster.
    Waiting { next: usize },
    /// Its members are being watched.
    Open { ring: usize },
    /// Its members go back.
    Reverting { ring: usize },
    /// Over.
    Done(Outcome),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ring {
    pub(super) id: RingId,
    pub(super) state: RingState,
    why: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum RingState {
    Waiting,
    Open,
    Passed,
    Skipped,
    Reverting,
    Reverted,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub(super) ring: usize,
    /// Of its newest order.
    pub(super) version: u64,
    /// When that was given.
    pub(super) ordered: Timestamp,
    pub(super) state: MemberState,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum MemberState {
    /// Ordered to run the release.
    Pending,
    /// Runs it, healthy.
    Confirmed { since: Timestamp },
    /// Failed with it.
    Failed { why: String },
    /// Ordered to run the previous release.
    Reverting,
    /// Runs it again.
    Reverted,
}

impl Rollout {
    /// The state after [`Event::Created`]. Refuses a plan that cannot be carried out.
    pub fn create(created: Created) -> Result<Self, Fault> {
        let fault = |key: &str, why: &str| Err(Misuse::Setting { key: format!("rollout.{key}"), why: why.to_owned() }.into());
        let policy = &created.policy;
        if policy.strategy != Strategy::Rings {
            return fault("strategy", "this version carries out \"rings\" alone");
        }
        if policy.rings.is_empty() {
            return fault("rings", "name at least one ring");
        }
        if policy.rings.iter().enumerate().any(|(index, ring)| policy.rings[..index].contains(ring)) {
            return fault("rings", "a ring is named twice");
        }
        if policy.health_timeout.is_zero() {
            return fault("health_timeout", "a node needs some time to confirm its health");
        }
        let rings =
            policy.rings.iter().map(|id| Ring { id: id.clone(), state: RingState::Waiting, why: "not its turn yet".into() }).collect();
        Ok(Self { created, phase: Phase::Created, rings, members: BTreeMap::new(), superseded: false, why: "created".into() })
    }

    /// The state after `events`; the first one must be [`Event::Created`].
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<Self, Fault> {
        let mut events = events.into_iter();
        let Some(Event::Created(created)) = events.next() else {
            return Err(Misuse::State { what: "a rollout's events".into(), why: "the first one is not `created`".into() }.into());
        };
        Ok(events.fold(Self::create((**created).clone())?, Self::apply))
    }

    /// What it was created with.
    pub fn created(&self) -> &Created {
        &self.created
    }

    /// How it ended, if it has. An ended rollout still lets latecomers catch up, until a newer one takes over.
    pub fn outcome(&self) -> Option<&Outcome> {
        if let Phase::Done(outcome) = &self.phase { Some(outcome) } else { None }
    }

    /// Whether a newer rollout gives the orders: nothing follows from this one any more.
    pub fn is_superseded(&self) -> bool {
        self.superseded
    }

    /// For people and scripts.
    pub fn view(&self) -> RolloutView {
        let rings = self.rings.iter().enumerate().map(|(index, ring)| RingView {
            ring: ring.id.clone(),
            state: ring.state.word().into(),
            why: ring.why.clone(),
            nodes: self.of_ring(index).map(|(node, member)| (node.clone(), member.state.to_string())).collect(),
        });
        RolloutView {
            release: self.created.release.release.clone(),
            digest: self.created.release.bundle,
            previous: self.created.previous.as_ref().map(|previous| previous.release.clone()),
            outcome: self.outcome().cloned(),
            rings: rings.collect(),
            why: self.why.clone(),
            deadline: self.deadline(),
        }
    }

    pub(super) fn of_ring(&self, ring: usize) -> impl Iterator<Item = (&NodeId, &Member)> {
        self.members.iter().filter(move |(_, member)| member.ring == ring)
    }

    pub(super) fn confirmed(&self) -> usize {
        self.members.values().filter(|member| matches!(member.state, MemberState::Confirmed { .. })).count()
    }

    /// What a member is to run, by its newest order.
    pub(super) fn assignment(&self, member: &Member) -> Assignment {
        let release: Option<&ReleaseRef> = match member.state {
            MemberState::Reverting | MemberState::Reverted => self.created.previous.as_ref(),
            MemberState::Pending | MemberState::Confirmed { .. } | MemberState::Failed { .. } => Some(&self.created.release),
        };
        Assignment { version: member.version, release: release.cloned() }
    }

    pub(super) fn previous(&self) -> Option<Digest> {
        self.created.previous.as_ref().map(|previous| previous.bundle)
    }

    fn ring(&mut self, id: &RingId, state: RingState, why: &str) -> Option<usize> {
        let index = self.rings.iter().position(|ring| ring.id == *id)?;
        self.rings[index].state = state;
        self.rings[index].why = why.to_owned();
        self.why = format!("ring {id}: {why}");
        Some(index)
    }

    fn order(&mut self, order: &Order, ring: usize, ordered: Timestamp, state: MemberState) {
        self.members.insert(order.node.clone(), Member { ring, version: order.version, ordered, state });
    }

    fn settle(&mut self, node: &NodeId, state: MemberState) {
        if let Some(member) = self.members.get_mut(node) {
            member.state = state;
        }
    }

    pub(super) fn moved(mut self, event: &Event) -> Self {
        match event {
            Event::Created(_) => {}
            Event::Started { .. } => self.phase = Phase::Waiting { next: 0 },
            Event::RingSkipped { ring, why } => {
                if let Some(index) = self.ring(ring, RingState::Skipped, why) {
                    self.phase = Phase::Waiting { next: index + 1 };
                }
            }
            Event::RingOpened { ring, members, at, why } => {
                if let Some(index) = self.ring(ring, RingState::Open, why) {
                    self.phase = Phase::Open { ring: index };
                    for order in members {
                        self.order(order, index, *at, MemberState::Pending);
                    }
                }
            }
            Event::NodeConfirmed { node, at } => self.settle(node, MemberState::Confirmed { since: *at }),
            Event::NodeFailed { node, why } => {
                self.why = format!("node {node}: {why}");
                self.settle(node, MemberState::Failed { why: why.clone() });
            }
            Event::RingPassed { ring, why } => {
                if let Some(index) = self.ring(ring, RingState::Passed, why) {
                    self.phase = Phase::Waiting { next: index + 1 };
                }
            }
            Event::RingHalted { ring, reverts, at, why } => {
                if let Some(index) = self.ring(ring, RingState::Reverting, why) {
                    self.phase = Phase::Reverting { ring: index };
                    for order in reverts {
                        self.order(order, index, *at, MemberState::Reverting);
                    }
                }
            }
            Event::NodeReverted { node } => self.settle(node, MemberState::Reverted),
            Event::Reordered { order, at, .. } => {
                if let Some(member) = self.members.get_mut(&order.node) {
                    member.version = order.version;
                    member.ordered = *at;
                    member.state = match &member.state {
                        MemberState::Reverting | MemberState::Reverted => MemberState::Reverting,
                        _ => MemberState::Pending,
                    };
                }
            }
            Event::CaughtUp { order, ring, at, .. } => {
                if let Some(index) = self.rings.iter().position(|known| known.id == *ring) {
                    self.order(order, index, *at, MemberState::Pending);
                }
            }
            Event::Completed { nodes, why } => {
                self.why.clone_from(why);
                self.phase = Phase::Done(Outcome::Completed { nodes: *nodes });
            }
            Event::RolledBack { ring } => {
                self.ring(ring, RingState::Reverted, "every node of it runs the previous release again");
                self.phase = Phase::Done(Outcome::RolledBack { ring: ring.clone() });
            }
            Event::HaltedNotConverged { ring, missing } => {
                let names: Vec<&str> = missing.iter().map(NodeId::as_str).collect();
                self.ring(ring, RingState::Reverting, &format!("still waiting for the previous release on {}", names.join(", ")));
                self.phase = Phase::Done(Outcome::HaltedNotConverged { ring: ring.clone(), missing: missing.clone() });
            }
            Event::Aborted { by } => {
                self.why = format!("stopped by {by}");
                self.phase = Phase::Done(Outcome::Aborted { by: by.clone() });
            }
            Event::Superseded { by } => {
                self.superseded = true;
                if self.outcome().is_none() {
                    self.why = format!("the rollout of {by} took over");
                    self.phase = Phase::Done(Outcome::Superseded { by: by.clone() });
                }
            }
        }
        self
    }
}

impl RingState {
    fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Open => "open",
            Self::Passed => "passed",
            Self::Skipped => "skipped",
            Self::Reverting => "reverting",
            Self::Reverted => "reverted",
        }
    }
}

impl std::fmt::Display for MemberState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pending => f.write_str("ordered"),
            Self::Confirmed { since } => write!(f, "healthy since {since}"),
            Self::Failed { why } => write!(f, "failed: {why}"),
            Self::Reverting => f.write_str("going back"),
            Self::Reverted => f.write_str("went back"),
        }
    }
}

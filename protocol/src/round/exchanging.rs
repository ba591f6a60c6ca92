//! The small messages of the secure sum: keys, shares, consistency, unmasking. Who has sent what is known to the
//! [`SecureSession`](super::SecureSession) in memory; here it is decided when a stage ends, and what a stage's end means.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Decline, DropReason, Terms, attempts::Attempts, collecting::Collecting};
use crate::{
    digest::Digest,
    fault::{Expiry, Fault, Misbehaviour},
    ids::{NodeId, SessionId},
    machine::{Cx, Decision},
    run::{Effect, Event},
    time::Timestamp,
};

/// A step of the secure sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// R0: nodes train, then show the keys of this session.
    Keys,
    /// R1: they pass each other encrypted shares of their secrets.
    Shares,
    /// R2: they send masked inputs.
    Inputs,
    /// R3: they sign whose inputs are in the sum.
    Consistency,
    /// R4: they give the shares that take the masks off the sum.
    Unmasking,
}

impl Stage {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Keys => "key advertisement",
            Self::Shares => "the sharing of keys",
            Self::Inputs => "masked input",
            Self::Consistency => "the consistency check",
            Self::Unmasking => "unmasking",
        }
    }
    /// What comes behind it; nothing behind unmasking.
    pub fn next(self) -> Option<Self> {
        Self::from_number(self.number() + 1)
    }
    /// On the wire.
    pub fn number(self) -> u32 {
        self as u32
    }
    /// From the wire.
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Keys, Self::Shares, Self::Inputs, Self::Consistency, Self::Unmasking].into_iter().find(|stage| stage.number() == number)
    }
}

/// A stage in which everybody sends a small message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exchanging {
    pub(crate) attempts: Attempts,
    pub(crate) terms: Box<Terms>,
    pub(crate) stage: Stage,
    /// Who is asked for a message, in ascending order.
    pub(crate) members: Vec<NodeId>,
    /// Whose updates are in the sum, behind [`Stage::Inputs`].
    pub(crate) updates: BTreeMap<NodeId, Digest>,
    /// Who has no part any more.
    pub(crate) dropped: BTreeMap<NodeId, DropReason>,
    /// When the stage ends with those who have answered.
    pub(crate) deadline: Timestamp,
}

impl Exchanging {
    /// Key advertisement: the cohort trains first.
    pub(crate) fn open(attempts: Attempts, terms: Box<Terms>) -> Self {
        let (members, deadline) = (terms.cohort.clone(), terms.deadline);
        let attempts = attempts.opened(&terms);
        Self { attempts, terms, stage: Stage::Keys, members, updates: BTreeMap::new(), dropped: BTreeMap::new(), deadline }
    }

    /// The consistency check, over those whose masked inputs are in the sum.
    pub(crate) fn check(collecting: Collecting, members: &[NodeId], at: Timestamp) -> Self {
        let Collecting { attempts, terms, updates, dropped, .. } = collecting;
        let deadline = at + terms.exchange();
        Self { attempts, terms, stage: Stage::Consistency, members: members.to_vec(), updates, dropped, deadline }
    }

    /// A member cannot go on.
    pub(crate) fn declined(&self, node: NodeId, session: SessionId, reason: Decline) -> Result<Decision<Event, Effect>, Fault> {
        if session != self.terms.session {
            return Err(Expiry::Session.into());
        }
        if !self.terms.has(&node) {
            return Err(Misbehaviour::NotInCohort { node }.into());
        }
        if self.dropped.contains_key(&node) {
            return Ok(Decision::nothing());
        }
        // Once its input is in the sum it stays there; only its messages are not waited for.
        if self.updates.contains_key(&node) {
            return Ok(Decision::nothing().effect(Effect::Gone { node, session }));
        }
        let left = self.members.iter().filter(|member| !self.dropped.contains_key(*member) && **member != node).count();
        let event = Event::NodeDropped { node: node.clone(), reason: DropReason::Declined { reason } };
        let decision = Decision::nothing().event(event).effect(Effect::Gone { node, session });
        // Too few can answer: to wait for them would only cost time.
        let hopeless = left < self.terms.minimum as usize;
        Ok(if hopeless { decision.effect(Effect::CloseStage { session, stage: self.stage }) } else { decision })
    }

    /// Time has passed.
    pub(crate) fn tick(&self, cx: &Cx<'_>) -> Decision<Event, Effect> {
        if cx.now >= self.deadline { self.end() } else { Decision::nothing() }
    }

    /// Everybody who can answer has answered, or it is late.
    pub(crate) fn end(&self) -> Decision<Event, Effect> {
        Decision::nothing().effect(Effect::CloseStage { session: self.terms.session, stage: self.stage })
    }

    /// The stage was closed with these.
    pub(crate) fn next(self, members: &[NodeId], at: Timestamp) -> Next {
        let within = if self.stage == Stage::Shares { self.terms.upload_within() } else { self.terms.exchange() };
        let deadline = at + within;
        let Self { attempts, terms, updates, dropped, .. } = self;
        let members = members.to_vec();
        let stage = match self.stage {
            Stage::Keys => Stage::Shares,
            Stage::Shares | Stage::Inputs => return Next::Collecting(Collecting { attempts, terms, members, updates, dropped, deadline }),
            Stage::Consistency => Stage::Unmasking,
            Stage::Unmasking => {
                return Next::Committing(Self { attempts, terms, stage: Stage::Unmasking, members, updates, dropped, deadline });
            }
        };
        Next::Exchanging(Self { attempts, terms, stage, members, updates, dropped, deadline })
    }

    pub(crate) fn drop(mut self, node: &NodeId, reason: &DropReason) -> Self {
        if *reason != DropReason::Surplus {
            self.attempts.unreliable.insert(node.clone());
        }
        self.dropped.insert(node.clone(), reason.clone());
        self
    }
}

/// What follows a stage.
pub(crate) enum Next {
    Exchanging(Exchanging),
    Collecting(Collecting),
    Committing(Exchanging),
}

/// Events for those who are left behind when a stage ends with `members`, and word to them.
pub(crate) fn left_behind(
    terms: &Terms,
    dropped: &BTreeMap<NodeId, DropReason>,
    members: &[NodeId],
    reason: &DropReason,
) -> Decision<Event, Effect> {
    let mut decision = Decision::nothing();
    for node in &terms.cohort {
        if members.binary_search(node).is_err() && !dropped.contains_key(node) {
            decision.events.push(Event::NodeDropped { node: node.clone(), reason: reason.clone() });
            decision.effects.push(Effect::Withdraw { node: node.clone(), session: terms.session, keep: false });
        }
    }
    decision
}

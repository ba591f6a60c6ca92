//! Collecting: members train and send; each update is counted once, added, and forgotten.

use std::collections::BTreeMap;

use super::{AbortReason, Decline, DropReason, Stage, Terms, attempts::Attempts};
use crate::{
    digest::Digest,
    fault::{Expiry, Fault, Misbehaviour},
    ids::{NodeId, SessionId},
    machine::{Cx, Decision},
    run::{Effect, Event},
    time::Timestamp,
};

/// An attempt is open.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Collecting {
    pub(crate) attempts: Attempts,
    pub(crate) terms: Box<Terms>,
    /// Who is asked for an update, in ascending order: the cohort, or who has shared keys.
    pub(crate) members: Vec<NodeId>,
    /// Whose updates are in the sum, and what they were.
    pub(crate) updates: BTreeMap<NodeId, Digest>,
    /// Who has no part any more.
    pub(crate) dropped: BTreeMap<NodeId, DropReason>,
    /// When those who have not answered are dropped.
    pub(crate) deadline: Timestamp,
}

/// What follows for the attempt as a whole.
#[derive(Debug, PartialEq)]
pub(crate) enum Course {
    Wait,
    Close,
    Abort(AbortReason),
}

impl Collecting {
    pub(crate) fn new(attempts: Attempts, terms: Box<Terms>) -> Self {
        let (members, deadline) = (terms.cohort.clone(), terms.deadline);
        Self { attempts: attempts.opened(&terms), terms, members, updates: BTreeMap::new(), dropped: BTreeMap::new(), deadline }
    }

    /// A whole update arrived.
    pub(crate) fn update(
        &self,
        cx: &Cx<'_>,
        node: NodeId,
        session: SessionId,
        digest: Digest,
        bytes: usize,
    ) -> Result<(Decision<Event, Effect>, Course), Fault> {
        self.member(&node, session)?;
        if let Some(first) = self.updates.get(&node) {
            // The answer was lost on its way: say yes again, add nothing.
            return if *first == digest {
                Ok((Decision::nothing(), Course::Wait))
            } else {
                Err(Misbehaviour::SecondUpdate { node, first: *first, second: digest }.into())
            };
        }
        if cx.now >= self.deadline {
            return Err(Expiry::Session.into());
        }
        if self.dropped.contains_key(&node) || self.members.binary_search(&node).is_err() {
            return Err(Expiry::Dropped { node }.into());
        }
        let expected = self.terms.update_bytes()?;
        if bytes != expected {
            return Err(Misbehaviour::UpdateLength { node, expected, actual: bytes }.into());
        }
        let event = Event::UpdateAccepted { node: node.clone(), digest, bytes: bytes as u64 };
        let decision = Decision::nothing().event(event).effect(Effect::Add { node, digest });
        Ok((decision, self.course(self.updates.len() + 1, 0, false)))
    }

    /// A member cannot.
    pub(crate) fn declined(&self, node: NodeId, session: SessionId, reason: Decline) -> Result<(Decision<Event, Effect>, Course), Fault> {
        self.member(&node, session)?;
        // Said before, or by a node that restarted after its update was accepted and cannot train now: the update stands.
        if self.dropped.contains_key(&node) || self.updates.contains_key(&node) {
            return Ok((Decision::nothing(), Course::Wait));
        }
        // Who is not asked any more changes nothing.
        let asked = usize::from(self.members.binary_search(&node).is_ok());
        let said = format!("{node}: {reason}");
        let decision = Decision::nothing().event(Event::NodeDropped { node, reason: DropReason::Declined { reason } });
        let course = match self.course(self.updates.len(), asked, false) {
            Course::Abort(AbortReason::TooFewUpdates { have, need, declined }) => {
                Course::Abort(AbortReason::TooFewUpdates { have, need, declined: declined.or(Some(said)) })
            }
            course => course,
        };
        Ok((decision, course))
    }

    /// Time has passed.
    pub(crate) fn tick(&self, cx: &Cx<'_>) -> Course {
        self.course(self.updates.len(), 0, cx.now >= self.deadline)
    }

    /// Ends the collection after `decision`; whoever has not answered is dropped for `reason`.
    pub(crate) fn close(
        &self,
        mut decision: Decision<Event, Effect>,
        server_lr: f64,
        overdue: bool,
    ) -> Result<Decision<Event, Effect>, Fault> {
        if self.terms.secure.is_some() {
            // The session knows better than we whether the sum can be opened without those who are missing.
            return Ok(decision.effect(Effect::CloseStage { session: self.terms.session, stage: Stage::Inputs }));
        }
        let mut survivors: Vec<NodeId> = self.updates.keys().cloned().collect();
        let mut settled: Vec<NodeId> = Vec::new();
        for event in &decision.events {
            match event {
                Event::UpdateAccepted { node, .. } => survivors.push(node.clone()),
                Event::NodeDropped { node, .. } => settled.push(node.clone()),
                _ => {}
            }
        }
        survivors.sort_unstable();
        let reason = if overdue { DropReason::Straggler } else { DropReason::Surplus };
        for node in &self.terms.cohort {
            if survivors.binary_search(node).is_err() && !self.dropped.contains_key(node) && !settled.contains(node) {
                decision.events.push(Event::NodeDropped { node: node.clone(), reason: reason.clone() });
                decision.effects.push(Effect::Withdraw { node: node.clone(), session: self.terms.session, keep: false });
            }
        }
        let count = survivors.len();
        decision = decision.event(Event::CollectionClosed { survivors: survivors.clone() });
        Ok(match self.terms.cost(count)? {
            // The ledger first: what follows gives the sum away.
            Some(cost) => decision.effect(Effect::Charge { session: self.terms.session, cost, members: survivors }),
            None => decision.effect(Effect::Aggregate { terms: self.terms.clone(), server_lr, survivors }),
        })
    }

    /// Members that are still expected to keep what they trained.
    pub(crate) fn involved(&self) -> impl Iterator<Item = &NodeId> {
        self.terms.cohort.iter().filter(|node| !self.dropped.contains_key(*node))
    }

    /// With `updates` accepted and `dropped` more given up, what now?
    fn course(&self, updates: usize, dropped: usize, overdue: bool) -> Course {
        let left = self.members.iter().filter(|node| !self.dropped.contains_key(*node)).count();
        let waiting = left.saturating_sub(updates + dropped);
        let possible = if overdue { updates } else { updates + waiting };
        if possible < self.terms.minimum as usize {
            let have = u32::try_from(possible).unwrap_or(u32::MAX);
            let declined = self.dropped.iter().find_map(|(node, why)| match why {
                DropReason::Declined { reason } => Some(format!("{node}: {reason}")),
                _ => None,
            });
            return Course::Abort(AbortReason::TooFewUpdates { have, need: self.terms.minimum, declined });
        }
        if overdue || waiting == 0 || updates >= self.terms.size as usize { Course::Close } else { Course::Wait }
    }

    fn member(&self, node: &NodeId, session: SessionId) -> Result<(), Fault> {
        if session != self.terms.session {
            return Err(Expiry::Session.into());
        }
        if !self.terms.has(node) {
            return Err(Misbehaviour::NotInCohort { node: node.clone() }.into());
        }
        Ok(())
    }

    pub(crate) fn accepted(mut self, node: &NodeId, digest: Digest, bytes: u64) -> Self {
        self.updates.insert(node.clone(), digest);
        self.attempts.uploaded += bytes;
        self
    }

    pub(crate) fn drop(mut self, node: &NodeId, reason: &DropReason) -> Self {
        if *reason != DropReason::Surplus {
            self.attempts.unreliable.insert(node.clone());
        }
        self.dropped.insert(node.clone(), reason.clone());
        self
    }
}

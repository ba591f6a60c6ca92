//! The coordinator's side of one secure sum: [`secagg::Server`] with the names of its participants, and the knowledge of when a stage
//! is complete. It lives in memory; a crash takes it along, and the next attempt has another.

use std::collections::BTreeSet;

use sapwood_privacy::{
    Accumulator,
    secagg::{self, Participant, Server},
};

use super::{Stage, Terms};
use crate::{
    digest::Digest,
    fault::{Expiry, Fault, Lack, Misbehaviour},
    ids::{NodeId, SessionId},
};

/// One secure sum.
#[derive(Debug)]
pub struct SecureSession {
    server: Server,
    session: SessionId,
    cohort: Vec<NodeId>,
    /// Key advertisement ends with so many.
    size: u32,
    stage: Stage,
    /// Who is still to be heard in this stage, by index.
    awaited: BTreeSet<u32>,
    /// Who will not be heard any more.
    gone: BTreeSet<u32>,
    heard: u32,
    /// Digests of all messages that were taken, so that one which is sent again after its stage is known.
    taken: BTreeSet<(u32, Digest)>,
}

/// A node says that a share from another one could not be decrypted, or gave one that is not as its dealer says. One of the two is at
/// fault; who stands in many complaints is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Who held the share.
    pub by: NodeId,
    /// Whose share it was.
    pub of: NodeId,
}

impl SecureSession {
    /// `member` gives the enrolled identity of a node, and the enrolment authority's word for it.
    ///
    /// # Errors
    /// [`Lack::Resource`] for a node that `member` does not know; terms that make no sense.
    pub fn new(terms: &Terms, member: impl Fn(&NodeId) -> Option<Participant>) -> Result<Option<Self>, Fault> {
        let Some(agreed) = terms.aggregation()? else { return Ok(None) };
        let unknown = |node: &NodeId| Lack::Resource { what: "the membership of a node", why: format!("{node} has gone") };
        let participants = terms.cohort.iter().map(|node| member(node).ok_or_else(|| unknown(node)));
        let participants = participants.collect::<Result<Vec<_>, _>>()?;
        let server =
            Server::new(agreed, participants).map_err(|fault| super::protection::setting("secure_aggregation", &fault.to_string()))?;
        let awaited = server.expected().into_iter().collect();
        let (session, cohort, size) = (terms.session, terms.cohort.clone(), terms.size);
        Ok(Some(Self {
            server,
            session,
            cohort,
            size,
            stage: Stage::Keys,
            awaited,
            gone: BTreeSet::new(),
            heard: 0,
            taken: BTreeSet::new(),
        }))
    }

    /// Of which attempt.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Takes a message. Whether the stage is complete with it.
    ///
    /// # Errors
    /// [`Misbehaviour::SecureSum`] says what is wrong with it; [`Expiry`] for what comes too late.
    pub fn receive(&mut self, node: &NodeId, bytes: &[u8]) -> Result<bool, Fault> {
        let index = self.index(node)?;
        // Enough others were faster, and noise is made for no more.
        if self.stage == Stage::Keys && self.heard >= self.size && self.awaited.contains(&index) {
            return Err(Expiry::Dropped { node: node.clone() }.into());
        }
        let digest = Digest::of(bytes);
        if self.taken.contains(&(index, digest)) {
            // The line broke before it was answered.
            return Ok(self.is_complete());
        }
        let taken = self.server.receive(index, bytes);
        if let Err(secagg::Fault::Contradiction { .. } | secagg::Fault::OutOfTurn { .. }) = &taken {
            // It has restarted: what it promised before it cannot keep, and nobody waits for it.
            self.gone.insert(index);
            self.awaited.remove(&index);
        }
        taken.map_err(|fault| refusal(node, fault))?;
        self.taken.insert((index, digest));
        self.heard += u32::from(self.awaited.remove(&index));
        Ok(self.is_complete())
    }

    /// The node will not be heard any more. Whether the stage is complete without it.
    pub fn leave(&mut self, node: &NodeId) -> bool {
        if let Ok(index) = self.index(node) {
            self.gone.insert(index);
            self.awaited.remove(&index);
        }
        self.is_complete()
    }

    /// Adds a masked input that was accepted.
    ///
    /// # Errors
    /// As [`SecureSession::receive`].
    pub fn add<B: AsRef<[u8]>>(&mut self, node: &NodeId, chunks: &[B]) -> Result<(), Fault> {
        let index = self.index(node)?;
        let session = secagg::Session(*self.session.as_bytes());
        self.server.receive_vector(index, &session, chunks).map(|_| ()).map_err(|fault| refusal(node, fault))
    }

    /// What the node is told at the begin of `stage`; none if it has no part in it, or the stage is not at hand.
    pub fn message_for(&self, node: &NodeId, stage: Stage) -> Option<Vec<u8>> {
        let index = self.index(node).ok()?;
        (stage == self.stage).then(|| self.server.message_for(index))?
    }

    /// Ends `stage` with those who have answered: who takes part in the next. None if another stage is at hand.
    pub fn close(&mut self, stage: Stage) -> Option<Result<Vec<NodeId>, String>> {
        if stage != self.stage {
            return None;
        }
        if stage == Stage::Unmasking {
            let open = self.server.can_open();
            return Some(if open { Ok(Vec::new()) } else { Err("too few shares of the masks came back".into()) });
        }
        if let Err(fault) = self.server.close() {
            return Some(Err(fault.to_string()));
        }
        self.stage = match stage {
            Stage::Keys => Stage::Shares,
            Stage::Shares => Stage::Inputs,
            Stage::Inputs => Stage::Consistency,
            Stage::Consistency | Stage::Unmasking => Stage::Unmasking,
        };
        let members = self.server.expected();
        self.heard = 0;
        self.awaited = members.iter().copied().filter(|index| !self.gone.contains(index)).collect();
        Some(Ok(members.into_iter().filter_map(|index| self.cohort.get(index as usize).cloned()).collect()))
    }

    /// Whether nobody else is waited for.
    pub fn is_complete(&self) -> bool {
        match self.stage {
            Stage::Keys => self.heard >= self.size || self.awaited.is_empty(),
            Stage::Unmasking => self.server.can_open(),
            _ => self.awaited.is_empty(),
        }
    }

    /// The stage at hand.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Takes the masks off the sum. The session is over.
    ///
    /// # Errors
    /// In words, who is to blame if that is known.
    pub fn open(&mut self, threads: usize) -> Result<(Accumulator, Vec<Complaint>), String> {
        let opened = self.server.open(threads).map_err(|fault| match fault {
            secagg::Fault::BadDealer { owner } => match self.server.index_of(owner).and_then(|index| self.cohort.get(index as usize)) {
                Some(node) => format!("node {node}: {fault}"),
                None => fault.to_string(),
            },
            fault => fault.to_string(),
        })?;
        let name = |index: u32| self.cohort.get(index as usize).cloned();
        let complaints = opened.complaints.iter().filter_map(|(by, of)| Some(Complaint { by: name(*by)?, of: name(*of)? })).collect();
        Ok((opened.accumulator, complaints))
    }

    fn index(&self, node: &NodeId) -> Result<u32, Fault> {
        let index = self.cohort.binary_search(node).map_err(|_| Misbehaviour::NotInCohort { node: node.clone() })?;
        Ok(u32::try_from(index).unwrap_or(u32::MAX))
    }
}

fn refusal(node: &NodeId, fault: secagg::Fault) -> Fault {
    match fault {
        secagg::Fault::WrongSession | secagg::Fault::OutOfTurn { .. } | secagg::Fault::Over => Expiry::Session.into(),
        // A node that lost its keys cannot take its word back, but may take part in the next attempt.
        secagg::Fault::NotTakingPart { .. } | secagg::Fault::Contradiction { .. } => Expiry::Dropped { node: node.clone() }.into(),
        fault => Misbehaviour::SecureSum { node: node.clone(), why: fault.to_string() }.into(),
    }
}

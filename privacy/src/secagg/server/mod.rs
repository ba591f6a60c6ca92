//! The server: five phases, each collects one message of everybody who is left, and is closed by the caller's clock.
//!
//! ```text
//!  Advertising ──▶ Sharing ──▶ Masking ──▶ Agreeing ──▶ Unmasking ──▶ the sum
//!      U1             U2         U3            U4           U5
//! ```
//!
//! A refused message blames its sender and changes nothing; who has not been heard when a phase closes is left behind. If too
//! few are left the session ends, and nothing was revealed. A masked vector is added on arrival and forgotten: memory is one
//! vector, and per participant its keys, its shares and a few digests.

mod advertising;
mod agreeing;
mod masking;
mod roster;
mod sharing;
mod unmasking;

use std::fmt;

use super::{
    Fault,
    message::{Advertise, Alive, Message, ShareKeys, Unmask, name, peek},
    plan::Plan,
    terms::{IdentityKey, Session, Terms, sha256},
};
use crate::Accumulator;
use advertising::Advertising;
use agreeing::Agreeing;
use masking::Masking;
use roster::Roster;
use sharing::Sharing;
use unmasking::Unmasking;

/// Whom the server invited. The position in the cohort is the participant's index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    /// Its enrolled identity.
    pub identity: IdentityKey,
    /// What it shows its neighbours, such as the enrolment authority's word.
    pub context: Vec<u8>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It counts.
    Taken,
    /// It was here before, and counts once.
    Again,
}

/// The opened sum.
pub struct Sum {
    /// Σ x_i over the survivors, modulo 2^b.
    pub accumulator: Accumulator,
    /// Indices of those whose vectors are in it, in ascending order.
    pub survivors: Vec<u32>,
    /// Indices (holder, dealer): shares that a holder could not decrypt, or that are not as their dealer says.
    pub complaints: Vec<(u32, u32)>,
}

/// One session at the server. It lives in memory only: after a crash there is a new session with new keys.
#[cfg_attr(test, derive(Clone))]
pub struct Server {
    terms: Terms,
    phase: Phase,
    /// Digests of this phase's messages, by index.
    seen: Vec<Option<[u8; 32]>>,
    /// From rank to index, once there are ranks; kept behind the end, so that a fault can be traced.
    indices: Vec<u32>,
}

#[cfg_attr(test, derive(Clone))]
enum Phase {
    Advertising(Advertising),
    Sharing(Box<Sharing>),
    Masking(Box<Masking>),
    Agreeing(Box<Agreeing>),
    Unmasking(Box<Unmasking>),
    Over,
}

impl Server {
    /// # Errors
    /// [`Fault::Infeasible`] if not even the whole cohort could be summed; [`Fault::Duplicate`] names two indices with one
    /// identity.
    pub fn new(terms: Terms, cohort: Vec<Participant>) -> Result<Self, Fault> {
        let n = u32::try_from(cohort.len()).unwrap_or(u32::MAX);
        terms.plan(n)?;
        let seen = vec![None; cohort.len()];
        let phase = Phase::Advertising(Advertising::new(&terms, cohort)?);
        Ok(Self { terms, phase, seen, indices: Vec::new() })
    }

    /// Takes a message of participant `from`, whom the caller has authenticated. On `Err` nothing has changed.
    ///
    /// # Errors
    /// By name; the sender is at fault.
    pub fn receive(&mut self, from: u32, bytes: &[u8]) -> Result<Receipt, Fault> {
        let (kind, session) = peek(bytes)?;
        if session != self.terms.session {
            return Err(Fault::WrongSession);
        }
        let session = &session;
        let late = Fault::OutOfTurn { message: name(kind) };
        match (&self.phase, kind) {
            (Phase::Over, _) => return Err(Fault::Over),
            (Phase::Advertising(_), Advertise::KIND)
            | (Phase::Sharing(_), ShareKeys::KIND)
            | (Phase::Agreeing(_), Alive::KIND)
            | (Phase::Unmasking(_), Unmask::KIND) => {}
            _ => return Err(late),
        }
        let digest = sha256(&[bytes]);
        match self.seen.get(from as usize) {
            None => return Err(Fault::NotTakingPart { index: from }),
            Some(Some(seen)) if *seen == digest => return Ok(Receipt::Again),
            Some(Some(_)) => return Err(Fault::Contradiction { message: name(kind) }),
            Some(None) => {}
        }
        match &mut self.phase {
            Phase::Advertising(phase) => phase.receive(&self.terms, from, Advertise::decode(session, bytes)?)?,
            Phase::Sharing(phase) => phase.receive(from, ShareKeys::decode(session, bytes)?)?,
            Phase::Agreeing(phase) => phase.receive(from, Alive::decode(session, bytes)?)?,
            Phase::Unmasking(phase) => phase.receive(&self.terms, from, Unmask::decode(session, bytes)?)?,
            Phase::Masking(_) | Phase::Over => return Err(late),
        }
        self.seen[from as usize] = Some(digest);
        Ok(Receipt::Taken)
    }

    /// Takes the masked vector of participant `from`, packed, in pieces cut anywhere. It must have arrived whole. On `Err`
    /// nothing has changed.
    ///
    /// # Errors
    /// [`Fault::Vector`] for another length or dirty padding, [`Fault::SecondInput`], [`Fault::WrongSession`],
    /// [`Fault::NotTakingPart`], [`Fault::OutOfTurn`].
    pub fn receive_vector<B: AsRef<[u8]>>(&mut self, from: u32, session: &Session, chunks: &[B]) -> Result<Receipt, Fault> {
        if *session != self.terms.session {
            return Err(Fault::WrongSession);
        }
        match &mut self.phase {
            Phase::Masking(phase) => phase.receive(from, chunks).map(|()| Receipt::Taken),
            Phase::Over => Err(Fault::Over),
            _ => Err(Fault::OutOfTurn { message: "a masked input" }),
        }
    }

    /// Indices of those from whom a message of this phase is wanted, in ascending order.
    pub fn expected(&self) -> Vec<u32> {
        match &self.phase {
            Phase::Advertising(phase) => phase.expected(),
            Phase::Sharing(phase) => phase.expected(),
            Phase::Masking(phase) => phase.expected(),
            Phase::Agreeing(phase) => phase.expected(),
            Phase::Unmasking(phase) => phase.expected(),
            Phase::Over => Vec::new(),
        }
    }

    /// How many of the [`Server::expected`] have answered.
    pub fn received(&self) -> u32 {
        match &self.phase {
            Phase::Masking(phase) => phase.received(),
            _ => self.seen.iter().flatten().count() as u32,
        }
    }

    /// What participant `to` is to be told in this phase, made anew each time; nothing if it takes no part or nothing is to be
    /// said.
    pub fn message_for(&self, to: u32) -> Option<Vec<u8>> {
        let session = &self.terms.session;
        match &self.phase {
            Phase::Advertising(_) | Phase::Over => None,
            Phase::Sharing(phase) => phase.message_for(to).map(|message| message.encode(session)),
            Phase::Masking(phase) => phase.message_for(to).map(|message| message.encode(session)),
            Phase::Agreeing(phase) => phase.message_for(to).map(|message| message.encode(session)),
            Phase::Unmasking(phase) => phase.message_for(to).map(|message| message.encode(session)),
        }
    }

    /// Goes on to the next phase with those who have answered.
    ///
    /// # Errors
    /// [`Fault::TooFew`], [`Fault::Infeasible`], [`Fault::Disconnected`], [`Fault::Unrecoverable`]: the session is over, and
    /// nothing is revealed. [`Fault::OutOfTurn`] in the last phase, which [`Server::open`] closes.
    pub fn close(&mut self) -> Result<(), Fault> {
        self.seen.fill(None);
        self.phase = match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Advertising(phase) => Phase::Sharing(Box::new(phase.close(&self.terms)?)),
            Phase::Sharing(phase) => Phase::Masking(Box::new(phase.close(&self.terms)?)),
            Phase::Masking(phase) => Phase::Agreeing(Box::new(phase.close(&self.terms)?)),
            Phase::Agreeing(phase) => Phase::Unmasking(Box::new(phase.close()?)),
            phase @ Phase::Unmasking(_) => {
                self.phase = phase;
                return Err(Fault::OutOfTurn { message: "the end of a phase" });
            }
            Phase::Over => return Err(Fault::Over),
        };
        if let Phase::Sharing(phase) = &self.phase {
            self.indices = phase.expected();
        }
        Ok(())
    }

    /// The index of whom a fault names by `rank`.
    pub fn index_of(&self, rank: u32) -> Option<u32> {
        self.indices.get(rank as usize).copied()
    }

    /// Whether the shares that are here open the sum.
    pub fn can_open(&self) -> bool {
        matches!(&self.phase, Phase::Unmasking(phase) if phase.missing().is_none())
    }

    /// Takes the masks off the sum, on up to `threads` cores. The session is over.
    ///
    /// # Errors
    /// [`Fault::Unrecoverable`] if shares are missing, [`Fault::BadDealer`] names who dealt shares of another secret;
    /// [`Fault::OutOfTurn`] before the last phase, [`Fault::Over`] behind it.
    pub fn open(&mut self, threads: usize) -> Result<Sum, Fault> {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Unmasking(phase) => phase.open(&self.terms, threads),
            Phase::Over => Err(Fault::Over),
            phase => {
                self.phase = phase;
                Err(Fault::OutOfTurn { message: "the opening of the sum" })
            }
        }
    }

    /// Gives the session up. The sum so far is wiped.
    pub fn abort(&mut self) {
        self.phase = Phase::Over;
    }
    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }
    /// What was agreed.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }
    /// Degree, threshold and fewest survivors, once the participants are known.
    pub fn plan(&self) -> Option<&Plan> {
        self.roster().map(|roster| &roster.plan)
    }

    fn roster(&self) -> Option<&Roster> {
        match &self.phase {
            Phase::Advertising(_) | Phase::Over => None,
            Phase::Sharing(phase) => Some(&phase.roster),
            Phase::Masking(phase) => Some(&phase.roster),
            Phase::Agreeing(phase) => Some(&phase.roster),
            Phase::Unmasking(phase) => Some(&phase.roster),
        }
    }
}

impl fmt::Debug for Server {
    /// The phase by name. Sums and shares never print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase {
            Phase::Advertising(_) => "advertising",
            Phase::Sharing(_) => "sharing",
            Phase::Masking(_) => "masking",
            Phase::Agreeing(_) => "agreeing",
            Phase::Unmasking(_) => "unmasking",
            Phase::Over => "over",
        };
        write!(f, "Server({:?}, {phase})", self.terms.session)
    }
}

//! Refusals. The first word of a fault is who is at fault; then what happened; then what to do about it.

use thiserror::Error;

use crate::{digest::Digest, ids::NodeId, release::ReleaseFault, time::Timestamp};

/// Why an input was refused. Nothing has happened when one is returned.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Fault {
    /// The other side broke the protocol.
    #[error("the peer misbehaved: {0}")]
    PeerMisbehaved(#[from] Misbehaviour),
    /// The other side is honest, but speaks or needs something that we do not have.
    #[error("the peer is incompatible: {0}")]
    PeerIncompatible(#[from] Incompatibility),
    /// The caller asked for something that makes no sense.
    #[error("{0}")]
    Misuse(#[from] Misuse),
    /// It was right once, but came too late.
    #[error("too late: {0}")]
    Expired(#[from] Expiry),
    /// It may work later, or elsewhere.
    #[error("unavailable: {0}")]
    Unavailable(#[from] Lack),
}

/// Who is at fault, for exit codes, status codes and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// [`Fault::PeerMisbehaved`]
    Peer,
    /// [`Fault::PeerIncompatible`]
    Version,
    /// [`Fault::Misuse`]
    Caller,
    /// [`Fault::Expired`]
    Clock,
    /// [`Fault::Unavailable`]
    Environment,
}

impl Fault {
    /// Who is at fault.
    pub fn blame(&self) -> Blame {
        match self {
            Self::PeerMisbehaved(_) => Blame::Peer,
            Self::PeerIncompatible(_) => Blame::Version,
            Self::Misuse(_) => Blame::Caller,
            Self::Expired(_) => Blame::Clock,
            Self::Unavailable(_) => Blame::Environment,
        }
    }
}

/// What a peer did that an honest one never does.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Misbehaviour {
    /// Not chosen for this attempt.
    #[error("node {node} is not in the cohort of this attempt")]
    NotInCohort {
        /// Who sent.
        node: NodeId,
    },
    /// A second, different update.
    #[error("node {node} sent a second update ({second:?}) that differs from its first ({first:?})")]
    SecondUpdate {
        /// Who sent.
        node: NodeId,
        /// What was accepted.
        first: Digest,
        /// What was refused.
        second: Digest,
    },
    /// The vector has another length.
    #[error("the update of node {node} has {actual} bytes, the round has {expected}")]
    UpdateLength {
        /// Who sent.
        node: NodeId,
        /// Bytes on the wire, by the round's terms.
        expected: usize,
        /// Bytes received.
        actual: usize,
    },
    /// A message that breaks the secure sum's protocol.
    #[error("node {node}, in the secure sum: {why}")]
    SecureSum {
        /// Who sent.
        node: NodeId,
        /// What is wrong with it.
        why: String,
    },
    /// Bytes do not match the digest they were announced under.
    #[error("{what} was announced as {expected:?}, but its bytes are {actual:?}")]
    Digest {
        /// Which object.
        what: &'static str,
        /// Announced.
        expected: Digest,
        /// Found.
        actual: Digest,
    },
    /// A message that cannot be decoded.
    #[error("{what} cannot be decoded: {why}")]
    Malformed {
        /// Which message.
        what: &'static str,
        /// Where it breaks.
        why: String,
    },
    /// A signature or an authentication code does not hold.
    #[error("{what} is not signed by {by}")]
    Signature {
        /// Which statement.
        what: &'static str,
        /// Whose signature was expected.
        by: &'static str,
    },
    /// A release that is not what it claims to be.
    #[error("{0}")]
    Release(#[from] ReleaseFault),
    /// An enrolment token was used before.
    #[error("enrolment token {token} was used already; ask the fleet's operator for a new one")]
    TokenReused {
        /// The public part of the token.
        token: String,
    },
    /// Two holders of one identity.
    #[error("the identity of node {node} is in use elsewhere: this is a restored backup or a clone; enrol it again under a new token")]
    ClonedIdentity {
        /// Which identity.
        node: NodeId,
    },
    /// Claims to be someone else.
    #[error("the certificate says {certificate}, the message says {message}")]
    WrongIdentity {
        /// Who the certificate names.
        certificate: String,
        /// Who the message names.
        message: String,
    },
}

/// What two honest parties cannot do together.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Incompatibility {
    /// No wire version in common.
    #[error("it speaks wire versions {theirs_min}–{theirs_max}, we speak {ours_min}–{ours_max}; upgrade the older side")]
    WireVersion {
        /// Oldest that the peer speaks.
        theirs_min: u32,
        /// Newest that the peer speaks.
        theirs_max: u32,
        /// Oldest that we speak.
        ours_min: u32,
        /// Newest that we speak.
        ours_max: u32,
    },
    /// Made for another kind of device.
    #[error("the bundle is for {bundle}, this device is {device}")]
    DeviceClass {
        /// What the bundle runs on.
        bundle: String,
        /// What we run on.
        device: String,
    },
    /// Needs a newer runtime.
    #[error("the release needs ONNX Runtime {needs}, this device has {has}; run `sapwood runtime install`")]
    Runtime {
        /// Oldest that will do.
        needs: String,
        /// Installed.
        has: String,
    },
}

/// What a caller must change.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Misuse {
    /// Not a name.
    #[error(
        "{name:?} is no name of a {kind}: use lower-case letters, digits, '-', '_' and '.', at most 64, starting with a letter or digit"
    )]
    Name {
        /// Of what.
        kind: &'static str,
        /// As given.
        name: String,
    },
    /// Not a digest.
    #[error("{text:?} is no digest: expected \"sha256:\" and 64 hexadecimal digits")]
    Digest {
        /// As given.
        text: String,
    },
    /// Not hexadecimal, or too short or long.
    #[error("{text:?} is no {what}: expected {digits} hexadecimal digits")]
    Hex {
        /// Of what.
        what: &'static str,
        /// How many digits.
        digits: usize,
        /// As given.
        text: String,
    },
    /// Wrong number of bytes.
    #[error("a {what} has {expected} bytes, not {actual}")]
    Length {
        /// Of what.
        what: &'static str,
        /// Bytes.
        expected: usize,
        /// Bytes.
        actual: usize,
    },
    /// A setting outside its range, or two that contradict each other.
    #[error("{key}: {why}")]
    Setting {
        /// The key's full path in its file, such as `cohort.minimum`.
        key: String,
        /// What is wrong and what would be right.
        why: String,
    },
    /// Nothing is called so.
    #[error("{what}: there is none of this name")]
    Unknown {
        /// What was asked for.
        what: String,
    },
    /// The state does not allow it.
    #[error("{what}: {why}")]
    State {
        /// What was asked.
        what: String,
        /// Why not.
        why: String,
    },
}

/// What came too late.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Expiry {
    /// For an attempt that is over.
    #[error("that attempt at the round is over; ask for the current task")]
    Session,
    /// For an attempt that goes on without the sender.
    #[error("the attempt goes on without node {node}, which declined, or was slower than enough others")]
    Dropped {
        /// Who.
        node: NodeId,
    },
    /// A one-time token.
    #[error("enrolment token {token} expired at {at}; ask the fleet's operator for a new one")]
    Token {
        /// The public part.
        token: String,
        /// When.
        at: Timestamp,
    },
    /// A certificate or a signed statement.
    #[error("{what} expired at {at}")]
    Statement {
        /// Which.
        what: &'static str,
        /// When.
        at: Timestamp,
    },
    /// An order of the past.
    #[error("assignment {version} is older than {seen}, which this node has seen")]
    Assignment {
        /// Offered.
        version: u64,
        /// Newest seen.
        seen: u64,
    },
}

/// What is missing for now.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Lack {
    /// Not enough nodes.
    #[error("{have} of {need} nodes are here")]
    Cohort {
        /// Eligible now.
        have: usize,
        /// Needed.
        need: usize,
    },
    /// Another coordinator drives this.
    #[error("another coordinator holds the lease on {what}")]
    Lease {
        /// Which stream.
        what: String,
    },
    /// Storage, network, disk.
    #[error("{what}: {why}")]
    Resource {
        /// Which.
        what: &'static str,
        /// Why.
        why: String,
    },
}

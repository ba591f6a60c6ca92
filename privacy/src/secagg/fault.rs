//! Refusals of secure aggregation: one variant for each attack or failure.

use thiserror::Error;

use super::{message::Malformed, plan::Infeasible};

/// Why a participant refused a message, or gave a session up. A peer is named by its rank in the roll; before
/// there is a roll the server names it by its index in the cohort.
///
/// At the server a refusal of [`super::Server::receive`] blames the sender and leaves the session as it was; a refusal of
/// [`super::Server::close`] ends the session. At a client every refusal ends the session and wipes its secrets, except those
/// that [`Fault::harmless`] names.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Fault {
    /// Not a message, or not in its one canonical form.
    #[error("not a message of the protocol: {0}")]
    Malformed(#[from] Malformed),
    /// No (k, t) is both private and reliable enough.
    #[error("these settings allow no secure aggregation: {0}")]
    Infeasible(#[from] Infeasible),

    // Who speaks, and when.
    /// Of another session, such as one replayed.
    #[error("a message of another session")]
    WrongSession,
    /// Late, early, or behind the end.
    #[error("{message} does not belong to this phase of the session")]
    OutOfTurn {
        /// What came.
        message: &'static str,
    },
    /// A second, different message for the same phase.
    #[error("a second {message} that differs from the first")]
    Contradiction {
        /// What came twice.
        message: &'static str,
    },
    /// The server adds a vector once.
    #[error("a second masked input")]
    SecondInput,
    /// A sender whom the server does not expect any more, or never did.
    #[error("participant {index} takes no part in this phase")]
    NotTakingPart {
        /// Of the cohort.
        index: u32,
    },
    /// The session has ended in a refusal; nothing is left of its secrets.
    #[error("the session has ended")]
    Over,

    // What was agreed.
    /// The terms ask for less privacy than the operator allows.
    #[error("the terms break this node's policy: {what} is {offered}, at least {required} is required")]
    Policy {
        /// Which part.
        what: &'static str,
        /// By the terms, in the unit of the part.
        offered: u64,
        /// By the policy.
        required: u64,
    },
    /// Someone signed other terms.
    #[error("a key advertisement for other terms")]
    TermsMismatch,
    /// The server announced other (k, t) than everyone computes.
    #[error("degree {degree} and threshold {threshold} announced, but {n} participants need {expected_degree} and {expected_threshold}")]
    PlanMismatch {
        /// Participants.
        n: u32,
        /// As announced.
        degree: u32,
        /// As announced.
        threshold: u32,
        /// As computed.
        expected_degree: u32,
        /// As computed.
        expected_threshold: u32,
    },

    // Keys.
    /// Not the key's signature of this message.
    #[error("the signature of peer {rank} is forged or missing")]
    Signature {
        /// Of the signer.
        rank: u32,
    },
    /// An identity that the enrolment authority does not vouch for.
    #[error("peer {rank} is not enrolled")]
    NotEnrolled {
        /// Of the peer.
        rank: u32,
    },
    /// The keys are not those that the roll commits to.
    #[error("the keys shown for peer {rank} are not those of the roll")]
    KeySwapped {
        /// Of the peer.
        rank: u32,
    },
    /// Keys under another identity, or with another context, than the server invited.
    #[error("participant {index} advertises under another identity or context than it was invited with")]
    WrongIdentity {
        /// Of the cohort.
        index: u32,
    },
    /// One identity, or one key, at two places.
    #[error("peers {first} and {second} share an identity or a key")]
    Duplicate {
        /// Rank.
        first: u32,
        /// Rank.
        second: u32,
    },
    /// A point of low order: the agreed key would be known to everyone.
    #[error("a key of peer {rank} is a point of low order")]
    LowOrderKey {
        /// Of the peer.
        rank: u32,
    },
    /// The roll does not hold this client, or not as it advertised itself.
    #[error("this client is not in the roll with its own keys")]
    NotInRoll,
    /// As many neighbours as the plan says, no other number.
    #[error("{actual} neighbours, expected {expected}")]
    Neighbours {
        /// In the message.
        actual: u32,
        /// By the plan.
        expected: u32,
    },

    // Sets of survivors.
    /// Too few to hide among.
    #[error("{have} participants are left {phase}, at least {need} are needed")]
    TooFew {
        /// When.
        phase: &'static str,
        /// How many are left.
        have: u32,
        /// At least.
        need: u32,
    },
    /// The survivors that the server names leave this client out.
    #[error("this client is not among the survivors")]
    NotASurvivor,
    /// Someone who had left is back.
    #[error("peer {rank} had left and is named again")]
    Resurrected {
        /// Of the peer.
        rank: u32,
    },
    /// Survivors fall apart into groups whose sums could be told apart.
    #[error("the survivors' neighbour graph is not connected, or could be cut along colluders")]
    Disconnected,
    /// Fewer neighbours than the threshold are left.
    #[error("{have} neighbours are left, the threshold is {need}")]
    TooFewNeighbours {
        /// Left.
        have: u32,
        /// t.
        need: u32,
    },
    /// Fewer than t shares could be decrypted.
    #[error("{readable} of the neighbours' shares can be decrypted, the threshold is {need}; unreadable: {unreadable:?}")]
    Unreadable {
        /// Decrypted.
        readable: u32,
        /// t.
        need: u32,
        /// Ranks whose envelope was damaged, replayed or meant for someone else.
        unreadable: Vec<u32>,
    },
    /// Fewer than t neighbours signed the same survivors: others may have been told of a different set.
    #[error("{have} neighbours signed these survivors, {need} must")]
    Inconsistent {
        /// Valid signatures.
        have: u32,
        /// t.
        need: u32,
    },
    /// A neighbour's signature is not of these survivors: the server named others to it, or forged it.
    #[error("peer {rank} did not sign these survivors: others were named to it, or its signature is forged")]
    OtherSurvivors {
        /// Of the signer.
        rank: u32,
    },
    /// A signature of somebody who is no neighbour, or a second one.
    #[error("peer {rank} may not sign here, or signed twice")]
    Signer {
        /// Of the signer.
        rank: u32,
    },

    // The vector.
    /// Wrong length, an element that does not fit, dirty padding.
    #[error("the vector is not of the agreed form: {0}")]
    Vector(#[from] crate::Fault),

    // Shares.
    /// A list with a share too many or too few.
    #[error("{actual} entries, expected {expected}")]
    Count {
        /// In the message.
        actual: u32,
        /// By the plan.
        expected: u32,
    },
    /// Fewer than t shares came back: the sum stays hidden.
    #[error("{have} shares of peer {owner}'s secret came back, {need} are needed")]
    Unrecoverable {
        /// Whose secret.
        owner: u32,
        /// Shares.
        have: u32,
        /// t.
        need: u32,
    },
    /// The shares were as dealt and give another secret than the dealer committed to.
    #[error("peer {owner} dealt shares that do not give its secret")]
    BadDealer {
        /// Who dealt.
        owner: u32,
    },
}

impl Fault {
    /// Whether the message can simply be ignored: it was late, or of another session. A client keeps its state then.
    pub fn harmless(&self) -> bool {
        matches!(self, Self::OutOfTurn { .. } | Self::WrongSession)
    }
}

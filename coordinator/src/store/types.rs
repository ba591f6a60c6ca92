//! What is stored, and what a store is asked to do.

use std::{collections::BTreeMap, fmt, time::Duration};

use bytes::Bytes;
use sapwood_protocol::{Digest, NodeId, ReleaseId, RunId, Ticket, Timestamp, TokenId};

/// The name of a stream of events: what it is, and whose.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName {
    full: String,
    kind: usize,
}

impl StreamName {
    /// A stream of `kind` about `name`; the kind has no slash.
    pub fn new(kind: &'static str, name: &str) -> Self {
        Self { full: format!("{kind}/{name}"), kind: kind.len() }
    }
    /// A run's.
    pub fn run(run: &RunId) -> Self {
        Self::new("run", run.as_str())
    }
    /// A release's rollout's.
    pub fn rollout(release: &ReleaseId) -> Self {
        Self::new("rollout", release.as_str())
    }
    /// From storage; `None` without a slash.
    pub(crate) fn stored(full: String) -> Option<Self> {
        let kind = full.find('/')?;
        Some(Self { full, kind })
    }
    /// Kind and name.
    pub fn as_str(&self) -> &str {
        &self.full
    }
    /// What it is.
    pub fn kind(&self) -> &str {
        &self.full[..self.kind]
    }
    /// Whose.
    pub fn name(&self) -> &str {
        &self.full[self.kind + 1..]
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

/// A fact about to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Which of its protocol's kinds.
    pub kind: &'static str,
    /// JSON.
    pub payload: Vec<u8>,
}

/// A stored fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Its place in the stream, from 0.
    pub seq: u64,
    /// Which of its protocol's kinds.
    pub kind: String,
    /// JSON.
    pub payload: Vec<u8>,
    /// When it was committed, by the writer's clock.
    pub at: Timestamp,
}

/// The index row of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRow {
    /// Which stream.
    pub name: StreamName,
    /// How many events it has.
    pub length: u64,
    /// Whether it goes on.
    pub live: bool,
    /// JSON, for lists.
    pub summary: Vec<u8>,
    /// When its first event was committed.
    pub created: Timestamp,
    /// When its last event was committed.
    pub updated: Timestamp,
}

/// The right to drive a stream, as the store gave it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What it is on.
    pub resource: StreamName,
    /// To whom.
    pub holder: String,
    /// Grows at every take-over; a write under an older one is refused.
    pub epoch: u64,
}

/// What kind of thing a node is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LetterKind {
    /// `protocol::round::Task`.
    Task,
    /// `protocol::round::Withdrawal`.
    Withdraw,
    /// `protocol::rollout::Assignment`.
    Assignment,
}

impl LetterKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Withdraw => "withdraw",
            Self::Assignment => "assignment",
        }
    }
    pub(crate) fn stored(text: &str) -> Option<Self> {
        [Self::Task, Self::Withdraw, Self::Assignment].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What a node should be told about a topic: a level, replaced by the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// To whom.
    pub node: NodeId,
    /// About what; one letter per node and topic is kept.
    pub topic: String,
    /// What it is.
    pub kind: LetterKind,
    /// JSON.
    pub body: Bytes,
}

/// A caller's own word for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The word.
    pub token: String,
    /// Digest of what was asked.
    pub request: Digest,
    /// What came of it.
    pub stream: StreamName,
}

/// One release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseRow {
    /// Which.
    pub name: ReleaseId,
    /// JSON: `protocol::view::ReleaseView`.
    pub document: Vec<u8>,
    /// When it was made.
    pub at: Timestamp,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Which.
    pub name: NodeId,
    /// How often the row was written; a write must know the number.
    pub version: u64,
    /// The authority's statement, JSON.
    pub membership: Vec<u8>,
    /// What its operator called it.
    pub labels: BTreeMap<String, String>,
    /// What it has, JSON.
    pub profile: Vec<u8>,
    /// What it last said about itself, JSON.
    pub status: Option<Vec<u8>>,
    /// What it must show at its next connection.
    pub ticket: Option<Ticket>,
    /// What it may show instead: it may never have received the current one.
    pub previous_ticket: Option<Ticket>,
    /// When it was last here.
    pub seen: Timestamp,
}

/// A machine's wish to become a node, and the authority's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrollment {
    /// Digest of the canonical request.
    pub id: Digest,
    /// The public part of the one-time token.
    pub token: TokenId,
    /// The name asked for.
    pub node: NodeId,
    /// The request.
    pub request: Vec<u8>,
    /// The answer, once there is one.
    pub reply: Option<Vec<u8>>,
    /// When it came in.
    pub at: Timestamp,
}

impl Enrollment {
    /// Requests that wait for the authority; more are refused.
    pub const MOST_PENDING: usize = 1000;
    /// How long they wait.
    pub const PENDING_FOR: Duration = Duration::from_secs(24 * 3600);

    pub(crate) fn full() -> super::StoreError {
        super::StoreError::Full { what: "requests for enrolment" }
    }
}

/// A decision of a protocol, to be committed as a whole.
#[derive(Clone, Debug)]
pub struct Append {
    /// The lease that its writer holds on the stream.
    pub lease: Lease,
    /// How many events its writer has seen; 0 makes the stream.
    pub expected: u64,
    /// The facts, in order.
    pub events: Vec<NewEvent>,
    /// What nodes should be told instead of what they were told before about the same topic.
    pub letters: Vec<Letter>,
    /// The stream's new summary, if it changes.
    pub summary: Option<Vec<u8>>,
    /// Whether the stream has ended with this.
    pub ended: bool,
    /// A release that came of it.
    pub release: Option<ReleaseRow>,
    /// The request that it answers.
    pub submitted: Option<Submitted>,
    /// Now.
    pub at: Timestamp,
}

/// What a store is asked to do.
#[derive(Clone, Debug)]
pub enum Intent {
    /// Commits a decision.
    ///
    /// # Behavior
    /// - [`StoreError::Fenced`](super::StoreError) if the lease is not the newest on the stream, or was given back.
    /// - [`StoreError::Conflict`](super::StoreError) if the stream's length is not the expected one, if the token was used
    ///   already, or if the release exists with another document.
    /// - Else events, letters and index rows are there together.
    Append(Box<Append>),
    /// Takes the lease on a stream, which need not exist yet.
    ///
    /// # Behavior
    /// - [`StoreError::Held`](super::StoreError) if someone else holds it and it has not expired at `now`.
    /// - Else the answer is a lease with a higher epoch than all before it. That holds for its own holder, too: whoever
    ///   takes a lease twice has restarted, and what it did under the first must not land any more.
    TakeLease {
        /// On what.
        resource: StreamName,
        /// For whom.
        holder: String,
        /// Now.
        now: Timestamp,
        /// When others may take it.
        expires: Timestamp,
    },
    /// Holds on to a lease.
    ///
    /// # Behavior
    /// - [`StoreError::Fenced`](super::StoreError) if it is not the newest, or was given back.
    RenewLease {
        /// The lease.
        lease: Lease,
        /// When others may take it.
        expires: Timestamp,
    },
    /// Gives a lease back, so that another can take it at once.
    ///
    /// # Behavior
    /// - Nothing happens if it was lost already.
    ReleaseLease(Lease),
    /// Writes a node's row.
    ///
    /// # Behavior
    /// - [`StoreError::Conflict`](super::StoreError) unless the row's version is the stored one (0: there is none yet).
    /// - Else the row is stored, with the next version.
    PutNode(Box<NodeRow>),
    /// Records a request for enrolment.
    ///
    /// # Behavior
    /// - Nothing happens if the same request is there.
    /// - [`StoreError::Conflict`](super::StoreError) if another request came under the same token.
    Enroll(Box<Enrollment>),
    /// Answers a request for enrolment.
    ///
    /// # Behavior
    /// - [`StoreError::Missing`](super::StoreError) if there is no such request.
    /// - Nothing happens if it has an answer: the first one stands.
    Answer {
        /// Digest of the canonical request.
        id: Digest,
        /// The answer.
        reply: Vec<u8>,
    },
    /// Forgets what nodes were to be told about a topic.
    Forget {
        /// The topic.
        topic: String,
    },
}

/// What came of an intention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// As asked.
    Written,
    /// The lease.
    Leased(Lease),
}

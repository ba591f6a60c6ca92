//! What the coordinator must not forget, behind a trait that speaks of intentions, not of tables.
//!
//! Everything that changes goes through [`Store::write`], which takes a *group* of intentions and makes them durable in
//! one transaction: the [`Writer`] collects whatever waits, so that a thousand nodes do not cost a thousand fsyncs. In a
//! group each intention stands or falls alone.
//!
//! An [`Append`] is a whole decision of a protocol: its events, what nodes should be told because of them, and the index
//! rows that follow, under the lease of whoever drives the stream. When a write fails with anything but a verdict on its
//! own ([`StoreError::Conflict`], [`StoreError::Fenced`]…), its outcome is unknown, and the caller must read again before
//! it goes on.

mod error;
mod memory;
mod sqlite;
mod types;
mod writer;

#[cfg(test)]
mod contract;
#[cfg(test)]
pub(crate) mod watched;

use std::pin::Pin;

use sapwood_protocol::{Digest, NodeId, ReleaseId};

pub use error::{StoreError, Trouble};
pub use memory::MemoryStore;
pub use sqlite::SqliteStore;
pub use types::{
    Append, Done, Enrollment, EventRow, Intent, Lease, Letter, LetterKind, NewEvent, NodeRow, ReleaseRow, StreamName, StreamRow, Submitted,
};
pub use writer::Writer;

/// A store's answer, later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The durable state of a coordinator.
pub trait Store: Send + Sync + 'static {
    /// Carries out a group of intentions, in order, in one durable transaction.
    ///
    /// # Behavior
    /// - `Ok`: one verdict per intention, in order; those with `Ok` are durable, those with `Err` have left no trace and
    ///   have not disturbed the others. A later intention sees the effects of an earlier one.
    /// - `Err`: the outcome of the whole group is unknown; read before going on.
    ///
    /// What each intention does is said at [`Intent`].
    fn write(&self, group: Vec<Intent>) -> Later<'_, Vec<Result<Done, StoreError>>>;

    /// The index row of a stream.
    ///
    /// # Behavior
    /// - `None` if nothing was ever appended to it.
    fn stream<'a>(&'a self, name: &'a StreamName) -> Later<'a, Option<StreamRow>>;

    /// The streams of a kind, oldest first.
    ///
    /// # Behavior
    /// - With `live_only`, leaves out those that have ended.
    fn streams<'a>(&'a self, kind: &'a str, live_only: bool) -> Later<'a, Vec<StreamRow>>;

    /// The events of a stream from sequence number `from` on, in order.
    ///
    /// # Behavior
    /// - Empty if there is no such stream, or nothing after `from`.
    /// - [`StoreError::Corrupt`] if a sequence number is missing.
    fn events<'a>(&'a self, name: &'a StreamName, from: u64) -> Later<'a, Vec<EventRow>>;

    /// What `node` should be told, one letter per topic.
    fn letters<'a>(&'a self, node: &'a NodeId) -> Later<'a, Vec<Letter>>;

    /// What any node should be told about `topic`, by node.
    fn letters_about<'a>(&'a self, topic: &'a str) -> Later<'a, Vec<Letter>>;

    /// All nodes that were ever enrolled here, by name.
    fn nodes(&self) -> Later<'_, Vec<NodeRow>>;

    /// One node.
    fn node<'a>(&'a self, name: &'a NodeId) -> Later<'a, Option<NodeRow>>;

    /// One enrolment, by the digest of its request.
    fn enrollment(&self, id: Digest) -> Later<'_, Option<Enrollment>>;

    /// Enrolments without an answer, oldest first.
    fn pending_enrollments(&self) -> Later<'_, Vec<Enrollment>>;

    /// All releases, oldest first.
    fn releases(&self) -> Later<'_, Vec<ReleaseRow>>;

    /// One release.
    fn release<'a>(&'a self, name: &'a ReleaseId) -> Later<'a, Option<ReleaseRow>>;

    /// What was submitted under a caller's token.
    fn submission<'a>(&'a self, token: &'a str) -> Later<'a, Option<Submitted>>;

    /// The value of `key`, which is `initial` if it had none.
    ///
    /// # Behavior
    /// - Whoever comes first sets it for good; everyone gets the same value ever after.
    fn constant<'a>(&'a self, key: &'a str, initial: Vec<u8>) -> Later<'a, Vec<u8>>;
}

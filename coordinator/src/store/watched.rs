//! A store whose writes a test watches, and spoils.

use std::sync::Arc;

use super::*;

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// As asked.
    Go,
    /// It fails, and nothing is written.
    Fail,
    /// It fails, but everything is written.
    FailAfter,
}

/// Passes everything on; each write asks for its fate first.
pub(crate) struct Watched {
    inner: Arc<dyn Store>,
    fate: Box<dyn Fn() -> Fate + Send + Sync>,
}

impl Watched {
    pub(crate) fn new(inner: Arc<dyn Store>, fate: impl Fn() -> Fate + Send + Sync + 'static) -> Self {
        Self { inner, fate: Box::new(fate) }
    }
}

impl Store for Watched {
    fn write(&self, group: Vec<Intent>) -> Later<'_, Vec<Result<Done, StoreError>>> {
        Box::pin(async move {
            let fate = (self.fate)();
            if fate == Fate::Fail {
                return Err(StoreError::unavailable(Trouble::DiskFull));
            }
            let verdicts = self.inner.write(group).await?;
            if fate == Fate::FailAfter { Err(StoreError::unavailable(Trouble::Io)) } else { Ok(verdicts) }
        })
    }
    fn stream<'a>(&'a self, name: &'a StreamName) -> Later<'a, Option<StreamRow>> {
        self.inner.stream(name)
    }
    fn streams<'a>(&'a self, kind: &'a str, live_only: bool) -> Later<'a, Vec<StreamRow>> {
        self.inner.streams(kind, live_only)
    }
    fn events<'a>(&'a self, name: &'a StreamName, from: u64) -> Later<'a, Vec<EventRow>> {
        self.inner.events(name, from)
    }
    fn letters<'a>(&'a self, node: &'a NodeId) -> Later<'a, Vec<Letter>> {
        self.inner.letters(node)
    }
    fn letters_about<'a>(&'a self, topic: &'a str) -> Later<'a, Vec<Letter>> {
        self.inner.letters_about(topic)
    }
    fn nodes(&self) -> Later<'_, Vec<NodeRow>> {
        self.inner.nodes()
    }
    fn node<'a>(&'a self, name: &'a NodeId) -> Later<'a, Option<NodeRow>> {
        self.inner.node(name)
    }
    fn enrollment(&self, id: Digest) -> Later<'_, Option<Enrollment>> {
        self.inner.enrollment(id)
    }
    fn pending_enrollments(&self) -> Later<'_, Vec<Enrollment>> {
        self.inner.pending_enrollments()
    }
    fn releases(&self) -> Later<'_, Vec<ReleaseRow>> {
        self.inner.releases()
    }
    fn release<'a>(&'a self, name: &'a ReleaseId) -> Later<'a, Option<ReleaseRow>> {
        self.inner.release(name)
    }
    fn submission<'a>(&'a self, token: &'a str) -> Later<'a, Option<Submitted>> {
        self.inner.submission(token)
    }
    fn constant<'a>(&'a self, key: &'a str, initial: Vec<u8>) -> Later<'a, Vec<u8>> {
        self.inner.constant(key, initial)
    }
}

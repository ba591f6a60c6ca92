//! Drivers: one task per stream, between a protocol's machine and the world.
//!
//! ```text
//! mail ─▶ decide on a tentative state ─▶ commit events + outbox + index, once, under the lease
//!                                             │ †after-commit
//!                                        adopt the state
//!                                             │ †before-send
//!                                        tell nodes ─▶ carry out effects ─▶ answer the senders
//! ```
//!
//! A driver takes all the mail that waits and decides on it letter by letter, each on the state that the one before would
//! leave; then it commits everything at once. A refusal is an answer like any other. If the commit does not go through, its
//! outcome is unknown: the driver answers everybody that it cannot tell, throws its state away, reads the stream again, and
//! goes on as after a crash. At each † a test may kill the process.
//!
//! What takes long (aggregating, scoring, building) runs beside the driver and comes back as mail.

mod actor;
pub(crate) mod ledger;
mod life;
mod points;
pub mod rollout;
pub mod run;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use sapwood_failpoint::{Killed, Point};
use sapwood_protocol::{Fault, Machine, Secrets, fault::Lack};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use actor::load;
pub use actor::{Actor, End};
pub use life::Life;
pub use points::Pair;

use crate::{
    clock::Clock,
    fleet::Fleet,
    store::{Letter, ReleaseRow, Store, Writer},
};

/// A machine that a driver can drive.
pub trait Protocol:
    Machine<Input: Send + 'static, Event: Serialize + DeserializeOwned + Send + Sync, Effect: Send> + Send + Sync + 'static
{
    /// Its events' failpoints.
    const POINTS: &'static [Pair];
    /// An event's kind, as in the table of points.
    fn kind(event: &Self::Event) -> &'static str;
    /// The state after these events.
    fn restore(events: &[Self::Event]) -> Result<Self, Fault>;
    /// Whether nothing will happen any more.
    fn is_over(&self) -> bool;
    /// The input that says that time has passed.
    fn tick() -> Self::Input;
}

/// What carries out a protocol's effects.
pub trait Hands<M: Protocol>: Send + 'static {
    /// What nodes are to be told; committed together with the events.
    fn letters(&self, machine: &M, effects: &[M::Effect]) -> Vec<Letter>;
    /// The index rows that change with these events; `machine` is the state after them.
    fn index(&self, machine: &M, events: &[M::Event]) -> Index;
    /// Carries out an effect other than telling nodes. What it has to say at once comes back; what takes long becomes mail.
    fn perform(&mut self, machine: &M, effect: M::Effect) -> impl Future<Output = Result<Vec<M::Input>, Killed>> + Send;
    /// The state has changed, and it is committed.
    fn adopted(&mut self, machine: &Arc<M>);
    /// What is in memory is lost, as after a crash.
    fn forget(&mut self);
    /// Who is here now, if the machine has a use for it.
    fn roster(&self, machine: &M) -> Option<M::Input>;
}

/// Index rows that change together with events.
#[derive(Default)]
pub struct Index {
    /// The stream's summary, JSON.
    pub summary: Option<Vec<u8>>,
    /// A release that came of it.
    pub release: Option<ReleaseRow>,
}

/// What every driver works with.
#[derive(Clone)]
pub struct Context {
    /// Where facts are read.
    pub store: Arc<dyn Store>,
    /// Where they are written.
    pub writer: Writer,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Whose tasks these are.
    pub life: Life,
    /// Who is to be told.
    pub fleet: Arc<Fleet>,
    /// Under which name leases are taken.
    pub holder: Arc<str>,
    /// Makes a source of secrets for one driver.
    pub secrets: fn() -> Box<dyn Secrets>,
}

/// A message for a driver, and where its answer goes.
pub struct Mail<I> {
    input: I,
    answer: Option<oneshot::Sender<Result<(), Fault>>>,
}

/// Where a driver gets its mail.
pub struct Address<I>(mpsc::Sender<Mail<I>>);

impl<I> Clone for Address<I> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Mail that waits at a driver before its senders do.
const MAILBOX: usize = 1024;

impl<I> Address<I> {
    /// An address and its mailbox.
    pub fn new() -> (Self, mpsc::Receiver<Mail<I>>) {
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        (Self(sender), mailbox)
    }

    /// Waits until what follows from `input` is committed and done, or it was refused.
    pub async fn ask(&self, input: I) -> Result<(), Fault> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Mail { input, answer: Some(answer) }).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Says it without waiting for an answer. Nothing happens if the driver is gone.
    pub async fn tell(&self, input: I) {
        let _ = self.0.send(Mail { input, answer: None }).await;
    }
}

fn gone() -> Fault {
    Lack::Resource { what: "the coordinator", why: "it is about to stop or to start again; try again soon".into() }.into()
}

/// All places in the drivers, the objects and the release pipeline where a test may kill the coordinator.
pub fn failpoints() -> Vec<Point> {
    let pairs = points::RUN.iter().chain(points::ROLLOUT).chain(points::LEDGER).flat_map(|pair| [pair.after_commit, pair.before_send]);
    pairs.chain(run::POINTS.iter().chain(crate::objects::POINTS).copied()).collect()
}

/// A stream's state as it changes, for those who watch.
pub struct Watching<M, V> {
    states: watch::Receiver<Arc<M>>,
    first: bool,
    view: fn(&M) -> V,
}

impl<M, V> Watching<M, V> {
    pub(crate) fn new(states: watch::Receiver<Arc<M>>, view: fn(&M) -> V) -> Self {
        Self { states, first: true, view }
    }

    /// The view now, then after every change, of which the newest counts; `None` when nothing will change any more.
    pub async fn next(&mut self) -> Option<V> {
        if !std::mem::take(&mut self.first) {
            self.states.changed().await.ok()?;
        }
        let state = Arc::clone(&self.states.borrow_and_update());
        Some((self.view)(&state))
    }
}

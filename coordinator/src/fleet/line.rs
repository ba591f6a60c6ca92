//! A connected node's line: what it should know, as levels. Only the newest of each topic is sent, however slow the node is.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use sapwood_protocol::NodeId;
use tokio::sync::watch;

use super::Fleet;
use crate::{
    drive::Life,
    store::{Letter, LetterKind},
};

/// One thing that a node is told, as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// `protocol::round::Task`.
    Task(Bytes),
    /// `protocol::round::Withdrawal`.
    Withdraw(Bytes),
    /// `protocol::rollout::Assignment`.
    Assignment(Bytes),
    /// The coordinator goes away in good order, for this reason.
    Goodbye(String),
}

impl From<&Letter> for Order {
    fn from(letter: &Letter) -> Self {
        let body = letter.body.clone();
        match letter.kind {
            LetterKind::Task => Self::Task(body),
            LetterKind::Withdraw => Self::Withdraw(body),
            LetterKind::Assignment => Self::Assignment(body),
        }
    }
}

/// The newest letter of each topic, with a number that grows whenever it is replaced.
#[derive(Default)]
pub(super) struct Levels {
    next: u64,
    topics: BTreeMap<String, (u64, Letter)>,
}

impl Levels {
    /// A letter that has just been committed.
    pub(super) fn post(&mut self, letter: Letter) {
        self.next += 1;
        self.topics.insert(letter.topic.clone(), (self.next, letter));
    }
    /// A letter read from the store: what was posted in the meantime is newer.
    pub(super) fn stored(&mut self, letter: Letter) {
        if !self.topics.contains_key(&letter.topic) {
            self.post(letter);
        }
    }
}

/// What a connected node is told, in order. Dropping it hangs up.
pub struct Orders {
    pub(super) fleet: Arc<Fleet>,
    pub(super) life: Life,
    pub(super) node: NodeId,
    pub(super) line: u64,
    pub(super) levels: watch::Receiver<Levels>,
    pub(super) sent: BTreeMap<String, u64>,
    pub(super) over: bool,
}

impl Orders {
    /// The next order; `None` once the line is closed, after a Goodbye if there is time for one.
    ///
    /// May be dropped and called again without losing an order.
    pub async fn next(&mut self) -> Option<Order> {
        while !self.over {
            if let Some(order) = self.unsent() {
                return Some(order);
            }
            tokio::select! {
                biased;
                () = self.life.stopping() => {
                    self.over = true;
                    return Some(Order::Goodbye("the coordinator is shutting down".into()));
                }
                changed = self.levels.changed() => self.over = changed.is_err(),
            }
        }
        None
    }

    fn unsent(&mut self) -> Option<Order> {
        let levels = self.levels.borrow_and_update();
        let (topic, (number, letter)) = levels.topics.iter().find(|(topic, (number, _))| self.sent.get(*topic) != Some(number))?;
        let order = letter.into();
        self.sent.insert(topic.clone(), *number);
        Some(order)
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        self.fleet.hung_up(&self.node, self.line);
    }
}

//! Group commit: one task writes for everyone. While one transaction is on its way to the disk, whoever comes waits, and
//! all who wait go into the next one together.

use std::sync::Arc;

use sapwood_protocol::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{Append, Done, Intent, Lease, NodeRow, Store, StoreError, StreamName, Trouble};

/// The most intentions in one transaction.
const GROUP: usize = 1024;

type Waiting = (Intent, oneshot::Sender<Result<Done, StoreError>>);

/// A handle on the writing task. It ends when the last handle is dropped.
#[derive(Clone)]
pub struct Writer(mpsc::Sender<Waiting>);

impl Writer {
    /// Starts the task, which writes to `store`.
    pub fn start(store: Arc<dyn Store>) -> (Self, JoinHandle<()>) {
        let (handle, waiting) = mpsc::channel(GROUP);
        (Self(handle), tokio::spawn(write(store, waiting)))
    }

    /// Waits until `intent` is durable, or refused.
    ///
    /// # Errors
    /// As the [`Intent`] says. With anything that is no verdict the outcome is unknown.
    pub async fn write(&self, intent: Intent) -> Result<Done, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.0.send((intent, answer)).await.map_err(|_| StoreError::unavailable(Trouble::Closed))?;
        answered.await.unwrap_or_else(|_| Err(StoreError::unavailable(Trouble::Closed)))
    }

    /// [`Intent::Append`].
    pub async fn append(&self, append: Append) -> Result<(), StoreError> {
        self.write(Intent::Append(Box::new(append))).await.map(drop)
    }

    /// [`Intent::TakeLease`].
    pub async fn take_lease(&self, resource: StreamName, holder: String, now: Timestamp, expires: Timestamp) -> Result<Lease, StoreError> {
        match self.write(Intent::TakeLease { resource: resource.clone(), holder, now, expires }).await? {
            Done::Leased(lease) => Ok(lease),
            Done::Written => Err(StoreError::Corrupt { what: resource.to_string(), why: "a lease was asked for, and none came".into() }),
        }
    }

    /// [`Intent::PutNode`]; the row as it is stored now.
    pub async fn put_node(&self, row: NodeRow) -> Result<NodeRow, StoreError> {
        self.write(Intent::PutNode(Box::new(row.clone()))).await?;
        Ok(NodeRow { version: row.version + 1, ..row })
    }
}

async fn write(store: Arc<dyn Store>, mut waiting: mpsc::Receiver<Waiting>) {
    let mut group = Vec::new();
    while waiting.recv_many(&mut group, GROUP).await > 0 {
        let (intents, answers): (Vec<_>, Vec<_>) = group.drain(..).unzip();
        match store.write(intents).await {
            Ok(verdicts) => {
                for (answer, verdict) in answers.into_iter().zip(verdicts) {
                    // Whoever does not wait any more does not want to know.
                    let _ = answer.send(verdict);
                }
            }
            Err(error) => {
                tracing::warn!(error = %error, waiting = answers.len(), "a commit did not go through");
                let shared = Arc::new(error);
                for answer in answers {
                    let _ = answer.send(Err(StoreError::shared(&shared)));
                }
            }
        }
    }
}

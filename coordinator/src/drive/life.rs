//! The life of a coordinator process, real or simulated: it is asked to stop, or it is killed, and its tasks with it.

use std::sync::{Arc, OnceLock};

use sapwood_failpoint::{self as failpoint, Killed};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Clones are handles on one life.
#[derive(Clone, Default)]
pub struct Life {
    stopping: CancellationToken,
    dead: CancellationToken,
    cause: Arc<OnceLock<Killed>>,
    tasks: TaskTracker,
}

impl Life {
    /// Runs `task` until it ends or the life does. A kill in it ends everything.
    pub fn spawn(&self, task: impl Future<Output = Result<(), Killed>> + Send + 'static) {
        let life = self.clone();
        // A task of a killed process must not take another step, so the cancellation is looked at first.
        self.tasks.spawn(failpoint::inherit(async move {
            let outcome = tokio::select! {
                biased;
                () = life.dead.cancelled() => return,
                outcome = task => outcome,
            };
            if let Err(killed) = outcome {
                life.kill(killed);
            }
        }));
    }

    /// Runs `work` where it may block, under the same failpoints. Its panic goes on here.
    pub async fn block<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        Self::try_block(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// As [`Life::block`], but hands a panic back.
    pub async fn try_block<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::thread::Result<T> {
        let hook = failpoint::current();
        let work = move || {
            let _guard = hook.as_ref().map(failpoint::Hook::install);
            work()
        };
        match tokio::task::spawn_blocking(work).await.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(value) => Ok(value),
            Err(Ok(panic)) => Err(panic),
            // The runtime is being torn down, and this task with it.
            Err(Err(_)) => std::future::pending().await,
        }
    }

    /// The process dies here.
    pub fn kill(&self, killed: Killed) {
        let _ = self.cause.set(killed);
        self.dead.cancel();
    }

    /// Waits for the process to be killed; what killed it.
    pub async fn killed(&self) -> Killed {
        self.dead.cancelled().await;
        self.cause.get().cloned().unwrap_or(Killed { point: "unknown".into() })
    }

    /// Whether it was killed.
    pub fn is_dead(&self) -> bool {
        self.dead.is_cancelled()
    }

    /// Asks the tasks to come to an end.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Waits to be asked.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Whether it was asked.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Waits until all tasks have ended.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

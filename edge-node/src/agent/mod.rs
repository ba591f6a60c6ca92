//! The agent: brings releases to this node and lets one of them answer.
//!
//! [`Slots`](sapwood_protocol::slot::Slots) decides; this module carries out. Each decision's events are on disk before its
//! effects begin, so that a node that is killed anywhere knows at its next start what may answer and what to do again.
//!
//! - `driver` asks the machine, writes its journal and carries out its effects, in order;
//! - `disk` holds slots and downloads, and exchanges slots in one rename;
//! - `steps` verifies, stages, tries and loads.
//!
//! What is committed is served before any network is touched, and goes on being served whatever becomes of the coordinator.

mod disk;
mod driver;
mod steps;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use sapwood_failpoint as failpoint;
use sapwood_protocol::{Digest, release::bundle::Parts as BundleParts, slot, trust::TrustFile};
use sapwood_runtime::Runtime;
use tokio::{sync::oneshot, task::JoinHandle};

pub use disk::Disk;

use crate::{
    config::Config,
    error::NodeError,
    link::{Assignments, Link, Reporter},
    serve::{self, Engine, Server},
    store::Store,
};
use driver::Driver;
use steps::Workbench;

failpoint::points! {
    /// Where a test may kill a node while it brings a release, beside those of the journal ([`failpoints`]).
    pub POINTS {
        /// Some chunks of a bundle are on disk.
        DOWNLOADING = "agent.while-downloading",
        /// The bundle is whole; its signature has not been checked.
        DOWNLOADED = "agent.after-download",
        /// The slot is written under a name of its own; it has not got its place.
        DRAFTED = "agent.before-stage-rename",
        /// The slot has its place; the journal does not know it.
        STAGED = "agent.after-stage-rename",
        /// The newcomer is loaded; the old slot is the current one.
        LOADED = "agent.before-exchange-rename",
        /// The newcomer's slot is the current one; requests still go to the old model.
        EXCHANGED = "agent.after-exchange-rename",
        /// A slot that is not needed any more is gone.
        PRUNED = "agent.after-prune",
    }
}

/// Loads a bundle's parts and checks their golden answers; for the cold-start probe.
pub(crate) fn first_answer(runtime: &Runtime, parts: &BundleParts, digest: Digest) -> Result<(), String> {
    steps::load(runtime, parts, "probe", "0", digest, 1).map(|_| ())
}

/// Every place where a test may kill the agent.
pub fn failpoints() -> Vec<String> {
    let journal = slot::Event::KINDS.iter().flat_map(|kind| [after_commit(kind), before_effects(kind)]);
    journal.chain(POINTS.iter().map(|point| point.name().to_owned())).collect()
}

fn after_commit(kind: &str) -> String {
    format!("agent.after-commit.{kind}")
}

fn before_effects(kind: &str) -> String {
    format!("agent.before-effects.{kind}")
}

/// What the agent works with.
pub struct Parts<'a> {
    /// Slots and downloads get folders in it.
    pub state_dir: PathBuf,
    /// Holds the journal.
    pub store: Store,
    /// Where bundles come from.
    pub link: Link,
    /// Whose releases are taken.
    pub trust: Arc<TrustFile>,
    /// How to serve, and with which runtime.
    pub config: &'a Config,
    /// Where reports go.
    pub report: Reporter,
    /// Where orders come from.
    pub assignments: Assignments,
}

/// A running agent and its inference server.
pub struct Running {
    /// Where inference requests are answered.
    pub serving: SocketAddr,
    /// ONNX Runtime's version, if there is one.
    pub runtime: Option<String>,
    /// Ends when there can be no more orders, or in a simulated crash.
    pub task: JoinHandle<Result<(), NodeError>>,
    stop: Option<oneshot::Sender<()>>,
    server: Option<Server>,
}

impl Running {
    /// Ends the agent between two effects, then the server after the requests under way.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        if !self.task.is_finished() {
            let _ = (&mut self.task).await;
        }
        if let Some(server) = self.server.take() {
            let _ = tokio::task::spawn_blocking(move || server.stop()).await;
        }
    }
}

/// Starts serving what is committed, then follows orders.
///
/// # Errors
/// What a person must mend: a journal that cannot be read, an address that is taken.
pub async fn start(parts: Parts<'_>) -> Result<Running, NodeError> {
    let engine = Arc::new(Engine::new());
    let workbench = Workbench::new(parts.config, parts.trust.clone());
    let runtime = workbench.runtime_version();
    let disk = Disk::open(&parts.state_dir)?;
    let settings = &parts.config.serve;
    let mut driver =
        Driver::new(disk, workbench, engine.clone(), parts.store, parts.link, parts.report, settings.policy(), settings.probe).await?;
    driver.recover().await?;
    let listen = settings.listen;
    let server = serve::start(listen, engine).map_err(|source| NodeError::Listen { address: listen, source })?;
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(failpoint::inherit(driver.run(parts.assignments, stopped)));
    Ok(Running { serving: server.address, runtime, task, stop: Some(stop), server: Some(server) })
}

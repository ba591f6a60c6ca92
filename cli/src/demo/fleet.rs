//! The coordinator and the nodes, as processes.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use futures_util::future::{join_all, try_join_all};

use super::{processes::Process, stage::Stage};

/// All processes of the demo.
pub(super) struct Fleet {
    pub(super) coordinator: SocketAddr,
    /// Name and inference address of each node.
    pub(super) nodes: Vec<(String, SocketAddr)>,
    processes: Vec<Process>,
}

impl Fleet {
    pub(super) async fn start(stage: &Stage) -> Result<Self> {
        let log = |name: &str| stage.folder.join(format!("{name}.log"));
        let config = stage.deployment.config();
        let mut first = Process::start("coordinator", &["coordinator", "serve", "--config", text(&config)?], &log("coordinator"))?;
        let coordinator = first.ready("listening").await?;
        let mut processes = Vec::new();
        for (index, name) in stage.nodes.iter().enumerate() {
            let config = stage.node(index, &coordinator.to_string()).map_err(|failure| anyhow::anyhow!(failure.message))?;
            processes.push(Process::start(name, &["node", "run", "--config", text(&config)?], &log(name))?);
        }
        let ready = try_join_all(processes.iter_mut().map(|process| process.ready("serving"))).await?;
        let nodes = stage.nodes.iter().cloned().zip(ready).collect();
        processes.push(first);
        Ok(Self { coordinator, nodes, processes })
    }

    /// Asks all to go, nodes first.
    pub(super) async fn stop(mut self) -> Result<()> {
        let dead: Vec<String> = self.processes.iter_mut().filter_map(|p| (!p.alive()).then(|| p.name.clone())).collect();
        let coordinator = self.processes.pop();
        let mut stopped = join_all(self.processes.into_iter().map(Process::stop)).await;
        if let Some(coordinator) = coordinator {
            stopped.push(coordinator.stop().await);
        }
        if !dead.is_empty() {
            bail!("{} ended before the demo did", dead.join(", "));
        }
        stopped.into_iter().collect()
    }
}

fn text(path: &std::path::Path) -> Result<&str> {
    path.to_str().context("the temporary folder's name is not text")
}

//! What operators and researchers ask of the coordinator.

use std::sync::Arc;

use sapwood_protocol::{
    Cx, Fault, Machine, NodeId, ReleaseId, RunId,
    fault::Lack,
    release::view::{NodeInfo, ReleaseView, RolloutView},
    rollout::Rollout,
    run::{Input, Run},
    view::RunView,
};
use tokio::sync::watch;

use super::{ReleaseDocument, State, Watching, damaged, lock, no_such};
use crate::{
    drive::{Protocol, load, run::Summary},
    store::StreamName,
};

impl State {
    /// All runs, oldest first, without their rounds.
    pub async fn runs(&self) -> Result<Vec<RunView>, Fault> {
        let mut views = Vec::new();
        for row in self.store().streams("run", false).await? {
            let summary: Summary = serde_json::from_slice(&row.summary).map_err(|error| damaged(row.name.as_str(), &error))?;
            views.push(summary.view);
        }
        Ok(views)
    }

    /// One run.
    pub async fn run(&self, run: &RunId) -> Result<RunView, Fault> {
        let states = self.run_states(run).await?;
        let view = RunView::from(&**states.borrow());
        Ok(view)
    }

    /// One run as it goes on; ends with the run.
    pub async fn watch_run(&self, run: &RunId) -> Result<Watching<Run, RunView>, Fault> {
        Ok(Watching::new(self.run_states(run).await?, |run| RunView::from(run)))
    }

    async fn run_states(&self, run: &RunId) -> Result<watch::Receiver<Arc<Run>>, Fault> {
        if let Some(handle) = lock(&self.0.runs).get(run) {
            return Ok(handle.states.clone());
        }
        self.stored(StreamName::run(run), || no_such("run", run)).await
    }

    /// Stops a run, which may be over already.
    ///
    /// # Errors
    /// [`sapwood_protocol::fault::Misuse::State`] if it has ended in another way.
    pub async fn stop_run(&self, run: &RunId, by: String) -> Result<RunView, Fault> {
        let handle = lock(&self.0.runs).get(run).cloned();
        if let Some(handle) = handle {
            match handle.address.ask(Input::Stop { by: by.clone() }).await {
                // It came to its end by itself just now.
                Err(Fault::Unavailable(_)) if !self.is_live(run).await? => {}
                answer => {
                    answer?;
                    return self.run(run).await;
                }
            }
        }
        let states = self.stored::<Run>(StreamName::run(run), || no_such("run", run)).await?;
        if self.is_live(run).await? {
            return Err(Lack::Lease { what: format!("run {run}") }.into());
        }
        let state = Arc::clone(&states.borrow());
        let mut secrets = (self.0.shop.cx.secrets)();
        // Nothing can follow any more; the machine knows how to say so.
        state.decide(&mut Cx { now: self.now(), secrets: &mut *secrets }, Input::Stop { by })?;
        self.run(run).await
    }

    /// All releases, oldest first.
    pub async fn releases(&self) -> Result<Vec<ReleaseView>, Fault> {
        let rows = self.store().releases().await?;
        rows.iter().map(|row| ReleaseDocument::stored(row).map(|document| document.view)).collect()
    }

    /// One release.
    pub async fn release(&self, release: &ReleaseId) -> Result<ReleaseView, Fault> {
        Ok(self.release_document(release).await?.view)
    }

    /// One release with what nodes need to fetch it, signatures included.
    pub async fn release_document(&self, release: &ReleaseId) -> Result<ReleaseDocument, Fault> {
        let row = self.store().release(release).await?.ok_or_else(|| no_such("release", release))?;
        ReleaseDocument::stored(&row)
    }

    /// One release's rollout.
    pub async fn rollout(&self, release: &ReleaseId) -> Result<RolloutView, Fault> {
        let states = self.rollout_states(release).await?;
        let view = states.borrow().view();
        Ok(view)
    }

    /// One release's rollout as it goes on. It has come to rest when the view has an outcome; what follows after that are
    /// latecomers. Ends when a newer rollout takes over.
    pub async fn watch_rollout(&self, release: &ReleaseId) -> Result<Watching<Rollout, RolloutView>, Fault> {
        Ok(Watching::new(self.rollout_states(release).await?, Rollout::view))
    }

    async fn rollout_states(&self, release: &ReleaseId) -> Result<watch::Receiver<Arc<Rollout>>, Fault> {
        if let Some(handle) = lock(&self.0.rollouts).get(release) {
            return Ok(handle.states.clone());
        }
        self.stored(StreamName::rollout(release), || no_such("rollout of release", release)).await
    }

    async fn is_live(&self, run: &RunId) -> Result<bool, Fault> {
        Ok(self.store().stream(&StreamName::run(run)).await?.is_some_and(|row| row.live))
    }

    /// The state of a stream that is not driven here; it never changes.
    async fn stored<M: Protocol>(&self, name: StreamName, missing: impl FnOnce() -> Fault) -> Result<watch::Receiver<Arc<M>>, Fault> {
        if self.store().stream(&name).await?.is_none() {
            return Err(missing());
        }
        let (machine, _) = load::<M>(&**self.store(), &name).await?;
        Ok(watch::channel(Arc::new(machine)).1)
    }

    /// All nodes.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        self.fleet().nodes()
    }

    /// One node.
    pub fn node(&self, node: &NodeId) -> Result<NodeInfo, Fault> {
        self.fleet().node(node)
    }
}

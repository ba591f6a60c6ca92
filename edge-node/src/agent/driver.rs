//! Asks the machine, writes its journal, carries out its effects.

use std::{io, path::Path, sync::Arc, time::Duration};

use sapwood_failpoint as failpoint;
use sapwood_protocol::{
    Cx, Machine, Timestamp,
    release::ReleaseRef,
    rollout::Step,
    slot::{Device, Effect, Event, Input, Policy, Slots},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    DOWNLOADED, DOWNLOADING,
    disk::{Disk, DiskError},
    steps::{Golden, Why, Workbench},
};
use crate::{
    clock,
    error::NodeError,
    files,
    link::{Assignments, CallError, Link, Reporter, Size},
    round::SystemSecrets,
    serve::{Engine, Served},
    store::Store,
};

/// With no deadline ahead the clock is looked at this often all the same: a suspended machine wakes up late.
const LOOK: Duration = Duration::from_secs(60);

/// How long to wait before the journal, or a step for which the disk has no room, is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// One node's slots, driven.
pub(super) struct Driver {
    slots: Slots,
    store: Store,
    disk: Disk,
    workbench: Workbench,
    engine: Arc<Engine>,
    link: Link,
    report: Reporter,
    probe: Duration,
    /// Of what answers now.
    golden: Option<Golden>,
    /// The step under way.
    work: Option<AbortHandle>,
    /// What could not be written to the journal; it is decided again when the disk may have room.
    waiting: Option<Input>,
    done: mpsc::UnboundedSender<Result<Input, NodeError>>,
    results: mpsc::UnboundedReceiver<Result<Input, NodeError>>,
}

impl Driver {
    #[expect(clippy::too_many_arguments, reason = "each is used once, here")]
    pub(super) async fn new(
        disk: Disk,
        workbench: Workbench,
        engine: Arc<Engine>,
        store: Store,
        link: Link,
        report: Reporter,
        policy: Policy,
        probe: Duration,
    ) -> Result<Self, NodeError> {
        let journal: Vec<Event> = store.slot_journal().await?;
        let slots = Slots::replay(policy, &journal);
        let (done, results) = mpsc::unbounded_channel();
        Ok(Self { slots, store, disk, workbench, engine, link, report, probe, golden: None, work: None, waiting: None, done, results })
    }

    /// After a start: lets the right release answer again and takes up what was under way.
    pub(super) async fn recover(&mut self) -> Result<(), NodeError> {
        let decision = self.slots.recover(&mut Cx { now: clock::now(), secrets: &mut SystemSecrets::default() });
        self.report.send_replace(self.slots.status());
        self.carry_out(decision.events, decision.effects).await
    }

    /// Follows orders until there can be no more, or until asked to stop.
    pub(super) async fn run(mut self, mut assignments: Assignments, mut stop: oneshot::Receiver<()>) -> Result<(), NodeError> {
        let mut probes = interval(self.probe);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Some(input) = self.waiting.take() {
                tokio::select! {
                    _ = &mut stop => break,
                    () = sleep(RETRY) => self.take(input).await?,
                }
                continue;
            }
            let wait = self.wait();
            let input = tokio::select! {
                _ = &mut stop => break,
                changed = assignments.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    match assignments.borrow_and_update().clone() {
                        Some(assignment) => Input::Assigned(assignment),
                        None => continue,
                    }
                }
                Some(result) = self.results.recv() => result?,
                _ = probes.tick() => match look(self.engine.current(), self.golden.clone()).await {
                    Some(input) => input,
                    None => continue,
                },
                () = sleep(wait) => Input::Tick,
            };
            self.take(input).await?;
        }
        if let Some(work) = self.work.take() {
            work.abort();
        }
        Ok(())
    }

    async fn take(&mut self, input: Input) -> Result<(), NodeError> {
        let decision = self.slots.decide(&mut Cx { now: clock::now(), secrets: &mut SystemSecrets::default() }, input.clone());
        match decision {
            Ok(decision) => match self.carry_out(decision.events, decision.effects).await {
                // A full disk stops installations, never the model that answers.
                Err(NodeError::Store(error)) => {
                    tracing::error!(%error, "the node's journal cannot be written; trying again");
                    self.waiting = Some(input);
                    Ok(())
                }
                done => done,
            },
            // Nothing has happened. An older order is no news: the coordinator learns the newest from every report.
            Err(fault) => {
                tracing::warn!(%fault, "an order was refused");
                self.report.send_replace(self.slots.status());
                Ok(())
            }
        }
    }

    /// Journal first, state next, then the world.
    async fn carry_out(&mut self, events: Vec<Event>, effects: Vec<Effect>) -> Result<(), NodeError> {
        if !events.is_empty() {
            self.store.append_slot_events(&events).await?;
            for event in &events {
                tracing::info!(event = event.kind(), "slots");
                failpoint::reached(&super::after_commit(event.kind()))?;
            }
            self.slots = events.iter().fold(self.slots.clone(), Slots::apply);
            for event in &events {
                failpoint::reached(&super::before_effects(event.kind()))?;
            }
        }
        for effect in effects {
            self.effect(effect).await?;
        }
        Ok(())
    }

    async fn effect(&mut self, effect: Effect) -> Result<(), NodeError> {
        match effect {
            Effect::Report(status) => {
                self.report.send_replace(status);
            }
            Effect::Preflight { job } => {
                let class = sapwood_runtime::host_class().parse()?;
                let input = match self.disk.free_bytes() {
                    Ok(free_bytes) => {
                        Input::Inspected { job, device: Device { class, runtime: self.workbench.parsed_version(), free_bytes } }
                    }
                    Err(error) => Input::Failed { job, step: Step::Preflight, why: error.to_string() },
                };
                let _ = self.done.send(Ok(input));
            }
            Effect::Download { job, release } => {
                let fetch = download(self.link.clone(), self.disk.clone(), self.workbench.clone(), release);
                self.begin(fetch, job, Step::Download);
            }
            Effect::Verify { job, release } => {
                let (workbench, disk) = (self.workbench.clone(), self.disk.clone());
                self.begin(blocking(move || Ok(workbench.verify(&disk, &release))), job, Step::Verify);
            }
            Effect::Stage { job, release } => {
                let (workbench, disk) = (self.workbench.clone(), self.disk.clone());
                self.begin(stage(workbench, disk, release), job, Step::Stage);
            }
            Effect::SmokeTest { job, release } => {
                let (workbench, disk) = (self.workbench.clone(), self.disk.clone());
                self.begin(blocking(move || Ok(workbench.load(&disk, &release).map(|_| ()))), job, Step::Smoke);
            }
            Effect::Exchange { job, to } => self.exchange(job, to).await?,
            // The probes run all the time.
            Effect::Watch { .. } => {}
            Effect::Prune { keep } => {
                // Nothing is under way any more: whoever still waits for room waits in vain.
                if let Some(work) = self.work.take() {
                    work.abort();
                }
                match self.disk.prune(&keep) {
                    Err(DiskError::Killed(killed)) => return Err(killed.into()),
                    // Untidy, but nothing is wrong with what answers.
                    Err(error) => tracing::warn!(%error, "old releases could not be removed"),
                    Ok(()) => {}
                }
            }
        }
        Ok(())
    }

    /// One step at a time: a new one ends the one before.
    fn begin(&mut self, work: impl Future<Output = Result<Result<(), Why>, DiskError>> + Send + 'static, job: u64, step: Step) {
        if let Some(before) = self.work.take() {
            before.abort();
        }
        let done = self.done.clone();
        let task = tokio::spawn(failpoint::inherit(async move {
            let input = match work.await {
                Ok(Ok(())) => Ok(Input::Passed { job, step }),
                Ok(Err(why)) => Ok(Input::Failed { job, step, why }),
                Err(DiskError::Killed(killed)) => Err(killed.into()),
                Err(error @ DiskError::Io { .. }) => Ok(Input::Failed { job, step, why: error.to_string() }),
            };
            let _ = done.send(input);
        }));
        self.work = Some(task.abort_handle());
    }

    /// Loads the release, makes its slot the current one, and sends requests to it: in this order, so that a failure before
    /// the last step leaves the old one answering.
    async fn exchange(&mut self, job: u64, to: Option<ReleaseRef>) -> Result<(), NodeError> {
        let answers = self.engine.current().map(|served| served.digest);
        let wanted = to.as_ref().map(|release| release.bundle);
        if let Some(running) = wanted
            && answers != wanted
            && let Err(why) = self.workbench.runtime()
        {
            // The machine's fault and no release's: another one would not answer either.
            let _ = self.done.send(Ok(Input::Unhealthy { running, why }));
            return Ok(());
        }
        let outcome = match to {
            Some(release) if answers != wanted => {
                let (workbench, disk) = (self.workbench.clone(), self.disk.clone());
                let loaded = blocking(move || {
                    let loaded = workbench.load(&disk, &release);
                    if loaded.is_ok() {
                        disk.exchange(Some(release.bundle))?;
                    }
                    Ok(loaded)
                });
                match loaded.await {
                    Ok(Ok(loaded)) => {
                        self.golden = Some(loaded.golden);
                        self.engine.exchange(Some(loaded.served));
                        Ok(())
                    }
                    Ok(Err(why)) => Err(why),
                    Err(DiskError::Killed(killed)) => return Err(killed.into()),
                    Err(error) => Err(error.to_string()),
                }
            }
            // It answers already; only the disk may say otherwise.
            Some(_) | None => match self.disk.exchange(wanted) {
                Ok(()) => {
                    if wanted.is_none() {
                        self.engine.exchange(None);
                        self.golden = None;
                    }
                    Ok(())
                }
                Err(DiskError::Killed(killed)) => return Err(killed.into()),
                Err(error) => Err(error.to_string()),
            },
        };
        let input = match outcome {
            Ok(()) => Input::Exchanged { job, to: wanted },
            Err(why) => Input::Failed { job, step: Step::Exchange, why },
        };
        let _ = self.done.send(Ok(input));
        Ok(())
    }

    /// Until the clock must be looked at.
    fn wait(&self) -> Duration {
        let wait = self.slots.deadline().map_or(LOOK, |at: Timestamp| at.since(clock::now()).min(LOOK));
        wait.max(Duration::from_millis(1))
    }
}

/// Golden inputs through what answers now. What clients send proves nothing: a graph may fail on an input of theirs.
async fn look(served: Option<Arc<Served>>, golden: Option<Golden>) -> Option<Input> {
    let (served, golden) = (served?, golden?);
    let running = served.digest;
    match tokio::task::spawn_blocking(move || golden.check(&served)).await {
        Ok(Ok(())) => Some(Input::Healthy { running }),
        Ok(Err(why)) => Some(Input::Unhealthy { running, why }),
        Err(_) => Some(Input::Unhealthy { running, why: "the probe panicked".to_owned() }),
    }
}

/// Manifest and bundle, each going on where an earlier try ended. A slot that is still there will do, if it is whole. A full
/// disk is waited for: somebody will make room, and until the step's deadline nothing is lost.
async fn download(link: Link, disk: Disk, workbench: Workbench, release: ReleaseRef) -> Result<Result<(), Why>, DiskError> {
    if disk.slot(release.bundle).exists() {
        let (disk, release) = (disk.clone(), release.clone());
        let held = blocking(move || match workbench.verify(&disk, &release) {
            Ok(()) => Ok(true),
            Err(why) => {
                tracing::warn!(%why, "the release is fetched again");
                disk.discard(release.bundle).map(|()| false)
            }
        });
        if held.await? {
            return Ok(Ok(()));
        }
    }
    let wanted = [(release.manifest, release.manifest_bytes, None), (release.bundle, release.bundle_bytes, Some(DOWNLOADING))];
    for (digest, bytes, point) in wanted {
        let path = disk.download(digest);
        if path.exists() {
            continue;
        }
        loop {
            match link.fetch_file(digest, Size::Exactly(bytes), &path, point).await {
                Ok(_) => break,
                Err(CallError::Killed(killed)) => return Err(killed.into()),
                Err(CallError::Disk { path, source }) if files::is_full(&source) => wait_for_room(&path, &source).await,
                Err(CallError::Disk { path, source }) => return Err(DiskError::Io { path, source }),
                Err(error) => return Ok(Err(error.to_string())),
            }
        }
    }
    DOWNLOADED.reached()?;
    Ok(Ok(()))
}

/// From the download into a slot, as soon as there is room for it.
async fn stage(workbench: Workbench, disk: Disk, release: ReleaseRef) -> Result<Result<(), Why>, DiskError> {
    loop {
        let (workbench, disk, release) = (workbench.clone(), disk.clone(), release.clone());
        match blocking(move || workbench.stage(&disk, &release)).await {
            Err(DiskError::Io { path, source }) if files::is_full(&source) => wait_for_room(&path, &source).await,
            done => return done,
        }
    }
}

async fn wait_for_room(path: &Path, error: &io::Error) {
    tracing::error!(path = %path.display(), %error, "there is no room for the release; make some, and its installation goes on by itself");
    sleep(RETRY).await;
}

/// Work for a blocking thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, DiskError> + Send + 'static) -> Result<T, DiskError> {
    let inherit = failpoint::current();
    let task = tokio::task::spawn_blocking(move || {
        let _guard = inherit.map(|hook| hook.install());
        work()
    });
    match task.await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

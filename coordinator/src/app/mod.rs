//! The process: one [`State`], which everything that comes in from outside is handed to.
//!
//! A state is started from its store alone, whatever happened to the process before it: every run and rollout that is not
//! over gets a driver, which goes on as after a crash.

mod nodes;
mod operators;
mod serve;
mod shelf;
mod submit;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sapwood_failpoint::Killed;
use sapwood_protocol::{
    Fault, ReleaseId, RunId, Secrets, Timestamp,
    fault::{Lack, Misuse},
    ledger,
    release::{ReleaseRef, manifest::RolloutPolicy, view::ReleaseView},
    rollout::{self, Rollout},
    run::{self, Run},
    spec::PrivacyUnit,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, watch};

pub(crate) use self::shelf::Shelf;
pub use self::{
    nodes::{Said, Upload, UploadHeader, receipt},
    serve::serve,
    submit::Submission,
};
use crate::{
    clock::Clock,
    drive::{
        Actor, Address, Context, End, Life,
        rollout::{self as rollouts, RolloutHands},
        run::{self as runs, Held, RunHands, Secure, Shop},
    },
    fleet::Fleet,
    ledgers::{Budgets, Ledgers},
    objects::{ObjectError, Objects},
    release::{Release, Work},
    store::{Intent, Store, StoreError, StreamName, Submitted, Writer},
    uploads::Uploads,
};
pub use crate::{
    drive::{Watching, failpoints},
    fleet::{NodeHello, NodeProfile, Order, Orders},
    store::Enrollment,
};

/// Between two attempts at what the store did not allow.
const PAUSE: Duration = Duration::from_secs(2);
/// Who drives the streams of this store.
const INSTANCE: &str = "instance";

/// What a state is made of.
pub struct Parts {
    /// Where facts are kept.
    pub store: Arc<dyn Store>,
    /// Where bytes are kept.
    pub objects: Objects,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// What scores models and builds releases.
    pub work: Arc<dyn Work>,
    /// Makes sources of secrets.
    pub secrets: fn() -> Box<dyn Secrets>,
    /// How much at once.
    pub limits: Limits,
    /// The privacy budgets of the population.
    pub budgets: Budgets,
    /// The store comes from a backup: whatever was spent since is not in it.
    pub restored: bool,
}

/// How much at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of updates in memory besides the sum.
    pub upload_memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { upload_memory: 96 << 20 }
    }
}

/// Why a coordinator did not start, or stopped.
#[derive(Debug, Error)]
pub enum CoordinatorError {
    /// The database.
    #[error("the coordinator's database cannot be opened")]
    Store(#[from] StoreError),
    /// The folder of objects.
    #[error("the coordinator's objects cannot be opened")]
    Objects(#[from] ObjectError),
    /// Keys or certificates.
    #[error("the deployment's keys cannot be used")]
    Pki(#[from] crate::pki::PkiError),
    /// Another process uses the same folder.
    #[error("the data folder {folder} is in use by another coordinator; stop it first")]
    InUse {
        /// Which.
        folder: String,
    },
    /// A file that was named cannot be used.
    #[error("{what} cannot be used: {why}")]
    File {
        /// Which.
        what: String,
        /// Why.
        why: String,
    },
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on; choose another one, or stop what listens there")]
    Listen {
        /// Which.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The simulated process died.
    #[error(transparent)]
    Killed(#[from] Killed),
}

/// A coordinator's state. Clones are handles on the same one.
#[derive(Clone)]
pub struct State(Arc<Inner>);

struct Inner {
    shop: Shop,
    runs: Mutex<BTreeMap<RunId, RunHandle>>,
    rollouts: Mutex<BTreeMap<ReleaseId, RolloutHandle>>,
    /// One submission, and one start of a rollout, at a time.
    submitting: AsyncMutex<()>,
    starting: AsyncMutex<()>,
    enrollments: watch::Sender<u64>,
}

/// A run that is being driven.
#[derive(Clone)]
struct RunHandle {
    address: Address<run::Input>,
    held: Held,
    secure: Secure,
    states: watch::Receiver<Arc<Run>>,
}

/// A rollout that is being driven.
#[derive(Clone)]
struct RolloutHandle {
    address: Address<rollout::Input>,
    states: watch::Receiver<Arc<Rollout>>,
}

/// What is kept of a release besides its bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReleaseDocument {
    /// For people and scripts.
    pub view: ReleaseView,
    /// For nodes.
    pub reference: ReleaseRef,
    /// How it spreads.
    pub policy: RolloutPolicy,
}

impl From<Release> for ReleaseDocument {
    fn from(Release { reference, manifest }: Release) -> Self {
        let view = ReleaseView {
            release: reference.release.clone(),
            digest: reference.bundle,
            manifest: reference.manifest,
            bytes: reference.bundle_bytes,
            signatures: reference.signatures.clone(),
            class: reference.class.clone(),
            run: manifest.provenance.run,
            created: manifest.created,
            gates: manifest.gates,
            privacy: manifest.privacy,
        };
        Self { view, reference, policy: manifest.rollout }
    }
}

impl ReleaseDocument {
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("documents have string keys and finite numbers")
    }

    fn stored(row: &crate::store::ReleaseRow) -> Result<Self, Fault> {
        serde_json::from_slice(&row.document).map_err(|error| damaged(&format!("release {}", row.name), &error))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn damaged(what: &str, why: &dyn std::fmt::Display) -> Fault {
    StoreError::Corrupt { what: what.to_owned(), why: why.to_string() }.into()
}

fn no_such(kind: &str, name: &dyn std::fmt::Display) -> Fault {
    Misuse::Unknown { what: format!("{kind} {name}") }.into()
}

impl State {
    /// Goes on where the store says that the last process stopped.
    ///
    /// # Errors
    /// If the store cannot be read or written.
    pub async fn start(parts: Parts) -> Result<Self, CoordinatorError> {
        let Parts { store, objects, clock, work, secrets, limits, budgets, restored } = parts;
        let (writer, _) = Writer::start(Arc::clone(&store));
        let life = Life::default();
        let mut random = secrets();
        let mut name = [0; 8];
        random.fill(&mut name);
        let name = name.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let holder: Arc<str> = String::from_utf8_lossy(&store.constant(INSTANCE, name.into_bytes()).await?).into();
        let fleet = Fleet::open(Arc::clone(&store), writer.clone(), Arc::clone(&clock), life.clone(), &mut *random).await?;
        let cx = Context { store, writer, clock, life, fleet, holder, secrets };
        let ledgers = Arc::new(Ledgers::default());
        ledgers.start(&cx, &budgets, restored).await??;
        let shop = Shop {
            cx,
            ledgers,
            objects,
            uploads: Uploads::new(limits.upload_memory),
            work,
            turn: Arc::new(Semaphore::new(1)),
            shelf: Arc::default(),
            releases: Arc::new(watch::Sender::new(0)),
        };
        let state = Self(Arc::new(Inner {
            shop,
            runs: Mutex::default(),
            rollouts: Mutex::default(),
            submitting: AsyncMutex::default(),
            starting: AsyncMutex::default(),
            enrollments: watch::Sender::new(0),
        }));
        state.go_on().await?;
        Ok(state)
    }

    async fn go_on(&self) -> Result<(), CoordinatorError> {
        let store = self.store();
        let all = store.streams("run", false).await?;
        for row in &all {
            let summary: runs::Summary = serde_json::from_slice(&row.summary)
                .map_err(|error| StoreError::Corrupt { what: row.name.to_string(), why: format!("summary: {error}") })?;
            self.0.shop.shelf.keep(&summary.view.run, summary.keep);
        }
        let (live, ended): (Vec<_>, Vec<_>) = all.into_iter().partition(|row| row.live);
        for row in live {
            self.resume_run(row.name).await?;
        }
        // Nodes that never came back to hear that a run is over will hear it when they ask.
        let writer = self.writer().clone();
        let topics: Vec<String> = ended.iter().map(|row| runs::topic(row.name.name())).collect();
        self.life().spawn(async move {
            for topic in topics {
                if let Err(error) = writer.write(Intent::Forget { topic }).await {
                    tracing::warn!(%error, "letters of a run that is over stay in the outbox");
                }
            }
            Ok(())
        });
        self.settle_ended();
        for row in store.streams("rollout", true).await? {
            self.resume_rollout(row.name).await?;
        }
        // A release is committed before its rollout begins; whatever stopped that from happening is over now.
        let state = self.clone();
        let mut releases = self.0.shop.releases.subscribe();
        releases.mark_changed();
        self.life().spawn(async move {
            loop {
                tokio::select! {
                    () = state.life().stopping() => return Ok(()),
                    changed = releases.changed() => if changed.is_err() { return Ok(()) },
                }
                while let Err(error) = state.start_rollouts().await {
                    match error {
                        Start::Killed(killed) => return Err(killed),
                        Start::Fault(fault) => tracing::warn!(%fault, "a rollout could not be started yet"),
                    }
                    tokio::select! {
                        () = state.life().stopping() => return Ok(()),
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                }
            }
        });
        Ok(())
    }

    async fn resume_run(&self, name: StreamName) -> Result<(), StoreError> {
        let (run, _) = crate::drive::load::<Run>(&**self.store(), &name).await?;
        // A crash may have come between a round's commit and the removal of what it superseded.
        for round in run.rounds() {
            if !self.0.shop.shelf.has(round.params) {
                let (objects, params) = (self.objects().clone(), round.params);
                Life::block(move || objects.remove(params))
                    .await
                    .unwrap_or_else(|error| tracing::warn!(%error, "superseded parameters stay on the disk"));
            }
        }
        let (address, mailbox) = Address::new();
        let (states, hands, handle) = self.run_hands(&address, run);
        drop(states);
        match Actor::open(self.0.shop.cx.clone(), name.clone(), hands, mailbox).await {
            Ok(actor) => self.drive_run(handle, actor, true),
            Err(StoreError::Held { holder, until, .. }) => tracing::warn!(stream = %name, %holder, %until, "another coordinator drives it"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn run_hands(&self, address: &Address<run::Input>, run: Run) -> (watch::Receiver<Arc<Run>>, RunHands, RunHandle) {
        let (run, held, secure) = (Arc::new(run), Held::default(), Secure::default());
        let (sender, states) = watch::channel(Arc::clone(&run));
        let hands = RunHands::new(self.0.shop.clone(), address.clone(), &run, held.clone(), secure.clone(), sender);
        let handle = RunHandle { address: address.clone(), held, secure, states: states.clone() };
        (states, hands, handle)
    }

    /// Hands a run to its driver, which is told to start unless it has.
    fn drive_run(&self, handle: RunHandle, actor: Actor<Run, RunHands>, recover: bool) {
        let run = handle.states.borrow().created().run.clone();
        lock(&self.0.runs).insert(run.clone(), handle.clone());
        let state = self.clone();
        self.life().spawn(async move {
            let starting = async {
                handle.address.tell(run::Input::Start).await;
                std::future::pending::<()>().await;
            };
            let end = tokio::select! {
                end = actor.run(recover) => end?,
                () = starting => End::Stopped,
            };
            finished(&run, &end);
            lock(&state.0.runs).remove(&run);
            let unit = handle.states.borrow().created().spec.privacy.unit;
            if matches!(end, End::Over) && unit != PrivacyUnit::None {
                state.settle(unit, run).await;
            }
            Ok(())
        });
    }

    /// What a run that is over reserved and was not charged is free again. If that does not work now, the next start does it.
    async fn settle(&self, unit: PrivacyUnit, run: RunId) {
        if let Err(fault) = self.0.shop.ledgers.ask(unit, ledger::Input::Settle { run: run.clone() }).await {
            tracing::warn!(%run, %fault, "what the run reserved of the privacy budget stays reserved for now");
        }
    }

    /// Reservations of runs that are over, or that never came to be.
    fn settle_ended(&self) {
        // As it is before anybody can submit: a run that reserves now is not there yet.
        let (state, open) = (self.clone(), self.ledgers().open_runs());
        self.life().spawn(async move {
            for (unit, run) in open {
                match state.store().stream(&StreamName::run(&run)).await {
                    Ok(Some(row)) if row.live => {}
                    Ok(_) => state.settle(unit, run).await,
                    Err(error) => tracing::warn!(%run, %error, "what the run reserved of the privacy budget stays reserved for now"),
                }
            }
            Ok(())
        });
    }

    async fn resume_rollout(&self, name: StreamName) -> Result<(), StoreError> {
        let (rollout, _) = crate::drive::load::<Rollout>(&**self.store(), &name).await?;
        let (address, mailbox) = Address::new();
        let (hands, handle) = self.rollout_hands(address, rollout);
        match Actor::open(self.0.shop.cx.clone(), name.clone(), hands, mailbox).await {
            Ok(actor) => self.drive_rollout(handle, actor, true),
            Err(StoreError::Held { holder, until, .. }) => tracing::warn!(stream = %name, %holder, %until, "another coordinator drives it"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn rollout_hands(&self, address: Address<rollout::Input>, rollout: Rollout) -> (RolloutHands, RolloutHandle) {
        let (sender, states) = watch::channel(Arc::new(rollout));
        (RolloutHands::new(Arc::clone(self.fleet()), sender), RolloutHandle { address, states })
    }

    fn drive_rollout(&self, handle: RolloutHandle, actor: Actor<Rollout, RolloutHands>, recover: bool) {
        let release = handle.states.borrow().created().release.release.clone();
        lock(&self.0.rollouts).insert(release.clone(), handle.clone());
        let state = self.clone();
        self.life().spawn(async move {
            let starting = async {
                handle.address.tell(rollout::Input::Start).await;
                // Who came while it was not driven, and what nodes reported meanwhile.
                handle.address.tell(rollout::Input::Roster(state.fleet().views())).await;
                std::future::pending::<()>().await;
            };
            let end = tokio::select! {
                end = actor.run(recover) => end?,
                () = starting => End::Stopped,
            };
            finished(&release, &end);
            lock(&state.0.rollouts).remove(&release);
            Ok(())
        });
    }

    /// Every release gets a rollout, which takes over from the ones before it.
    async fn start_rollouts(&self) -> Result<(), Start> {
        let _one = self.0.starting.lock().await;
        for row in self.store().releases().await.map_err(Fault::from)? {
            let name = StreamName::rollout(&row.name);
            match self.store().stream(&name).await.map_err(Fault::from)? {
                None => match self.start_rollout(ReleaseDocument::stored(&row)?).await {
                    // It will not be better later.
                    Err(Start::Fault(fault @ Fault::Misuse(_))) => tracing::error!(release = %row.name, %fault, "it is not rolled out"),
                    outcome => outcome?,
                },
                // A commit whose outcome was unknown did go through.
                Some(stream) if stream.live && !lock(&self.0.rollouts).contains_key(&row.name) => {
                    self.resume_rollout(name).await.map_err(Fault::from)?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    async fn start_rollout(&self, document: ReleaseDocument) -> Result<(), Start> {
        let ReleaseDocument { reference, policy, .. } = document;
        let release = reference.release.clone();
        let older: Vec<_> = lock(&self.0.rollouts).values().cloned().collect();
        for handle in older {
            handle.address.ask(rollout::Input::Supersede { by: release.clone() }).await?;
        }
        let mut previous = None;
        for row in self.store().streams("rollout", false).await.map_err(Fault::from)? {
            let summary: rollouts::Summary = serde_json::from_slice(&row.summary).map_err(|error| damaged(row.name.as_str(), &error))?;
            if summary.completed {
                previous = Some(summary.reference);
            }
        }
        let created = rollout::Created { release: reference, previous, policy, at: self.now() };
        let machine = Rollout::create(created.clone())?;
        let (address, mailbox) = Address::new();
        let (hands, handle) = self.rollout_hands(address, machine.clone());
        let first = rollout::Event::Created(Box::new(created));
        let name = StreamName::rollout(&release);
        let actor = Actor::create(self.0.shop.cx.clone(), name, machine, first, hands, mailbox, None).await?.map_err(Fault::from)?;
        self.drive_rollout(handle, actor, false);
        Ok(())
    }

    async fn create_run(&self, machine: Run, submitted: Option<Submitted>) -> Result<Result<(), StoreError>, Fault> {
        let created = machine.created().clone();
        let (address, mailbox) = Address::new();
        let (_, hands, handle) = self.run_hands(&address, machine.clone());
        let (name, first) = (StreamName::run(&created.run), run::Event::Created(Box::new(created)));
        match Actor::create(self.0.shop.cx.clone(), name.clone(), machine, first, hands, mailbox, submitted).await {
            Ok(Ok(actor)) => {
                self.drive_run(handle, actor, false);
                Ok(Ok(()))
            }
            Ok(Err(error)) => {
                if !error.is_verdict() {
                    self.look_again(name);
                }
                Ok(Err(error))
            }
            Err(killed) => Err(self.die(killed)),
        }
    }

    /// A run's first commit has an unknown outcome: once the store can be read, the run is driven if it is there.
    fn look_again(&self, name: StreamName) {
        let state = self.clone();
        self.life().spawn(async move {
            loop {
                tokio::select! {
                    () = state.life().stopping() => return Ok(()),
                    () = tokio::time::sleep(PAUSE) => {}
                }
                match state.store().stream(&name).await {
                    Ok(Some(row)) if row.live => {
                        if state.resume_run(name.clone()).await.is_ok() {
                            return Ok(());
                        }
                    }
                    Ok(_) => {
                        // It never came to be, or is over: what it reserved is free.
                        if let Ok(run) = name.name().parse() {
                            for (unit, _) in state.ledgers().open_runs().into_iter().filter(|(_, open)| *open == run) {
                                state.settle(unit, run.clone()).await;
                            }
                        }
                        return Ok(());
                    }
                    Err(error) => tracing::warn!(stream = %name, %error, "it still cannot be read"),
                }
            }
        });
    }

    /// A handler met a failpoint: the process dies, and nobody gets an answer that could be told from a broken line.
    fn die(&self, killed: Killed) -> Fault {
        self.life().kill(killed);
        Lack::Resource { what: "the coordinator", why: "it is gone".into() }.into()
    }

    /// Says goodbye to every node, stops the drivers where they are, and waits for the last commit.
    pub async fn shutdown(&self) {
        self.life().stop();
        self.life().ended().await;
    }

    /// Waits until a test has killed this process; see [`sapwood_failpoint`].
    pub async fn killed(&self) -> Killed {
        self.life().killed().await
    }

    /// The objects.
    pub fn objects(&self) -> &Objects {
        &self.0.shop.objects
    }
    /// The store, to read.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.shop.cx.store
    }
    /// What writes to the store.
    pub fn writer(&self) -> &Writer {
        &self.0.shop.cx.writer
    }
    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.shop.cx.clock
    }
    /// The nodes.
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.0.shop.cx.fleet
    }
    /// The privacy ledgers.
    pub fn ledgers(&self) -> &Ledgers {
        &self.0.shop.ledgers
    }
    /// The tasks of this process.
    pub fn life(&self) -> &Life {
        &self.0.shop.cx.life
    }
    fn now(&self) -> Timestamp {
        self.clock().now()
    }
}

/// Why a rollout did not start.
enum Start {
    Killed(Killed),
    Fault(Fault),
}

impl From<Killed> for Start {
    fn from(killed: Killed) -> Self {
        Self::Killed(killed)
    }
}

impl From<Fault> for Start {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

fn finished(name: &dyn std::fmt::Display, end: &End) {
    match end {
        End::Over => tracing::info!(%name, "over"),
        End::Stopped => {}
        End::Lost(error) => tracing::error!(%name, %error, "no longer driven here"),
    }
}

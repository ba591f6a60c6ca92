//! What a run asks of its shell: sums, scores, candidates, and what nodes are told.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use sapwood_failpoint::{self as failpoint, Killed};
use sapwood_protocol::{
    Digest, Fault, Machine as _, NodeId, RunId, SessionId,
    fault::Misuse,
    ledger,
    membership::participant,
    round::{SecureSession, Stage, Task, Terms, Withdrawal},
    run::{CandidateOutcome, Created, Effect, Event, Input, Run},
    view::RunView,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use super::{Address, Context, Hands, Index, Life, Pair, Protocol, points};
use crate::{
    aggregate::{AggregateError, Opened, Sum},
    app::{ReleaseDocument, Shelf},
    ledgers::Ledgers,
    objects::{ObjectError, Objects},
    release::{BuildJob, Built, EvaluateJob, Work, WorkError},
    store::{Letter, LetterKind, ReleaseRow},
    uploads::{Key, Received, Uploads},
};

failpoint::points! {
    /// Where a test may kill the coordinator in the work beside its driver.
    pub POINTS {
        /// The new parameters are stored; the run does not know them.
        PARAMETERS_STORED = "run.parameters-stored",
        /// The model was scored; the run does not know how.
        SCORED = "run.scored",
        /// The candidate was built and signed, or refused; the run does not know it.
        CANDIDATE_BUILT = "run.candidate-built",
    }
}

/// Updates shorter than this are added without moving to another thread.
const INLINE: usize = 1 << 20;
/// Between two attempts to store new parameters while the disk is full.
const RETRY: Duration = Duration::from_secs(2);

impl Protocol for Run {
    const POINTS: &'static [Pair] = points::RUN;
    fn kind(event: &Event) -> &'static str {
        event.kind()
    }
    fn restore(events: &[Event]) -> Result<Self, Fault> {
        Self::replay(events)
    }
    fn is_over(&self) -> bool {
        self.is_over()
    }
    fn tick() -> Input {
        Input::Tick
    }
}

/// Where a run's orders lie in the outbox.
pub(crate) fn topic(run: &str) -> String {
    format!("round/{run}")
}

/// What lists show of a run, and what must not be thrown away because of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) view: RunView,
    pub(crate) keep: BTreeSet<Digest>,
}

impl Summary {
    fn of(run: &Run) -> Self {
        Self { view: RunView::from(run), keep: run.needed().collect() }
    }
}

/// Whole updates that wait for the run's decision, each under the number of its offer: one may be offered twice.
#[derive(Clone, Default)]
pub struct Held(Arc<Mutex<Offers>>);

#[derive(Default)]
struct Offers {
    updates: HashMap<Key, (u64, Received)>,
    next: u64,
}

impl Held {
    fn with<T>(&self, body: impl FnOnce(&mut Offers) -> T) -> T {
        body(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
    /// Held until the decision to add it, or until the guard is dropped.
    pub(crate) fn hold(&self, update: Received) -> Holding {
        let key = update.key.clone();
        let number = self.with(|offers| {
            offers.next += 1;
            offers.updates.insert(key.clone(), (offers.next, update));
            offers.next
        });
        Holding { held: self.clone(), key, number }
    }
    fn take(&self, key: &Key) -> Option<Received> {
        self.with(|offers| offers.updates.remove(key)).map(|(_, update)| update)
    }
    fn forget(&self, session: SessionId) {
        self.with(|offers| offers.updates.retain(|key, _| key.session != session));
    }
}

/// Lets go of an update that was not added.
pub(crate) struct Holding {
    held: Held,
    key: Key,
    number: u64,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.held.with(|offers| {
            if offers.updates.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
                offers.updates.remove(&self.key);
            }
        });
    }
}

/// The secure sum of the open attempt. Those who take messages in share it with the driver.
#[derive(Clone, Default)]
pub struct Secure(Arc<Slot>);

#[derive(Default)]
struct Slot {
    session: Mutex<Option<SecureSession>>,
    /// The attempt whose session was put here last.
    opened: watch::Sender<Option<SessionId>>,
}

impl Secure {
    /// Runs `body` on the session, if it is of this attempt.
    pub(crate) fn with<T>(&self, session: SessionId, body: impl FnOnce(&mut SecureSession) -> T) -> Option<T> {
        self.slot().as_mut().filter(|secure| secure.session() == session).map(body)
    }
    /// Waits until there is a session of this attempt: a node may answer its task before there is.
    pub(crate) async fn opened(&self, session: SessionId) {
        // Never an error: the sender is here.
        let _ = self.0.opened.subscribe().wait_for(|opened| *opened == Some(session)).await;
    }
    fn slot(&self) -> MutexGuard<'_, Option<SecureSession>> {
        self.0.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn put(&self, session: Option<SecureSession>) {
        let opened = session.as_ref().map(SecureSession::session);
        *self.slot() = session;
        self.0.opened.send_replace(opened);
    }
    fn take(&self, session: SessionId) -> Option<SecureSession> {
        self.slot().take_if(|secure| secure.session() == session)
    }
}

/// What every run of a process shares.
#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) cx: Context,
    pub(crate) objects: Objects,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) work: Arc<dyn Work>,
    /// One heavy job at a time: each may hold the model several times.
    pub(crate) turn: Arc<Semaphore>,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) releases: Arc<watch::Sender<u64>>,
    pub(crate) ledgers: Arc<Ledgers>,
}

/// The hands of one run.
pub(crate) struct RunHands {
    shop: Shop,
    address: Address<Input>,
    created: Arc<Created>,
    topic: String,
    held: Held,
    /// In clear.
    sum: Option<Sum>,
    /// Masked.
    secure: Secure,
    /// The attempt that updates are taken for.
    open: SessionId,
    states: watch::Sender<Arc<Run>>,
    /// The release that was built, until its event is committed.
    built: Arc<Mutex<Option<ReleaseDocument>>>,
}

impl RunHands {
    pub(crate) fn new(
        shop: Shop,
        address: Address<Input>,
        run: &Arc<Run>,
        held: Held,
        secure: Secure,
        states: watch::Sender<Arc<Run>>,
    ) -> Self {
        let created = Arc::new(run.created().clone());
        let topic = topic(created.run.as_str());
        let (open, built) = (SessionId::new([0; 32]), Arc::default());
        Self { shop, address, created, topic, held, sum: None, secure, open, states, built }
    }

    fn run(&self) -> &RunId {
        &self.created.run
    }

    fn letter(&self, node: &NodeId, kind: LetterKind, body: Bytes) -> Letter {
        Letter { node: node.clone(), topic: self.topic.clone(), kind, body }
    }

    /// Runs `job` beside the driver; what it says becomes mail.
    fn beside(&self, job: impl Future<Output = Result<Input, Killed>> + Send + 'static) {
        let (address, life) = (self.address.clone(), self.shop.cx.life.clone());
        self.shop.cx.life.spawn(async move {
            tokio::select! {
                biased;
                // The next process will be asked for it again.
                () = life.stopping() => {}
                input = job => address.tell(input?).await,
            }
            Ok(())
        });
    }

    /// Opens the accumulator, in clear or masked.
    fn open(&mut self, terms: Box<Terms>) -> Vec<Input> {
        (self.sum, self.open) = (None, terms.session);
        self.secure.put(None);
        if terms.secure.is_none() {
            return match Sum::new(terms) {
                Ok(sum) => {
                    self.sum = Some(sum);
                    Vec::new()
                }
                Err(fault) => vec![Input::Broken { why: fault.to_string() }],
            };
        }
        let fleet = &self.shop.cx.fleet;
        match SecureSession::new(&terms, |node| participant(&fleet.membership(node)?)) {
            Ok(secure) => {
                self.secure.put(secure);
                Vec::new()
            }
            Err(fault) => vec![Input::StageFailed { session: terms.session, why: fault.to_string() }],
        }
    }

    /// Ends a stage of the secure sum.
    async fn close(&self, session: SessionId, stage: Stage) -> Vec<Input> {
        let secure = self.secure.clone();
        match Life::block(move || secure.with(session, |secure| secure.close(stage))).await {
            None => vec![lost(session)],
            // Another stage is at hand.
            Some(None) => Vec::new(),
            Some(Some(Ok(members))) => vec![Input::StageClosed { session, stage, members }],
            Some(Some(Err(why))) => vec![Input::StageFailed { session, why }],
        }
    }

    /// The ledger first: what comes next reveals the sum.
    async fn charge(&self, session: SessionId, rho: u64, members: Vec<NodeId>) -> Vec<Input> {
        let charge = ledger::Input::Charge { run: self.run().clone(), session, rho };
        vec![match self.shop.ledgers.ask(self.created.spec.privacy.unit, charge).await {
            Ok(()) => Input::Charged { session, members },
            Err(Fault::Misuse(Misuse::State { why, .. } | Misuse::Setting { why, .. })) => Input::ChargeRefused { session, why },
            Err(fault) => Input::StageFailed { session, why: fault.to_string() },
        }]
    }

    async fn add(&mut self, node: NodeId, digest: Digest) -> Vec<Input> {
        if self.sum.is_none() {
            return self.add_masked(node, digest).await;
        }
        self.add_clear(node, digest).await;
        Vec::new()
    }

    async fn add_masked(&self, node: NodeId, digest: Digest) -> Vec<Input> {
        let session = self.open;
        let Some(update) = self.held.take(&Key { node: node.clone(), session, digest }) else { return vec![lost(session)] };
        let secure = self.secure.clone();
        match Life::block(move || secure.with(session, |secure| secure.add(&node, &[&update.bytes]))).await {
            Some(Ok(())) => Vec::new(),
            Some(Err(fault)) => vec![Input::StageFailed { session, why: fault.to_string() }],
            None => vec![lost(session)],
        }
    }

    async fn add_clear(&mut self, node: NodeId, digest: Digest) {
        let Some(mut sum) = self.sum.take() else { return };
        let key = Key { node, session: sum.session(), digest };
        let Some(update) = self.held.take(&key) else {
            sum.spoil("an accepted update was no longer in memory");
            self.sum = Some(sum);
            return;
        };
        self.sum = Some(if update.bytes.len() < INLINE {
            sum.add(&update.bytes);
            sum
        } else {
            Life::block(move || {
                sum.add(&update.bytes);
                sum
            })
            .await
        });
    }

    fn aggregate(&mut self, terms: Box<Terms>, server_lr: f64) {
        let session = terms.session;
        let clear = self.sum.take_if(|sum| sum.session() == session);
        let masked = self.secure.take(session);
        let (objects, shelf, run) = (self.shop.objects.clone(), Arc::clone(&self.shop.shelf), self.run().clone());
        let secrets = Arc::new(Mutex::new((self.shop.cx.secrets)()));
        self.beside(async move {
            let opened = Life::block(move || match (clear, masked) {
                (Some(sum), _) => sum.open(),
                (None, Some(secure)) => Opened::unmask(terms, secure, std::thread::available_parallelism().map_or(1, usize::from)),
                (None, None) => Err(AggregateError::Unusable("the sum is no longer in memory".into())),
            });
            let opened = match opened.await {
                Ok(opened) => Arc::new(opened),
                Err(error) => return Ok(Input::AggregateFailed { session, why: error.to_string() }),
            };
            loop {
                let (sum, objects, secrets) = (Arc::clone(&opened), objects.clone(), Arc::clone(&secrets));
                let commit = move || sum.commit(&objects, server_lr, &mut **secrets.lock().unwrap_or_else(PoisonError::into_inner));
                return Ok(match Life::block(commit).await {
                    Ok((params, totals)) => {
                        PARAMETERS_STORED.reached()?;
                        shelf.pin(&run, params);
                        Input::Aggregated { session, params, totals }
                    }
                    Err(AggregateError::Unusable(why)) => Input::AggregateFailed { session, why },
                    Err(AggregateError::Object(ObjectError::Killed(killed))) => return Err(killed),
                    Err(AggregateError::Object(error @ (ObjectError::DiskFull | ObjectError::Io(_)))) => {
                        tracing::warn!(%run, %error, "the new parameters cannot be stored yet");
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                    Err(AggregateError::Object(error)) => Input::Broken { why: error.to_string() },
                });
            }
        });
    }

    fn evaluate(&self, round: u32, params: Digest) {
        let (shop, created) = (self.shop.clone(), Arc::clone(&self.created));
        self.beside(async move {
            let turn = Arc::clone(&shop.turn);
            let scored = heavy(&turn, move || {
                let Created { spec, model, preprocess, schema, .. } = &*created;
                let (model, preprocess, schema) = (*model, *preprocess, *schema);
                shop.work.evaluate(&EvaluateJob { spec, objects: &shop.objects, model, preprocess, schema, params })
            });
            match scored.await? {
                Ok(evaluation) => {
                    SCORED.reached()?;
                    Ok(Input::Evaluated { round, evaluation })
                }
                Err(why) => Ok(Input::Broken { why: format!("round {round} could not be scored: {why}") }),
            }
        });
    }

    fn build(&self, machine: &Run, params: Digest) {
        let (shop, created, slot) = (self.shop.clone(), Arc::clone(&self.created), Arc::clone(&self.built));
        let rounds = machine.rounds();
        let finished = rounds.last().map_or(self.created.at, |round| round.committed);
        let mut nodes: BTreeSet<NodeId> = BTreeSet::new();
        for round in rounds {
            let dropped: BTreeSet<&NodeId> = round.dropped.iter().map(|(node, _)| node).collect();
            nodes.extend(round.cohort.iter().filter(|node| !dropped.contains(node)).cloned());
        }
        let nodes: Vec<NodeId> = nodes.into_iter().collect();
        let statement = machine.statement();
        let rounds = u32::try_from(rounds.len()).unwrap_or(u32::MAX);
        self.beside(async move {
            let turn = Arc::clone(&shop.turn);
            let built = heavy(&turn, move || {
                let Created { run, spec, model, preprocess, schema, .. } = &*created;
                let (objects, model, preprocess, schema, nodes) = (&shop.objects, *model, *preprocess, *schema, &nodes[..]);
                let statement = statement.as_ref();
                shop.work.build(&BuildJob { run, spec, objects, model, preprocess, schema, params, rounds, statement, nodes, finished })
            });
            Ok(Input::Candidate(match built.await? {
                Ok(built) => {
                    CANDIDATE_BUILT.reached()?;
                    let outcome = built.outcome();
                    if let Built::Released(release) = built {
                        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(ReleaseDocument::from(*release));
                    }
                    outcome
                }
                Err(why) => CandidateOutcome::Failed { why },
            }))
        });
    }
}

fn lost(session: SessionId) -> Input {
    Input::StageFailed { session, why: "it is no longer in memory".into() }
}

/// Scores or builds, one at a time, until it is done or cannot be: a full disk is waited for, a panic is a failure.
async fn heavy<T: Send + 'static>(
    turn: &Semaphore,
    job: impl Fn() -> Result<T, WorkError> + Send + Sync + 'static,
) -> Result<Result<T, String>, Killed> {
    let job = Arc::new(job);
    loop {
        let turn = turn.acquire().await;
        let job = Arc::clone(&job);
        match Life::try_block(move || job()).await {
            Ok(Ok(done)) => return Ok(Ok(done)),
            Ok(Err(WorkError::Killed(killed))) => return Err(killed),
            Ok(Err(WorkError::Failed(why))) => return Ok(Err(why)),
            Ok(Err(WorkError::Later(why))) => tracing::warn!(%why, "scoring or building a release has to wait"),
            Err(_) => return Ok(Err("it panicked, which is a fault of this program; the log says where".into())),
        }
        drop(turn);
        tokio::time::sleep(RETRY).await;
    }
}

impl Hands<Run> for RunHands {
    fn letters(&self, _machine: &Run, effects: &[Effect]) -> Vec<Letter> {
        let mut letters = Vec::new();
        // A whole cohort gets the same bytes, which are written and held once.
        let mut last: Option<(&Task, Bytes)> = None;
        for effect in effects {
            match effect {
                Effect::Assign { node, task } => {
                    let body = match &last {
                        Some((same, body)) if *same == &**task => body.clone(),
                        _ => json(task),
                    };
                    letters.push(self.letter(node, LetterKind::Task, body.clone()));
                    last = Some((task, body));
                }
                Effect::Withdraw { node, session, keep } => {
                    let withdrawal = Withdrawal { run: self.run().clone(), session: *session, keep: *keep };
                    letters.push(self.letter(node, LetterKind::Withdraw, json(&withdrawal)));
                }
                _ => {}
            }
        }
        letters
    }

    fn index(&self, machine: &Run, events: &[Event]) -> Index {
        let listed = |event: &Event| {
            !matches!(
                event,
                Event::UpdateAccepted { .. } | Event::NodeDropped { .. } | Event::CollectionClosed { .. } | Event::StageClosed { .. }
            )
        };
        let summary = events.iter().any(listed).then(|| {
            let mut summary = Summary::of(machine);
            // Lists do not need the whole history, and each commit would write it again.
            summary.view.rounds.clear();
            serde_json::to_vec(&summary).expect("views have string keys and finite numbers")
        });
        let released = events.iter().find_map(|event| if let Event::CandidateReleased(released) = event { Some(released) } else { None });
        let release = released.and_then(|released| {
            let built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
            let document = built.as_ref().filter(|document| document.reference.release == released.release)?;
            Some(ReleaseRow { name: released.release.clone(), document: document.to_json(), at: self.shop.cx.clock.now() })
        });
        Index { summary, release }
    }

    async fn perform(&mut self, machine: &Run, effect: Effect) -> Result<Vec<Input>, Killed> {
        match effect {
            Effect::AskRoster => return Ok(vec![Input::Roster(self.shop.cx.fleet.trainers())]),
            Effect::Open(terms) => return Ok(self.open(terms)),
            Effect::CloseStage { session, stage } => return Ok(self.close(session, stage).await),
            Effect::Gone { node, session } => {
                let stage = self.secure.with(session, |secure| secure.leave(&node).then(|| secure.stage())).flatten();
                return Ok(stage.into_iter().map(|stage| Input::StageComplete { session, stage }).collect());
            }
            Effect::Charge { session, cost, members } => return Ok(self.charge(session, cost.coordinator, members).await),
            // Told by letter.
            Effect::Assign { .. } | Effect::Withdraw { .. } => {}
            Effect::Add { node, digest } => return Ok(self.add(node, digest).await),
            Effect::Aggregate { terms, server_lr, .. } => self.aggregate(terms, server_lr),
            Effect::Discard { session } => {
                self.sum.take_if(|sum| sum.session() == session);
                drop(self.secure.take(session));
                self.shop.uploads.forget(session);
                self.held.forget(session);
            }
            Effect::Evaluate { round, params } => self.evaluate(round, params),
            Effect::BuildCandidate { params } => self.build(machine, params),
        }
        Ok(Vec::new())
    }

    fn adopted(&mut self, machine: &Arc<Run>) {
        let before = self.states.send_replace(Arc::clone(machine));
        if before.released() != machine.released() {
            self.shop.releases.send_modify(|count| *count += 1);
        }
        // While an attempt is decoded its result is pinned before it is known here.
        if machine.terms().is_none() {
            let superseded = self.shop.shelf.keep(self.run(), machine.needed());
            let objects = self.shop.objects.clone();
            if !superseded.is_empty() {
                self.shop.cx.life.spawn(async move {
                    for digest in superseded {
                        let objects = objects.clone();
                        if let Err(error) = Life::block(move || objects.remove(digest)).await {
                            tracing::warn!(%digest, %error, "superseded parameters stay on the disk");
                        }
                    }
                    Ok(())
                });
            }
        }
    }

    fn forget(&mut self) {
        // Updates that wait for their decision stay: the attempt may go on, and their letters are still to be read.
        self.sum = None;
        self.secure.put(None);
    }

    fn roster(&self, machine: &Run) -> Option<Input> {
        // Between attempts the run waits for its nodes; else it asks when it wants to know.
        (machine.terms().is_none() && machine.deadline().is_some()).then(|| Input::Roster(self.shop.cx.fleet.trainers()))
    }
}

fn json<T: Serialize>(body: &T) -> Bytes {
    Bytes::from(serde_json::to_vec(body).expect("domain types have string keys and finite numbers"))
}

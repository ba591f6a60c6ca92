//! The node's part in rounds: carries out what [`NodeRound`] decides.
//!
//! One machine per run. Its events are not stored: a task is a level that the coordinator repeats after each connection, and
//! training is deterministic, so a node that died trains the same update again, bit for bit. Vectors stay off the disk.
//!
//! Trainings queue at the one [`Workshop`]; uploads and declines run beside each other, as tasks that report back here.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use ring::rand::SecureRandom;
use sapwood_failpoint::{self as failpoint, Killed};
use sapwood_protocol::{
    Cx, Digest, Machine, NodeId, RunId, Secrets, SessionId, Timestamp,
    round::{Decline, NodeEffect, NodeEvent, NodeInput, NodeRound, Receipt, Task, Terms},
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};
use tonic::Code;

pub(crate) use self::secure::Standing;
use self::secure::{Member, blocking};
use crate::{
    books::Books,
    clock,
    link::{CallError, Link, RoundOrder, Submission},
    objects::Objects,
    points::{CHARGED, SUBMITTED, TASK_ACCEPTED, TRAINED},
    train::{self, Cancel, Failure, Job, Trained, Workshop},
};

mod secure;

/// Draws from the system.
pub(crate) struct SystemSecrets(ring::rand::SystemRandom);

impl Default for SystemSecrets {
    fn default() -> Self {
        Self(ring::rand::SystemRandom::new())
    }
}

impl Secrets for SystemSecrets {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes).expect("the system has random bytes once it has started");
    }
}

/// Drives every run that this node takes part in.
pub(crate) struct Rounds {
    node: NodeId,
    link: Link,
    member: Member,
    workshop: Workshop,
    objects: Objects,
    secrets: SystemSecrets,
    runs: BTreeMap<RunId, Run>,
    /// Trainings and transfers under way.
    tasks: JoinSet<Done>,
}

/// One run.
#[derive(Default)]
struct Run {
    machine: NodeRound,
    /// Trainings that have not reported, by work.
    trainings: HashMap<Digest, Training>,
    /// The trained update, until it is forgotten.
    trained: Option<(Digest, Arc<Trained>)>,
    /// Answers under way, by attempt.
    answers: HashMap<SessionId, AbortHandle>,
}

struct Training {
    cancel: Cancel,
    task: AbortHandle,
}

impl Drop for Training {
    fn drop(&mut self) {
        // Aborting the task stops the waiting; this stops the work.
        self.cancel.cancel();
        self.task.abort();
    }
}

/// What a task reports.
enum Done {
    Trained { run: RunId, work: Digest, result: Result<Trained, Failure> },
    Answered { run: RunId, session: SessionId, result: Result<Receipt, CallError> },
}

impl Rounds {
    pub(crate) fn new(node: NodeId, link: Link, standing: Standing, books: Books, workshop: Workshop, objects: Objects) -> Self {
        let member = Member { link: link.clone(), books, standing };
        let secrets = SystemSecrets::default();
        Self { node, link, member, workshop, objects, secrets, runs: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Follows orders until their sender is gone.
    ///
    /// # Errors
    /// [`Killed`], in a simulation only.
    pub(crate) async fn run(mut self, mut orders: mpsc::Receiver<RoundOrder>) -> Result<(), Killed> {
        loop {
            let deadline = self.runs.values().filter_map(|run| run.machine.deadline()).min();
            tokio::select! {
                order = orders.recv() => match order {
                    None => return Ok(()),
                    Some(order) => self.follow(order)?,
                },
                Some(done) = self.tasks.join_next() => {
                    // An aborted task has nothing to say; a panic was said by the panic hook.
                    if let Ok(done) = done {
                        self.done(done)?;
                    }
                }
                () = until(deadline) => self.tick()?,
            }
        }
    }

    fn follow(&mut self, order: RoundOrder) -> Result<(), Killed> {
        match order {
            RoundOrder::Task(task) => {
                let run = task.terms.run.clone();
                if !task.terms.has(&self.node) {
                    tracing::warn!(%run, "a task for a cohort without this node was left out");
                    return Ok(());
                }
                tracing::info!(%run, round = task.terms.round, attempt = task.terms.attempt, "asked to join a round");
                self.step(&run, NodeInput::Task(task))
            }
            RoundOrder::Withdraw(withdrawal) => {
                let input = NodeInput::Withdrawn { session: withdrawal.session, keep: withdrawal.keep };
                self.step(&withdrawal.run, input)
            }
            RoundOrder::Connected => self.everywhere(&NodeInput::Reconnected),
        }
    }

    fn tick(&mut self) -> Result<(), Killed> {
        self.everywhere(&NodeInput::Tick)
    }

    fn everywhere(&mut self, input: &NodeInput) -> Result<(), Killed> {
        let runs: Vec<_> = self.runs.keys().cloned().collect();
        runs.iter().try_for_each(|run| self.step(run, input.clone()))
    }

    fn done(&mut self, done: Done) -> Result<(), Killed> {
        match done {
            Done::Trained { run, work, result } => {
                let Some(state) = self.runs.get_mut(&run) else { return Ok(()) };
                state.trainings.remove(&work);
                let input = match result {
                    Ok(trained) => {
                        let update = trained.digest();
                        state.trained = Some((work, Arc::new(trained)));
                        TRAINED.reached()?;
                        NodeInput::Trained { work, update }
                    }
                    Err(Failure::Decline(reason)) => {
                        tracing::warn!(%run, %reason, "this node cannot take part in the round");
                        NodeInput::TrainingFailed { work, reason }
                    }
                    Err(Failure::Cancelled) => return Ok(()),
                    Err(Failure::Killed(killed)) => return Err(killed),
                };
                self.step(&run, input)
            }
            Done::Answered { run, session, result } => {
                if let Some(state) = self.runs.get_mut(&run) {
                    state.answers.remove(&session);
                }
                let outcome = match result {
                    Ok(outcome) => outcome,
                    // The attempt was over before the answer came.
                    Err(CallError::Refused { code: Code::Aborted | Code::NotFound, .. }) => Receipt::Expired,
                    Err(CallError::Killed(killed)) => return Err(killed),
                    Err(CallError::Closed) => return Ok(()),
                    Err(error) => {
                        tracing::error!(%run, %error, "the coordinator did not take the answer");
                        Receipt::Refused
                    }
                };
                SUBMITTED.reached()?;
                self.step(&run, NodeInput::Receipt { session, outcome })
            }
        }
    }

    /// Decide, apply, then do.
    fn step(&mut self, id: &RunId, input: NodeInput) -> Result<(), Killed> {
        let run = self.runs.entry(id.clone()).or_default();
        let mut cx = Cx { now: clock::now(), secrets: &mut self.secrets };
        let decision = match run.machine.decide(&mut cx, input) {
            Ok(decision) => decision,
            Err(fault) => {
                tracing::debug!(run = %id, %fault, "left out");
                return Ok(());
            }
        };
        for event in &decision.events {
            run.machine = std::mem::take(&mut run.machine).apply(event);
            if matches!(event, NodeEvent::Accepted { .. }) {
                TASK_ACCEPTED.reached()?;
            }
        }
        for effect in decision.effects {
            self.carry_out(id, effect);
        }
        // A run that is over leaves nothing behind.
        self.runs.retain(|_, run| !run.machine.is_idle() || !run.answers.is_empty());
        Ok(())
    }

    fn carry_out(&mut self, id: &RunId, effect: NodeEffect) {
        match effect {
            NodeEffect::Train { task, work } => self.train(id, task.terms, work),
            NodeEffect::Submit { task, .. } => self.submit(id, &task),
            NodeEffect::Decline { session, reason } => self.decline(id, session, reason),
            NodeEffect::Forget { work } => self.forget(id, work),
        }
    }

    fn train(&mut self, id: &RunId, terms: Terms, work: Digest) {
        let Some(run) = self.runs.get_mut(id) else { return };
        if run.trainings.contains_key(&work) {
            return;
        }
        let cancel = Cancel::default();
        let (workshop, objects, member) = (self.workshop.clone(), self.objects.clone(), self.member.clone());
        let training = prepare_and_train(workshop, objects, member, self.node.clone(), terms, cancel.clone());
        let run_id = id.clone();
        let task = self.tasks.spawn(failpoint::inherit(async move { Done::Trained { run: run_id, work, result: training.await } }));
        run.trainings.insert(work, Training { cancel, task });
    }

    fn submit(&mut self, id: &RunId, task: &Task) {
        let session = task.terms.session;
        let Some(run) = self.runs.get_mut(id) else { return };
        // After a reconnection the machine asks again for what the transfer, which waits for the line, is doing already.
        if run.answers.contains_key(&session) {
            return;
        }
        let Some((_, trained)) = &run.trained else { return };
        let (member, trained, run, terms) = (self.member.clone(), Arc::clone(trained), id.clone(), task.terms.clone());
        if terms.secure.is_some() {
            return self.answer(id, session, async move { member.take_part(run, terms, trained).await });
        }
        self.answer(id, session, async move {
            let encoded = {
                let terms = terms.clone();
                blocking(move || trained.encoded(&terms)).await
            };
            let encoded = match encoded {
                Ok(encoded) => encoded,
                Err(fault) => return member.link.decline(&run, session, &Decline::Diverged { why: fault.to_string() }).await,
            };
            if let Err(reason) = member.books.charge(&terms).await {
                return member.link.decline(&run, session, &reason).await;
            }
            CHARGED.reached()?;
            let submission = Submission { run, session, digest: encoded.digest, bytes: encoded.bytes };
            member.link.submit(&submission).await
        });
    }

    fn decline(&mut self, id: &RunId, session: SessionId, reason: Decline) {
        if self.runs.get(id).is_some_and(|run| run.answers.contains_key(&session)) {
            return;
        }
        let (link, run) = (self.link.clone(), id.clone());
        self.answer(id, session, async move { link.decline(&run, session, &reason).await });
    }

    /// Runs an answer beside everything else. An older attempt's answer is of no use any more.
    fn answer(&mut self, id: &RunId, session: SessionId, answer: impl Future<Output = Result<Receipt, CallError>> + Send + 'static) {
        let run_id = id.clone();
        let task = self.tasks.spawn(failpoint::inherit(async move { Done::Answered { run: run_id, session, result: answer.await } }));
        if let Some(run) = self.runs.get_mut(id) {
            for (_, older) in run.answers.drain() {
                older.abort();
            }
            run.answers.insert(session, task);
        }
    }

    fn forget(&mut self, id: &RunId, work: Digest) {
        let Some(run) = self.runs.get_mut(id) else { return };
        run.trainings.remove(&work);
        run.trained.take_if(|(of, _)| *of == work);
    }
}

/// Waits for the bench, fetches what it lacks, trains.
async fn prepare_and_train(
    workshop: Workshop,
    objects: Objects,
    Member { link, books, .. }: Member,
    node: NodeId,
    terms: Terms,
    cancel: Cancel,
) -> Result<Trained, Failure> {
    books.look(&terms).await?;
    let bench = workshop.bench().await;
    bench.check(&terms)?;
    let (missing, most) = (bench.missing(&terms), bench.largest_graph());
    let fetch = async |wanted: bool, digest: Option<Digest>| match digest.filter(|_| wanted) {
        None => Ok(None),
        Some(digest) => objects.get(&link, digest, most).await.map(Some).map_err(|error| fetch_failure("an object of the run", error)),
    };
    let objects = train::Objects {
        model: fetch(missing.model, Some(terms.model)).await?,
        preprocess: fetch(missing.preprocess, terms.preprocess).await?,
        schema: fetch(missing.schema, terms.schema).await?,
        loss: fetch(missing.loss, terms.train.loss.digest()).await?,
    };
    let params = link.fetch_floats(terms.params, terms.dimension()).await.map_err(|error| fetch_failure("the parameters", error))?;
    bench.train(Job { terms, node, params, objects, cancel }).await
}

fn fetch_failure(what: &str, error: CallError) -> Failure {
    let why = format!("{what} did not come: {error}");
    match error {
        CallError::Killed(killed) => Failure::Killed(killed),
        CallError::Closed => Failure::Cancelled,
        CallError::Disk { source, .. } => Decline::Resources { why: format!("{why}: {source}") }.into(),
        _ => Decline::Model { why }.into(),
    }
}

/// Until a wall-clock time; for ever if there is none.
async fn until(deadline: Option<Timestamp>) {
    match deadline {
        None => std::future::pending().await,
        // At least a moment, so that a machine that stays at its deadline cannot spin.
        Some(deadline) => tokio::time::sleep(deadline.since(clock::now()).max(Duration::from_millis(5))).await,
    }
}

#[cfg(test)]
mod tests;

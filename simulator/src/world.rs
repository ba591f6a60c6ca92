//! Coordinator, nodes and wire in one process: carries the machines' effects to each other.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use rand::RngExt;
use rand_chacha::ChaCha20Rng;
use sapwood_models::{Dataset, onnx::Model, train::TrainConfig};
use sapwood_privacy::{Accumulator, dp::NoiseSeed};
use sapwood_protocol::{
    Cx, Digest, Fault, Machine, NodeId, Secrets, SessionId, Timestamp,
    machine::replayable,
    round::{Codec, Decline, NodeEffect, NodeInput, NodeRound, Receipt, Task, Terms, TrainTerms},
    run::{Created, Effect, EvaluationRecord, Input, Run},
    spec::{PrivacyUnit, SecureAggregationMode, Spec},
    view::{RoundView, RunView},
};

use crate::{
    NodeData, Options, Outcome, SimulationError,
    crew::{Crew, Job, Trained},
    train_config,
};

/// Virtual time begins here; only differences are seen.
const BEGIN: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Session ids that can be replayed: nobody is kept out here.
struct Seeded(ChaCha20Rng);

impl Secrets for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

/// A task that was handed to a node.
struct Pending {
    /// When its answer arrives; never, if it is dropped.
    arrives: Option<Timestamp>,
    task: Box<Task>,
}

struct Node {
    machine: NodeRound,
    /// What was trained last, until the machine forgets it.
    trained: Option<Trained>,
    pending: Option<Pending>,
}

pub(crate) struct World {
    spec: Spec,
    run: Run,
    now: Timestamp,
    secrets: Seeded,
    names: Vec<NodeId>,
    index: BTreeMap<NodeId, usize>,
    nodes: Vec<Node>,
    data: Vec<NodeData>,
    evaluation: Option<Dataset>,
    crew: Crew,
    drop: f64,
    params: Arc<Vec<f32>>,
    sum: Option<Accumulator>,
    /// Bytes of the update that is being decided.
    inbox: Vec<u8>,
    effects: VecDeque<Effect>,
    shown: usize,
    /// Of the run as it would be deployed.
    shown_privacy: String,
}

impl World {
    pub(crate) fn new(
        spec: &Spec,
        model: &Model,
        data: Vec<NodeData>,
        evaluation: Option<Dataset>,
        options: &Options,
    ) -> Result<Self, SimulationError> {
        let mut spec = spec.clone();
        spec.validate()?;
        if !(0.0..=1.0).contains(&options.drop) {
            return Err(SimulationError::Drop { drop: options.drop });
        }
        if data.len() < spec.cohort.minimum as usize {
            return Err(SimulationError::TooFewNodes { have: data.len(), need: spec.cohort.minimum });
        }
        // What is asked for here is a trained model; what is scored is what was given.
        spec.release.auto = false;
        // Masks cancel to the bit: the sum is the same without them.
        let shown = spec.privacy_line();
        spec.secure_aggregation.mode = SecureAggregationMode::Off;
        spec.evaluate.data = evaluation.as_ref().map(|_| "given".to_owned());

        let threads = options.threads.get().min(data.len());
        if let Some(graph) = &options.loss {
            spec.model.loss = Digest::of(&graph.encode()).into();
        }
        let config = TrainConfig { loss_graph: options.loss.clone(), ..train_config(&TrainTerms::of(&spec, 1))? };
        let mut crew = Crew::new(model, &config, threads)?;
        if matches!(spec.privacy.unit, PrivacyUnit::Example | PrivacyUnit::Entity) {
            crew.first().check_units()?;
        }
        let params = crew.first().parameters();
        let run = Run::create(Created {
            run: spec.name.parse()?,
            spec: spec.clone(),
            model: Digest::of(&model.encode()),
            preprocess: None,
            schema: None,
            params: digest(&params),
            length: params.len() as u64,
            noise: None,
            operators: Vec::new(),
            at: BEGIN,
        })?;
        let width = data.len().to_string().len();
        let names: Vec<NodeId> = (0..data.len()).map(|i| format!("node-{:0width$}", i + 1).parse()).collect::<Result<_, Fault>>()?;
        let nodes = names.iter().map(|_| Node { machine: NodeRound::default(), trained: None, pending: None }).collect();
        Ok(Self {
            secrets: Seeded(replayable(&[b"sapwood/simulator/sessions", &spec.seed.to_le_bytes()])),
            spec,
            run,
            now: BEGIN,
            index: names.iter().cloned().zip(0..).collect(),
            names,
            nodes,
            data,
            evaluation,
            crew,
            drop: options.drop,
            params: Arc::new(params),
            sum: None,
            inbox: Vec::new(),
            effects: VecDeque::new(),
            shown: 0,
            shown_privacy: shown,
        })
    }

    pub(crate) fn run(mut self, progress: &mut dyn FnMut(&RoundView)) -> Result<Outcome, SimulationError> {
        self.tell(Input::Start)?;
        loop {
            while let Some(effect) = self.effects.pop_front() {
                self.carry_out(effect)?;
            }
            self.show(progress);
            if self.run.is_over() {
                break;
            }
            if !self.train_next()? {
                self.wait()?;
            }
        }
        if self.run.rounds().len() < self.spec.train.rounds as usize {
            let why = self.run.detail().unwrap_or_else(|| "the run ended early".into());
            return Err(SimulationError::Failed { why });
        }
        let trainer = self.crew.first();
        trainer.set_parameters(&self.params)?;
        let model = trainer.export();
        let view = RunView { privacy: self.shown_privacy, ..RunView::from(&self.run) };
        Ok(Outcome { rounds: self.run.rounds().to_vec(), params: self.params.to_vec(), model, view })
    }

    /// Asks the run, moves it, and queues what it wants done.
    fn tell(&mut self, input: Input) -> Result<(), Fault> {
        let decision = self.run.decide(&mut Cx { now: self.now, secrets: &mut self.secrets }, input)?;
        let run = decision.events.iter().fold(self.run.clone(), Machine::apply);
        self.run = run;
        self.effects.extend(decision.effects);
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), SimulationError> {
        match effect {
            Effect::AskRoster => self.tell(Input::Roster(self.names.clone()))?,
            Effect::Open(terms) => self.sum = Some(terms.codec()?.accumulator(terms.dimension())),
            // Asked for under secure aggregation only.
            Effect::CloseStage { .. } | Effect::Gone { .. } => {}
            // There is no ledger here; the run itself tells what its sums cost.
            Effect::Charge { session, members, .. } => self.tell(Input::Charged { session, members })?,
            Effect::Assign { node, task } => self.tell_node(self.index[&node], NodeInput::Task(task))?,
            Effect::Withdraw { node, session, keep } => self.tell_node(self.index[&node], NodeInput::Withdrawn { session, keep })?,
            Effect::Add { .. } => {
                let sum = self.sum.as_mut().expect("an attempt is opened before it adds");
                sum.add_packed(&self.inbox).map_err(broken)?;
                self.inbox.clear();
            }
            Effect::Aggregate { terms, server_lr, .. } => self.aggregate(&terms, server_lr)?,
            Effect::Discard { .. } => self.sum = None,
            Effect::Evaluate { round, .. } => self.evaluate(round)?,
            // `release.auto` is off.
            Effect::BuildCandidate { .. } => {}
        }
        Ok(())
    }

    fn aggregate(&mut self, terms: &Terms, server_lr: f64) -> Result<(), SimulationError> {
        let sum = self.sum.take().expect("an attempt is opened before it closes");
        let session = terms.session;
        let mut params = self.params.to_vec();
        let secrets = &mut self.secrets;
        let noise = || Self::noise(secrets);
        let input = match terms.codec()?.add_to(terms, &sum, &mut params, server_lr, noise) {
            Ok(totals) => {
                let digest = digest(&params);
                self.params = Arc::new(params);
                Input::Aggregated { session, params: digest, totals }
            }
            Err(fault) => Input::AggregateFailed { session, why: fault.to_string() },
        };
        Ok(self.tell(input)?)
    }

    /// Noise that can be replayed: nobody is protected here.
    fn noise(secrets: &mut Seeded) -> NoiseSeed {
        let Ok(seed) = NoiseSeed::draw(|seed| {
            secrets.fill(seed);
            Ok::<(), std::convert::Infallible>(())
        });
        seed
    }

    fn evaluate(&mut self, round: u32) -> Result<(), SimulationError> {
        let Some(data) = &self.evaluation else { return Ok(()) };
        let trainer = self.crew.first();
        trainer.set_parameters(&self.params)?;
        let got = trainer.evaluate(data).map_err(SimulationError::Evaluation)?;
        let loss = got.loss.is_finite().then_some(got.loss);
        let evaluation = EvaluationRecord { loss, accuracy: got.accuracy, examples: got.examples as u64 };
        Ok(self.tell(Input::Evaluated { round, evaluation })?)
    }

    /// Asks a node's machine, moves it, and carries out what it wants done.
    fn tell_node(&mut self, i: usize, input: NodeInput) -> Result<(), SimulationError> {
        let cx = &mut Cx { now: self.now, secrets: &mut self.secrets };
        let decision = self.nodes[i].machine.decide(cx, input)?;
        let machine = std::mem::take(&mut self.nodes[i].machine);
        self.nodes[i].machine = decision.events.iter().fold(machine, Machine::apply);
        for effect in decision.effects {
            match effect {
                NodeEffect::Train { task, .. } => {
                    let arrives = self.arrival(i, &task.terms);
                    self.nodes[i].pending = Some(Pending { arrives, task });
                }
                // Trained in an earlier attempt: only the answer is still to be sent.
                NodeEffect::Submit { task, .. } => {
                    let arrives = self.arrival(i, &task.terms);
                    self.nodes[i].pending = Some(Pending { arrives, task });
                }
                NodeEffect::Decline { session, reason } => self.decline(i, session, reason)?,
                NodeEffect::Forget { .. } => {
                    self.nodes[i].trained = None;
                    self.nodes[i].pending = None;
                }
            }
        }
        Ok(())
    }

    /// When a node's answer in this attempt arrives; never, with the probability that was asked for.
    fn arrival(&self, i: usize, terms: &Terms) -> Option<Timestamp> {
        let (seed, round, attempt) = (terms.train.seed.to_le_bytes(), terms.round.to_le_bytes(), terms.attempt.to_le_bytes());
        let mut draw = replayable(&[b"sapwood/simulator/arrival", &seed, &round, &attempt, self.names[i].as_str().as_bytes()]);
        let (chance, share): (f64, f64) = (draw.random(), draw.random());
        let span = terms.deadline.since(terms.opened).as_secs_f64();
        (chance >= self.drop).then(|| terms.opened + Duration::from_secs_f64(span * 0.5 * share))
    }

    /// Trains as many of the nodes that answer next as there are threads, and delivers their answers in the order of their
    /// arrival. False if nobody is going to answer.
    fn train_next(&mut self) -> Result<bool, SimulationError> {
        let due = |(i, node): (usize, &Node)| {
            let Pending { arrives, task } = node.pending.as_ref()?;
            Some(((*arrives)?, i, task.terms.session))
        };
        let mut next: Vec<(Timestamp, usize, SessionId)> = self.nodes.iter().enumerate().filter_map(due).collect();
        next.sort_unstable();
        next.truncate(self.crew.threads());
        if next.is_empty() {
            return Ok(false);
        }
        let mut jobs = Vec::new();
        for (_, i, _) in &next {
            let Some(Pending { task, .. }) = &self.nodes[*i].pending else { continue };
            if self.nodes[*i].trained.is_none() {
                let seed = task.terms.training_seed(&self.names[*i]);
                let units = match (&task.terms.noise, task.terms.codec()?) {
                    (Some(noise), Codec::Noised(mechanism)) if noise.is_per_unit() => Some(Arc::new((noise.clone(), mechanism))),
                    _ => None,
                };
                let (epochs, lr) = (task.terms.train.local_epochs as usize, task.terms.train.lr as f32);
                jobs.push(Job { node: *i, params: self.params.clone(), epochs, lr, seed, units });
            }
        }
        let results = self.crew.train(&jobs, &self.data);
        let mut results: BTreeMap<usize, _> = jobs.iter().map(|job| job.node).zip(results).collect();
        for (at, i, session) in next {
            // Enough others were faster: withdrawn meanwhile, or even asked for the next round.
            let Some(Pending { task, .. }) = self.nodes[i].pending.take_if(|pending| pending.task.terms.session == session) else {
                continue;
            };
            self.now = self.now.max(at);
            self.answer(i, &task, results.remove(&i))?;
            while let Some(effect) = self.effects.pop_front() {
                self.carry_out(effect)?;
            }
        }
        Ok(true)
    }

    /// A node has trained, now or in an earlier attempt, and answers.
    fn answer(&mut self, i: usize, task: &Task, result: Option<Result<Trained, Decline>>) -> Result<(), SimulationError> {
        let work = task.terms.work();
        match result {
            Some(Ok(trained)) => {
                let update = work;
                self.nodes[i].trained = Some(trained);
                self.tell_node(i, NodeInput::Trained { work, update })?;
                self.nodes[i].pending = None;
            }
            Some(Err(reason)) => return self.tell_node(i, NodeInput::TrainingFailed { work, reason }),
            None => {}
        }
        let Some(trained) = &self.nodes[i].trained else { return Ok(()) };
        let (node, session) = (self.names[i].clone(), task.terms.session);
        match encode(&task.terms, trained, Self::noise(&mut self.secrets))? {
            Ok(bytes) => {
                self.inbox = bytes;
                let digest = Digest::of(&self.inbox);
                let told = self.tell(Input::Update { node, session, digest, bytes: self.inbox.len() });
                self.receipt(i, session, told)
            }
            Err(why) => self.decline(i, session, Decline::Diverged { why }),
        }
    }

    fn decline(&mut self, i: usize, session: SessionId, reason: Decline) -> Result<(), SimulationError> {
        let told = self.tell(Input::Declined { node: self.names[i].clone(), session, reason });
        self.receipt(i, session, told)
    }

    fn receipt(&mut self, i: usize, session: SessionId, told: Result<(), Fault>) -> Result<(), SimulationError> {
        let outcome = match told {
            Ok(()) => Receipt::Accepted,
            Err(Fault::Expired(_)) => Receipt::Expired,
            Err(fault) => return Err(fault.into()),
        };
        self.tell_node(i, NodeInput::Receipt { session, outcome })
    }

    /// Nothing else can happen before the next deadline.
    fn wait(&mut self) -> Result<(), SimulationError> {
        let Some(deadline) = self.run.deadline() else {
            return Err(SimulationError::Failed { why: "the run waits for something that never comes".into() });
        };
        self.now = self.now.max(deadline);
        Ok(self.tell(Input::Tick)?)
    }

    /// Shows each round once, when its score is known or not wanted.
    fn show(&mut self, progress: &mut dyn FnMut(&RoundView)) {
        while let Some(record) = self.run.rounds().get(self.shown) {
            progress(&RoundView::from(record));
            self.shown += 1;
        }
    }
}

/// An update as it travels; in words why it cannot.
fn encode(terms: &Terms, trained: &Trained, seed: NoiseSeed) -> Result<Result<Vec<u8>, String>, Fault> {
    Ok(match (terms.codec()?, trained) {
        (Codec::Exact(encoding), Trained::Vector(update, contribution)) => {
            encoding.encode(update, contribution).map(|encoded| encoded.bytes).map_err(|fault| fault.to_string())
        }
        (Codec::Noised(mechanism), Trained::Vector(update, contribution)) => mechanism
            .encode_node(update, &[], contribution.examples, terms.rotation(), seed)
            .map(|(share, _)| share.pack())
            .map_err(|fault| fault.to_string()),
        (Codec::Noised(mechanism), Trained::Units(sum)) => {
            mechanism.encode_units(sum, terms.rotation(), seed).map(|share| share.pack()).map_err(|fault| fault.to_string())
        }
        (Codec::Exact(_), Trained::Units(_)) => Err("it is a sum of units, which only a noised round takes".into()),
    })
}

/// SHA-256 of floats in little-endian order.
fn digest(values: &[f32]) -> Digest {
    let mut hasher = sapwood_protocol::Hasher::default();
    for block in values.chunks(1024) {
        let bytes: Vec<u8> = block.iter().flat_map(|x| x.to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    hasher.finish()
}

fn broken(fault: sapwood_privacy::Fault) -> SimulationError {
    SimulationError::Failed { why: fault.to_string() }
}

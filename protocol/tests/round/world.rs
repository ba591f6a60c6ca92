//! A coordinator and some nodes in one process, moved by [`Op`]s, with the invariants that are checked after each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use sapwood_privacy::{Accumulator, Contribution};
use sapwood_protocol::{
    Cx, Decision, Digest, Fault, Machine, NodeId, Secrets, SessionId, Timestamp,
    round::{Decline, NodeEffect, NodeInput, NodeRound, Receipt, Task, Terms, Totals},
    run::{CandidateOutcome, Created, Effect, EvaluationRecord, Event, Input, Released, Run, RunState},
    spec::Spec,
    view::RunView,
};

const DIMENSION: usize = 3;

struct Counter(u64);
impl Secrets for Counter {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0 += 1;
        bytes.fill(0);
        bytes[..8].copy_from_slice(&self.0.to_le_bytes());
    }
}

/// What may happen next.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// The coordinator carries out its next effect.
    Effect,
    /// The coordinator's process dies and starts again from its events.
    Crash,
    /// A message of the outbox reaches its node.
    Deliver(usize),
    /// A node's training ends.
    Train(usize),
    /// A node finds out that it cannot train.
    Fail(usize),
    /// A node's answer reaches the coordinator.
    Answer(usize),
    /// An answer is sent twice: the first one is repeated later.
    Repeat(usize),
    /// A node's process dies and starts again.
    Restart(usize),
    /// A node leaves, or comes back.
    Toggle(usize),
    /// A stranger, a late or a changed update.
    Attack(usize, u8),
    /// Time passes.
    Wait(u16),
}

/// What a node sends.
#[derive(Clone, Debug)]
enum Answer {
    Update { session: SessionId, bytes: Vec<u8> },
    Decline { session: SessionId, reason: Decline },
}

#[derive(Default)]
pub(crate) struct Node {
    /// Survives a restart, as it is on the node's disk.
    events: Vec<sapwood_protocol::round::NodeEvent>,
    machine: NodeRound,
    /// Does not.
    training: Option<(Box<Task>, Digest)>,
    update: Option<Vec<f32>>,
    pub(crate) trained: BTreeMap<(u32, u32), u32>,
    /// At least once, in order: the coordinator's outbox.
    inbox: VecDeque<NodeInput>,
    outbox: VecDeque<Answer>,
    sent: Vec<Answer>,
    /// Counts restarts, and updates forgotten.
    life: u32,
    away: bool,
}

pub(crate) struct World {
    spec: Spec,
    names: Vec<NodeId>,
    pub(crate) nodes: Vec<Node>,
    now: Timestamp,
    secrets: Counter,
    /// The store: events and objects survive a crash.
    pub(crate) events: Vec<Event>,
    objects: BTreeMap<Digest, Vec<f32>>,
    /// The process: these do not.
    pub(crate) run: Run,
    effects: VecDeque<Effect>,
    held: BTreeMap<(NodeId, Digest), Vec<u8>>,
    sum: Option<(SessionId, Accumulator, BTreeSet<NodeId>)>,
}

pub(crate) fn spec(size: u32, minimum: u32, over: f64, rounds: u32, attempts: u32) -> Spec {
    let text = format!(
        "name = \"r\"\nseed = 3\n[model]\nfile = \"m\"\n[train]\nrounds = {rounds}\n[cohort]\nsize = {size}\nminimum = {minimum}\n\
         over_selection = {over:?}\n[secure_aggregation]\nmode = \"off\"\n[privacy]\nunit = \"none\"\n[strategy]\nweights = \"uniform\"\n\
         [deadlines]\nselect = \"20s\"\nround = \"60s\"\nattempts = {attempts}\n[evaluate]\ndata = \"d\"\nevery = 2\n"
    );
    Spec::parse(&text).unwrap()
}

fn digest(values: &[f32]) -> Digest {
    Digest::of(&values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
}

/// A stand-in for training that depends on what real training depends on: parameters, and the seed of round and node.
fn train(params: &[f32], terms: &Terms, node: &NodeId) -> Vec<f32> {
    let seed = terms.training_seed(node);
    (0..DIMENSION).map(|i| ((seed >> (8 * i)) as u8 as f32 / 512.0) - params[i] / 8.0).collect()
}

impl World {
    pub(crate) fn new(spec: Spec, nodes: usize) -> Self {
        let names: Vec<NodeId> = (0..nodes).map(|i| format!("n{i}").parse().unwrap()).collect();
        let initial = vec![0.5; DIMENSION];
        let created = Created {
            run: "r".parse().unwrap(),
            spec: spec.clone(),
            model: Digest::of(b"model"),
            preprocess: None,
            schema: None,
            params: digest(&initial),
            length: DIMENSION as u64,
            noise: None,
            operators: vec![],
            at: Timestamp::from_millis(0),
        };
        let run = Run::create(created.clone()).unwrap();
        let mut world = Self {
            spec,
            nodes: names.iter().map(|_| Node::default()).collect(),
            names,
            now: Timestamp::from_millis(1_000_000),
            secrets: Counter(0),
            events: vec![Event::Created(Box::new(created))],
            objects: [(digest(&initial), initial)].into(),
            run,
            effects: VecDeque::new(),
            held: BTreeMap::new(),
            sum: None,
        };
        world.tell(Input::Start).unwrap();
        world
    }

    fn tell(&mut self, input: Input) -> Result<(), Fault> {
        let before = self.run.clone();
        let decision = self.run.decide(&mut Cx { now: self.now, secrets: &mut self.secrets }, input);
        match decision {
            Ok(decision) => {
                self.commit(decision);
                Ok(())
            }
            Err(fault) => {
                assert_eq!(before, self.run, "a refusal changes nothing");
                Err(fault)
            }
        }
    }

    /// One transaction: events and outbox. Local effects are queued in memory.
    fn commit(&mut self, decision: Decision<Event, Effect>) {
        for event in decision.events {
            let json = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
            assert!(json.contains(&format!("\"event\":\"{}\"", event.kind())) && Event::KINDS.contains(&event.kind()), "{json}");
            self.run = self.run.clone().apply(&event);
            self.events.push(event);
        }
        for effect in decision.effects {
            match effect {
                Effect::Assign { node, task } => self.send(&node, NodeInput::Task(task)),
                Effect::Withdraw { node, session, keep } => self.send(&node, NodeInput::Withdrawn { session, keep }),
                local => self.effects.push_back(local),
            }
        }
        self.check();
    }

    fn send(&mut self, node: &NodeId, message: NodeInput) {
        let i = self.names.iter().position(|name| name == node).expect("effects name known nodes");
        self.nodes[i].inbox.push_back(message);
    }

    pub(crate) fn effect(&mut self) -> bool {
        let Some(effect) = self.effects.pop_front() else { return false };
        match effect {
            Effect::AskRoster => {
                let here = self.names.iter().zip(&self.nodes).filter(|(_, node)| !node.away).map(|(name, _)| name.clone()).collect();
                self.tell(Input::Roster(here)).unwrap();
            }
            Effect::Open(terms) => {
                let sum = terms.encoding.encoding().unwrap().accumulator(DIMENSION);
                self.sum = Some((terms.session, sum, BTreeSet::new()));
            }
            Effect::Add { node, digest } => {
                let bytes = self.held.remove(&(node.clone(), digest)).expect("held until it is added");
                let (_, sum, who) = self.sum.as_mut().expect("opened before adding");
                assert!(who.insert(node), "an update counts once");
                sum.add_packed(&bytes).unwrap();
            }
            Effect::Aggregate { terms, server_lr, survivors } => {
                let (session, sum, who) = self.sum.take().expect("opened before closing");
                assert_eq!(session, terms.session);
                assert_eq!(who.into_iter().collect::<Vec<_>>(), survivors, "the sum holds the survivors' updates, and no others");
                let mean = terms.encoding.encoding().unwrap();
                let mean = mean.decode(&sum, DIMENSION).unwrap();
                let mut params = self.objects[&terms.params].clone();
                // Against the plain mean of what the survivors train.
                let mut expected = params.clone();
                for node in &survivors {
                    for (e, u) in expected.iter_mut().zip(train(&params, &terms, node)) {
                        *e += u / survivors.len() as f32;
                    }
                }
                mean.add_to(&mut params, server_lr).unwrap();
                assert!(params.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{params:?} {expected:?}");
                let totals = Totals::from(&mean.totals);
                let name = digest(&params);
                self.objects.insert(name, params);
                self.tell(Input::Aggregated { session, params: name, totals }).unwrap();
            }
            Effect::CloseStage { .. } | Effect::Gone { .. } | Effect::Charge { .. } => unreachable!("no secure sum is asked for here"),
            Effect::Discard { .. } => {
                self.sum = None;
                self.held.clear();
            }
            Effect::Evaluate { round, params } => {
                assert!(self.objects.contains_key(&params) && self.run.needed().any(|needed| needed == params));
                let evaluation = EvaluationRecord { loss: Some(0.5), accuracy: Some(0.9), examples: 10 };
                self.tell(Input::Evaluated { round, evaluation }).unwrap();
            }
            Effect::BuildCandidate { params } => {
                assert_eq!(params, self.run.params());
                let of = |text: &str| Digest::of(text.as_bytes());
                let released = Released { release: "r-1".parse().unwrap(), bundle: of("b"), manifest: of("m") };
                self.tell(Input::Candidate(CandidateOutcome::Released(released))).unwrap();
            }
            Effect::Assign { .. } | Effect::Withdraw { .. } => unreachable!("in the outbox"),
        }
        true
    }

    /// `kill -9`: what is in memory is gone, the store and the outbox stay.
    pub(crate) fn crash(&mut self) {
        self.effects.clear();
        self.held.clear();
        self.sum = None;
        let replayed = Run::replay(&self.events).unwrap();
        assert_eq!(replayed, self.run, "the events are the truth");
        let decision = replayed.recover(&mut Cx { now: self.now, secrets: &mut self.secrets });
        self.run = replayed;
        self.commit(decision);
    }

    fn tell_node(&mut self, i: usize, input: NodeInput) {
        let node = &mut self.nodes[i];
        let Ok(decision) = node.machine.decide(&mut Cx { now: self.now, secrets: &mut self.secrets }, input) else { return };
        self.node_commit(i, decision);
    }

    fn node_commit(&mut self, i: usize, decision: Decision<sapwood_protocol::round::NodeEvent, NodeEffect>) {
        let node = &mut self.nodes[i];
        for event in decision.events {
            node.machine = node.machine.clone().apply(&event);
            node.events.push(event);
        }
        for effect in decision.effects {
            let node = &mut self.nodes[i];
            match effect {
                NodeEffect::Train { task, work } => {
                    let times = node.trained.entry((task.terms.round, node.life)).or_default();
                    *times += 1;
                    node.update = None;
                    node.training = Some((task, work));
                }
                NodeEffect::Submit { task, update } => {
                    let values = node.update.as_ref().expect("the machine submits what was trained");
                    assert_eq!(digest(values), update);
                    let says = Contribution { examples: 1, correct: None, loss: 0.0 };
                    let bytes = task.terms.encoding.encoding().unwrap().encode(values, &says).unwrap().bytes;
                    node.outbox.push_back(Answer::Update { session: task.terms.session, bytes });
                }
                NodeEffect::Decline { session, reason } => node.outbox.push_back(Answer::Decline { session, reason }),
                NodeEffect::Forget { .. } => {
                    node.training = None;
                    node.update = None;
                    node.life += 1;
                }
            }
        }
    }

    fn train(&mut self, i: usize, ok: bool) {
        let Some((task, work)) = self.nodes[i].training.take() else { return };
        if !ok {
            return self.tell_node(i, NodeInput::TrainingFailed { work, reason: Decline::BadData { why: "row 3".into() } });
        }
        let update = train(&self.objects[&task.terms.params], &task.terms, &self.names[i]);
        let name = digest(&update);
        self.nodes[i].update = Some(update);
        self.tell_node(i, NodeInput::Trained { work, update: name });
    }

    fn answer(&mut self, i: usize) {
        if self.nodes[i].away {
            return;
        }
        let Some(answer) = self.nodes[i].outbox.pop_front() else { return };
        self.nodes[i].sent.push(answer.clone());
        let session = match &answer {
            Answer::Update { session, .. } | Answer::Decline { session, .. } => *session,
        };
        let outcome = match self.offer(i, answer) {
            Ok(()) => Receipt::Accepted,
            Err(Fault::Expired(_)) => Receipt::Expired,
            // A repetition of an older life; never of an honest node's own first answer.
            Err(fault) => panic!("an honest node is refused: {fault}"),
        };
        self.tell_node(i, NodeInput::Receipt { session, outcome });
    }

    fn offer(&mut self, i: usize, answer: Answer) -> Result<(), Fault> {
        let node = self.names[i].clone();
        match answer {
            Answer::Update { session, bytes } => {
                let digest = Digest::of(&bytes);
                let len = bytes.len();
                let fresh = self.held.insert((node.clone(), digest), bytes).is_none();
                let events = self.events.len();
                let told = self.tell(Input::Update { node: node.clone(), session, digest, bytes: len });
                // Refused, or a repetition: the shell drops the bytes.
                if fresh && self.events.len() == events {
                    self.held.remove(&(node, digest));
                }
                told
            }
            Answer::Decline { session, reason } => self.tell(Input::Declined { node, session, reason }),
        }
    }

    /// An update of a stranger, of another length, changed, or of an attempt that never was.
    fn attack(&mut self, i: usize, kind: u8) {
        let Some(terms) = self.run.terms().cloned() else { return };
        let (mut node, mut session, mut bytes) = (self.names[i].clone(), terms.session, terms.update_bytes().unwrap());
        let collecting = self.run.state() == RunState::Collecting;
        let before = self.events.len();
        match kind {
            0 => node = "mallory".parse().unwrap(),
            1 => session = SessionId::new([0xee; 32]),
            2 => bytes += 1,
            _ => {}
        }
        let known = terms.has(&node);
        let told = self.tell(Input::Update { node, session, digest: Digest::of(b"forged"), bytes });
        match kind {
            0 => assert!(matches!(told, Err(Fault::PeerMisbehaved(_)))),
            1 => assert!(matches!(told, Err(Fault::Expired(_)))),
            2 => assert!(told.is_err()),
            // As the node itself: in clear nobody can tell a wrong first update; a second one is refused.
            _ => {
                if told.is_ok() {
                    assert!(collecting && known);
                    // Take it back by a crash: the attempt is given up.
                    return self.crash();
                }
            }
        }
        assert_eq!(self.events.len(), before, "a refused update leaves no trace");
    }

    pub(crate) fn apply(&mut self, op: Op) {
        let n = self.nodes.len();
        match op {
            Op::Effect => {
                self.effect();
            }
            Op::Crash => self.crash(),
            Op::Deliver(i) => {
                if let Some(message) = (!self.nodes[i % n].away).then(|| self.nodes[i % n].inbox.pop_front()).flatten() {
                    self.tell_node(i % n, message);
                }
            }
            Op::Train(i) => self.train(i % n, true),
            Op::Fail(i) => self.train(i % n, false),
            Op::Answer(i) => self.answer(i % n),
            Op::Repeat(i) => {
                // An old answer comes again: yes again, or too late; never a second count.
                if let Some(answer) = self.nodes[i % n].sent.last().cloned() {
                    let before = self.events.len();
                    match self.offer(i % n, answer) {
                        Ok(()) | Err(Fault::Expired(_)) => {}
                        Err(fault) => panic!("an honest repetition is blamed: {fault}"),
                    }
                    assert_eq!(self.events.len(), before, "a repetition is no news");
                }
            }
            Op::Restart(i) => {
                let node = &mut self.nodes[i % n];
                node.training = None;
                node.update = None;
                node.outbox.clear();
                node.sent.clear();
                node.life += 1;
                node.machine = node.events.iter().fold(NodeRound::default(), Machine::apply);
                let decision = node.machine.recover(&mut Cx { now: self.now, secrets: &mut self.secrets });
                self.node_commit(i % n, decision);
            }
            Op::Toggle(i) => {
                self.nodes[i % n].away ^= true;
                if !self.nodes[i % n].away {
                    self.nodes[i % n].outbox.clear();
                    self.tell_node(i % n, NodeInput::Reconnected);
                }
            }
            Op::Attack(i, kind) => self.attack(i % n, kind),
            Op::Wait(seconds) => {
                self.now = self.now + Duration::from_secs(seconds.into());
                self.tell(Input::Tick).unwrap();
                for i in 0..n {
                    self.tell_node(i, NodeInput::Tick);
                }
            }
        }
    }

    /// From now on everything works; the run must end.
    pub(crate) fn be_kind(&mut self) {
        for i in 0..self.nodes.len() {
            if self.nodes[i].away {
                self.apply(Op::Toggle(i));
            }
        }
        for _ in 0..10_000 {
            if self.run.is_over() {
                return;
            }
            while self.effect() {}
            let mut quiet = true;
            for i in 0..self.nodes.len() {
                while let Some(message) = self.nodes[i].inbox.pop_front() {
                    quiet = false;
                    self.tell_node(i, message);
                }
                if self.nodes[i].training.is_some() {
                    quiet = false;
                    self.train(i, true);
                }
                while !self.nodes[i].outbox.is_empty() {
                    quiet = false;
                    self.answer(i);
                }
            }
            if quiet && self.effects.is_empty() && !self.run.is_over() {
                self.now = self.now.max(self.run.deadline().expect("a run that waits knows until when"));
                self.tell(Input::Tick).unwrap();
            }
        }
        panic!("the run does not end: {:?}", self.run);
    }

    /// What holds after every commit.
    fn check(&self) {
        let mut committed = 0;
        let mut open: Option<&Terms> = None;
        let mut sessions = BTreeSet::new();
        let mut counted: BTreeSet<&NodeId> = BTreeSet::new();
        let mut failures = 0;
        for event in &self.events {
            match event {
                Event::AttemptOpened(terms) => {
                    assert!(open.is_none(), "one attempt at a time");
                    assert!(sessions.insert(terms.session), "a session is never used again");
                    assert_eq!(terms.round, committed + 1, "rounds follow one another");
                    assert!(terms.cohort.is_sorted() && terms.cohort.len() <= self.spec.cohort.asked() as usize);
                    assert!(terms.cohort.len() >= self.spec.cohort.minimum as usize);
                    open = Some(terms);
                    counted.clear();
                }
                Event::UpdateAccepted { node, .. } => {
                    assert!(open.unwrap().has(node), "only the cohort is counted");
                    assert!(counted.insert(node), "an update counts once");
                    assert!(counted.len() <= self.spec.cohort.size as usize, "no more than the grid has room for");
                }
                Event::CollectionClosed { survivors } => {
                    assert_eq!(survivors.iter().collect::<BTreeSet<_>>(), counted);
                    assert!(survivors.len() >= self.spec.cohort.minimum as usize, "never below the minimum");
                }
                Event::AttemptAborted { reason, .. } => {
                    failures += u32::from(reason.counts());
                    open = None;
                }
                Event::RoundCommitted { round, totals, session, .. } => {
                    assert_eq!(*session, open.unwrap().session);
                    assert_eq!(*round, committed + 1, "one commit for each round");
                    assert_eq!(totals.nodes as usize, counted.len());
                    committed += 1;
                    failures = 0;
                    open = None;
                }
                _ => {}
            }
            assert!(failures <= self.spec.deadlines.attempts);
        }
        assert_eq!(self.run.rounds().len(), committed as usize);
        let view = RunView::from(&self.run);
        assert!(view.privacy.contains("in clear"));
        let json = serde_json::to_string(&view).unwrap();
        assert_eq!(serde_json::from_str::<RunView>(&json).unwrap(), view);
    }
}

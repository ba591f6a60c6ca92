//! A coordinator, its ledger, nodes and their books in one process: messages arrive in random order, damaged or not at all.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha20Rng;
use ring::rand::SystemRandom;
use sapwood_privacy::{
    Accumulator,
    accountant::Observer,
    dp::{NoiseSeed, Unit},
    ledger::{Budget, NodeLedger, Offer, Policy as Rules, Protection, Rho},
    secagg::{Client, Policy, Rate, Reply, client},
};
use sapwood_protocol::{
    Cx, Digest, Fault, Machine, NodeId, Secrets, SessionId, Timestamp,
    ledger::{self, BudgetTerms, Ledger},
    membership::{Identity, Membership, Vouching, participant},
    round::{Codec, Decline, SecureSession, Stage, Terms},
    run::{Created, Effect, Event, Input, Run, RunState},
    spec::{PrivacyUnit, Spec},
};

const DIMENSION: usize = 5;

struct Draw(ChaCha20Rng);
impl Secrets for Draw {
    fn fill(&mut self, bytes: &mut [u8]) {
        rand::Rng::fill_bytes(&mut self.0, bytes);
    }
}

pub(crate) struct Node {
    pub(crate) name: NodeId,
    identity: Identity,
    membership: Vec<u8>,
    pub(crate) client: Option<Client>,
    keys: Vec<u8>,
    /// In which stage it has something to do next.
    does: Option<Stage>,
    /// It does nothing any more in this session, from this stage on.
    leaves: Option<Stage>,
    /// What it has charged itself: before its input leaves, at worst case. A store of its own, which survives everybody.
    pub(crate) books: NodeLedger<SessionId>,
    truth: Rho,
}

pub(crate) struct World {
    pub(crate) run: Run,
    pub(crate) nodes: Vec<Node>,
    authority: Identity,
    pub(crate) session: Option<SecureSession>,
    sum: Option<Accumulator>,
    pub(crate) now: Timestamp,
    secrets: Draw,
    random: ChaCha20Rng,
    params: BTreeMap<Digest, Vec<f32>>,
    /// The coordinator's privacy ledger, and what the sums that were opened have truly cost.
    pub(crate) ledger: Ledger,
    pub(crate) truth: Rho,
    pub(crate) charged: BTreeSet<SessionId>,
    pub(crate) aborted: u32,
    /// Chances that a node leaves in a session, that what it says arrives damaged, and that the coordinator dies around a charge.
    pub(crate) leave: f64,
    pub(crate) damage: f64,
    pub(crate) die: f64,
    /// What was decided is durable, and nothing of it is done.
    dead: bool,
}

fn digest(params: &[f32]) -> Digest {
    Digest::of(&params.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())
}

fn update(node: usize, round: u32) -> Vec<f32> {
    (0..DIMENSION).map(|i| (node as f32 + 1.0) * 0.01 + round as f32 * 0.001 * i as f32).collect()
}

/// A node's policy that allows what is asked here.
fn rules() -> Rules {
    Rules {
        models: None,
        budgets: BTreeMap::from([(Unit::Example, Budget::new(1e4, 1e-5).unwrap())]),
        most_clip: 100.0,
        least_cohort: 3,
        corruption: 0.0,
        allow_central: false,
        allow_no_noise: false,
        allow_clear: false,
    }
}

impl World {
    pub(crate) fn new(text: &str, count: usize, seed: u64, leave: f64) -> Self {
        let system = SystemRandom::new();
        let authority = Identity::from_pkcs8(&Identity::generate(&system).unwrap()).unwrap();
        let nodes = (0..count)
            .map(|i| {
                let identity = Identity::from_pkcs8(&Identity::generate(&system).unwrap()).unwrap();
                let name: NodeId = format!("n{i}").parse().unwrap();
                let membership = Membership {
                    population: "p".parse().unwrap(),
                    node: name.clone(),
                    identity: identity.key(),
                    labels: BTreeMap::new(),
                    issued: Timestamp::from_millis(0),
                    expires: Timestamp::from_millis(u64::MAX),
                };
                let membership = serde_json::to_vec(&membership.sign(&authority)).unwrap();
                Node {
                    name,
                    identity,
                    membership,
                    client: None,
                    keys: Vec::new(),
                    does: None,
                    leaves: None,
                    books: NodeLedger::default(),
                    truth: Rho::ZERO,
                }
            })
            .collect();
        let initial = vec![0.0; DIMENSION];
        let created = Created {
            run: "r".parse().unwrap(),
            spec: Spec::parse(text).unwrap(),
            model: Digest::of(b"m"),
            preprocess: None,
            schema: None,
            params: digest(&initial),
            length: DIMENSION as u64,
            noise: None,
            operators: vec![],
            at: Timestamp::from_millis(0),
        };
        let (secrets, random) = (Draw(ChaCha20Rng::seed_from_u64(seed)), ChaCha20Rng::seed_from_u64(seed + 1));
        let mut world = Self {
            run: Run::create(created).unwrap(),
            nodes,
            authority,
            session: None,
            sum: None,
            now: Timestamp::from_millis(1000),
            secrets,
            random,
            params: BTreeMap::from([(digest(&initial), initial)]),
            ledger: Ledger::new(PrivacyUnit::Example, BudgetTerms::new(1e4, 1e-5)).unwrap(),
            truth: Rho::ZERO,
            charged: BTreeSet::new(),
            aborted: 0,
            leave,
            damage: 0.0,
            die: 0.0,
            dead: false,
        };
        if let Some(plan) = world.run.plan() {
            // Whatever dies, there is enough: what is looked at is what is counted.
            let total = Rho::cost(plan.rho_round * 100.0).unwrap().trillionths();
            world.enter(ledger::Input::Reserve { run: "r".parse().unwrap(), total, key: None });
        }
        world.tell(Input::Start);
        world
    }

    pub(crate) fn tell(&mut self, input: Input) {
        self.try_tell(input).unwrap_or_else(|fault| panic!("{fault}"));
    }

    fn try_tell(&mut self, input: Input) -> Result<(), Fault> {
        let decision = self.run.decide(&mut Cx { now: self.now, secrets: &mut self.secrets }, input)?;
        self.commit(decision.events, decision.effects);
        Ok(())
    }

    fn commit(&mut self, events: Vec<Event>, effects: Vec<Effect>) {
        for event in &events {
            let json = serde_json::to_string(event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), *event);
            self.run = self.run.clone().apply(event);
            match event {
                Event::AttemptAborted { .. } => self.aborted += 1,
                Event::StageClosed { stage: Stage::Consistency, .. } if self.run.plan().is_some() => {
                    assert!(self.charged.contains(&self.run.terms().unwrap().session), "the ledger comes first");
                }
                _ => {}
            }
        }
        for effect in effects {
            self.effect(effect);
        }
    }

    /// The ledger decides; what it decided is durable.
    fn enter(&mut self, input: ledger::Input) {
        let decision = self.ledger.decide(&mut Cx { now: self.now, secrets: &mut self.secrets }, input).unwrap();
        self.ledger = decision.events.iter().fold(self.ledger.clone(), Machine::apply);
    }

    fn effect(&mut self, effect: Effect) {
        if self.dead {
            return;
        }
        match effect {
            Effect::AskRoster => {
                let roster = self.nodes.iter().map(|node| node.name.clone()).collect();
                self.tell(Input::Roster(roster));
            }
            Effect::Open(terms) => {
                let known: BTreeMap<_, _> = self.nodes.iter().map(|node| (node.name.clone(), node.membership.clone())).collect();
                self.session = SecureSession::new(&terms, |node| participant(known.get(node)?)).unwrap();
            }
            Effect::Assign { node, task } => self.begin(&node, &task.terms),
            Effect::Withdraw { .. } | Effect::BuildCandidate { .. } | Effect::Evaluate { .. } => {}
            Effect::CloseStage { session, stage } => {
                let Some(secure) = self.session.as_mut().filter(|secure| secure.session() == session) else { return };
                match secure.close(stage) {
                    None => {}
                    Some(Ok(members)) => self.tell(Input::StageClosed { session, stage, members }),
                    Some(Err(why)) => self.tell(Input::StageFailed { session, why }),
                }
            }
            Effect::Gone { node, session } => {
                let complete = self.session.as_mut().is_some_and(|secure| secure.leave(&node));
                if let Some(stage) = self.run.stage().filter(|_| complete) {
                    self.tell(Input::StageComplete { session, stage });
                }
            }
            Effect::Charge { session, cost, members } => {
                assert!(cost.coordinator >= cost.outsider && cost.outsider > 0);
                self.dead = self.random.random_bool(self.die);
                if self.dead && self.random.random() {
                    return;
                }
                assert!(self.charged.insert(session), "a session is charged once");
                self.enter(ledger::Input::Charge { run: "r".parse().unwrap(), session, rho: cost.coordinator });
                if !self.dead {
                    self.tell(Input::Charged { session, members });
                }
            }
            Effect::Add { .. } => unreachable!("the test adds by itself, with the bytes at hand"),
            Effect::Aggregate { terms, server_lr, survivors } => {
                assert!(survivors.len() >= terms.minimum as usize);
                let opened = self.session.as_mut().unwrap().open(1);
                let sum = match opened {
                    Ok((sum, complaints)) => {
                        assert!(complaints.is_empty() || self.damage > 0.0, "everybody is honest here");
                        self.opened(&terms, &survivors);
                        sum
                    }
                    Err(why) => return self.tell(Input::AggregateFailed { session: terms.session, why }),
                };
                let mut params = self.params[&terms.params].clone();
                let before = params.clone();
                let totals = terms.codec().unwrap().add_to(&terms, &sum, &mut params, server_lr, || unreachable!()).unwrap();
                assert_eq!(totals.nodes as usize, survivors.len());
                if terms.noise.is_none() {
                    for (i, (new, old)) in params.iter().zip(&before).enumerate() {
                        let of = |name: &NodeId| update(self.nodes.iter().position(|node| node.name == *name).unwrap(), terms.round)[i];
                        let mean = survivors.iter().map(of).sum::<f32>() / survivors.len() as f32;
                        assert!((new - old - mean).abs() < 1e-6, "round {}: {new} - {old} is not {mean}", terms.round);
                    }
                }
                let name = digest(&params);
                self.params.insert(name, params);
                self.tell(Input::Aggregated { session: terms.session, params: name, totals });
            }
            Effect::Discard { .. } => {
                self.session = None;
                self.sum = None;
            }
        }
    }

    /// The sum is known: what that truly costs is in the ledger, and in those of all whose input is in it.
    fn opened(&mut self, terms: &Terms, survivors: &[NodeId]) {
        let Codec::Noised(mechanism) = terms.codec().unwrap() else { return };
        let cost = mechanism.parameters().rho(Observer::Coordinator, survivors.len() as u32).unwrap();
        // Up to what the ledger rounds up.
        let cost = Rho::allowance(cost).unwrap();
        self.truth = self.truth.plus(cost);
        assert!(self.ledger.rules().spent() >= self.truth, "{} is spent, {} was opened", self.ledger.rules().spent(), self.truth);
        for node in self.nodes.iter_mut().filter(|node| survivors.contains(&node.name)) {
            node.truth = node.truth.plus(cost);
            assert!(node.books.spent(Unit::Example) >= node.truth, "{}", node.name);
        }
    }

    fn vouching(&self) -> Vouching {
        Vouching { authority: self.authority.key(), population: "p".parse().unwrap(), now: self.now }
    }

    /// The node has trained, and shows its keys.
    fn begin(&mut self, name: &NodeId, terms: &Terms) {
        let vouching = self.vouching();
        let stages = [Stage::Keys, Stage::Shares, Stage::Inputs, Stage::Consistency, Stage::Unmasking];
        let leaves = self.random.random_bool(self.leave).then(|| *stages.choose(&mut self.random).unwrap());
        let agreed = terms.aggregation().unwrap().unwrap();
        let policy = Policy { minimum: 3, corruption: Rate::ZERO, profile: agreed.profile };
        let Self { nodes, secrets, .. } = self;
        let node = nodes.iter_mut().find(|node| node.name == *name).unwrap();
        let vouch = |key: &_, context: &[u8]| vouching.vouches(terms, key, context);
        let mut random = |bytes: &mut [u8]| secrets.fill(bytes);
        let mut cx = client::Cx { signer: &node.identity, vouch: &vouch, random: &mut random };
        let (client, keys) = Client::begin(agreed, &policy, node.membership.clone(), &mut cx).unwrap();
        (node.client, node.keys, node.does, node.leaves) = (Some(client), keys, Some(Stage::Keys), leaves);
    }

    /// A node that has something to do does it. False if none has.
    pub(crate) fn act(&mut self) -> bool {
        let Some(terms) = self.run.terms().cloned() else { return false };
        let (Some(stage), Some(session)) = (self.run.stage(), self.session.as_ref()) else { return false };
        let ready = |node: &Node| {
            let gone = node.leaves.is_some_and(|leaves| leaves <= stage);
            let asked = stage == Stage::Keys || session.message_for(&node.name, stage).is_some();
            node.client.is_some() && !gone && node.does == Some(stage) && asked
        };
        let able: Vec<usize> = (0..self.nodes.len()).filter(|i| ready(&self.nodes[*i])).collect();
        let Some(&i) = able.choose(&mut self.random) else { return false };
        let name = self.nodes[i].name.clone();
        let said = if stage == Stage::Keys { Some(self.nodes[i].keys.clone()) } else { self.answer(i, &terms, stage) };
        let Some(bytes) = said else {
            self.nodes[i].client = None;
            let reason = Decline::SecureSum { why: "a message of others was damaged".into() };
            self.tell(Input::Declined { node: name, session: terms.session, reason });
            return true;
        };
        self.nodes[i].does = stage.next();
        if self.random.random_bool(self.damage) {
            return self.damaged(i, &terms, stage, bytes);
        }
        if stage == Stage::Inputs {
            let (digest, length) = (Digest::of(&bytes), bytes.len());
            // As the shell does: the bytes are held until the decision, then added.
            let decision = self.run.decide(
                &mut Cx { now: self.now, secrets: &mut self.secrets },
                Input::Update { node: name.clone(), session: terms.session, digest, bytes: length },
            );
            let decision = decision.unwrap();
            let effects: Vec<_> = decision.effects.into_iter().filter(|effect| !matches!(effect, Effect::Add { .. })).collect();
            self.session.as_mut().unwrap().add(&name, &[&bytes]).unwrap();
            self.commit(decision.events, effects);
            return true;
        }
        let complete = self.session.as_mut().unwrap().receive(&name, &bytes).unwrap();
        assert_eq!(self.session.as_mut().unwrap().receive(&name, &bytes), Ok(complete), "the same again is no news");
        if complete {
            self.tell(Input::StageComplete { session: terms.session, stage });
            // Found by review: the line broke, the stage went on, and the same bytes again must still be answered.
            if let Some(secure) = self.session.as_mut().filter(|secure| secure.session() == terms.session && secure.stage() != stage) {
                assert!(secure.receive(&name, &bytes).is_ok());
            }
        }
        true
    }

    /// A message that does not arrive as it was sent is refused in its sender's name, or it is the same message to the coordinator; then
    /// the sender has left.
    fn damaged(&mut self, i: usize, terms: &Terms, stage: Stage, mut bytes: Vec<u8>) -> bool {
        let at = self.random.random_range(0..bytes.len());
        match self.random.random_range(0..3) {
            0 => bytes[at] ^= 1 << self.random.random_range(0..8),
            1 => bytes.truncate(at),
            _ => bytes.insert(at, self.random.random()),
        }
        let (name, secure) = (self.nodes[i].name.clone(), self.session.as_mut().unwrap());
        let before = (secure.stage(), secure.is_complete());
        // The masked input itself is only held to its length: what is in it nobody can tell.
        let refused = match stage {
            Stage::Inputs if bytes.len() == terms.update_bytes().unwrap() => return true,
            Stage::Inputs => secure.add(&name, &[&bytes]).err(),
            _ => secure.receive(&name, &bytes).err(),
        };
        if let Some(fault) = &refused {
            assert!(fault.to_string().contains(name.as_str()) || matches!(fault, Fault::Expired(_)), "{fault}");
        }
        assert_eq!(secure.stage(), before.0, "only the machine closes a stage");
        self.nodes[i].leaves = Some(stage);
        // What was bent and still makes sense, such as a share of no use, counts as heard.
        if secure.is_complete() && !before.1 {
            self.tell(Input::StageComplete { session: terms.session, stage });
        }
        true
    }

    /// What node `i` says to the coordinator's message of this stage, once.
    fn answer(&mut self, i: usize, terms: &Terms, stage: Stage) -> Option<Vec<u8>> {
        let vouching = self.vouching();
        let message = self.session.as_ref()?.message_for(&self.nodes[i].name, stage)?;
        let Self { nodes, secrets, .. } = self;
        let node = &mut nodes[i];
        let vouch = |key: &_, context: &[u8]| vouching.vouches(terms, key, context);
        let mut random = |bytes: &mut [u8]| secrets.fill(bytes);
        let mut cx = client::Cx { signer: &node.identity, vouch: &vouch, random: &mut random };
        let client = node.client.as_mut()?;
        let reply = match client.receive(&message, &mut cx) {
            Ok(reply) => reply,
            // Shares that were damaged on their way to it, for one.
            Err(_) if self.damage > 0.0 => return None,
            Err(fault) => panic!("{stage:?}: {fault}"),
        };
        Some(match reply {
            Reply::Send(bytes) => bytes,
            Reply::WantsVector => {
                if let Codec::Noised(mechanism) = terms.codec().unwrap() {
                    let offer = Offer {
                        model: "m",
                        minimum: terms.minimum,
                        cohort: terms.cohort.len() as u32,
                        masked: true,
                        protection: Protection::Noise(&mechanism),
                    };
                    let charge = node.books.decide(&rules(), terms.session, &offer).unwrap().expect("a session is charged once");
                    node.books.apply(&charge);
                }
                let lanes = match terms.codec().unwrap() {
                    Codec::Exact(encoding) => {
                        let contribution = sapwood_privacy::Contribution { examples: 3, correct: Some(1), loss: 0.5 };
                        let encoded = encoding.encode(&update(i, terms.round), &contribution).unwrap();
                        sapwood_privacy::wire::unpack(&encoded.bytes, encoding.elements(DIMENSION), encoding.bits()).unwrap()
                    }
                    Codec::Noised(mechanism) => {
                        let mut sum = mechanism.unit_sum();
                        mechanism.add_unit(&mut sum, &update(i, terms.round), &[0.5, 1.0]).unwrap();
                        let seed = NoiseSeed::draw(|seed| {
                            let _: () = self.random.fill(seed);
                            Ok::<(), ()>(())
                        })
                        .unwrap();
                        mechanism.encode_units(&sum, terms.rotation(), seed).unwrap().lanes().to_vec()
                    }
                };
                client.mask(lanes, 1).unwrap()
            }
        })
    }

    fn restart(&mut self) {
        self.dead = false;
        self.session = None;
        let decision = self.run.recover(&mut Cx { now: self.now, secrets: &mut self.secrets });
        self.commit(decision.events, decision.effects);
    }

    /// Until it is over. `restarts`: how often the coordinator dies at a random moment.
    pub(crate) fn finish(&mut self, mut restarts: u32) -> RunState {
        for _ in 0..20_000 {
            if self.run.is_over() || matches!(self.run.state(), RunState::Releasing) {
                break;
            }
            if self.dead {
                self.restart();
            } else if restarts > 0 && self.random.random_bool(0.02) {
                restarts -= 1;
                self.restart();
            } else if !self.act() {
                let deadline = self.run.deadline().expect("it waits for nodes or for a deadline");
                self.now = self.now.max(deadline);
                self.tell(Input::Tick);
            }
        }
        self.run.state()
    }
}

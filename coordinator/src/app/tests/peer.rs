//! Nodes: simple, but they follow orders, encode updates under the terms, upload, and begin again with a new connection
//! whenever the coordinator is gone. What they have done and taken in outlives the coordinator.

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use sapwood_privacy::{
    Contribution,
    dp::NoiseSeed,
    secagg::{Client, Policy, Rate, Reply, client},
};
use sapwood_protocol::{
    Digest, NodeId, SessionId, Ticket,
    membership::{Identity, Membership, Vouching},
    release::view::RolloutView,
    rollout::{Assignment, Health, Input, NodeStatus},
    round::{Codec, Decline, Receipt, Stage, Task, Terms},
};

use super::*;

/// What a node does with a task.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Training {
    /// Trains and sends.
    Sends,
    /// As the last of its cohort says once that it cannot.
    DeclinesOnce,
    /// As the last of its cohort says that it cannot, whenever it is asked.
    Declines,
    /// Trains for ever from this round on.
    SilentFrom(u32),
    /// Shows its keys under the number of another stage.
    Mislabels,
}

/// What a node does with an assignment.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Serving {
    /// Runs it.
    Runs,
    /// Finds that this release answers wrongly, and stays with what it runs; runs all others.
    Fails(&'static str),
    /// Never takes this release; runs all others.
    Ignores(&'static str),
    /// Takes nothing.
    Deaf,
    /// Runs it, and in the same breath an operator stops the rollout.
    RunsAndIsStopped,
}

/// When a node connects for the first time.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Comes {
    /// Now.
    AtOnce,
    /// When a ring of this release is open. It is enrolled before.
    OnceOpen(&'static str),
    /// When the rollout of this release is over. Nobody has heard of it before.
    OnceOver(&'static str),
}

/// A node.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) name: NodeId,
    /// Signs its keys in a secure sum.
    pub(super) identity: Arc<Identity>,
    pub(super) membership: Vec<u8>,
    pub(super) ring: &'static str,
    pub(super) training: Training,
    pub(super) serving: Serving,
    pub(super) comes: Comes,
    /// The newest assignment that it had before the test, maybe of a coordinator that has forgotten it since.
    pub(super) recalls: u64,
    pub(super) ticket: Option<Ticket>,
    pub(super) status: Option<NodeStatus>,
    pub(super) declined: Option<SessionId>,
}

/// Answers for every node of these tests.
fn authority() -> &'static Identity {
    static AUTHORITY: OnceLock<Identity> = OnceLock::new();
    AUTHORITY.get_or_init(identity)
}

fn identity() -> Identity {
    Identity::from_pkcs8(&Identity::generate(&ring::rand::SystemRandom::new()).unwrap()).unwrap()
}

pub(super) fn peer(name: &str, ring: &'static str) -> Peer {
    let identity = identity();
    let membership = Membership {
        population: "p".parse().unwrap(),
        node: node(name),
        identity: identity.key(),
        labels: BTreeMap::new(),
        issued: Timestamp::from_millis(0),
        expires: Timestamp::from_millis(u64::MAX),
    };
    Peer {
        name: node(name),
        identity: Arc::new(identity),
        membership: serde_json::to_vec(&membership.sign(authority())).unwrap(),
        ring,
        training: Training::Sends,
        serving: Serving::Runs,
        comes: Comes::AtOnce,
        recalls: 0,
        ticket: None,
        status: None,
        declined: None,
    }
}

pub(super) fn hello(name: &NodeId, ticket: Option<Ticket>) -> NodeHello {
    let labels = BTreeMap::from([("ring".into(), "lab".into())]);
    NodeHello { node: name.clone(), membership: b"{}".to_vec(), labels, ticket, profile: testing::profile(), status: None, key: Vec::new() }
}

impl Peer {
    /// Follows the orders of whichever coordinator there is.
    pub(super) async fn live(mut self, mut known: watch::Receiver<Option<State>>) {
        while let Ok(state) = known.wait_for(Option::is_some).await.map(|state| state.clone().unwrap()) {
            tokio::select! {
                biased;
                _ = state.killed() => {}
                () = self.follow_orders(&state) => {}
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// What it says when it connects.
    pub(super) fn hello(&self) -> NodeHello {
        let labels = BTreeMap::from([("ring".into(), self.ring.into())]);
        NodeHello { membership: self.membership.clone(), labels, status: self.status.clone(), ..hello(&self.name, self.ticket) }
    }

    async fn follow_orders(&mut self, state: &State) {
        if !self.comes_now(state).await {
            return;
        }
        let recalls = self.recalls;
        self.status.get_or_insert(NodeStatus { assignment: recalls, running: None, health: Health::Healthy });
        let Ok((next, mut orders)) = state.connect(self.hello()).await else { return };
        self.ticket = Some(next);
        while let Some(order) = orders.next().await {
            let done = match order {
                Order::Task(task) => self.train(state, &serde_json::from_slice::<Task>(&task).unwrap().terms).await,
                Order::Assignment(assignment) => self.take(state, serde_json::from_slice(&assignment).unwrap()).await,
                Order::Withdraw(_) => Ok(()),
                Order::Goodbye(_) => return,
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn comes_now(&mut self, state: &State) -> bool {
        let (release, is_time): (&str, fn(&RolloutView) -> bool) = match self.comes {
            Comes::AtOnce => return true,
            Comes::OnceOpen(release) => (release, |view| view.rings.iter().any(|ring| ring.state == "open")),
            Comes::OnceOver(release) => (release, |view| view.outcome.is_some()),
        };
        let Ok(mut watching) = state.watch_rollout(&release.parse().unwrap()).await else { return false };
        while let Some(view) = watching.next().await {
            if is_time(&view) {
                self.comes = Comes::AtOnce;
                return true;
            }
        }
        false
    }

    async fn train(&mut self, state: &State, terms: &Terms) -> Result<(), Fault> {
        let declines = match self.training {
            Training::Sends | Training::Mislabels => false,
            Training::DeclinesOnce => self.declined.is_none_or(|session| session == terms.session),
            Training::Declines => true,
            Training::SilentFrom(round) if terms.round >= round => return Ok(()),
            Training::SilentFrom(_) => false,
        };
        if !declines && terms.secure.is_some() {
            assert_ne!(self.take_part(state, terms).await?, Receipt::Refused, "{} is honest", self.name);
            return Ok(());
        }
        if !declines {
            let receipt = submit(&self.name, state, terms, &update(&self.name, terms)).await?;
            assert_ne!(receipt, Receipt::Refused, "{} is honest", self.name);
            return Ok(());
        }
        let others = terms.cohort.len() as u32 - 1;
        let mut watching = state.watch_run(&terms.run).await?;
        while let Some(view) = watching.next().await {
            if view.attempt.is_none_or(|attempt| attempt.attempt != terms.attempt || attempt.updates == others) {
                break;
            }
        }
        let reason = Decline::NoData { why: "no folder".into() };
        assert_ne!(state.decline(&self.name, &terms.run, terms.session, reason).await?, Receipt::Refused);
        self.declined = Some(terms.session);
        Ok(())
    }

    /// The secure sum, from keys to shares.
    async fn take_part(&self, state: &State, terms: &Terms) -> Result<Receipt, Fault> {
        let agreed = terms.aggregation().unwrap().unwrap();
        let policy = Policy { minimum: 3, corruption: Rate::ZERO, profile: agreed.profile };
        let (mut client, keys) = self.step(terms, |cx| Client::begin(agreed, &policy, self.membership.clone(), cx)).unwrap();
        let (mut stage, mut message) = (Stage::Keys, keys);
        if self.training == Training::Mislabels {
            let mut states = lock(&state.0.runs).get(&terms.run).map(|run| run.states.clone()).expect("it is driven");
            tokio::select! {
                _ = state.exchange(&self.name, &terms.run, terms.session, Stage::Shares, &message) => {}
                _ = states.wait_for(|run| run.stage() != Some(Stage::Keys)) => {}
            }
        }
        loop {
            let heard = match state.exchange(&self.name, &terms.run, terms.session, stage, &message).await? {
                Said::Message(heard) => heard,
                Said::Receipt(receipt) => return Ok(receipt),
            };
            stage = stage.next().unwrap();
            message = match self.step(terms, |cx| client.receive(&heard, cx)).unwrap() {
                Reply::Send(bytes) => bytes,
                Reply::WantsVector => {
                    let masked = client.mask(lanes(&self.name, terms), 1).unwrap();
                    match submit(&self.name, state, terms, &masked).await? {
                        Receipt::Accepted => Vec::new(),
                        other => return Ok(other),
                    }
                }
            };
        }
    }

    fn step<T>(&self, terms: &Terms, step: impl FnOnce(&mut client::Cx<'_>) -> T) -> T {
        let vouching = Vouching { authority: authority().key(), population: "p".parse().unwrap(), now: testing::NOW };
        let vouch = |key: &_, context: &[u8]| vouching.vouches(terms, key, context);
        let random = ring::rand::SystemRandom::new();
        let mut random = |bytes: &mut [u8]| ring::rand::SecureRandom::fill(&random, bytes).unwrap();
        step(&mut client::Cx { signer: &*self.identity, vouch: &vouch, random: &mut random })
    }

    async fn take(&mut self, state: &State, assignment: Assignment) -> Result<(), Fault> {
        let (name, recalls) = (self.name.clone(), self.recalls);
        let status = self.status.as_mut().expect("it has said how it is");
        if assignment.version <= status.assignment {
            assert!(assignment.version == status.assignment || assignment.version <= recalls, "{name}: an order of the past");
            return Ok(());
        }
        let is = |release: &str| assignment.release.as_ref().is_some_and(|told| told.release.as_str() == release);
        let mut health = Health::Healthy;
        match self.serving {
            Serving::Deaf => return Ok(()),
            Serving::Ignores(release) if is(release) => return Ok(()),
            Serving::Fails(release) if is(release) => health = Health::Unhealthy { why: "it answers wrongly".into() },
            _ => status.running = assignment.release.as_ref().map(|release| release.bundle),
        }
        (status.assignment, status.health) = (assignment.version, health);
        let status = status.clone();
        let (Serving::RunsAndIsStopped, Some(told)) = (self.serving, assignment.release) else {
            return state.report(&name, None, status).await;
        };
        state.fleet().report(&name, None, status.clone()).await?;
        let rollout = lock(&state.0.rollouts).get(&told.release).cloned().expect("it gave the order");
        // One behind the other in the mailbox, so that the driver decides on both at once.
        rollout.address.tell(Input::Report { node: name, status }).await;
        rollout.address.tell(Input::Abort { by: "operator".into() }).await;
        Ok(())
    }
}

/// What masks are added to: the same update, exact or noised.
fn lanes(name: &NodeId, terms: &Terms) -> Vec<u32> {
    match terms.codec().unwrap() {
        Codec::Exact(encoding) => {
            sapwood_privacy::wire::unpack(&update(name, terms), encoding.elements(terms.dimension()), encoding.bits()).unwrap()
        }
        Codec::Noised(mechanism) => {
            let mut sum = mechanism.unit_sum();
            mechanism.add_unit(&mut sum, &vec![0.01; terms.dimension()], &[0.5, 1.0]).unwrap();
            let seed = NoiseSeed::draw(|seed| {
                let _: () = seed.fill(7);
                Ok::<(), ()>(())
            })
            .unwrap();
            mechanism.encode_units(&sum, terms.rotation(), seed).unwrap().lanes().to_vec()
        }
    }
}

/// "Training": a change that depends on the node, the round and the parameters' place.
pub(super) fn update(name: &NodeId, terms: &Terms) -> Vec<u8> {
    let seed = terms.training_seed(name);
    let change: Vec<f32> = (0..terms.dimension()).map(|i| ((seed.rotate_left(i as u32) % 1000) as f32 - 500.0) / 1e4).collect();
    let contribution = Contribution { examples: 1 + seed % 50, correct: Some(1), loss: 0.5 };
    terms.encoding.encoding().unwrap().encode(&change, &contribution).unwrap().bytes
}

pub(super) async fn submit(name: &NodeId, state: &State, terms: &Terms, bytes: &[u8]) -> Result<Receipt, Fault> {
    let (digest, total) = (Digest::of(bytes), bytes.len() as u64);
    let offset = state.upload_offset(name, terms.session, digest);
    let header = UploadHeader { run: terms.run.clone(), session: terms.session, digest, total, offset };
    let mut upload = match state.upload(name, header).await {
        Ok(upload) => upload,
        Err(fault) => return receipt(Err(fault)),
    };
    for part in bytes[offset as usize..].chunks(64) {
        upload.push(part)?;
    }
    upload.finish().await
}

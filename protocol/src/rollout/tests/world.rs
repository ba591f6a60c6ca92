//! A fleet that loses, doubles, delays and reorders, and a coordinator that crashes between any two steps.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::{Just, ProptestConfig, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as _;

use super::super::{
    state::{MemberState, Phase, RingState},
    *,
};
use crate::{
    digest::Digest,
    fault::Fault,
    ids::{DeviceClass, NodeId, RingId},
    machine::{Cx, Decision, Machine, Secrets},
    release::{
        ReleaseRef, Signatures,
        manifest::{RolloutPolicy, Strategy},
    },
    time::Timestamp,
};

const RINGS: [&str; 4] = ["lab", "canary", "region", "global"];
const SOAK: u64 = 100;
const TIMEOUT: u64 = 1000;

struct NoSecrets;

impl Secrets for NoSecrets {
    fn fill(&mut self, _bytes: &mut [u8]) {
        panic!("a rollout draws no secrets");
    }
}

pub(super) fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}
pub(super) fn ring(name: &str) -> RingId {
    name.parse().unwrap()
}
pub(super) fn class() -> DeviceClass {
    "x86_64".parse().unwrap()
}
pub(super) fn digest(release: &str) -> Digest {
    Digest::of(release.as_bytes())
}

pub(crate) fn release(name: &str) -> ReleaseRef {
    ReleaseRef {
        release: name.parse().unwrap(),
        bundle: digest(name),
        bundle_bytes: 100,
        unpacked_bytes: 200,
        manifest: Digest::of(format!("manifest of {name}").as_bytes()),
        manifest_bytes: 10,
        signatures: Signatures::default(),
        class: class(),
        min_runtime: "1.20.0".parse().unwrap(),
    }
}

pub(super) fn created(previous: Option<&str>) -> Created {
    let policy = RolloutPolicy {
        strategy: Strategy::Rings,
        rings: RINGS.map(ring).into(),
        soak: std::time::Duration::from_millis(SOAK),
        health_timeout: std::time::Duration::from_millis(TIMEOUT),
    };
    Created { release: release("new"), previous: previous.map(release), policy, at: Timestamp::default() }
}

pub(super) fn view(name: &str, label: Option<&str>) -> NodeView {
    NodeView { id: node(name), ring: label.map(ring), class: class(), running: None, assignment: 0, seen: None }
}

fn decide(rollout: &Rollout, now: u64, input: Input) -> Result<Decision<Event, Effect>, Fault> {
    rollout.decide(&mut Cx { now: Timestamp::from_millis(now), secrets: &mut NoSecrets }, input)
}

pub(super) fn recovered(rollout: &Rollout, now: u64) -> Decision<Event, Effect> {
    rollout.recover(&mut Cx { now: Timestamp::from_millis(now), secrets: &mut NoSecrets })
}

pub(super) fn refused(rollout: &Rollout, input: Input) -> Fault {
    decide(rollout, 0, input).unwrap_err()
}

pub(super) fn step(rollout: &mut Rollout, now: u64, input: Input) -> Vec<Effect> {
    let decision = decide(rollout, now, input).unwrap();
    *rollout = decision.events.iter().fold(rollout.clone(), Rollout::apply);
    decision.effects
}

/// A node, as the coordinator sees it: it takes newer orders only, and says what it runs.
#[derive(Clone, Debug)]
struct Device {
    ring: usize,
    seen: u64,
    running: Option<Digest>,
    ordered: Option<Digest>,
    broken: bool,
}

pub(super) struct World {
    rollout: Rollout,
    pub(super) log: Vec<Event>,
    now: u64,
    devices: BTreeMap<NodeId, Device>,
    /// Orders on their way: sent at least once, in any order.
    orders: Vec<(NodeId, Assignment)>,
    reports: Vec<(NodeId, NodeStatus)>,
    roster_wanted: bool,
    given: BTreeMap<NodeId, u64>,
}

/// One thing that may happen.
#[derive(Clone, Debug)]
enum Op {
    Deliver(prop::sample::Index),
    LoseOrder(prop::sample::Index),
    DoubleOrder(prop::sample::Index),
    Report(prop::sample::Index),
    LoseReport(prop::sample::Index),
    DoubleReport(prop::sample::Index),
    Heartbeat(prop::sample::Index),
    Roster,
    Pass(u64),
    Crash,
    Enrol(usize),
    JumpAhead(prop::sample::Index),
}

fn op() -> impl proptest::strategy::Strategy<Value = Op> {
    prop_oneof![
        30 => any::<prop::sample::Index>().prop_map(Op::Deliver),
        3 => any::<prop::sample::Index>().prop_map(Op::LoseOrder),
        4 => any::<prop::sample::Index>().prop_map(Op::DoubleOrder),
        30 => any::<prop::sample::Index>().prop_map(Op::Report),
        3 => any::<prop::sample::Index>().prop_map(Op::LoseReport),
        4 => any::<prop::sample::Index>().prop_map(Op::DoubleReport),
        5 => any::<prop::sample::Index>().prop_map(Op::Heartbeat),
        12 => Just(Op::Roster),
        12 => (1..2 * SOAK).prop_map(Op::Pass),
        4 => Just(Op::Crash),
        1 => (0..RINGS.len()).prop_map(Op::Enrol),
        1 => any::<prop::sample::Index>().prop_map(Op::JumpAhead),
    ]
}

impl World {
    /// `nodes` devices over the given rings, all running the old release.
    pub(super) fn new(nodes: usize, rings: &[usize]) -> Self {
        let created = created(Some("old"));
        let devices = (0..nodes).map(|i| {
            let ring = rings[i % rings.len()];
            (node(&format!("n{i}")), Device { ring, seen: 0, running: Some(digest("old")), ordered: None, broken: false })
        });
        let mut world = Self {
            rollout: Rollout::create(created.clone()).unwrap(),
            log: vec![Event::Created(Box::new(created))],
            now: 0,
            devices: devices.collect(),
            orders: Vec::new(),
            reports: Vec::new(),
            roster_wanted: false,
            given: BTreeMap::new(),
        };
        world.input(Input::Start);
        world
    }

    pub(super) fn break_node(&mut self, index: usize) {
        self.devices.get_mut(&node(&format!("n{index}"))).unwrap().broken = true;
    }

    fn input(&mut self, input: Input) {
        let decision = decide(&self.rollout, self.now, input).unwrap();
        self.carry_out(decision);
    }

    fn carry_out(&mut self, decision: Decision<Event, Effect>) {
        for event in decision.events {
            let before = self.rollout.clone();
            self.rollout = self.rollout.clone().apply(&event);
            invariant_never_a_ring_beyond_an_unconfirmed_one(&before, &event);
            invariant_never_two_rings_open(&self.rollout);
            invariant_only_the_bad_ring_reverts(&self.rollout);
            self.log.push(event);
        }
        for effect in decision.effects {
            match effect {
                Effect::Assign { node, assignment } => {
                    invariant_versions_never_fall(&mut self.given, &node, &assignment);
                    self.orders.push((node, assignment));
                }
                Effect::Roster => self.roster_wanted = true,
            }
        }
    }

    /// The coordinator dies and comes back: its memory is what the log tells.
    fn crash(&mut self) {
        let replayed = Rollout::replay(&self.log).unwrap();
        assert_eq!(replayed, self.rollout, "the log tells everything");
        self.roster_wanted = false;
        let decision = recovered(&replayed, self.now);
        self.carry_out(decision);
    }

    fn roster(&mut self) {
        self.roster_wanted = false;
        let views = self.devices.iter().map(|(id, device)| NodeView {
            id: id.clone(),
            ring: Some(ring(RINGS[device.ring])),
            class: class(),
            running: device.running,
            assignment: self.given.get(id).copied().unwrap_or(0).max(device.seen),
            seen: None,
        });
        self.input(Input::Roster(views.collect()));
    }

    fn deliver(&mut self, (to, assignment): (NodeId, Assignment)) {
        let Some(device) = self.devices.get_mut(&to) else { return };
        if assignment.version <= device.seen {
            return;
        }
        device.seen = assignment.version;
        device.ordered = assignment.release.as_ref().map(|release| release.bundle);
        if !(device.broken && device.ordered == Some(digest("new"))) {
            device.running = device.ordered;
        }
        self.heartbeat(&to);
    }

    fn heartbeat(&mut self, id: &NodeId) {
        let device = &self.devices[id];
        let failed = device.broken && device.ordered == Some(digest("new"));
        let health = if failed { Health::Unhealthy { why: "broken".into() } } else { Health::Healthy };
        self.reports.push((id.clone(), NodeStatus { assignment: device.seen, running: device.running, health }));
    }

    fn perform(&mut self, op: Op) {
        let pick = |index: prop::sample::Index, len: usize| (len > 0).then(|| index.index(len));
        let id = |world: &Self, index: prop::sample::Index| world.devices.keys().nth(index.index(world.devices.len())).unwrap().clone();
        match op {
            Op::Deliver(i) => {
                if let Some(i) = pick(i, self.orders.len()) {
                    let order = self.orders.remove(i);
                    self.deliver(order);
                }
            }
            Op::LoseOrder(i) => drop(pick(i, self.orders.len()).map(|i| self.orders.remove(i))),
            Op::DoubleOrder(i) => {
                if let Some(i) = pick(i, self.orders.len()) {
                    self.orders.push(self.orders[i].clone());
                }
            }
            Op::Report(i) => {
                if let Some(i) = pick(i, self.reports.len()) {
                    let (node, status) = self.reports.remove(i);
                    self.input(Input::Report { node, status });
                }
            }
            Op::LoseReport(i) => drop(pick(i, self.reports.len()).map(|i| self.reports.remove(i))),
            Op::DoubleReport(i) => {
                if let Some(i) = pick(i, self.reports.len()) {
                    self.reports.push(self.reports[i].clone());
                }
            }
            Op::Heartbeat(i) => {
                let id = id(self, i);
                self.heartbeat(&id);
            }
            Op::Roster => self.roster(),
            Op::Pass(span) => {
                self.now += span;
                self.input(Input::Tick);
            }
            Op::Crash => self.crash(),
            Op::Enrol(ring) => {
                let id = node(&format!("n{}", self.devices.len()));
                self.devices.insert(id, Device { ring, seen: 0, running: None, ordered: None, broken: false });
            }
            // The node was told more than this coordinator remembers.
            Op::JumpAhead(i) => {
                let id = id(self, i);
                self.devices.get_mut(&id).unwrap().seen += 5;
                self.heartbeat(&id);
            }
        }
    }

    /// From here on everything arrives, in order, within its deadline.
    pub(super) fn run_to_end(&mut self, crash: bool) {
        for _ in 0..200 {
            if self.rollout.outcome().is_some() && self.orders.is_empty() && self.reports.is_empty() {
                return;
            }
            if crash {
                self.crash();
            }
            if self.roster_wanted {
                self.roster();
            }
            for order in std::mem::take(&mut self.orders) {
                self.deliver(order);
            }
            for id in self.devices.keys().cloned().collect::<Vec<_>>() {
                self.heartbeat(&id);
            }
            for (node, status) in std::mem::take(&mut self.reports) {
                self.input(Input::Report { node, status });
            }
            self.now += SOAK;
            self.input(Input::Tick);
        }
        panic!("the rollout does not end: {:#?}", self.rollout.view());
    }
}

fn invariant_never_two_rings_open(rollout: &Rollout) {
    let busy = rollout.rings.iter().filter(|ring| matches!(ring.state, RingState::Open | RingState::Reverting)).count();
    assert!(busy <= 1, "{:#?}", rollout.view());
}

fn invariant_never_a_ring_beyond_an_unconfirmed_one(before: &Rollout, event: &Event) {
    let Event::RingOpened { ring, .. } = event else { return };
    let index = before.rings.iter().position(|known| known.id == *ring).unwrap();
    assert!(before.rings[..index].iter().all(|ring| matches!(ring.state, RingState::Passed | RingState::Skipped)));
    assert!(matches!(before.phase, Phase::Waiting { next } if next == index));
}

/// A ring passes only when each member was confirmed at that moment, for the soak time, after its own order.
fn invariant_rings_pass_confirmed(log: &[Event]) {
    let mut confirmed: BTreeSet<NodeId> = BTreeSet::new();
    let mut members: Vec<NodeId> = Vec::new();
    for event in log {
        match event {
            Event::RingOpened { members: orders, .. } => members = orders.iter().map(|order| order.node.clone()).collect(),
            Event::NodeConfirmed { node, .. } => drop(confirmed.insert(node.clone())),
            Event::NodeFailed { node, .. } | Event::Reordered { order: Order { node, .. }, .. } => drop(confirmed.remove(node)),
            Event::RingPassed { .. } => assert!(members.iter().all(|member| confirmed.contains(member))),
            _ => {}
        }
    }
}

fn invariant_only_the_bad_ring_reverts(rollout: &Rollout) {
    let bad = rollout.rings.iter().position(|ring| matches!(ring.state, RingState::Reverting | RingState::Reverted));
    for member in rollout.members.values() {
        if matches!(member.state, MemberState::Reverting | MemberState::Reverted) {
            assert_eq!(Some(member.ring), bad);
        }
    }
}

fn invariant_versions_never_fall(given: &mut BTreeMap<NodeId, u64>, node: &NodeId, assignment: &Assignment) {
    let last = given.entry(node.clone()).or_default();
    assert!(assignment.version >= *last, "{node}: {} after {last}", assignment.version);
    *last = assignment.version;
}

fn invariant_completes_when_all_are_healthy(world: &World) {
    assert!(matches!(world.rollout.outcome(), Some(Outcome::Completed { .. })), "{:#?}", world.rollout.view());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// R119, design §8 (kill -9 of anything): whatever is lost, doubled, delayed, and whenever the coordinator dies.
    #[test]
    fn the_invariants_hold_under_any_interleaving(
        nodes in 1_usize..8,
        rings in prop::collection::vec(0_usize..4, 1..8),
        broken in prop::collection::vec(any::<prop::sample::Index>(), 0..2),
        ops in prop::collection::vec(op(), 0..120),
    ) {
        let mut world = World::new(nodes, &rings);
        for index in broken {
            world.break_node(index.index(nodes));
        }
        for op in ops {
            world.perform(op);
        }
        // From here on the network is kind. The rollout ends, one way or another.
        world.crash();
        world.run_to_end(false);
        invariant_rings_pass_confirmed(&world.log);
    }

    /// With healthy nodes and crashes between all steps it completes, and everyone runs the release.
    #[test]
    fn a_healthy_fleet_completes(nodes in 1_usize..8, rings in prop::collection::vec(0_usize..4, 1..8), crash: bool) {
        let mut world = World::new(nodes, &rings);
        world.run_to_end(crash);
        invariant_completes_when_all_are_healthy(&world);
        prop_assert!(world.devices.values().all(|device| device.running == Some(digest("new"))));
        invariant_rings_pass_confirmed(&world.log);
    }

    /// With one broken node its ring, and only that, runs the previous release again.
    #[test]
    fn a_broken_node_costs_its_ring(nodes in 1_usize..8, rings in prop::collection::vec(0_usize..4, 1..8), broken: prop::sample::Index, crash: bool) {
        let mut world = World::new(nodes, &rings);
        let broken = broken.index(nodes);
        world.break_node(broken);
        let bad = world.devices[&node(&format!("n{broken}"))].ring;
        world.run_to_end(crash);
        prop_assert_eq!(world.rollout.outcome(), Some(&Outcome::RolledBack { ring: ring(RINGS[bad]) }));
        for device in world.devices.values() {
            let expected = if device.ring < bad { "new" } else { "old" };
            prop_assert_eq!(device.running, Some(digest(expected)));
        }
    }
}

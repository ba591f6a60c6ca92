//! A device that is switched off at any moment, and answers late, twice, or never.

use std::time::Duration;

use proptest::{
    prelude::{Just, ProptestConfig, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest},
    strategy::Strategy,
};

use super::super::{state::Phase, *};
use crate::{
    digest::Digest,
    fault::Fault,
    machine::{Cx, Decision, Machine, Secrets},
    release::{ReleaseRef, Signatures},
    rollout::{Assignment, Health, Refusal, Step},
    time::Timestamp,
};

struct NoSecrets;

impl Secrets for NoSecrets {
    fn fill(&mut self, _bytes: &mut [u8]) {
        panic!("slots draw no secrets");
    }
}

pub(super) fn policy() -> Policy {
    let millis = Duration::from_millis;
    Policy { download: millis(1000), step: millis(100), window: millis(100), restarts: 2, reserve: 0 }
}

pub(super) fn release(name: &str) -> ReleaseRef {
    ReleaseRef {
        release: name.parse().unwrap(),
        bundle: Digest::of(name.as_bytes()),
        bundle_bytes: 100,
        unpacked_bytes: 200,
        manifest: Digest::of(format!("manifest of {name}").as_bytes()),
        manifest_bytes: 10,
        signatures: Signatures::default(),
        class: "x86_64".parse().unwrap(),
        min_runtime: "1.20.0".parse().unwrap(),
    }
}

pub(super) fn device() -> Device {
    Device { class: "x86_64".parse().unwrap(), runtime: Some("1.23.0".parse().unwrap()), free_bytes: 1 << 30 }
}

fn decide(slots: &Slots, now: u64, input: Input) -> Result<Decision<Event, Effect>, Fault> {
    slots.decide(&mut Cx { now: Timestamp::from_millis(now), secrets: &mut NoSecrets }, input)
}

pub(super) fn refused(slots: &Slots, input: Input) -> Fault {
    decide(slots, 0, input).unwrap_err()
}

fn fold(slots: &mut Slots, decision: Decision<Event, Effect>) -> Vec<Effect> {
    *slots = decision.events.iter().fold(slots.clone(), Slots::apply);
    decision.effects
}

pub(super) fn step(slots: &mut Slots, now: u64, input: Input) -> Vec<Effect> {
    let decision = decide(slots, now, input).unwrap();
    fold(slots, decision)
}

pub(super) fn restart(slots: &mut Slots, now: u64) -> Vec<Effect> {
    let decision = slots.recover(&mut Cx { now: Timestamp::from_millis(now), secrets: &mut NoSecrets });
    fold(slots, decision)
}

/// A node that serves `name` by assignment 1.
pub(super) fn settled(name: &str) -> Slots {
    let at = Timestamp::default();
    let assignment = Assignment { version: 1, release: Some(release(name)) };
    let passed = [Step::Preflight, Step::Download, Step::Verify, Step::Stage, Step::Smoke].map(|step| Event::Passed { step, at });
    let mut events = vec![Event::Assigned { assignment, at }];
    events.extend(passed);
    events.extend([Event::Exchanged { at }, Event::Probed, Event::Committed]);
    Slots::replay(policy(), &events)
}

pub(super) fn every_event() -> Vec<Event> {
    let at = Timestamp::from_millis(5);
    let why = || "why".to_owned();
    vec![
        Event::Assigned { assignment: Assignment { version: 1, release: Some(release("a")) }, at },
        Event::Passed { step: Step::Stage, at },
        Event::Exchanged { at },
        Event::Probed,
        Event::Restarted { at },
        Event::Committed,
        Event::Refused { why: Refusal::Space { needs: 2, has: 1 } },
        Event::Reverting { verdict: Some(Verdict::FellBack { why: why() }), at },
        Event::Reverting { verdict: Some(Verdict::Refused { why: Refusal::Timeout { step: Step::Exchange } }), at },
        Event::Reverting { verdict: None, at },
        Event::Reverted { at },
        Event::Withdrawn,
        Event::Ailing { why: why() },
        Event::Recovered,
        Event::Demoted { why: why(), at },
        Event::Retried { at },
    ]
}

/// The node's shell and disk: what is on the disk, what answers, what was asked for and is not done yet.
struct World {
    slots: Slots,
    log: Vec<Event>,
    now: u64,
    version: u64,
    /// What truly answers; changes when an exchange is carried out, whether or not the machine hears of it.
    live: Option<Digest>,
    disk: Vec<Digest>,
    /// In order; the first one is being carried out.
    queue: Vec<Effect>,
    /// Releases that fail their probes.
    bad: Vec<Digest>,
    /// Whether the node was ordered to serve nothing since its last commit.
    withdrawn: bool,
}

#[derive(Clone, Debug)]
enum Op {
    /// The next effect is carried out and answered; or fails; or its answer is lost.
    Work(Outcome),
    Order(Option<usize>),
    Stale,
    Probe,
    Pass(u64),
    Crash,
    ServerDies,
    Repeat(prop::sample::Index),
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Done,
    Fails,
    Lost,
}

const NAMES: [&str; 4] = ["a", "b", "c", "bad"];

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        40 => Just(Op::Work(Outcome::Done)),
        3 => Just(Op::Work(Outcome::Fails)),
        3 => Just(Op::Work(Outcome::Lost)),
        5 => prop::option::weighted(0.9, 0..NAMES.len()).prop_map(Op::Order),
        1 => Just(Op::Stale),
        10 => Just(Op::Probe),
        8 => (1_u64..150).prop_map(Op::Pass),
        4 => Just(Op::Crash),
        1 => Just(Op::ServerDies),
        3 => any::<prop::sample::Index>().prop_map(Op::Repeat),
    ]
}

impl World {
    fn new() -> Self {
        Self {
            slots: Slots::new(policy()),
            log: Vec::new(),
            now: 0,
            version: 0,
            live: None,
            disk: Vec::new(),
            queue: Vec::new(),
            bad: vec![release("bad").bundle],
            withdrawn: true,
        }
    }

    fn input(&mut self, input: Input) {
        if let Ok(decision) = decide(&self.slots, self.now, input) {
            self.commit(decision);
        }
    }

    fn commit(&mut self, decision: Decision<Event, Effect>) {
        for event in decision.events {
            let before = self.slots.clone();
            self.slots = self.slots.clone().apply(&event);
            match event {
                Event::Committed => self.withdrawn = false,
                Event::Withdrawn => self.withdrawn = true,
                _ => {}
            }
            invariant_versions_never_fall(&before, &self.slots);
            invariant_never_without_last_known_good(self);
            invariant_committed_only_after_a_good_probe(&before, &event, &self.log);
            self.log.push(event);
        }
        self.queue.extend(decision.effects);
    }

    /// Carries out the next effect. All but reports and watches are answered.
    fn work(&mut self, outcome: Outcome) {
        if self.queue.is_empty() {
            return;
        }
        let effect = self.queue.remove(0);
        let fails = matches!(outcome, Outcome::Fails);
        let answer = match effect {
            Effect::Report(_) | Effect::Watch { .. } => return,
            Effect::Prune { keep } => {
                self.disk.retain(|bundle| keep.contains(bundle));
                invariant_what_serves_stays_on_disk(self);
                return;
            }
            Effect::Preflight { job } if fails => Input::Failed { job, step: Step::Preflight, why: "no answer".into() },
            Effect::Preflight { job } => Input::Inspected { job, device: device() },
            Effect::Download { job, .. } if fails => Input::Failed { job, step: Step::Download, why: "disk full".into() },
            Effect::Download { job, .. } => Input::Passed { job, step: Step::Download },
            Effect::Verify { job, .. } if fails => Input::Failed { job, step: Step::Verify, why: "flipped byte".into() },
            Effect::Verify { job, .. } => Input::Passed { job, step: Step::Verify },
            Effect::Stage { job, .. } if fails => Input::Failed { job, step: Step::Stage, why: "disk full".into() },
            Effect::Stage { job, release } => {
                if !self.disk.contains(&release.bundle) {
                    self.disk.push(release.bundle);
                }
                Input::Passed { job, step: Step::Stage }
            }
            Effect::SmokeTest { job, .. } if fails => Input::Failed { job, step: Step::Smoke, why: "other outputs".into() },
            Effect::SmokeTest { job, release } => {
                assert!(self.disk.contains(&release.bundle), "a slot is tried that is not there");
                Input::Passed { job, step: Step::Smoke }
            }
            Effect::Exchange { job, .. } if fails => Input::Failed { job, step: Step::Exchange, why: "will not load".into() },
            Effect::Exchange { job, to } => {
                let to = to.map(|release| release.bundle);
                assert!(to.is_none_or(|to| self.disk.contains(&to)), "a slot is exchanged in that is not there");
                self.live = to;
                Input::Exchanged { job, to }
            }
        };
        if !matches!(outcome, Outcome::Lost) {
            self.input(answer);
        }
    }

    fn order(&mut self, name: Option<usize>) {
        self.version += 1;
        self.input(Input::Assigned(Assignment { version: self.version, release: name.map(|name| release(NAMES[name])) }));
    }

    fn probe(&mut self) {
        let Some(running) = self.live else { return };
        let input = if self.bad.contains(&running) { Input::Unhealthy { running, why: "bad".into() } } else { Input::Healthy { running } };
        self.input(input);
    }

    /// kill -9: what was asked for is forgotten, the log and the disk stay.
    fn crash(&mut self) {
        self.queue.clear();
        let replayed = Slots::replay(policy(), &self.log);
        assert_eq!(replayed, self.slots, "the log tells everything");
        let decision = replayed.recover(&mut Cx { now: Timestamp::from_millis(self.now), secrets: &mut NoSecrets });
        self.commit(decision);
    }

    fn perform(&mut self, op: Op) {
        match op {
            Op::Work(outcome) => self.work(outcome),
            Op::Order(name) => self.order(name),
            Op::Stale => {
                let old = self.version.saturating_sub(1);
                let before = self.slots.clone();
                self.input(Input::Assigned(Assignment { version: old, release: Some(release("c")) }));
                if old < before.seen {
                    assert_eq!(self.slots, before, "an old order changes nothing");
                }
            }
            Op::Probe => self.probe(),
            Op::Pass(span) => {
                self.now += span;
                self.input(Input::Tick);
            }
            Op::Crash => self.crash(),
            Op::ServerDies => self.input(Input::Restarted),
            Op::Repeat(index) => {
                // An answer said again, late: it must not be taken for the current job's.
                let job = index.index(usize::try_from(self.version).unwrap() + 1) as u64;
                if job != self.slots.job {
                    for step in [Step::Preflight, Step::Download, Step::Verify, Step::Stage, Step::Smoke, Step::Exchange] {
                        let before = self.slots.clone();
                        self.input(Input::Passed { job, step });
                        self.input(Input::Failed { job, step, why: "late".into() });
                        self.input(Input::Exchanged { job, to: self.live });
                        assert_eq!(self.slots, before);
                    }
                }
            }
        }
    }

    /// From here on everything works, and time passes.
    fn settle(&mut self) {
        self.crash();
        for _ in 0..300 {
            while !self.queue.is_empty() {
                self.work(Outcome::Done);
            }
            self.probe();
            self.now += 50;
            self.input(Input::Tick);
        }
        assert!(self.queue.is_empty());
    }
}

fn invariant_versions_never_fall(before: &Slots, after: &Slots) {
    assert!(after.seen >= before.seen && after.job >= before.job);
}

/// Once something was committed, something stays committed until the node is ordered to serve nothing.
fn invariant_never_without_last_known_good(world: &World) {
    assert_eq!(world.slots.committed().is_none(), world.withdrawn, "{:?}", world.slots);
}

fn invariant_committed_only_after_a_good_probe(before: &Slots, event: &Event, log: &[Event]) {
    if *event == Event::Committed {
        assert!(matches!(before.phase, Phase::Trial { .. }));
        let since = log.iter().rposition(|event| matches!(event, Event::Exchanged { .. } | Event::Restarted { .. })).unwrap();
        assert!(log[since..].contains(&Event::Probed) || before.deadline().is_some());
        assert_eq!(before.live, before.target.as_ref().map(|release| release.bundle));
    }
}

fn invariant_what_serves_stays_on_disk(world: &World) {
    let kept = [world.slots.committed(), world.slots.last_known_good()];
    for release in kept.into_iter().flatten() {
        assert!(world.disk.contains(&release.bundle), "{:?} is gone", release.release);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// R108, R41, design §8: whatever fails, is late or lost, and whenever the power is cut, the node ends where it was
    /// told to be, or at its last known good, and says which.
    #[test]
    fn the_invariants_hold_under_any_interleaving(ops in prop::collection::vec(op(), 0..200)) {
        let mut world = World::new();
        for op in ops {
            world.perform(op);
        }
        world.settle();
        let status = world.slots.status();
        prop_assert!(matches!(world.slots.phase, Phase::Settled(_)), "{:?}", world.slots);
        prop_assert_eq!(status.running, world.live, "what is reported is what answers");
        prop_assert_eq!(world.live, world.slots.committed().map(|release| release.bundle));
        if status.health == Health::Healthy {
            prop_assert_eq!(world.live, world.slots.target.as_ref().map(|release| release.bundle));
        }
        invariant_what_serves_stays_on_disk(&world);
    }

    /// Cut the power once after any number of steps: a good release still takes its place, a bad one never stays.
    #[test]
    fn one_power_cut_costs_nothing(cut in 0_usize..40, bad: bool) {
        let mut world = World::new();
        world.order(Some(0));
        world.settle();
        prop_assert_eq!(world.live, Some(release("a").bundle));
        world.order(Some(if bad { 3 } else { 1 }));
        for count in 0..80 {
            if count == cut {
                world.crash();
            }
            world.work(Outcome::Done);
            world.probe();
            world.now += 10;
            world.input(Input::Tick);
        }
        world.settle();
        let expected = if bad { "a" } else { "b" };
        prop_assert_eq!(world.live, Some(release(expected).bundle));
        prop_assert_eq!(matches!(world.slots.status().health, Health::Unhealthy { .. }), bad);
    }
}

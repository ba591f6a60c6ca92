//! The slots: their rules one by one, then as invariants under thousands of crashes and late answers.

mod world;

use std::time::Duration;

use self::world::{device, release, settled, step};
use super::{state::Phase, *};
use crate::{
    fault::Fault,
    rollout::{Assignment, Health, NodeStatus, Refusal, Step},
};

fn order(version: u64, name: &str) -> Input {
    Input::Assigned(Assignment { version, release: Some(release(name)) })
}

fn withdraw(version: u64) -> Input {
    Input::Assigned(Assignment { version, release: None })
}

fn digest(name: &str) -> crate::Digest {
    release(name).bundle
}

/// Up to `until`, with every step succeeding.
fn advance(slots: &mut Slots, job: u64, name: &str, until: Step) {
    if until > Step::Preflight {
        step(slots, 1, Input::Inspected { job, device: device() });
    }
    for done in [Step::Download, Step::Verify, Step::Stage, Step::Smoke] {
        if until > done {
            step(slots, 1, Input::Passed { job, step: done });
        }
    }
    if until > Step::Exchange {
        step(slots, 1, Input::Exchanged { job, to: Some(digest(name)) });
    }
}

fn health(slots: &Slots) -> Health {
    slots.status().health
}

fn reports(effects: &[Effect]) -> Vec<NodeStatus> {
    effects.iter().filter_map(|effect| if let Effect::Report(status) = effect { Some(status.clone()) } else { None }).collect()
}

/// The whole way, effect by effect.
#[test]
fn a_release_takes_its_place() {
    let mut slots = settled("a");
    let release = release("b");
    let last = |effects: Vec<Effect>| effects.last().cloned();
    assert_eq!(last(step(&mut slots, 0, order(2, "b"))), Some(Effect::Preflight { job: 2 }));
    assert_eq!(
        last(step(&mut slots, 0, Input::Inspected { job: 2, device: device() })),
        Some(Effect::Download { job: 2, release: release.clone() })
    );
    let passed = |step| Input::Passed { job: 2, step };
    assert_eq!(last(step(&mut slots, 0, passed(Step::Download))), Some(Effect::Verify { job: 2, release: release.clone() }));
    assert_eq!(last(step(&mut slots, 0, passed(Step::Verify))), Some(Effect::Stage { job: 2, release: release.clone() }));
    assert_eq!(last(step(&mut slots, 0, passed(Step::Stage))), Some(Effect::SmokeTest { job: 2, release: release.clone() }));
    assert_eq!(last(step(&mut slots, 0, passed(Step::Smoke))), Some(Effect::Exchange { job: 2, to: Some(release) }));
    assert_eq!(slots.status().running, Some(digest("a")));
    step(&mut slots, 10, Input::Exchanged { job: 2, to: Some(digest("b")) });
    assert_eq!((slots.status().running, health(&slots)), (Some(digest("b")), Health::Working { step: Step::Trial }));
    assert_eq!(slots.committed().unwrap().bundle, digest("a"), "not before its trial is over");
    step(&mut slots, 20, Input::Healthy { running: digest("b") });
    assert_eq!(step(&mut slots, 109, Input::Tick), []);
    let effects = step(&mut slots, 110, Input::Tick);
    assert_eq!(reports(&effects), [NodeStatus { assignment: 2, running: Some(digest("b")), health: Health::Healthy }]);
    let mut keep = vec![digest("a"), digest("b")];
    keep.sort_unstable();
    assert_eq!(last(effects), Some(Effect::Prune { keep }), "the last known good stays");
    assert_eq!(slots.last_known_good().unwrap().bundle, digest("a"));
}

/// R111, R46, R63: refused before a byte is fetched, under a name.
#[test]
fn preflight_refuses_by_name() {
    let mut other = device();
    other.class = "aarch64".parse().unwrap();
    let mut old = device();
    old.runtime = Some("1.19.9".parse().unwrap());
    let mut none = device();
    none.runtime = None;
    let mut full = device();
    full.free_bytes = 309;
    for (device, name) in [(other, "device_class"), (old, "runtime"), (none, "runtime"), (full, "space")] {
        let mut slots = settled("a");
        step(&mut slots, 0, order(2, "b"));
        let effects = step(&mut slots, 0, Input::Inspected { job: 2, device });
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Download { .. })));
        let Health::Refused { why } = health(&slots) else { panic!("{:?}", slots.status()) };
        assert_eq!(serde_json::to_value(&why).unwrap()["refusal"], name, "{why}");
        assert_eq!(slots.status().running, Some(digest("a")));
    }
    // What is on the disk already needs no room.
    let mut slots = settled("a");
    advance(&mut slots, 2, "b", Step::Preflight);
    step(&mut slots, 0, order(2, "b"));
    advance(&mut slots, 2, "b", Step::Trial);
    step(&mut slots, 1, Input::Healthy { running: digest("b") });
    step(&mut slots, 1000, Input::Tick);
    step(&mut slots, 1000, order(3, "a"));
    let mut full = device();
    full.free_bytes = 0;
    step(&mut slots, 1000, Input::Inspected { job: 3, device: full });
    assert_eq!(health(&slots), Health::Working { step: Step::Download });
}

/// Before the exchange a failure changes nothing.
#[test]
fn a_failing_step_leaves_everything_as_it_was() {
    for failing in [Step::Preflight, Step::Download, Step::Verify, Step::Stage, Step::Smoke] {
        for late in [false, true] {
            let mut slots = settled("a");
            step(&mut slots, 0, order(2, "b"));
            advance(&mut slots, 2, "b", failing);
            let input = if late { Input::Tick } else { Input::Failed { job: 2, step: failing, why: "flipped byte".into() } };
            let effects = step(&mut slots, 1_000_000, input);
            assert!(!effects.iter().any(|effect| matches!(effect, Effect::Exchange { .. })));
            let Health::Refused { why } = health(&slots) else { panic!("{failing}: {:?}", slots.status()) };
            assert_eq!(
                why,
                if late { Refusal::Timeout { step: failing } } else { Refusal::Failed { step: failing, why: "flipped byte".into() } }
            );
            assert_eq!((slots.running(), slots.committed().unwrap().bundle), (Some(digest("a")), digest("a")));
            assert_eq!(effects.last(), Some(&Effect::Prune { keep: vec![digest("a")] }), "nothing of it stays");
        }
    }
}

/// From the exchange on, the last known good is let back.
#[test]
fn a_failing_newcomer_falls_back() {
    let unhealthy = Input::Unhealthy { running: digest("b"), why: "wrong answers".into() };
    for input in [unhealthy, Input::Tick, Input::Failed { job: 2, step: Step::Exchange, why: "will not load".into() }] {
        let mut slots = settled("a");
        step(&mut slots, 0, order(2, "b"));
        advance(&mut slots, 2, "b", Step::Trial);
        assert_eq!(step(&mut slots, 500, input).last(), Some(&Effect::Exchange { job: 2, to: Some(release("a")) }));
        assert_eq!(health(&slots), Health::Working { step: Step::Revert });
        step(&mut slots, 501, Input::Exchanged { job: 2, to: Some(digest("b")) });
        assert_eq!(health(&slots), Health::Working { step: Step::Revert }, "an old answer, said twice");
        step(&mut slots, 502, Input::Exchanged { job: 2, to: Some(digest("a")) });
        assert!(matches!(health(&slots), Health::Unhealthy { .. }), "{:?}", slots.status());
        assert_eq!(slots.status().running, Some(digest("a")));
    }
    // The very first release falls back to nothing.
    let mut slots = Slots::new(world::policy());
    step(&mut slots, 0, order(1, "a"));
    advance(&mut slots, 1, "a", Step::Trial);
    assert_eq!(step(&mut slots, 500, Input::Tick).last(), Some(&Effect::Exchange { job: 1, to: None }));
    step(&mut slots, 501, Input::Exchanged { job: 1, to: None });
    assert_eq!((slots.running(), slots.committed()), (None, None));
}

/// An exchange that fails may have half happened in the server: the committed release is loaded again.
#[test]
fn a_failing_exchange_goes_back_too() {
    for input in [Input::Failed { job: 2, step: Step::Exchange, why: "will not load".into() }, Input::Tick] {
        let mut slots = settled("a");
        step(&mut slots, 0, order(2, "b"));
        advance(&mut slots, 2, "b", Step::Exchange);
        assert_eq!(step(&mut slots, 5000, input).last(), Some(&Effect::Exchange { job: 2, to: Some(release("a")) }));
        assert_eq!(step(&mut slots, 5099, Input::Tick), []);
        assert_eq!(step(&mut slots, 5100, Input::Tick).last(), Some(&Effect::Exchange { job: 2, to: Some(release("a")) }), "tried again");
        step(&mut slots, 5101, Input::Exchanged { job: 2, to: Some(digest("a")) });
        assert!(matches!(health(&slots), Health::Refused { .. }));
    }
}

#[test]
fn orders_only_grow() {
    let mut slots = settled("a");
    let stale = world::refused(&slots, order(0, "b"));
    assert!(matches!(stale, Fault::Expired(_)), "{stale}");
    assert!(matches!(world::refused(&slots, order(1, "b")), Fault::PeerMisbehaved(_)), "one version, two releases");
    // The same again, and a newer order for what runs already: reported at once.
    assert_eq!(reports(&step(&mut slots, 0, order(1, "a"))).len(), 1);
    let effects = step(&mut slots, 0, order(7, "a"));
    assert_eq!(reports(&effects), [NodeStatus { assignment: 7, running: Some(digest("a")), health: Health::Healthy }]);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Exchange { .. } | Effect::Preflight { .. })));
    assert_eq!(reports(&step(&mut slots, 0, Input::Reconnected)).len(), 1);
}

/// A newer order while one is carried out, in each state.
#[test]
fn a_newer_order_supersedes() {
    for at in [Step::Preflight, Step::Download, Step::Smoke, Step::Exchange, Step::Trial] {
        let begun = || {
            let mut slots = settled("a");
            step(&mut slots, 0, order(2, "b"));
            advance(&mut slots, 2, "b", at);
            slots
        };
        // The same release again: the work goes on.
        let mut slots = begun();
        let phase = slots.phase.clone();
        step(&mut slots, 2, order(3, "b"));
        assert_eq!((&slots.phase, slots.status().assignment), (&phase, 3));
        // Back to what is committed.
        let mut slots = begun();
        step(&mut slots, 2, order(3, "a"));
        if at >= Step::Exchange {
            step(&mut slots, 3, Input::Exchanged { job: 2, to: Some(digest("b")) });
            assert_eq!(health(&slots), Health::Working { step: Step::Revert });
            step(&mut slots, 3, Input::Exchanged { job: 3, to: Some(digest("a")) });
        }
        assert_eq!(slots.status(), NodeStatus { assignment: 3, running: Some(digest("a")), health: Health::Healthy }, "{at}");
        // Another one.
        let mut slots = begun();
        step(&mut slots, 2, order(3, "c"));
        if at >= Step::Exchange {
            step(&mut slots, 3, Input::Exchanged { job: 3, to: Some(digest("a")) });
        }
        assert_eq!(health(&slots), Health::Working { step: Step::Preflight }, "{at}");
        assert_eq!(step(&mut slots, 4, Input::Passed { job: 2, step: Step::Download }), [], "an answer to the old job");
        assert_eq!(step(&mut slots, 4, Input::Failed { job: 2, step: Step::Preflight, why: String::new() }), []);
        // Nothing at all.
        let mut slots = begun();
        step(&mut slots, 2, withdraw(3));
        if at >= Step::Exchange {
            step(&mut slots, 3, Input::Exchanged { job: 3, to: Some(digest("a")) });
        }
        step(&mut slots, 3, Input::Exchanged { job: 3, to: None });
        assert_eq!(slots.status(), NodeStatus { assignment: 3, running: None, health: Health::Healthy }, "{at}");
    }
}

/// R109 and the restart budget: a newcomer that brings the node down again and again is given up.
#[test]
fn restarts_are_counted_where_the_newcomer_runs() {
    for at in [Step::Smoke, Step::Exchange, Step::Trial] {
        let mut slots = settled("a");
        step(&mut slots, 0, order(2, "b"));
        advance(&mut slots, 2, "b", at);
        for _ in 0..2 {
            let effects = world::restart(&mut slots, 10);
            assert_eq!(health(&slots), Health::Working { step: at });
            assert!(!effects.is_empty());
        }
        let effects = world::restart(&mut slots, 10);
        if at == Step::Smoke {
            assert!(matches!(health(&slots), Health::Refused { why: Refusal::Restarts { step: Step::Smoke, restarts: 3 } }));
            assert_eq!(effects.first(), Some(&Effect::Exchange { job: 2, to: Some(release("a")) }), "the committed one serves");
        } else {
            assert_eq!(effects.last(), Some(&Effect::Exchange { job: 2, to: Some(release("a")) }));
            assert_eq!(health(&slots), Health::Working { step: Step::Revert });
        }
    }
    // A long download over many power cuts is no one's fault.
    let mut slots = settled("a");
    step(&mut slots, 0, order(2, "b"));
    advance(&mut slots, 2, "b", Step::Download);
    for _ in 0..20 {
        world::restart(&mut slots, 10);
    }
    assert_eq!(health(&slots), Health::Working { step: Step::Download });
    // A serving process that dies during the trial counts as well.
    let mut slots = settled("a");
    step(&mut slots, 0, order(2, "b"));
    advance(&mut slots, 2, "b", Step::Trial);
    for _ in 0..3 {
        step(&mut slots, 10, Input::Restarted);
    }
    assert_eq!(health(&slots), Health::Working { step: Step::Revert });
}

/// R36: the committed release is damaged on the disk; the one before takes its place by itself.
#[test]
fn a_damaged_committed_release_gives_way() {
    let mut slots = settled("a");
    step(&mut slots, 0, order(2, "b"));
    advance(&mut slots, 2, "b", Step::Trial);
    step(&mut slots, 5, Input::Healthy { running: digest("b") });
    step(&mut slots, 1000, Input::Tick);
    let effects = world::restart(&mut slots, 2000);
    assert_eq!(effects.first(), Some(&Effect::Exchange { job: 2, to: Some(release("b")) }));
    let damaged = || Input::Failed { job: 2, step: Step::Exchange, why: "checksum".into() };
    assert_eq!(step(&mut slots, 2001, damaged()).last(), Some(&Effect::Exchange { job: 2, to: Some(release("a")) }));
    step(&mut slots, 2002, Input::Exchanged { job: 2, to: Some(digest("a")) });
    assert!(
        matches!(slots.status(), NodeStatus { running: Some(running), health: Health::Unhealthy { .. }, .. } if running == digest("a"))
    );
    // With nothing left to give way to, it says so and stays.
    step(&mut slots, 2003, Input::Failed { job: 2, step: Step::Exchange, why: "checksum".into() });
    assert!(matches!(slots.phase, Phase::Settled(_)));
    assert_eq!(slots.committed().unwrap().bundle, digest("a"));
}

#[test]
fn a_committed_release_that_ails_is_reported_and_kept() {
    let mut slots = settled("a");
    let ill = || Input::Unhealthy { running: digest("a"), why: "slow".into() };
    assert_eq!(reports(&step(&mut slots, 0, ill()))[0].health, Health::Unhealthy { why: "slow".into() });
    assert_eq!(step(&mut slots, 0, ill()), [], "once");
    assert_eq!(step(&mut slots, 0, Input::Healthy { running: digest("b") }), [], "not what runs");
    assert_eq!(reports(&step(&mut slots, 0, Input::Healthy { running: digest("a") }))[0].health, Health::Healthy);
    assert_eq!(slots.running(), Some(digest("a")));
}

#[test]
fn events_survive_json() {
    let mut kinds = std::collections::BTreeSet::new();
    for event in world::every_event() {
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
        kinds.insert(event.kind());
    }
    assert_eq!(kinds.len(), Event::KINDS.len());
    assert!(Event::KINDS.iter().all(|kind| kinds.contains(kind)));
    assert_eq!(Policy::default().window, Duration::from_secs(30));
}

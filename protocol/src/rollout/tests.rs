//! The rollout: its rules one by one, then as invariants under thousands of interleavings.

mod world;

use std::time::Duration;

use self::world::{World, class, created, digest, node, ring, step, view};
use super::*;
use crate::{
    fault::Fault,
    machine::Machine,
    release::manifest::Strategy,
    rollout::state::{MemberState, Phase},
};

fn healthy(version: u64, running: &str) -> NodeStatus {
    NodeStatus { assignment: version, running: Some(digest(running)), health: Health::Healthy }
}

fn sick(version: u64) -> NodeStatus {
    NodeStatus { assignment: version, running: Some(digest("old")), health: Health::Unhealthy { why: "no answer".into() } }
}

fn report(name: &str, status: NodeStatus) -> Input {
    Input::Report { node: node(name), status }
}

fn orders(effects: &[Effect]) -> Vec<(String, u64, Option<String>)> {
    let order = |effect: &Effect| match effect {
        Effect::Assign { node, assignment } => {
            Some((node.to_string(), assignment.version, assignment.release.as_ref().map(|release| release.release.to_string())))
        }
        Effect::Roster => None,
    };
    effects.iter().filter_map(order).collect()
}

fn order(node: &str, version: u64, release: Option<&str>) -> (String, u64, Option<String>) {
    (node.into(), version, release.map(Into::into))
}

/// Started, with `a` in lab, `b` and `c` in canary, `d` unlabelled.
fn started() -> Rollout {
    let mut rollout = Rollout::create(created(Some("old"))).unwrap();
    step(&mut rollout, 0, Input::Start);
    step(&mut rollout, 0, Input::Roster(fleet()));
    rollout
}

fn fleet() -> Vec<NodeView> {
    vec![view("a", Some("lab")), view("b", Some("canary")), view("c", Some("canary")), view("d", None)]
}

/// R112: ring after ring, each only when the whole last one has been healthy on the running digest for the soak time.
#[test]
fn rings_open_one_after_another() {
    let mut rollout = Rollout::create(created(Some("old"))).unwrap();
    assert_eq!(step(&mut rollout, 0, Input::Roster(fleet())), [], "nothing before the start");
    assert_eq!(step(&mut rollout, 0, Input::Start), [Effect::Roster]);
    assert_eq!(step(&mut rollout, 0, Input::Start), [], "twice is once");
    assert_eq!(orders(&step(&mut rollout, 0, Input::Roster(fleet()))), [order("a", 1, Some("new"))]);
    assert_eq!(step(&mut rollout, 1, report("a", healthy(1, "new"))), []);
    assert_eq!(rollout.deadline().unwrap().millis(), 1 + 100, "soak");
    assert_eq!(step(&mut rollout, 100, Input::Tick), []);
    assert_eq!(step(&mut rollout, 101, Input::Tick), [Effect::Roster]);
    assert_eq!(orders(&step(&mut rollout, 102, Input::Roster(fleet()))), [order("b", 1, Some("new")), order("c", 1, Some("new"))]);
    step(&mut rollout, 110, report("b", healthy(1, "new")));
    assert_eq!(step(&mut rollout, 400, Input::Tick), [], "c is missing");
    step(&mut rollout, 400, report("c", healthy(1, "new")));
    assert_eq!(step(&mut rollout, 499, Input::Tick), [], "the soak counts from the last");
    step(&mut rollout, 500, Input::Tick);
    // The region ring has no nodes: recorded, and the next one opens at once. A node without a label is in the last ring.
    assert_eq!(orders(&step(&mut rollout, 501, Input::Roster(fleet()))), [order("d", 1, Some("new"))]);
    step(&mut rollout, 502, report("d", healthy(1, "new")));
    step(&mut rollout, 602, Input::Tick);
    assert_eq!(rollout.outcome(), Some(&Outcome::Completed { nodes: 4 }));
    let states: Vec<String> = rollout.view().rings.into_iter().map(|ring| ring.state).collect();
    assert_eq!(states, ["passed", "passed", "skipped", "passed"]);
    assert!(rollout.view().rings[2].why.contains("no-op"));
}

/// Health counts only for the running digest of this very assignment.
#[test]
fn other_reports_never_confirm() {
    let mut rollout = started();
    for status in
        [healthy(0, "new"), NodeStatus { assignment: 1, running: Some(digest("old")), health: Health::Working { step: Step::Download } }]
    {
        assert_eq!(step(&mut rollout, 1, report("a", status)), []);
    }
    assert_eq!(step(&mut rollout, 1, report("stranger", healthy(1, "new"))), []);
    assert_eq!(step(&mut rollout, 1, report("b", healthy(1, "new"))), []);
    assert_eq!(rollout.confirmed(), 0);
    assert_eq!(orders(&step(&mut rollout, 2, report("a", healthy(1, "old")))), [order("a", 2, Some("old"))]);
    assert!(rollout.view().rings[0].why.contains("instead of"), "{:?}", rollout.view());
}

/// R119: a failing ring halts and goes back; the others keep what they have.
#[test]
fn only_the_failing_ring_goes_back() {
    let mut rollout = started();
    step(&mut rollout, 1, report("a", healthy(1, "new")));
    step(&mut rollout, 101, Input::Tick);
    step(&mut rollout, 102, Input::Roster(fleet()));
    step(&mut rollout, 103, report("b", healthy(1, "new")));
    assert_eq!(orders(&step(&mut rollout, 104, report("c", sick(1)))), [order("b", 2, Some("old")), order("c", 2, Some("old"))]);
    assert_eq!(step(&mut rollout, 105, report("c", healthy(1, "new"))), [], "too late");
    step(&mut rollout, 106, report("c", healthy(2, "old")));
    assert_eq!(rollout.outcome(), None, "b is still on its way");
    step(&mut rollout, 107, report("b", healthy(2, "new")));
    assert_eq!(rollout.outcome(), None, "b still runs the bad release");
    step(&mut rollout, 108, report("b", healthy(2, "old")));
    assert_eq!(rollout.outcome(), Some(&Outcome::RolledBack { ring: ring("canary") }));
    assert_eq!(step(&mut rollout, 109, Input::Roster(fleet())), [], "nobody else gets it");
    let why = &rollout.view().rings[1];
    assert_eq!(why.state, "reverted");
}

#[test]
fn silence_is_failure() {
    let mut rollout = started();
    assert_eq!(rollout.deadline().unwrap().millis(), 1000);
    assert_eq!(step(&mut rollout, 999, Input::Tick), []);
    assert_eq!(orders(&step(&mut rollout, 1000, Input::Tick)), [order("a", 2, Some("old"))]);
    assert!(rollout.view().rings[0].why.contains("no confirmation within 1s"), "{:?}", rollout.view());
    assert_eq!(step(&mut rollout, 1999, Input::Tick), []);
    step(&mut rollout, 2000, Input::Tick);
    assert_eq!(rollout.outcome(), Some(&Outcome::HaltedNotConverged { ring: ring("lab"), missing: vec![node("a")] }));
    // It is over, but what the node says later is still heard.
    step(&mut rollout, 3000, report("a", healthy(2, "old")));
    assert_eq!(rollout.members[&node("a")].state, MemberState::Reverted);
}

/// A failure during the soak halts, too; so does a node that runs something else all of a sudden.
#[test]
fn the_soak_is_watched() {
    for status in [sick(1), healthy(1, "old")] {
        let mut rollout = started();
        step(&mut rollout, 1, report("a", healthy(1, "new")));
        step(&mut rollout, 50, report("a", status));
        assert_eq!(rollout.phase, Phase::Reverting { ring: 0 });
    }
}

#[test]
fn the_first_release_goes_back_to_nothing() {
    let mut rollout = Rollout::create(created(None)).unwrap();
    step(&mut rollout, 0, Input::Start);
    step(&mut rollout, 0, Input::Roster(fleet()));
    let refused = Health::Refused { why: Refusal::Space { needs: 2, has: 1 } };
    let status = NodeStatus { assignment: 1, running: None, health: refused };
    assert_eq!(orders(&step(&mut rollout, 1, report("a", status))), [order("a", 2, None)]);
    step(&mut rollout, 2, report("a", NodeStatus { assignment: 2, running: None, health: Health::Healthy }));
    assert_eq!(rollout.outcome(), Some(&Outcome::RolledBack { ring: ring("lab") }));
}

/// A coordinator restored from an old backup knows less than its nodes: it jumps ahead of them.
#[test]
fn newer_versions_are_overtaken() {
    let mut rollout = started();
    assert_eq!(orders(&step(&mut rollout, 5, report("a", healthy(41, "new")))), [order("a", 42, Some("new"))]);
    assert_eq!(step(&mut rollout, 6, report("a", healthy(41, "new"))), [], "the same report again is old now");
    assert_eq!(rollout.confirmed(), 0);
    step(&mut rollout, 7, report("a", healthy(42, "new")));
    assert_eq!(rollout.confirmed(), 1);
    // Orders start above what any rollout before has given.
    let mut rollout = Rollout::create(created(None)).unwrap();
    step(&mut rollout, 0, Input::Start);
    let views = vec![NodeView { assignment: 7, ..view("a", Some("lab")) }];
    assert_eq!(orders(&step(&mut rollout, 0, Input::Roster(views))), [order("a", 8, Some("new"))]);
}

#[test]
fn latecomers_catch_up_once_their_ring_has_passed() {
    let mut rollout = started();
    let mut later = fleet();
    later.push(view("e", Some("lab")));
    later.push(NodeView { class: "aarch64".parse().unwrap(), ..view("f", Some("lab")) });
    assert_eq!(step(&mut rollout, 1, Input::Roster(later.clone())), [], "the ring is open: its members are fixed");
    step(&mut rollout, 1, report("a", healthy(1, "new")));
    step(&mut rollout, 101, Input::Tick);
    let effects = step(&mut rollout, 102, Input::Roster(later.clone()));
    assert_eq!(orders(&effects), [order("e", 1, Some("new")), order("b", 1, Some("new")), order("c", 1, Some("new"))]);
    assert_eq!(step(&mut rollout, 103, Input::Roster(later)), [], "once");
    // Its failure is on the record and halts nothing: its ring has passed.
    step(&mut rollout, 104, report("e", sick(1)));
    assert_eq!(rollout.phase, Phase::Open { ring: 1 });
    assert!(rollout.view().rings[0].nodes[&node("e")].starts_with("failed"));
    step(&mut rollout, 105, report("e", healthy(1, "new")));
    assert!(rollout.view().rings[0].nodes[&node("e")].starts_with("healthy"));
}

/// R63; and a rollout that reached nobody says so, and gives nobody an untried release later.
#[test]
fn a_rollout_without_nodes_is_a_no_op() {
    let mut rollout = Rollout::create(created(None)).unwrap();
    step(&mut rollout, 0, Input::Start);
    let foreign = vec![NodeView { class: "aarch64".parse().unwrap(), ..view("a", Some("lab")) }];
    assert_eq!(step(&mut rollout, 0, Input::Roster(foreign)), []);
    assert_eq!(rollout.outcome(), Some(&Outcome::Completed { nodes: 0 }));
    assert!(rollout.view().why.starts_with("no-op"));
    assert_eq!(step(&mut rollout, 1, Input::Roster(fleet())), []);
}

#[test]
fn an_operator_stops_it_in_any_state() {
    let abort = || Input::Abort { by: "ann".into() };
    let mut waiting = Rollout::create(created(None)).unwrap();
    step(&mut waiting, 0, abort());
    assert_eq!(waiting.outcome(), Some(&Outcome::Aborted { by: "ann".into() }));
    assert_eq!(step(&mut waiting, 1, Input::Start), []);
    assert_eq!(step(&mut waiting, 1, Input::Roster(fleet())), []);

    let mut open = started();
    assert_eq!(orders(&step(&mut open, 1, abort())), [order("a", 2, Some("old"))]);
    assert_eq!(step(&mut open, 2, abort()), [], "it is going back already");
    step(&mut open, 3, report("a", healthy(2, "old")));
    assert_eq!(open.outcome(), Some(&Outcome::RolledBack { ring: ring("lab") }));
    assert!(matches!(world::refused(&open, abort()), Fault::Misuse(_)));
}

#[test]
fn a_newer_rollout_takes_over() {
    let mut rollout = started();
    let supersede = || Input::Supersede { by: "newer".parse().unwrap() };
    step(&mut rollout, 1, supersede());
    assert_eq!(rollout.outcome(), Some(&Outcome::Superseded { by: "newer".parse().unwrap() }));
    for input in [Input::Tick, Input::Roster(fleet()), report("a", healthy(9, "new")), report("a", sick(1)), supersede()] {
        assert_eq!(step(&mut rollout, 5000, input), []);
    }
    assert_eq!(world::recovered(&rollout, 5000).effects, []);
}

#[test]
fn plans_that_cannot_be_carried_out_are_refused() {
    let refused = |edit: fn(&mut Created)| {
        let mut plan = created(None);
        edit(&mut plan);
        Rollout::create(plan).unwrap_err().to_string()
    };
    assert!(refused(|plan| plan.policy.rings.clear()).contains("rollout.rings"));
    assert!(refused(|plan| plan.policy.rings.push(ring("lab"))).contains("twice"));
    assert!(refused(|plan| plan.policy.strategy = Strategy::All).contains("rollout.strategy"));
    assert!(refused(|plan| plan.policy.health_timeout = Duration::ZERO).contains("health_timeout"));
    assert!(Rollout::replay(&[Event::Started { at: crate::Timestamp::default() }]).is_err());
    assert_eq!(class().as_str(), "x86_64");
}

/// Every event survives the store, under a kind of its own.
#[test]
fn events_survive_json() {
    let mut world = World::new(3, &[0, 1, 3]);
    world.run_to_end(true);
    let mut failing = World::new(3, &[0, 1, 3]);
    failing.break_node(1);
    failing.run_to_end(true);
    for event in world.log.iter().chain(&failing.log) {
        let json = serde_json::to_string(event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), *event);
        assert!(Event::KINDS.contains(&event.kind()) && json.contains(&format!("\"event\":\"{}\"", event.kind())), "{json}");
    }
}

//! Whole runs over the secure sum: the machine, the session and real clients, delivered in random order, with nodes that leave in every
//! stage and coordinators that restart.
//!
//! What must hold: a committed round is the exact mean of its survivors' updates, or nothing was opened; the ledger is charged before
//! anybody is asked to unmask, once a session; at least the minimum is in every sum.
//! Messages may be damaged, and the coordinator may die around a charge: the ledgers over-count, and never under-count.

mod world;

use sapwood_protocol::{
    round::{Decline, Stage},
    run::{Created, Event, Input, Run, RunState},
};

use world::World;

const MASKED: &str = "[model]\nfile = \"m\"\n[train]\nrounds = 3\n[strategy]\nweights = \"uniform\"\n[cohort]\nsize = 6\n\
    [secure_aggregation]\ndropout = 0.2\n[privacy]\nunit = \"none\"\n[deadlines]\nattempts = 50\n[release]\nauto = false\n";

/// R: the sum of those who stay is exact, whoever leaves whenever, and whenever the coordinator dies.
#[test]
fn runs_end_with_exact_means_or_not_at_all() {
    let mut aborted = 0;
    for seed in 0..150 {
        let mut world = World::new(MASKED, 8, seed, if seed % 3 == 0 { 0.0 } else { 0.15 });
        assert_eq!(world.finish(if seed % 2 == 0 { 2 } else { 0 }), RunState::Trained, "seed {seed}: {:?}", world.run.detail());
        assert_eq!(world.run.rounds().len(), 3);
        aborted += world.aborted;
        let again = Run::replay(&[Event::Created(Box::new(world.run.created().clone()))]).unwrap();
        assert_eq!(again.created(), world.run.created());
    }
    assert!(aborted > 50, "too much leaving aborts, and so do restarts: {aborted}");
}

/// The noise is solved once, kept in the first event, and never solved again: what is charged must be what was reserved, whatever version
/// reads the events.
#[test]
fn the_noise_of_a_run_is_kept() {
    let text = MASKED.replace("unit = \"none\"", "unit = \"example\"\nexpected_units = 6");
    let world = World::new(&text, 8, 1, 0.0);
    let mut created = world.run.created().clone();
    let noise = created.noise.as_mut().expect("solved");
    noise.sigma += 1;
    let sigma = noise.sigma;
    let again = Run::replay(&[Event::Created(Box::new(created.clone()))]).unwrap();
    assert_eq!((again.created(), again.plan().unwrap().parameters.sigma), (&created, sigma));
    let solved = Run::create(Created { noise: None, ..created }).unwrap();
    assert_eq!(solved, Run::create(world.run.created().clone()).unwrap());
}

/// Where everybody always leaves, nothing is ever opened, and the run fails by name.
#[test]
fn too_many_who_leave_end_the_run_and_open_nothing() {
    let text = MASKED.replace("attempts = 50", "attempts = 3");
    let mut world = World::new(&text, 6, 9, 1.0);
    assert_eq!(world.finish(0), RunState::Failed);
    assert!(world.run.rounds().is_empty());
    assert!(world.run.detail().unwrap().contains("the sum was given up"), "{:?}", world.run.detail());
}

/// Under a budget each sum is charged before it is opened; what was charged is what the run says it cost.
#[test]
fn each_opened_sum_is_charged_before() {
    let text = MASKED.replace("unit = \"none\"", "unit = \"example\"\nexpected_units = 6\nclip = 0.1");
    for seed in 0..20 {
        let mut world = World::new(&text, 6, seed, 0.1);
        assert_eq!(world.finish(1), RunState::Trained, "seed {seed}: {:?}", world.run.detail());
        assert!(world.charged.len() >= 3, "{:?}", world.charged);
        let (plan, statement) = (world.run.plan().unwrap(), world.run.statement().unwrap());
        assert!(world.charged.len() > 3 || statement.epsilon_coordinator.unwrap() <= plan.epsilon_coordinator, "{statement}");
        assert!(statement.epsilon_outsider < statement.epsilon_coordinator.unwrap());
        let round = &world.run.rounds()[0];
        assert!(round.totals.examples.is_none() && round.totals.loss.is_some(), "{:?}", round.totals);
    }
}

/// Whoever leaves, whatever is damaged on its way, and wherever the coordinator dies around a charge: what was opened is in its ledger and in
/// those of the nodes whose input it was, a session is charged once, and a sum is exact or not opened.
#[test]
fn the_ledgers_are_never_below_the_truth() {
    let noised = MASKED.replace("unit = \"none\"", "unit = \"example\"\nexpected_units = 6\nclip = 0.1");
    let (mut trained, mut aborted, mut paid_for_nothing) = (0, 0, 0);
    for seed in 0..50 {
        let mut world = World::new(&noised, 8, seed, 0.05);
        (world.damage, world.die) = (0.02, 0.3);
        trained += u32::from(world.finish(2) == RunState::Trained);
        aborted += world.aborted;
        let rounds = world.run.rounds().len();
        assert!(world.charged.len() >= rounds);
        paid_for_nothing += world.charged.len() - rounds;
    }
    assert!(trained > 20 && aborted > 40 && paid_for_nothing > 8, "{trained} trained, {aborted} aborted, {paid_for_nothing} paid in vain");
}

/// Without noise, too, a damaged message costs its sender the session and nobody else anything.
#[test]
fn damaged_messages_spoil_no_sum() {
    let (mut trained, mut aborted) = (0, 0);
    for seed in 0..60 {
        let mut world = World::new(MASKED, 8, seed, 0.02);
        world.damage = 0.04;
        trained += u32::from(world.finish(0) == RunState::Trained);
        aborted += world.aborted;
    }
    assert!(trained > 50 && aborted > 10, "{trained} trained, {aborted} aborted");
}

/// A budget that refuses ends the run before the sum is opened.
#[test]
fn a_refused_charge_ends_the_run() {
    let text = MASKED.replace("unit = \"none\"", "unit = \"example\"\nexpected_units = 6");
    let mut world = World::new(&text, 6, 3, 0.0);
    while world.run.stage() != Some(Stage::Consistency) {
        assert!(world.act());
    }
    let session = world.run.terms().unwrap().session;
    world.tell(Input::ChargeRefused { session, why: "spent".into() });
    assert_eq!(world.run.state(), RunState::Failed);
    assert!(world.session.is_none(), "the sum is wiped");
    assert!(world.run.detail().unwrap().contains("privacy ledger"));
}

/// A node that declines in the secure sum is not waited for.
#[test]
fn who_declines_is_not_waited_for() {
    let mut world = World::new(MASKED, 6, 4, 0.0);
    let (name, session) = (world.nodes[2].name.clone(), world.run.terms().unwrap().session);
    world.nodes[2].client = None;
    world.tell(Input::Declined { node: name.clone(), session, reason: Decline::NoData { why: "none".into() } });
    let before = world.now;
    while world.run.rounds().is_empty() {
        assert!(world.act(), "nobody waits for a deadline");
    }
    assert_eq!(world.now, before);
    assert!(world.run.rounds()[0].dropped.iter().any(|(node, _)| *node == name));
}

/// The clip norm follows the norms that the units have, by a noised estimate: norms of 0.02 to 0.14 under a clip norm of 2 draw it down.
#[test]
fn the_clip_norm_follows_the_norms() {
    let text = MASKED
        .replace("rounds = 3", "rounds = 8")
        .replace("unit = \"none\"", "unit = \"example\"\nexpected_units = 6\nclip = 2.0\nclip_quantile = 0.5\nepsilon = 1000.0");
    let mut world = World::new(&text, 6, 2, 0.0);
    let mut clips = vec![world.run.terms().unwrap().noise.as_ref().unwrap().clip];
    while world.run.rounds().len() < 8 {
        assert!(world.act());
        if let Some(terms) = world.run.terms() {
            let clip = terms.noise.as_ref().unwrap().clip;
            if clips.last() != Some(&clip) {
                clips.push(clip);
            }
        }
    }
    assert_eq!(clips[0], 2.0);
    assert!(clips.len() == 8 && clips.windows(2).all(|pair| pair[1] < pair[0]), "{clips:?}");
}

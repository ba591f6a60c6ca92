//! "Failpoints sit after every commit and between commit and send, enumerated from the code, their number printed; in the
//! simulator all of them are killed: every run and rollout finishes; final model bit-equal." Here: those of the coordinator.
//!
//! Each scenario is played undisturbed, which shows the points that it comes by. Then it is played again for each of them,
//! and the coordinator dies there, the first time that it comes by and the last. It starts again from its store, and the
//! scenario must come to the same end.
#![allow(clippy::print_stdout, reason = "a test tells how many points it has killed at")]

use std::{
    collections::{BTreeMap, BTreeSet},
    panic,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use sapwood_protocol::{Digest, NodeId, ledger::BudgetTerms, release::view::RolloutView, spec::PrivacyUnit};

use super::{
    peer::{Peer, Training, peer},
    rollout::{a_bad_successor, a_good_successor, a_lost_node, an_abort, an_old_backup, is_over, until},
    *,
};

/// What a scenario came to, without the times.
#[derive(Debug, PartialEq)]
pub(super) struct Ending {
    /// Of the run and the rollouts.
    outcomes: Vec<String>,
    params: Option<Digest>,
    losses: Vec<Option<f64>>,
    running: BTreeMap<NodeId, Option<Digest>>,
}

/// The ending, and how often the coordinator died on the way.
pub(super) type Played = (Ending, usize);

impl Ending {
    /// What nodes run now.
    pub(super) fn at(state: &State) -> Self {
        let running = state.nodes().into_iter().map(|node| (node.node, node.running)).collect();
        Self { outcomes: Vec::new(), params: None, losses: Vec::new(), running }
    }

    pub(super) fn run(mut self, view: &RunView) -> Self {
        let why = view.detail.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        self.outcomes.push(format!("{}{why}", view.state));
        self.params = Some(view.params);
        self.losses = view.rounds.iter().map(|round| round.loss).collect();
        self
    }

    pub(super) fn rollout(mut self, view: RolloutView) -> Self {
        self.outcomes.push(view.outcome.map_or("not over".into(), |outcome| outcome.to_string()));
        self
    }
}

/// Where a process dies, and where it has come by.
struct Fate {
    dies: Option<(String, u64)>,
    passed: Mutex<BTreeMap<String, u64>>,
}

impl Fate {
    fn new(dies: Option<(String, u64)>) -> Arc<Self> {
        Arc::new(Self { dies, passed: Mutex::default() })
    }

    fn hook(self: &Arc<Self>) -> Hook {
        let fate = Arc::clone(self);
        Hook::new(move |point| {
            *fate.passed.lock().unwrap().entry(point.into()).or_default() += 1;
            // The dead do not come back to life.
            if fate.came() { Err(Killed { point: point.into() }) } else { Ok(()) }
        })
    }

    /// Whether the point where it dies was reached.
    fn came(&self) -> bool {
        let passed = self.passed.lock().unwrap();
        self.dies.as_ref().is_some_and(|(point, nth)| passed.get(point).is_some_and(|times| times >= nth))
    }
}

/// Longer than anything that is waited for in a scenario.
const NEVER: Duration = Duration::from_secs(2 * 24 * 3600);

/// Plays a scenario until `ends`, and again with a death at each point. Which points those were, and how many deaths.
fn swept(name: &str, ends: &[&str], scenario: impl AsyncFn(Hook) -> Played) -> (BTreeSet<String>, usize) {
    let play = |dies: Option<(String, u64)>| {
        let at = format!("{name}, killed at {dies:?}");
        let fate = Fate::new(dies);
        // A clock of its own for each life of a world, so that none disturbs another.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let played = runtime.block_on(async { tokio::time::timeout(NEVER, scenario(fate.hook())).await });
        let (ending, deaths) = played.unwrap_or_else(|_| panic!("{at}: it never ends"));
        assert_eq!(deaths, usize::from(fate.dies.is_some()), "{at}: it did not come by");
        assert_eq!(fate.came(), fate.dies.is_some(), "{at}: something else killed it");
        let passed = std::mem::take(&mut *fate.passed.lock().unwrap());
        (at, ending, passed)
    };
    let (_, undisturbed, passed) = play(None);
    assert_eq!(undisturbed.outcomes, ends, "{name}: {undisturbed:?}");
    let mut deaths = 0;
    for (point, times) in &passed {
        for nth in BTreeSet::from([1, *times]) {
            let (at, ending, _) = play(Some((point.clone(), nth)));
            assert_eq!(ending, undisturbed, "{at}");
            deaths += 1;
        }
    }
    (passed.into_keys().collect(), deaths)
}

/// Until the run is over.
async fn train(world: World, fate: Hook, peers: Vec<Peer>) -> Played {
    let operate = async |state: &State| {
        let run = world.follow(state, |_| false).await;
        Ending::at(state).run(&run)
    };
    world.lives(Some(fate), peers, operate).await
}

fn trainers(last: Training) -> Vec<Peer> {
    vec![peer("n1", "lab"), peer("n2", "canary"), Peer { training: last, ..peer("n3", "global") }]
}

/// Rounds and scores, and nothing else.
async fn a_run(fate: Hook) -> Played {
    train(World::new(), fate, trainers(Training::Sends)).await
}

/// A node declines, the round is tried again, the candidate is released and reaches every ring.
async fn a_release(fate: Hook) -> Played {
    let world = World { spec: RUN.replace("auto = false", "auto = true"), ..World::new() };
    let operate = async |state: &State| {
        let run = world.follow(state, |_| false).await;
        assert!(run.release.is_some(), "{run:?}");
        let rollout = until(state, "toy-1", is_over).await;
        assert!(state.nodes().iter().all(|node| node.running == Some(rollout.digest)), "{:?}", state.nodes());
        Ending::at(state).run(&run).rollout(rollout)
    };
    world.lives(Some(fate), trainers(Training::DeclinesOnce), operate).await
}

/// The candidate is half as good as it must be.
async fn a_refusal(fate: Hook) -> Played {
    let spec = RUN.replace("rounds = 2", "rounds = 1").replace("auto = false", "auto = true\n[release.gates]\nmin_accuracy = 0.9");
    train(World { spec, ..World::new() }, fate, trainers(Training::Sends)).await
}

/// One node always declines.
async fn a_failure(fate: Hook) -> Played {
    let spec = RUN.replace("select =", "attempts = 2\nselect =");
    train(World { spec, ..World::new() }, fate, trainers(Training::Declines)).await
}

/// An operator stops the run in its second round, while one node still trains.
async fn a_stop(fate: Hook) -> Played {
    let world = World::new();
    let operate = async |state: &State| {
        let scored = |view: &RunView| view.rounds.iter().any(|round| round.loss.is_some());
        let waits = |view: &RunView| view.attempt.as_ref().is_some_and(|attempt| attempt.updates == 2);
        let view = world.follow(state, |view| view.round == 2 && scored(view) && waits(view)).await;
        match state.stop_run(&view.run, "operator".into()).await {
            Ok(view) => Ending::at(state).run(&view),
            // It dies over it.
            Err(_) => std::future::pending().await,
        }
    };
    world.lives(Some(fate), trainers(Training::SilentFrom(2)), operate).await
}

const FOUR: [&str; 4] = ["n1", "n2", "n3", "n4"];

/// Everybody is needed, and nobody leaves.
pub(super) fn masked() -> String {
    RUN.replace("size = 3", "size = 4").replace("minimum = 3", "minimum = 4").replace("mode = \"off\"", "mode = \"on\"\n    dropout = 0.0")
}

/// Masked updates: the sum is exact, so the parameters are the same bits whatever dies.
async fn a_secure_run(fate: Hook) -> Played {
    let peers = FOUR.map(|name| peer(name, "lab")).to_vec();
    train(World { spec: masked(), ..World::new() }, fate, peers).await
}

/// Under a budget: reserved, charged, settled. The noise is another each time, so only the end is compared; and the ledger is never
/// below what the run's sums cost.
async fn a_private_run(fate: Hook) -> Played {
    let budget = BudgetTerms::new(8.0, 1e-5);
    let spec = masked().replace("unit = \"none\"\n    clip = 5.0", "unit = \"example\"\n    expected_units = 4\n    epsilon = 4.0");
    let budgets = Budgets::from([(PrivacyUnit::Example, budget)]);
    let world = World { spec, budgets, ..World::new() };
    let operate = async |state: &State| {
        let run = world.follow(state, |_| false).await;
        let view = loop {
            let view = state.ledgers().views().pop().expect("there is a budget");
            // Spent is all that is held: the reservation is settled.
            if view.rho[1] == view.rho[2] {
                break view;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let charged = run.spent.as_ref().and_then(|spent| spent.epsilon_coordinator).expect("it has a budget");
        assert!(charged > 0.0 && view.epsilon_spent >= charged * (1.0 - 1e-9), "{view:?} {charged}");
        assert!(view.epsilon_spent <= 4.0, "{view:?}");
        Ending { params: None, losses: Vec::new(), ..Ending::at(state).run(&run) }
    };
    let peers = FOUR.map(|name| peer(name, "lab")).to_vec();
    world.lives(Some(fate), peers, operate).await
}

/// The ledger of a restored store, asked for by its operator.
async fn a_restored_ledger(fate: Hook) -> Played {
    let budgets = Budgets::from([(PrivacyUnit::Node, BudgetTerms::new(8.0, 1e-5))]);
    let world = World { budgets, restored: true, ..World::new() };
    world.lives(Some(fate), Vec::new(), async |state: &State| Ending::at(state)).await
}

#[test]
fn killed_at_every_point_every_run_and_rollout_comes_to_the_same_end() {
    let failed = "failed: round 1 failed 2 times, the last time because 2 of at least 3 updates arrived; n3: no data: no folder; \
                  `deadlines.attempts` allows no more";
    let completed = "completed on 3 nodes";
    // One thread each: they mostly wait for the disk.
    let swept = thread::scope(|threads| {
        let scenarios = [
            threads.spawn(|| swept("a run", &["trained"], a_run)),
            threads.spawn(|| swept("a release", &["released", completed], a_release)),
            threads.spawn(|| swept("a refusal", &["refused: FAIL  min_accuracy: 0.5000, at least 0.9000"], a_refusal)),
            threads.spawn(|| swept("a failure", &[failed], a_failure)),
            threads.spawn(|| swept("a stop", &["stopped: stopped by operator"], a_stop)),
            threads.spawn(|| swept("a secure run", &["trained"], a_secure_run)),
            threads.spawn(|| swept("a private run", &["trained"], a_private_run)),
            threads.spawn(|| swept("a restored ledger", &[], a_restored_ledger)),
            threads.spawn(|| swept("a lost node", &["halted in ring lab; 1 nodes have not gone back yet"], a_lost_node)),
            threads.spawn(|| swept("an abort", &["aborted by operator"], an_abort)),
            threads.spawn(|| swept("an old backup", &["completed on 2 nodes"], an_old_backup)),
            threads.spawn(|| swept("a bad successor", &[completed, "rolled back in ring lab"], a_bad_successor)),
            threads.spawn(|| swept("a good successor", &["superseded by toy-2", "completed on 2 nodes"], a_good_successor)),
        ];
        scenarios.map(|scenario| scenario.join().unwrap_or_else(|failed| panic::resume_unwind(failed)))
    });
    let points = failpoints();
    let known: BTreeSet<&str> = points.iter().map(|point| point.name()).collect();
    let killed: BTreeSet<&str> = swept.iter().flat_map(|(points, _)| points).map(String::as_str).collect();
    let deaths: usize = swept.iter().map(|(_, deaths)| deaths).sum();
    println!("{} failpoints of the coordinator, {deaths} deaths in {} scenarios", known.len(), swept.len());
    assert_eq!(points.len(), known.len(), "two points have one name");
    assert_eq!(known.difference(&killed).collect::<Vec<_>>(), [&""; 0], "points that no scenario comes by");
    assert_eq!(killed.difference(&known).collect::<Vec<_>>(), [&""; 0], "points that no table names");
}

//! Real processes: a run becomes a release, a rollout, an answer; and again, with somebody killed everywhere on the way.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test tells what it found and what it skipped")]

use std::sync::OnceLock;

use sapwood_protocol::Digest;
use sapwood_tests::{Farm, Finished};
use tokio::sync::Mutex;

/// Everybody takes part in every round, and the deadlines outlast every restart: so the result depends on nothing but this.
const RUN: &str = r#"name = "digits"
seed = 20

[model]
file = "cnn.onnx"
preprocess = "preprocess.onnx"

[train]
rounds = 3
local_epochs = 1
batch = 16
lr = 0.05

[cohort]
size = 3
minimum = 3

[secure_aggregation]
mode = "off"

[privacy]
unit = "none"
clip = 100.0

[deadlines]
select = "5m"
round = "10m"
attempts = 100

[evaluate]
data = "digits:12"

[release]
use_case = "reading digits on forms"
calibration = "digits:11"
rings = ["lab", "canary", "region", "global"]
soak = "100ms"
"#;

/// The farms come one after the other: two cores are not enough for more.
static ONE: Mutex<()> = Mutex::const_new(());
/// The parameters of a run that nobody disturbed.
static UNDISTURBED: OnceLock<Digest> = OnceLock::new();

/// A farm in which the coordinator and the nodes die by their scripts, and everything goes on.
async fn play(coordinator: &[&str], nodes: [&[&str]; 3]) -> Finished {
    let mut farm = Farm::found(3);
    farm.coordinator.script(coordinator);
    for (node, script) in farm.nodes.iter_mut().zip(nodes) {
        node.script(script);
    }
    let begun = std::time::Instant::now();
    farm.start().await;
    let finished = farm.finish(RUN).await;
    for daemon in std::iter::once(&farm.coordinator).chain(&farm.nodes).filter(|d| !d.killed.is_empty()) {
        eprintln!("{} was killed at {}", daemon.name, daemon.killed.join(", "));
    }
    eprintln!("params {} release {} after {:.1} s", finished.params(), finished.release.digest, begun.elapsed().as_secs_f64());
    assert_eq!(finished.run.rounds.len(), 3);
    assert!(finished.run.rounds.iter().all(|round| round.updates == 3), "{:?}", finished.run.rounds);
    for node in &mut farm.nodes {
        node.stop().await;
    }
    farm.coordinator.stop().await;
    finished
}

/// The final parameters without any disturbance.
async fn undisturbed() -> Digest {
    if UNDISTURBED.get().is_none() {
        let finished = play(&[], [&[], &[], &[]]).await;
        let _ = UNDISTURBED.set(finished.params());
    }
    *UNDISTURBED.get().expect("set above")
}

#[tokio::test]
async fn a_run_is_released_rolled_out_and_served() {
    let _alone = ONE.lock().await;
    undisturbed().await;
    let coordinator = sapwood_coordinator::drive::failpoints().len();
    let (node, agent) = (sapwood_edge_node::points::POINTS.len(), sapwood_edge_node::agent::failpoints().len());
    println!(
        "failpoints: {coordinator} in the coordinator, {node} in the node's rounds, {agent} in its agent: {}",
        coordinator + node + agent
    );
}

/// A coordinator that dies while it takes a run in, in each phase of a round, at its commit, and while it builds a release.
#[tokio::test]
async fn a_coordinator_killed_in_a_run_goes_on_to_the_same_model() {
    let _alone = ONE.lock().await;
    let same = undisturbed().await;
    for script in [
        ["object.synced", "object.renamed", "run.after-commit.created", "run.before-send.started"],
        [
            "run.after-commit.attempt-opened",
            "run.before-send.attempt-opened",
            "run.after-commit.update-accepted",
            "run.before-send.update-accepted@2",
        ],
        ["run.after-commit.collection-closed", "run.parameters-stored", "run.after-commit.round-committed", "run.scored"],
        [
            "run.before-send.round-committed@2",
            "run.after-commit.training-finished",
            "run.candidate-built",
            "run.after-commit.candidate-released",
        ],
    ] {
        assert_eq!(play(&script, [&[], &[], &[]]).await.params(), same);
    }
}

/// A coordinator that dies in each phase of a rollout.
#[tokio::test]
async fn a_coordinator_killed_in_a_rollout_goes_on() {
    let _alone = ONE.lock().await;
    let same = undisturbed().await;
    for script in [
        [
            "rollout.after-commit.created",
            "rollout.after-commit.ring-opened",
            "rollout.before-send.ring-opened",
            "rollout.after-commit.node-confirmed",
        ],
        [
            "rollout.before-send.node-confirmed",
            "rollout.after-commit.ring-passed",
            "rollout.after-commit.ring-skipped",
            "rollout.before-send.completed",
        ],
    ] {
        assert_eq!(play(&script, [&[], &[], &[]]).await.params(), same);
    }
}

/// Nodes that die while enrolling, training, sending, downloading and exchanging slots.
#[tokio::test]
async fn nodes_killed_anywhere_go_on() {
    let _alone = ONE.lock().await;
    let same = undisturbed().await;
    let first = ["node.after-enrollment-request", "node.while-training", "agent.while-downloading", "agent.before-exchange-rename"];
    let second = ["node.after-ticket", "node.after-trained", "agent.before-stage-rename", "agent.after-exchange-rename"];
    let third = ["node.while-submitting", "node.after-submitted", "agent.after-commit.assigned", "agent.before-effects.committed"];
    assert_eq!(play(&[], [&first, &second, &third]).await.params(), same);
}

//! Secure aggregation and budgets with real processes: whoever dies whenever, the sum is exact or nothing; the ledgers over-count, and
//! never under-count; what is off is off because somebody wrote it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test tells what it found and what it skipped")]

use std::fs;

use sapwood_models::{Tensor, zoo};
use sapwood_protocol::{Digest, run::RunState};
use sapwood_tests::{Farm, Finished, eventually, sapwood};
use tokio::sync::Mutex;

/// Everybody takes part in every round, so the exact sum depends on nothing but this.
const RUN: &str = r#"name = "digits"
seed = 20

[model]
file = "cnn.onnx"
preprocess = "preprocess.onnx"

[train]
rounds = 2
local_epochs = 1
batch = 16
lr = 0.05

[cohort]
size = 4
minimum = 4

[secure_aggregation]
mode = "on"
dropout = 0.0

[privacy]
unit = "none"
clip = 100.0

[deadlines]
select = "5m"
round = "10m"
exchange = "4s"
attempts = 100

[evaluate]
data = "digits:12"

[release]
use_case = "reading digits on forms"
calibration = "digits:11"
rings = ["lab", "canary", "region", "global"]
soak = "100ms"
"#;

/// One step a round on each image's clipped gradient.
fn budgeted(epsilon: f64, rounds: u32) -> String {
    RUN.replace("file = \"cnn.onnx\"", "file = \"mlp.onnx\"")
        .replace("preprocess.onnx", "rows.onnx")
        .replace("rounds = 2\nlocal_epochs = 1\nbatch = 16\nlr = 0.05", &format!("rounds = {rounds}\nlr = 5.0"))
        .replace("unit = \"none\"\nclip = 100.0", &format!("unit = \"example\"\nepsilon = {epsilon:?}\ndelta = 1e-5\nexpected_units = 520"))
}

/// The farms come one after the other: two cores are not enough for more.
static ONE: Mutex<()> = Mutex::const_new(());

fn found() -> Farm {
    let farm = Farm::found(4);
    fs::write(farm.root().join("mlp.onnx"), zoo::mlp(64, &[16], 10, 20).encode()).expect("a model is written");
    fs::write(farm.root().join("rows.onnx"), zoo::rows(&[1, 8, 8], 4.0, 0.125).encode()).expect("a model is written");
    farm
}

/// A farm in which the coordinator and the nodes die by their scripts, and everything goes on.
async fn play(run: &str, coordinator: &[&str], nodes: &[&[&str]]) -> (Farm, Finished) {
    let mut farm = found();
    farm.coordinator.script(coordinator);
    for (node, script) in farm.nodes.iter_mut().zip(nodes) {
        node.script(script);
    }
    farm.start().await;
    let finished = farm.finish(run).await;
    for daemon in std::iter::once(&farm.coordinator).chain(&farm.nodes).filter(|d| !d.killed.is_empty()) {
        eprintln!("{} was killed at {}", daemon.name, daemon.killed.join(", "));
    }
    (farm, finished)
}

async fn stop(mut farm: Farm) {
    for node in &mut farm.nodes {
        node.stop().await;
    }
    farm.coordinator.stop().await;
}

/// Masks cancel to the bit: the model is the one of a run in clear, undisturbed or with somebody killed in every stage.
#[tokio::test]
async fn masked_runs_give_the_model_of_a_run_in_clear_whoever_dies() {
    let _alone = ONE.lock().await;
    let (farm, clear) = play(&RUN.replace("mode = \"on\"\ndropout = 0.0", "mode = \"off\""), &[], &[]).await;
    stop(farm).await;
    let coordinator = [
        "run.after-commit.stage-closed",
        "run.before-send.stage-closed@2",
        "run.after-commit.update-accepted@2",
        "run.before-send.stage-closed@4",
        "run.parameters-stored",
    ];
    let scripts: [(&[&str], &[&[&str]]); 3] = [
        (&[], &[]),
        (&coordinator, &[]),
        (&[], &[&["node.after-trained", "node.after-submitted"], &["node.after-charge"], &["node.while-submitting"]]),
    ];
    for (coordinator, nodes) in scripts {
        let (farm, masked) = play(RUN, coordinator, nodes).await;
        assert_eq!(masked.params(), clear.params());
        assert!(masked.run.privacy.contains("secure aggregation on"), "{}", masked.run.privacy);
        stop(farm).await;
    }
}

/// A budget is reserved, charged, shown and kept: in the manifest, by `privacy ledger`, and against a coordinator that is killed.
#[tokio::test]
async fn a_budget_is_kept_across_deaths() {
    let _alone = ONE.lock().await;
    let deaths = ["ledger.after-commit.reserved", "ledger.after-commit.charged", "run.after-commit.charged"];
    let mut farm = found();
    farm.coordinator.script(&deaths);
    farm.nodes[0].script(&["node.after-charge"]);
    farm.start().await;
    let finished = farm.finish(&budgeted(6.0, 3).replace("epsilon", "spare_rounds = 4\nepsilon")).await;
    let budget = finished.release.privacy.budget.clone().expect("a statement");
    let spent = budget.epsilon_coordinator.expect("distributed noise");
    assert!(spent > 0.5 && spent <= 6.0 && budget.epsilon_outsider < spent, "{budget:?}");
    assert!(finished.run.rounds.iter().all(|round| round.examples.is_none() && round.train_loss.is_some()), "{:?}", finished.run.rounds);

    let ledger = |farm: &Farm| {
        let answer = farm.call(&["privacy", "ledger"]);
        assert_eq!(answer.code, 0, "{answer:?}");
        let ledgers = answer.json["data"]["ledgers"].as_array().expect("ledgers").clone();
        let example = ledgers.iter().find(|ledger| ledger["unit"] == "example").expect("examples have a budget").clone();
        (example["epsilon_spent"].as_f64().expect("a number"), example["epsilon_held"].as_f64().expect("a number"))
    };
    let (ledger_spent, held) = eventually("the run is settled", async || {
        let (spent, held) = ledger(&farm);
        (spent == held).then_some((spent, held))
    })
    .await;
    // Two deaths behind a charge: what they paid for was never opened, and is paid all the same.
    assert!(ledger_spent >= spent && held <= 10.0, "{ledger_spent} {spent}");
    eprintln!("the manifest says {spent:.3}, the ledger {ledger_spent:.3}");

    // So do the nodes' own books, read while they run; the first node died between a charge and its input.
    for node in 1..=4 {
        let config = farm.root().join(format!("node-{node}")).join("node.toml");
        let books = sapwood(&["node", "ledger", "--config", config.to_str().expect("a path of text")]);
        assert_eq!(books.code, 0, "{books:?}");
        let budgets = books.json["data"]["budgets"].as_array().expect("budgets");
        let example = budgets.iter().find(|budget| budget["unit"] == "example").expect("examples have a budget");
        let (own, sessions) = (example["epsilon_spent"].as_f64().expect("a number"), example["sessions"].as_u64().expect("a count"));
        eprintln!("node-{node} says {own:.3} in {sessions} sessions");
        assert!(own >= spent && sessions >= 3 + u64::from(node == 1), "{books:?}");
    }

    // What is left does not do for the same again, and says what would.
    let refused = farm.submit(&budgeted(9.5, 3), "again");
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.error().contains("the budget is spent") && refused.error().contains("epsilon of at most"), "{}", refused.error());
    farm.coordinator.kill().await;
    farm.coordinator.start().await;
    eventually("it answers again", async || farm.operator.nodes().await).await;
    assert_eq!(ledger(&farm), (ledger_spent, held), "a crash forgets nothing");

    // The release says so to whoever verifies it.
    let folder = farm.save(&finished.release).await;
    let path = |name: &str| folder.join(name).to_str().expect("a path of text").to_owned();
    let verified = sapwood(&["release", "verify", &path("bundle.tar.gz"), "--key", &path("pub.pem")]);
    assert_eq!(verified.code, 0, "{verified:?}");
    assert_eq!(verified.json["data"]["privacy"]["budget"]["epsilon_coordinator"].as_f64(), Some(spent));
    let described = sapwood(&["privacy", "describe", &path("manifest.json")]);
    assert!(described.json["data"]["budget"]["not_covered"].as_array().is_some_and(|not| !not.is_empty()), "{described:?}");

    // R6: nothing in the logs tells of a node's examples or loss.
    for daemon in &farm.nodes {
        let log = daemon.log();
        assert!(log.contains("trained") && !log.contains("loss") && !log.contains("examples="), "{log}");
    }
    assert!(!farm.coordinator.log().contains("loss"), "{}", farm.coordinator.log());
    stop(farm).await;
}

/// A node's operator has the last word: a run in clear, or without noise, is declined by name unless that is allowed here.
#[tokio::test]
async fn a_node_takes_no_part_in_what_its_operator_forbids() {
    let _alone = ONE.lock().await;
    let mut farm = found();
    for node in 1..=4 {
        let config = farm.root().join(format!("node-{node}")).join("node.toml");
        let text = fs::read_to_string(&config).expect("it is there").replace("allow_clear = true\nallow_no_noise = true\n", "");
        fs::write(&config, text).expect("it is written");
    }
    farm.start().await;
    let attempts = |text: &str| text.replace("attempts = 100", "attempts = 1");
    for (run, why) in [
        (attempts(&RUN.replace("mode = \"on\"\ndropout = 0.0", "mode = \"off\"")), "demands secure aggregation"),
        (attempts(RUN), "demands a privacy budget"),
    ] {
        let submitted = farm.submit(&run, &Digest::of(run.as_bytes()).hex());
        assert_eq!(submitted.code, 0, "{submitted:?}");
        let name = submitted.json["data"]["run"].as_str().expect("a name").to_owned();
        let ended = eventually("it fails", async || farm.operator.run(&name).await.filter(|run| run.state == RunState::Failed)).await;
        eprintln!("{:?}", ended.detail);
        let said = farm.nodes.iter().any(|node| node.log().contains(why));
        assert!(said, "{}", farm.nodes[0].log());
    }
    let allowed = farm.finish(&budgeted(6.0, 2)).await;
    assert_eq!(allowed.run.state, RunState::Released);
    stop(farm).await;
}

/// Every node tells its entities apart by a column of its own data, under budgets of its operator and of the coordinator's; who keeps no
/// such budget is left out by name.
#[tokio::test]
async fn entities_are_told_apart_by_a_column() {
    let _alone = ONE.lock().await;
    let mut farm = found();
    let append = |path: std::path::PathBuf, text: &str| {
        let old = fs::read_to_string(&path).expect("it is there");
        fs::write(&path, format!("{old}\n{text}")).expect("it is written");
    };
    let budget = |key: &str| format!("budgets.entity]\nepsilon = 2000.0\ndelta = 1e-5\nkey = {key:?}\n");
    append(farm.deployment.config(), &format!("[{}", budget("customer")));
    for node in 1..=4 {
        let (folder, block) = (farm.root().join(format!("node-{node}")), sapwood_data::digits::block(node));
        let rows = block.len();
        let mut table = format!("{},digit,customer\n", (0..64).map(|i| format!("p{i}")).collect::<Vec<_>>().join(","));
        let sapwood_models::Targets::Classes(labels) = &block.y else { unreachable!() };
        for (row, (pixels, label)) in block.x.only().and_then(Tensor::as_f32).expect("pixels").chunks(64).zip(labels).enumerate() {
            let pixels = pixels.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
            table.push_str(&format!("{pixels},{label},customer-{}\n", row % (rows / 2)));
        }
        fs::write(folder.join("images.csv"), table).expect("it is written");
        let schema = "[input]\nshape = [1, 8, 8]\n[targets]\nclasses = 10\n[csv]\ntarget = \"digit\"\n";
        fs::write(folder.join("images.toml"), schema).expect("it is written");
        let config = folder.join("node.toml");
        let text = fs::read_to_string(&config).expect("it is there");
        let text = text.replace(&format!("source = \"digits:{node}\""), "source = \"images.csv\"\nschema = \"images.toml\"");
        fs::write(&config, text).expect("it is written");
        // The last one's operator means another column.
        append(config, &format!("[policy.{}", budget(if node == 4 { "household" } else { "customer" })));
    }
    farm.start().await;
    // Few customers: only a weak promise leaves a signal.
    let run = budgeted(1000.0, 2)
        .replace("unit = \"example\"", "unit = \"entity\"\nentity_key = \"customer\"")
        .replace("expected_units = 520", "expected_units = 260")
        .replace("size = 4\nminimum = 4", "size = 3\nover_selection = 0.33");
    let unknown = farm.submit(&run.replace("= \"customer\"", "= \"row\""), "row");
    assert!(unknown.code == 2 && unknown.error().contains("`customer`"), "{unknown:?}");
    let finished = farm.finish(&run).await;
    let budget = finished.release.privacy.budget.clone().expect("a statement");
    assert!(budget.adjacency.contains("the key column is `customer`"), "{budget:?}");
    assert!(farm.nodes[3].log().contains("the column `household`"), "{}", farm.nodes[3].log());
    let table = farm.call(&["privacy", "ledger"]);
    assert!(table.json["data"]["ledgers"].as_array().expect("ledgers").iter().any(|ledger| ledger["key"] == "customer"), "{table:?}");
    stop(farm).await;
}

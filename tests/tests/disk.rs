//! Full disks, with real processes: each is told of, nobody hangs, and once there is room everything goes on.
//!
//! The disk is a small `tmpfs`, mounted in a mount namespace of the test's own, so that it goes away with the test: the test
//! starts itself again inside, which needs no rights where the kernel allows user namespaces. Where it does not, the tests say
//! so and are left out; under `CI` they fail.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test tells what it found and what it skipped")]

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
};

use prost::Message;
use sapwood_models::zoo;
use sapwood_protocol::run::RunState;
use sapwood_tests::{Farm, eventually};
use tokio::sync::Mutex;

/// Waits as long as it takes for both nodes; the model is large enough to need a disk.
const RUN: &str = r#"name = "digits"

[model]
file = "wide.onnx"
preprocess = "flatten.onnx"

[train]
rounds = 2
local_epochs = 1
batch = 16
lr = 0.001

[cohort]
size = 2
minimum = 2

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
soak = "100ms"
"#;

/// The farms come one after the other: two cores are not enough for more.
static ONE: Mutex<()> = Mutex::const_new(());
/// Says to a test that it runs in its own namespace.
const INSIDE: &str = "SAPWOOD_TEST_MOUNTS";

/// Whether this process may mount. If not, the test named so is run in one that may, and there is nothing left to do here.
fn may_mount(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let trial = tempfile::tempdir().expect("a temporary folder");
    // As root of a namespace of one's own, or as root.
    for rights in ["-Urm", "-m"] {
        let mounted = Command::new("unshare").arg(rights).args(["mount", "-t", "tmpfs", "tmpfs"]).arg(trial.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            let program = std::env::current_exe().expect("a test has a path");
            let mut inside = Command::new("unshare");
            inside.arg(rights).arg(program).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
            assert!(inside.status().expect("unshare is there").success(), "{test} failed in its own namespace");
            return false;
        }
    }
    assert!(std::env::var_os("CI").is_none(), "{test}: no file system can be mounted here, and CI leaves no test out");
    eprintln!("SKIPPED: {test}: no file system can be mounted here, not even in a namespace of one's own");
    false
}

/// A small file system.
struct Disk {
    root: PathBuf,
}

impl Disk {
    fn mount(root: PathBuf, size: &str) -> Self {
        fs::create_dir_all(&root).expect("a folder is made");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&root).status();
        assert!(mounted.expect("mount is there").success(), "{} could not be mounted", root.display());
        Self { root }
    }

    fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }

    /// Leaves no more than `room` bytes free.
    fn fill(&self, room: u64) {
        let mut ballast = File::create(self.ballast()).expect("a file is made");
        let chunk = vec![0; 4096];
        loop {
            match ballast.write(&chunk) {
                Ok(_) => {}
                Err(full) if full.kind() == ErrorKind::StorageFull => break,
                Err(other) => panic!("{other}"),
            }
        }
        let length = ballast.metadata().expect("it is there").len();
        ballast.set_len(length.saturating_sub(room)).expect("a file is cut");
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).expect("the ballast is there");
    }
}

/// A wide network, and a graph that makes rows of the images for it.
fn write_model(root: &Path) {
    fs::write(root.join("wide.onnx"), zoo::mlp(64, &[4096], 10, 20).encode()).expect("a model is written");
    let mut flatten = zoo::scale(&[1, 8, 8], 1.0).into_proto();
    let graph = flatten.graph.as_mut().expect("a graph");
    graph.node[0].op_type = Some("Flatten".into());
    graph.node[0].input.truncate(1);
    graph.initializer.clear();
    graph.output = zoo::scale(&[64], 1.0).into_proto().graph.expect("a graph").output;
    fs::write(root.join("flatten.onnx"), flatten.encode_to_vec()).expect("a model is written");
}

/// The coordinator's disk fills up while a run waits for its second node.
#[tokio::test]
async fn a_coordinator_whose_disk_is_full_goes_on_when_there_is_room() {
    let _alone = ONE.lock().await;
    if !may_mount("a_coordinator_whose_disk_is_full_goes_on_when_there_is_room") {
        return;
    }
    let mut farm = Farm::found(2);
    let run = RUN.replace("wide", "cnn").replace("flatten", "preprocess");
    let disk = Disk::mount(farm.deployment.root().join("data"), "24m");
    farm.coordinator.start().await;
    farm.nodes[0].start().await;
    let submitted = farm.submit(&run, &sapwood_protocol::Digest::of(run.as_bytes()).hex());
    assert_eq!(submitted.code, 0, "{submitted:?}");
    let name = submitted.json["data"]["run"].as_str().expect("a run has a name").to_owned();

    disk.fill(0);
    // What needs room is refused, in words that say what to do.
    fs::write(farm.root().join("other.onnx"), zoo::mlp(64, &[300], 10, 20).encode()).expect("a model is written");
    let refused = farm.submit(&run.replace("cnn", "other"), "other");
    assert_eq!(refused.code, 7, "{refused:?}");
    println!("refused: {}", refused.error());
    assert!(refused.error().contains("full") && refused.error().contains("make room"), "{}", refused.error());
    // What needs none is answered, and the run that waits goes as far as it can.
    assert_eq!(farm.call(&["run", "list"]).json["data"]["runs"].as_array().map(Vec::len), Some(1));
    let before = farm.coordinator.log().len();
    farm.nodes[1].start().await;
    eventually("it says why it cannot go on", async || farm.coordinator.log()[before..].contains("full; make room").then_some(())).await;
    assert_eq!(farm.call(&["run", "list"]).json["data"]["runs"].as_array().map(Vec::len), Some(1));

    disk.make_room();
    let finished = farm.finish(&run).await;
    assert_eq!((finished.run.run.to_string(), finished.run.state), (name, RunState::Released));
    assert!(finished.run.rounds.iter().all(|round| round.updates == 2), "{:?}", finished.run.rounds);
}

/// A node's disk fills up between its look at the free space and the download.
#[tokio::test]
async fn a_download_to_a_full_disk_goes_on_when_there_is_room() {
    let _alone = ONE.lock().await;
    if !may_mount("a_download_to_a_full_disk_goes_on_when_there_is_room") {
        return;
    }
    let mut farm = Farm::found(2);
    write_model(farm.root());
    let disk = Disk::mount(farm.state_of("node-1"), "24m");
    // It has seen that there is room, and says so to its journal only.
    farm.nodes[0].script(&["agent.after-commit.passed"]);
    farm.start().await;
    let token = sapwood_protocol::Digest::of(RUN.as_bytes()).hex();
    assert_eq!(farm.submit(RUN, &token).code, 0);
    eventually("node-1 dies after its preflight", async || farm.nodes[0].is_gone().then_some(())).await;

    // Enough for the journal, not for the bundle.
    disk.fill(160 * 1024);
    farm.tend().await;
    let node = &farm.nodes[0];
    eventually("it says what it lacks", async || node.log().contains("there is no room for the release").then_some(())).await;
    let said = node.log();
    println!("{}", said.lines().rfind(|line| line.contains("no room")).unwrap_or_default());
    assert!(said.contains("No space left on device"), "{said}");
    eventually("it is still here", async || {
        let nodes = farm.operator.nodes().await?;
        nodes.iter().all(|node| node.connected).then_some(())
    })
    .await;

    disk.make_room();
    let finished = farm.finish(RUN).await;
    assert_eq!(finished.run.state, RunState::Released);
    assert_eq!(finished.serving, vec![Some(finished.release.digest); 2]);
    assert!(finished.release.bytes > 160 * 1024, "the bundle would have fitted");
}

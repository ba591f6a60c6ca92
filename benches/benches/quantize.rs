//! The INT8 quantizer beside ONNX Runtime's own, on the same float graphs and calibration data: time, memory, files, latency and
//! accuracy, all judged by ONNX Runtime.
//!
//! `SAPWOOD_ORT_PYTHON=…/bin/python SAPWOOD_FASHION_MNIST=folder cargo bench --bench quantize`, where that Python has `onnx` and
//! `onnxruntime`, and the folder the four IDX files of Fashion-MNIST.
#![allow(clippy::print_stdout)]

use std::{collections::BTreeMap, env, fs, ops::ControlFlow, path::Path, process::Command, time::Instant};

use anyhow::{Context as _, Result, ensure};
use sapwood_benches::{arguments, machine, median};
use sapwood_data::{Limits, Source, load, read_tensors, save_npz};
use sapwood_models::{
    Dataset, Features, Model, Tensor,
    quantize::{quantize, ranges},
    train::{Optimizer, TrainConfig, Trainer},
    zoo,
};
use sapwood_runtime::host_class;
use serde::Deserialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Images that calibrate, and that train.
const CALIBRATION: usize = 512;
const TRAINING: usize = 12_000;

/// What quantizing took.
#[derive(Deserialize)]
struct Cost {
    seconds: f64,
    peak_kib: u64,
}

#[derive(Deserialize)]
struct Verdict {
    bytes: BTreeMap<String, u64>,
    right: BTreeMap<String, u64>,
    examples: u64,
    /// Medians of the interleaved runs, microseconds.
    micros: BTreeMap<String, Vec<f64>>,
    same_operators: bool,
    onnxruntime: String,
}

fn main() -> Result<()> {
    if let [model, x, out, method] = &arguments()[..] {
        return quantized(Path::new(model), Path::new(x), Path::new(out), method);
    }
    let python = env::var("SAPWOOD_ORT_PYTHON").context("SAPWOOD_ORT_PYTHON must name a Python that has onnx and onnxruntime")?;
    let images = env::var("SAPWOOD_FASHION_MNIST").context("SAPWOOD_FASHION_MNIST must name the folder of its four IDX files")?;
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    script(&python, &["data", &images, &folder.path().display().to_string()])?;
    let read = |name: &str| Ok::<_, anyhow::Error>(load(&at(name).parse::<Source>()?, None)?);
    let (train, test) = (read("train.npz")?, at("test.npz"));
    println!("INT8 beside ONNX Runtime's quantizer, Fashion-MNIST, {CALIBRATION} images calibrate, for {}; {}", host_class(), machine());
    println!(
        "  model       calibrator   seconds, theirs   peak MiB, theirs   x fp32   x theirs   operators   latency x theirs (95 %)   x fp32   points lost, theirs"
    );
    for (name, model, shape) in networks() {
        let data = train.subset(&(0..TRAINING).collect::<Vec<_>>());
        let images = data.x.for_input("x")?;
        let data = Dataset { x: Tensor { shape: [&[images.rows()], &shape[..]].concat(), ..images.clone() }.into(), y: data.y };
        fs::write(at(name), trained(&model, &data)?.encode())?;
        save_npz(Path::new(&at("x.npz")), data.x.take_rows(&(0..CALIBRATION).collect::<Vec<_>>()).iter())?;
        for method in ["minmax", "percentile"] {
            let files = [at(name), at("x.npz"), at("ours.onnx"), method.to_owned()];
            let ours = Command::new(env::current_exe()?).args(&files).output()?;
            ensure!(ours.status.success(), "{}", String::from_utf8_lossy(&ours.stderr));
            let ours: Cost = serde_json::from_slice(&ours.stdout)?;
            let theirs: Cost =
                serde_json::from_str(&script(&python, &["quantize", &files[0], &files[1], &at("theirs.onnx"), method, host_class()])?)?;
            let judged = script(&python, &["judge", &files[0], &files[2], &at("theirs.onnx"), &test])?;
            print(name, method, &ours, &theirs, &serde_json::from_str(&judged)?);
        }
    }
    Ok(())
}

fn print(name: &str, method: &str, ours: &Cost, theirs: &Cost, v: &Verdict) {
    let ratios = |other: &str| -> Vec<f64> { v.micros["ours"].iter().zip(&v.micros[other]).map(|(a, b)| a / b).collect() };
    let size = |other: &str| v.bytes["ours"] as f64 / v.bytes[other] as f64;
    let lost = |form: &str| 100.0 * (v.right["fp32"] as f64 - v.right[form] as f64) / v.examples as f64;
    let beside = ratios("theirs");
    let (low, high) = interval(&beside);
    println!(
        "  {name:<11} {method:<10} {:>8.2}, {:>6.2}   {:>7.0}, {:>6.0}   {:>6.3} {:>10.3}   {:<9} {:>7.3} ({low:.3} to {high:.3}) {:>8.3}   {:.2}, {:.2}",
        ours.seconds,
        theirs.seconds,
        ours.peak_kib as f64 / 1024.0,
        theirs.peak_kib as f64 / 1024.0,
        size("fp32"),
        size("theirs"),
        if v.same_operators { "the same" } else { "others" },
        median(&beside),
        median(&ratios("fp32")),
        lost("ours"),
        lost("theirs"),
    );
    println!("    fp32 {:.1} us, {} of {} right; ONNX Runtime {}", median(&v.micros["fp32"]), v.right["fp32"], v.examples, v.onnxruntime);
}

/// Of the median of 20 values, by order statistics: the 6th and the 15th, 95.9 % (David and Nagaraja, Order Statistics, 7.1).
fn interval(values: &[f64]) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[5], sorted[14])
}

/// Name, model and shape of an example.
fn networks() -> Vec<(&'static str, Model, Vec<usize>)> {
    vec![
        ("mlp", zoo::mlp(784, &[512], 10, 1), vec![784]),
        ("lenet", zoo::lenet(10, 1), vec![1, 28, 28]),
        ("cnn", zoo::cnn([1, 28, 28], 10, 1), vec![1, 28, 28]),
        ("mobilenet", zoo::mobilenet([1, 28, 28], 10, 1), vec![1, 28, 28]),
        ("lstm", zoo::lstm([28, 28], 64, 10, 1), vec![28, 28]),
    ]
}

fn trained(model: &Model, data: &Dataset) -> Result<Model> {
    let config = TrainConfig { optimizer: Optimizer::adam(), lr: 0.002, batch: 64, ..TrainConfig::default() };
    let mut trainer = Trainer::new(model, config)?;
    trainer.train(data, 2, 1, &mut |_| ControlFlow::Continue(()))?;
    Ok(trainer.export())
}

/// What a process of its own does, so that its memory is counted alone.
fn quantized(model: &Path, x: &Path, out: &Path, method: &str) -> Result<()> {
    let started = Instant::now();
    let model = Model::decode(&fs::read(model)?)?;
    let x: Features = read_tensors(x, Limits::default())?.into_iter().collect();
    let ranges = ranges(&model, &x, method.parse()?)?;
    fs::write(out, quantize(&model, &ranges, host_class().parse()?)?.model.encode())?;
    let seconds = started.elapsed().as_secs_f64();
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("/proc knows no peak")?;
    println!("{{\"seconds\": {seconds}, \"peak_kib\": {}}}", peak.trim().trim_end_matches(" kB"));
    Ok(())
}

fn script(python: &str, arguments: &[&str]) -> Result<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/onnxruntime/quantize.py");
    let output = Command::new(python).arg(script).args(arguments).output().with_context(|| format!("{python} does not start"))?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    // The quantizer prints what it does before the answer.
    Ok(String::from_utf8(output.stdout)?.lines().last().unwrap_or_default().to_owned())
}

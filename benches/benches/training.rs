//! Local training in samples a second beside PyTorch's on the same graphs, on one thread and on two, in the same run.
//!
//! `SAPWOOD_TORCH_PYTHON=…/bin/python cargo bench --bench training`, where that Python has `torch`, `onnx` and `onnxscript`.
#![allow(clippy::print_stdout)]

use std::{collections::BTreeMap, env, fs, ops::ControlFlow, path::Path, process::Command, time::Instant};

use anyhow::{Context as _, Result, ensure};
use sapwood_benches::machine;
use sapwood_models::{
    Dataset, Model, Targets, Tensor,
    train::{TrainConfig, Trainer},
};
use serde::Deserialize;

/// The binary's allocator: training frees and asks for the same large buffers at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often each side has its turn; the best counts, as both sides share the machine with whatever else runs.
const TURNS: u64 = 3;

#[derive(Deserialize)]
struct Network {
    shape: Vec<usize>,
    examples: usize,
}

fn main() -> Result<()> {
    let python = env::var("SAPWOOD_TORCH_PYTHON").context("SAPWOOD_TORCH_PYTHON must name a Python that has torch, onnx and onnxscript")?;
    let folder = tempfile::tempdir()?;
    let export = torch(&python, &["export", &folder.path().display().to_string()])?;
    let networks: BTreeMap<String, Network> = serde_json::from_str(&export)?;
    println!("training, batch 32, plain SGD, fp32, best of {TURNS} turns; {}", machine());
    println!("  network      threads   ours, samples/s   PyTorch   ratio");
    for (name, network) in &networks {
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
            let (mut ours, mut theirs) = (0.0f64, 0.0f64);
            for turn in 0..TURNS {
                ours = ours.max(pool.install(|| measure(&folder.path().join(format!("{name}.onnx")), network, turn))?);
                theirs = theirs.max(torch(&python, &["time", name, &threads.to_string()])?.trim().parse()?);
            }
            println!("  {name:<12} {threads:>7} {ours:>17.0} {theirs:>9.0} {:>7.2}", ours / theirs);
        }
    }
    Ok(())
}

fn torch(python: &str, arguments: &[&str]) -> Result<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/torch/training.py");
    let output = Command::new(python).arg(script).args(arguments).output().with_context(|| format!("{python} does not start"))?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Two epochs, of which the better counts.
fn measure(path: &Path, network: &Network, seed: u64) -> Result<f64> {
    let shape = [&[network.examples], &network.shape[..]].concat();
    let values = (0..shape.iter().product::<usize>()).map(|i| (i as f32 * 0.37).sin()).collect();
    let labels = (0..network.examples as i64).map(|i| i % 10).collect();
    let data = Dataset { x: Tensor::f32(shape, values)?.into(), y: Targets::Classes(labels) };
    let config = TrainConfig { lr: 0.01, batch: 32, ..TrainConfig::default() };
    let mut trainer = Trainer::new(&Model::decode(&fs::read(path)?)?, config)?;
    let mut best = 0.0f64;
    for epoch in 0..2 {
        let started = Instant::now();
        trainer.train(&data, 1, seed + epoch, &mut |_| ControlFlow::Continue(()))?;
        best = best.max(network.examples as f64 / started.elapsed().as_secs_f64());
    }
    Ok(best)
}

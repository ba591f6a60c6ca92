//! Local training in samples a second, on one thread and on two.
//!
//! `cargo bench --bench training`
#![allow(clippy::print_stdout)]

use std::{ops::ControlFlow, time::Instant};

use anyhow::Result;
use sapwood_benches::machine;
use sapwood_models::{
    Dataset, Model, Targets, Tensor,
    train::{Loss, Optimizer, TrainConfig, Trainer},
    zoo,
};

/// The binary's allocator: training frees and asks for the same large buffers at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    println!("training, batch 32, plain SGD, fp32, best of 3 epochs; {}", machine());
    println!("PyTorch 2.15 as noted on an idle machine of the same kind; noted only, no ratio is claimed");
    report("mlp 784-256-10", &zoo::mlp(784, &[256], 10, 1), &[784], 16384, ["52-55k", "60k"])?;
    report("lenet 1x28x28", &zoo::lenet(10, 1), &[1, 28, 28], 4096, ["9.5-11.2k", "16.4k"])
}

fn report(name: &str, model: &Model, example: &[usize], examples: usize, torch: [&str; 2]) -> Result<()> {
    for (threads, torch) in (1..).zip(torch) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        let ours = pool.install(|| measure(model, example, examples))?;
        println!("  {name:<15} {threads} thread{:<1} {ours:8.0} samples/s   PyTorch {torch}", if threads == 1 { "" } else { "s" });
    }
    Ok(())
}

fn measure(model: &Model, example: &[usize], examples: usize) -> Result<f64> {
    let mut shape = vec![examples];
    shape.extend(example);
    let values = (0..shape.iter().product::<usize>()).map(|i| (i as f32 * 0.37).sin()).collect();
    let data = Dataset { x: Tensor::f32(shape, values)?, y: Targets::Classes((0..examples as i64).map(|i| i % 10).collect()) };
    let config = TrainConfig { loss: Loss::CrossEntropy, optimizer: Optimizer::sgd(), lr: 0.01, batch: 32, freeze: Vec::new() };
    let mut trainer = Trainer::new(model, config)?;
    let mut best = 0.0f64;
    for seed in 0..3 {
        let started = Instant::now();
        trainer.train(&data, 1, seed, &mut |_| ControlFlow::Continue(()))?;
        best = best.max(examples as f64 / started.elapsed().as_secs_f64());
    }
    Ok(best)
}

//! Training throughput in samples per second, on the data-independent models of the zoo:
//! `RAYON_NUM_THREADS=1 cargo run --release -p sapwood-models --example throughput`.
#![allow(clippy::print_stdout)]

use std::ops::ControlFlow;
use std::time::Instant;

use sapwood_models::train::{Loss, Optimizer, TrainConfig, Trainer};
use sapwood_models::{Dataset, Model, Targets, Tensor, zoo};

/// Training frees and asks for the same large buffers at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    measure("mlp 784-256-10", &zoo::mlp(784, &[256], 10, 1), &[784], 16384)?;
    measure("lenet 1x28x28", &zoo::lenet(10, 1), &[1, 28, 28], 4096)?;
    measure("cnn 1x8x8", &zoo::cnn([1, 8, 8], 10, 1), &[1, 8, 8], 8192)?;
    Ok(())
}

fn measure(name: &str, model: &Model, example: &[usize], examples: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut shape = vec![examples];
    shape.extend(example);
    let values = (0..shape.iter().product::<usize>()).map(|i| (i as f32 * 0.37).sin()).collect();
    let data = Dataset { x: Tensor::f32(shape, values)?, y: Targets::Classes((0..examples as i64).map(|i| i % 10).collect()) };
    let config = TrainConfig { loss: Loss::CrossEntropy, optimizer: Optimizer::sgd(), lr: 0.01, batch: 32, freeze: Vec::new() };
    let mut trainer = Trainer::new(model, config)?;
    let mut best = 0.0f64;
    for seed in 0..3 {
        let start = Instant::now();
        trainer.train(&data, 1, seed, &mut |_| ControlFlow::Continue(()))?;
        best = best.max(examples as f64 / start.elapsed().as_secs_f64());
    }
    println!("{name}: {best:.0} samples/s");
    Ok(())
}

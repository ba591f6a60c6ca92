//! What a privacy budget leaves to learn: seven folds of two held-out form blocks, three draws of model and noise.
//!
//! `cargo bench -p sapwood-benches --bench private [-- folds=N] [seeds=N] [rounds=N]`
#![allow(clippy::print_stdout)]

use std::{num::NonZeroUsize, time::Instant};

use anyhow::{Context, Result, bail};
use sapwood_benches::{
    arguments, at_least, machine,
    sweep::{FOLDS, Trial, sweep},
};
use sapwood_models::{Dataset, Model, parameters, zoo};
use sapwood_protocol::{round, spec::Spec};
use sapwood_simulator::{Options, simulate};

/// The binary's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEEDS: u64 = 3;
/// An epsilon that needs next to no noise; clipping and rounding stay.
const NOISELESS: f64 = 1e5;
/// Least accuracy under the budget: the mean, and of each fold and seed.
const MEAN_BAR: f64 = 0.86;
const LEAST_BAR: f64 = 0.80;

/// Both accuracies on the blocks held out.
#[derive(Clone, Copy)]
struct Pair {
    noised: f64,
    noiseless: f64,
}

fn main() -> Result<()> {
    let (mut folds, mut seeds) = (FOLDS, SEEDS);
    let mut spec = Spec::parse(include_str!("private.toml"))?;
    for word in arguments() {
        match word.split_once('=') {
            Some(("folds", n)) => folds = n.parse::<usize>()?.clamp(1, FOLDS),
            Some(("seeds", n)) => seeds = n.parse::<u64>()?.max(1),
            Some(("rounds", n)) => spec.train.rounds = n.parse()?,
            _ => bail!("{word:?} is none of folds=N, seeds=N, rounds=N"),
        }
    }
    spec.evaluate.every = spec.train.rounds;
    println!(
        "{folds} folds of two blocks held out x {seeds} seeds; {} rounds of one step, lr {}, clip {}; {}",
        spec.train.rounds,
        spec.train.lr,
        spec.privacy.clip,
        machine()
    );
    println!("{}", spec.privacy_line());
    planned(&spec)?;
    println!("fold  blocks  seed   noised  noiseless  cost");
    let started = Instant::now();
    let pairs = sweep(folds, seeds, |trial| one(&spec, trial))?;
    summary(&pairs);
    println!("took {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn model(seed: u64) -> Model {
    zoo::mlp(64, &[32], 10, seed)
}

/// What the budget costs and does by the plan, which is the same for every fold and seed.
fn planned(spec: &Spec) -> Result<()> {
    let dimension = parameters(&model(1), &[])?.0.length() as u64;
    let plan = round::plan(spec, dimension)?;
    let nothing = round::plan(&noiseless(spec), dimension)?;
    println!(
        "planned for {} rounds, {dimension} parameters: epsilon {:.3} against the coordinator, {:.3} against an outsider, delta {:e}",
        plan.rounds, plan.epsilon_coordinator, plan.epsilon_outsider, plan.delta
    );
    println!(
        "noise_to_clip {:.4}; {:.1e} without noise (epsilon = {NOISELESS:e})",
        plan.forecast.noise_to_clip, nothing.forecast.noise_to_clip
    );
    Ok(())
}

fn noiseless(spec: &Spec) -> Spec {
    let mut spec = spec.clone();
    spec.privacy.epsilon = NOISELESS;
    spec
}

/// Trains from the same initial model with noise and without.
fn one(spec: &Spec, trial: Trial) -> Result<Pair> {
    let (Trial { fold, seed }, held) = (trial, trial.held());
    let (nodes, evaluation) = trial.data(&zoo::rows(&[1, 8, 8], 4.0, 1.0 / 8.0))?;
    let mut spec = spec.clone();
    spec.seed = seed;
    spec.evaluate.data = Some(format!("digits:{}-{}", held[0], held[1]));

    let noised = accuracy(&spec, nodes.clone(), evaluation.clone())?;
    let noiseless = accuracy(&noiseless(&spec), nodes, evaluation)?;
    let cost = 100.0 * (noiseless - noised);
    println!("{fold:>4}  {:>2}, {:>2}  {seed:>4}  {noised:>7.4}  {noiseless:>9.4}  {cost:+.2}", held[0], held[1]);
    Ok(Pair { noised, noiseless })
}

/// The simulator leaves the masks out, which cancel; the noise is real, and drawn from the spec's seed.
fn accuracy(spec: &Spec, nodes: Vec<Dataset>, evaluation: Dataset) -> Result<f64> {
    let options = Options { threads: NonZeroUsize::MIN, ..Options::default() };
    let run = simulate(spec, &model(spec.seed), nodes, Some(evaluation), &options, &mut |_| ())?;
    let last = run.rounds.last().and_then(|round| round.evaluation);
    last.and_then(|evaluation| evaluation.accuracy).context("the model was not scored")
}

fn summary(pairs: &[Pair]) {
    let of = |figure: fn(&Pair) -> f64| {
        let values: Vec<f64> = pairs.iter().map(figure).collect();
        (values.iter().sum::<f64>() / values.len() as f64, values.iter().copied().fold(f64::INFINITY, f64::min))
    };
    let (noised, noiseless) = (of(|p| p.noised), of(|p| p.noiseless));
    println!("noised     mean    {:.4}, bar at least {MEAN_BAR}: {}", noised.0, at_least(noised.0, MEAN_BAR));
    println!("           minimum {:.4}, bar at least {LEAST_BAR}: {}", noised.1, at_least(noised.1, LEAST_BAR));
    println!("noiseless  mean    {:.4}, minimum {:.4}", noiseless.0, noiseless.1);
    println!("cost       {:+.2} points, noiseless - noised, paired", 100.0 * (noiseless.0 - noised.0));
    println!("A seed draws the same noise in every fold, so the folds of one seed share it.");
}

//! Federated against pooled: seven folds of two held-out form blocks, three seeds, all 1,797 images.
//!
//! `cargo bench -p sapwood-benches --bench folds [-- folds=N] [seeds=N] [rounds=N]`
#![allow(clippy::print_stdout)]

use std::{num::NonZeroUsize, time::Instant};

use anyhow::{Context, Result, bail};
use sapwood_benches::{
    arguments, machine,
    sweep::{FOLDS, Trial, sweep},
    verdict,
};
use sapwood_models::zoo;
use sapwood_protocol::spec::Spec;
use sapwood_simulator::{Options, pooled, simulate};

/// The binary's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEEDS: u64 = 3;
/// Two-sided 95 % quantiles of Student's t for 1 to 6 degrees of freedom.
const T: [f64; FOLDS - 1] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447];

/// Both accuracies on the blocks held out.
#[derive(Clone, Copy)]
struct Pair {
    fold: usize,
    federated: f64,
    pooled: f64,
}

fn main() -> Result<()> {
    let (mut folds, mut seeds) = (FOLDS, SEEDS);
    let mut spec = Spec::parse(include_str!("folds.toml"))?;
    for word in arguments() {
        match word.split_once('=') {
            Some(("folds", n)) => folds = n.parse::<usize>()?.clamp(1, FOLDS),
            Some(("seeds", n)) => seeds = n.parse::<u64>()?.max(1),
            Some(("rounds", n)) => spec.train.rounds = n.parse()?,
            _ => bail!("{word:?} is none of folds=N, seeds=N, rounds=N"),
        }
    }
    let train = &spec.train;
    println!(
        "{folds} folds of two blocks held out x {seeds} seeds; {} rounds x {} epochs, batch {}, {} lr {} momentum {}; {}",
        train.rounds,
        train.local_epochs,
        train.batch,
        train.optimizer,
        train.lr,
        train.momentum,
        machine()
    );
    println!("every training image is visited {} times in both", train.rounds * train.local_epochs);
    println!("fold  blocks  seed  federated  pooled  gap");
    let started = Instant::now();
    let pairs = sweep(folds, seeds, |trial| one(&spec, trial))?;
    summary(&pairs, folds);
    println!("took {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Trains both twins from the same initial model.
fn one(spec: &Spec, trial: Trial) -> Result<Pair> {
    let (Trial { fold, seed }, held) = (trial, trial.held());
    let (nodes, evaluation) = trial.data(&zoo::scale(&[1, 8, 8], 1.0 / 16.0))?;
    let model = zoo::cnn([1, 8, 8], 10, seed);
    let mut spec = spec.clone();
    spec.seed = seed;
    spec.evaluate.data = Some(format!("digits:{}-{}", held[0], held[1]));

    let central = pooled(&spec, &model, &nodes, Some(&evaluation))?;
    let central = central.evaluation.and_then(|e| e.accuracy).context("the pooled model was not scored")?;
    let options = Options { threads: NonZeroUsize::MIN, ..Options::default() };
    let run = simulate(&spec, &model, nodes, Some(evaluation), &options, &mut |_| ())?;
    let federated = run.rounds.last().and_then(|round| round.evaluation).and_then(|e| e.accuracy);
    let federated = federated.context("the federated model was not scored")?;
    let gap = 100.0 * (central - federated);
    println!("{fold:>4}  {:>2}, {:>2}  {seed:>4}  {federated:>9.4}  {central:.4}  {gap:+.2}", held[0], held[1]);
    Ok(Pair { fold, federated, pooled: central })
}

fn summary(pairs: &[Pair], folds: usize) {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let of = |figure: fn(&Pair) -> f64| mean(&pairs.iter().map(figure).collect::<Vec<_>>());
    let (federated, central) = (of(|p| p.federated), of(|p| p.pooled));
    let gap = |p: &Pair| 100.0 * (p.pooled - p.federated);
    println!("federated  {federated:.4} mean");
    println!("pooled     {central:.4} mean, bar at least 0.92: {}", if central >= 0.92 { "met" } else { "MISSED" });
    let by_fold: Vec<f64> = (1..=folds).map(|fold| mean(&pairs.iter().filter(|p| p.fold == fold).map(gap).collect::<Vec<_>>())).collect();
    let average = mean(&by_fold);
    println!("gap        {average:+.2} points, pooled - federated, paired; bar 1.5: {}", verdict(average, 1.5));
    if let Some(t) = folds.checked_sub(2).and_then(|n| T.get(n)) {
        let variance = by_fold.iter().map(|g| (g - average).powi(2)).sum::<f64>() / (folds - 1) as f64;
        let half = t * (variance / folds as f64).sqrt();
        println!(
            "           95 % interval {:+.2} to {:+.2}, clustered by fold (t, {} degrees of freedom)",
            average - half,
            average + half,
            folds - 1
        );
    }
    println!("The 14 form blocks come from 13 writers, so two blocks that are not in the same fold may share one.");
}

//! `model train`.

use std::{ops::ControlFlow, path::Path, time::Instant};

use indicatif::ProgressBar;
use sapwood_models::{
    Dataset,
    train::{Epoch, Evaluation, Optimizer, Progress, Schedule, Shape, TrainConfig, TrainError, Trainer, Watch},
};
use sapwood_protocol::Digest;
use serde_json::{Value, json};

use super::{Decay, TrainArgs, files::read_data, read_model, report, write_model};
use crate::{
    output::{Answer, Exit, Failure, OrFail, chain, table},
    progress,
};

pub(super) fn train(args: &TrainArgs, json: bool) -> Result<Answer, Failure> {
    let model = read_model(&args.file)?;
    let data = args.data.read()?;
    let (schema, preprocess) = (args.data.schema.as_deref(), args.data.preprocess.as_deref());
    let validation = args.validation.as_ref().map(|source| read_data(source, schema, preprocess)).transpose()?;
    let mut trainer = Trainer::new(&model, config(args)?).or_usage()?;
    let steps = data.len().div_ceil(args.batch.saturating_mul(args.accumulate).max(1)) * args.epochs;
    let mut watcher = Watcher {
        bar: progress::bar(steps as u64, "training", json),
        validation,
        patience: args.patience,
        scores: Vec::new(),
        best: None,
        checkpoint: args.checkpoint.as_deref(),
        failed: None,
    };
    let started = Instant::now();
    let epochs = trainer.fit(&data, args.epochs, args.seed, &mut watcher);
    watcher.bar.finish_and_clear();
    let epochs = epochs.map_err(|error| match error {
        TrainError::Diverged { .. } => Failure::new(Exit::TimedOut, chain(&error)),
        _ => Failure::usage(chain(&error)),
    })?;
    if let Some(failed) = watcher.failed {
        return Err(failed);
    }
    let rate = (data.len() * epochs.len()) as f64 / started.elapsed().as_secs_f64();
    if let Some(best) = &watcher.best {
        trainer.set_parameters(&best.parameters).or_usage()?;
    }
    let trained = trainer.export();
    write_model(&args.out, &trained)?;
    if let Some(folder) = &args.report {
        report::history(folder, &epochs, &watcher.scores)?;
    }
    let classes = args.data.classes()?;
    Ok(told(args, &epochs, &watcher, rate, Digest::of(&trained.encode()), &classes))
}

fn config(args: &TrainArgs) -> Result<TrainConfig, Failure> {
    let shape = match args.schedule {
        Decay::Constant => Shape::Constant,
        Decay::Linear => Shape::Linear,
        Decay::Cosine => Shape::Cosine,
    };
    Ok(TrainConfig {
        optimizer: optimizer(&args.optimizer, args.momentum, args.weight_decay)?,
        lr: args.lr,
        schedule: Schedule { shape, warmup: args.warmup },
        gradient_clip: args.gradient_clip,
        accumulate: args.accumulate,
        batch: args.batch,
        freeze: args.freeze.clone(),
        ..args.loss.config()?
    })
}

fn optimizer(name: &str, momentum: f32, weight_decay: f32) -> Result<Optimizer, Failure> {
    match name {
        "sgd" => Ok(Optimizer::Sgd { momentum, weight_decay, nesterov: false }),
        "adam" => Ok(Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay }),
        "adamw" => Ok(Optimizer::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay }),
        other => Err(Failure::usage(format!("{other:?} is no optimizer: use sgd, adam or adamw"))),
    }
}

/// Moves the bar, measures each epoch, keeps the best one and says when no better one is to be expected.
struct Watcher<'a> {
    bar: ProgressBar,
    validation: Option<Dataset>,
    patience: Option<usize>,
    /// On the validation data, by epoch.
    scores: Vec<Evaluation>,
    best: Option<Best>,
    checkpoint: Option<&'a Path>,
    /// A checkpoint that could not be written ends the training.
    failed: Option<Failure>,
}

/// The parameters of the epoch with the least loss.
struct Best {
    epoch: usize,
    loss: f64,
    parameters: Vec<f32>,
}

impl Watch for Watcher<'_> {
    fn step(&mut self, step: &Progress) -> ControlFlow<()> {
        self.bar.inc(1);
        self.bar.set_message(format!("loss {:.4}", step.loss));
        ControlFlow::Continue(())
    }

    fn epoch(&mut self, trainer: &Trainer, epoch: usize, _: &Epoch) -> Result<ControlFlow<()>, TrainError> {
        if let Some(path) = self.checkpoint
            && let Err(failed) = write_model(path, &trainer.export())
        {
            self.failed = Some(failed);
            return Ok(ControlFlow::Break(()));
        }
        let Some(data) = &self.validation else { return Ok(ControlFlow::Continue(())) };
        let score = trainer.evaluate(data)?;
        self.scores.push(score);
        if self.best.as_ref().is_none_or(|best| score.loss < best.loss) {
            self.best = Some(Best { epoch, loss: score.loss, parameters: trainer.parameters() });
        }
        let waited = epoch - self.best.as_ref().map_or(epoch, |best| best.epoch);
        let enough = self.patience.is_some_and(|patience| waited >= patience.max(1));
        Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}

fn told(args: &TrainArgs, epochs: &[Epoch], watcher: &Watcher<'_>, rate: f64, digest: Digest, classes: &[String]) -> Answer {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.4}"));
    let score = |i: usize| watcher.scores.get(i);
    let record = |(i, epoch): (usize, &Epoch)| {
        let mut record = json!({"loss": epoch.loss, "accuracy": epoch.accuracy});
        if let Some(score) = score(i) {
            record["validation"] = json!({"loss": score.loss, "accuracy": score.accuracy});
        }
        record
    };
    let row = |(i, epoch): (usize, &Epoch)| {
        let mut row = vec![(i + 1).to_string(), number(Some(epoch.loss)), number(epoch.accuracy)];
        if let Some(score) = score(i) {
            row.extend([number(Some(score.loss)), number(score.accuracy)]);
        }
        row
    };
    let heads = ["epoch", "loss", "accuracy", "validation", "accuracy"];
    let heads = if watcher.validation.is_some() { &heads[..] } else { &heads[..3] };
    let best = watcher.best.as_ref().map(|best| best.epoch + 1);
    let kept = best.map_or_else(String::new, |epoch| format!("kept epoch {epoch}, the best on the validation data\n"));
    let rows: Vec<_> = epochs.iter().enumerate().map(row).collect();
    let losses: Vec<f64> = epochs.iter().map(|epoch| epoch.loss).collect();
    let named: Vec<String> = classes.iter().enumerate().map(|(class, name)| format!("{class} = {name}")).collect();
    let named = if named.is_empty() { String::new() } else { format!("classes {}\n", named.join(", ")) };
    let table = table(heads, &rows);
    let text = format!("{table}\nloss {}\n{kept}{named}{rate:.0} samples/s\n{}: {digest}", curve(&losses), args.out.display());
    let records: Vec<Value> = epochs.iter().enumerate().map(record).collect();
    let mut told = json!({"epochs": records, "best_epoch": best, "digest": digest, "samples_per_second": rate});
    if !classes.is_empty() {
        told["classes"] = json!(classes);
    }
    Answer::new(told, text)
}

/// A line of blocks, as high as the values.
fn curve(values: &[f64]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
    let height = |v: &f64| if high > low { ((v - low) / (high - low) * 7.0).round() as usize } else { 0 };
    values.iter().map(|v| BLOCKS[height(v).min(7)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_falls_from_the_highest_block_to_the_lowest() {
        assert_eq!(curve(&[2.0, 1.0, 0.0]), "█▅▁");
        assert_eq!(curve(&[1.0, 1.0]), "▁▁");
        assert_eq!(curve(&[]), "");
    }
}

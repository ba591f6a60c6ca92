//! `model train`, `model eval` and `model verify`.

use std::{ops::ControlFlow, path::Path, time::Instant};

use sapwood_models::{
    Dataset, Features, Forward, Model, Targets, Tensor, metrics,
    train::{Loss, Optimizer, TrainConfig, TrainError, Trainer},
};
use sapwood_protocol::Digest;
use sapwood_runtime::{Runtime, SessionOptions};
use serde_json::json;

use super::{DataArgs, Engine, EvalArgs, TrainArgs, read_model, write_model};
use crate::{
    output::{Answer, Exit, Failure, OrFail, chain, table},
    progress,
};

pub(super) fn train(args: &TrainArgs, json: bool) -> Result<Answer, Failure> {
    let model = read_model(&args.file)?;
    let data = args.data.read()?;
    let config = TrainConfig {
        loss: loss(&args.loss)?,
        optimizer: optimizer(&args.optimizer, args.momentum, args.weight_decay)?,
        lr: args.lr,
        batch: args.batch,
        freeze: args.freeze.clone(),
    };
    let mut trainer = Trainer::new(&model, config).or_usage()?;
    let steps = data.len().div_ceil(args.batch.max(1)) * args.epochs;
    let bar = progress::bar(steps as u64, "training", json);
    let started = Instant::now();
    let epochs = trainer.train(&data, args.epochs, args.seed, &mut |step| {
        bar.inc(1);
        bar.set_message(format!("loss {:.4}", step.loss));
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    let epochs = epochs.map_err(|error| match error {
        TrainError::Diverged { .. } => Failure::new(Exit::TimedOut, chain(&error)),
        _ => Failure::usage(chain(&error)),
    })?;
    let rate = (data.len() * args.epochs) as f64 / started.elapsed().as_secs_f64();
    let trained = trainer.export();
    write_model(&args.out, &trained)?;
    let digest = Digest::of(&trained.encode());
    let records: Vec<_> = epochs.iter().map(|e| json!({"loss": e.loss, "accuracy": e.accuracy})).collect();
    let rows: Vec<_> = epochs
        .iter()
        .enumerate()
        .map(|(i, e)| vec![(i + 1).to_string(), format!("{:.4}", e.loss), e.accuracy.map_or_else(String::new, |a| format!("{a:.4}"))])
        .collect();
    let text = format!("{}\n{rate:.0} samples/s\n{}: {digest}", table(&["epoch", "loss", "accuracy"], &rows), args.out.display());
    Ok(Answer::new(json!({"epochs": records, "digest": digest, "samples_per_second": rate}), text))
}

pub(super) fn eval(args: &EvalArgs) -> Result<Answer, Failure> {
    let model = read_model(&args.file)?;
    let data = args.data.read()?;
    let loss = loss(&args.loss)?;
    let (accuracy, loss) = match args.runtime {
        Engine::Burn => {
            let config = TrainConfig { loss, optimizer: Optimizer::sgd(), lr: 1.0, batch: 64, freeze: Vec::new() };
            let found = Trainer::new(&model, config).or_usage()?.evaluate(&data).or_usage()?;
            (found.accuracy, found.loss)
        }
        Engine::Ort => score(loss, &logits(&model, ort(&model, &data.x)?), &data.y)?,
    };
    let shown = accuracy.map_or_else(String::new, |a| format!("accuracy {a:.4}, "));
    Ok(Answer::new(
        json!({"accuracy": accuracy, "loss": loss, "examples": data.len()}),
        format!("{shown}loss {loss:.4} on {} examples", data.len()),
    ))
}

/// Probabilities become logits again, so that the loss is the one that training takes.
fn logits(model: &Model, answers: Tensor) -> Tensor {
    let output = model.outputs().into_iter().next().map(|o| o.name);
    let last = model.graph().node.iter().find(|n| n.output.first() == output.as_ref());
    match (last.map(|n| n.op_type()), answers.as_f32()) {
        (Some("Softmax"), Some(values)) => {
            let logits = values.iter().map(|p| p.max(f32::MIN_POSITIVE).ln()).collect();
            Tensor::f32(answers.shape.clone(), logits).unwrap_or(answers)
        }
        _ => answers,
    }
}

/// Accuracy and mean loss of a model's answers.
fn score(loss: Loss, answers: &Tensor, targets: &Targets) -> Result<(Option<f64>, f64), Failure> {
    let values = answers.as_f32().ok_or_else(|| Failure::usage("the model's first output is not float32"))?;
    match (loss, targets) {
        (Loss::CrossEntropy, Targets::Classes(labels)) => {
            let classes = answers.row_len();
            let mean = metrics::cross_entropy(values, classes, labels).ok_or_else(|| Failure::usage("there is nothing to score"))?;
            Ok((Some(metrics::accuracy(values, classes, labels)), mean))
        }
        (Loss::Mse, Targets::Values(truth)) => {
            let mean = truth.as_f32().and_then(|truth| metrics::mean_squared_error(values, truth));
            Ok((None, mean.ok_or_else(|| Failure::usage("the targets do not fit the model's answers"))?))
        }
        _ => Err(Failure::usage("--runtime ort scores cross-entropy on classes and mse on values").hint("--runtime burn")),
    }
}

pub(super) fn loss(name: &str) -> Result<Loss, Failure> {
    match name {
        "cross-entropy" | "cross_entropy" => Ok(Loss::CrossEntropy),
        "mse" => Ok(Loss::Mse),
        "bce" => Ok(Loss::Bce),
        other => Err(Failure::usage(format!("{other:?} is no loss: use cross-entropy, mse or bce"))),
    }
}

fn optimizer(name: &str, momentum: f32, weight_decay: f32) -> Result<Optimizer, Failure> {
    match name {
        "sgd" => Ok(Optimizer::Sgd { momentum, weight_decay, nesterov: false }),
        "adam" => Ok(Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay }),
        "adamw" => Ok(Optimizer::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay }),
        other => Err(Failure::usage(format!("{other:?} is no optimizer: use sgd, adam or adamw"))),
    }
}

/// The same input through Burn and through ONNX Runtime.
pub(super) fn verify(file: &Path, data: &DataArgs, tolerance: f64) -> Result<Answer, Failure> {
    let model = read_model(file)?;
    let Dataset { x, .. } = data.read()?;
    let (ours, theirs) = (burn(&model, &x)?, ort(&model, &x)?);
    let (Some(a), Some(b)) = (ours.as_f32(), theirs.as_f32()) else {
        return Err(Failure::usage("the model's first output is not float32"));
    };
    if ours.shape != theirs.shape {
        return Err(Failure::new(Exit::Refused, format!("Burn gives the shape {:?}, ONNX Runtime {:?}", ours.shape, theirs.shape)));
    }
    let worst = largest_difference(a, b);
    let found = json!({"largest_difference": worst, "tolerance": tolerance, "examples": x.rows()});
    if worst.is_nan() || worst > tolerance {
        let message = format!("Burn and ONNX Runtime differ by {worst:.2e}, more than {tolerance:.0e}");
        return Err(Failure::new(Exit::Refused, message).data(found));
    }
    Ok(Answer::new(found, format!("Burn and ONNX Runtime agree within {worst:.2e} on {} examples", x.rows())))
}

/// NaN if either side has one.
fn largest_difference(a: &[f32], b: &[f32]) -> f64 {
    // `f64::max` would drop a NaN.
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, |worst, d| if d > worst || d.is_nan() { d } else { worst })
}

fn burn(model: &Model, x: &Features) -> Result<Tensor, Failure> {
    Forward::new(model).and_then(|graph| graph.answer(x)).or_usage()
}

fn ort(model: &Model, x: &Features) -> Result<Tensor, Failure> {
    let runtime = Runtime::load(None).or_fail(Exit::NotFound).map_err(|f| f.hint("sapwood runtime install"))?;
    let mut session = runtime.session(&model.encode(), SessionOptions::default()).or_usage()?;
    session.answer(x).or_usage()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_that_is_no_number_is_not_small() {
        assert!(largest_difference(&[1.0, f32::NAN, 1.0], &[1.0, 2.0, 4.0]).is_nan());
        assert!((largest_difference(&[1.0, 5.0], &[1.5, 2.0]) - 3.0).abs() < 1e-9);
    }
}

//! `model eval` and `model verify`.

use std::path::Path;

use sapwood_models::{
    Dataset, Model, Tensor,
    train::{Labels, Metric, TrainConfig, score},
    trains_when_run,
};
use serde_json::json;

use super::{DataArgs, Engine, EvalArgs, LossArgs, answers::Answers, read_model, report::Merit};
use crate::output::{Answer, Exit, Failure, OrFail};

pub(super) fn eval(args: &EvalArgs) -> Result<Answer, Failure> {
    let model = read_model(&args.file)?;
    let data = args.data.read()?;
    let config = args.loss.config()?;
    let mut answers = Answers::new(&model, args.runtime)?.all(&data.x)?;
    // A loss graph reads what the model answers.
    if config.loss_graph.is_none() {
        answers = logits(&model, answers);
    }
    let found = score(&config, &answers, &data.y).or_usage()?;
    let mut merit = Merit::of(&answers, &data.y, &args.data.classes()?)?;
    if let Some(path) = &args.metric {
        let last = args.metric_final.as_deref().map(read_model).transpose()?;
        let figures = Metric::new(&read_model(path)?, last.as_ref()).or_usage()?.measure(&answers, &data.y).or_usage()?;
        let shown: Vec<String> = figures.iter().map(|figure| format!("{figure:.4}")).collect();
        merit.text = format!("{}\n{} {}", merit.text, path.display(), shown.join(" "));
        merit.json["graph"] = json!(figures);
    }
    let told = json!({"accuracy": found.accuracy, "loss": found.loss, "examples": found.examples, "metrics": merit.json});
    if let Some(folder) = &args.report {
        merit.write(folder, &told)?;
    }
    let shown = found.accuracy.map_or_else(String::new, |a| format!("accuracy {a:.4}, "));
    Ok(Answer::new(told, format!("{}\n{shown}loss {:.4} on {} examples", merit.text, found.loss, found.examples)))
}

impl LossArgs {
    /// What is minimized; the rest as it is by default.
    pub(super) fn config(&self) -> Result<TrainConfig, Failure> {
        let labels = Labels { weights: self.class_weights.clone(), smoothing: self.label_smoothing, ignore: self.ignore_label };
        let config = TrainConfig { labels, ..TrainConfig::default() };
        Ok(if self.loss.ends_with(".onnx") {
            TrainConfig { loss_graph: Some(read_model(Path::new(&self.loss))?), ..config }
        } else {
            TrainConfig { loss: self.loss.parse().or_usage()?, ..config }
        })
    }
}

/// Probabilities become logits again, so that the loss is the one that training takes.
fn logits(model: &Model, answers: Tensor) -> Tensor {
    let output = model.outputs().into_iter().next().map(|o| o.name);
    let last = model.graph().node.iter().find(|n| n.output.first() == output.as_ref());
    let back: fn(f32) -> f32 = match last.map(|n| n.op_type()) {
        Some("Softmax") => |p| p.max(f32::MIN_POSITIVE).ln(),
        Some("Sigmoid") => |p| (p.max(f32::MIN_POSITIVE) / (1.0 - p).max(f32::MIN_POSITIVE)).ln(),
        _ => return answers,
    };
    let values = answers.as_f32().map(|values| values.iter().map(|p| back(*p)).collect());
    values.and_then(|values| Tensor::f32(answers.shape.clone(), values).ok()).unwrap_or(answers)
}

/// The same input through Burn and through ONNX Runtime.
pub(super) fn verify(file: &Path, data: &DataArgs, tolerance: f64) -> Result<Answer, Failure> {
    let model = read_model(file)?;
    let Dataset { x, .. } = data.read()?;
    let ours = Answers::new(&model, Engine::Burn)?.all(&x)?;
    let theirs = Answers::new(&model, Engine::Ort)?.all(&x)?;
    let (Some(a), Some(b)) = (ours.as_f32(), theirs.as_f32()) else {
        return Err(Failure::usage("the model's first output is not float32"));
    };
    if ours.shape != theirs.shape {
        return Err(Failure::new(Exit::Refused, format!("Burn gives the shape {:?}, ONNX Runtime {:?}", ours.shape, theirs.shape)));
    }
    let worst = largest_difference(a, b);
    let found = json!({"largest_difference": worst, "tolerance": tolerance, "examples": x.rows()});
    if worst.is_nan() || worst > tolerance {
        let failure = Failure::new(Exit::Refused, format!("Burn and ONNX Runtime differ by {worst:.2e}, more than {tolerance:.0e}"));
        return Err(match trains_when_run(&model).first() {
            Some(node) => failure.hint(format!(
                "{node} is exported for training, and ONNX Runtime runs it so; `sapwood model train` writes it for inference, or export with model.eval()"
            )),
            None => failure,
        }
        .data(found));
    }
    Ok(Answer::new(found, format!("Burn and ONNX Runtime agree within {worst:.2e} on {} examples", x.rows())))
}

/// NaN if either side has one.
fn largest_difference(a: &[f32], b: &[f32]) -> f64 {
    // `f64::max` would drop a NaN.
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, |worst, d| if d > worst || d.is_nan() { d } else { worst })
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

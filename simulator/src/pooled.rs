//! The twin: the same model, trained as long on all examples in one place.

use std::ops::ControlFlow;

use sapwood_models::{
    Dataset, Targets,
    onnx::Model,
    train::{Epoch, Evaluation, Schedule, Shape, Trainer},
};
use sapwood_protocol::{
    round::TrainTerms,
    spec::{self, Spec, TrainSpec},
};

use crate::{SimulationError, train_config};

/// A pooled training.
#[derive(Clone)]
pub struct Pooled {
    /// What each epoch gave.
    pub epochs: Vec<Epoch>,
    /// The final parameters `[D]`.
    pub params: Vec<f32>,
    /// The final model, in inference form.
    pub model: Model,
    /// How it does on the evaluation data.
    pub evaluation: Option<Evaluation>,
}

/// Trains on all of `nodes` together for `train.rounds · train.local_epochs` epochs, so that every example is visited exactly
/// as often as in the federated run whose every round has every node.
///
/// # Errors
/// [`SimulationError`].
pub fn pooled(spec: &Spec, model: &Model, nodes: &[Dataset], evaluation: Option<&Dataset>) -> Result<Pooled, SimulationError> {
    spec.validate()?;
    let data = concat(nodes)?;
    let mut config = train_config(&TrainTerms::of(spec, 1))?;
    (config.lr, config.schedule) = (spec.train.lr as f32, schedule(&spec.train));
    let mut trainer = Trainer::new(model, config)?;
    let epochs = spec.train.rounds as usize * spec.train.local_epochs as usize;
    let epochs = trainer.train(&data, epochs, spec.seed, &mut |_| ControlFlow::Continue(())).map_err(SimulationError::Pooled)?;
    let evaluation = evaluation.map(|data| trainer.evaluate(data)).transpose().map_err(SimulationError::Evaluation)?;
    Ok(Pooled { epochs, params: trainer.parameters(), model: trainer.export(), evaluation })
}

/// The run's learning rates, from step to step instead of from round to round.
fn schedule(train: &TrainSpec) -> Schedule {
    let rounds = train.rounds as f32;
    let behind = (train.rounds.saturating_sub(train.warmup)).max(1) as f32;
    let shape = match train.schedule {
        spec::Schedule::Constant => Shape::Constant,
        spec::Schedule::Linear => Shape::Linear,
        spec::Schedule::Cosine => Shape::Cosine,
        spec::Schedule::Step { every, factor } => Shape::Step { every: (every as f32 / behind).min(1.0), factor: factor as f32 },
    };
    Schedule { shape, warmup: train.warmup as f32 / rounds }
}

/// All examples, one data set after the other.
///
/// # Errors
/// [`SimulationError::NoData`], [`SimulationError::Shapes`].
pub fn concat(parts: &[Dataset]) -> Result<Dataset, SimulationError> {
    let (first, rest) = parts.split_first().ok_or(SimulationError::NoData)?;
    let mut all = first.clone();
    for (index, part) in (1..).zip(rest) {
        let mut ok = all.x.append(&part.x);
        ok &= match (&mut all.y, &part.y) {
            (Targets::Classes(labels), Targets::Classes(more)) => {
                labels.extend_from_slice(more);
                true
            }
            (Targets::Values(values), Targets::Values(more)) => values.append(more),
            _ => false,
        };
        if !ok {
            return Err(SimulationError::Shapes { index });
        }
    }
    Ok(all)
}

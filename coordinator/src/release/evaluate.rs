//! How the global model does on the evaluation data, round by round: through the interpreter, compiled once per run.

use sapwood_models::{
    Dataset, Model,
    train::{Labels, TrainConfig, Trainer},
};
use sapwood_protocol::{run::EvaluationRecord, spec};

use super::{ReleaseError, sources};
use crate::objects::Objects;

/// A model and the examples that it is scored on.
pub struct Evaluator {
    trainer: Trainer,
    data: Dataset,
}

impl Evaluator {
    /// Compiles the model; `data` holds raw features, which `preprocess` turns into the model's input.
    pub fn new(model: &Model, preprocess: Option<&Model>, config: TrainConfig, data: &Dataset) -> Result<Self, ReleaseError> {
        let trainer = Trainer::new(model, config)?;
        let data = Dataset { x: sources::prepared(preprocess, &data.x)?, y: data.y.clone() };
        Ok(Self { trainer, data })
    }

    /// Scores `[D]` parameters.
    pub fn evaluate(&mut self, params: &[f32]) -> Result<EvaluationRecord, ReleaseError> {
        self.trainer.set_parameters(params)?;
        let scored = self.trainer.evaluate(&self.data)?;
        Ok(EvaluationRecord {
            loss: Some(scored.loss).filter(|loss| loss.is_finite()),
            accuracy: scored.accuracy,
            examples: scored.examples as u64,
        })
    }
}

/// What a run's loss and frozen parameters mean to a trainer that only measures.
///
/// # Errors
/// A loss graph that is not stored, or is no model.
pub(crate) fn measuring(spec: &spec::ModelSpec, objects: &Objects) -> Result<TrainConfig, ReleaseError> {
    if let Some(digest) = spec.loss.digest() {
        let loss_graph = Some(Model::decode(&objects.read(digest)?)?);
        return Ok(TrainConfig { loss_graph, freeze: spec.freeze.clone(), ..TrainConfig::default() });
    }
    let weights = spec.labels.weights.iter().map(|w| *w as f32).collect();
    let labels = Labels { weights, smoothing: spec.labels.smoothing as f32, ignore: spec.labels.ignore };
    Ok(TrainConfig { loss: spec.loss.to_string().parse()?, labels, freeze: spec.freeze.clone(), ..TrainConfig::default() })
}

/// `[D]` floats from an object's bytes.
pub(super) fn floats(bytes: &[u8]) -> Result<Vec<f32>, ReleaseError> {
    let (values, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(ReleaseError::setting("params", format_args!("{} bytes are no whole number of floats", bytes.len())));
    }
    Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

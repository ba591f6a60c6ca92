//! From the terms of a round to what the models crate takes.

use sapwood_models::{
    Dataset, Forward,
    onnx::Model,
    train::{self, Labels, Loss, TrainConfig},
};
use sapwood_protocol::{round::TrainTerms, spec::OptimizerKind};

use crate::SimulationError;

/// How a node trains under these terms, but for the graph of its loss.
///
/// # Errors
/// [`SimulationError::Model`] for a loss of another version of the protocol.
pub fn train_config(terms: &TrainTerms) -> Result<TrainConfig, SimulationError> {
    let o = &terms.optimizer;
    let (beta1, beta2, epsilon, weight_decay) = (o.beta1 as f32, o.beta2 as f32, o.epsilon as f32, o.weight_decay as f32);
    Ok(TrainConfig {
        // A graph stands in the place of the name.
        loss: if terms.loss.digest().is_some() { Loss::CrossEntropy } else { terms.loss.to_string().parse()? },
        labels: Labels {
            weights: terms.labels.weights.iter().map(|w| *w as f32).collect(),
            smoothing: terms.labels.smoothing as f32,
            ignore: terms.labels.ignore,
        },
        optimizer: match o.kind {
            OptimizerKind::Sgd => train::Optimizer::Sgd { momentum: o.momentum as f32, weight_decay, nesterov: o.nesterov },
            OptimizerKind::Adam => train::Optimizer::Adam { beta1, beta2, epsilon, weight_decay },
            OptimizerKind::AdamW => train::Optimizer::AdamW { beta1, beta2, epsilon, weight_decay },
        },
        lr: terms.lr as f32,
        batch: terms.batch as usize,
        freeze: terms.freeze.clone(),
        ..TrainConfig::default()
    })
}

/// Runs the examples through a preprocessing graph once, which is what a node does before it trains.
///
/// # Errors
/// [`SimulationError::Model`] if the examples do not fit the graph, or it has more than one input.
pub fn preprocess(graph: &Model, data: Dataset) -> Result<Dataset, SimulationError> {
    Ok(Dataset { x: Forward::new(graph)?.features(&data.x, data.len())?, y: data.y })
}

//! From the terms of a round to what the models crate takes.

use sapwood_models::{
    Dataset, Forward,
    onnx::Model,
    train::{self, TrainConfig},
};
use sapwood_protocol::{
    round::TrainTerms,
    spec::{Loss, OptimizerKind},
};

use crate::SimulationError;

/// How a node trains under these terms.
pub fn train_config(terms: &TrainTerms) -> TrainConfig {
    let o = &terms.optimizer;
    let (beta1, beta2, epsilon, weight_decay) = (o.beta1 as f32, o.beta2 as f32, o.epsilon as f32, o.weight_decay as f32);
    TrainConfig {
        loss: match terms.loss {
            Loss::CrossEntropy => train::Loss::CrossEntropy,
            Loss::Mse => train::Loss::Mse,
            Loss::Bce => train::Loss::Bce,
        },
        optimizer: match o.kind {
            OptimizerKind::Sgd => train::Optimizer::Sgd { momentum: o.momentum as f32, weight_decay, nesterov: o.nesterov },
            OptimizerKind::Adam => train::Optimizer::Adam { beta1, beta2, epsilon, weight_decay },
            OptimizerKind::AdamW => train::Optimizer::AdamW { beta1, beta2, epsilon, weight_decay },
        },
        lr: terms.lr as f32,
        batch: terms.batch as usize,
        freeze: terms.freeze.clone(),
    }
}

/// Runs the examples through a preprocessing graph once, which is what a node does before it trains.
///
/// # Errors
/// [`SimulationError::Model`] if the examples do not fit the graph, or it has more than one input.
pub fn preprocess(graph: &Model, data: Dataset) -> Result<Dataset, SimulationError> {
    Ok(Dataset { x: Forward::new(graph)?.features(&data.x, data.len())?, y: data.y })
}

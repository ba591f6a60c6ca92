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
/// [`SimulationError::Preprocess`], or [`SimulationError::Model`] if the examples do not fit the graph.
pub fn preprocess(graph: &Model, data: Dataset) -> Result<Dataset, SimulationError> {
    let inputs = graph.inputs();
    let forward = Forward::new(graph)?;
    let [input] = &inputs[..] else {
        return Err(SimulationError::Preprocess { inputs: inputs.len(), outputs: graph.outputs().len() });
    };
    let mut outputs = forward.run(&[(&input.name, data.x)])?;
    match (outputs.pop(), outputs.len()) {
        (Some((_, x)), 0) => Ok(Dataset { x, y: data.y }),
        (last, others) => Err(SimulationError::Preprocess { inputs: 1, outputs: others + usize::from(last.is_some()) }),
    }
}

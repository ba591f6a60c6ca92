//! Why training stopped.

use crate::dataset::DataFault;
use crate::error::ModelError;

/// Training or evaluation that could not go on. The trainer's parameters are then those
/// of before the call.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// NaN or infinity in the loss or in a parameter.
    #[error("training diverged in epoch {epoch}, step {step}: `{tensor}` is not finite; lower the learning rate or scale the inputs")]
    Diverged {
        /// Epoch, from 0.
        epoch: usize,
        /// Step of the epoch, from 0.
        step: usize,
        /// The first tensor in graph order that is not finite, or "loss".
        tensor: String,
    },
    /// The watcher asked to stop.
    #[error("training was stopped")]
    Stopped,
    /// Examples that do not fit the model.
    #[error("the data does not fit the model")]
    Data(#[from] DataFault),
    /// Targets of another extent than the model's answers.
    #[error("each example has {found} target values, the model answers with {expected}")]
    Targets {
        /// Values per example that the model gives.
        expected: usize,
        /// Values per example in the data.
        found: usize,
    },
    /// The model cannot be run on these examples.
    #[error("the model cannot be trained on this data")]
    Model(#[from] ModelError),
}

//! Why a simulation came to nothing.

use sapwood_models::{ModelError, train::TrainError};
use sapwood_protocol::Fault;

/// Why a simulation came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulationError {
    /// The spec cannot be run, or a machine refused.
    #[error("the run was refused")]
    Refused(#[from] Fault),
    /// The model cannot be trained.
    #[error("the model cannot be trained")]
    Model(#[from] ModelError),
    /// The model cannot be scored on the evaluation data.
    #[error("the evaluation data does not fit")]
    Evaluation(#[source] TrainError),
    /// Pooled training stopped.
    #[error("pooled training stopped")]
    Pooled(#[source] TrainError),
    /// Fewer data sets than the smallest cohort.
    #[error("{have} nodes, and `cohort.minimum` is {need}: make more parts or lower the minimum")]
    TooFewNodes {
        /// Data sets given.
        have: usize,
        /// The minimum.
        need: u32,
    },
    /// Not a probability.
    #[error("a drop probability of {drop}; give a number from 0 to 1")]
    Drop {
        /// As given.
        drop: f64,
    },
    /// Data sets that do not belong together.
    #[error("data set {index} differs from the first in the shape of its examples or the kind of its targets")]
    Shapes {
        /// Which, from 0.
        index: usize,
    },
    /// No data.
    #[error("no data")]
    NoData,
    /// The run ended without all its rounds.
    #[error("{why}")]
    Failed {
        /// Why.
        why: String,
    },
}

//! A federated run in one process, for researchers and benches.
//!
//! Nothing here decides anything: [`simulate`] drives the same [`sapwood_protocol::run::Run`] and the same
//! [`sapwood_protocol::round::NodeRound`]s as the daemons do, and updates go through the same fixed-point encoding, so a
//! result here is the result of a deployed run with the same cohorts. Time is virtual: a node's answer takes a seeded time,
//! and a deadline passes when nothing else can happen. Given the seed the outcome is the same, bit for bit, on any number of
//! threads.
//!
//! [`pooled`] is the twin to compare with: the same model, trained as long on all examples in one place.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod convert;
mod crew;
mod error;
mod pooled;
mod world;

use std::num::NonZeroUsize;

pub use convert::{preprocess, train_config};
pub use error::SimulationError;
pub use pooled::{Pooled, concat, pooled};
use sapwood_models::{Dataset, onnx::Model};
use sapwood_protocol::{
    run::RoundRecord,
    spec::Spec,
    view::{RoundView, RunView},
};

/// How to simulate.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Nodes that train at the same time; the outcome does not depend on it.
    pub threads: NonZeroUsize,
    /// Probability that a node does not answer in an attempt, from 0 to 1, seeded.
    pub drop: f64,
    /// The graph that the spec's loss names.
    pub loss: Option<Model>,
}

impl Default for Options {
    /// All cores, no faults.
    fn default() -> Self {
        Self { threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN), drop: 0.0, loss: None }
    }
}

/// The examples of one node.
#[derive(Clone, Debug)]
pub struct NodeData {
    /// Preprocessed.
    pub data: Dataset,
    /// Under the unit entity: the rows of each entity.
    pub entities: Option<Vec<Vec<usize>>>,
}

impl From<Dataset> for NodeData {
    fn from(data: Dataset) -> Self {
        Self { data, entities: None }
    }
}

/// A finished simulation.
#[derive(Clone)]
pub struct Outcome {
    /// Committed rounds, in order.
    pub rounds: Vec<RoundRecord>,
    /// The final parameters `[D]`, in the order of the graph.
    pub params: Vec<f32>,
    /// The final model, in inference form.
    pub model: Model,
    /// The run as a deployed one would be shown.
    pub view: RunView,
}

/// Runs `spec` on `nodes` in this process. `evaluation` is scored as `evaluate.every` says. `progress` sees each round
/// once it is committed and scored. Data must be preprocessed already (see [`preprocess`]); `spec.release` is not looked at.
///
/// # Errors
/// [`SimulationError`]: a spec, model or data that cannot be trained, or a run that failed, as with too many stragglers.
pub fn simulate(
    spec: &Spec,
    model: &Model,
    nodes: Vec<impl Into<NodeData>>,
    evaluation: Option<Dataset>,
    options: &Options,
    progress: &mut dyn FnMut(&RoundView),
) -> Result<Outcome, SimulationError> {
    world::World::new(spec, model, nodes.into_iter().map(Into::into).collect(), evaluation, options)?.run(progress)
}

//! Training a graph on a node's own examples.
//!
//! A [`Trainer`] is compiled once per model and trains many times: the coordinator's
//! parameters go in as one flat vector, some epochs of minibatches run, and the new vector
//! comes out. The same seed, data and parameters give the same bits on any number of
//! threads. The optimizer starts fresh at every call, since a node that joins a round
//! late has no state either.
//!
//! - [`loss`] measures outputs and gives the gradient with respect to them; [`metric`] measures them with a graph of the user's;
//! - [`optimizer`] moves one tensor along its gradient;
//! - [`schedule`] moves the learning rate;
//! - [`order`] draws the order of the examples;
//! - [`units`] gives the gradient of each unit of privacy, and moves nothing.

mod apart;
mod criterion;
mod error;
mod gradients;
mod judge;
mod loss;
mod metric;
mod optimizer;
mod order;
mod schedule;
mod setup;
mod trainer;
mod units;

#[cfg(test)]
mod tests;

pub use error::TrainError;
pub use loss::{Labels, Loss};
pub use metric::Metric;
pub use optimizer::Optimizer;
pub use schedule::{Schedule, Shape};
pub use trainer::{Trainer, Watch};
pub use units::UnitGradient;

use crate::Model;
use crate::dataset::{DataFault, Dataset, Targets};
use crate::tensor::Tensor;

use criterion::Criterion;

/// Examples per forward pass of an evaluation.
const EVALUATED_AT_ONCE: usize = 128;

/// How to train.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainConfig {
    /// What is minimized.
    pub loss: Loss,
    /// A graph in its place: from `output` (the model's first, f32 `[batch, ...]`) and `target` (i64 `[batch]` or f32 `[batch, ...]`) to one
    /// f32 for each example.
    pub loss_graph: Option<Model>,
    /// How labels of classes count.
    pub labels: Labels,
    /// How parameters follow their gradients.
    pub optimizer: Optimizer,
    /// Learning rate, above zero.
    pub lr: f32,
    /// How the learning rate moves from step to step.
    pub schedule: Schedule,
    /// Gradients longer than this, all parameters together, are scaled down to it (Pascanu et al. 2013).
    pub gradient_clip: Option<f32>,
    /// Batches whose mean gradient makes one step, at least one.
    pub accumulate: usize,
    /// Examples per step, at least one; the last batch of an epoch may be smaller.
    pub batch: usize,
    /// Patterns of parameters that stay as they are, see [`crate::parameters`].
    pub freeze: Vec<String>,
}

impl Default for TrainConfig {
    /// Plain gradient descent on cross-entropy, with a rate that suits small networks.
    fn default() -> Self {
        Self {
            loss: Loss::CrossEntropy,
            loss_graph: None,
            labels: Labels::default(),
            optimizer: Optimizer::sgd(),
            lr: 0.05,
            schedule: Schedule::default(),
            gradient_clip: None,
            accumulate: 1,
            batch: 32,
            freeze: Vec::new(),
        }
    }
}

/// Where training stands, told after each step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Epoch, from 0.
    pub epoch: usize,
    /// Epochs asked for.
    pub epochs: usize,
    /// Steps done in this epoch.
    pub step: usize,
    /// Steps of one epoch.
    pub steps: usize,
    /// Examples of this step.
    pub examples: usize,
    /// Mean loss of this step's examples.
    pub loss: f64,
}

/// What one epoch of training gave, measured on the way, while the parameters moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epoch {
    /// Mean loss per example.
    pub loss: f64,
    /// Share of examples answered right; `None` for losses of values.
    pub accuracy: Option<f64>,
    /// Examples that counted.
    pub examples: usize,
}

/// How well the parameters answer a data set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Mean loss per example.
    pub loss: f64,
    /// Share of examples answered right; `None` for losses of values.
    pub accuracy: Option<f64>,
    /// Examples answered right; `None` for losses of values.
    pub correct: Option<usize>,
    /// Examples that counted.
    pub examples: usize,
}

/// How well answers `[n, ...]` that another runtime gave fit the targets: what [`Trainer::evaluate`] says of its own.
///
/// # Errors
/// [`TrainError::Data`] or [`TrainError::Targets`] for targets that are none for this loss or these answers; [`TrainError::Model`] for a
/// loss that cannot be used.
pub fn score(config: &TrainConfig, answers: &Tensor, targets: &Targets) -> Result<Evaluation, TrainError> {
    let width = answers.row_len();
    let found = answers.as_f32().ok_or(DataFault::Targets { found: "answers that are not f32", needed: "f32 answers" })?;
    let data = Dataset { x: Tensor::f32([answers.rows(), 1], vec![0.0; answers.rows()])?.into(), y: targets.clone() };
    let (criterion, answer) = (Criterion::new(config)?, answers.shape.get(1..).unwrap_or_default());
    data.check(Some(criterion.known(width)))?;
    criterion.check_targets(targets, width)?;
    if let Criterion::Graph(graph) = &criterion {
        graph.check(answer)?;
    }
    let rows: Vec<usize> = (0..data.len()).collect();
    let mut tally = Tally::default();
    for rows in rows.chunks(EVALUATED_AT_ONCE) {
        let width = width.max(1);
        let found = &found[rows[0] * width..(rows[rows.len() - 1] + 1) * width];
        tally.add(&criterion.measure(found, answer, &data, rows)?);
    }
    Ok(tally.evaluation())
}

/// Sums over examples.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    loss: f64,
    weight: f64,
    correct: Option<usize>,
    examples: usize,
}

impl Tally {
    fn add(&mut self, measured: &loss::Measured) {
        let loss = measured.loss * measured.weight;
        self.join(&Self { loss, weight: measured.weight, correct: measured.correct, examples: measured.examples });
    }

    fn join(&mut self, other: &Self) {
        self.loss += other.loss;
        self.weight += other.weight;
        self.correct = other.correct.map(|c| c + self.correct.unwrap_or(0));
        self.examples += other.examples;
    }

    fn evaluation(&self) -> Evaluation {
        let n = self.examples.max(1) as f64;
        let loss = if self.weight > 0.0 { self.loss / self.weight } else { 0.0 };
        Evaluation { loss, accuracy: self.correct.map(|c| c as f64 / n), correct: self.correct, examples: self.examples }
    }

    fn epoch(&self) -> Epoch {
        let Evaluation { loss, accuracy, examples, .. } = self.evaluation();
        Epoch { loss, accuracy, examples }
    }
}

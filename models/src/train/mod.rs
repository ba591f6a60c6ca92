//! Training a graph on a node's own examples.
//!
//! A [`Trainer`] is compiled once per model and trains many times: the coordinator's
//! parameters go in as one flat vector, some epochs of minibatches run, and the new vector
//! comes out. The same seed, data and parameters give the same bits on any number of
//! threads. The optimizer starts fresh at every call, since a node that joins a round
//! late has no state either.
//!
//! - [`loss`] measures outputs and gives the gradient with respect to them;
//! - [`optimizer`] moves one tensor along its gradient;
//! - [`order`] draws the order of the examples;
//! - [`units`] gives the gradient of each unit of privacy, and moves nothing.

mod error;
mod loss;
mod optimizer;
mod order;
mod trainer;
mod units;

#[cfg(test)]
mod tests;

pub use error::TrainError;
pub use loss::Loss;
pub use optimizer::Optimizer;
pub use trainer::Trainer;
pub use units::UnitGradient;

/// How to train.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainConfig {
    /// What is minimized.
    pub loss: Loss,
    /// How parameters follow their gradients.
    pub optimizer: Optimizer,
    /// Learning rate, above zero.
    pub lr: f32,
    /// Examples per step, at least one; the last batch of an epoch may be smaller.
    pub batch: usize,
    /// Patterns of parameters that stay as they are (`*` stands for any run of characters).
    pub freeze: Vec<String>,
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
    /// Share of examples answered right; `None` for [`Loss::Mse`].
    pub accuracy: Option<f64>,
    /// Examples seen.
    pub examples: usize,
}

/// How well the parameters answer a data set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Mean loss per example.
    pub loss: f64,
    /// Share of examples answered right; `None` for [`Loss::Mse`].
    pub accuracy: Option<f64>,
    /// Examples answered right; `None` for [`Loss::Mse`].
    pub correct: Option<usize>,
    /// Examples seen.
    pub examples: usize,
}

/// Sums over examples.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    loss: f64,
    correct: Option<usize>,
    examples: usize,
}

impl Tally {
    fn add(&mut self, measured: &loss::Measured, examples: usize) {
        self.loss += measured.loss * examples as f64;
        self.correct = measured.correct.map(|c| c + self.correct.unwrap_or(0));
        self.examples += examples;
    }

    fn evaluation(&self) -> Evaluation {
        let n = self.examples.max(1) as f64;
        Evaluation { loss: self.loss / n, accuracy: self.correct.map(|c| c as f64 / n), correct: self.correct, examples: self.examples }
    }

    fn epoch(&self) -> Epoch {
        let Evaluation { loss, accuracy, examples, .. } = self.evaluation();
        Epoch { loss, accuracy, examples }
    }
}

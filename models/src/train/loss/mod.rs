//! Losses: the value, and the gradient with respect to the model's answers.
//!
//! Losses are computed on the host in f64 from the answers of one batch. Their gradients
//! are closed formulas, so the tape of the numeric backend starts at the answers: softmax
//! and cross-entropy meet in `softmax - target`, and nothing overflows. A loss that its user wrote is a graph.

mod classes;
mod graph;
#[cfg(test)]
mod tests;
mod values;

use std::str::FromStr;

pub(super) use graph::LossGraph;

use super::TrainError;
use crate::ModelError;
use crate::dataset::{DataFault, Dataset, Targets};

/// What training minimizes. Means are over examples for classes and over values otherwise, as in PyTorch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// Softmax cross-entropy of class labels. If the graph ends in Softmax or LogSoftmax, the logits before it are taken.
    CrossEntropy,
    /// Cross-entropy in which an example counts `(1 - p)^gamma` of its own: less, the surer the model is of its class
    /// (Lin et al. 2017, eq. 4). Logits as for cross-entropy.
    Focal {
        /// At least 0, where it is cross-entropy; 2 in the paper.
        gamma: f32,
    },
    /// Binary cross-entropy of logits; targets lie in 0..=1. If the graph ends in Sigmoid, the logits before it are taken.
    Bce,
    /// Squared error.
    Mse,
    /// Absolute error.
    Mae,
    /// Half the squared error up to `delta`, and linear beyond (Huber 1964).
    Huber {
        /// In units of the target, above 0.
        delta: f32,
    },
    /// The pinball loss, least at a quantile of the targets (Koenker and Bassett 1978).
    Pinball {
        /// Between 0 and 1; 0.5 is half the absolute error.
        quantile: f32,
    },
}

/// How labels of classes count; the default is all alike. For cross-entropy and the focal loss.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Labels {
    /// Weight of each class, above 0; none: all weigh 1. The mean is taken over the weights.
    pub weights: Vec<f32>,
    /// Share of each label that is spread over all classes (Szegedy et al. 2016), from 0 to below 1; not for the focal loss.
    pub smoothing: f32,
    /// Examples with this label count nowhere.
    pub ignore: Option<i64>,
}

impl FromStr for Loss {
    type Err = ModelError;

    /// `cross_entropy`, `huber` or `huber:0.5`: by name, with another number than the usual gamma 2, delta 1 or quantile 0.5.
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let refuse = |reason: &str| ModelError::Setting { name: "loss", value: text.to_owned(), reason: reason.to_owned() };
        let (name, number) = text.split_once(':').map_or((text, None), |(name, number)| (name, Some(number)));
        let number: Option<f32> = number.map(str::parse).transpose().map_err(|_| refuse("what is behind the colon is no number"))?;
        Ok(match (name.replace('-', "_").as_str(), number) {
            ("focal", gamma) => Self::Focal { gamma: gamma.unwrap_or(2.0) },
            ("huber", delta) => Self::Huber { delta: delta.unwrap_or(1.0) },
            ("pinball", quantile) => Self::Pinball { quantile: quantile.unwrap_or(0.5) },
            ("cross_entropy", None) => Self::CrossEntropy,
            ("bce", None) => Self::Bce,
            ("mse", None) => Self::Mse,
            ("mae", None) => Self::Mae,
            _ => return Err(refuse("use cross-entropy, focal:GAMMA, bce, mse, mae, huber:DELTA or pinball:QUANTILE")),
        })
    }
}

impl Loss {
    /// Whether the targets are labels of classes, of which one answer is right.
    pub fn is_of_classes(self) -> bool {
        matches!(self, Self::CrossEntropy | Self::Focal { .. })
    }

    /// Whether answers are right or wrong.
    pub fn has_accuracy(self) -> bool {
        self.is_of_classes() || self == Self::Bce
    }

    /// Refuses numbers outside their domain, and settings of labels for a loss that has none.
    pub(super) fn check_settings(self, labels: &Labels) -> Result<(), ModelError> {
        let bad = |name, value: f32, reason: &str| Err(ModelError::Setting { name, value: value.to_string(), reason: reason.to_owned() });
        match self {
            Self::Focal { gamma } if !(gamma.is_finite() && gamma >= 0.0) => return bad("gamma", gamma, "it must be at least 0"),
            Self::Huber { delta } if !(delta.is_finite() && delta > 0.0) => return bad("delta", delta, "it must be above 0"),
            Self::Pinball { quantile } if !(quantile > 0.0 && quantile < 1.0) => {
                return bad("quantile", quantile, "it must lie between 0 and 1");
            }
            _ => {}
        }
        if !(0.0..1.0).contains(&labels.smoothing) {
            return bad("label smoothing", labels.smoothing, "it must be at least 0 and below 1");
        }
        if self != Self::CrossEntropy && labels.smoothing != 0.0 {
            return bad("label smoothing", labels.smoothing, "only cross-entropy has it");
        }
        if let Some(weight) = labels.weights.iter().find(|w| !(w.is_finite() && **w > 0.0)) {
            return bad("class weights", *weight, "each must be above 0");
        }
        if !self.is_of_classes() && (!labels.weights.is_empty() || labels.ignore.is_some()) {
            let reason = "class weights and an ignored label are for cross-entropy and the focal loss".to_owned();
            return Err(ModelError::Setting { name: "loss", value: format!("{self:?}"), reason });
        }
        Ok(())
    }

    /// The last operators that belong to the loss and not to the trained graph.
    pub(super) fn absorbs(self, op_type: &str) -> bool {
        match self {
            Self::CrossEntropy | Self::Focal { .. } => matches!(op_type, "Softmax" | "LogSoftmax"),
            Self::Bce => op_type == "Sigmoid",
            Self::Mse | Self::Mae | Self::Huber { .. } | Self::Pinball { .. } => false,
        }
    }

    /// Checks the targets of a data set against answers of `width` values per example.
    pub(super) fn check(self, targets: &Targets, width: usize) -> Result<(), TrainError> {
        let wrong = |found, needed| Err(TrainError::Data(DataFault::Targets { found, needed }));
        match (self.is_of_classes(), targets) {
            (true, Targets::Classes(_)) => Ok(()),
            (true, Targets::Values(_)) => wrong("values", "class labels"),
            (false, Targets::Classes(_)) if self == Self::Bce && width == 1 => Ok(()),
            (false, Targets::Classes(_)) if self == Self::Bce => wrong("class labels", "f32 values from 0 to 1"),
            (false, Targets::Classes(_)) => wrong("class labels", "f32 values"),
            (false, Targets::Values(values)) => {
                if values.row_len() != width {
                    return Err(TrainError::Targets { expected: width, found: values.row_len() });
                }
                let inside = |v: &f32| (0.0..=1.0).contains(v);
                if self == Self::Bce && !values.as_f32().is_some_and(|v| v.iter().all(inside)) {
                    return wrong("values outside 0..=1", "f32 values from 0 to 1");
                }
                Ok(())
            }
        }
    }

    /// Number of classes that labels must stay below, if there are labels.
    pub(super) fn classes(self, width: usize) -> usize {
        if self.is_of_classes() { width } else { 2 }
    }

    /// Measures `answers`, `[rows.len(), width]` row-major, against the targets of `rows`.
    /// The data has passed [`Dataset::check`] and [`Loss::check`].
    pub(super) fn measure(self, labels: &Labels, answers: &[f32], width: usize, data: &Dataset, rows: &[usize]) -> Measured {
        match &data.y {
            Targets::Classes(classes) if self.is_of_classes() => {
                let gamma = if let Self::Focal { gamma } = self { Some(f64::from(gamma)) } else { None };
                classes::measure(gamma, labels, answers, width, |i| classes[rows[i]])
            }
            Targets::Classes(classes) => values::measure(self, answers, width, |i, _| classes[rows[i]] as f32),
            Targets::Values(tensor) => {
                let targets = tensor.as_f32().unwrap_or_default();
                values::measure(self, answers, width, |i, k| targets[rows[i] * width + k])
            }
        }
    }
}

/// A loss on one batch.
pub(super) struct Measured {
    /// Mean over the batch; 0 if nothing counts.
    pub(super) loss: f64,
    /// What the mean was taken over: examples, or their weights.
    pub(super) weight: f64,
    /// Examples that count.
    pub(super) examples: usize,
    /// Examples answered right, where right and wrong exist.
    pub(super) correct: Option<usize>,
    /// Of `loss` with respect to the answers.
    pub(super) gradient: Vec<f32>,
}

//! Losses: the value, and the gradient with respect to the model's answers.
//!
//! Losses are computed on the host in f64 from the answers of one batch. Their gradients
//! are closed formulas, so the tape of the numeric backend starts at the answers: softmax
//! and cross-entropy meet in `softmax - onehot`, and nothing overflows.

use super::TrainError;
use crate::dataset::{DataFault, Dataset, Targets};
use crate::metrics::argmax;

/// What training minimizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// Softmax cross-entropy of class labels, mean over examples. If the graph ends in
    /// Softmax or LogSoftmax, the logits before it are taken.
    CrossEntropy,
    /// Squared error, mean over all values.
    Mse,
    /// Binary cross-entropy of logits, mean over all values; targets lie in 0..=1. If the
    /// graph ends in Sigmoid, the logits before it are taken.
    Bce,
}

impl Loss {
    /// The last operators that belong to the loss and not to the trained graph.
    pub(super) fn absorbs(self, op_type: &str) -> bool {
        match self {
            Self::CrossEntropy => matches!(op_type, "Softmax" | "LogSoftmax"),
            Self::Bce => op_type == "Sigmoid",
            Self::Mse => false,
        }
    }

    /// Checks the targets of a data set against answers of `width` values per example.
    pub(super) fn check(self, targets: &Targets, width: usize) -> Result<(), TrainError> {
        let wrong = |found, needed| Err(TrainError::Data(DataFault::Targets { found, needed }));
        match (self, targets) {
            (Self::CrossEntropy, Targets::Classes(_)) => Ok(()),
            (Self::CrossEntropy, Targets::Values(_)) => wrong("values", "class labels"),
            (Self::Mse, Targets::Classes(_)) => wrong("class labels", "f32 values"),
            (Self::Bce, Targets::Classes(_)) if width == 1 => Ok(()),
            (Self::Bce, Targets::Classes(_)) => wrong("class labels", "f32 values from 0 to 1"),
            (Self::Mse | Self::Bce, Targets::Values(values)) => {
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
        if self == Self::Bce { 2 } else { width }
    }

    /// Measures `answers`, `[rows.len(), width]` row-major, against the targets of `rows`.
    /// The data has passed [`Dataset::check`] and [`Loss::check`].
    pub(super) fn measure(self, answers: &[f32], width: usize, data: &Dataset, rows: &[usize]) -> Measured {
        match (&data.y, self) {
            (Targets::Classes(labels), Self::CrossEntropy) => cross_entropy(answers, width, |i| labels[rows[i]] as usize),
            (Targets::Classes(labels), _) => self.values(answers, width, |i, _| labels[rows[i]] as f32),
            (Targets::Values(tensor), _) => {
                let values = tensor.as_f32().unwrap_or_default();
                self.values(answers, width, |i, k| values[rows[i] * width + k])
            }
        }
    }

    fn values(self, answers: &[f32], width: usize, target: impl Fn(usize, usize) -> f32) -> Measured {
        let scale = 1.0 / answers.len().max(1) as f64;
        let mut measured = Measured { loss: 0.0, correct: None, gradient: Vec::with_capacity(answers.len()) };
        let mut right = 0;
        for (i, row) in answers.chunks(width.max(1)).enumerate() {
            let mut agrees = true;
            for (k, &answer) in row.iter().enumerate() {
                let (z, t) = (f64::from(answer), f64::from(target(i, k)));
                let (loss, slope) = if self == Self::Bce { bce(z, t) } else { ((z - t) * (z - t), 2.0 * (z - t)) };
                measured.loss += loss * scale;
                measured.gradient.push((slope * scale) as f32);
                agrees &= (z > 0.0) == (t > 0.5);
            }
            right += usize::from(agrees);
        }
        if self == Self::Bce {
            measured.correct = Some(right);
        }
        measured
    }
}

/// `ln(1 + e^z) - t z` without overflow, and its slope `sigmoid(z) - t`.
fn bce(z: f64, t: f64) -> (f64, f64) {
    (z.max(0.0) - z * t + (-z.abs()).exp().ln_1p(), 1.0 / (1.0 + (-z).exp()) - t)
}

fn cross_entropy(logits: &[f32], width: usize, label: impl Fn(usize) -> usize) -> Measured {
    let width = width.max(1);
    let scale = 1.0 / (logits.len() / width).max(1) as f64;
    let mut measured = Measured { loss: 0.0, correct: Some(0), gradient: Vec::with_capacity(logits.len()) };
    let mut right = 0;
    for (i, row) in logits.chunks(width).enumerate() {
        let label = label(i);
        let top = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let total: f64 = row.iter().map(|z| (f64::from(*z) - top).exp()).sum();
        measured.loss += (total.ln() + top - f64::from(row[label])) * scale;
        for (k, &z) in row.iter().enumerate() {
            let share = (f64::from(z) - top).exp() / total;
            let hit = if k == label { 1.0 } else { 0.0 };
            measured.gradient.push(((share - hit) * scale) as f32);
        }
        right += usize::from(argmax(row) == Some(label));
    }
    measured.correct = Some(right);
    measured
}

/// A loss on one batch.
pub(super) struct Measured {
    /// Mean over the batch.
    pub(super) loss: f64,
    /// Examples answered right, where right and wrong exist.
    pub(super) correct: Option<usize>,
    /// Of `loss` with respect to the answers.
    pub(super) gradient: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    fn data(y: Targets, rows: usize) -> Dataset {
        Dataset { x: Tensor::f32([rows, 1], vec![0.0; rows]).unwrap().into(), y }
    }

    /// The gradient of every loss agrees with central differences of its value.
    #[test]
    fn gradients_match_differences() {
        let values = Targets::Values(Tensor::f32([2, 3], vec![0.1, 0.9, 0.4, 1.0, 0.0, 0.5]).unwrap());
        let answers = [0.3f32, -1.2, 2.0, 0.7, 0.0, -3.0];
        let rows = [1, 0];
        for (loss, y) in [(Loss::CrossEntropy, Targets::Classes(vec![2, 0])), (Loss::Mse, values.clone()), (Loss::Bce, values)] {
            let data = data(y, 2);
            let exact = loss.measure(&answers, 3, &data, &rows).gradient;
            for i in 0..answers.len() {
                let h = 1e-3f32;
                let at = |d: f32| {
                    let mut moved = answers;
                    moved[i] += d;
                    loss.measure(&moved, 3, &data, &rows).loss
                };
                let slope = (at(h) - at(-h)) / f64::from(2.0 * h);
                assert!((slope - f64::from(exact[i])).abs() < 1e-4, "{loss:?} {i}: {slope} {}", exact[i]);
            }
        }
    }

    #[test]
    fn values_by_hand() {
        // ln(e^0 + e^0) = ln 2
        let half = Loss::CrossEntropy.measure(&[0.0, 0.0], 2, &data(Targets::Classes(vec![1]), 1), &[0]);
        assert!((half.loss - 2f64.ln()).abs() < 1e-9);
        assert_eq!(half.gradient, [0.5, -0.5]);
        // ((1 - 0)^2 + (3 - 1)^2) / 2
        let y = Targets::Values(Tensor::f32([2, 1], vec![0.0, 1.0]).unwrap());
        let mse = Loss::Mse.measure(&[1.0, 3.0], 1, &data(y, 2), &[0, 1]);
        assert_eq!((mse.loss, mse.gradient, mse.correct), (2.5, vec![1.0, 2.0], None));
        let bce = Loss::Bce.measure(&[0.0], 1, &data(Targets::Classes(vec![1]), 1), &[0]);
        assert!((bce.loss - 2f64.ln()).abs() < 1e-9);
        assert_eq!(bce.gradient, [-0.5]);
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let ce = Loss::CrossEntropy.measure(&[1e30, -1e30], 2, &data(Targets::Classes(vec![0]), 1), &[0]);
        assert_eq!((ce.loss, ce.correct), (0.0, Some(1)));
        for z in [1e30f32, -1e30] {
            let bce = Loss::Bce.measure(&[z], 1, &data(Targets::Classes(vec![i64::from(z > 0.0)]), 1), &[0]);
            assert_eq!((bce.loss, bce.correct), (0.0, Some(1)), "{z}");
        }
    }

    #[test]
    fn targets_of_the_wrong_kind_are_refused() {
        let classes = Targets::Classes(vec![0]);
        let two = Targets::Values(Tensor::f32([1, 2], vec![0.0, 2.0]).unwrap());
        assert!(matches!(Loss::Mse.check(&classes, 1), Err(TrainError::Data(DataFault::Targets { .. }))));
        assert!(matches!(Loss::Bce.check(&classes, 2), Err(TrainError::Data(DataFault::Targets { .. }))));
        assert!(matches!(Loss::CrossEntropy.check(&two, 2), Err(TrainError::Data(DataFault::Targets { .. }))));
        assert!(matches!(Loss::Bce.check(&two, 2), Err(TrainError::Data(DataFault::Targets { .. }))));
        assert_eq!(Loss::Mse.check(&two, 3), Err(TrainError::Targets { expected: 3, found: 2 }));
        assert_eq!(Loss::Mse.check(&two, 2), Ok(()));
    }
}

//! Losses of class labels: one of `width` logits is to be the largest.

use super::{Labels, Measured};
use crate::metrics::argmax;

/// Cross-entropy, or with `gamma` the focal loss, of logits `[rows, width]` row-major; the mean is over the weights of the labels.
pub(super) fn measure(gamma: Option<f64>, labels: &Labels, logits: &[f32], width: usize, label: impl Fn(usize) -> i64) -> Measured {
    let width = width.max(1);
    let weight = |class: usize| labels.weights.get(class).map_or(1.0, |w| f64::from(*w));
    let counts = |i: usize| Some(label(i)).filter(|label| labels.ignore != Some(*label)).map(|label| label as usize);
    let rows = logits.len() / width;
    let total: f64 = (0..rows).filter_map(counts).map(weight).sum();
    let mut measured = Measured { loss: 0.0, weight: total, examples: 0, correct: None, gradient: vec![0.0; logits.len()] };
    let mut right = 0;
    for (i, (row, gradient)) in logits.chunks(width).zip(measured.gradient.chunks_mut(width)).enumerate() {
        let Some(own) = counts(i) else { continue };
        let top = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = row.iter().map(|z| (f64::from(*z) - top).exp()).sum();
        let log_share = |k: usize| f64::from(row[k]) - top - sum.ln();
        let (loss, slope) = match gamma {
            None => smoothed(f64::from(labels.smoothing), own, width, weight, log_share),
            Some(gamma) => focal(gamma, own, weight(own), log_share(own)),
        };
        measured.loss += loss / total;
        for (k, slot) in gradient.iter_mut().enumerate() {
            *slot = (slope.along(k, log_share(k).exp()) / total) as f32;
        }
        right += usize::from(argmax(row) == Some(own));
        measured.examples += 1;
    }
    measured.correct = Some(right);
    measured
}

/// The gradient of one example's loss with respect to its logits.
enum Slope<W> {
    /// `mass * share - target(k)`.
    Target { mass: f64, target: W },
    /// `factor * (share - 1 at the label)`.
    Scaled { factor: f64, own: usize },
}

impl<W: Fn(usize) -> f64> Slope<W> {
    fn along(&self, k: usize, share: f64) -> f64 {
        match self {
            Self::Target { mass, target } => mass * share - target(k),
            Self::Scaled { factor, own } => factor * (share - f64::from(u8::from(k == *own))),
        }
    }
}

/// Cross-entropy against a target that is mostly at the label and, by `smoothing`, a little at every class, each by its weight:
/// PyTorch's `CrossEntropyLoss`.
fn smoothed(
    smoothing: f64,
    own: usize,
    width: usize,
    weight: impl Fn(usize) -> f64,
    log_share: impl Fn(usize) -> f64,
) -> (f64, Slope<impl Fn(usize) -> f64>) {
    let spread = smoothing / width as f64;
    let target = move |k: usize| {
        let hit = if k == own { (1.0 - smoothing) * weight(k) } else { 0.0 };
        // Without smoothing no class but the label's is looked at: the others' shares may be 0, and their logarithm endless.
        if spread == 0.0 { hit } else { hit + spread * weight(k) }
    };
    let (mut loss, mut mass) = (0.0, 0.0);
    for k in 0..width {
        let t = target(k);
        if t != 0.0 {
            loss -= t * log_share(k);
            mass += t;
        }
    }
    (loss, Slope::Target { mass, target })
}

/// `-w (1 - p)^gamma ln p` for the share `p` of the label.
fn focal<W>(gamma: f64, own: usize, weight: f64, log_share: f64) -> (f64, Slope<W>) {
    let (p, rest) = (log_share.exp(), -log_share.exp_m1());
    let factor = if rest > 0.0 { rest.powf(gamma) - gamma * rest.powf(gamma - 1.0) * p * log_share } else { 0.0 };
    (-weight * rest.powf(gamma) * log_share, Slope::Scaled { factor: weight * factor, own })
}

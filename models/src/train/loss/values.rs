//! Losses of real targets, value by value.

use super::{Loss, Measured};

/// The mean over all values of answers `[rows, width]`.
pub(super) fn measure(loss: Loss, answers: &[f32], width: usize, target: impl Fn(usize, usize) -> f32) -> Measured {
    let width = width.max(1);
    let (rows, scale) = (answers.len() / width, 1.0 / answers.len().max(1) as f64);
    let mut measured =
        Measured { loss: 0.0, weight: rows as f64, examples: rows, correct: None, gradient: Vec::with_capacity(answers.len()) };
    let mut right = 0;
    for (i, row) in answers.chunks(width).enumerate() {
        let mut agrees = true;
        for (k, &answer) in row.iter().enumerate() {
            let (z, t) = (f64::from(answer), f64::from(target(i, k)));
            let (value, slope) = one(loss, z, t);
            measured.loss += value * scale;
            measured.gradient.push((slope * scale) as f32);
            agrees &= (z > 0.0) == (t > 0.5);
        }
        right += usize::from(agrees);
    }
    measured.correct = loss.has_accuracy().then_some(right);
    measured
}

/// The loss of answer `z` against target `t`, and its slope in `z`.
fn one(loss: Loss, z: f64, t: f64) -> (f64, f64) {
    let d = z - t;
    match loss {
        // `ln(1 + e^z) - t z` without overflow, and its slope `sigmoid(z) - t`.
        Loss::Bce => (z.max(0.0) - z * t + (-z.abs()).exp().ln_1p(), 1.0 / (1.0 + (-z).exp()) - t),
        Loss::Mae => (d.abs(), sign(d)),
        Loss::Huber { delta } => {
            let delta = f64::from(delta);
            if d.abs() <= delta { (0.5 * d * d, d) } else { (delta * (d.abs() - 0.5 * delta), delta * sign(d)) }
        }
        Loss::Pinball { quantile } => {
            let share = if d > 0.0 { 1.0 - f64::from(quantile) } else { f64::from(quantile) };
            (share * d.abs(), share * sign(d))
        }
        // Labels never come here for the two losses of classes.
        Loss::Mse | Loss::CrossEntropy | Loss::Focal { .. } => (d * d, 2.0 * d),
    }
}

/// 0 where it is 0, as PyTorch has it.
fn sign(d: f64) -> f64 {
    if d == 0.0 { 0.0 } else { d.signum() }
}

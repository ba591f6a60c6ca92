//! Figures of merit of answers against the truth.

/// Index of the largest value; the first of equals, `None` if there is none or one is NaN.
pub fn argmax(values: &[f32]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (i, v) in values.iter().enumerate() {
        if v.is_nan() {
            return None;
        }
        if best.is_none_or(|b| *v > values[b]) {
            best = Some(i);
        }
    }
    best
}

/// Share of rows of `scores`, `[labels.len(), classes]` row-major, whose largest score is
/// at the label; 0 for no rows.
pub fn accuracy(scores: &[f32], classes: usize, labels: &[i64]) -> f64 {
    top_k(scores, classes, labels, 1)
}

/// Mean softmax cross-entropy of `scores` `[n, classes]` (logits, row-major) against `labels`; `None` of no examples or of
/// labels that are no class.
pub fn cross_entropy(scores: &[f32], classes: usize, labels: &[i64]) -> Option<f64> {
    let mut sum = 0.0;
    for (row, label) in scores.chunks_exact(classes.max(1)).zip(labels) {
        let own = f64::from(*row.get(usize::try_from(*label).ok()?)?);
        let most = row.iter().fold(f64::NEG_INFINITY, |m, v| m.max(f64::from(*v)));
        sum += most + row.iter().map(|v| (f64::from(*v) - most).exp()).sum::<f64>().ln() - own;
    }
    (!labels.is_empty()).then(|| sum / labels.len() as f64)
}

/// Share of rows whose label is among the `k` largest scores; among equal scores the lower
/// class comes first. A row with NaN counts as wrong.
pub fn top_k(scores: &[f32], classes: usize, labels: &[i64], k: usize) -> f64 {
    if classes == 0 || labels.is_empty() {
        return 0.0;
    }
    let hit = |(row, label): (&[f32], &i64)| {
        let Some(own) = usize::try_from(*label).ok().filter(|l| *l < row.len()) else { return false };
        let before = |(i, v): (usize, &f32)| *v > row[own] || (*v == row[own] && i < own);
        !row.iter().any(|v| v.is_nan()) && row.iter().enumerate().filter(|(i, v)| before((*i, v))).count() < k
    };
    let hits = scores.chunks(classes).zip(labels).filter(|(row, label)| hit((row, label))).count();
    hits as f64 / labels.len() as f64
}

/// Counts of (true class, predicted class).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfusionMatrix {
    classes: usize,
    /// Row-major, true class first.
    counts: Vec<u64>,
}

impl ConfusionMatrix {
    /// No counts yet.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// Counts one example; a pair outside the classes is not counted.
    pub fn add(&mut self, truth: usize, predicted: usize) {
        if truth < self.classes && predicted < self.classes {
            self.counts[truth * self.classes + predicted] += 1;
        }
    }

    /// How often `truth` was answered with `predicted`.
    pub fn count(&self, truth: usize, predicted: usize) -> u64 {
        self.counts[truth * self.classes + predicted]
    }

    /// Share of the answers `class` that are right; `None` if it was never answered.
    pub fn precision(&self, class: usize) -> Option<f64> {
        let answered: u64 = (0..self.classes).map(|t| self.count(t, class)).sum();
        (answered > 0).then(|| self.count(class, class) as f64 / answered as f64)
    }

    /// Share of the examples of `class` that were found; `None` if there is none.
    pub fn recall(&self, class: usize) -> Option<f64> {
        let present: u64 = (0..self.classes).map(|p| self.count(class, p)).sum();
        (present > 0).then(|| self.count(class, class) as f64 / present as f64)
    }

    /// Mean F1 score over the classes that occur or were answered.
    pub fn macro_f1(&self) -> f64 {
        let mut scores = Vec::new();
        for class in 0..self.classes {
            scores.push(match (self.precision(class), self.recall(class)) {
                (None, None) => continue,
                (Some(p), Some(r)) if p + r > 0.0 => 2.0 * p * r / (p + r),
                _ => 0.0,
            });
        }
        scores.iter().sum::<f64>() / scores.len().max(1) as f64
    }
}

/// Mean squared difference; `None` if the lengths differ or are zero.
pub fn mean_squared_error(answers: &[f32], truth: &[f32]) -> Option<f64> {
    mean(answers, truth, |d| d * d)
}

/// Mean absolute difference; `None` if the lengths differ or are zero.
pub fn mean_absolute_error(answers: &[f32], truth: &[f32]) -> Option<f64> {
    mean(answers, truth, f64::abs)
}

fn mean(answers: &[f32], truth: &[f32], of: impl Fn(f64) -> f64) -> Option<f64> {
    if answers.len() != truth.len() || answers.is_empty() {
        return None;
    }
    let total: f64 = answers.iter().zip(truth).map(|(a, t)| of(f64::from(*a) - f64::from(*t))).sum();
    Some(total / answers.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argmax_takes_the_first_and_refuses_nan() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), Some(1));
        assert_eq!(argmax(&[1.0, f32::NAN]), None);
        assert_eq!(argmax(&[]), None);
    }

    #[test]
    fn accuracy_by_hand() {
        let scores = [0.9, 0.1, 0.2, 0.8, 0.5, 0.5];
        assert_eq!(accuracy(&scores, 2, &[0, 1, 1]), 2.0 / 3.0);
        assert_eq!(top_k(&scores, 2, &[0, 1, 1], 2), 1.0);
        assert_eq!(accuracy(&[f32::NAN, 0.0], 2, &[1]), 0.0);
        assert_eq!(accuracy(&[], 2, &[]), 0.0);
    }

    #[test]
    fn confusion_by_hand() {
        let mut matrix = ConfusionMatrix::new(3);
        for (truth, predicted) in [(0, 0), (0, 1), (1, 1), (9, 0)] {
            matrix.add(truth, predicted);
        }
        assert_eq!((matrix.precision(1), matrix.recall(0)), (Some(0.5), Some(0.5)));
        assert_eq!((matrix.precision(2), matrix.recall(2)), (None, None));
        assert!((matrix.macro_f1() - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn errors_by_hand() {
        assert_eq!(mean_squared_error(&[1.0, 3.0], &[0.0, 1.0]), Some(2.5));
        assert_eq!(mean_absolute_error(&[1.0, 3.0], &[0.0, 1.0]), Some(1.5));
        assert_eq!(mean_squared_error(&[1.0], &[]), None);
    }
}

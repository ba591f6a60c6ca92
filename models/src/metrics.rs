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

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
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

/// Area under the receiver operating characteristic: how often an example of the class scores higher than one of another, ties
/// counting half (Mann and Whitney 1947). `None` without examples of both kinds.
pub fn auroc(scores: &[f32], positive: &[bool]) -> Option<f64> {
    let mut order: Vec<usize> = (0..scores.len().min(positive.len())).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    let (mut rank_sum, mut below) = (0.0, 0);
    for ties in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        let hits = ties.iter().filter(|i| positive[**i]).count();
        // Ranks from 1; equal scores share their mean rank.
        rank_sum += hits as f64 * (below as f64 + (ties.len() as f64 + 1.0) / 2.0);
        below += ties.len();
    }
    let positives = order.iter().filter(|i| positive[**i]).count() as f64;
    let pairs = positives * (order.len() as f64 - positives);
    (pairs > 0.0).then(|| (rank_sum - positives * (positives + 1.0) / 2.0) / pairs)
}

/// What a classifier did on each class.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassReport {
    /// True class, predicted class.
    pub confusion: ConfusionMatrix,
    /// Mean of the classes' areas, each against all others, by softmax shares; of two classes, the second's. `None` if a class is
    /// missing everywhere.
    pub auroc: Option<f64>,
}

/// Reports on logits `[labels.len(), classes]` row-major; labels that are no class count nowhere.
pub fn classes(scores: &[f32], classes: usize, labels: &[i64]) -> ClassReport {
    let rows = || scores.chunks_exact(classes.max(1)).zip(labels).filter_map(|(row, l)| Some((row, usize::try_from(*l).ok()?)));
    let rows = || rows().filter(|(_, label)| *label < classes);
    let mut confusion = ConfusionMatrix::new(classes);
    for (row, label) in rows() {
        if let Some(answer) = argmax(row) {
            confusion.add(label, answer);
        }
    }
    let share = |row: &[f32], class: usize| {
        let top = row.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
        (row[class] - top).exp() / row.iter().map(|v| (v - top).exp()).sum::<f32>()
    };
    let area = |class: usize| {
        let (shares, own): (Vec<f32>, Vec<bool>) = rows().map(|(row, label)| (share(row, class), label == class)).unzip();
        auroc(&shares, &own)
    };
    let auroc = match classes {
        0 | 1 => None,
        2 => area(1),
        _ => (0..classes).map(area).sum::<Option<f64>>().map(|sum| sum / classes as f64),
    };
    ClassReport { confusion, auroc }
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

    /// `sklearn.metrics.roc_auc_score` gives 0.75 for its documented example, and half for scores that say nothing.
    #[test]
    fn areas_by_hand() {
        assert_eq!(auroc(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true]), Some(0.75));
        assert_eq!(auroc(&[0.5; 4], &[false, true, true, false]), Some(0.5));
        assert_eq!(auroc(&[0.0, 1.0], &[true, true]), None);
        let three = classes(&[9.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 9.0], 3, &[0, 1, 2]);
        assert_eq!((three.auroc, three.confusion.macro_f1()), (Some(1.0), 1.0));
        assert_eq!(classes(&[1.0, 0.0, 1.0, 0.0], 2, &[0, -1]).auroc, None);
    }

    #[test]
    fn errors_by_hand() {
        assert_eq!(mean_squared_error(&[1.0, 3.0], &[0.0, 1.0]), Some(2.5));
        assert_eq!(mean_absolute_error(&[1.0, 3.0], &[0.0, 1.0]), Some(1.5));
        assert_eq!(mean_squared_error(&[1.0], &[]), None);
    }
}

//! A histogram of absolute values, and the bound that almost all of them lie within.
//!
//! Bins, rounding and the choice of the bound are those of ONNX Runtime's
//! `HistogramCollector` (`collect_absolute_value`, `compute_percentile`), which counts with
//! `numpy.histogram`: edges in f32, each value in the bin whose edges enclose it.

use super::calibrate::Extent;

/// `PercentileCalibrater.num_bins`.
const BINS: usize = 2048;

pub(super) struct Histogram {
    edges: Vec<f32>,
    counts: Vec<u64>,
}

impl Histogram {
    /// Empty, with equal bins from the smallest to the largest absolute value.
    pub(super) fn new(extent: &Extent) -> Self {
        let (mut first, mut last) = (extent.least, extent.most());
        if first >= last {
            (first, last) = (first - 0.5, first + 0.5);
        }
        let step = (last - first) / BINS as f32;
        let mut edges: Vec<f32> = (0..BINS).map(|i| i as f32 * step + first).collect();
        edges.push(last);
        Self { edges, counts: vec![0; BINS] }
    }

    pub(super) fn count(&mut self, values: &[f32]) {
        let (first, width) = (self.edges[0], self.edges[BINS] - self.edges[0]);
        for value in values.iter().map(|v| v.abs()) {
            let mut bin = (((value - first) / width * BINS as f32) as usize).min(BINS - 1);
            // The division may round across an edge.
            if value < self.edges[bin] {
                bin = bin.saturating_sub(1);
            } else if bin + 1 < BINS && value >= self.edges[bin + 1] {
                bin += 1;
            }
            self.counts[bin] += 1;
        }
    }

    /// The lower edge of the first bin up to which `percent` of the values lie.
    pub(super) fn bound(&self, percent: f64) -> f32 {
        let total = self.counts.iter().sum::<u64>() as f64;
        let mut share = 0.0;
        for (edge, count) in self.edges.iter().zip(&self.counts) {
            share += *count as f64 / total;
            if share >= percent / 100.0 {
                return *edge;
            }
        }
        self.edges[BINS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[f32]) -> Histogram {
        let mut extent = Extent::default();
        extent.widen(values);
        let mut histogram = Histogram::new(&extent);
        histogram.count(values);
        histogram
    }

    #[test]
    fn a_rare_outlier_is_beyond_the_bound() {
        let mut values: Vec<f32> = (0..10_000).map(|i| (i % 100) as f32 / 100.0 - 0.5).collect();
        assert!((histogram(&values).bound(99.9) - 0.5).abs() < 1e-3);
        values[7] = -100.0;
        assert!(histogram(&values).bound(99.9) < 0.6);
        assert!(histogram(&values).bound(99.999) > 99.9);
    }

    #[test]
    fn every_value_is_counted_where_its_edges_enclose_it() {
        let values: Vec<f32> = (0..5000).map(|i| (i as f32 * 0.7).sin() * 3.1).collect();
        let histogram = histogram(&values);
        for bin in 0..BINS {
            let inside = |v: f32| v >= histogram.edges[bin] && (v < histogram.edges[bin + 1] || bin + 1 == BINS);
            let expected = values.iter().filter(|v| inside(v.abs())).count() as u64;
            assert_eq!(histogram.counts[bin], expected, "bin {bin}");
        }
    }

    /// As `numpy.histogram([c], 2048)` widens them.
    #[test]
    fn a_single_value_lies_in_the_middle() {
        assert_eq!(histogram(&[0.0, -0.0]).bound(99.999), 0.0);
        assert_eq!(histogram(&[2.0; 9]).bound(99.999), 2.0);
    }
}

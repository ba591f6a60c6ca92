//! Whether the data that calibrates is like the data that the model will see.
//!
//! A range that calibration found too narrow cuts off what lies outside it; one that is too wide wastes steps. Either shows
//! where the values of a tensor, counted in the same bins, are spread otherwise over one data set than over the other: by the
//! largest distance between the two cumulative shares (Kolmogorov and Smirnov), and by the share that lies outside.

use std::collections::BTreeMap;
use std::fmt;

use super::calibrate::{Examples, Ranges};
use super::passes::prepare;
use crate::ModelError;
use crate::features::Features;
use crate::onnx::Model;

/// Bins between the ends of a calibrated range; two more hold what lies below and above.
const BINS: usize = 64;
/// Values of one data set are never spread quite like those of another. Above this they are of another distribution, or few.
const DISTANCE: f64 = 0.25;
/// As many more than in calibration may lie outside a range that some hundred examples gave.
const OUTSIDE: f64 = 0.02;

/// A tensor whose values are spread otherwise than they were in calibration.
#[derive(Debug, Clone, PartialEq)]
pub struct Shift {
    /// Name of the value.
    pub tensor: String,
    /// Smallest and largest value in calibration.
    pub calibrated: (f32, f32),
    /// Smallest and largest value in the other data.
    pub found: (f32, f32),
    /// Share of the other data's values that lie outside the calibrated range, from 0 to 1.
    pub outside: f64,
    /// Largest distance between the cumulative shares, from 0 to 1.
    pub distance: f64,
}

/// One line, without the words of how the two sets are called.
impl fmt::Display for Shift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((low, high), (least, most)) = (self.calibrated, self.found);
        write!(f, "`{}` reaches {least:.4}..{most:.4} and was calibrated for {low:.4}..{high:.4}; ", self.tensor)?;
        write!(f, "{:.1} % lie outside, distance {:.2}", 100.0 * self.outside, self.distance)
    }
}

/// The values of one tensor over one data set.
struct Spread {
    counts: [u64; BINS + 2],
    found: (f32, f32),
}

impl Default for Spread {
    fn default() -> Self {
        Self { counts: [0; BINS + 2], found: (f32::INFINITY, f32::NEG_INFINITY) }
    }
}

impl Spread {
    fn count(&mut self, values: &[f32], (min, max): (f32, f32)) {
        let width = (max - min).max(f32::MIN_POSITIVE);
        for &value in values {
            let bin = match value {
                _ if value < min => 0,
                _ if value <= max => 1 + (((value - min) / width * BINS as f32) as usize).min(BINS - 1),
                // What is no number is in no range.
                _ => BINS + 1,
            };
            self.counts[bin] += 1;
            self.found = (self.found.0.min(value), self.found.1.max(value));
        }
    }

    fn total(&self) -> f64 {
        self.counts.iter().sum::<u64>() as f64
    }

    fn outside(&self) -> f64 {
        (self.counts[0] + self.counts[BINS + 1]) as f64 / self.total()
    }

    fn distance(&self, other: &Self) -> f64 {
        let (mut here, mut there, mut most) = (0.0, 0.0, 0.0f64);
        for (a, b) in self.counts.iter().zip(&other.counts) {
            here += *a as f64 / self.total();
            there += *b as f64 / other.total();
            most = most.max((here - there).abs());
        }
        most
    }
}

/// The inputs and values of the graph that other data spreads otherwise than the calibration data did, the inputs and then the
/// values by how early they are computed: what comes first explains what follows. Values without a calibrated range are left out.
///
/// # Errors
/// As [`super::ranges`].
pub fn shifts(model: &Model, calibration: &Features, ranges: &Ranges, other: &Features) -> Result<Vec<Shift>, ModelError> {
    let model = prepare(model)?;
    let mut order = Vec::new();
    let mut spread = |x: &Features| -> Result<BTreeMap<String, Spread>, ModelError> {
        let mut found: BTreeMap<String, Spread> = BTreeMap::new();
        Examples::new(&model, x)?.show(&mut |name, values| {
            let Some(range) = ranges.get(name) else { return };
            if !found.contains_key(name) {
                order.push(name.to_owned());
            }
            found.entry(name.to_owned()).or_default().count(values, range);
        })?;
        Ok(found)
    };
    let (here, there) = (spread(calibration)?, spread(other)?);
    order.truncate(here.len());
    let shift = |name: String| {
        let (here, there) = (here.get(&name)?, there.get(&name)?);
        let (outside, distance) = (there.outside(), here.distance(there));
        let calibrated = ranges.get(&name)?;
        let told = outside - here.outside() > OUTSIDE || distance > DISTANCE;
        told.then_some(Shift { tensor: name, calibrated, found: there.found, outside, distance })
    };
    Ok(order.into_iter().filter_map(shift).collect())
}

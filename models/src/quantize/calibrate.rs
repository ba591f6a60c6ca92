//! Ranges of values, observed on calibration data.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::histogram::Histogram;
use super::passes::prepare;
use crate::ModelError;
use crate::features::Features;
use crate::forward::Forward;
use crate::onnx::{Dim, Model};

/// Examples that go through the graph at once.
const BATCH: usize = 32;

/// The share that [`Calibrator::Percentile`] keeps unless told otherwise, as in ONNX Runtime.
const PERCENT: f64 = 99.999;

/// How a range is drawn from the values that were seen.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Calibrator {
    /// The smallest and the largest value.
    #[default]
    MinMax,
    /// A bound that this percentage of the absolute values lies within; larger values saturate.
    Percentile(f64),
}

impl fmt::Display for Calibrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MinMax => f.write_str("minmax"),
            Self::Percentile(percent) => write!(f, "percentile:{percent}"),
        }
    }
}

/// `minmax`, `percentile` (99.999) or such as `percentile:99.9`.
impl FromStr for Calibrator {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self, ModelError> {
        let refused = || ModelError::Setting {
            name: "calibrator",
            value: name.to_owned(),
            reason: "minmax, percentile, or percentile:P with P above 0 and at most 100".into(),
        };
        match name.split_once(':') {
            None if name == "minmax" => Ok(Self::MinMax),
            None if name == "percentile" => Ok(Self::Percentile(PERCENT)),
            Some(("percentile", percent)) => {
                let percent = percent.parse().ok().filter(|p| *p > 0.0 && *p <= 100.0);
                Ok(Self::Percentile(percent.ok_or_else(refused)?))
            }
            _ => Err(refused()),
        }
    }
}

/// What a tensor's values reach over all examples.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Extent {
    min: f32,
    max: f32,
    /// Smallest absolute value.
    pub(super) least: f32,
}

impl Default for Extent {
    fn default() -> Self {
        Self { min: f32::INFINITY, max: f32::NEG_INFINITY, least: f32::INFINITY }
    }
}

impl Extent {
    /// Takes these values in; NaN is kept, to be refused later.
    pub(super) fn widen(&mut self, values: &[f32]) {
        for &value in values {
            // Written so that a NaN, once met, stays.
            if value < self.min || value.is_nan() {
                self.min = value;
            }
            if value > self.max || value.is_nan() {
                self.max = value;
            }
            self.least = self.least.min(value.abs());
        }
    }

    /// Largest absolute value.
    pub(super) fn most(&self) -> f32 {
        self.max.max(-self.min)
    }
}

/// Smallest and largest value of each float value of a graph.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ranges {
    by_name: BTreeMap<String, (f32, f32)>,
}

impl Ranges {
    /// Ranges found elsewhere, for instance by another runtime.
    ///
    /// # Errors
    /// [`ModelError::Calibration`] for a range that is not finite or has its ends swapped.
    pub fn new(by_name: BTreeMap<String, (f32, f32)>) -> Result<Self, ModelError> {
        for (name, (min, max)) in &by_name {
            if !(min.is_finite() && max.is_finite() && min <= max) {
                return Err(not_finite(name, *min, *max));
            }
        }
        Ok(Self { by_name })
    }

    /// The range of a value.
    pub fn get(&self, name: &str) -> Option<(f32, f32)> {
        self.by_name.get(name).copied()
    }

    /// All ranges by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, (f32, f32))> {
        self.by_name.iter().map(|(name, range)| (name.as_str(), *range))
    }
}

fn not_finite(name: &str, min: f32, max: f32) -> ModelError {
    ModelError::Calibration { tensor: name.to_owned(), reason: format!("its range {min}..{max} is not finite; check data and weights") }
}

/// Runs the calibration examples through the model and notes the range of every float value that is never infinite.
/// [`Calibrator::Percentile`] runs them twice, so that no value has to be kept.
///
/// # Errors
/// [`ModelError::Calibration`] without examples, or where a value is NaN;
/// [`ModelError::Data`] if they are not what the model reads; what the forward pass refuses.
pub fn ranges(model: &Model, calibration: &Features, calibrator: Calibrator) -> Result<Ranges, ModelError> {
    let examples = Examples::new(&prepare(model)?, calibration)?;
    let mut extents: BTreeMap<String, Extent> = BTreeMap::new();
    examples.show(&mut |name, values| extents.entry(name.to_owned()).or_default().widen(values))?;
    // A score that is minus infinity, as masks make them, has no range and stays in float.
    extents.retain(|_, extent| extent.min.is_nan() || extent.most().is_finite());
    let ranges = Ranges::new(extents.iter().map(|(name, extent)| (name.clone(), (extent.min, extent.max))).collect())?;
    let Calibrator::Percentile(percent) = calibrator else { return Ok(ranges) };
    let mut histograms: BTreeMap<&str, Histogram> = extents.iter().map(|(name, e)| (name.as_str(), Histogram::new(e))).collect();
    examples.show(&mut |name, values| {
        if let Some(histogram) = histograms.get_mut(name) {
            histogram.count(values);
        }
    })?;
    let cut = |(name, histogram): (&str, Histogram)| {
        let (bound, extent) = (histogram.bound(percent), &extents[name]);
        let min = extent.min.max(-bound);
        (name.to_owned(), (min, extent.max.min(bound).max(min)))
    };
    Ranges::new(histograms.into_iter().map(cut).collect())
}

/// Calibration data, and the model that reads it.
pub(super) struct Examples<'x> {
    forward: Forward,
    x: &'x Features,
    batch: usize,
    /// How many rows make whole batches.
    usable: usize,
}

impl<'x> Examples<'x> {
    pub(super) fn new(model: &Model, x: &'x Features) -> Result<Self, ModelError> {
        let fixed = model.inputs().iter().find_map(|input| match input.shape.first() {
            Some(Dim::Fixed(n)) => Some(*n),
            _ => None,
        });
        let (rows, batch) = (x.rows(), fixed.unwrap_or(BATCH));
        // A graph of a fixed batch takes whole ones only.
        let usable = if fixed.is_some() { rows / batch.max(1) * batch } else { rows };
        if usable == 0 {
            let reason = format!("{rows} examples are no batch of {batch}");
            return Err(ModelError::Calibration { tensor: "the data".to_owned(), reason });
        }
        x.check_for(&model.inputs())?;
        Ok(Self { forward: Forward::new(model)?, x, batch, usable })
    }

    /// Shows every float value of every batch, the model's inputs among them.
    pub(super) fn show(&self, see: &mut dyn FnMut(&str, &[f32])) -> Result<(), ModelError> {
        for start in (0..self.usable).step_by(self.batch) {
            let rows: Vec<usize> = (start..(start + self.batch).min(self.usable)).collect();
            let part = self.x.take_rows(&rows);
            let inputs = self.forward.feed(&part)?;
            for (name, x) in &inputs {
                if let Some(values) = x.as_f32() {
                    see(name, values);
                }
            }
            self.forward.observe(&inputs, &mut |name, tensor| {
                if let Some(values) = tensor.as_f32().filter(|v| !v.is_empty()) {
                    see(name, values);
                }
            })?;
        }
        Ok(())
    }
}

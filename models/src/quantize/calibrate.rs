//! Ranges of values, observed on calibration data.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::histogram::Histogram;
use super::passes::prepare;
use crate::ModelError;
use crate::dataset::ShowDims;
use crate::forward::Forward;
use crate::onnx::{Dim, Model, ValueInfo};
use crate::tensor::Tensor;

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

/// Runs the calibration examples `[n, ...]` through the model and notes the range of every
/// float value that is never infinite. [`Calibrator::Percentile`] runs them twice, so that no value has to be kept.
///
/// # Errors
/// [`ModelError::Calibration`] without examples, or where a value is NaN;
/// [`ModelError::Input`] if the model takes more than one input, or another type; what the
/// forward pass refuses.
pub fn ranges(model: &Model, calibration: &Tensor, calibrator: Calibrator) -> Result<Ranges, ModelError> {
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
    input: ValueInfo,
    x: &'x Tensor,
    batch: usize,
    /// How many rows make whole batches.
    usable: usize,
}

impl<'x> Examples<'x> {
    pub(super) fn new(model: &Model, x: &'x Tensor) -> Result<Self, ModelError> {
        let inputs = model.inputs();
        let [input] = inputs.as_slice() else {
            return Err(ModelError::Input {
                name: inputs.get(1).map_or_else(String::new, |i| i.name.clone()),
                reason: format!("calibration needs a model with one input, this has {}", inputs.len()),
            });
        };
        x.check()?;
        let fixed = match input.shape.first() {
            Some(Dim::Fixed(n)) => Some(*n),
            _ => None,
        };
        let batch = fixed.unwrap_or(BATCH);
        let usable = if fixed.is_some() && batch > 0 { x.rows() / batch * batch } else { x.rows() };
        if x.shape.is_empty() || usable == 0 || batch == 0 {
            return Err(ModelError::Calibration {
                tensor: input.name.clone(),
                reason: format!("the data {:?} has no whole batch for {}", x.shape, ShowDims(&input.shape)),
            });
        }
        Ok(Self { forward: Forward::new(model)?, input: input.clone(), x, batch, usable })
    }

    /// Shows every float value of every batch, the model's input among them.
    pub(super) fn show(&self, see: &mut dyn FnMut(&str, &[f32])) -> Result<(), ModelError> {
        let (name, element) = (self.input.name.as_str(), self.input.element);
        for start in (0..self.usable).step_by(self.batch) {
            let rows: Vec<usize> = (start..(start + self.batch).min(self.usable)).collect();
            let bad = |at| ModelError::Input { name: name.to_owned(), reason: format!("value {at} is no {element:?}") };
            let x = self.x.take_rows(&rows).read_as(element).map_err(bad)?;
            if let Some(values) = x.as_f32() {
                see(name, values);
            }
            self.forward.observe(&[(name, x)], &mut |name, tensor| {
                if let Some(values) = tensor.as_f32().filter(|v| !v.is_empty()) {
                    see(name, values);
                }
            })?;
        }
        Ok(())
    }
}

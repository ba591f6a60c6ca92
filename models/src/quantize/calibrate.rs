//! Ranges of values, observed on calibration data (MinMax).

use std::collections::BTreeMap;

use super::prepare::prepare;
use crate::ModelError;
use crate::features::Features;
use crate::forward::Forward;
use crate::onnx::{Dim, Model};
use crate::tensor::Tensor;

/// Examples that go through the graph at once.
const BATCH: usize = 32;

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

    /// Widens the range of `name` by these values; NaN is kept, to be refused later.
    fn observe(&mut self, name: &str, values: &[f32]) {
        let Some(&first) = values.first() else { return };
        if !self.by_name.contains_key(name) {
            self.by_name.insert(name.to_owned(), (first, first));
        }
        let Some((min, max)) = self.by_name.get_mut(name) else { return };
        for &value in values {
            // Written so that a NaN, once met, stays.
            if value < *min || value.is_nan() {
                *min = value;
            }
            if value > *max || value.is_nan() {
                *max = value;
            }
        }
    }
}

fn not_finite(name: &str, min: f32, max: f32) -> ModelError {
    ModelError::Calibration { tensor: name.to_owned(), reason: format!("its range {min}..{max} is not finite; check data and weights") }
}

/// Runs the calibration examples through the model and notes the range of every float value.
///
/// # Errors
/// [`ModelError::Calibration`] without examples, or where a value is NaN or infinite;
/// [`ModelError::Data`] if they are not what the model reads; what the forward pass refuses.
pub fn ranges(model: &Model, calibration: &Features) -> Result<Ranges, ModelError> {
    let prepared = prepare(model)?;
    let fixed = prepared.inputs().iter().find_map(|input| match input.shape.first() {
        Some(Dim::Fixed(n)) => Some(*n),
        _ => None,
    });
    let rows = calibration.rows();
    let batch = fixed.unwrap_or(BATCH);
    // A graph of a fixed batch takes whole ones only.
    let usable = if fixed.is_some() { rows / batch.max(1) * batch } else { rows };
    if usable == 0 {
        let reason = format!("{rows} examples are no batch of {batch}");
        return Err(ModelError::Calibration { tensor: "the data".to_owned(), reason });
    }
    calibration.check_for(&prepared.inputs())?;
    let forward = Forward::new(&prepared)?;
    let mut ranges = Ranges::default();
    for start in (0..usable).step_by(batch) {
        let rows: Vec<usize> = (start..(start + batch).min(usable)).collect();
        let part = calibration.take_rows(&rows);
        let inputs = forward.feed(&part)?;
        for (name, x) in &inputs {
            if let Some(values) = x.as_f32() {
                ranges.observe(name, values);
            }
        }
        let mut see = |name: &str, tensor: &Tensor| {
            if let Some(values) = tensor.as_f32() {
                ranges.observe(name, values);
            }
        };
        forward.observe(&inputs, &mut see)?;
    }
    Ranges::new(ranges.by_name)
}

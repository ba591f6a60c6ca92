//! Gradients per unit of privacy, for differentially private training (Abadi et al. 2016,
//! arXiv:1607.00133).
//!
//! The guarantee rests on what one unit (an example, or all examples of one entity) can
//! change, so each unit gets a gradient of its own, which depends on its own rows, the
//! parameters and the seed, and on no other unit. Nor can a unit end the pass: what it
//! breaks counts as a gradient of zeros, because whether a pass ended would tell whether
//! the unit was there.

use std::ops::ControlFlow;

use super::order::{Purpose, generator};
use super::{TrainError, Trainer};
use crate::ModelError;
use crate::dataset::Dataset;
use crate::interpreter::guard;

/// Most rows of a unit that run together; larger units run in parts, so that one entity
/// with many rows needs no more memory than others.
const ROWS_AT_ONCE: usize = 128;

/// The gradient of one unit (an example, or all examples of an entity) at the current
/// parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UnitGradient<'a> {
    /// Of the unit's mean loss: `[D]` in layout order, each tensor row-major as the file has
    /// it. Zeros at running statistics, and everywhere if the loss or a gradient of the
    /// unit is not finite.
    pub gradient: &'a [f32],
    /// Mean over the unit's rows; NaN if the loss or a gradient is not finite, or if the
    /// graph refused the rows.
    pub loss: f64,
    /// Rows answered right, none if `loss` is NaN; `None` for losses of values.
    pub correct: Option<u32>,
    /// Rows of the unit.
    pub rows: usize,
}

impl Trainer {
    /// Calls `each` with the gradient of every unit in turn, at the current parameters, which
    /// stay. A unit is given by its rows in `data`; `each` may stop the pass.
    ///
    /// Dropout draws the masks of every unit from the same stream of `seed`: were it another one
    /// for each row, a row more or less would change the masks of all behind it, and with them
    /// what all other units contribute. The same seed, rows and parameters give the same bits.
    /// Draw a new seed for each pass.
    ///
    /// # Errors
    /// [`TrainError::Model`] from [`Trainer::check_units`], [`TrainError::Data`] and
    /// [`TrainError::Targets`] before anything is handed out; [`TrainError::Stopped`] if
    /// `each` said so. A unit whose loss or gradient is not finite, or whose rows the graph
    /// refuses (say an index past a table), is no error: see [`UnitGradient`].
    ///
    /// # Panics
    /// If a unit is empty or names a row that is not in the data set, as slice indexing does.
    pub fn unit_gradients<'u>(
        &self,
        data: &Dataset,
        units: impl IntoIterator<Item = &'u [usize]>,
        seed: u64,
        each: &mut dyn FnMut(UnitGradient<'_>) -> ControlFlow<()>,
    ) -> Result<(), TrainError> {
        self.check_units()?;
        self.check(data)?;
        let mut flat = vec![0.0; self.length()];
        for rows in units {
            assert!(!rows.is_empty() && rows.iter().all(|row| *row < data.len()), "a unit names rows of the data set");
            let measured = guard("the gradient of a unit", || self.unit(data, rows, seed, &mut flat));
            let finite = |flat: &[f32]| flat.iter().fold(true, |all, v| all & v.is_finite());
            let (loss, correct) = match measured {
                Ok((loss, correct)) if loss.is_finite() && finite(&flat) => (loss, correct),
                _ => {
                    flat.fill(0.0);
                    (f64::NAN, self.criterion.has_accuracy(&self.answer).then_some(0))
                }
            };
            if each(UnitGradient { gradient: &flat, loss, correct, rows: rows.len() }).is_break() {
                return Err(TrainError::Stopped);
            }
        }
        Ok(())
    }

    /// Writes the gradient of one unit's mean loss; gives that loss and the rows answered right.
    fn unit(&self, data: &Dataset, rows: &[usize], seed: u64, flat: &mut [f32]) -> Result<(f64, Option<u32>), ModelError> {
        let mut masks = generator(seed, 0, Purpose::Masks);
        let (mut loss, mut correct) = (0.0, None);
        flat.fill(0.0);
        for part in rows.chunks(ROWS_AT_ONCE) {
            let pass = self.pass(data, part, &mut masks)?;
            let share = part.len() as f64 / rows.len() as f64;
            loss += pass.measured.loss * share;
            correct = pass.measured.correct.map(|c| correct.unwrap_or(0) + c as u32);
            for (i, (gradient, parameter)) in pass.gradients.into_iter().zip(self.layout.parameters()).enumerate() {
                let Some(gradient) = gradient else { continue };
                let gradient = gradient.to_contiguous();
                let values = gradient.as_slice::<f32>().expect("made contiguous above, and all floats are f32");
                let place = &mut flat[parameter.range()];
                match (self.learn.is_transposed(i), &parameter.shape[..]) {
                    (true, [rows, columns]) => add_transposed(place, values, *rows, *columns, share as f32),
                    _ => place.iter_mut().zip(values).for_each(|(to, v)| *to += v * share as f32),
                }
            }
        }
        Ok((loss, correct))
    }
}

/// Adds `factor` times a `[columns, rows]` matrix to a `[rows, columns]` one, both row-major.
fn add_transposed(to: &mut [f32], values: &[f32], rows: usize, columns: usize, factor: f32) {
    for (r, to) in to.chunks_exact_mut(columns.max(1)).enumerate() {
        for (c, to) in to.iter_mut().enumerate() {
            *to += values[c * rows + r] * factor;
        }
    }
}

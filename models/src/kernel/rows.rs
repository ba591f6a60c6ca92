//! Rows of a matrix in parts that the matrix alone decides, so that what is summed over them does not depend on the number of
//! threads; and the sum of a row vector with each of them.

use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::{Kernel, simd, values};
use crate::interpreter::value::{dims, floats};

/// Most parts.
const PARTS: usize = 8;
/// Fewest values in a part: less is not worth a thread.
const LEAST: usize = 1 << 13;

/// How many rows and values a part has; the last may have fewer.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    rows: usize,
    width: usize,
}

impl Parts {
    pub(super) fn of(rows: usize, width: usize) -> Self {
        let least = LEAST.div_ceil(width.max(1));
        Self { rows: rows.div_ceil(PARTS).max(least), width: width.max(1) }
    }

    pub(super) fn rows(self) -> usize {
        self.rows
    }

    pub(super) fn values(self) -> usize {
        self.rows * self.width
    }
}

/// The sum of the parts' sums, in order.
pub(super) fn total(sums: Vec<Vec<f32>>) -> Vec<f32> {
    let add = |mut all: Vec<f32>, part: Vec<f32>| {
        all.iter_mut().zip(part).for_each(|(all, part)| *all += part);
        all
    };
    sums.into_iter().reduce(add).unwrap_or_default()
}

/// `x` `[…, width]` plus a row `[width]`: the bias of a linear layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddRow;

impl Kernel<2> for AddRow {
    /// Length of the row.
    type Saved = usize;

    fn forward(&self, [x, row]: [FlexTensor; 2]) -> (FlexTensor, usize) {
        let (mut x, row) = (x.to_contiguous(), row.to_contiguous());
        let (row, shape) = (values(&row), dims::<Flex>(&x));
        let add = |x: &mut [f32]| x.iter_mut().zip(row).for_each(|(x, b)| *x += b);
        let parts = Parts::of(shape.iter().product::<usize>() / row.len(), row.len());
        let all = x.storage_mut::<f32>().par_chunks_mut(parts.values());
        all.for_each(|part| simd(|| part.chunks_exact_mut(row.len()).for_each(add)));
        (x, row.len())
    }

    fn backward(&self, width: usize, gradient: FlexTensor, [_, of_row]: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let row = of_row.then(|| {
            let gradient = gradient.to_contiguous();
            let parts = Parts::of(values(&gradient).len() / width, width);
            let part = |part: &[f32]| {
                let mut sums = vec![0.0; width];
                let add = |row: &[f32]| sums.iter_mut().zip(row).for_each(|(sum, dy)| *sum += dy);
                simd(|| part.chunks_exact(width).for_each(add));
                sums
            };
            let sums = values(&gradient).par_chunks(parts.values()).map(part).collect();
            floats::<Flex>(total(sums), &[width])
        });
        [Some(gradient), row]
    }
}

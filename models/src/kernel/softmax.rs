//! Softmax of each row.

use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::lanes::{dot, sum};
use super::{Kernel, math::exp, simd, values};
use crate::interpreter::value::{dims, floats};

/// Over the last axis, which is not empty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Softmax;

/// Values that one task takes: less is not worth a thread.
const AT_ONCE: usize = 1 << 14;

impl Kernel<1> for Softmax {
    /// The value.
    type Saved = FlexTensor;

    fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, Self::Saved) {
        let x = x.to_contiguous();
        let shape = dims::<Flex>(&x);
        let width = shape[shape.len() - 1];
        let mut y = values(&x).to_vec();
        let row = |row: &mut [f32]| {
            let most = row.iter().fold(f32::NEG_INFINITY, |most, x| if *x > most { *x } else { most });
            row.iter_mut().for_each(|x| *x = exp(*x - most));
            let share = 1.0 / sum(row);
            row.iter_mut().for_each(|x| *x *= share);
        };
        y.par_chunks_mut((AT_ONCE / width).max(1) * width).for_each(|rows| simd(|| rows.chunks_exact_mut(width).for_each(row)));
        let y = floats::<Flex>(y, &shape);
        (y.clone(), y)
    }

    fn backward(&self, y: Self::Saved, gradient: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let mut gradient = gradient.to_contiguous();
        let width = *dims::<Flex>(&y).last().expect("a row");
        let at_once = (AT_ONCE / width).max(1) * width;
        let row = |(dy, y): (&mut [f32], &[f32])| {
            let mean = dot(dy, y);
            dy.iter_mut().zip(y).for_each(|(dy, y)| *dy = y * (*dy - mean));
        };
        let parts = gradient.storage_mut::<f32>().par_chunks_mut(at_once).zip(values(&y).par_chunks(at_once));
        parts.for_each(|(dy, y)| simd(|| dy.chunks_exact_mut(width).zip(y.chunks_exact(width)).for_each(row)));
        [Some(gradient)]
    }
}

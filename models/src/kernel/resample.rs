//! Weighted sums along single axes: interpolation, and its gradient.

use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::{Kernel, values};
use crate::interpreter::value::{dims, floats};

/// How the elements of one axis are made of the old ones.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    /// Extent before.
    pub(crate) read: usize,
    /// Which old elements each new one reads, and how much of them; one that reads none is `fill`.
    pub(crate) taps: Vec<Vec<(u32, f32)>>,
    pub(crate) fill: f32,
}

/// One line for each axis that changes, in turn.
#[derive(Debug, Clone)]
pub(crate) struct Resample(pub(crate) Vec<(usize, Line)>);

impl Kernel<1> for Resample {
    /// The shape of the input.
    type Saved = Vec<usize>;

    fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, Self::Saved) {
        let x = x.to_contiguous();
        let before = dims::<Flex>(&x);
        let (mut shape, mut x) = (before.clone(), x);
        for (axis, line) in &self.0 {
            let inner: usize = shape[axis + 1..].iter().product();
            shape[*axis] = line.taps.len();
            let mut y = vec![0.0f32; shape.iter().product()];
            let blocks = y.par_chunks_mut((line.taps.len() * inner).max(1)).zip(values(&x).par_chunks((line.read * inner).max(1)));
            blocks.for_each(|(y, x)| line.gather(x, y, inner));
            x = floats::<Flex>(y, &shape);
        }
        (x, before)
    }

    fn backward(&self, before: Self::Saved, gradient: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let mut gradient = gradient.to_contiguous();
        let mut shape = dims::<Flex>(&gradient);
        for (axis, line) in self.0.iter().rev() {
            let inner: usize = shape[axis + 1..].iter().product();
            shape[*axis] = line.read;
            let mut dx = vec![0.0f32; shape.iter().product()];
            let of_image = (line.taps.len() * inner).max(1);
            let blocks = dx.par_chunks_mut((line.read * inner).max(1)).zip(values(&gradient).par_chunks(of_image));
            blocks.for_each(|(dx, dy)| line.scatter(dy, dx, inner));
            gradient = floats::<Flex>(dx, &shape);
        }
        debug_assert_eq!(shape, before, "every axis is back");
        [Some(gradient)]
    }
}

impl Line {
    fn gather(&self, x: &[f32], y: &mut [f32], inner: usize) {
        for (taps, y) in self.taps.iter().zip(y.chunks_exact_mut(inner.max(1))) {
            match taps[..] {
                [] => y.fill(self.fill),
                [(from, 1.0)] => y.copy_from_slice(&x[from as usize * inner..][..inner]),
                _ => {
                    for (from, weight) in taps {
                        let x = &x[*from as usize * inner..][..inner];
                        y.iter_mut().zip(x).for_each(|(y, x)| *y += weight * x);
                    }
                }
            }
        }
    }

    fn scatter(&self, dy: &[f32], dx: &mut [f32], inner: usize) {
        for (taps, dy) in self.taps.iter().zip(dy.chunks_exact(inner.max(1))) {
            for (from, weight) in taps {
                let dx = &mut dx[*from as usize * inner..][..inner];
                dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx += weight * dy);
            }
        }
    }
}

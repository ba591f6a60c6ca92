//! The maximum of each window, in two dimensions.

use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::columns::reach;
use super::conv::Geometry;
use super::{Kernel, simd, values};
use crate::interpreter::value::{dims, floats};

/// `[n, c, h, w]` to `[n, c, oh, ow]`. What is no number is more than any; of equals the first counts. A window of pads alone
/// gives negative infinity.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaxPool(pub(crate) Geometry);

/// In place of a cell: none was read.
const NOWHERE: u32 = u32::MAX;

impl Kernel<1> for MaxPool {
    /// The shape of the input, and for each output the cell of its plane.
    type Saved = (Vec<usize>, Vec<u32>);

    fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, Self::Saved) {
        let (x, g) = (x.to_contiguous(), &self.0);
        let shape = dims::<Flex>(&x);
        let planes = shape[0] * shape[1];
        let mut most = vec![f32::NEG_INFINITY; planes * g.cells()];
        let mut cells = vec![NOWHERE; planes * g.cells()];
        let by_plane = most.par_chunks_exact_mut(g.cells()).zip(cells.par_chunks_exact_mut(g.cells()));
        by_plane.zip(values(&x).par_chunks_exact(g.plane())).for_each(|((most, cells), x)| simd(|| self.plane(x, most, cells)));
        (floats::<Flex>(most, &[shape[0], shape[1], g.out[0], g.out[1]]), (shape, cells))
    }

    fn backward(&self, (shape, cells): Self::Saved, gradient: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let (gradient, g) = (gradient.to_contiguous(), &self.0);
        let mut dx = vec![0.0; shape.iter().product()];
        let taken = cells.par_chunks_exact(g.cells()).zip(values(&gradient).par_chunks_exact(g.cells()));
        dx.par_chunks_exact_mut(g.plane()).zip(taken).for_each(|(dx, (cells, dy))| {
            for (cell, dy) in cells.iter().zip(dy) {
                if let Some(dx) = dx.get_mut(*cell as usize) {
                    *dx += dy;
                }
            }
        });
        [Some(floats::<Flex>(dx, &shape))]
    }
}

impl MaxPool {
    #[inline(always)]
    fn plane(&self, x: &[f32], most: &mut [f32], cells: &mut [u32]) {
        let g = &self.0;
        for ky in 0..g.kernel[0] {
            let (top, bottom, y) = reach(g.out[0], g.input[0], g.stride[0], ky * g.dilation[0], g.begin[0]);
            for kx in 0..g.kernel[1] {
                let (left, right, first) = reach(g.out[1], g.input[1], g.stride[1], kx * g.dilation[1], g.begin[1]);
                for line in 0..bottom - top {
                    let out = (top + line) * g.out[1];
                    let read = (y + line * g.stride[0]) * g.input[1] + first;
                    let (most, cells) = (&mut most[out + left..out + right], &mut cells[out + left..out + right]);
                    for (i, (most, cell)) in most.iter_mut().zip(cells).enumerate() {
                        let at = read + i * g.stride[1];
                        let value = x[at];
                        // Nothing is above what is no number, so the first of these stays.
                        let above = value > *most || (value.is_nan() && !most.is_nan()) || *cell == NOWHERE;
                        *most = if above { value } else { *most };
                        *cell = if above { at as u32 } else { *cell };
                    }
                }
            }
        }
    }
}

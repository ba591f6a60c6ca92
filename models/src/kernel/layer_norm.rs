//! Normalization of each row (Ba, Kiros, Hinton 2016; without the mean Zhang, Sennrich 2019).

use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::lanes::{centred_dot, squares, sum};
use super::rows::{Parts, total};
use super::{Kernel, simd, values};
use crate::interpreter::value::{dims, floats};

/// `scale · (x - mean) / sqrt(variance + epsilon) + bias` over the last axis of `x` `[rows, width]`; scale and, if it is a
/// `Kernel<3>`, bias `[width]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerNorm {
    pub(crate) epsilon: f64,
    /// Whether the mean is taken away; if not, it counts as 0 in the variance, too.
    pub(crate) centred: bool,
}

/// Input and gradient.
type Pair<'a> = (&'a [f32], &'a [f32]);

/// Input, scale, and mean and inverse deviation of each row.
type Saved = (FlexTensor, FlexTensor, Vec<[f32; 2]>);

impl Kernel<2> for LayerNorm {
    type Saved = Saved;

    fn forward(&self, [x, scale]: [FlexTensor; 2]) -> (FlexTensor, Saved) {
        self.normalize(&x, &scale, None)
    }

    fn backward(&self, saved: Saved, gradient: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let [x, scale, _] = self.back(&saved, &gradient);
        [x, scale]
    }
}

impl Kernel<3> for LayerNorm {
    type Saved = Saved;

    fn forward(&self, [x, scale, bias]: [FlexTensor; 3]) -> (FlexTensor, Saved) {
        self.normalize(&x, &scale, Some(&bias.to_contiguous()))
    }

    fn backward(&self, saved: Saved, gradient: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
        self.back(&saved, &gradient)
    }
}

impl LayerNorm {
    fn normalize(&self, x: &FlexTensor, scale: &FlexTensor, bias: Option<&FlexTensor>) -> (FlexTensor, Saved) {
        let (x, scale) = (x.to_contiguous(), scale.to_contiguous());
        let (shape, weights) = (dims::<Flex>(&x), values(&scale));
        let (width, offsets) = (weights.len(), bias.map(values));
        let mut y = vec![0.0; values(&x).len()];
        let mut statistics = vec![[0.0; 2]; y.len() / width];
        let parts = Parts::of(statistics.len(), width);
        let row = |(y, (x, found)): (&mut [f32], (&[f32], &mut [f32; 2]))| {
            let mean = if self.centred { sum(x) / width as f32 } else { 0.0 };
            let inverse = 1.0 / (squares(x, mean) / width as f32 + self.epsilon as f32).sqrt();
            *found = [mean, inverse];
            y.iter_mut().zip(x.iter().zip(weights)).for_each(|(y, (x, w))| *y = (x - mean) * inverse * w);
            if let Some(offsets) = offsets {
                y.iter_mut().zip(offsets).for_each(|(y, b)| *y += b);
            }
        };
        let read = values(&x).par_chunks(parts.values()).zip(statistics.par_chunks_mut(parts.rows()));
        y.par_chunks_mut(parts.values()).zip(read).for_each(|(y, (x, found))| {
            simd(|| y.chunks_exact_mut(width).zip(x.chunks_exact(width).zip(found)).for_each(row));
        });
        (floats::<Flex>(y, &shape), (x, scale, statistics))
    }

    fn back(&self, (x, scale, statistics): &Saved, gradient: &FlexTensor) -> [Option<FlexTensor>; 3] {
        let gradient = gradient.to_contiguous();
        let (shape, weights) = (dims::<Flex>(x), values(scale));
        let width = weights.len();
        let mut dx = vec![0.0; values(x).len()];
        let parts = Parts::of(statistics.len(), width);
        let part = |(dx, ((x, dy), found)): (&mut [f32], (Pair<'_>, &[[f32; 2]]))| {
            let (mut of_scale, mut of_bias, mut scaled) = (vec![0.0; width], vec![0.0; width], vec![0.0; width]);
            let row = |(dx, ((x, dy), [mean, inverse])): (&mut [f32], (Pair<'_>, &[f32; 2]))| {
                scaled.iter_mut().zip(dy.iter().zip(weights)).for_each(|(g, (dy, w))| *g = dy * w);
                of_bias.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy);
                of_scale.iter_mut().zip(x.iter().zip(dy)).for_each(|(sum, (x, dy))| *sum += (x - mean) * inverse * dy);
                let shift = if self.centred { sum(&scaled) / width as f32 } else { 0.0 };
                let tilt = centred_dot(x, &scaled, *mean) / width as f32 * inverse * inverse;
                let each = |(dx, (x, g)): (&mut f32, (&f32, &f32))| *dx = inverse * (g - shift - (x - mean) * tilt);
                dx.iter_mut().zip(x.iter().zip(&scaled)).for_each(each);
            };
            simd(|| dx.chunks_exact_mut(width).zip(x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(found)).for_each(row));
            [of_scale, of_bias]
        };
        let read = values(x).par_chunks(parts.values()).zip(values(&gradient).par_chunks(parts.values()));
        let read = read.zip(statistics.par_chunks(parts.rows()));
        let sums: Vec<[Vec<f32>; 2]> = dx.par_chunks_mut(parts.values()).zip(read).map(part).collect();
        let (scales, biases): (Vec<_>, Vec<_>) = sums.into_iter().map(|[scale, bias]| (scale, bias)).unzip();
        let width = [width];
        [Some(floats::<Flex>(dx, &shape)), Some(floats::<Flex>(total(scales), &width)), Some(floats::<Flex>(total(biases), &width))]
    }
}

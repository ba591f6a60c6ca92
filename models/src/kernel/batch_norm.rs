//! Normalization of each channel by the mean and variance of a batch, with the gradient that flows through both (Ioffe, Szegedy
//! 2015, section 3).

use std::sync::Arc;

use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::lanes::{centred_dot, squares, sum};
use super::{Kernel, simd, values};
use crate::interpreter::value::{dims, floats};

/// Mean and biased variance of each channel (axis 1) of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Statistics {
    pub(crate) mean: Arc<[f32]>,
    pub(crate) variance: Arc<[f32]>,
}

impl Statistics {
    /// Of `[n, c, …]`.
    pub(crate) fn of(x: &FlexTensor) -> Self {
        let x = x.to_contiguous();
        let (layout, x) = (Layout::of(&x), values(&x));
        let count = (layout.examples * layout.cells) as f64;
        let channel = |c: usize| {
            simd(|| {
                let planes = || layout.planes(c).map(|plane| &x[plane]);
                let mean = planes().map(|plane| f64::from(sum(plane))).sum::<f64>() / count;
                let square = |plane: &[f32]| f64::from(squares(plane, mean as f32));
                (mean as f32, (planes().map(square).sum::<f64>() / count) as f32)
            })
        };
        let (mean, variance): (Vec<f32>, Vec<f32>) = (0..layout.channels).into_par_iter().map(channel).unzip();
        Self { mean: mean.into(), variance: variance.into() }
    }
}

/// `scale · (x - mean) / sqrt(variance + epsilon) + bias` of `x` `[n, c, …]`, scale and bias `[c]`, where the statistics are those
/// of `x`.
#[derive(Debug, Clone)]
pub(crate) struct BatchNorm {
    pub(crate) statistics: Statistics,
    pub(crate) epsilon: f64,
}

impl BatchNorm {
    fn inverse(&self, channel: usize) -> f32 {
        (1.0 / (f64::from(self.statistics.variance[channel]) + self.epsilon).sqrt()) as f32
    }
}

impl Kernel<3> for BatchNorm {
    /// Input and scale.
    type Saved = [FlexTensor; 2];

    fn forward(&self, [x, scale, bias]: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        let (x, scale, bias) = (x.to_contiguous(), scale.to_contiguous(), bias.to_contiguous());
        let layout = Layout::of(&x);
        let mut y = vec![0.0; values(&x).len()];
        let planes = y.par_chunks_exact_mut(layout.cells).zip(values(&x).par_chunks_exact(layout.cells));
        planes.enumerate().for_each(|(i, (y, x))| {
            let c = i % layout.channels;
            let factor = values(&scale)[c] * self.inverse(c);
            let (mean, bias) = (self.statistics.mean[c], values(&bias)[c]);
            simd(|| y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - mean) * factor + bias));
        });
        (floats::<Flex>(y, &dims::<Flex>(&x)), [x, scale])
    }

    fn backward(&self, [x, scale]: Self::Saved, gradient: FlexTensor, [of_x, ..]: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let gradient = gradient.to_contiguous();
        let (layout, dy) = (Layout::of(&x), values(&gradient));
        // For each channel the sums of the gradient, and of its products with the normalized input.
        let sums = |c: usize| {
            simd(|| {
                let (mut plain, mut product) = (0.0, 0.0);
                for plane in layout.planes(c) {
                    let (x, dy) = (&values(&x)[plane.clone()], &dy[plane]);
                    plain += f64::from(sum(dy));
                    product += f64::from(centred_dot(x, dy, self.statistics.mean[c]));
                }
                (plain as f32, product as f32 * self.inverse(c))
            })
        };
        let (plain, product): (Vec<f32>, Vec<f32>) = (0..layout.channels).into_par_iter().map(sums).unzip();
        let count = (layout.examples * layout.cells) as f32;
        let dx = of_x.then(|| {
            let mut dx = vec![0.0; dy.len()];
            let read = values(&x).par_chunks_exact(layout.cells).zip(dy.par_chunks_exact(layout.cells));
            dx.par_chunks_exact_mut(layout.cells).zip(read).enumerate().for_each(|(i, (dx, (x, dy)))| {
                let c = i % layout.channels;
                let (mean, inverse) = (self.statistics.mean[c], self.inverse(c));
                let (factor, shift, tilt) = (values(&scale)[c] * inverse, plain[c] / count, product[c] / count * inverse);
                let each = |(dx, (x, dy)): (&mut f32, (&f32, &f32))| *dx = factor * (dy - shift - (x - mean) * tilt);
                simd(|| dx.iter_mut().zip(x.iter().zip(dy)).for_each(each));
            });
            floats::<Flex>(dx, &dims::<Flex>(&x))
        });
        let channels = [layout.channels];
        [dx, Some(floats::<Flex>(product, &channels)), Some(floats::<Flex>(plain, &channels))]
    }
}

/// `[n, c, …]` as planes.
#[derive(Clone, Copy)]
struct Layout {
    examples: usize,
    channels: usize,
    cells: usize,
}

impl Layout {
    fn of(x: &FlexTensor) -> Self {
        let shape = dims::<Flex>(x);
        Self { examples: shape[0], channels: shape[1], cells: shape[2..].iter().product() }
    }

    /// Where the planes of a channel lie.
    fn planes(self, channel: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        (0..self.examples).map(move |n| (n * self.channels + channel) * self.cells).map(move |at| at..at + self.cells)
    }
}

//! Functions of each element that need no more of the backend than their slope.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use burn_flex::{Flex, FlexTensor};

use super::math::{erf, exp};
use super::{Kernel, simd, values};
use crate::interpreter::value::{dims, floats};

/// A function of one number. At a kink the slope is that of the inner branch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pointwise {
    /// `x` where it is above 0; the slope at 0 is 0.
    Relu,
    /// `alpha · x` below 0.
    LeakyRelu { alpha: f32 },
    /// `x` between two bounds.
    Clip { min: f32, max: f32 },
    /// `alpha · x + beta` between 0 and 1.
    HardSigmoid { alpha: f32, beta: f32 },
    /// `x` times the hard sigmoid with 1/6 and 1/2 (Howard et al. 2019, section 5.2).
    HardSwish,
    /// `x · Φ(x)`, Φ the distribution of a standard normal number (Hendrycks, Gimpel 2016).
    Gelu,
    /// The error function.
    Erf,
}

impl Kernel<1> for Pointwise {
    type Saved = FlexTensor;

    fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, Self::Saved) {
        let x = x.to_contiguous();
        let y = match *self {
            Self::Relu => map(&x, |x| if x < 0.0 { 0.0 } else { x }),
            Self::LeakyRelu { alpha } => map(&x, |x| if x < 0.0 { alpha * x } else { x }),
            Self::Clip { min, max } => map(&x, |x| clip(x, min, max)),
            Self::HardSigmoid { alpha, beta } => map(&x, |x| clip(alpha * x + beta, 0.0, 1.0)),
            Self::HardSwish => map(&x, |x| x * clip(x / 6.0 + 0.5, 0.0, 1.0)),
            Self::Gelu => map(&x, |x| x * normal(x)),
            Self::Erf => map(&x, erf),
        };
        (y, x)
    }

    fn backward(&self, x: Self::Saved, gradient: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let mut gradient = gradient.to_contiguous();
        let inside = |at: f32, low: f32, high: f32| !(at < low || at > high);
        match *self {
            Self::Relu => scale(&mut gradient, &x, |x, dy| if x <= 0.0 { 0.0 } else { dy }),
            Self::LeakyRelu { alpha } => scale(&mut gradient, &x, |x, dy| if x < 0.0 { alpha * dy } else { dy }),
            Self::Clip { min, max } => scale(&mut gradient, &x, |x, dy| if inside(x, min, max) { dy } else { 0.0 }),
            Self::HardSigmoid { alpha, beta } => {
                scale(&mut gradient, &x, |x, dy| if inside(alpha * x + beta, 0.0, 1.0) { alpha * dy } else { 0.0 });
            }
            Self::HardSwish => scale(&mut gradient, &x, |x, dy| {
                let slope = if inside(x / 6.0 + 0.5, 0.0, 1.0) { x / 3.0 + 0.5 } else { f32::from(u8::from(x > 0.0)) };
                dy * slope
            }),
            Self::Gelu => scale(&mut gradient, &x, |x, dy| {
                let density = exp(x * x * -0.5) * FRAC_1_SQRT_2 * 0.5 * FRAC_2_SQRT_PI;
                dy * (normal(x) + x * density)
            }),
            Self::Erf => scale(&mut gradient, &x, |x, dy| dy * FRAC_2_SQRT_PI * exp(-x * x)),
        }
        [Some(gradient)]
    }
}

/// Φ: the probability that a standard normal number is below x.
#[inline(always)]
fn normal(x: f32) -> f32 {
    0.5 + 0.5 * erf(x * FRAC_1_SQRT_2)
}

/// What is no number stays so.
#[inline(always)]
fn clip(x: f32, min: f32, max: f32) -> f32 {
    let x = if x < min { min } else { x };
    if x > max { max } else { x }
}

#[inline(always)]
fn map(x: &FlexTensor, f: impl Fn(f32) -> f32) -> FlexTensor {
    floats::<Flex>(simd(|| values(x).iter().map(|x| f(*x)).collect()), &dims::<Flex>(x))
}

/// Each element of the gradient from itself and that of `x`.
#[inline(always)]
fn scale(gradient: &mut FlexTensor, x: &FlexTensor, f: impl Fn(f32, f32) -> f32) {
    let (gradient, x) = (gradient.storage_mut::<f32>(), values(x));
    simd(|| gradient.iter_mut().zip(x).for_each(|(dy, x)| *dy = f(*x, *dy)));
}

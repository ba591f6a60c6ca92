//! Sums in lanes: as many running sums as a vector register holds and some more, added in the end. Inlined into what [`simd`]
//! compiles for the processor at hand.
//!
//! [`simd`]: super::simd

const LANES: usize = 32;

/// Sum of `term` over pairs.
#[inline(always)]
fn fold(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let ((a, rest_a), (b, rest_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            lanes[i] += term(a[i], b[i]);
        }
    }
    lanes.iter().sum::<f32>() + rest_a.iter().zip(rest_b).map(|(a, b)| term(*a, *b)).sum::<f32>()
}

/// Sum.
#[inline(always)]
pub(super) fn sum(values: &[f32]) -> f32 {
    fold(values, values, |v, _| v)
}

/// Sum of products.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    fold(a, b, |a, b| a * b)
}

/// Sum of products, where `mean` is taken from each of `a`.
#[inline(always)]
pub(super) fn centred_dot(a: &[f32], b: &[f32], mean: f32) -> f32 {
    fold(a, b, |a, b| (a - mean) * b)
}

/// Sum of squared distances from the mean.
#[inline(always)]
pub(super) fn squares(values: &[f32], mean: f32) -> f32 {
    fold(values, values, |v, _| (v - mean) * (v - mean))
}

//! Scales, zero points and rounding, as ONNX Runtime computes them: differences in f64,
//! rounding half to even, scales cast to f32 last (`quant_utils.compute_scale_zp`).

/// Scale and zero point of one tensor or channel: `real = scale * (quantized - zero)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Affine {
    pub(super) scale: f32,
    pub(super) zero: i32,
}

/// For a U8 tensor of that range; 0 is always represented exactly.
///
/// `top` is 255, or 127 where one bit is kept free.
pub(super) fn asymmetric(min: f32, max: f32, top: u8) -> Affine {
    let (min, max) = (f64::from(min.min(0.0)), f64::from(max.max(0.0)));
    let scale = (max - min) / f64::from(top);
    if scale < f64::from(f32::MIN_POSITIVE) {
        return Affine { scale: 1.0, zero: 0 };
    }
    Affine { scale: scale as f32, zero: (0.0 - min / scale).round_ties_even() as i32 }
}

/// For an S8 tensor of that range with zero point 0, over `[-top, top]`.
pub(super) fn around_zero(min: f32, max: f32, top: i8) -> Affine {
    Affine { scale: symmetric([min, max].into_iter(), top), zero: 0 }
}

/// For S8 weights with zero point 0 over `[-bound, bound]`.
pub(super) fn symmetric(values: impl Iterator<Item = f32>, bound: i8) -> f32 {
    let largest = values.fold(0f32, |m, v| m.max(v.abs()));
    let scale = 2.0 * f64::from(largest) / (2.0 * f64::from(bound));
    if scale < f64::from(f32::MIN_POSITIVE) { 1.0 } else { scale as f32 }
}

/// One value as U8.
pub(super) fn to_u8(value: f32, affine: Affine) -> u8 {
    // A float to integer cast saturates, which is the clipping.
    ((value / affine.scale).round_ties_even() + affine.zero as f32) as u8
}

/// One value as S8 with zero point 0.
pub(super) fn to_i8(value: f32, scale: f32) -> i8 {
    (value / scale).round_ties_even() as i8
}

/// One bias value as INT32, computed in f64.
pub(super) fn to_i32(value: f32, scale: f32) -> i32 {
    (f64::from(value) / f64::from(scale)).round_ties_even() as i32
}

/// The weight scale, raised where the bias would otherwise not fit INT32
/// (`_adjust_weight_scale_for_int32_bias`).
pub(super) fn widen_for_bias(weight_scale: f32, input_scale: f32, bias: f32) -> f32 {
    let range = 2.0 * f64::from(i32::MAX);
    let smallest = 1.0001 * (2.0 * f64::from(bias.abs())) / range;
    let candidate = f64::from(input_scale) * f64::from(weight_scale);
    if candidate > 0.0 && candidate < smallest {
        return (f64::from(weight_scale) * (smallest / candidate)) as f32;
    }
    weight_scale
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_always_hold_zero_and_degenerate_ones_have_scale_one() {
        assert_eq!(asymmetric(1.0, 2.55, 255), asymmetric(0.0, 2.55, 255));
        assert_eq!(asymmetric(0.0, 2.55, 255).zero, 0);
        assert_eq!(asymmetric(-2.55, -1.0, 255).zero, 255);
        assert_eq!(asymmetric(0.0, 0.0, 255), Affine { scale: 1.0, zero: 0 });
        assert_eq!(symmetric([0.0, -0.0].into_iter(), 127), 1.0);
        // The widest range must not overflow f32.
        assert!(asymmetric(f32::MIN, f32::MAX, 255).scale.is_finite());
    }

    #[test]
    fn rounding_is_half_to_even_and_saturates() {
        let half = Affine { scale: 1.0, zero: 10 };
        assert_eq!([0.5, 1.5, 2.5].map(|v| to_u8(v, half)), [10, 12, 12]);
        assert_eq!([-1e9, 1e9].map(|v| to_u8(v, half)), [0, 255]);
        assert_eq!([-0.5, 0.5, 1.5, 900.0].map(|v| to_i8(v, 1.0)), [0, 0, 2, 127]);
        assert_eq!(to_i32(1e20, 1e-3), i32::MAX);
    }

    #[test]
    fn a_large_bias_raises_the_weight_scale_until_it_fits() {
        assert_eq!(widen_for_bias(1e-2, 1e-2, 1.0), 1e-2);
        let widened = widen_for_bias(1e-8, 1e-3, 5.0);
        assert!(widened > 1e-8);
        let quantized = f64::from(5.0f32) / (f64::from(widened) * 1e-3);
        assert!(quantized < f64::from(i32::MAX), "{quantized}");
    }

    proptest! {
        #[test]
        fn the_error_is_at_most_half_a_step(
            min in -100f32..0.0, max in 0f32..100.0, at in 0f32..1.0,
        ) {
            prop_assume!(max - min > 1e-3);
            let affine = asymmetric(min, max, 255);
            let value = min + at * (max - min);
            let back = affine.scale * (f32::from(to_u8(value, affine)) - affine.zero as f32);
            // The zero point itself is rounded, so the ends may be off by half a step more.
            prop_assert!((back - value).abs() <= affine.scale * 1.001, "{value} {back}");
        }
    }
}

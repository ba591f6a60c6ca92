//! Elementary functions without branches or calls, so that the compiler computes many at once.

/// exp(x), within 2 units in the last place where it is a normal number; 0 below (Cephes, `expf`).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding it leaves the nearest whole number in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x > 88.8 { 88.8 } else { x };
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let power = rounded - ROUND;
    // ln 2 in two parts, of which the first times any power is exact.
    let r = x - power * 0.693_359_4 - power * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + coefficient;
    }
    let fraction = p * r * r + r + 1.0;
    // In two halves: 2^128 is infinite, and half of it times what is left may not be.
    let power = rounded.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = power >> 1;
    let two_to = |power: i32| f32::from_bits(power.wrapping_add(127).wrapping_shl(23) as u32);
    let y = fraction * two_to(half) * two_to(power - half);
    if x < -87.3 { 0.0 } else { y }
}

/// erf(x), within 5e-7 (a ratio of polynomials between -4 and 4, outside of which it is 1).
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let x = if x > 4.0 { 4.0 } else { x };
    let x = if x < -4.0 { -4.0 } else { x };
    let square = x * x;
    let mut p = -2.726_142_3e-10;
    for coefficient in [2.770_681_5e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906_4e-4, -2.954_6e-3, -1.609_603_3e-2] {
        p = p * square + coefficient;
    }
    let mut q = -1.456_607_2e-5;
    for coefficient in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2] {
        q = q * square + coefficient;
    }
    x * p / q
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each() -> impl Iterator<Item = f32> {
        (-1_000_000..=1_000_000).map(|i| i as f32 / 10_000.0)
    }

    #[test]
    fn exp_is_that_of_the_library() {
        for x in each() {
            let (ours, theirs) = (exp(x), f64::from(x).exp());
            let expected = theirs as f32;
            let near = (f64::from(ours) - theirs).abs() <= 2.5e-7 * theirs || ours == expected || (x < -87.0 && ours == 0.0);
            assert!(near, "{x}: {ours}, not {expected}");
        }
        assert_eq!((exp(f32::NEG_INFINITY), exp(0.0), exp(f32::INFINITY)), (0.0, 1.0, f32::INFINITY));
        assert!(exp(f32::NAN).is_nan());
    }

    /// By its series, in f64: 2/√π · Σ (-1)ⁿ x²ⁿ⁺¹ / (n! (2n + 1)).
    #[test]
    fn erf_is_its_series() {
        for x in (-4000..=4000).map(|i| i as f32 / 1000.0) {
            let z = f64::from(x);
            let (mut term, mut total) = (z, z);
            for n in 1..120 {
                term *= -z * z / f64::from(n);
                total += term / f64::from(2 * n + 1);
            }
            let expected = total * std::f64::consts::FRAC_2_SQRT_PI;
            assert!((f64::from(erf(x)) - expected).abs() < 5e-7, "{x}: {}, not {expected}", erf(x));
        }
        for (x, y) in [(9.0, 1.0), (-9.0, -1.0), (f32::INFINITY, 1.0), (f32::NEG_INFINITY, -1.0)] {
            assert!((erf(x) - y).abs() < 5e-7);
        }
        assert!(erf(f32::NAN).is_nan());
    }
}

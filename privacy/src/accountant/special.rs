//! The normal distribution, and sums of numbers that are only known by their logarithms.

use std::f64::consts::{FRAC_1_SQRT_2, LN_2, PI};

/// P[N(0, 1) ≤ x].
pub(crate) fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
}

/// P[a < N(0, 1) ≤ b], from the tail that both lie in, so that it is accurate there.
pub(crate) fn normal_between(a: f64, b: f64) -> f64 {
    let mass = if a > 0.0 { normal_cdf(-a) - normal_cdf(-b) } else { normal_cdf(b) - normal_cdf(a) };
    mass.max(0.0)
}

/// ln erfc(x), also where erfc(x) is too small to be written.
pub(crate) fn log_erfc(x: f64) -> f64 {
    if x < 25.0 {
        return libm::erfc(x).ln();
    }
    // The asymptotic series; at 25 its next term is below 1e-13.
    let y = 1.0 / (2.0 * x * x);
    -x * x - x.ln() - 0.5 * PI.ln() + (-y * (1.0 - y * (3.0 - 15.0 * y))).ln_1p()
}

/// ln(e^a + e^b).
pub(crate) fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if high == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// ln(e^a - e^b); none if that is negative.
pub(crate) fn log_sub(a: f64, b: f64) -> Option<f64> {
    if b == f64::NEG_INFINITY {
        return Some(a);
    }
    if b > a {
        return None;
    }
    let difference = b - a;
    // Whichever of the two keeps its digits.
    Some(a + if difference > -LN_2 { (-difference.exp_m1()).ln() } else { (-difference.exp()).ln_1p() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert!((normal_cdf(1.96) - 0.975_002_104_851_779_5).abs() < 1e-15);
        assert!((normal_between(10.0, 11.0) / 7.619_661_785_674e-24 - 1.0).abs() < 1e-6);
        // Both sides of where the series takes over.
        assert!((log_erfc(24.999_999) - log_erfc(25.000_001) - 1e-4).abs() < 1e-6);
        assert!((log_erfc(26.0) + 679.831_199_763_194_3).abs() < 1e-9, "by a continued fraction");
        assert!((log_erfc(3.0) - libm::erfc(3.0).ln()).abs() < 1e-15);
        assert!((log_add(1.0, 2.0) - (1f64.exp() + 2f64.exp()).ln()).abs() < 1e-15);
        assert!((log_sub(2.0, 1.0).unwrap() - (2f64.exp() - 1f64.exp()).ln()).abs() < 1e-15);
        assert_eq!(log_sub(1.0, 2.0), None);
        assert_eq!(log_sub(1.0, 1.0), Some(f64::NEG_INFINITY));
        assert!((log_sub(0.0, -1e-17).unwrap() - 1e-17f64.ln()).abs() < 1e-12, "what all but cancels keeps its digits");
        assert!((log_sub(0.0, -50.0).unwrap() / -(-50f64).exp() - 1.0).abs() < 1e-12, "and so does what hardly counts");
        assert_eq!(log_sub(1.0, f64::NEG_INFINITY), Some(1.0));
        assert_eq!(log_add(f64::NEG_INFINITY, f64::NEG_INFINITY), f64::NEG_INFINITY);
    }
}

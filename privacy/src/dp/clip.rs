//! Clipping to whole numbers, and the clip norm that adapts itself.
//!
//! A vector leaves here as integers in units of c·2^-f, rounded toward zero, whose squares sum to at most 2^2f **exactly**: the
//! norm is checked on the integers and not on floats. Sums of them are exact, too, so the sensitivity that is accounted holds to
//! the last bit (Casacuberta et al. 2022 show how float sums break it).

use super::Fault;

/// What became of one vector. Private: stays on the node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clipped {
    /// L2 norm before clipping; infinite if an element was no finite number.
    pub norm: f64,
    /// Whether it was above the clip norm.
    pub clipped: bool,
}

/// Writes `vector`·`weight`, clipped to L2 norm `clip`, into `out` in units of `clip`·2^-`fraction`. A vector with an element that is no
/// finite number counts as zero: to refuse it would tell about the data.
///
/// `weight` is in [0, 1], `clip` positive and finite, `fraction` at most 40; `out` is as long as `vector`.
pub(crate) fn clip_into(vector: &[f32], clip: f64, weight: f64, fraction: u32, out: &mut [i64]) -> Clipped {
    // Squares of f32 overflow f64 neither one by one nor summed, and the smallest denormal's does not vanish.
    let norm = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if !norm.is_finite() {
        out.fill(0);
        return Clipped { norm: f64::INFINITY, clipped: true };
    }
    let unit = (1u64 << fraction) as f64;
    let most = 1u128 << (2 * fraction);
    let mut factor = weight * unit / norm.max(clip);
    loop {
        let mut square = 0u128;
        for (out, x) in out.iter_mut().zip(vector) {
            // The cast truncates toward zero.
            *out = (f64::from(*x) * factor) as i64;
            square += u128::from(out.unsigned_abs()) * u128::from(out.unsigned_abs());
        }
        if square <= most {
            return Clipped { norm, clipped: norm > clip };
        }
        // The float norm or factor was off in its last bits.
        factor *= 1.0 - f64::from(f32::EPSILON);
    }
}

/// A clip norm that follows a quantile of the norms: Andrew, Thakkar, McMahan, Ramaswamy, "Differentially Private Learning with
/// Adaptive Clipping" (2021), Algorithm 1.
///
/// Each contribution says b = 1 if its norm was at most c, else 0. What travels is b - γ as one more coordinate of the secure,
/// noised sum, so it is hidden and charged with everything else; its noisy mean m moves the clip norm: c ← c·exp(-η·m).
/// That m is zero where the share γ of the norms lies below c needs no count of contributions, which would be private, too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptiveClip {
    quantile: f64,
    rate: f64,
    least: f64,
    most: f64,
}

impl AdaptiveClip {
    /// `quantile` γ (0.5 is a good choice), learning rate η (0.2 in the paper), and the range that the clip norm stays in.
    ///
    /// # Errors
    /// [`Fault::Range`].
    pub fn new(quantile: f64, rate: f64, least: f64, most: f64) -> Result<Self, Fault> {
        if !(quantile > 0.0 && quantile < 1.0) {
            return Err(Fault::Range { what: "a quantile", value: quantile, range: "between 0 and 1" });
        }
        if !(rate > 0.0 && rate <= 1.0) {
            return Err(Fault::Range { what: "a rate of the clip norm", value: rate, range: "above 0 and at most 1" });
        }
        if !(least >= 1e-30 && least <= most && most <= 1e30) {
            return Err(Fault::Range {
                what: "a least clip norm",
                value: least,
                range: "at least 1e-30, and at most the largest one, which is at most 1e30",
            });
        }
        Ok(Self { quantile, rate, least, most })
    }

    /// γ.
    pub fn quantile(&self) -> f64 {
        self.quantile
    }

    /// The next round's clip norm, from this round's and the released mean of b - γ.
    pub fn next(&self, clip: f64, mean: f64) -> f64 {
        // The mean of numbers in [-1, 1]; noise may carry it out of there.
        let mean = if mean.is_nan() { 0.0 } else { mean.clamp(-1.0, 1.0) };
        (clip * (-self.rate * mean).exp()).clamp(self.least, self.most)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const F: u32 = 40;

    fn clip(vector: &[f32], clip: f64) -> (Vec<i64>, Clipped) {
        let mut out = vec![7; vector.len()];
        let clipped = clip_into(vector, clip, 1.0, F, &mut out);
        (out, clipped)
    }

    #[test]
    fn values_that_are_no_numbers_count_as_nothing() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (out, clipped) = clip(&[1.0, bad, 2.0], 1.0);
            assert_eq!(out, [0, 0, 0]);
            assert!(clipped.clipped && clipped.norm.is_infinite());
        }
    }

    #[test]
    fn huge_and_denormal_values_become_valid_vectors() {
        let (out, clipped) = clip(&[f32::MAX, f32::MAX], 1.0);
        assert!(clipped.clipped);
        let half = (0.5f64.sqrt() * (1u64 << F) as f64) as i64;
        assert!(out.iter().all(|x| (x - half).abs() <= half >> 20), "{out:?}");
        assert_eq!(clip(&[f32::from_bits(1); 3], 1.0).0, [0; 3]);
        // A denormal, 2^-129, beside a clip norm that small.
        assert_eq!(clip(&[f32::from_bits(1 << 20)], 2f64.powi(-99)).0, [1 << (F - 30)]);
        assert_eq!(clip(&[0.0; 4], 1.0).0, [0; 4]);
    }

    #[test]
    fn short_vectors_stay_as_they_are_on_the_grid() {
        let (out, clipped) = clip(&[0.25, -0.5], 1.0);
        assert_eq!(out, [1 << (F - 2), -(1 << (F - 1))]);
        assert!(!clipped.clipped);
    }

    #[test]
    fn what_rounding_makes_too_long_is_shortened_again() {
        // The norm, √(1 + 2^-52), is 1.0 to the last bit of a float: the grid holds 2^40 and 2^14, and 2^80 + 2^28 is too much.
        let (out, clipped) = clip(&[1.0, 2f32.powi(-26)], 1.0);
        assert_eq!(out, [(1 << 40) - (1 << 17), (1 << 14) - 1]);
        assert!(!clipped.clipped, "a norm of exactly the clip norm is not above it");
    }

    #[test]
    fn the_clip_norm_moves_toward_the_quantile_and_stays_in_its_range() {
        let adaptive = AdaptiveClip::new(0.5, 0.2, 0.1, 10.0).unwrap();
        assert_eq!(adaptive.quantile(), 0.5);
        assert!(adaptive.next(1.0, 0.5) < 1.0, "all below: shrink");
        assert!(adaptive.next(1.0, -0.5) > 1.0, "all above: grow");
        assert_eq!(adaptive.next(1.0, 0.0), 1.0);
        assert_eq!(adaptive.next(1.0, f64::NAN), 1.0);
        assert_eq!(adaptive.next(10.0, -1e9), 10.0);
        assert_eq!(adaptive.next(0.1, 1e9), 0.1);
        // Norms uniform in [0, 4]: the median is 2.
        let mut c = 0.2;
        for _ in 0..200 {
            c = adaptive.next(c, (c / 4.0_f64).min(1.0) - 0.5);
        }
        assert!((c - 2.0).abs() < 0.01, "{c}");
        for (quantile, rate, least, most) in [(0.0, 0.2, 1.0, 2.0), (0.5, 0.0, 1.0, 2.0), (0.5, 0.2, 3.0, 2.0), (f64::NAN, 0.2, 1.0, 2.0)] {
            assert!(AdaptiveClip::new(quantile, rate, least, most).is_err());
        }
    }

    proptest! {
        #[test]
        fn the_integer_norm_never_exceeds_the_clip_norm(bits in prop::collection::vec(any::<u32>(), 1..200), scale in -30f64..30.0, weight in 0f64..=1.0) {
            let vector: Vec<f32> = bits.iter().map(|b| f32::from_bits(*b)).collect();
            let mut out = vec![0; vector.len()];
            let outcome = clip_into(&vector, scale.exp2(), weight, F, &mut out);
            let square: u128 = out.iter().map(|x| u128::from(x.unsigned_abs()).pow(2)).sum();
            prop_assert!(square <= 1 << (2 * F));
            if outcome.norm.is_finite() {
                // Where it points does not change: no coordinate gains sign or moves by a unit more than the factor says.
                let factor = weight * (1u64 << F) as f64 / outcome.norm.max(scale.exp2());
                for (x, y) in vector.iter().zip(&out) {
                    prop_assert!((f64::from(*x) * factor - *y as f64).abs() <= 1.0 + (*y as f64).abs() * 1e-6);
                }
            }
        }
    }
}

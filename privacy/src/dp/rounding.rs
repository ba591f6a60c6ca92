//! From the fine integers of a clipped, rotated vector to the grid of the round.
//!
//! A rotated vector z is in fine units; q of them are one grid unit. Both ways round each coordinate up with probability (z mod q)/q,
//! in integers, so the expectation is z/q exactly.
//!
//! **Conditional** (one vector a node; Kairouz, Liu, Steinke 2021, Algorithm 1 and Theorem 1): the whole vector is
//! rounded again until its norm is at most Δ₂, with
//!
//! Δ₂² = min{ C² + D/4 + √(2 ln(1/β))·(C + √D/2), (C + √D)² } in grid units, C = ‖z‖/q at most, β = e^-½ (so the root is 1).
//!
//! A try fails with probability at most β. After [`TRIES`] of them every coordinate goes toward zero, which never lengthens it.
//!
//! **Dither** (sums of clipped units): a retry would depend on the data of all units, so there is none. With the same uniform
//! u, ⌊(z + u)/q⌋ and ⌊(z' + u)/q⌋ differ by less than |z - z'|/q + 1 in each coordinate; u does not depend on data, so
//!
//! Δ₂ = C + √D in grid units, where C is the norm of one unit.

use chacha20::rand_core::Rng;

use super::sampler::below_wide;

/// Tries of conditional rounding: all fail with probability at most e^-32.
pub(crate) const TRIES: u32 = 64;

/// Δ₂² of conditional rounding in squared grid units, for vectors of norm `c` grid units in `dimension` coordinates.
pub fn conditional_sensitivity_squared(c: f64, dimension: usize) -> f64 {
    let root = (dimension as f64).sqrt();
    (c * c + dimension as f64 / 4.0 + (c + root / 2.0)).min((c + root) * (c + root))
}

/// Δ₂² of dither in squared grid units, for units of norm `c` grid units in `dimension` coordinates.
pub fn dither_sensitivity_squared(c: f64, dimension: usize) -> f64 {
    let delta = c + (dimension as f64).sqrt();
    delta * delta
}

/// How conditional rounding went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounded {
    /// Within the norm after so many tries.
    AtRandom { tries: u32 },
    /// Toward zero.
    TowardZero,
}

/// Rounds `z` to multiples of `q`, in units of `q`, with squared norm at most `limit`; lanes are two's complement.
pub(crate) fn conditional(z: &[i64], q: u64, limit: u128, random: &mut impl Rng, lanes: &mut [u32]) -> Rounded {
    for tries in 1..=TRIES {
        if dither(z, q, random, lanes) <= limit {
            return Rounded::AtRandom { tries };
        }
    }
    for (lane, z) in lanes.iter_mut().zip(z) {
        *lane = (z / q as i64) as u32;
    }
    Rounded::TowardZero
}

/// Rounds `z` to multiples of `q`, in units of `q`; gives the squared norm. Lanes are two's complement.
pub(crate) fn dither(z: &[i64], q: u64, random: &mut impl Rng, lanes: &mut [u32]) -> u128 {
    let divide = Divisor::new(q);
    let mut square = 0u128;
    for (lane, z) in lanes.iter_mut().zip(z) {
        let value = divide.floor(*z, below_wide(random, q));
        square += u128::from(value.unsigned_abs()) * u128::from(value.unsigned_abs());
        *lane = value as u32;
    }
    square
}

/// ⌊(z + u)/q⌋ without a division: |z| < 2^62, u < q ≤ 2^61.
struct Divisor {
    q: u64,
    /// ⌊2^64/q⌋, or the largest word for q = 1.
    reciprocal: u64,
    /// ⌈2^62/q⌉: so many q make every z positive.
    lift: u64,
}

impl Divisor {
    fn new(q: u64) -> Self {
        Self { q, reciprocal: u64::try_from((1u128 << 64) / u128::from(q)).unwrap_or(u64::MAX), lift: (1u64 << 62).div_ceil(q) }
    }

    #[inline]
    fn floor(&self, z: i64, u: u64) -> i64 {
        // Below 2^63 + 2^62: n·reciprocal/2^64 falls short of n/q by less than 1.75, so its floor by one at most.
        let n = (self.lift * self.q).wrapping_add_signed(z) + u;
        let estimate = ((u128::from(n) * u128::from(self.reciprocal)) >> 64) as u64;
        let quotient = estimate + u64::from(n - estimate * self.q >= self.q);
        quotient as i64 - self.lift as i64
    }
}

#[cfg(test)]
mod tests {
    use chacha20::{ChaCha20Rng, rand_core::SeedableRng};
    use proptest::prelude::*;

    use super::*;

    fn random(seed: u8) -> ChaCha20Rng {
        ChaCha20Rng::from_seed([seed; 32])
    }

    fn square(lanes: &[u32]) -> u128 {
        lanes.iter().map(|x| u128::from((*x as i32).unsigned_abs()).pow(2)).sum()
    }

    #[test]
    fn the_bound_is_the_papers() {
        // n = 100, γ = 1, c = 1000, D = 2^16 in the reference vectors.
        assert_eq!(conditional_sensitivity_squared(1000.0, 65_536), 1_017_512.0);
        assert_eq!(conditional_sensitivity_squared(0.001, 4), 0.001 * 0.001 + 1.0 + (0.001 + 1.0));
        assert_eq!(dither_sensitivity_squared(1000.0, 65_536), 1256.0 * 1256.0);
    }

    proptest! {
        #[test]
        fn the_norm_bound_is_never_exceeded(z in prop::collection::vec(-4_000_000i64..4_000_000, 1..300), q in 1u64..100_000, seed in any::<u8>()) {
            let norm = z.iter().map(|z| (*z as f64).powi(2)).sum::<f64>().sqrt() / q as f64;
            let limit = conditional_sensitivity_squared(norm, z.len()) as u128;
            let mut lanes = vec![0; z.len()];
            conditional(&z, q, limit, &mut random(seed), &mut lanes);
            prop_assert!(square(&lanes) <= limit);
            for (lane, z) in lanes.iter().zip(&z) {
                let value = i64::from(*lane as i32);
                prop_assert!(value == z.div_euclid(q as i64) || value == -(-z).div_euclid(q as i64));
            }
        }

        #[test]
        fn division_by_multiplication_is_division(z in -(1i64 << 62) + 1..1 << 62, e in 0u32..=61, low in any::<u64>(), u in any::<u64>()) {
            let q = (1 << e) + low % (1 << e).min((1 << 61) - (1 << e) + 1);
            for u in [u % q, 0, q - 1] {
                prop_assert_eq!(Divisor::new(q).floor(z, u), (z + u as i64).div_euclid(q as i64));
                let edge = z - z.rem_euclid(q as i64);
                prop_assert_eq!(Divisor::new(q).floor(edge.max(-(1 << 62) + 1), u), (edge.max(-(1 << 62) + 1) + u as i64).div_euclid(q as i64));
            }
        }

        #[test]
        fn dither_moves_neighbours_by_at_most_the_ceiling_of_their_difference(pairs in prop::collection::vec((-1_000_000i64..1_000_000, -50_000i64..50_000), 1..100), q in 1u64..100_000, seed in any::<u8>()) {
            let z: Vec<i64> = pairs.iter().map(|(z, _)| *z).collect();
            let other: Vec<i64> = pairs.iter().map(|(z, e)| z + e).collect();
            let (mut a, mut b) = (vec![0; z.len()], vec![0; z.len()]);
            dither(&z, q, &mut random(seed), &mut a);
            dither(&other, q, &mut random(seed), &mut b);
            for ((a, b), (_, e)) in a.iter().zip(&b).zip(&pairs) {
                let moved = i64::from(*b as i32) - i64::from(*a as i32);
                prop_assert!(moved.unsigned_abs() <= e.unsigned_abs().div_ceil(q));
            }
        }
    }

    #[test]
    fn when_no_try_can_succeed_it_goes_toward_zero() {
        let mut lanes = [0; 4];
        // Halves: no rounding but toward zero has norm zero, and 2^-256 is never seen.
        let rounded = conditional(&[5, -5, 5, -5], 10, 0, &mut random(1), &mut lanes);
        assert!(matches!(rounded, Rounded::TowardZero) || lanes == [0; 4]);
        let rounded = conditional(&[15, -15, 15, -15], 10, 4, &mut random(0), &mut lanes);
        assert_eq!(square(&lanes), 4, "{rounded:?}");
        let mut lanes = [0; 64];
        let z: [i64; 64] = std::array::from_fn(|i| if i % 2 == 0 { 19_999 } else { -19_999 });
        assert_eq!(conditional(&z, 10_000, 64, &mut random(0), &mut lanes), Rounded::TowardZero);
        assert_eq!(lanes.map(|lane| lane as i32), std::array::from_fn(|i| if i % 2 == 0 { 1 } else { -1 }));
    }

    /// The mean of n roundings of z is z/q up to 5 standard deviations: false alarm below 6e-7 a coordinate, and the seed is fixed.
    #[test]
    fn rounding_is_unbiased() {
        let z = [1i64, 333, 500, 999, -1, -333, -500, -1001, 12_345, 0, 1000];
        let n = 20_000;
        let mut sums = vec![0i64; z.len()];
        let mut lanes = vec![0; z.len()];
        let mut random = random(9);
        for _ in 0..n {
            dither(&z, 1000, &mut random, &mut lanes);
            for (sum, lane) in sums.iter_mut().zip(&lanes) {
                *sum += i64::from(*lane as i32);
            }
        }
        for (sum, z) in sums.iter().zip(z) {
            let share = z.rem_euclid(1000) as f64 / 1000.0;
            let deviation = (share * (1.0 - share) / f64::from(n)).sqrt();
            let mean = *sum as f64 / f64::from(n);
            assert!((mean - z as f64 / 1000.0).abs() <= 5.0 * deviation + 1e-12, "{z}: {mean}");
        }
    }

    /// Each try fails with probability at most e^-½; over 2,000 vectors the share of failed tries stays below that plus 5 deviations.
    #[test]
    fn tries_fail_less_often_than_the_paper_allows() {
        let mut random = random(4);
        let (mut tries, mut done) = (0u32, 0u32);
        for i in 0..2000i64 {
            let z: Vec<i64> = (0..64).map(|j| (i * 31 + j * 17) % 1999 - 999).collect();
            let norm = z.iter().map(|z| (*z * *z) as f64).sum::<f64>().sqrt() / 1000.0;
            if let Rounded::AtRandom { tries: more } =
                conditional(&z, 1000, conditional_sensitivity_squared(norm, 64) as u128, &mut random, &mut [0; 64])
            {
                tries += more;
                done += 1;
            }
        }
        let failed = f64::from(tries - done) / f64::from(tries);
        assert!(failed < (-0.5f64).exp() + 5.0 * 0.5 / 2000f64.sqrt(), "{failed}");
    }
}

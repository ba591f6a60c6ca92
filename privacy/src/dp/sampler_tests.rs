//! The sampler against the exact distribution and against OpenDP's. Every seed is fixed; each statistical test states how often
//! a right sampler would fail it with a fresh seed.

use chacha20::{ChaCha20Rng, rand_core::SeedableRng};
use opendp::{
    core::Function,
    domains::{AtomDomain, VectorDomain},
    measurements::make_gaussian,
    measures::ZeroConcentratedDivergence,
    metrics::L2Distance,
};

use super::*;

fn random(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

fn draw(sigma: u32, n: usize, seed: u8) -> Vec<i64> {
    let mut out = vec![0; n];
    DiscreteGaussian::new(sigma).unwrap().fill(&mut random(seed), &mut out);
    out
}

/// The exact probabilities of -reach..=reach.
fn pmf(sigma: u32, reach: i64) -> Vec<f64> {
    let weight = |x: i64| (-((x * x) as f64) / (2.0 * f64::from(sigma).powi(2))).exp();
    let far = i64::from(sigma) * 40 + 40;
    let total: f64 = (-far..=far).map(weight).sum();
    (-reach..=reach).map(|x| weight(x) / total).collect()
}

/// χ² of counts against probabilities as a standard normal deviate (Wilson and Hilferty), with cells pooled to expect 20 or more.
fn chi_squared_deviate(counts: &[u64], probabilities: &[f64], n: usize) -> f64 {
    let (mut statistic, mut cells) = (0.0, 0u32);
    let (mut count, mut probability) = (0u64, 0.0);
    let (mut counted, mut covered) = (0u64, 0.0);
    for (c, p) in counts.iter().zip(probabilities) {
        (count, probability) = (count + c, probability + p);
        if probability * n as f64 >= 20.0 {
            let expected = probability * n as f64;
            statistic += (count as f64 - expected).powi(2) / expected;
            (counted, covered, cells) = (counted + count, covered + probability, cells + 1);
            (count, probability) = (0, 0.0);
        }
    }
    let (rest, expected) = (n as u64 - counted, (1.0 - covered) * n as f64);
    if expected >= 20.0 {
        statistic += (rest as f64 - expected).powi(2) / expected;
        cells += 1;
    } else {
        assert!((rest as f64) < 60.0, "{rest} values where {expected} are expected");
    }
    let k = f64::from(cells - 1);
    ((statistic / k).cbrt() - (1.0 - 2.0 / (9.0 * k))) / (2.0 / (9.0 * k)).sqrt()
}

fn counts(samples: &[i64], reach: i64) -> Vec<u64> {
    let mut counts = vec![0; (2 * reach + 1) as usize];
    for x in samples {
        if let Some(count) = usize::try_from(x + reach).ok().and_then(|i| counts.get_mut(i)) {
            *count += 1;
        }
    }
    counts
}

/// Another implementation of the paper's three algorithms, on integers of any size and ChaCha20 by the book, draws the same from the same
/// words: the first ones, and 3,000 folded into one number by h ← 31·h + x modulo 2^61 - 1.
#[test]
fn another_implementation_draws_the_same() {
    for (sigma, first) in [
        (1, [1, -1, -1, 0, 0, 0, -1, -2, 0, -1]),
        (3, [3, 1, -1, -2, -6, 4, -2, -7, -2, 2]),
        (819, [636, -281, -660, 173, -688, -2016, -805, -1439, -2, 779]),
        (46_341, [36_012, -15_924, -37_397, 9810, -38_962, -114_100, -45_566, -81_441, -117, 44_109]),
    ] {
        assert_eq!(draw(sigma, 10, 33), first, "sigma {sigma}");
    }
    let fold = |h: u64, x: i128| (i128::from(h) * 31 + x).rem_euclid((1 << 61) - 1) as u64;
    for (sigma, folded) in [
        (1, 651_476_853_558_647_917),
        (2, 793_747_879_279_732_463),
        (3, 823_193_788_550_682_282),
        (17, 400_181_627_714_880_886),
        (819, 2_106_182_513_690_132_433),
        (5000, 2_114_938_127_257_945_500),
        (46_340, 468_803_079_345_500_072),
        (46_341, 2_262_844_989_795_372_615),
        (1 << 20, 1_659_543_076_723_305_446),
        (DiscreteGaussian::MOST, 960_412_148_636_883_430),
    ] {
        assert_eq!(draw(sigma, 3000, 35).into_iter().fold(0, |h, x| fold(h, x.into())), folded, "sigma {sigma}");
        assert_eq!(DiscreteGaussian::new(sigma).unwrap().sigma(), sigma);
    }
    // Limits of all sizes: some reject every other word.
    let (mut narrow, mut wide) = (random(36), random(36));
    let limits = || (1..=3000).map(|i: u32| (i.wrapping_mul(2_654_435_761), u64::from(i).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    assert_eq!(limits().fold(0, |h, (n, _)| fold(h, below(&mut narrow, n).into())), 2_233_656_938_582_042_355);
    assert_eq!(limits().fold(0, |h, (_, n)| fold(h, below_wide(&mut wide, n).into())), 550_158_317_123_274_601);
}

/// χ² over a million draws for each σ, upper tail beyond 4.5 deviations: 3.4e-6 each, 3e-5 together.
#[test]
fn frequencies_are_those_of_the_exact_distribution() {
    for (sigma, seed) in [(1, 1), (2, 2), (3, 3), (4, 4), (17, 5), (100, 6), (819, 7), (5000, 8)] {
        let n = 1_000_000;
        let reach = i64::from(sigma) * 5 + 2;
        let deviate = chi_squared_deviate(&counts(&draw(sigma, n, seed), reach), &pmf(sigma, reach), n);
        assert!(deviate.abs() < 4.5, "sigma {sigma}: {deviate} deviations");
    }
}

/// The test itself has power: the continuous Gaussian, rounded, is a different distribution at σ = 1, and it notices.
#[test]
fn a_rounded_continuous_gaussian_would_be_noticed() {
    let n = 1_000_000;
    let mut random = random(9);
    let mut normal = || {
        // Box and Muller.
        let (u, v) = (f64::from(random.next_u32()) + 0.5, f64::from(random.next_u32()));
        (-2.0 * (u / 2f64.powi(32)).ln()).sqrt() * (v / 2f64.powi(32) * std::f64::consts::TAU).cos()
    };
    let samples: Vec<i64> = (0..n).map(|_| normal().round() as i64).collect();
    assert!(chi_squared_deviate(&counts(&samples, 7), &pmf(1, 7), n) > 20.0);
}

/// Mean, variance, skewness and kurtosis within 5 standard errors: 6e-7 each, 2e-5 together. From σ = 4 on the discrete moments are
/// the continuous ones to 1e-60. The largest σ take the wide path.
#[test]
fn moments_are_right_up_to_the_largest_sigma() {
    for (sigma, seed) in [(4, 11), (259, 12), (13_106, 13), (46_340, 14), (46_341, 15), (1 << 20, 16), (DiscreteGaussian::MOST, 17)] {
        let n = 400_000;
        let scaled: Vec<f64> = draw(sigma, n, seed).iter().map(|x| *x as f64 / f64::from(sigma)).collect();
        let moment = |power| scaled.iter().map(|x: &f64| x.powi(power)).sum::<f64>() / n as f64;
        for (power, expected, variance) in [(1, 0.0, 1.0f64), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            let error = (variance / n as f64).sqrt();
            assert!((moment(power) - expected).abs() < 5.0 * error, "sigma {sigma}, moment {power}: {}", moment(power));
        }
    }
}

/// Both sides of where the arithmetic becomes wide agree about a coin: 5 standard errors, 6e-7 each.
#[test]
fn coins_have_their_bias() {
    let n = 400_000u32;
    for (numerator, denominator) in [
        (0, 3),
        (3, 3),
        (1, 3),
        (2, 7),
        (u64::from(u32::MAX) - 1, u64::from(u32::MAX)),
        (1 << 40, 3 << 40),
        (5, 1 << 34),
        ((1 << 62) - 1, 1 << 63),
    ] {
        let mut random = random(21);
        let heads = (0..n).filter(|_| coin(&mut random, numerator, denominator)).count() as f64 / f64::from(n);
        let p = numerator as f64 / denominator as f64;
        assert!((heads - p).abs() <= 5.0 * (p * (1.0 - p) / f64::from(n)).sqrt() + 1e-8, "{numerator}/{denominator}: {heads}");
        let heads = (0..n).filter(|_| coin_exp(&mut random, numerator, denominator)).count() as f64 / f64::from(n);
        assert!((heads - (-p).exp()).abs() <= 5.0 * (0.25 / f64::from(n)).sqrt(), "exp(-{numerator}/{denominator}): {heads}");
    }
    let mut random = random(22);
    let heads = (0..n).filter(|_| coin_exp_minus_one(&mut random)).count() as f64 / f64::from(n);
    assert!((heads - (-1f64).exp()).abs() < 5.0 * (0.25 / f64::from(n)).sqrt(), "{heads}");
}

/// Words that tie with the threshold again and again are still decided, by the rest of the fraction.
#[test]
fn a_coin_that_ties_looks_at_more_bits() {
    struct Words(Vec<u32>);
    impl chacha20::rand_core::TryRng for Words {
        type Error = std::convert::Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            Ok(self.0.remove(0))
        }
        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            unreachable!("a coin takes 32 bits at a time")
        }
        fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Self::Error> {
            unreachable!("a coin takes 32 bits at a time")
        }
    }
    // 1/3 is 0.0101…: its words are 0x55555555 for ever.
    const THIRD: u32 = 0x5555_5555;
    for d in [3, 3 << 40] {
        let n = d / 3;
        assert!(coin(&mut Words(vec![THIRD - 1]), n, d));
        assert!(!coin(&mut Words(vec![THIRD + 1]), n, d));
        assert!(coin(&mut Words(vec![THIRD, THIRD, THIRD - 1]), n, d));
        assert!(!coin(&mut Words(vec![THIRD, THIRD, THIRD + 1]), n, d));
    }
    // 3/7 begins with 1,840,700,269, and 5/7 of a word is left.
    for d in [7, 7 << 40] {
        assert!(coin(&mut Words(vec![1_840_700_269, 1 << 31]), d / 7 * 3, d));
        assert!(!coin(&mut Words(vec![1_840_700_269, 3 << 30]), d / 7 * 3, d));
    }
    // 1/2 ends: a word of exactly one half is not below it.
    assert!(!coin(&mut Words(vec![1 << 31]), 1, 2));
    assert!(coin(&mut Words(vec![(1 << 31) - 1]), 1, 2));
}

/// OpenDP draws from the operating system, so this is the one test without a seed: two-sample χ², upper tail beyond 6 deviations, 1e-9.
#[test]
fn opendp_draws_the_same_distribution() {
    for sigma in [2u32, 9] {
        let n = 60_000;
        let space = (VectorDomain::new(AtomDomain::<i64>::default()), L2Distance::<f64>::default());
        let gaussian = make_gaussian::<_, _, ZeroConcentratedDivergence>(space.0, space.1, f64::from(sigma), None).unwrap();
        let function: Function<Vec<i64>, Vec<i64>> = gaussian.function.clone();
        let theirs = function.eval(&vec![0i64; n]).unwrap();
        let ours = draw(sigma, n, 31);
        let reach = i64::from(sigma) * 3;
        let (a, b) = (counts(&theirs, reach), counts(&ours, reach));
        let cells: Vec<(f64, f64)> = a.iter().zip(&b).filter(|(a, b)| *a + *b >= 20).map(|(a, b)| (*a as f64, *b as f64)).collect();
        let statistic: f64 = cells.iter().map(|(a, b)| (a - b).powi(2) / (a + b)).sum();
        let k = cells.len() as f64;
        let deviate = ((statistic / k).cbrt() - (1.0 - 2.0 / (9.0 * k))) / (2.0 / (9.0 * k)).sqrt();
        assert!(deviate < 6.0, "sigma {sigma}: {deviate} deviations");
        // Theirs passes our test against the exact distribution, too.
        assert!(chi_squared_deviate(&a, &pmf(sigma, reach), n) < 6.0);
    }
}

#[test]
fn the_same_seed_gives_the_same_noise_and_lanes_wrap() {
    assert_eq!(draw(50, 1000, 3), draw(50, 1000, 3));
    assert_ne!(draw(50, 1000, 3), draw(50, 1000, 4));
    let mut lanes = vec![u32::MAX - 1; 1000];
    DiscreteGaussian::new(50).unwrap().add_to(&mut random(3), &mut lanes);
    let added: Vec<i64> = lanes.iter().map(|lane| i64::from(lane.wrapping_add(2) as i32)).collect();
    assert_eq!(added, draw(50, 1000, 3));
}

#[test]
fn a_sigma_that_cannot_be_sampled_is_refused() {
    assert!(matches!(DiscreteGaussian::new(0), Err(Fault::Sigma { .. })));
    assert!(matches!(DiscreteGaussian::new(DiscreteGaussian::MOST + 1), Err(Fault::Sigma { .. })));
}

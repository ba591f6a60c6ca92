//! The discrete Gaussian N_Z(0, σ²), sampled exactly.
//!
//! P\[X = x\] = exp(-x²/2σ²) / Σ_y exp(-y²/2σ²) for every integer x. The algorithms are those of Canonne, Kamath and Steinke,
//! "The Discrete Gaussian for Differential Privacy" (2020), §5: Algorithm 1 tosses a coin of bias exp(-γ), Algorithm 2 draws
//! a discrete Laplace, Algorithm 3 accepts or rejects it. With an integer scale σ every probability is a fraction of machine
//! integers, and a biased coin compares that fraction, bit by bit for as long as it takes, with uniform bits: no float, no
//! table, no truncated tail, nothing to add to δ.
//!
//! Algorithm 3 proposes a Laplace of scale t = ⌊σ⌋ + 1 there; any whole t > 0 gives the same distribution, and t = σ
//! makes the acceptance exp(-(|y| - σ)²/2σ²).
//!
//! **Time.** Rejection takes longer for larger values (Jin et al., S&P 2022). A whole vector is drawn before anything is sent,
//! so what can be seen from outside is a sum over the vector, not one value.

use chacha20::rand_core::Rng;

use super::Fault;

/// N_Z(0, σ²) with σ a whole number of grid units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscreteGaussian {
    sigma: u32,
}

impl DiscreteGaussian {
    /// Largest σ: its square, twice, fits 64 bits.
    pub const MOST: u32 = 1 << 31;

    /// # Errors
    /// [`Fault::Sigma`] outside 1 to 2^31.
    pub fn new(sigma: u32) -> Result<Self, Fault> {
        if (1..=Self::MOST).contains(&sigma) { Ok(Self { sigma }) } else { Err(Fault::Sigma { sigma: sigma.into(), least: 1 }) }
    }

    /// σ, in grid units.
    pub fn sigma(&self) -> u32 {
        self.sigma
    }

    /// One sample.
    pub fn sample(&self, random: &mut impl Rng) -> i64 {
        let sigma = self.sigma;
        let denominator = 2 * u64::from(sigma) * u64::from(sigma);
        loop {
            let (magnitude, negative) = laplace(random, sigma);
            let distance = u128::from(magnitude.abs_diff(u64::from(sigma)));
            let mut numerator = distance * distance;
            // exp(-γ) for γ > 1 is a coin of exp(-1) for each whole part.
            let mut alive = true;
            while alive && numerator > u128::from(denominator) {
                alive = coin_exp_minus_one(random);
                numerator -= u128::from(denominator);
            }
            if alive && coin_exp(random, numerator as u64, denominator) {
                return if negative { -(magnitude as i64) } else { magnitude as i64 };
            }
        }
    }

    /// As many samples as `out` holds.
    pub fn fill(&self, random: &mut impl Rng, out: &mut [i64]) {
        for x in out {
            *x = self.sample(random);
        }
    }

    /// Adds one sample to each lane, modulo 2^32.
    pub fn add_to(&self, random: &mut impl Rng, lanes: &mut [u32]) {
        for lane in lanes {
            *lane = lane.wrapping_add(self.sample(random) as u32);
        }
    }
}

/// CKS20 Algorithm 2: a discrete Laplace of scale t as magnitude and sign.
fn laplace(random: &mut impl Rng, t: u32) -> (u64, bool) {
    loop {
        let low = below(random, t);
        if !coin_exp(random, low.into(), t.into()) {
            continue;
        }
        let mut high = 0u64;
        while coin_exp_minus_one(random) {
            high += 1;
        }
        // high is geometric: it would take 2^31 heads in a row for this to overflow.
        let magnitude = u64::from(low) + u64::from(t) * high;
        let negative = random.next_u32() & 1 == 1;
        // Zero has one sign only.
        if !(negative && magnitude == 0) {
            return (magnitude, negative);
        }
    }
}

/// CKS20 Algorithm 1: true with probability exp(-n/d), for n ≤ d. The k-th toss is a coin of n/(d·k), taken as both n/d and 1/k
/// so that nothing overflows.
#[inline]
fn coin_exp(random: &mut impl Rng, n: u64, d: u64) -> bool {
    let mut k = 1u32;
    while coin(random, n, d) && (k == 1 || coin(random, 1, k.into())) {
        k += 1;
    }
    k % 2 == 1
}

/// [`coin_exp`] for n = d: its first toss always succeeds.
#[inline]
fn coin_exp_minus_one(random: &mut impl Rng) -> bool {
    let mut k = 2u32;
    while coin(random, 1, k.into()) {
        k += 1;
    }
    k % 2 == 1
}

/// True with probability n/d exactly, for 0 ≤ n ≤ d.
///
/// A uniform real U in [0, 1) is drawn 32 bits at a time. With r its first 32 bits, U < n/d is certain if (r + 1)·d ≤ n·2^32,
/// and impossible if r·d ≥ n·2^32; else the next bits are compared with the rest of n/d, (n·2^32 - r·d)/d.
#[inline]
fn coin(random: &mut impl Rng, n: u64, d: u64) -> bool {
    if d >> 32 == 0 {
        let mut n = n;
        loop {
            let (at, target) = (u64::from(random.next_u32()) * d, n << 32);
            if at + d <= target {
                return true;
            }
            if at >= target {
                return false;
            }
            n = target - at;
        }
    }
    let (mut n, d) = (u128::from(n), u128::from(d));
    loop {
        let (at, target) = (u128::from(random.next_u32()) * d, n << 32);
        if at + d <= target {
            return true;
        }
        if at >= target {
            return false;
        }
        n = target - at;
    }
}

/// Uniform in [0, n), for n > 0: Lemire, "Fast random integer generation in an interval" (2019).
#[inline]
pub(crate) fn below(random: &mut impl Rng, n: u32) -> u32 {
    loop {
        let product = u64::from(random.next_u32()) * u64::from(n);
        // A remainder is only taken when the low half could fall into the uneven part.
        if product as u32 >= n || product as u32 >= n.wrapping_neg() % n {
            return (product >> 32) as u32;
        }
    }
}

/// As [`below`], for 64 bits.
#[inline]
pub(crate) fn below_wide(random: &mut impl Rng, n: u64) -> u64 {
    loop {
        let product = u128::from(random.next_u64()) * u128::from(n);
        if product as u64 >= n || product as u64 >= n.wrapping_neg() % n {
            return (product >> 64) as u64;
        }
    }
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;

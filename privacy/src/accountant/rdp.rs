//! Rényi differential privacy of the Poisson-sampled Gaussian.
//!
//! RDP(α) bounds D_α between neighbours in both directions; over rounds it adds up, order by order (Mironov 2017).
//!
//! - Sampling rate 1: α/(2z²).
//! - Integer α: ln Σ_k C(α, k)(1-q)^(α-k) q^k e^{k(k-1)/2z²} / (α - 1) (Mironov, Talwar, Zhang 2019, §3.3).
//! - Fractional α: the same moment as two series that meet at z₀ = z²·ln(1/q - 1) + ½, each term weighed by the normal tail beyond
//!   z₀ (same section). Where a series falls too slowly, the next whole order answers: RDP grows with α.
//! - To ε: min over α of RDP(α) + ln(1 - 1/α) - (ln δ + ln α)/(α - 1) (Balle et al. 2020; Canonne, Kamath, Steinke 2020,
//!   Proposition 12).

use std::f64::consts::{LN_2, SQRT_2};

use super::{
    Fault, Gaussian, check_delta,
    special::{log_add, log_erfc, log_sub},
};

/// Terms after which a series of a fractional order is given up.
const MOST_TERMS: u32 = 1000;

/// RDP at a fixed set of orders.
#[derive(Clone, Debug, PartialEq)]
pub struct Rdp {
    /// (α, RDP(α)).
    curve: Vec<(f64, f64)>,
}

/// 1.1 to 10.9 by tenths, 11 to 63, and sparser to 1024: those of dp-accounting.
fn orders() -> impl Iterator<Item = f64> {
    (11..110)
        .map(|tenths| f64::from(tenths) / 10.0)
        .chain((11..64).map(f64::from))
        .chain([72.0, 96.0, 128.0, 192.0, 256.0, 384.0, 512.0, 768.0, 1024.0])
}

impl Default for Rdp {
    /// Nothing released yet.
    fn default() -> Self {
        Self { curve: orders().map(|alpha| (alpha, 0.0)).collect() }
    }
}

impl Rdp {
    /// All rounds of `gaussian`.
    pub fn of(gaussian: &Gaussian) -> Self {
        let rounds = gaussian.rounds as f64;
        Self {
            curve: orders()
                .map(|alpha| (alpha, rounds * sampled_gaussian(gaussian.noise_multiplier, gaussian.sampling_rate, alpha)))
                .collect(),
        }
    }

    /// This, and then `other`, whose choice may depend on this.
    #[must_use]
    pub fn compose(mut self, other: &Self) -> Self {
        for ((_, mine), (_, theirs)) in self.curve.iter_mut().zip(&other.curve) {
            *mine += theirs;
        }
        self
    }

    /// ε at `delta`.
    ///
    /// # Errors
    /// [`Fault::Delta`].
    pub fn epsilon(&self, delta: f64) -> Result<f64, Fault> {
        check_delta(delta)?;
        let at = |(alpha, rdp): &(f64, f64)| rdp + (-1.0 / alpha).ln_1p() - (delta.ln() + alpha.ln()) / (alpha - 1.0);
        Ok(self.curve.iter().map(at).filter(|epsilon| !epsilon.is_nan()).fold(f64::INFINITY, f64::min).max(0.0))
    }
}

/// RDP of one release at order `alpha` > 1.
pub fn sampled_gaussian(noise_multiplier: f64, sampling_rate: f64, alpha: f64) -> f64 {
    if sampling_rate >= 1.0 {
        return alpha / (2.0 * noise_multiplier * noise_multiplier);
    }
    if alpha.fract() != 0.0
        && let Some(log_moment) = log_moment_fractional(noise_multiplier, sampling_rate, alpha)
    {
        return (log_moment / (alpha - 1.0)).max(0.0);
    }
    let whole = alpha.ceil();
    (log_moment_integer(noise_multiplier, sampling_rate, whole as u32) / (whole - 1.0)).max(0.0)
}

fn log_moment_integer(z: f64, q: f64, alpha: u32) -> f64 {
    let mut log_binomial = 0.0;
    let mut sum = f64::NEG_INFINITY;
    for k in 0..=alpha {
        let (k, rest) = (f64::from(k), f64::from(alpha - k));
        sum = log_add(sum, log_binomial + k * q.ln() + rest * (-q).ln_1p() + k * (k - 1.0) / (2.0 * z * z));
        log_binomial += (rest / (k + 1.0)).ln();
    }
    sum
}

fn log_moment_fractional(z: f64, q: f64, alpha: f64) -> Option<f64> {
    let split = z * z * (1.0 / q - 1.0).ln() + 0.5;
    // Terms alternate in sign beyond α: both signs are summed apart.
    let (mut positive, mut negative) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    let (mut log_binomial, mut sign) = (0.0, true);
    for i in 0..MOST_TERMS {
        let i = f64::from(i);
        let j = alpha - i;
        let below =
            log_binomial + i * q.ln() + j * (-q).ln_1p() + i * (i - 1.0) / (2.0 * z * z) + log_erfc((i - split) / (SQRT_2 * z)) - LN_2;
        let above =
            log_binomial + j * q.ln() + i * (-q).ln_1p() + j * (j - 1.0) / (2.0 * z * z) + log_erfc((split - j) / (SQRT_2 * z)) - LN_2;
        let sum = if sign { &mut positive } else { &mut negative };
        *sum = log_add(*sum, log_add(below, above));
        // The moment is at least about 1, so what follows cannot be seen in it.
        if i > alpha && below.max(above) < -37.0 {
            return log_sub(positive, negative);
        }
        // C(α, i+1) = C(α, i)·(α - i)/(i + 1).
        log_binomial += (j.abs() / (i + 1.0)).ln();
        sign = sign == (j > 0.0);
    }
    None
}

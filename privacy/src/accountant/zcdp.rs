//! Zero-concentrated differential privacy: D_α(P‖Q) ≤ ρ·α for all α > 1. ρ of adaptive releases adds up.
//!
//! **Conversion** (Canonne, Kamath, Steinke 2020, Corollary 13): ρ-zCDP implies (ε, δ)-DP with
//!
//! δ = min over α > 1 of exp((α - 1)(αρ - ε)) / (α - 1) · (1 - 1/α)^α.
//!
//! [`epsilon`] and [`delta`] ask OpenDP, whose arithmetic rounds against us in every step. [`epsilon_by_formula`] is our own reading of the
//! formula, which the tests hold against it. There is no sampling rate here: zCDP of a sampled mechanism is not smaller.

use opendp::{
    combinators::ConcentratedMeasure as _,
    measures::{PrivacyProfile, ZeroConcentratedDivergence},
};

use super::{Fault, check_delta};

/// ρ of one release with Gaussian noise: 1/(2z²), z = standard deviation of the noise over L2 sensitivity (Bun, Steinke 2016).
pub fn gaussian(noise_multiplier: f64) -> f64 {
    0.5 / (noise_multiplier * noise_multiplier)
}

/// ρ of releasing all prefix sums of `steps` values with a binary tree of Gaussian noise, where each unit takes part once: each
/// value enters ⌊log₂ steps⌋ + 1 nodes of the tree.
pub fn tree(noise_multiplier: f64, steps: u32) -> f64 {
    gaussian(noise_multiplier) * f64::from(steps.max(1).ilog2() + 1)
}

/// ε at `delta`, by OpenDP; never below the formula's.
///
/// # Errors
/// [`Fault::Rho`], [`Fault::Delta`], [`Fault::OpenDp`].
pub fn epsilon(rho: f64, delta: f64) -> Result<f64, Fault> {
    check_delta(delta)?;
    profile(rho)?.epsilon(delta).map_err(refused)
}

/// δ at `epsilon`, by OpenDP; never below the formula's.
///
/// # Errors
/// [`Fault::Rho`], [`Fault::Epsilon`], [`Fault::OpenDp`].
pub fn delta(rho: f64, epsilon: f64) -> Result<f64, Fault> {
    if !(epsilon > 0.0 && epsilon.is_finite()) {
        return Err(Fault::Epsilon { epsilon });
    }
    profile(rho)?.delta(epsilon).map_err(refused)
}

/// The largest ρ that implies (`epsilon`, `delta`)-DP, up to 1e-12 of itself and never above.
///
/// # Errors
/// [`Fault::Epsilon`], [`Fault::Delta`], [`Fault::OpenDp`].
pub fn rho(epsilon: f64, delta: f64) -> Result<f64, Fault> {
    check_delta(delta)?;
    // δ at ρ = 0 is 0, and at ρ = ε it is at least the δ of a Gaussian whose mean loss is ε: too much unless δ is large.
    let (mut low, mut high) = (0.0, epsilon);
    while self::delta(high, epsilon)? <= delta {
        low = high;
        high *= 2.0;
    }
    while high - low > 1e-12 * high {
        let middle = f64::midpoint(low, high);
        if self::delta(middle, epsilon)? <= delta {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// ε at `delta` from the formula: the minimum over α > 1 of αρ + ln(1 - 1/α) - (ln δ + ln α)/(α - 1).
///
/// # Errors
/// [`Fault::Rho`], [`Fault::Delta`].
pub fn epsilon_by_formula(rho: f64, delta: f64) -> Result<f64, Fault> {
    check(rho)?;
    check_delta(delta)?;
    if rho == 0.0 {
        return Ok(0.0);
    }
    let at = |log_excess: f64| {
        let excess = log_excess.exp();
        let alpha = 1.0 + excess;
        alpha * rho + (-1.0 / alpha).ln_1p() - (delta.ln() + alpha.ln()) / excess
    };
    // One minimum in ln(α - 1); thirds of a range that holds it for every ρ and δ in question.
    let (mut low, mut high) = (-30.0, 60.0);
    for _ in 0..200 {
        let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
        if at(a) <= at(b) {
            high = b;
        } else {
            low = a;
        }
    }
    Ok(at(f64::midpoint(low, high)).max(0.0))
}

/// The older, simpler and looser conversion: ρ + 2·√(ρ·ln(1/δ)) (Bun, Steinke 2016, Proposition 1.3).
///
/// # Errors
/// [`Fault::Rho`], [`Fault::Delta`].
pub fn epsilon_bun_steinke(rho: f64, delta: f64) -> Result<f64, Fault> {
    check(rho)?;
    check_delta(delta)?;
    Ok(rho + 2.0 * (rho * (1.0 / delta).ln()).sqrt())
}

fn check(rho: f64) -> Result<(), Fault> {
    if rho >= 0.0 && rho.is_finite() { Ok(()) } else { Err(Fault::Rho { rho }) }
}

fn profile(rho: f64) -> Result<PrivacyProfile, Fault> {
    check(rho)?;
    let exact = ZeroConcentratedDivergence::convert(rho).map_err(refused)?;
    // Where ε is far below ρ its exponential overflows and OpenDP refuses; δ = 1 always holds.
    Ok(PrivacyProfile::new(move |epsilon| Ok(exact.delta(epsilon).unwrap_or(1.0).min(1.0))))
}

fn refused(error: opendp::error::Error) -> Fault {
    Fault::OpenDp { why: error.message.unwrap_or_else(|| format!("{:?}", error.variant)) }
}

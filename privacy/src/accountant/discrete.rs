//! Sums of discrete Gaussians: what the coordinator sees of a distributed run.
//!
//! Each of n honest nodes adds N_Z(0, σ²) to each of D coordinates. The sum is not a discrete Gaussian, but close to one:
//! Kairouz, Liu, Steinke 2021, Theorem 1. With everything in grid units,
//!
//! - τ = 10·Σ_{k=1}^{n-1} exp(-2π²σ²·k/(k+1));
//! - ε² = min{ Δ₂²/(nσ²) + τD/2, (Δ₂/(√n·σ) + τ√D)² }, and the release is ρ = ε²/2 zCDP.
//!
//! From σ = 4 on, τ·D is below 1e-55 in every practical case; terms with a smaller σ are refused ([`LEAST_SIGMA`]).

use std::f64::consts::PI;

/// The smallest noise share of a node, in grid units.
pub const LEAST_SIGMA: u32 = 4;

/// τ: how far the sum of `nodes` shares may be from one discrete Gaussian, per coordinate.
pub fn tau(nodes: u32, sigma_squared: f64) -> f64 {
    let exponent = -2.0 * PI * PI * sigma_squared;
    let term = |k: u32| (exponent * f64::from(k) / f64::from(k + 1)).exp();
    let last = nodes.saturating_sub(1);
    // Terms fall with k, so those beyond the first 10,000 are bounded by the last one added.
    let added = last.min(10_000);
    let sum = (1..=added).map(term).sum::<f64>() + term(added) * f64::from(last - added);
    10.0 * sum
}

/// ρ of one release of the sum of `nodes` honest shares, with `sensitivity_squared` Δ₂² in grid units.
pub fn rho(sensitivity_squared: f64, nodes: u32, sigma_squared: f64, dimension: usize) -> f64 {
    let tau = tau(nodes, sigma_squared);
    let gaussian = sensitivity_squared / (f64::from(nodes) * sigma_squared);
    let d = dimension as f64;
    let shifted = gaussian.sqrt() + tau * d.sqrt();
    0.5 * (gaussian + tau * d / 2.0).min(shifted * shifted)
}

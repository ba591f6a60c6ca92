//! Distributed differential privacy: nodes clip, rotate, round and add their share of discrete noise; the sum is private.
//!
//! | step | where | source |
//! |---|---|---|
//! | parameters from (ε, δ), cohort, dropout, corruption | [`Plan`] | Kairouz, Liu, Steinke 2021, §5 |
//! | clipping, exactly; clip norm by private quantile | [`AdaptiveClip`] | Andrew et al. 2021 |
//! | randomized Hadamard rotation | [`hadamard`], [`flip_signs`] | Kairouz, Liu, Steinke 2021 |
//! | rounding at random | [`conditional_sensitivity_squared`], [`dither_sensitivity_squared`] | same, Theorem 1 |
//! | noise | [`DiscreteGaussian`] | Canonne, Kamath, Steinke 2020 |
//! | both ends | [`Mechanism`] | same as rotation, Algorithms 1 and 2 |
//! | what is promised | [`Statement`] | |
//!
//! **No float touches the noise, nor the sensitivity.** Updates become integers when they are clipped, their norm is checked on the
//! integers, units are summed and rotated as integers, and noise is drawn from an integer algorithm: what Mironov (2012) and
//! Casacuberta et al. (2022) broke is not there.
//!
//! **Layout on the wire.** `[D grid values]` and nothing else. Before the rotation the vector of a node is
//! `[d floats of the update][statistics][zeros up to D = 2^k]`: statistics (clip quantile, weight, loss, …) share clipping bound,
//! rotation, rounding, noise and charge with the update; see [`Coordinate`]. There are no counters in clear and none beside the noise.
//!
//! **Seeds** are two types: [`NoiseSeed`] is secret and used up by one encoding, [`RotationSeed`] is public.

mod clip;
mod fault;
mod mechanism;
mod parameters;
mod plan;
mod rotation;
mod rounding;
mod sampler;
mod seed;
mod statement;

pub use clip::{AdaptiveClip, Clipped};
pub use fault::Fault;
pub use mechanism::{Mechanism, Release, Share, UnitSum};
pub use parameters::{Coordinate, Parameters, Statistic, Trust, Unit};
pub use plan::{Forecast, Plan, ROOM, Request};
pub use rotation::{flip_signs, hadamard};
pub use rounding::{conditional_sensitivity_squared, dither_sensitivity_squared};
pub use sampler::DiscreteGaussian;
pub use seed::{NoiseSeed, RotationSeed};
pub use statement::Statement;

#[cfg(test)]
mod audit;

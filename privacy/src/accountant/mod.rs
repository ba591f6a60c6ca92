//! Accountants: from noise to ε.
//!
//! | accountant | takes | says | used for |
//! |---|---|---|---|
//! | [`zcdp`] | the ρ of each release | ε by Canonne–Kamath–Steinke 2020 | every distributed run: the discrete sums are ρ-zCDP, and ρ adds up |
//! | [`rdp`] | noise multiplier, sampling rate, rounds | an upper bound, the classic one | Gaussian noise with or without Poisson sampling |
//! | [`pld`] | the same | an upper bound, nearly tight | the same, and runs of several kinds together |
//! | [`discrete`] | σ, nodes, Δ₂, dimension | ρ of a sum of discrete Gaussians | the mechanism of this crate |
//!
//! The **noise multiplier** is the standard deviation of the noise on the sum divided by the L2 sensitivity of the sum. Neighbours
//! differ by adding or removing one unit.
//!
//! **Against whom.** Sampling amplifies only against an observer who does not know who was sampled. The coordinator asks the
//! nodes, so against it the sampling rate is 1, whatever the cohort: [`Observer`]. zCDP has no useful amplification at all; there a
//! sampling rate below 1 is not a number that can be passed ([`zcdp`]), or is refused by name where the accountant is chosen at run
//! time ([`epsilon`]).

pub mod discrete;
pub mod pld;
pub mod rdp;
mod special;
pub mod zcdp;

use thiserror::Error;

/// A question that has no sound answer.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Fault {
    /// Not in (0, 1).
    #[error("a delta of {delta}; it must be above 0 and below 1")]
    Delta {
        /// As given.
        delta: f64,
    },
    /// Not above 0.
    #[error("an epsilon of {epsilon}; it must be above 0 and finite")]
    Epsilon {
        /// As given.
        epsilon: f64,
    },
    /// Not a rate.
    #[error("a sampling rate of {rate}; it must be above 0 and at most 1")]
    SamplingRate {
        /// As given.
        rate: f64,
    },
    /// No noise, or not a number.
    #[error("a noise multiplier of {noise_multiplier}; it must be from 0.05 to 1e6")]
    NoiseMultiplier {
        /// As given.
        noise_multiplier: f64,
    },
    /// No rounds.
    #[error("{rounds} rounds; 1 to 100,000,000 can be accounted")]
    Rounds {
        /// As given.
        rounds: u64,
    },
    /// zCDP of a sampled mechanism.
    #[error(
        "zCDP does not account for a sampling rate of {rate}: a sampled Gaussian satisfies no zCDP bound that is amplified; use rdp or pld"
    )]
    NotAmplified {
        /// As given.
        rate: f64,
    },
    /// ρ that is negative or no number.
    #[error("a rho of {rho}; it must be at least 0 and finite")]
    Rho {
        /// As given.
        rho: f64,
    },
    /// Below what the discretization resolves.
    #[error("a delta of {delta} is below the numerical accuracy of this PLD, {floor}; use rdp")]
    DeltaTooSmall {
        /// As given.
        delta: f64,
        /// What can be answered.
        floor: f64,
    },
    /// Two distributions on different grids.
    #[error("two privacy loss distributions with grids of {left} and {right} do not compose; build both with one interval")]
    Grids {
        /// Of the first.
        left: f64,
        /// Of the second.
        right: f64,
    },
    /// OpenDP refused.
    #[error("OpenDP refused the conversion: {why}")]
    OpenDp {
        /// Its words.
        why: String,
    },
}

/// Who looks at what is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observer {
    /// Knows who took part in which round: no amplification.
    Coordinator,
    /// Sees released models only.
    Outsider,
}

/// How ε is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accountant {
    /// [`rdp`].
    Rdp,
    /// [`pld`].
    Pld,
    /// [`zcdp`].
    Zcdp,
}

/// Gaussian noise over some rounds: parsed, so every accountant can answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gaussian {
    noise_multiplier: f64,
    sampling_rate: f64,
    rounds: u64,
}

impl Gaussian {
    /// `rounds` releases with `noise_multiplier`, each of a Poisson sample at `sampling_rate`; 1 is everyone, every time.
    ///
    /// # Errors
    /// [`Fault::NoiseMultiplier`], [`Fault::SamplingRate`], [`Fault::Rounds`].
    pub fn new(noise_multiplier: f64, sampling_rate: f64, rounds: u64) -> Result<Self, Fault> {
        if !(0.05..=1e6).contains(&noise_multiplier) {
            return Err(Fault::NoiseMultiplier { noise_multiplier });
        }
        // Below 1e-12, 1 - q is no longer told from 1 well enough.
        if !(1e-12..=1.0).contains(&sampling_rate) {
            return Err(Fault::SamplingRate { rate: sampling_rate });
        }
        if !(1..=100_000_000).contains(&rounds) {
            return Err(Fault::Rounds { rounds });
        }
        Ok(Self { noise_multiplier, sampling_rate, rounds })
    }

    /// Standard deviation on the sum over sensitivity.
    pub fn noise_multiplier(&self) -> f64 {
        self.noise_multiplier
    }
    /// q.
    pub fn sampling_rate(&self) -> f64 {
        self.sampling_rate
    }
    /// How many releases.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }
    /// The same as `observer` sees it.
    pub fn seen_by(self, observer: Observer) -> Self {
        match observer {
            Observer::Coordinator => Self { sampling_rate: 1.0, ..self },
            Observer::Outsider => self,
        }
    }
}

/// ε at `delta`.
///
/// # Errors
/// [`Fault::Delta`]; [`Fault::NotAmplified`] for zCDP with a sampling rate below 1; [`Fault::DeltaTooSmall`] for PLD.
pub fn epsilon(accountant: Accountant, gaussian: &Gaussian, delta: f64) -> Result<f64, Fault> {
    match accountant {
        Accountant::Rdp => rdp::Rdp::of(gaussian).epsilon(delta),
        Accountant::Pld => pld::epsilon(gaussian, delta),
        Accountant::Zcdp if gaussian.sampling_rate < 1.0 => Err(Fault::NotAmplified { rate: gaussian.sampling_rate }),
        Accountant::Zcdp => zcdp::epsilon(zcdp::gaussian(gaussian.noise_multiplier) * gaussian.rounds as f64, delta),
    }
}

pub(crate) fn check_delta(delta: f64) -> Result<(), Fault> {
    if delta > 0.0 && delta < 1.0 { Ok(()) } else { Err(Fault::Delta { delta }) }
}

#[cfg(test)]
mod tests;

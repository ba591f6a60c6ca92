//! Amounts of privacy loss as integers.

use std::fmt;

use crate::accountant::{Fault, zcdp};

/// Units in ρ = 1.
const UNITS: f64 = 1e12;

/// An amount of zCDP loss, in trillionths. Sums are exact, so replaying a ledger gives the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rho(u64);

impl Rho {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// A cost: never below `rho`.
    ///
    /// # Errors
    /// [`Fault::Rho`] if it is negative, no number, or above a million.
    pub fn cost(rho: f64) -> Result<Self, Fault> {
        // One more: the product may have been rounded down.
        Ok(Self((checked(rho)? * UNITS).ceil() as u64 + u64::from(rho > 0.0)))
    }
    /// An allowance: never above `rho`.
    ///
    /// # Errors
    /// As [`Rho::cost`].
    pub fn allowance(rho: f64) -> Result<Self, Fault> {
        Ok(Self(((checked(rho)? * UNITS).floor() as u64).saturating_sub(1)))
    }
    /// From what [`Rho::trillionths`] gave.
    pub const fn from_trillionths(units: u64) -> Self {
        Self(units)
    }
    /// As an integer, to be stored.
    pub const fn trillionths(self) -> u64 {
        self.0
    }
    /// ρ, up to rounding.
    pub fn get(self) -> f64 {
        self.0 as f64 / UNITS
    }
    /// Stays at the largest amount rather than wrap: more than that was never allowed.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
    /// What is left of this; nothing if `other` is more.
    #[must_use]
    pub const fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

fn checked(rho: f64) -> Result<f64, Fault> {
    if (0.0..=1e6).contains(&rho) { Ok(rho) } else { Err(Fault::Rho { rho }) }
}

impl fmt::Display for Rho {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.get())
    }
}

/// The most that one kind of unit may lose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    delta: f64,
    rho: Rho,
}

impl Budget {
    /// (ε, δ), kept as the ρ that implies it.
    ///
    /// # Errors
    /// [`Fault::Epsilon`], [`Fault::Delta`], [`Fault::Rho`] for more than a million.
    pub fn new(epsilon: f64, delta: f64) -> Result<Self, Fault> {
        Ok(Self { delta, rho: Rho::allowance(zcdp::rho(epsilon, delta)?)? })
    }
    /// ρ itself, shown at `delta`.
    ///
    /// # Errors
    /// [`Fault::Rho`] above a million, [`Fault::Delta`].
    pub fn of_rho(rho: f64, delta: f64) -> Result<Self, Fault> {
        zcdp::epsilon(rho, delta)?;
        Ok(Self { delta, rho: Rho::allowance(rho)? })
    }
    /// As ρ, rounded down.
    pub fn rho(&self) -> Rho {
        self.rho
    }
    /// ε, at the budget's δ, of having lost `rho`.
    ///
    /// # Errors
    /// [`Fault::OpenDp`].
    pub fn epsilon_of(&self, rho: Rho) -> Result<f64, Fault> {
        zcdp::epsilon(rho.get(), self.delta)
    }
}

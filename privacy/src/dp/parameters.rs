//! What both ends of a noised round agree on, checked by both.

use super::{Fault, conditional_sensitivity_squared, dither_sensitivity_squared};
use crate::{
    Bits, Weighting,
    accountant::{Observer, discrete},
};

/// Bits below the clip norm of the fine integers that nodes compute with.
const FRACTION: u32 = 40;
/// Largest power of two that a vector is padded to.
const MOST_LOG: u32 = 28;
/// Coordinates behind the update, at most.
const MOST_STATISTICS: usize = 16;

/// What one unit of protection is. Neighbours differ in one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Everything that one node contributes.
    Node,
    /// All rows of one node that share a key, clipped together.
    Entity,
    /// One row.
    Example,
}

impl Unit {
    /// The word in settings and statements.
    pub fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Entity => "entity",
            Self::Example => "example",
        }
    }

    /// Which two data sets cannot be told apart.
    pub fn adjacency(self) -> &'static str {
        match self {
            Self::Node => "one node's whole contribution is replaced by nothing; that it took part stays visible",
            Self::Entity => {
                "all rows of one node that share one value of the key column are added or removed; a key that occurs at several nodes is protected at each by itself"
            }
            Self::Example => "one row is added or removed; one row is not one customer",
        }
    }
}

/// Who adds the noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Each node adds a share; the coordinator sees only the noised sum.
    Distributed,
    /// The coordinator adds all of it, and is trusted with the exact sum.
    Central,
}

impl Trust {
    /// What a statement says.
    pub fn label(self) -> &'static str {
        match self {
            Self::Distributed => "distributed DP: each node adds its share of the noise before the secure sum",
            Self::Central => "central DP: the coordinator sees the exact sum and is trusted to add the noise",
        }
    }
}

/// A number that travels in the same secure sum as the update, clipped, noised and charged with it.
#[derive(Clone, Debug, PartialEq)]
pub enum Statistic {
    /// One that the node reports, such as the loss; clamped to [-bound, bound] for each unit.
    Reported {
        /// For people.
        name: String,
        /// Largest absolute value.
        bound: f64,
    },
    /// 1 - quantile if the unit's norm was within the clip norm, else -quantile: see [`AdaptiveClip`](super::AdaptiveClip).
    WithinClip {
        /// γ.
        quantile: f64,
    },
    /// The node's weight; what a weighted sum is divided by.
    Weight,
}

impl Statistic {
    pub(crate) fn bound(&self) -> f64 {
        match self {
            Self::Reported { bound, .. } => *bound,
            Self::WithinClip { quantile } => quantile.max(1.0 - quantile),
            Self::Weight => 1.0,
        }
    }
}

/// A statistic and how far it may carry the joint vector.
///
/// The vector of one unit is `[update, clipped to c][a₁·c·v₁/bound₁][a₂·c·v₂/bound₂]…`, so its norm is at most c·√(1 + Σa²), and that is
/// what sensitivity is computed from. It is padded, rotated and noised as a whole: the noise on a statistic's mean is bound/(a·c) times the
/// noise on one coordinate of the mean update.
#[derive(Clone, Debug, PartialEq)]
pub struct Coordinate {
    /// Which.
    pub statistic: Statistic,
    /// a, above 0 and at most 1. 0.1 costs half a percent of noise.
    pub share: f64,
}

/// The public parameters of a noised round. All lengths in grid units are independent of the clip norm, which scales the grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// Whom it protects.
    pub unit: Unit,
    /// Who adds the noise.
    pub trust: Trust,
    /// Floats of the update; 0 for a round that only asks for statistics, such as an evaluation.
    pub dimension: usize,
    /// What travels behind it.
    pub coordinates: Vec<Coordinate>,
    /// How much a node counts; units other than the node are not weighted.
    pub weighting: Weighting,
    /// Width of the ring.
    pub bits: Bits,
    /// Most nodes in a sum.
    pub nodes: u32,
    /// Fewest nodes in a sum; with fewer the noise does not suffice, and the sum must not be opened.
    pub minimum: u32,
    /// Nodes in a sum that may tell the coordinator their noise.
    pub colluders: u32,
    /// Most units that one node may contribute to a round; 1 for the unit `node`. It bounds the sum, not the privacy: a node with more
    /// leaves some out for good, by a rule on the unit alone. Were it the first so many, one row less would let another in, and
    /// neighbours would differ in two.
    pub units_per_node: u32,
    /// What a sum over units is divided by, in units; a public constant. Not used for the unit `node`, whose sums are divided by
    /// the survivors.
    pub divisor: f64,
    /// q: fine units in a grid unit.
    pub step: u64,
    /// σ of one share of noise, in grid units.
    pub sigma: u32,
}

impl Parameters {
    /// D: the length of the vector on the wire.
    pub fn padded(&self) -> usize {
        padded(self.dimension.saturating_add(self.coordinates.len()))
    }

    /// Bits of the fine integers below the clip norm: as many as fit 62 bits when all units of a node are summed and rotated.
    pub(crate) fn fraction(&self) -> u32 {
        fraction(self.padded(), self.units_per_node)
    }

    /// a of a coordinate, in fine units.
    pub(crate) fn scale(&self, coordinate: &Coordinate) -> u64 {
        (coordinate.share * (1u64 << self.fraction()) as f64) as u64
    }

    /// C²: the squared norm that no unit exceeds, in fine units before rotation.
    fn fine_norm_squared(&self) -> u128 {
        let statistics: u128 = self.coordinates.iter().map(|c| u128::from(self.scale(c)).pow(2)).sum();
        let update = if self.dimension > 0 { 1u128 << (2 * self.fraction()) } else { 0 };
        update + statistics
    }

    /// γ/c: one grid unit of the sum, in clip norms.
    pub fn grid(&self) -> f64 {
        self.step as f64 / (1u64 << self.fraction()) as f64 / (self.padded() as f64).sqrt()
    }

    /// Δ₂², in squared grid units: an integer, and never below the truth.
    pub fn sensitivity_squared(&self) -> u128 {
        let padded = self.padded();
        let norm = (self.fine_norm_squared() as f64 * padded as f64).sqrt() / self.step as f64;
        match self.unit {
            // Enforced as an integer, whichever it is.
            Unit::Node => conditional_sensitivity_squared(norm, padded) as u128,
            // Follows from the norm; rounding is to its disadvantage.
            Unit::Entity | Unit::Example => (dither_sensitivity_squared(norm, padded) * (1.0 + 1e-12)).ceil() as u128,
        }
    }

    /// Shares of noise in a sum of `survivors` that `observer` does not know. The coordinator colludes as planned; an outsider knows nobody's.
    pub fn honest(&self, observer: Observer, survivors: u32) -> u32 {
        match (self.trust, observer) {
            (Trust::Central, _) => 1,
            (Trust::Distributed, Observer::Coordinator) => survivors.saturating_sub(self.colluders),
            (Trust::Distributed, Observer::Outsider) => survivors,
        }
    }

    /// ρ of one round against `observer`, with `survivors` nodes in the sum (Kairouz, Liu, Steinke 2021, Theorem 1). Under
    /// [`Trust::Central`] nothing holds against the coordinator, and both observers stand for those who see only the release.
    ///
    /// # Errors
    /// [`Fault::TooFewSurvivors`].
    pub fn rho(&self, observer: Observer, survivors: u32) -> Result<f64, Fault> {
        if survivors < self.minimum {
            return Err(Fault::TooFewSurvivors { survivors, minimum: self.minimum });
        }
        Ok(self.rho_with(self.honest(observer, survivors)))
    }

    /// ρ of one round with as few survivors as planned: what is reserved, and what a node charges before its input leaves.
    pub fn worst_case_rho(&self, observer: Observer) -> f64 {
        self.rho_with(self.honest(observer, self.minimum))
    }

    fn rho_with(&self, shares: u32) -> f64 {
        let variance = f64::from(self.sigma) * f64::from(self.sigma);
        discrete::rho(self.sensitivity_squared() as f64, shares, variance, self.padded())
    }

    /// Everything that must hold; both ends call it through [`Mechanism::new`](super::Mechanism::new).
    pub(crate) fn check(&self) -> Result<(), Fault> {
        let conflict = |what| Err(Fault::Conflict { what });
        let len = self.dimension.saturating_add(self.coordinates.len());
        if len == 0 || len > 1 << MOST_LOG {
            return Err(Fault::Range {
                what: "a dimension",
                value: self.dimension as f64,
                range: "from 1 to 2^28, with what travels behind the update",
            });
        }
        if self.coordinates.len() > MOST_STATISTICS {
            return conflict("more than 16 statistics behind the update; report fewer");
        }
        for Coordinate { statistic, share } in &self.coordinates {
            if !(*share >= 1e-6 && *share <= 1.0) {
                return Err(Fault::Range { what: "a statistic's share", value: *share, range: "from 1e-6 to 1" });
            }
            match statistic {
                Statistic::Reported { bound, .. } if !(1e-30..=1e30).contains(bound) => {
                    return Err(Fault::Range { what: "a statistic's bound", value: *bound, range: "from 1e-30 to 1e30" });
                }
                Statistic::WithinClip { quantile } if !(*quantile > 0.0 && *quantile < 1.0) => {
                    return Err(Fault::Range { what: "a quantile", value: *quantile, range: "between 0 and 1" });
                }
                _ => {}
            }
        }
        let weights = self.coordinates.iter().filter(|c| c.statistic == Statistic::Weight).count();
        match (self.weighting, weights) {
            (Weighting::Uniform, 0) => {}
            (Weighting::Examples { cap: 0 }, _) => return conflict("an example cap of 0; it must be at least 1"),
            (Weighting::Examples { .. }, 1) if self.unit == Unit::Node => {}
            (Weighting::Examples { .. }, _) if self.unit != Unit::Node => {
                return conflict("nodes are weighted only when the unit is the node: sums over units are divided by a public constant");
            }
            _ => return conflict("a weighted round carries its weights as exactly one statistic, and an unweighted one carries none"),
        }
        if self.unit == Unit::Node && self.units_per_node != 1 || self.units_per_node == 0 {
            return conflict("a node contributes one unit if the unit is the node, and at least one otherwise");
        }
        if self.unit != Unit::Node && !(self.divisor >= 1.0 && self.divisor <= 1e15) {
            return Err(Fault::Range { what: "a divisor", value: self.divisor, range: "from 1 to 1e15 units" });
        }
        if self.minimum == 0 || self.minimum > self.nodes {
            return conflict("the fewest nodes in a sum are at least 1 and at most as many as the cohort");
        }
        if self.trust == Trust::Distributed && (self.colluders == 0 || self.colluders >= self.minimum) {
            return conflict("at least one node of the sum is assumed to collude, and at least one not to");
        }
        // A rotated sum plus the dither stays below 2^63.
        if self.step == 0 || self.step > 1 << 61 {
            return Err(Fault::Range { what: "a grid step", value: self.step as f64, range: "from 1 to 2^61 fine units" });
        }
        if self.sigma < discrete::LEAST_SIGMA || self.sigma > super::DiscreteGaussian::MOST {
            return Err(Fault::Sigma { sigma: self.sigma.into(), least: discrete::LEAST_SIGMA });
        }
        Ok(())
    }
}

/// The power of two that `len` elements are padded to.
pub(crate) fn padded(len: usize) -> usize {
    // Longer ones are refused before anything is done with them.
    len.min(1 << MOST_LOG).next_power_of_two()
}

/// As [`Parameters::fraction`], before there are any: 13 or more.
pub(crate) fn fraction(padded: usize, units_per_node: u32) -> u32 {
    // √D·units·√17·2^f < 2^62, where √D takes 14 bits at most and the units 32.
    let root = padded.ilog2().div_ceil(2);
    let units = u32::BITS - units_per_node.leading_zeros();
    FRACTION.min(62 - (root + units + 3))
}

#[cfg(test)]
#[path = "parameters_tests.rs"]
mod tests;

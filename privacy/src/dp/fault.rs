//! Refusals of the noise side.

use thiserror::Error;

/// Why a setting or a vector was refused, and what would do.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Fault {
    /// A standard deviation that cannot be sampled, or is too small for the accounting to be tight.
    #[error("a noise share of {sigma} grid units; {least} to 2^31 are possible")]
    Sigma {
        /// As given.
        sigma: u64,
        /// The smallest that will do.
        least: u32,
    },
    /// A number outside its range.
    #[error("{what} of {value}; it must be {range}")]
    Range {
        /// Which setting.
        what: &'static str,
        /// As given.
        value: f64,
        /// What is possible.
        range: &'static str,
    },
    /// Settings that do not go together.
    #[error("{what}")]
    Conflict {
        /// Which, and what to change.
        what: &'static str,
    },
    /// After dropouts and colluders, nobody's noise is left.
    #[error(
        "of a cohort of {cohort}, {minimum} may remain and {colluders} of them may collude: no honest noise is left; {}",
        needed.map_or_else(|| "lower the dropout or the corruption".to_owned(), |n| format!("use a cohort of at least {n}, or lower the dropout or the corruption"))
    )]
    TooFewHonest {
        /// As planned.
        cohort: u32,
        /// After dropouts.
        minimum: u32,
        /// Assumed.
        colluders: u32,
        /// The smallest cohort that would do; none below a million.
        needed: Option<u32>,
    },
    /// The ring has no room for the sum and its noise on a fine enough grid.
    #[error(
        "{bits} bits leave no room for the sum of {cohort} nodes and its noise on a grid that does not coarsen it; {}",
        needed.map_or_else(|| "use fewer nodes, a lower dimension or a larger epsilon".to_owned(), |b| format!("use at least {b} bits"))
    )]
    TooFewBits {
        /// As given; 32 if none were.
        bits: u8,
        /// As planned.
        cohort: u32,
        /// The fewest that would do; none of 32 or fewer.
        needed: Option<u8>,
    },
    /// A vector of another length.
    #[error("{actual} {what} given, {expected} expected")]
    Length {
        /// Of what.
        what: &'static str,
        /// By the terms.
        expected: usize,
        /// As given.
        actual: usize,
    },
    /// More units than the terms allow.
    #[error(
        "a node may contribute {most} units a round, and has: raise the limit, or leave units out for good by a rule on the unit alone"
    )]
    TooManyUnits {
        /// By the terms.
        most: u32,
    },
    /// Too few survivors for the noise that was promised.
    #[error("{survivors} nodes remain, and their noise suffices from {minimum} on: the sum must not be opened")]
    TooFewSurvivors {
        /// In the sum.
        survivors: u32,
        /// By the terms.
        minimum: u32,
    },
    /// A sum that is not of these terms.
    #[error("the sum is of another length, width or cohort than the terms")]
    Mismatch,
    /// The noisy sum of the weights says that nobody contributed.
    #[error("the noise drowned the sum of the weights; use uniform weights or a larger cohort")]
    WeightLost,
    /// From the ring.
    #[error(transparent)]
    Ring(#[from] crate::Fault),
    /// From the accountant.
    #[error(transparent)]
    Account(#[from] crate::accountant::Fault),
}

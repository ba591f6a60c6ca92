//! Refusals of this crate.

use thiserror::Error;

/// Why a vector, or a setting, was refused.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Fault {
    /// Not a width of the ring.
    #[error("{bits} bits an element; 8 to 32 are possible")]
    Bits {
        /// As given.
        bits: u8,
    },
    /// Not a norm.
    #[error("a clip norm of {clip}; it must be a number from 1e-30 to 1e30")]
    Clip {
        /// As given.
        clip: f64,
    },
    /// Nobody to sum.
    #[error("a sum of 0 nodes")]
    NoNodes,
    /// Weights that cannot be.
    #[error("an example cap of 0")]
    NoCap,
    /// The grid would be too coarse.
    #[error(
        "{bits} bits leave a sum of {nodes} nodes fewer than 12 bits a node below the clip norm; use at least {needed} bits{}",
        if *.most == 0 { String::new() } else { format!(", or sum at most {most} nodes") }
    )]
    TooCoarse {
        /// As given.
        bits: u8,
        /// As given.
        nodes: u32,
        /// The fewest bits that will do; may exceed 32.
        needed: u32,
        /// The most nodes that these bits allow.
        most: u32,
    },
    /// An update holds a value that is no number.
    #[error("element {index} of the update is {value}, not a finite number")]
    NonFinite {
        /// Where, from 0.
        index: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// The training loss is no number.
    #[error("the training loss is {loss}, not a finite number")]
    Loss {
        /// As given.
        loss: f64,
    },
    /// Trained on nothing.
    #[error("a contribution of 0 examples")]
    NoExamples,
    /// More right answers than examples.
    #[error("{correct} right answers in {examples} examples")]
    Correct {
        /// As given.
        correct: u64,
        /// As given.
        examples: u64,
    },
    /// Wrong number of bytes or elements.
    #[error("{what}: {actual}, expected {expected}")]
    Length {
        /// Of what, with the unit.
        what: &'static str,
        /// By the terms.
        expected: usize,
        /// As given.
        actual: usize,
    },
    /// The bits behind the last element are not zero.
    #[error("the padding behind the last element is not zero")]
    Padding,
    /// An element does not fit the ring.
    #[error("element {index} is {value}, which does not fit {bits} bits")]
    Element {
        /// Where, from 0.
        index: usize,
        /// As given.
        value: u32,
        /// Of the ring.
        bits: u8,
    },
    /// More vectors than the encoding leaves room for.
    #[error("the sum has room for {most} vectors")]
    Full {
        /// How many were planned.
        most: u32,
    },
    /// Two sums that do not belong together.
    #[error("the sums differ in length or width")]
    Mismatch,
    /// An update that was not clipped.
    #[error("its L2 norm is {norm:.6}, above the clip norm {clip}")]
    BeyondClip {
        /// Of the update.
        norm: f64,
        /// By the terms.
        clip: f64,
    },
    /// The counters in a sum contradict each other.
    #[error("the counters of the sum contradict each other: {why}")]
    Totals {
        /// How.
        why: &'static str,
    },
    /// The new parameters would not be finite.
    #[error("parameter {index} would leave the finite numbers")]
    Overflow {
        /// Where, from 0.
        index: usize,
    },
}

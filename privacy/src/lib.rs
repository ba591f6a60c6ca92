//! What keeps one node's contribution from being seen, and what lets many be added exactly.
//!
//! An update travels as integers of the ring Z_2^b: [`fixed`] clips it and lays it on a grid, [`wire`] packs the integers
//! into bytes, [`ring`] adds them up. Sums in a ring are exact whatever the order, so masks that cancel ([`secagg`]) and integer
//! noise are further additions to the same lanes.
//!
//! Under a privacy budget [`dp`] takes the place of [`fixed`]: it clips, rotates, rounds and adds each node's share of noise.
//! [`accountant`] says what that costs, [`ledger`] who may spend it.
//!
//! The crate knows participants as indices at most, and nothing of identities, time or I/O.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod accountant;
pub mod dp;
mod fault;
pub mod fixed;
pub mod ledger;
pub mod ring;
pub mod secagg;
pub mod wire;

pub use fault::Fault;
pub use fixed::{Contribution, Encoded, Encoding, Mean, Totals, Weighting};
pub use ring::{Accumulator, Bits};

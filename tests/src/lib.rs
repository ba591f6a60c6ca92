//! Sapwood from the outside: a coordinator and nodes as real processes, on loopback, in a temporary folder.
//!
//! [`Farm`] founds a deployment and starts its daemons; a daemon's script names the failpoints at which it is to be killed,
//! one life after the other. [`Farm::finish`] looks on until a run is released and rolled out, and starts again whoever died
//! by its script. Nothing outlives a test: children stop when their standard input closes, and are killed when dropped.

mod binary;
mod daemon;
mod farm;
mod operator;

pub use binary::{Answer, binary, library, sapwood};
pub use daemon::Daemon;
pub use farm::{DEADLINE, Farm, Finished, eventually, serving};
pub use operator::Operator;

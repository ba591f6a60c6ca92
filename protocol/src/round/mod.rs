//! The round.

mod node;
mod reasons;
mod terms;
mod totals;

pub use node::{NodeEffect, NodeEvent, NodeInput, NodeRound, Receipt};
pub use reasons::{AbortReason, Decline, DropReason};
pub use terms::{EncodingTerms, OptimizerTerms, Task, Terms, TrainTerms};
pub use totals::Totals;

//! The round.

pub(crate) mod attempts;
pub(crate) mod collecting;
pub(crate) mod committing;
mod node;
mod reasons;
mod select;
pub(crate) mod selecting;
mod terms;
mod totals;

pub use node::{NodeEffect, NodeEvent, NodeInput, NodeRound, Receipt};
pub use reasons::{AbortReason, Decline, DropReason};
pub use terms::{EncodingTerms, OptimizerTerms, Task, Terms, TrainTerms, Withdrawal};
pub use totals::Totals;

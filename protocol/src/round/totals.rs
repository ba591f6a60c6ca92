//! What a cohort says about itself, summed inside the same vector as its updates.

use serde::{Deserialize, Serialize};

/// Sums over the survivors of a round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// Updates in the sum.
    pub nodes: u32,
    /// What the sum was divided by, in nodes: a node with `example_cap` examples or more counts 1.
    pub weight: f64,
    /// Examples trained on.
    pub examples: u64,
    /// Mean training loss per example in the last local epoch, before aggregation.
    pub loss: f64,
    /// Share of the examples that the local models got right in their last epoch; none for regression.
    pub accuracy: Option<f64>,
    /// Updates that were longer than the clip norm.
    pub clipped: u32,
}

impl From<&sapwood_privacy::Totals> for Totals {
    fn from(totals: &sapwood_privacy::Totals) -> Self {
        Self {
            nodes: totals.nodes,
            weight: totals.weight,
            examples: totals.examples,
            loss: totals.loss_mean,
            accuracy: totals.accuracy(),
            clipped: totals.clipped,
        }
    }
}

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
    /// Examples trained on; unknown under a privacy budget.
    pub examples: Option<u64>,
    /// Mean training loss per example in the last local epoch, before aggregation; under a privacy budget a noised estimate.
    pub loss: Option<f64>,
    /// Share of the examples that the local models got right in their last epoch, noised likewise; none for regression.
    pub accuracy: Option<f64>,
    /// Mean over the units of 1 - quantile for each within the clip norm, of -quantile for each that was longer; noised. Only where the clip
    /// norm follows the norms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within_clip: Option<f64>,
    /// Updates that were longer than the clip norm; unknown under a privacy budget.
    pub clipped: Option<u32>,
}

impl From<&sapwood_privacy::Totals> for Totals {
    fn from(totals: &sapwood_privacy::Totals) -> Self {
        Self {
            nodes: totals.nodes,
            weight: totals.weight,
            examples: Some(totals.examples),
            loss: Some(totals.loss_mean),
            accuracy: totals.accuracy(),
            within_clip: None,
            clipped: Some(totals.clipped),
        }
    }
}

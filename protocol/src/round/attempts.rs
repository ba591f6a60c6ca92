//! What is remembered of a round across its attempts.

use std::collections::BTreeSet;

use super::{AbortReason, Terms};
use crate::{ids::NodeId, time::Timestamp};

/// The attempts at one round so far.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attempts {
    /// Which round, from 1.
    pub(crate) round: u32,
    /// Attempts opened.
    pub(crate) opened: u32,
    /// Attempts that failed and count.
    pub(crate) failed: u32,
    /// Why the last attempt came to nothing.
    pub(crate) last: Option<AbortReason>,
    /// Nodes that declined or were late in this round: asked again only if there are no others.
    pub(crate) unreliable: BTreeSet<NodeId>,
    /// When the round began to select.
    pub(crate) began: Timestamp,
    /// Bytes of accepted updates, of all attempts.
    pub(crate) uploaded: u64,
    /// Bytes of parameters that the cohorts had to fetch, of all attempts.
    pub(crate) downloaded: u64,
}

impl Attempts {
    pub(crate) fn new(round: u32, began: Timestamp) -> Self {
        Self { round, opened: 0, failed: 0, last: None, unreliable: BTreeSet::new(), began, uploaded: 0, downloaded: 0 }
    }

    pub(crate) fn opened(mut self, terms: &Terms) -> Self {
        self.opened = terms.attempt;
        self.downloaded += terms.length.saturating_mul(4).saturating_mul(terms.cohort.len() as u64);
        self
    }

    pub(crate) fn aborted(mut self, reason: &AbortReason) -> Self {
        self.failed += u32::from(reason.counts());
        self.last = Some(reason.clone());
        self
    }
}

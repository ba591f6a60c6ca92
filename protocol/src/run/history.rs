//! What a run remembers of its rounds.

use serde::{Deserialize, Serialize};

use super::EvaluationRecord;
use crate::{
    digest::Digest,
    ids::{NodeId, SessionId},
    round::{DropReason, Totals, committing::Committing},
    time::Timestamp,
};

/// A committed round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundRecord {
    /// Which, from 1.
    pub round: u32,
    /// Attempts it took.
    pub attempts: u32,
    /// The attempt that succeeded.
    pub session: SessionId,
    /// The new global parameters.
    pub params: Digest,
    /// Nodes asked in the attempt that succeeded.
    pub cohort: Vec<NodeId>,
    /// Those without a part in it, and why.
    pub dropped: Vec<(NodeId, DropReason)>,
    /// What the cohort said about itself.
    pub totals: Totals,
    /// Bytes of accepted updates, of all attempts.
    pub uploaded: u64,
    /// Bytes of parameters that the cohorts had to fetch, of all attempts.
    pub downloaded: u64,
    /// When selection began.
    pub began: Timestamp,
    /// When the result was committed.
    pub committed: Timestamp,
    /// How the new global model did, once known.
    pub evaluation: Option<EvaluationRecord>,
}

impl RoundRecord {
    pub(super) fn new(committing: Committing, params: Digest, totals: Totals, committed: Timestamp) -> Self {
        let Committing { attempts, terms, dropped, .. } = committing;
        Self {
            round: terms.round,
            attempts: terms.attempt,
            session: terms.session,
            params,
            cohort: terms.cohort,
            dropped: dropped.into_iter().collect(),
            totals,
            uploaded: attempts.uploaded,
            downloaded: attempts.downloaded,
            began: attempts.began,
            committed,
            evaluation: None,
        }
    }
}

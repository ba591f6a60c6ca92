//! The facts of a run, in the order in which they became true. Together they are the run.

use serde::{Deserialize, Serialize};

use super::{Cost, EvaluationRecord, Failure, Refused, Released};
use crate::{
    digest::Digest,
    ids::{NodeId, RunId, SessionId},
    round::{AbortReason, DropReason, NoiseTerms, Stage, Terms, Totals},
    spec::Spec,
    time::Timestamp,
};

/// How a run begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Created {
    /// Its name.
    pub run: RunId,
    /// What was asked for.
    pub spec: Spec,
    /// The initial ONNX model.
    pub model: Digest,
    /// The ONNX graph in front of it.
    pub preprocess: Option<Digest>,
    /// The data schema.
    pub schema: Option<Digest>,
    /// The initial parameters: `length` little-endian `f32`.
    pub params: Digest,
    /// D: trained floats.
    pub length: u64,
    /// The noise that its budget comes to. Solved by [`super::Run::create`] and kept: a later version might solve it to another last digit,
    /// and this is what is charged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<NoiseTerms>,
    /// Labels for people: who submitted it, from where.
    #[serde(default)]
    pub operators: Vec<String>,
    /// When.
    pub at: Timestamp,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// The first of every run.
    Created(Box<Created>),
    /// Rounds may begin.
    Started {
        /// When.
        at: Timestamp,
    },
    /// A cohort was chosen.
    AttemptOpened(Box<Terms>),
    /// A member's update is in the sum.
    UpdateAccepted {
        /// Whose.
        node: NodeId,
        /// SHA-256 of its bytes on the wire.
        digest: Digest,
        /// How many.
        bytes: u64,
    },
    /// A member has no part any more.
    NodeDropped {
        /// Who.
        node: NodeId,
        /// Why.
        reason: DropReason,
    },
    /// No more updates; the sum is being decoded.
    CollectionClosed {
        /// Whose updates are in it, in ascending order.
        survivors: Vec<NodeId>,
    },
    /// A stage of the secure sum is over.
    StageClosed {
        /// Which.
        stage: Stage,
        /// Who takes part in the next, in ascending order.
        members: Vec<NodeId>,
        /// When.
        at: Timestamp,
    },
    /// The privacy ledger was charged for this attempt's sum, whatever becomes of it.
    Charged {
        /// Which attempt.
        session: SessionId,
        /// How much.
        cost: Cost,
    },
    /// The attempt came to nothing.
    AttemptAborted {
        /// Why.
        reason: AbortReason,
        /// When.
        at: Timestamp,
    },
    /// The round has a result.
    RoundCommitted {
        /// Which.
        round: u32,
        /// Which attempt succeeded.
        session: SessionId,
        /// The new global parameters.
        params: Digest,
        /// What the cohort said about itself.
        totals: Totals,
        /// When.
        at: Timestamp,
    },
    /// The global model was scored.
    Evaluated {
        /// After which round.
        round: u32,
        /// How it did.
        evaluation: EvaluationRecord,
    },
    /// All rounds are done.
    TrainingFinished {
        /// The final parameters.
        params: Digest,
        /// When.
        at: Timestamp,
    },
    /// The candidate passed its gates and is signed.
    CandidateReleased(Released),
    /// The candidate failed a gate.
    CandidateRefused(Refused),
    /// Somebody stopped the run.
    Stopped {
        /// Who.
        by: String,
        /// When.
        at: Timestamp,
    },
    /// The run cannot go on.
    Failed {
        /// Why.
        why: Failure,
        /// When.
        at: Timestamp,
    },
}

impl Event {
    /// Every kind, for the store's contract suite and the failpoints.
    pub const KINDS: &[&str] = &[
        "created",
        "started",
        "attempt_opened",
        "update_accepted",
        "node_dropped",
        "collection_closed",
        "stage_closed",
        "charged",
        "attempt_aborted",
        "round_committed",
        "evaluated",
        "training_finished",
        "candidate_released",
        "candidate_refused",
        "stopped",
        "failed",
    ];

    /// The kind, as in the JSON key `event`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Created(_) => "created",
            Self::Started { .. } => "started",
            Self::AttemptOpened(_) => "attempt_opened",
            Self::UpdateAccepted { .. } => "update_accepted",
            Self::NodeDropped { .. } => "node_dropped",
            Self::CollectionClosed { .. } => "collection_closed",
            Self::StageClosed { .. } => "stage_closed",
            Self::Charged { .. } => "charged",
            Self::AttemptAborted { .. } => "attempt_aborted",
            Self::RoundCommitted { .. } => "round_committed",
            Self::Evaluated { .. } => "evaluated",
            Self::TrainingFinished { .. } => "training_finished",
            Self::CandidateReleased(_) => "candidate_released",
            Self::CandidateRefused(_) => "candidate_refused",
            Self::Stopped { .. } => "stopped",
            Self::Failed { .. } => "failed",
        }
    }
}

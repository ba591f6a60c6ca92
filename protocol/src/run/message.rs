//! What a run is told, and what it asks its shell to do.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    digest::Digest,
    ids::{NodeId, ReleaseId, SessionId},
    round::{AbortReason, Decline, Stage, Task, Terms, Totals},
};

/// One message, one deadline, or one thing that the shell has done.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Rounds may begin.
    Start,
    /// Time has passed: [`crate::Machine::deadline`] was reached.
    Tick,
    /// Who is connected, eligible and free now. Sent as the answer to [`Effect::AskRoster`], and whenever the roster
    /// changes while the run selects.
    Roster(Vec<NodeId>),
    /// A whole update arrived, its bytes match `digest`, and the shell holds it until the effect [`Effect::Add`].
    Update {
        /// From.
        node: NodeId,
        /// For which attempt.
        session: SessionId,
        /// SHA-256 of the bytes on the wire.
        digest: Digest,
        /// How many bytes.
        bytes: usize,
    },
    /// A member cannot take part.
    Declined {
        /// Who.
        node: NodeId,
        /// In which attempt.
        session: SessionId,
        /// Why.
        reason: Decline,
    },
    /// Everybody who can answer in this stage of the secure sum has answered.
    StageComplete {
        /// Of which attempt.
        session: SessionId,
        /// Which.
        stage: Stage,
    },
    /// The stage is closed; these take part in the next, in ascending order. Behind [`Stage::Inputs`]: whose inputs are in the sum.
    StageClosed {
        /// Of which attempt.
        session: SessionId,
        /// Which.
        stage: Stage,
        /// Who goes on.
        members: Vec<NodeId>,
    },
    /// The secure sum cannot go on. Nothing of it was revealed.
    StageFailed {
        /// Of which attempt.
        session: SessionId,
        /// Why.
        why: String,
    },
    /// The ledger has charged this session, durably; these may be asked to unmask.
    Charged {
        /// Which attempt.
        session: SessionId,
        /// Who gives shares.
        members: Vec<NodeId>,
    },
    /// The ledger says no.
    ChargeRefused {
        /// Which attempt.
        session: SessionId,
        /// Why.
        why: String,
    },
    /// The shell has decoded the sum and stored the new parameters.
    Aggregated {
        /// Of which attempt.
        session: SessionId,
        /// The stored parameters.
        params: Digest,
        /// What the cohort said about itself.
        totals: Totals,
    },
    /// The sum does not decode, or gives a model that is not finite. The attempt is lost, not the run.
    AggregateFailed {
        /// Of which attempt.
        session: SessionId,
        /// Why.
        why: String,
    },
    /// The global model was scored.
    Evaluated {
        /// After which round.
        round: u32,
        /// How it did.
        evaluation: EvaluationRecord,
    },
    /// The candidate is released, or refused.
    Candidate(CandidateOutcome),
    /// Somebody wants the run to end.
    Stop {
        /// Who.
        by: String,
    },
    /// The shell cannot go on: an object is unreadable, say.
    Broken {
        /// Why.
        why: String,
    },
}

/// One thing to do. All of them may be asked for again after a crash; doing one twice does no harm.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Answer with [`Input::Roster`].
    AskRoster,
    /// Make an empty accumulator for this attempt, and forget any other of the run.
    Open(Box<Terms>),
    /// Send the task to the node, through the outbox.
    Assign {
        /// To whom.
        node: NodeId,
        /// What.
        task: Box<Task>,
    },
    /// Tell the node, through the outbox, that the attempt is over for it.
    Withdraw {
        /// Whom.
        node: NodeId,
        /// Which attempt.
        session: SessionId,
        /// The same work will be asked for again: it keeps its trained update.
        keep: bool,
    },
    /// Add the held update to the accumulator, once, and drop its bytes.
    Add {
        /// Whose.
        node: NodeId,
        /// Which bytes.
        digest: Digest,
    },
    /// End this stage of the secure sum with those who have answered; end with [`Input::StageClosed`] or [`Input::StageFailed`].
    /// If another stage is at hand, this is done already.
    CloseStage {
        /// Of which attempt.
        session: SessionId,
        /// Which.
        stage: Stage,
    },
    /// The node is not waited for any more in the secure sum; [`Input::StageComplete`] if nobody else is.
    Gone {
        /// Who.
        node: NodeId,
        /// In which attempt.
        session: SessionId,
    },
    /// Have the ledger charge this session, before anybody is asked to unmask; end with [`Input::Charged`] or [`Input::ChargeRefused`].
    Charge {
        /// Which attempt.
        session: SessionId,
        /// What the sum costs against the coordinator.
        cost: Cost,
        /// Who will be asked for shares.
        members: Vec<NodeId>,
    },
    /// Decode the sum, add the mean times the server's learning rate to the parameters, store them; end with
    /// [`Input::Aggregated`] or [`Input::AggregateFailed`].
    Aggregate {
        /// Of which attempt.
        terms: Box<Terms>,
        /// The server's learning rate.
        server_lr: f64,
        /// Whose updates are in the sum.
        survivors: Vec<NodeId>,
    },
    /// Wipe the accumulator and every held update of the attempt.
    Discard {
        /// Which attempt.
        session: SessionId,
    },
    /// Score these parameters on the evaluation data; end with [`Input::Evaluated`].
    Evaluate {
        /// After which round.
        round: u32,
        /// The parameters.
        params: Digest,
    },
    /// Export, quantize, measure, gate, sign; end with [`Input::Candidate`].
    BuildCandidate {
        /// The final parameters.
        params: Digest,
    },
}

/// What a sum costs, in trillionths of ρ (zero-concentrated differential privacy).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Against the coordinator, with as many colluders as planned.
    pub coordinator: u64,
    /// Against those who see the model only.
    pub outsider: u64,
}

impl Cost {
    /// Both together with another.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { coordinator: self.coordinator.saturating_add(other.coordinator), outsider: self.outsider.saturating_add(other.outsider) }
    }
}

/// How the global model did on the evaluation data.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationRecord {
    /// Mean loss; none if it is not finite.
    pub loss: Option<f64>,
    /// Share of right answers; none for regression.
    pub accuracy: Option<f64>,
    /// Examples scored.
    pub examples: u64,
}

/// What became of the candidate.
#[derive(Clone, Debug, PartialEq)]
pub enum CandidateOutcome {
    /// Gates passed; signed and in the catalogue.
    Released(Released),
    /// A gate failed.
    Refused(Refused),
    /// It could not be built.
    Failed {
        /// Why.
        why: String,
    },
}

/// A signed release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Released {
    /// Its name.
    pub release: ReleaseId,
    /// SHA-256 of the bundle.
    pub bundle: Digest,
    /// SHA-256 of the manifest.
    pub manifest: Digest,
}

/// A candidate that a gate stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// One sentence for each gate that failed, with its numbers.
    pub gates: Vec<String>,
}

/// Why a run cannot go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Error)]
#[serde(tag = "failure", rename_all = "snake_case", deny_unknown_fields)]
pub enum Failure {
    /// A round failed as often as it may.
    #[error("round {round} failed {attempts} times, the last time because {last}; `deadlines.attempts` allows no more")]
    Attempts {
        /// Which round.
        round: u32,
        /// How often.
        attempts: u32,
        /// Why the last time.
        last: AbortReason,
    },
    /// The privacy budget does not allow another sum.
    #[error("the privacy ledger refused a round: {why}")]
    Budget {
        /// Why, and what to do.
        why: String,
    },
    /// The coordinator cannot go on.
    #[error("the coordinator cannot go on: {why}")]
    Broken {
        /// Why.
        why: String,
    },
    /// The candidate could not be built.
    #[error("the candidate could not be built: {why}")]
    Candidate {
        /// Why.
        why: String,
    },
}

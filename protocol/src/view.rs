//! What people and scripts are shown of a run. The JSON is a contract: keys are added, never renamed.

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    ids::{NodeId, ReleaseId, RunId},
    run::{EvaluationRecord, RoundRecord, Run, RunState},
    time::Timestamp,
};

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// Its name.
    pub run: RunId,
    /// Where it is.
    pub state: RunState,
    /// Why it ended, or what it waits for, in one sentence.
    pub detail: Option<String>,
    /// The round at hand, from 1; 0 before the first.
    pub round: u32,
    /// Rounds asked for.
    pub of_rounds: u32,
    /// The attempt at hand.
    pub attempt: Option<AttemptView>,
    /// Committed rounds, in order.
    pub rounds: Vec<RoundView>,
    /// The last score.
    pub evaluation: Option<EvaluationRecord>,
    /// The model that training began from.
    pub model: Digest,
    /// Initializers that are not trained.
    pub freeze: Vec<String>,
    /// The global parameters.
    pub params: Digest,
    /// Trained floats.
    pub parameters: u64,
    /// What came of the candidate.
    pub release: Option<ReleaseId>,
    /// Who can see what.
    pub privacy: String,
    /// What of its privacy budget is spent; none without one.
    #[serde(default)]
    pub spent: Option<SpentView>,
    /// When it was created.
    pub created: Timestamp,
}

/// What a run has spent of its privacy budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpentView {
    /// ε so far against the coordinator; none under central DP, where it is trusted.
    pub epsilon_coordinator: Option<f64>,
    /// ε so far against those who see the model only.
    pub epsilon_outsider: f64,
    /// δ.
    pub delta: f64,
    /// ε of the run at worst, against the coordinator.
    pub planned: f64,
    /// Norm of the noise on a round's mean update over the clip norm: above 1 it is mostly noise.
    pub noise_to_clip: f64,
    /// Signal over noise of the whole run at best: if all its rounds pull the same way. Below 1 little is learned.
    pub signal_to_noise: f64,
}

impl SpentView {
    fn of(run: &Run) -> Option<Self> {
        let plan = run.plan()?;
        // Where the conversion fails nothing is claimed.
        let statement = run.statement()?;
        Some(Self {
            epsilon_coordinator: statement.epsilon_coordinator,
            epsilon_outsider: statement.epsilon_outsider,
            delta: plan.delta,
            planned: plan.epsilon_coordinator,
            noise_to_clip: plan.forecast.noise_to_clip,
            signal_to_noise: plan.forecast.signal_to_noise_run,
        })
    }
}

/// An attempt in progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptView {
    /// Which, from 1.
    pub attempt: u32,
    /// Nodes asked.
    pub asked: u32,
    /// Updates accepted.
    pub updates: u32,
    /// Fewer are never aggregated.
    pub minimum: u32,
    /// Nodes without a part, and why.
    pub dropped: Vec<Dropped>,
    /// When those who have not answered are dropped.
    pub deadline: Timestamp,
}

/// A node without a part in an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dropped {
    /// Which.
    pub node: NodeId,
    /// Why, in one sentence.
    pub why: String,
}

/// A committed round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundView {
    /// Which, from 1.
    pub round: u32,
    /// Attempts it took.
    pub attempts: u32,
    /// Nodes asked.
    pub asked: u32,
    /// Updates in the sum.
    pub updates: u32,
    /// Nodes without a part, and why.
    pub dropped: Vec<Dropped>,
    /// Examples trained on; unknown under a privacy budget.
    pub examples: Option<u64>,
    /// Mean training loss on the nodes, before aggregation; noised under a privacy budget.
    pub train_loss: Option<f64>,
    /// Training accuracy on the nodes, before aggregation.
    pub train_accuracy: Option<f64>,
    /// Updates that were clipped; unknown under a privacy budget.
    pub clipped: Option<u32>,
    /// Loss of the new global model on the evaluation data.
    pub loss: Option<f64>,
    /// Accuracy of the new global model on the evaluation data.
    pub accuracy: Option<f64>,
    /// Bytes of updates and parameters.
    pub bytes: u64,
    /// From the begin of the selection to the commit.
    pub seconds: f64,
    /// The new global parameters.
    pub params: Digest,
}

impl From<&RoundRecord> for RoundView {
    fn from(record: &RoundRecord) -> Self {
        let totals = &record.totals;
        Self {
            round: record.round,
            attempts: record.attempts,
            asked: u32::try_from(record.cohort.len()).unwrap_or(u32::MAX),
            updates: totals.nodes,
            dropped: record.dropped.iter().map(|(node, why)| Dropped { node: node.clone(), why: why.to_string() }).collect(),
            examples: totals.examples,
            train_loss: totals.loss,
            train_accuracy: totals.accuracy,
            clipped: totals.clipped,
            loss: record.evaluation.and_then(|evaluation| evaluation.loss),
            accuracy: record.evaluation.and_then(|evaluation| evaluation.accuracy),
            bytes: record.uploaded + record.downloaded,
            seconds: record.committed.since(record.began).as_secs_f64(),
            params: record.params,
        }
    }
}

impl From<&Run> for RunView {
    fn from(run: &Run) -> Self {
        let created = run.created();
        Self {
            run: created.run.clone(),
            state: run.state(),
            detail: run.detail(),
            round: run.round(),
            of_rounds: created.spec.train.rounds,
            attempt: run.attempt(),
            rounds: run.rounds().iter().map(RoundView::from).collect(),
            evaluation: run.rounds().iter().rev().find_map(|record| record.evaluation),
            model: created.model,
            freeze: created.spec.model.freeze.clone(),
            params: run.params(),
            parameters: created.length,
            release: run.released().map(|released| released.release.clone()),
            privacy: created.spec.privacy_line(),
            spent: SpentView::of(run),
            created: created.at,
        }
    }
}

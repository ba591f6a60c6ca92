//! Looking at a run without moving it.

use sapwood_privacy::{dp::Statement, ledger::Rho};
use serde::{Deserialize, Serialize};

use super::{Collecting, Committing, Cost, Exchanging, Phase, Released, Run, Selecting};
use crate::{
    machine::Machine as _,
    round::Stage,
    view::{AttemptView, Dropped},
};

/// Where a run is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Not started.
    Created,
    /// Waits for its nodes.
    Selecting,
    /// Nodes train.
    Collecting,
    /// Nodes have trained and build the secure sum.
    Aggregating,
    /// The sum is being decoded.
    Committing,
    /// All rounds are done; the last model is being scored.
    Evaluating,
    /// The candidate is being built.
    Releasing,
    /// Over: trained, and no release was wanted.
    Trained,
    /// Over: released.
    Released,
    /// Over: a gate said no.
    Refused,
    /// Over: somebody stopped it.
    Stopped,
    /// Over: it could not go on.
    Failed,
}

impl RunState {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Selecting => "selecting",
            Self::Collecting => "collecting",
            Self::Aggregating => "aggregating",
            Self::Committing => "committing",
            Self::Evaluating => "evaluating",
            Self::Releasing => "releasing",
            Self::Trained => "trained",
            Self::Released => "released",
            Self::Refused => "refused",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

impl std::fmt::Display for RunState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

impl Run {
    /// Where it is.
    pub fn state(&self) -> RunState {
        match &self.phase {
            Phase::Created => RunState::Created,
            Phase::Selecting(_) => RunState::Selecting,
            Phase::Exchanging(Exchanging { stage: Stage::Keys, .. }) => RunState::Collecting,
            Phase::Collecting(collecting) if collecting.terms.secure.is_none() => RunState::Collecting,
            Phase::Exchanging(_) | Phase::Collecting(_) => RunState::Aggregating,
            Phase::Committing(_) => RunState::Committing,
            Phase::Finished if !self.unscored.is_empty() => RunState::Evaluating,
            Phase::Finished if self.created.spec.release.auto => RunState::Releasing,
            Phase::Finished => RunState::Trained,
            Phase::Released(_) => RunState::Released,
            Phase::Refused(_) => RunState::Refused,
            Phase::Stopped { .. } => RunState::Stopped,
            Phase::Failed { .. } => RunState::Failed,
        }
    }

    /// Why it ended, or why the last attempt came to nothing.
    pub fn detail(&self) -> Option<String> {
        match &self.phase {
            Phase::Selecting(selecting) => {
                selecting.attempts.last.as_ref().map(|reason| format!("the last attempt was given up: {reason}"))
            }
            Phase::Refused(refused) => Some(refused.gates.join("; ")),
            Phase::Stopped { by } => Some(format!("stopped by {by}")),
            Phase::Failed { why } => Some(why.to_string()),
            _ => None,
        }
    }

    /// The promise that what was charged so far amounts to; none without a budget.
    pub fn statement(&self) -> Option<Statement> {
        let rho = |units| Rho::from_trillionths(units).get();
        let (Cost { coordinator, outsider }, sums) = self.spent();
        self.plan()?.statement_of(rho(coordinator), rho(outsider), sums).ok()
    }

    /// The release, once there is one.
    pub fn released(&self) -> Option<&Released> {
        match &self.phase {
            Phase::Released(released) => Some(released),
            _ => None,
        }
    }

    pub(crate) fn round(&self) -> u32 {
        match &self.phase {
            Phase::Created => 0,
            Phase::Selecting(Selecting { attempts, .. })
            | Phase::Exchanging(Exchanging { attempts, .. })
            | Phase::Collecting(Collecting { attempts, .. })
            | Phase::Committing(Committing { attempts, .. }) => attempts.round,
            _ => self.rounds.last().map_or(0, |record| record.round),
        }
    }

    pub(crate) fn attempt(&self) -> Option<AttemptView> {
        let (Phase::Exchanging(Exchanging { terms, updates, dropped, .. })
        | Phase::Collecting(Collecting { terms, updates, dropped, .. })
        | Phase::Committing(Committing { terms, updates, dropped, .. })) = &self.phase
        else {
            return None;
        };
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Some(AttemptView {
            attempt: terms.attempt,
            asked: count(terms.cohort.len()),
            updates: count(updates.len()),
            minimum: terms.minimum,
            dropped: dropped.iter().map(|(node, why)| Dropped { node: node.clone(), why: why.to_string() }).collect(),
            deadline: self.deadline().unwrap_or(terms.deadline),
        })
    }
}

//! What the driver asks of this module, and what it gets back.

use sapwood_failpoint::Killed;
use sapwood_privacy::dp::Statement;
use sapwood_protocol::{
    Digest, NodeId, RunId, Timestamp,
    release::{GateReport, Manifest, ReleaseRef},
    run::{CandidateOutcome, EvaluationRecord, Refused, Released},
    spec::Spec,
};
use thiserror::Error;

use crate::objects::Objects;

/// The heavy work of a run, outside its rounds. Methods block and are called where that is allowed.
pub trait Work: Send + Sync + 'static {
    /// Refuses a run whose data or model cannot be used, before it begins. The default accepts everything.
    fn check(&self, _job: &CheckJob<'_>) -> Result<(), WorkError> {
        Ok(())
    }
    /// Scores parameters on the evaluation data.
    fn evaluate(&self, job: &EvaluateJob<'_>) -> Result<EvaluationRecord, WorkError>;
    /// From final parameters to a signed release, or a refusal. Asked again with the same job, it packs the same bundle.
    fn build(&self, job: &BuildJob<'_>) -> Result<Built, WorkError>;
}

/// A run that was submitted.
#[derive(Clone, Copy)]
pub struct CheckJob<'a> {
    /// What is asked for.
    pub spec: &'a Spec,
    /// Where objects are.
    pub objects: &'a Objects,
    /// The initial model.
    pub model: Digest,
    /// The graph in front of it.
    pub preprocess: Option<Digest>,
    /// What each node's data must be.
    pub schema: Option<Digest>,
}

/// Parameters to score. [`EvaluateJob::spec`] must name evaluation data.
#[derive(Clone, Copy)]
pub struct EvaluateJob<'a> {
    /// The run's file.
    pub spec: &'a Spec,
    /// Where objects are.
    pub objects: &'a Objects,
    /// The initial model.
    pub model: Digest,
    /// The graph in front of it.
    pub preprocess: Option<Digest>,
    /// What the data must be.
    pub schema: Option<Digest>,
    /// The parameters: D little-endian `f32`.
    pub params: Digest,
}

/// A candidate to build.
#[derive(Clone, Copy)]
pub struct BuildJob<'a> {
    /// Of which run.
    pub run: &'a RunId,
    /// The run's file.
    pub spec: &'a Spec,
    /// Where objects are, and where the bundle goes.
    pub objects: &'a Objects,
    /// The initial model.
    pub model: Digest,
    /// The graph in front of it.
    pub preprocess: Option<Digest>,
    /// What each node's data had to be.
    pub schema: Option<Digest>,
    /// The final parameters: D little-endian `f32`.
    pub params: Digest,
    /// How many rounds were committed.
    pub rounds: u32,
    /// What their sums were charged, and what that promises; none without a budget.
    pub statement: Option<&'a Statement>,
    /// Whose updates are in the parameters, sorted.
    pub nodes: &'a [NodeId],
    /// When training finished; the release is dated so, however often it is built.
    pub finished: Timestamp,
}

/// What came of a candidate.
#[derive(Clone, Debug, PartialEq)]
pub enum Built {
    /// Gates passed; bundle and manifest are objects, and signed.
    Released(Box<Release>),
    /// A gate failed; nothing was signed or stored.
    Refused(GateReport),
}

/// A signed release.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// What an order to a node says about it.
    pub reference: ReleaseRef,
    /// What was signed.
    pub manifest: Manifest,
}

impl Built {
    /// As the run is told.
    pub fn outcome(&self) -> CandidateOutcome {
        match self {
            Self::Released(release) => {
                let reference = &release.reference;
                CandidateOutcome::Released(Released {
                    release: reference.release.clone(),
                    bundle: reference.bundle,
                    manifest: reference.manifest,
                })
            }
            Self::Refused(report) => CandidateOutcome::Refused(Refused { gates: report.failed().map(ToString::to_string).collect() }),
        }
    }
}

/// Why there is no result.
#[derive(Debug, Error)]
pub enum WorkError {
    /// The simulated process died.
    #[error(transparent)]
    Killed(#[from] Killed),
    /// It cannot be done now; the same again may work.
    #[error("{0}")]
    Later(String),
    /// It cannot be done, and trying again will not help.
    #[error("{0}")]
    Failed(String),
}

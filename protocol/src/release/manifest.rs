//! The manifest: what a bundle holds, where it came from, how it measured, whom it is for.
//!
//! Its bytes are signed, so there is one way to write them: [`Manifest::to_bytes`], JSON with sorted keys. A reader checks the
//! signature over the bytes that it was given and never writes them again.
//!
//! [`Document::parse`] also reads the article's minimal manifest, which has no `schema` key.

mod article;
mod check;
mod strict;

use std::{collections::BTreeMap, fmt, time::Duration};

use sapwood_privacy::dp::Statement;
use serde::{Deserialize, Serialize};

pub use self::article::{ArticleManifest, ArticleRollout};
use super::{
    documents::SchemaId,
    fault::ReleaseFault,
    gates::{GateReport, Measured},
    reference::RuntimeVersion,
};
use crate::{
    digest::Digest,
    fault::Fault,
    ids::{DeviceClass, ModelName, NodeId, ReleaseId, RingId, RunId, Version},
    time::{Timestamp, span},
};

/// What [`Manifest::schema`] says.
pub const SCHEMA: &str = "sapwood/manifest/v1";
/// The longest manifest that is read.
pub const MAX_MANIFEST: usize = 1 << 20;

/// Either form of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// With `schema`: ours, every key known.
    Sapwood(Box<Manifest>),
    /// Without: the article's minimal form; keys that it does not name are kept.
    Article(Box<ArticleManifest>),
}

/// A release's manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: String,
    /// What the versions of one model have in common.
    pub model_name: ModelName,
    /// This version; compared by `created`, never as text (R61).
    pub version: Version,
    /// SHA-256 of the bundle's bytes, exactly as they lie beside this manifest: "the released digest".
    pub checksum: Digest,
    /// Devices that may run it; others get nothing (R63).
    pub target_devices: Vec<DeviceClass>,
    /// The bundle's entries by name (`model.onnx`, `golden/inputs.npy`, …), each with digest and length.
    pub components: BTreeMap<String, Component>,
    /// The schema of the features that it was trained on; `schema.json` has it whole (R43).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_schema: Option<SchemaId>,
    /// What the model is for, in its author's words.
    pub use_case: String,
    /// The device's smoke test before it goes live; `None`: the bundle has no golden examples.
    pub golden: Option<GoldenTerms>,
    /// How it spreads.
    pub rollout: RolloutPolicy,
    /// Where it came from.
    pub provenance: Provenance,
    /// How it measured.
    pub measured: Measured,
    /// What it had to reach.
    pub gates: GateReport,
    /// What the run promises about the privacy of its nodes.
    pub privacy: PrivacyStatement,
    /// What runs it.
    pub runtime: RuntimeNeeds,
    /// When the candidate was built.
    #[serde(with = "check::rfc3339")]
    pub created: Timestamp,
    /// How long telemetry of this release may be kept (R72).
    pub retention: Retention,
}

/// One entry of the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// SHA-256 of the entry.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
}

/// What a device's outputs are held against.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenTerms {
    /// How many.
    pub examples: usize,
    /// Largest absolute difference of any output value. Kernels of one device class may differ in the last rounding.
    pub tolerance: f64,
}

/// How a release spreads over the fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutPolicy {
    /// Only [`Strategy::Rings`] is carried out by this version.
    pub strategy: Strategy,
    /// In the order in which they open.
    pub rings: Vec<RingId>,
    /// How long a whole ring must have been healthy before the next one opens.
    #[serde(with = "span")]
    pub soak: Duration,
    /// How long a node may take from its assignment to its confirmation.
    #[serde(with = "span")]
    pub health_timeout: Duration,
}

/// How a release spreads; an unknown word is refused (R65).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Ring by ring; all of a ring at once.
    Rings,
    /// Named sites first, then all.
    Canary,
    /// Two versions side by side.
    Ab,
    /// Everyone at once.
    All,
}

/// Where a model came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Which federated run.
    pub run: RunId,
    /// How many rounds were committed.
    pub rounds: u32,
    /// Who took part in at least one of them, sorted.
    pub nodes: Vec<NodeId>,
    /// What the nodes trained on, in the run's words; the data itself never left them (R70).
    pub data_sources: Vec<String>,
    /// The graph that the run started from.
    pub source_model: Digest,
    /// The preprocessing graph, if there is one.
    pub preprocess: Option<Digest>,
    /// The final parameters, as the flat vector's little-endian bytes.
    pub params: Digest,
    /// What built the candidate, such as `sapwood 0.1.0`.
    pub builder: String,
}

/// What a run promises about privacy, in words that cannot be mistaken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivacyStatement {
    /// `on` or `off`.
    pub secure_aggregation: String,
    /// Whom it protects: `example`, `entity`, `node` or `none`.
    pub unit: String,
    /// One sentence for people.
    pub statement: String,
    /// What was charged, and under which assumptions; none without a budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<SpentBudget>,
}

/// A promise of differential privacy, as the ledger was charged for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpentBudget {
    /// Which data sets cannot be told apart.
    pub adjacency: String,
    /// Who adds which noise, and how it is accounted.
    pub mechanism: String,
    /// Against the coordinator and those who collude with it; none where it is trusted.
    pub epsilon_coordinator: Option<f64>,
    /// Against those who see the model only.
    pub epsilon_outsider: f64,
    /// For both.
    pub delta: f64,
    /// What must hold.
    pub assumptions: String,
    /// What is not promised.
    pub not_covered: Vec<String>,
    /// The entry in the coordinator's privacy ledger: unit and run.
    pub ledger: String,
}

impl SpentBudget {
    /// From what a run was charged. `key` is the column that told entities apart, under that unit.
    pub fn of(statement: &Statement, run: &RunId, key: Option<&str>) -> Self {
        let key = key.map_or_else(String::new, |key| format!("; the key column is `{key}`"));
        Self {
            adjacency: format!("{}{key}", statement.adjacency),
            mechanism: statement.mechanism.clone(),
            epsilon_coordinator: statement.epsilon_coordinator,
            epsilon_outsider: statement.epsilon_outsider,
            delta: statement.delta,
            assumptions: statement.assumptions.clone(),
            not_covered: statement.not_covered.iter().map(|what| (*what).to_owned()).collect(),
            ledger: format!("{}/{run}", statement.unit.word()),
        }
    }
}

impl fmt::Display for PrivacyStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.statement)?;
        let Some(budget) = &self.budget else { return Ok(()) };
        let of = |epsilon: f64| format!("epsilon = {epsilon:.3}");
        match budget.epsilon_coordinator {
            Some(epsilon) => write!(f, "\nspent: {} against the coordinator, {} against others", of(epsilon), of(budget.epsilon_outsider))?,
            None => write!(f, "\nspent: {} against everyone but the coordinator", of(budget.epsilon_outsider))?,
        }
        writeln!(f, ", delta = {:e}", budget.delta)?;
        writeln!(f, "neighbours: {}", budget.adjacency)?;
        writeln!(f, "mechanism: {}", budget.mechanism)?;
        writeln!(f, "provided that {}", budget.assumptions)?;
        write!(f, "not covered: {}", budget.not_covered.join("; "))
    }
}

/// What a device must have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeNeeds {
    /// Oldest ONNX Runtime that will do (R46).
    pub min_onnxruntime: RuntimeVersion,
    /// Of the graph.
    pub opset: i64,
}

/// How long what is measured in the field may be kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Of telemetry.
    #[serde(with = "span")]
    pub telemetry: Duration,
}

#[cfg(test)]
pub(crate) mod tests;

impl Document {
    /// Reads either form. The message of a refusal names the field.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        check::document(bytes)
    }
}

impl Manifest {
    /// Reads our form; the article's is refused, because it says too little to run a release by.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        match Document::parse(bytes)? {
            Document::Sapwood(manifest) => Ok(*manifest),
            Document::Article(_) => Err(ReleaseFault::Manifest { why: format!("schema: missing; expected {SCHEMA:?}") }.into()),
        }
    }
    /// The one way to write it: sorted keys, two spaces, a newline at the end. These bytes are signed.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Fault> {
        check::canonical(self)
    }
    /// `NAME-VERSION`.
    pub fn release(&self) -> Result<ReleaseId, Fault> {
        format!("{}-{}", self.model_name, self.version).parse()
    }
    /// `NAME-VERSION-CLASS.tar.gz`.
    pub fn bundle_name(&self, class: &DeviceClass) -> String {
        format!("{}-{}-{class}.tar.gz", self.model_name, self.version)
    }
    /// What the unpacked parts take.
    pub fn unpacked_bytes(&self) -> u64 {
        self.components.values().fold(0, |sum, part| sum.saturating_add(part.bytes))
    }
}

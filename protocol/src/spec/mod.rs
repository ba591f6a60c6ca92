//! `run.toml`: everything that a run is asked to do, in one file.
//!
//! Every key has a default that runs, except the model and what only its author can know: how many examples there are about
//! ([`PrivacySpec::expected_units`]). The defaults are the safe ones: secure aggregation is on and a privacy budget protects each
//! example. Turning either off is written out: `mode = "off"`, `unit = "none"`.
//!
//! ```
//! use sapwood_protocol::spec::Spec;
//! let spec = Spec::parse(r#"
//!     name = "digits"
//!     seed = 7
//!
//!     [model]
//!     file = "cnn.onnx"            # the initial model; its initializers are trained
//!     loss = "cross_entropy"       # cross_entropy | focal:2 | bce | mse | mae | huber:1 | pinball:0.5 | my_loss.onnx
//!     freeze = ["stem.*"]          # initializers that stay as they are; ["*", "!head.*"] trains the head only
//!
//!     [model.labels]
//!     smoothing = 0.1              # spread over all classes
//!
//!     [train]
//!     rounds = 60
//!     lr = 5.0                     # with a budget within nodes: about 5 / privacy.clip, as no step is longer than lr * clip
//!     schedule = "cosine"          # constant | linear | cosine | step:10:0.5, from round to round
//!     warmup = 3                   # rounds over which it rises first
//!
//!     [cohort]
//!     size = 10
//!     over_selection = 0.2         # asks 12, goes on with the first 10
//!
//!     [secure_aggregation]
//!     mode = "on"                  # on | off
//!     profile = "semi-malicious"   # semi-malicious | honest-but-curious
//!     dropout = 0.1                # so many may leave without costing the round
//!     corruption = 0.05            # so many may work together with the coordinator; one always may
//!
//!     [privacy]
//!     unit = "example"             # example | entity | node | none
//!     epsilon = 8.0                # of the whole run, against the coordinator
//!     delta = 1e-4
//!     clip = 1.0                   # L2 norm of one unit's contribution
//!     expected_units = 1300        # public: about so many examples does a cohort have together
//!     ## entity_key = "customer"    # under the unit entity: the column of each node's data that tells entities apart
//!
//!     [deadlines]
//!     select = "2m"
//!     round = "10m"                # from a task to a trained update
//!     exchange = "30s"             # each step of the secure aggregation behind it
//!     attempts = 3
//!
//!     [evaluate]
//!     data = "digits:12-14"        # or an .npz beside this file, with x and y
//!
//!     [release.gates]
//!     min_accuracy = 0.9
//! "#)?;
//! assert_eq!(spec.cohort.size, 10);
//! assert_eq!(spec.cohort.minimum, 9);
//! assert!(spec.privacy_line().starts_with("secure aggregation on, differential privacy for each example: epsilon = 8"));
//! # Ok::<(), sapwood_protocol::Fault>(())
//! ```

mod check;
mod defaults;
mod loss;
mod parse;
mod schedule;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use loss::Loss;
pub use schedule::Schedule;

use crate::time::span;

/// A whole `run.toml`, checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spec {
    /// What the run and its releases are called.
    pub name: String,
    /// Everything that may be replayed is drawn from it: cohorts, the order of examples.
    pub seed: u64,
    /// What is trained.
    pub model: ModelSpec,
    /// On what.
    pub data: DataSpec,
    /// How each node trains.
    pub train: TrainSpec,
    /// How updates become the next model.
    pub strategy: StrategySpec,
    /// Who takes part in a round.
    pub cohort: CohortSpec,
    /// Whether the coordinator may see single updates.
    pub secure_aggregation: SecureAggregationSpec,
    /// Whom a privacy budget protects.
    pub privacy: PrivacySpec,
    /// How long to wait.
    pub deadlines: DeadlineSpec,
    /// How the global model is scored.
    pub evaluate: EvaluateSpec,
    /// What becomes of the result.
    pub release: ReleaseSpec,
}

/// `[model]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSpec {
    /// The initial ONNX model. Required.
    pub file: String,
    /// What training makes small: a name, or an ONNX graph beside this file, from `output` and `target` to one value for each example.
    pub loss: Loss,
    /// How labels of classes count.
    pub labels: LabelSpec,
    /// Initializers that are not trained, by name; `*` stands for any text, and a leading `!` takes names out again.
    pub freeze: Vec<String>,
    /// An ONNX graph that turns raw features into the model's input.
    pub preprocess: Option<String>,
}

/// `[model.labels]`, for cross-entropy and the focal loss.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelSpec {
    /// Weight of each class; left out, all weigh the same.
    pub weights: Vec<f64>,
    /// Share of each label that is spread over all classes.
    pub smoothing: f64,
    /// Examples with this label count nowhere.
    pub ignore: Option<i64>,
}

/// `[data]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSpec {
    /// Which of its data sets a node uses; left out, the one that its own configuration names first.
    pub source: Option<String>,
    /// A schema that each node's data must meet before it trains.
    pub schema: Option<String>,
}

/// `[train]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSpec {
    /// Rounds in the run.
    pub rounds: u32,
    /// Passes over a node's examples in one round.
    pub local_epochs: u32,
    /// Examples in a minibatch.
    pub batch: u32,
    /// Which rule steps.
    pub optimizer: OptimizerKind,
    /// Learning rate, the highest if it moves.
    pub lr: f64,
    /// How it falls from round to round: `constant`, `linear`, `cosine` or `step:EVERY:FACTOR`.
    pub schedule: Schedule,
    /// Rounds over which it rises first.
    pub warmup: u32,
    /// SGD: share of the last step that is kept.
    pub momentum: f64,
    /// SGD: look ahead.
    pub nesterov: bool,
    /// L2 penalty (SGD, Adam) or decoupled decay (AdamW).
    pub weight_decay: f64,
    /// Adam: decay of the first moment.
    pub beta1: f64,
    /// Adam: decay of the second moment.
    pub beta2: f64,
    /// Adam: keeps the division sane.
    pub epsilon: f64,
}

/// `[strategy]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StrategySpec {
    /// The aggregation rule.
    pub kind: StrategyKind,
    /// How much each update counts.
    pub weights: Weights,
    /// With `weights = "examples"`: more examples than this weigh no more, so that no node drowns the others. No larger than the
    /// largest node: an update is sent in fixed point, times its weight, and a weight of a thousandth costs ten bits of it.
    pub example_cap: u32,
    /// The mean update is multiplied by this before it is added.
    pub server_lr: f64,
}

/// `[cohort]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CohortSpec {
    /// Updates wanted in a round.
    pub size: u32,
    /// Fewer updates than this are never aggregated. Left out of the file: the size.
    pub minimum: u32,
    /// How many more nodes are asked than wanted, as a share of the size; the round goes on with the first `size`.
    pub over_selection: f64,
    /// How members are drawn.
    pub sampling: Sampling,
}

/// `[secure_aggregation]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecureAggregationSpec {
    /// Whether the coordinator sees sums only.
    pub mode: SecureAggregationMode,
    /// What the coordinator may do.
    pub profile: AggregationProfile,
    /// δ: share of a cohort that may leave behind key advertisement without costing the round.
    pub dropout: f64,
    /// γ: share of a cohort that may work together with the coordinator. At least one node always may.
    pub corruption: f64,
    /// Which cipher draws the masks.
    pub suite: MaskSuite,
    /// Bits of each element on the wire, 8 to 32; left out, 32, or as few as do under a privacy budget.
    pub bits: Option<u8>,
}

/// `[privacy]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrivacySpec {
    /// Whom the budget protects.
    pub unit: PrivacyUnit,
    /// ε of the whole run against the coordinator.
    pub epsilon: f64,
    /// δ of the whole run.
    pub delta: f64,
    /// Largest L2 norm of one unit's contribution; without a budget, of a node's update, which travels in fixed point: a step of the
    /// grid is 2 * nodes / 2^bits of this norm.
    pub clip: f64,
    /// The clip norm moves toward this quantile of the units' norms, from 0 to 1, which is estimated inside the noised sum (Andrew et al.
    /// 2021); left out, it stays.
    pub clip_quantile: Option<f64>,
    /// Who adds the noise.
    pub mechanism: NoiseMechanism,
    /// Under the units entity and example: how many units a cohort has together, about. Public; sums are divided by it.
    pub expected_units: Option<f64>,
    /// Under the units entity and example: a node that holds more declines.
    pub units_per_node: u32,
    /// Under the unit entity: the column whose values tell entities apart.
    pub entity_key: Option<String>,
    /// Rounds that may fail after they were charged, without breaking the promise. Left out: a twentieth of the rounds, and one.
    pub spare_rounds: Option<u32>,
}

/// `[deadlines]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadlineSpec {
    /// How long to wait for a full cohort before making do with the minimum.
    #[serde(with = "span")]
    pub select: Duration,
    /// From a task to its update; under secure aggregation, to a trained update.
    #[serde(with = "span")]
    pub round: Duration,
    /// For each step of the secure aggregation behind key advertisement.
    #[serde(with = "span")]
    pub exchange: Duration,
    /// Attempts at one round before the run fails. Restarts of the coordinator do not count.
    pub attempts: u32,
}

/// `[evaluate]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluateSpec {
    /// A data set at the coordinator; left out, the global model is not scored there.
    pub data: Option<String>,
    /// Score every so many rounds; the last round is always scored.
    pub every: u32,
}

/// `[release]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReleaseSpec {
    /// Build, gate, sign and roll out a candidate when training ends.
    pub auto: bool,
    /// What the model is for; goes into the manifest.
    pub use_case: String,
    /// Declared public data that calibrates the quantizer.
    pub calibration: Option<String>,
    /// What becomes of the outputs.
    pub postprocess: PostprocessSpec,
    /// How many inputs of the calibration data go along as the device's smoke test.
    pub golden: u32,
    /// Rings in order, by the node label `ring`.
    pub rings: Vec<String>,
    /// How long a healthy ring is watched before the next one opens.
    #[serde(with = "span")]
    pub soak: Duration,
    /// A node that has not confirmed health by then counts as failed.
    #[serde(with = "span")]
    pub health_timeout: Duration,
    /// Thresholds; what is left out is not checked.
    pub gates: Gates,
}

/// `[release.postprocess]`: goes into the bundle's `config.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostprocessSpec {
    /// Left out, what the loss trains for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<PostprocessKind>,
    /// Names of the classes, in order; of a sigmoid, of no and of yes.
    pub labels: Vec<String>,
    /// Least probability of an answer that is accepted, or of a yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// What is said in the place of a label that is not accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below: Option<String>,
}

/// `[release.gates]`: any that fails stops the release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gates {
    /// Least accuracy of the exported model on the evaluation data, 0 to 1.
    pub min_accuracy: Option<f64>,
    /// Largest loss of accuracy from fp32 to INT8, 0 to 1.
    pub max_int8_drop: Option<f64>,
    /// Largest model file in bytes.
    pub max_bytes: Option<u64>,
    /// Largest 99th percentile of one inference.
    #[serde(with = "span::option", skip_serializing_if = "Option::is_none")]
    pub max_p99: Option<Duration>,
    /// Largest time from a fresh process to its first answer.
    #[serde(with = "span::option", skip_serializing_if = "Option::is_none")]
    pub max_cold_start: Option<Duration>,
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// Every word that may be written.
            pub const WORDS: &[&str] = &[$($word),*];
            /// The word in the file.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.word()) }
        }
    )*};
}

words! {
    /// What training makes small.
    LossKind {
        /// Softmax cross-entropy over class indices.
        #[default] CrossEntropy = "cross_entropy",
        /// Cross-entropy in which sure answers count less; with a number, its gamma.
        Focal = "focal",
        /// Binary cross-entropy on logits.
        Bce = "bce",
        /// Mean squared error.
        Mse = "mse",
        /// Mean absolute error.
        Mae = "mae",
        /// Squared up to a distance, and linear beyond; with a number, that distance.
        Huber = "huber",
        /// Least at a quantile of the targets; with a number, that quantile.
        Pinball = "pinball",
    }
    /// Which rule steps.
    OptimizerKind {
        /// Stochastic gradient descent with momentum.
        #[default] Sgd = "sgd",
        /// Kingma and Ba 2015.
        Adam = "adam",
        /// Loshchilov and Hutter 2019.
        AdamW = "adamw",
    }
    /// The aggregation rule.
    StrategyKind {
        /// McMahan et al. 2017: the weighted mean of the updates.
        #[default] FedAvg = "fedavg",
    }
    /// How much each update counts.
    Weights {
        /// By the number of examples it was trained on, up to a cap.
        #[default] Examples = "examples",
        /// All the same.
        Uniform = "uniform",
    }
    /// What becomes of a model's outputs.
    PostprocessKind {
        /// They are the answer.
        #[default] None = "none",
        /// The largest one is the class.
        Argmax = "argmax",
        /// Probabilities of classes.
        Softmax = "softmax",
        /// The probability of a yes.
        Sigmoid = "sigmoid",
    }
    /// How members of a cohort are drawn.
    Sampling {
        /// Uniformly, without replacement.
        #[default] Uniform = "uniform",
    }
    /// Whether the coordinator sees sums only.
    SecureAggregationMode {
        /// It sees nothing but the sum of a cohort.
        #[default] On = "on",
        /// It sees each update in clear.
        Off = "off",
    }
    /// What the coordinator may do.
    AggregationProfile {
        /// It says anything to anybody once keys are collected.
        #[default] SemiMalicious = "semi-malicious",
        /// It follows the protocol and looks.
        HonestButCurious = "honest-but-curious",
    }
    /// Which cipher draws the masks.
    MaskSuite {
        /// For processors with AES instructions.
        #[default] Aes256 = "aes-256-gcm",
        /// For those without.
        ChaCha20 = "chacha20",
    }
    /// Whom a privacy budget protects.
    PrivacyUnit {
        /// One row.
        #[default] Example = "example",
        /// All rows of a node with the same value of a key column.
        Entity = "entity",
        /// All that a node contributes.
        Node = "node",
        /// Nobody: there is no noise.
        None = "none",
    }
    /// Who adds the noise.
    NoiseMechanism {
        /// Each node its share, before the secure sum.
        #[default] Distributed = "distributed",
        /// The coordinator, which is trusted with exact sums.
        Central = "central",
    }
}

impl Spec {
    /// What every print of the run says about privacy.
    pub fn privacy_line(&self) -> String {
        let (secure, privacy) = (self.is_secure(), &self.privacy);
        let sums = if secure { "secure aggregation on" } else { "secure aggregation off" };
        let budget = || format!("epsilon = {}, delta = {:e} for the whole run", privacy.epsilon, privacy.delta);
        match (privacy.unit, privacy.mechanism) {
            (PrivacyUnit::None, _) if secure => {
                format!("{sums}, no differential privacy: the coordinator sees the exact sum of each cohort, and no single update")
            }
            (PrivacyUnit::None, _) => format!("{sums}, no differential privacy: the coordinator sees each update in clear"),
            (unit, NoiseMechanism::Distributed) => {
                format!("{sums}, differential privacy for each {unit}: {}, against the coordinator, too", budget())
            }
            (unit, NoiseMechanism::Central) => {
                let sees = if secure { "exact sums" } else { "each update in clear" };
                format!("{sums}, central differential privacy for each {unit}: {}; the coordinator is trusted and sees {sees}", budget())
            }
        }
    }

    /// Whether the coordinator sees sums only.
    pub fn is_secure(&self) -> bool {
        self.secure_aggregation.mode == SecureAggregationMode::On
    }

    /// Whether a privacy budget protects anybody.
    pub fn is_private(&self) -> bool {
        self.privacy.unit != PrivacyUnit::None
    }
}

impl CohortSpec {
    /// How many nodes are asked: ⌈size·(1 + over_selection)⌉.
    pub fn asked(&self) -> u32 {
        // The small allowance keeps 10·(1 + 0.2) from becoming 13.
        let asked = (f64::from(self.size) * (1.0 + self.over_selection) - 1e-9).ceil();
        (asked as u32).max(self.size)
    }
}

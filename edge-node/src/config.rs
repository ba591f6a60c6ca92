//! `node.toml`: who the node is, whom it calls, what it trains on and where it serves.
//!
//! ```
//! let text = r#"
//!     name = "store-017"
//!     coordinator = "https://coordinator.example:7443"
//!     trust = "trust.toml"
//!     state_dir = "state"
//!
//!     [enrollment]
//!     token_file = "token"        # used once
//!
//!     [data]
//!     source = "records"          # a folder with x.npy and y.npy, a .npz or .csv file, or "digits:1"
//!     schema = "records.toml"
//!
//!     [train]
//!     threads = 2
//!     memory = "1 GiB"
//!     nice = 10
//!
//!     [policy]                    # what this node's operator insists on, whatever a run asks for
//!     minimum_cohort = 5
//!
//!     [policy.budgets.example]    # what all runs together may cost each example of this node
//!     epsilon = 8.0
//!     delta = 1e-5
//!     ## key = "customer"          # of [policy.budgets.entity] only: the column that tells entities apart
//!
//!     [serve]
//!     listen = "127.0.0.1:8080"
//! "#;
//! let config = sapwood_edge_node::Config::parse(text, std::path::Path::new("/etc/sapwood")).unwrap();
//! assert_eq!(config.trust, std::path::Path::new("/etc/sapwood/trust.toml"));
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use sapwood_data::Source;
use sapwood_protocol::{
    NodeId,
    ledger::BudgetTerms,
    slot::Policy,
    spec::{AggregationProfile, PrivacyUnit},
    time::span,
};
use serde::{Deserialize, Deserializer, de::Error as _};
use zeroize::Zeroizing;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The text is no configuration of a node.
    #[error("{}: {why}", path.display())]
    Text {
        /// Which file.
        path: PathBuf,
        /// Which line and key, what is wrong, and the nearest valid key.
        why: String,
    },
}

/// A node's configuration. Relative paths are relative to the folder of its file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The node's name in its population.
    pub name: NodeId,
    /// `https://HOST:PORT`, or `HOST:PORT`.
    pub coordinator: String,
    /// The trust file, given to the node out of band.
    pub trust: PathBuf,
    /// Keys, certificates, ticket, slots. One folder per node; created if it is not there.
    pub state_dir: PathBuf,
    /// How to become a node; not needed afterwards.
    #[serde(default)]
    pub enrollment: Enrollment,
    /// What to train on; without it the node only serves.
    pub data: Option<Data>,
    /// The budget for training.
    #[serde(default)]
    pub train: Train,
    /// What a run must keep to.
    #[serde(default)]
    pub policy: Rules,
    /// The inference server.
    #[serde(default)]
    pub serve: Serve,
    /// ONNX Runtime.
    #[serde(default)]
    pub runtime: Runtime,
}

/// How to become a node. At most one of the two.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrollment {
    /// The one-time token itself.
    pub token: Option<Secret>,
    /// A file that holds it.
    pub token_file: Option<PathBuf>,
}

/// What to train on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// By which name runs may ask for it; one that names none gets this one.
    pub name: Option<String>,
    /// Where it is.
    pub source: Source,
    /// What each example must look like.
    pub schema: Option<PathBuf>,
}

/// The budget for training, so that the node goes on serving meanwhile.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Most CPU cores. Results do not depend on it.
    pub threads: NonZeroUsize,
    /// Most memory; a task that would need more is declined. None: half of the machine's.
    pub memory: Option<Bytes>,
    /// How much training yields to everything else, 0 to 19.
    pub nice: u8,
    /// What trains. Anything but `model` is for benches.
    #[doc(hidden)]
    pub kind: Trainer,
}

impl Default for Train {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let half = NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN);
        Self { threads: half, memory: None, nice: 10, kind: Trainer::Model }
    }
}

/// What this node's operator insists on. Whatever is off is off because it is written here.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Digests of the models that may be trained here; any if none are named.
    pub models: Option<BTreeSet<String>>,
    /// Fewest nodes in a sum that this node's input may enter.
    pub minimum_cohort: u32,
    /// Share of a cohort that is assumed to work together with the coordinator.
    pub corruption: f64,
    /// What the coordinator must be withstood at least.
    pub profile: AggregationProfile,
    /// Largest clip norm under a privacy budget.
    pub most_clip: f64,
    /// Whether an update may leave without masks.
    pub allow_clear: bool,
    /// Whether an update may leave without noise.
    pub allow_no_noise: bool,
    /// Whether the coordinator may be trusted to add the noise.
    pub allow_central: bool,
    /// The budget of each unit, over all runs. A unit without one is refused.
    pub budgets: BTreeMap<PrivacyUnit, BudgetTerms>,
}

impl Default for Rules {
    fn default() -> Self {
        let budget = BudgetTerms::new(10.0, 1e-5);
        Self {
            models: None,
            minimum_cohort: 3,
            corruption: 0.0,
            profile: AggregationProfile::SemiMalicious,
            most_clip: 100.0,
            allow_clear: false,
            allow_no_noise: false,
            allow_central: false,
            // One unit: what a run under another one costs is not counted against it.
            budgets: [(PrivacyUnit::Example, budget)].into(),
        }
    }
}

/// What trains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trainer {
    /// The model of the task.
    #[default]
    Model,
    /// Bench only: a random update of the right length, another for each node and round, without any data.
    Random,
}

/// The inference server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Serve {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Inferences at the same time, for models that take long.
    pub sessions: NonZeroUsize,
    /// How often what answers is tried with its golden inputs.
    #[serde(with = "span")]
    pub probe: Duration,
    /// How long a new release must stay healthy before it is committed.
    #[serde(with = "span")]
    pub trial: Duration,
    /// Restarts of the node during a new release's trial that are forgiven.
    pub restarts: u32,
    /// Bytes that a release must leave free on the disk.
    pub reserve: Bytes,
}

impl Default for Serve {
    fn default() -> Self {
        let policy = Policy::default();
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            sessions: NonZeroUsize::MIN,
            probe: Duration::from_secs(5),
            trial: policy.window,
            restarts: policy.restarts,
            reserve: Bytes(policy.reserve),
        }
    }
}

impl Serve {
    /// What the slots are told.
    pub(crate) fn policy(&self) -> Policy {
        Policy { window: self.trial, restarts: self.restarts, reserve: self.reserve.0, ..Policy::default() }
    }
}

/// ONNX Runtime.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    /// The library; without it the usual places are searched.
    pub library: Option<PathBuf>,
}

/// A word that is wiped from memory and never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps `word`.
    pub fn new(word: impl Into<String>) -> Self {
        Self(Zeroizing::new(word.into()))
    }
    /// The word itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// A number of bytes; as text `"512 MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("{text:?} is no size such as \"512 MiB\" or \"2 GB\"");
        let text_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(text_end);
        let number: u64 = number.parse().map_err(|_| fault())?;
        let factor = match unit.trim() {
            "" | "B" => 1,
            "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(fault()),
        };
        number.checked_mul(factor).map(Self).ok_or_else(fault)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n >= 1 << 30 => write!(f, "{:.1} GiB", n as f64 / (1u64 << 30) as f64),
            n if n >= 1 << 20 => write!(f, "{:.1} MiB", n as f64 / (1u64 << 20) as f64),
            n => write!(f, "{n} B"),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Config {
    /// A one-time token from elsewhere; it takes the place of the file's.
    pub fn set_token(&mut self, token: String) {
        self.enrollment = Enrollment { token: Some(Secret::new(token)), token_file: None };
    }

    /// Reads `node.toml`.
    ///
    /// # Errors
    /// [`ConfigError`] with the file's name.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder).map_err(|why| ConfigError::Text { path: path.to_owned(), why })
    }

    /// Reads the text of a `node.toml` that lies in `folder`.
    ///
    /// # Errors
    /// What is wrong, where, and for an unknown key the nearest valid one.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let mut config: Self = toml::from_str(text).map_err(|e| format!("{}{}", e.to_string().trim_end(), nearest(e.message())))?;
        if config.enrollment.token.is_some() && config.enrollment.token_file.is_some() {
            return Err("enrollment: give either token or token_file, not both".to_owned());
        }
        if config.train.nice > 19 {
            return Err(format!("train.nice: {} is not between 0 and 19", config.train.nice));
        }
        if !(0.0..1.0).contains(&config.policy.corruption) {
            return Err(format!("policy.corruption: {} is not a share below 1", config.policy.corruption));
        }
        for (unit, budget) in &config.policy.budgets {
            budget.budget(*unit).map_err(|fault| format!("policy: {fault}"))?;
        }
        if config.serve.probe.is_zero() {
            return Err("serve.probe: it must be above 0".to_owned());
        }
        let paths = [
            Some(&mut config.trust),
            Some(&mut config.state_dir),
            config.enrollment.token_file.as_mut(),
            config.data.as_mut().and_then(|d| d.schema.as_mut()),
            config.runtime.library.as_mut(),
        ];
        for path in paths.into_iter().flatten() {
            *path = folder.join(&*path);
        }
        if let Some(data) = &mut config.data {
            data.source = data.source.clone().relative_to(folder);
        }
        Ok(config)
    }
}

/// For serde's "unknown field `x`, expected one of `a`, `b`": the nearest of the expected ones.
fn nearest(message: &str) -> String {
    if !message.starts_with("unknown field") {
        return String::new();
    }
    let mut words = message.split('`').skip(1).step_by(2);
    let Some(wrong) = words.next() else { return String::new() };
    let near = words.max_by(|a, b| strsim::jaro_winkler(wrong, a).total_cmp(&strsim::jaro_winkler(wrong, b)));
    near.map_or_else(String::new, |near| format!("\ndid you mean `{near}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "name = \"n1\"\ncoordinator = \"localhost:1\"\ntrust = \"t.toml\"\nstate_dir = \"s\"\n";

    fn parse(more: &str) -> Result<Config, String> {
        Config::parse(&format!("{LEAST}{more}"), Path::new("/etc/n"))
    }

    #[test]
    fn defaults_run_and_paths_are_relative_to_the_file() {
        let config = parse("").unwrap();
        assert!(config.data.is_none());
        assert_eq!(config.train.kind, Trainer::Model);
        assert!(config.serve.listen.ip().is_loopback());
        assert_eq!(config.state_dir, Path::new("/etc/n/s"));
        assert_eq!(parse("[data]\nsource = \"x\"").unwrap().data.unwrap().source.to_string(), "/etc/n/x");
        assert_eq!(parse("[data]\nsource = \"/x\"").unwrap().data.unwrap().source.to_string(), "/x");
        assert_eq!(parse("[data]\nsource = \"digits:3\"").unwrap().data.unwrap().source.to_string(), "digits:3");
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_valid_one() {
        let why = parse("[train]\nthread = 2").unwrap_err();
        assert!(why.contains("`thread`") && why.ends_with("did you mean `threads`?"), "{why}");
        let why = parse("[serv]").unwrap_err();
        assert!(why.ends_with("did you mean `serve`?"), "{why}");
    }

    #[test]
    fn bad_values_are_named() {
        assert!(parse("[train]\nnice = 20").unwrap_err().contains("train.nice"));
        assert!(parse("[train]\nmemory = \"much\"").unwrap_err().contains("512 MiB"));
        assert!(parse("[train]\nthreads = 0").is_err());
        assert!(parse("[enrollment]\ntoken = \"a\"\ntoken_file = \"b\"").unwrap_err().contains("not both"));
        assert!(Config::parse("name = \"../up\"", Path::new("")).is_err());
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!("512 MiB".parse(), Ok(Bytes(512 << 20)));
        assert_eq!("2GB".parse(), Ok(Bytes(2_000_000_000)));
        assert_eq!("7".parse(), Ok(Bytes(7)));
        for bad in ["", "MiB", "1 parsec", "-1", "99999999999 GiB"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_token_is_never_printed() {
        let config = parse("[enrollment]\ntoken = \"sw1.a.topsecret\"").unwrap();
        assert!(!format!("{config:?}").contains("topsecret"));
    }
}

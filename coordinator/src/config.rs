//! `coordinator.toml`: where to listen, where to keep things, and which keys to use.
//!
//! ```
//! use sapwood_coordinator::Config;
//! let config = Config::parse(r#"
//!     population = "trial"
//!     listen = "127.0.0.1:7443"
//!     public_names = ["localhost", "127.0.0.1"]   # what its certificate says
//!     data_dir = "data"
//!
//!     [keys]
//!     ca = "tls/ca.pem"
//!     ca_key = "tls/ca.key"
//!     certificate = "tls/coordinator.pem"
//!     key = "tls/coordinator.key"
//!     release_key = "release/key.p8"
//!     trust = "trust.toml"
//!     authority = "authority"        # left out where somebody else holds the authority's key
//!
//!     [limits]
//!     upload_memory = "96 MiB"       # of updates at once, besides the sum
//!     connections = 20000
//!
//!     [budgets.example]              # what all runs together may cost each example
//!     epsilon = 8.0
//!     delta = 1e-5
//!     ## key = "customer"             # of [budgets.entity] only: the column that tells entities apart
//!
//!     [release]
//!     class = "x86_64"               # left out: like this machine
//! "#, std::path::Path::new("/etc/sapwood"))?;
//! assert_eq!(config.keys.ca, std::path::Path::new("/etc/sapwood/tls/ca.pem"));
//! # Ok::<(), sapwood_coordinator::app::CoordinatorError>(())
//! ```

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use sapwood_protocol::{DeviceClass, PopulationId, time::span};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{app::CoordinatorError, ledgers::Budgets};

/// A coordinator's configuration. Relative paths count from the folder of its file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The fleet's name; the trust file must say the same.
    pub population: PopulationId,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names and addresses under which nodes reach it; they go into its certificate.
    #[serde(default = "local_names")]
    pub public_names: Vec<String>,
    /// The database and the objects. Created if it is not there; one coordinator at a time.
    pub data_dir: PathBuf,
    /// Keys and certificates.
    pub keys: Keys,
    /// How much at once.
    #[serde(default)]
    pub limits: Limits,
    /// How releases are built.
    #[serde(default)]
    pub release: Release,
    /// How long certificates last.
    #[serde(default)]
    pub certificates: Certificates,
    /// The privacy budgets of the population, by unit: `[budgets.example]`. Runs under a unit without one are refused.
    #[serde(default)]
    pub budgets: Budgets,
    /// The data folder comes from a backup: the privacy ledgers count what was reserved as spent. Not in the file, but said at the
    /// start that follows.
    #[serde(skip)]
    pub restored: bool,
}

/// `[keys]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// TLS authority, PEM.
    pub ca: PathBuf,
    /// Its key, PEM.
    pub ca_key: PathBuf,
    /// The coordinator's certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Signs releases: PKCS#8, DER or PEM.
    pub release_key: PathBuf,
    /// What nodes trust.
    pub trust: PathBuf,
    /// The enrolment authority's folder, where it lies beside the coordinator: for trials.
    pub authority: Option<PathBuf>,
}

/// `[limits]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory for updates on their way in, besides the sum; senders wait for it.
    #[serde(deserialize_with = "size")]
    pub upload_memory: usize,
    /// Open connections.
    pub connections: usize,
    /// How long a shutdown waits for calls under way.
    #[serde(with = "span")]
    pub drain: Duration,
}

/// `[release]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Release {
    /// Which devices releases are for; left out, those like this machine.
    pub class: Option<DeviceClass>,
    /// What measures a cold start: a command, with `{folder}` for the unpacked bundle. Left out, this program does.
    pub probe: Vec<String>,
    /// ONNX Runtime's library; left out, it is looked for where it is usually installed.
    pub runtime: Option<PathBuf>,
}

/// `[certificates]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Certificates {
    /// How long a node's certificate lasts; nodes renew two thirds into that.
    #[serde(with = "span")]
    pub node: Duration,
    /// How long the coordinator's own lasts.
    #[serde(with = "span")]
    pub coordinator: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { upload_memory: 96 << 20, connections: 20_000, drain: Duration::from_secs(5) }
    }
}

impl Default for Certificates {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self { node: 7 * DAY, coordinator: 90 * DAY }
    }
}

fn local_names() -> Vec<String> {
    ["localhost", "127.0.0.1", "::1"].map(String::from).to_vec()
}

/// `"96 MiB"`, `"64 KiB"`, or a number of bytes.
fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Size {
        Bytes(usize),
        Text(String),
    }
    let text = match Size::deserialize(deserializer)? {
        Size::Bytes(bytes) => return Ok(bytes),
        Size::Text(text) => text,
    };
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit.trim() {
        "" | "B" => Some(0),
        "KiB" => Some(10),
        "MiB" => Some(20),
        "GiB" => Some(30),
        _ => None,
    };
    let bytes = shift.and_then(|shift| number.parse::<usize>().ok()?.checked_mul(1 << shift));
    bytes.ok_or_else(|| D::Error::custom(format!("{text:?} is no size such as \"96 MiB\"")))
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`CoordinatorError::File`] with the line and the key that is wrong.
    pub fn read(path: &Path) -> Result<Self, CoordinatorError> {
        let wrong = |why: String| CoordinatorError::File { what: path.display().to_string(), why };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self::parse(&text, folder).map_err(|error| match error {
            CoordinatorError::File { why, .. } => wrong(why),
            other => other,
        })
    }

    /// From the text of a file that lies in `folder`.
    ///
    /// # Errors
    /// [`CoordinatorError::File`] with the line and the key that is wrong.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, CoordinatorError> {
        let wrong = |error: toml::de::Error| CoordinatorError::File { what: "coordinator.toml".into(), why: error.to_string() };
        let mut config: Self = toml::from_str(text).map_err(wrong)?;
        for (unit, budget) in &config.budgets {
            budget.budget(*unit).map_err(|fault| CoordinatorError::File { what: "coordinator.toml".into(), why: fault.to_string() })?;
        }
        let keys = &mut config.keys;
        let paths = [&mut keys.ca, &mut keys.ca_key, &mut keys.certificate, &mut keys.key, &mut keys.release_key, &mut keys.trust];
        for path in paths.into_iter().chain(&mut keys.authority).chain(&mut config.release.runtime).chain([&mut config.data_dir]) {
            *path = folder.join(&*path);
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
        population = \"trial\"\nlisten = \"127.0.0.1:0\"\ndata_dir = \"data\"\n
        [keys]\nca = \"a\"\nca_key = \"b\"\ncertificate = \"c\"\nkey = \"d\"\nrelease_key = \"e\"\ntrust = \"/f\"\n";

    #[test]
    fn what_is_left_out_has_a_default_that_runs() {
        let config = Config::parse(TEXT, Path::new("/here")).unwrap();
        assert_eq!((config.limits.upload_memory, config.public_names.len(), config.keys.authority), (96 << 20, 3, None));
        assert_eq!((config.data_dir, config.keys.trust), ("/here/data".into(), "/f".into()));
    }

    #[test]
    fn unknown_keys_and_wrong_sizes_are_named() {
        let wrong = |more: &str| Config::parse(&format!("{TEXT}{more}"), Path::new(".")).unwrap_err().to_string();
        assert!(wrong("[limits]\nupload_memry = 1\n").contains("upload_memry"));
        assert!(wrong("[limits]\nupload_memory = \"1 MB\"\n").contains("MiB"));
        assert!(wrong("[limits]\nupload_memory = \"99999999999999 GiB\"\n").contains("99999999999999"));
        let sized = Config::parse(&format!("{TEXT}[limits]\nupload_memory = \"64 KiB\"\n"), Path::new(".")).unwrap();
        assert_eq!(sized.limits.upload_memory, 64 << 10);
    }
}

//! The founding article's minimal manifest, as it stands.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Strategy;
use crate::{
    digest::Digest,
    ids::{DeviceClass, ModelName, Version},
};

/// The article's form. Keys that it does not name are kept and written back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArticleManifest {
    /// R60.
    pub model_name: ModelName,
    /// R61.
    pub version: Version,
    /// R62: SHA-256 of the exact bytes at `components.model_file`.
    pub checksum: Digest,
    /// R63.
    pub target_devices: Vec<DeviceClass>,
    /// R64: addresses by name; `model_file` must be there.
    pub components: BTreeMap<String, String>,
    /// R65–R67.
    pub rollout: ArticleRollout,
    /// Everything else.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// The article's rollout plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArticleRollout {
    /// R65.
    pub strategy: Strategy,
    /// R66.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canary_sites: Vec<String>,
    /// R67, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failure_pct: Option<f64>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

//! The small JSON documents in a bundle: what the model reads and answers, how its answers are used, what runs it.
//!
//! Each has a part and a digest of its own in the manifest, so that a change of a threshold or of a runtime setting is a new
//! release with the model unchanged (R42–R47).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use super::{
    bundle::{MODEL, PREPROCESS},
    postprocess::Postprocess,
};
use super::{fault::ReleaseFault, reference::RuntimeVersion};
use crate::{digest::Digest, fault::Fault};

/// Entry of [`Schema`].
pub const SCHEMA: &str = "schema.json";
/// Entry of [`Config`].
pub const CONFIG: &str = "config.json";
/// Entry of [`Runtime`].
pub const RUNTIME: &str = "runtime.json";
/// Entry of the text for people.
pub const CARD: &str = "card.md";

/// What a client sends and gets back (R43).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// `sapwood/schema/v1`.
    pub schema: String,
    /// Raw features: the input of `preprocess.onnx` where there is one, else of `model.onnx`.
    pub inputs: Vec<Field>,
    /// The outputs of `model.onnx`.
    pub outputs: Vec<Field>,
    /// What the data that trained it had to be, and what is sent to it has to be, too; none if the run named no schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<FeatureSchema>,
}

/// The schema of the run's data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureSchema {
    /// Which one; the manifest says the same.
    pub id: SchemaId,
    /// Names, types, ranges, units and nulls, in the schema's own form as JSON.
    pub schema: serde_json::Value,
}

/// Names a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaId {
    /// Its author's.
    pub version: u32,
    /// SHA-256 of the file that was submitted.
    pub digest: Digest,
}

/// One tensor, in the words of the Open Inference Protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Its name in the graph.
    pub name: String,
    /// `FP32`, `INT64`, …
    pub datatype: String,
    /// Its axes; -1 is an extent that each request chooses.
    pub shape: Vec<i64>,
}

/// How answers are used (R45).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `sapwood/config/v1`.
    pub schema: String,
    /// What becomes of the raw outputs.
    pub postprocess: Postprocess,
    /// Thresholds by name, for whoever acts on an answer.
    pub thresholds: BTreeMap<String, f64>,
    /// The manifest's `golden.tolerance`, for whoever has the bundle alone.
    pub golden_tolerance: f64,
}

/// What runs the model, and how it was made (R46–R48).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    /// `sapwood/runtime/v1`.
    pub schema: String,
    /// Oldest ONNX Runtime that will do.
    pub min_onnxruntime: RuntimeVersion,
    /// With which the candidate was measured.
    pub measured_onnxruntime: String,
    /// Of the graph.
    pub opset: i64,
    /// In order of preference, such as `cpu`.
    pub execution_providers: Vec<String>,
    /// Threads of one inference.
    pub threads: usize,
    /// What wrote the graph.
    pub exporter: String,
    /// How it was quantized; left out for a float model.
    pub quantizer: Option<Quantizer>,
}

/// Settings of the quantizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantizer {
    /// `QDQ`.
    pub format: String,
    /// Such as `uint8 per tensor, asymmetric`.
    pub activations: String,
    /// Such as `int8 per channel, symmetric`.
    pub weights: String,
    /// Such as `min-max`.
    pub calibration: String,
    /// Examples that calibrated it.
    pub calibration_examples: usize,
    /// The device class that it was made for.
    pub target: String,
    /// Operators that run in integers.
    pub quantized_nodes: usize,
    /// Operators that stayed float.
    pub float_nodes: Vec<String>,
}

/// A document as the bytes of its part: sorted keys, two spaces, a newline at the end.
pub fn to_bytes<T: Serialize>(document: &T) -> Vec<u8> {
    // A Value's object is a BTreeMap, hence sorted.
    let tree = serde_json::to_value(document).expect("documents have string keys and finite numbers");
    let mut bytes = serde_json::to_vec_pretty(&tree).expect("a tree of values always has a text");
    bytes.push(b'\n');
    bytes
}

/// A document from the bytes of its part; `name` appears in refusals.
pub fn from_bytes<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|e| ReleaseFault::Component { name: name.to_owned(), why: e.to_string() }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_survives_its_bytes_and_an_unknown_key_does_not() {
        let config = Config {
            schema: "sapwood/config/v1".into(),
            postprocess: Postprocess::Argmax { classes: 10 },
            thresholds: BTreeMap::from([("confidence".into(), 0.8)]),
            golden_tolerance: 0.05,
        };
        let bytes = to_bytes(&config);
        assert_eq!(from_bytes::<Config>(CONFIG, &bytes).unwrap(), config);
        let other = String::from_utf8(bytes).unwrap().replace("postprocess", "postproces");
        assert!(from_bytes::<Config>(CONFIG, other.as_bytes()).unwrap_err().to_string().contains("config.json"));
    }
}

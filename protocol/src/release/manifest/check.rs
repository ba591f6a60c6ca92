//! Reading and writing a manifest strictly.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ArticleManifest, Document, MAX_MANIFEST, Manifest, SCHEMA, Strategy};
use crate::{
    fault::Fault,
    release::{ReleaseFault, bundle},
};

fn fault(why: impl Into<String>) -> Fault {
    ReleaseFault::Manifest { why: why.into() }.into()
}

pub(super) fn document(bytes: &[u8]) -> Result<Document, Fault> {
    if bytes.len() > MAX_MANIFEST {
        return Err(fault(format!("{} bytes; at most {MAX_MANIFEST} are read", bytes.len())));
    }
    let tree = super::strict::parse(bytes).map_err(fault)?;
    let Value::Object(object) = &tree else { return Err(fault("not a JSON object")) };
    match object.get("schema") {
        None => {
            let manifest: ArticleManifest = typed(bytes)?;
            if !manifest.components.contains_key("model_file") {
                return Err(fault("components.model_file: missing"));
            }
            Ok(Document::Article(Box::new(manifest)))
        }
        Some(Value::String(schema)) if schema == SCHEMA => {
            let manifest: Manifest = typed(bytes)?;
            ours(&manifest)?;
            Ok(Document::Sapwood(Box::new(manifest)))
        }
        Some(other) => Err(fault(format!("schema: {other} is not {SCHEMA:?}; upgrade the older side"))),
    }
}

fn typed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut reader).map_err(|e| fault(format!("{}: {}", e.path(), e.inner())))
}

fn ours(manifest: &Manifest) -> Result<(), Fault> {
    if manifest.schema != SCHEMA {
        return Err(fault(format!("schema: not {SCHEMA:?}")));
    }
    if manifest.target_devices.is_empty() {
        return Err(fault("target_devices: name at least one class of devices"));
    }
    if manifest.rollout.strategy != Strategy::Rings {
        return Err(fault("rollout.strategy: this version carries out \"rings\" alone"));
    }
    if manifest.rollout.rings.is_empty() {
        return Err(fault("rollout.rings: name at least one ring"));
    }
    if !manifest.components.contains_key(bundle::MODEL) {
        return Err(fault(format!("components: {} is missing", bundle::MODEL)));
    }
    if manifest.provenance.data_sources.is_empty() {
        return Err(fault("provenance.data_sources: say what it was trained on"));
    }
    if !manifest.gates.pass() {
        return Err(fault("gates: one of them failed; such a candidate is never released"));
    }
    if manifest.golden.is_some_and(|golden| !(golden.tolerance.is_finite() && golden.tolerance >= 0.0)) {
        return Err(fault("golden.tolerance: not a distance"));
    }
    manifest.release()?;
    Ok(())
}

pub(super) fn canonical(manifest: &Manifest) -> Result<Vec<u8>, Fault> {
    let tree = serde_json::to_value(manifest).map_err(|e| fault(e.to_string()))?;
    let mut bytes = serde_json::to_vec_pretty(&sorted(tree)).map_err(|e| fault(e.to_string()))?;
    bytes.push(b'\n');
    // What was written is what was meant: this refuses infinite numbers, fractions of a second, and everything that a
    // reader would refuse.
    match document(&bytes)? {
        Document::Sapwood(read) if *read == *manifest => Ok(bytes),
        _ => Err(fault("it does not survive writing: a number is infinite, or a time has a fraction of a second")),
    }
}

/// Keys in byte order, whatever order serde_json's map keeps.
fn sorted(tree: Value) -> Value {
    match tree {
        Value::Object(map) => {
            let entries: BTreeMap<String, Value> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        leaf => leaf,
    }
}

/// A time as RFC 3339, to the second, in UTC.
pub(super) mod rfc3339 {
    use std::time::UNIX_EPOCH;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::time::Timestamp;

    pub(in super::super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || D::Error::custom(format!("{text:?} is not a time such as \"2026-11-18T12:26:40Z\""));
        let time = humantime::parse_rfc3339(&text).map_err(|_| wrong())?;
        let millis = time.duration_since(UNIX_EPOCH).map_err(|_| wrong())?.as_millis();
        u64::try_from(millis).map(Timestamp::from_millis).map_err(|_| wrong())
    }
}

//! Reading and writing a manifest strictly.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{ArticleManifest, Document, MAX_MANIFEST, Manifest, SCHEMA, Strategy};
use crate::{fault::Fault, release::ReleaseFault};

fn fault(why: impl Into<String>) -> Fault {
    ReleaseFault::Manifest { why: why.into() }.into()
}

pub(super) fn document(bytes: &[u8]) -> Result<Document, Fault> {
    if bytes.len() > MAX_MANIFEST {
        return Err(fault(format!("{} bytes; at most {MAX_MANIFEST} are read", bytes.len())));
    }
    // Duplicate keys would let two readers see two manifests under one signature, so the tree is not read by serde_json's map.
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

fn typed<T: DeserializeOwned>(_bytes: &[u8]) -> Result<T, Fault> {
    Err(fault("unreadable"))
}

fn ours(manifest: &Manifest) -> Result<(), Fault> {
    if manifest.rollout.strategy != Strategy::Rings {
        return Err(fault("rollout.strategy: this version carries out \"rings\" alone"));
    }
    Ok(())
}

pub(super) fn canonical<T: Serialize>(value: &T) -> Result<Vec<u8>, Fault> {
    // A Value's object is a BTreeMap, hence sorted.
    let tree = serde_json::to_value(value).map_err(|e| fault(e.to_string()))?;
    let mut bytes = serde_json::to_vec_pretty(&tree).map_err(|e| fault(e.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
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

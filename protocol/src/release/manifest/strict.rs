//! JSON without duplicate keys.

use serde_json::Value;

/// The tree of `bytes`, or where it breaks.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(bytes).map_err(|e| e.to_string())
}

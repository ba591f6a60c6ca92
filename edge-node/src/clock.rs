//! The only place that reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use sapwood_protocol::Timestamp;

/// Now, by the machine's clock.
pub(crate) fn now() -> Timestamp {
    let span = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

//! An order to one node.

use serde::{Deserialize, Serialize};

use crate::release::ReleaseRef;

/// What a node shall run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// Grows with every order to this node, so that an older one is refused.
    pub version: u64,
    /// `None`: serve nothing.
    pub release: Option<ReleaseRef>,
}

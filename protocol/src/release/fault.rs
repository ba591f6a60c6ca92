//! What can be wrong with a release, by name.

use thiserror::Error;

use crate::{
    digest::Digest,
    fault::{Fault, Misbehaviour},
};

/// Why a release was refused. Whoever handed it over is at fault.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ReleaseFault {
    /// Too few trusted keys have signed these bytes.
    #[error("{what}: {valid} of {threshold} needed signatures by trusted keys hold; it was changed, or signed by others; do not use it")]
    Signature {
        /// `manifest` or `bundle`.
        what: &'static str,
        /// Distinct trusted keys that signed.
        valid: usize,
        /// How many must have.
        threshold: usize,
    },
    /// The manifest cannot be read.
    #[error("manifest: {why}")]
    Manifest {
        /// Names the field.
        why: String,
    },
    /// The bundle is not the one that the manifest describes.
    #[error("bundle: the manifest's checksum is {expected}, these bytes are {actual}")]
    Checksum {
        /// By the manifest.
        expected: Digest,
        /// Of the bytes.
        actual: Digest,
    },
    /// The archive breaks a rule.
    #[error("bundle entry {entry:?}: {why}")]
    Entry {
        /// As the archive names it.
        entry: String,
        /// Which rule.
        why: String,
    },
    /// The archive cannot be read.
    #[error("bundle: {why}")]
    Bundle {
        /// Where it breaks.
        why: String,
    },
    /// A part is missing, surplus or different.
    #[error("component {name:?}: {why}")]
    Component {
        /// Which part.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Golden examples that cannot be read.
    #[error("golden examples, {name}: {why}")]
    Golden {
        /// Which array.
        name: String,
        /// Where it breaks.
        why: String,
    },
}

impl From<ReleaseFault> for Fault {
    fn from(fault: ReleaseFault) -> Self {
        Misbehaviour::Release(fault).into()
    }
}

use std::{io, path::PathBuf};

use sapwood_protocol::Fault;
use thiserror::Error;

/// Why keys or certificates could not be made, read or believed.
#[derive(Debug, Error)]
pub enum PkiError {
    /// A file or folder of the deployment.
    #[error("{} cannot be {doing}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What was tried, as a participle.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The folder holds something else.
    #[error("{} is not empty and no deployment: nothing was written; name a folder that does not exist yet", path.display())]
    Occupied {
        /// Which.
        path: PathBuf,
    },
    /// The folder holds another deployment.
    #[error("{} is the deployment of population {found}, not {asked}: nothing was written; name another folder", path.display())]
    OtherPopulation {
        /// Which folder.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose was to be founded.
        asked: String,
    },
    /// A key or certificate that cannot be used.
    #[error("{what} cannot be used: {why}; restore the file from a backup, or found the deployment anew")]
    Unusable {
        /// Which.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// A certificate request that is not signed with the key it asks for, or asks for a key that we do not certify.
    #[error("the certificate request is refused: {why}")]
    Request {
        /// What is wrong.
        why: String,
    },
    /// A certificate that names nobody of ours.
    #[error("the certificate names no member: {why}")]
    Identity {
        /// What is wrong.
        why: String,
    },
    /// The library failed at something that only a lack of randomness or a wrong parameter can cause.
    #[error("{what} could not be made: {why}")]
    Generate {
        /// What.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// A refusal by the rules of enrolment.
    #[error(transparent)]
    Refused(#[from] Fault),
}

impl PkiError {
    pub(crate) fn generate(what: &'static str) -> impl FnOnce(rcgen::Error) -> Self {
        move |e| Self::Generate { what, why: e.to_string() }
    }

    pub(crate) fn unusable(what: &'static str, why: impl ToString) -> Self {
        Self::Unusable { what, why: why.to_string() }
    }

    pub(crate) fn request(why: impl ToString) -> Self {
        Self::Request { why: why.to_string() }
    }
}

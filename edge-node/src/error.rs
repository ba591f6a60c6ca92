//! Why a node ends.

use sapwood_failpoint::Killed;
use sapwood_protocol::Fault;

use crate::{config::ConfigError, identity::IdentityError, link::LinkError, store::StoreError};

/// Why a node ends other than by being asked to. A coordinator that is away is never a reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The trust file.
    #[error("{}: {why}", path.display())]
    Trust {
        /// Which file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The enrolment token.
    #[error("the enrolment token cannot be used: {why}")]
    Token {
        /// Why. Never the token.
        why: String,
    },
    /// Keys, certificate, membership.
    #[error(transparent)]
    Identity(IdentityError),
    /// The node's memory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The way to the coordinator.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The protocol.
    #[error(transparent)]
    Protocol(#[from] Fault),
    /// Training cannot be set up.
    #[error("the training threads cannot be started; lower train.threads")]
    Threads(#[source] rayon::ThreadPoolBuildError),
    /// The inference server's address.
    #[error("the inference server cannot listen at {address}; choose another serve.listen")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The folder for releases.
    #[error("{} cannot be used", path.display())]
    Disk {
        /// Where.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// In a simulation only.
    #[error(transparent)]
    Killed(#[from] Killed),
}

impl From<IdentityError> for NodeError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Killed(killed) => killed.into(),
            other => Self::Identity(other),
        }
    }
}

//! A fresh TLS certificate for the same identity.

use sapwood_proto::v1;
use sapwood_protocol::NodeId;

use super::{Enrolled, IdentityError, keys::TlsKey};
use crate::link::{CallError, Link};

/// Why a renewal came to nothing; the certificate in use stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The coordinator did not give one.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It gave one that cannot be used, or it cannot be kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No key can be made.
    #[error("no key for a certificate can be made: {0}")]
    Key(#[from] rcgen::Error),
}

/// Gets a certificate for a fresh key, and switches to it in one step.
///
/// # Errors
/// [`RenewError`]; then the old certificate stays in use, and it is worth trying again until it ends.
pub async fn renew(enrolled: &Enrolled, node: &NodeId, link: &Link) -> Result<(), RenewError> {
    let key = TlsKey::generate()?;
    let reply = link.renew(v1::RenewRequest { certificate_request: key.request(node)?.into() }).await?;
    let certified = key.certified(&reply.certificates).map_err(IdentityError::Answer)?;
    tracing::info!(until = %certified.not_after(), "the TLS certificate is renewed");
    Ok(enrolled.switch(certified)?)
}

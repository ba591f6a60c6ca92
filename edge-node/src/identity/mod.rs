//! Who the node is: an Ed25519 identity for life, the authority's word that it belongs, and a TLS certificate that rotates
//! beneath them.
//!
//! Everything lies in one folder, readable by the owner alone:
//!
//! | file | since | what |
//! |---|---|---|
//! | `identity.p8` | first start | the Ed25519 key, for life |
//! | `enrolling.p8` | first start | the TLS key of the enrolment under way |
//! | `enrolling.request` | first start | the request as sent; holds the token's proof, not its secret |
//! | `membership.json` | the authority's answer | its signed statement |
//! | `tls.pem` | the authority's answer | the TLS key and its certificates, in one file so that they change together |
//!
//! They are written in this order, each with fsync and rename. So a crash leaves a prefix, from which the next start goes on
//! with the same keys; whatever is no prefix was cut by something else and is refused.

mod enroll;
mod keys;
mod renew;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use sapwood_failpoint::Killed;
use sapwood_privacy::secagg::{self, Signer};
use sapwood_protocol::{
    Fault, NodeId,
    membership::{Identity, SignedMembership},
    trust::TrustFile,
};

use self::keys::TlsKey;
pub use self::{
    enroll::{Enrolling, enroll},
    keys::Certified,
    renew::{RenewError, renew},
};
use crate::{
    files,
    link::{Credentials, LinkError},
    points::{ENROLLED, KEYS_STORED, MEMBERSHIP_STORED, RENEWED},
};

/// Why there is no identity to go on with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A part is missing that was written before a part that is there.
    #[error("{} is there without {missing}: the folder was cut in half; restore it whole, or remove it and enrol again under a new token", found.display())]
    HalfWritten {
        /// A part that is there.
        found: PathBuf,
        /// The one that is not.
        missing: &'static str,
    },
    /// A part that cannot be read.
    #[error("{} is damaged: {why}; restore the folder, or remove it and enrol again under a new token", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How.
        why: String,
    },
    /// The state folder of another node, or of another population.
    #[error("{} belongs to node {stored} of {population}, but the configuration says {configured}; use a state folder for each node", folder.display())]
    OtherNode {
        /// The folder.
        folder: PathBuf,
        /// Whose it is.
        stored: NodeId,
        /// Of which population.
        population: String,
        /// Who the configuration says we are.
        configured: NodeId,
    },
    /// Nothing to enrol with.
    #[error("this node is not enrolled and has no token; ask the fleet's operator for one and give it as enrollment.token_file")]
    NoToken,
    /// The authority or the coordinator said no.
    #[error("enrolment was refused: {why}")]
    Refused {
        /// In its words.
        why: String,
    },
    /// Something that was answered does not hold.
    #[error("the answer to the enrolment or renewal does not hold: {0}")]
    Answer(#[from] Fault),
    /// The file system refuses.
    #[error("{} cannot be read or written", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No way to the coordinator that time would heal.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// In a simulation only.
    #[error(transparent)]
    Killed(#[from] Killed),
}

const IDENTITY: &str = "identity.p8";
const ENROLLING_KEY: &str = "enrolling.p8";
const ENROLLING_REQUEST: &str = "enrolling.request";
const MEMBERSHIP: &str = "membership.json";
const TLS: &str = "tls.pem";

/// What a folder holds.
pub enum Found {
    /// Keys, but no certificate yet.
    Enrolling(Enrolling),
    /// All of it.
    Enrolled(Enrolled),
}

/// A node of the population.
pub struct Enrolled {
    folder: Folder,
    identity: Identity,
    membership: SignedMembership,
    tls: ArcSwap<Certified>,
}

impl Enrolled {
    /// The authority's statement.
    pub fn membership(&self) -> &SignedMembership {
        &self.membership
    }
    /// The identity key, for the round protocol.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
    /// What to show in the next TLS handshake.
    pub fn credentials(&self) -> Credentials {
        self.tls.load().credentials()
    }
    /// The certificate in use.
    pub fn certified(&self) -> Arc<Certified> {
        self.tls.load_full()
    }

    /// Takes a renewed certificate into use: on disk first, in one step.
    fn switch(&self, renewed: Certified) -> Result<(), IdentityError> {
        self.folder.write(TLS, renewed.to_pem().as_bytes())?;
        RENEWED.reached()?;
        self.tls.store(Arc::new(renewed));
        Ok(())
    }
}

impl Signer for Enrolled {
    fn identity(&self) -> secagg::IdentityKey {
        Signer::identity(&self.identity)
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        Signer::sign(&self.identity, message)
    }
}

/// Opens the identity in `folder`, making keys if there are none.
///
/// # Errors
/// [`IdentityError::HalfWritten`], [`IdentityError::Damaged`], [`IdentityError::OtherNode`]: nothing is overwritten then.
pub fn open(folder: &Path, node: &NodeId, trust: &TrustFile) -> Result<Found, IdentityError> {
    let folder = Folder(folder.to_owned());
    files::private_folder(&folder.0).map_err(|source| IdentityError::File { path: folder.0.clone(), source })?;
    let [identity, membership, tls] = [folder.read(IDENTITY)?, folder.read(MEMBERSHIP)?, folder.read(TLS)?];
    let half = |found, missing| Err(IdentityError::HalfWritten { found: folder.path(found), missing });
    match (identity, membership, tls) {
        (None, Some(_), _) => half(MEMBERSHIP, IDENTITY),
        (None, _, Some(_)) => half(TLS, IDENTITY),
        (_, None, Some(_)) => half(TLS, MEMBERSHIP),
        (Some(identity), Some(membership), Some(tls)) => {
            let identity = folder.identity(&identity)?;
            let membership = folder.membership(&membership, &identity, node, trust)?;
            let certified = Certified::from_pem(&tls).map_err(|why| folder.damaged(TLS, why))?;
            // Left by a crash after the last step.
            for done in [ENROLLING_KEY, ENROLLING_REQUEST] {
                folder.remove(done)?;
            }
            Ok(Found::Enrolled(Enrolled { folder, identity, membership, tls: ArcSwap::from_pointee(certified) }))
        }
        (identity, _, None) => {
            if identity.is_none() && folder.read(ENROLLING_KEY)?.is_some() {
                return half(ENROLLING_KEY, IDENTITY);
            }
            Ok(Found::Enrolling(folder.keys(identity)?))
        }
    }
}

struct Folder(PathBuf);

impl Folder {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, IdentityError> {
        files::read(&self.path(name)).map_err(|source| IdentityError::File { path: self.path(name), source })
    }
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), IdentityError> {
        files::replace(&self.path(name), bytes).map_err(|source| IdentityError::File { path: self.path(name), source })
    }
    fn remove(&self, name: &str) -> Result<(), IdentityError> {
        files::remove(&self.path(name)).map_err(|source| IdentityError::File { path: self.path(name), source })
    }
    fn damaged(&self, name: &str, why: impl ToString) -> IdentityError {
        IdentityError::Damaged { path: self.path(name), why: why.to_string() }
    }

    fn identity(&self, der: &[u8]) -> Result<Identity, IdentityError> {
        Identity::from_pkcs8(der).map_err(|fault| self.damaged(IDENTITY, fault))
    }

    /// Both keys, made where there are none.
    fn keys(self, identity: Option<Vec<u8>>) -> Result<Enrolling, IdentityError> {
        let identity = if let Some(der) = identity {
            self.identity(&der)?
        } else {
            let der = Identity::generate(&ring::rand::SystemRandom::new())?;
            self.write(IDENTITY, &der)?;
            self.identity(&der)?
        };
        let tls = if let Some(der) = self.read(ENROLLING_KEY)? {
            TlsKey::from_pkcs8(&der).map_err(|why| self.damaged(ENROLLING_KEY, why))?
        } else {
            let tls = TlsKey::generate().map_err(|why| self.damaged(ENROLLING_KEY, why))?;
            self.write(ENROLLING_KEY, tls.pkcs8())?;
            tls
        };
        KEYS_STORED.reached()?;
        Ok(Enrolling { folder: self, identity, tls })
    }

    fn membership(&self, json: &[u8], identity: &Identity, node: &NodeId, trust: &TrustFile) -> Result<SignedMembership, IdentityError> {
        let membership: SignedMembership = serde_json::from_slice(json).map_err(|e| self.damaged(MEMBERSHIP, e))?;
        let statement = &membership.statement;
        if statement.node != *node || statement.population != trust.population {
            return Err(IdentityError::OtherNode {
                folder: self.0.clone(),
                stored: statement.node.clone(),
                population: statement.population.to_string(),
                configured: node.clone(),
            });
        }
        // Only whether it was ever valid: an expired statement, or a wrong clock, must not stop a node that serves.
        membership.verify(&trust.authority, &trust.population, statement.issued).map_err(|fault| self.damaged(MEMBERSHIP, fault))?;
        if statement.identity != identity.key() {
            return Err(self.damaged(MEMBERSHIP, format!("it is for another identity than {IDENTITY}")));
        }
        Ok(membership)
    }

    /// The last steps of an enrolment: the certificate is what makes it done.
    fn enrolled(self, identity: Identity, membership: SignedMembership, certified: Certified) -> Result<Enrolled, IdentityError> {
        let json = serde_json::to_vec_pretty(&membership).map_err(|e| self.damaged(MEMBERSHIP, e))?;
        self.write(MEMBERSHIP, &json)?;
        MEMBERSHIP_STORED.reached()?;
        self.write(TLS, certified.to_pem().as_bytes())?;
        ENROLLED.reached()?;
        for done in [ENROLLING_KEY, ENROLLING_REQUEST] {
            self.remove(done)?;
        }
        Ok(Enrolled { folder: self, identity, membership, tls: ArcSwap::from_pointee(certified) })
    }
}

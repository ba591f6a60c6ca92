//! What the enrolment authority signs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Identity, IdentityKey, IdentitySignature};
use crate::{
    fault::{Expiry, Fault, Misbehaviour},
    ids::{NodeId, PopulationId},
    time::Timestamp,
};

/// The authority's word that an identity is a node of a population.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Which fleet.
    pub population: PopulationId,
    /// Under which name.
    pub node: NodeId,
    /// Its identity in the round protocol.
    pub identity: IdentityKey,
    /// What its operator says about it, such as `ring = "canary"`.
    pub labels: BTreeMap<String, String>,
    /// When.
    pub issued: Timestamp,
    /// Until when.
    pub expires: Timestamp,
}

/// A membership and the authority's signature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedMembership {
    /// What is said.
    pub statement: Membership,
    /// Over the statement's canonical bytes.
    pub signature: IdentitySignature,
}

impl Membership {
    /// Signs it with the authority's key.
    pub fn sign(self, authority: &Identity) -> SignedMembership {
        let signature = authority.sign(&self.canonical());
        SignedMembership { statement: self, signature }
    }
    fn canonical(&self) -> Vec<u8> {
        let issued = self.issued.millis().to_le_bytes();
        let expires = self.expires.millis().to_le_bytes();
        let mut parts: Vec<&[u8]> =
            vec![self.population.as_str().as_bytes(), self.node.as_str().as_bytes(), self.identity.as_bytes(), &issued, &expires];
        for (key, value) in &self.labels {
            parts.extend([key.as_bytes(), value.as_bytes()]);
        }
        fields(b"sapwood/membership/v1", &parts)
    }
}

impl SignedMembership {
    /// The statement, if `authority` signed it for `population` and it holds at `now`.
    pub fn verify(&self, authority: &IdentityKey, population: &PopulationId, now: Timestamp) -> Result<&Membership, Fault> {
        if !authority.verify(&self.statement.canonical(), &self.signature) {
            return Err(Misbehaviour::Signature { what: "the membership", by: "the enrolment authority" }.into());
        }
        if self.statement.population != *population {
            let certificate = format!("population {}", self.statement.population);
            return Err(Misbehaviour::WrongIdentity { certificate, message: format!("population {population}") }.into());
        }
        if now >= self.statement.expires {
            return Err(Expiry::Statement { what: "the membership", at: self.statement.expires }.into());
        }
        Ok(&self.statement)
    }
}

/// A purpose and fields, each behind its length, so that no two lists of fields give the same bytes.
pub(super) fn fields(purpose: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in std::iter::once(&purpose).chain(parts) {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

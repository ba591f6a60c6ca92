//! What the enrolment authority signs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Identity, IdentityKey, IdentitySignature};
use crate::{
    canonical::Canonical,
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
        Canonical::new("sapwood/membership/v1")
            .str(self.population.as_str())
            .str(self.node.as_str())
            .bytes(self.identity.as_bytes())
            .list(self.labels.iter(), |bytes, (key, value)| bytes.str(key).str(value))
            .u64(self.issued.millis())
            .u64(self.expires.millis())
            .finish()
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

//! One-time enrolment tokens.

use std::{fmt, str::FromStr};

use ring::hmac;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{Identity, IdentityKey, IdentitySignature};
use crate::{
    canonical::Canonical,
    digest::{from_hex, to_hex},
    fault::{Fault, Misbehaviour, Misuse},
    ids::{NodeId, PopulationId, TokenId},
    machine::Secrets,
};

const PREFIX: &str = "sw1";

/// A one-time token: a public name, and a secret that only the operator and one node know. Printed once, as `sw1.<id>.<secret>`.
#[derive(Clone)]
pub struct Token {
    id: TokenId,
    secret: Secret,
}

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
struct Secret([u8; 32]);

/// What a node wants bound together by its membership.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Which fleet.
    pub population: PopulationId,
    /// Under which name.
    pub node: NodeId,
    /// Its identity in the round protocol.
    pub identity: IdentityKey,
    /// Its TLS public key, SubjectPublicKeyInfo DER.
    pub tls: Vec<u8>,
}

/// HMAC-SHA256 of a claim under a token's secret; as text 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Proof([u8; 32]);

impl Token {
    /// A new token.
    pub fn generate(secrets: &mut dyn Secrets) -> Self {
        let mut id = [0; 8];
        secrets.fill(&mut id);
        let mut secret = Secret([0; 32]);
        secrets.fill(&mut secret.0);
        Self { id: to_hex(&id).parse().expect("hexadecimal digits are a name"), secret }
    }
    /// The public part.
    pub fn id(&self) -> &TokenId {
        &self.id
    }
    /// The printed form. It holds the secret: show it once, to the operator.
    pub fn reveal(&self) -> Zeroizing<String> {
        let hex = Zeroizing::new(to_hex(&self.secret.0));
        Zeroizing::new(format!("{PREFIX}.{}.{}", self.id, *hex))
    }
    /// Shows the authority that whoever makes this claim holds the token.
    pub fn prove(&self, claim: &Claim) -> Proof {
        let tag = hmac::sign(&self.key(), &claim.canonical(&self.id));
        Proof(tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes"))
    }
    /// Checks a proof, in constant time.
    pub fn check(&self, claim: &Claim, proof: &Proof) -> Result<(), Fault> {
        hmac::verify(&self.key(), &claim.canonical(&self.id), &proof.0)
            .map_err(|_| Misbehaviour::Signature { what: "the enrolment claim", by: "the holder of the token" }.into())
    }
    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.secret.0)
    }
}

impl Claim {
    /// Shows that whoever makes this claim also holds the identity's key: nobody can claim another's.
    pub fn sign(&self, token: &TokenId, identity: &Identity) -> IdentitySignature {
        identity.sign(&self.possession(token))
    }
    /// Checks [`Claim::sign`] against the identity in the claim.
    pub fn check_signature(&self, token: &TokenId, signature: &IdentitySignature) -> Result<(), Fault> {
        if self.identity.verify(&self.possession(token), signature) {
            return Ok(());
        }
        Err(Misbehaviour::Signature { what: "the enrolment claim", by: "the identity that it names" }.into())
    }
    fn possession(&self, token: &TokenId) -> Vec<u8> {
        Canonical::new("sapwood/enrolment-possession/v1").bytes(&self.canonical(token)).finish()
    }
    /// The bytes that a proof covers.
    fn canonical(&self, token: &TokenId) -> Vec<u8> {
        Canonical::new("sapwood/enrolment-claim/v1")
            .str(token.as_str())
            .str(self.population.as_str())
            .str(self.node.as_str())
            .bytes(self.identity.as_bytes())
            .bytes(&self.tls)
            .finish()
    }
}

impl FromStr for Token {
    type Err = Fault;
    /// The message never repeats the text: it may hold a secret.
    fn from_str(text: &str) -> Result<Self, Fault> {
        let fault =
            || Fault::from(Misuse::Setting { key: "enrolment token".into(), why: "expected sw1.<id>.<64 hexadecimal digits>".into() });
        let mut parts = text.trim().split('.');
        let (Some(PREFIX), Some(id), Some(secret), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(fault());
        };
        let id = id.parse().map_err(|_| fault())?;
        let secret = Secret(from_hex("enrolment token", secret).map_err(|_| fault())?);
        Ok(Self { id, secret })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, secret withheld)", self.id)
    }
}

impl Proof {
    /// From the raw bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<String> for Proof {
    type Error = Fault;
    fn try_from(text: String) -> Result<Self, Fault> {
        from_hex("enrolment proof", &text).map(Self)
    }
}

impl From<Proof> for String {
    fn from(proof: Proof) -> Self {
        to_hex(&proof.0)
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proof({}…)", to_hex(&self.0[..6]))
    }
}

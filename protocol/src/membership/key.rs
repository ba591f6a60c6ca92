//! Ed25519 identities: of nodes, and of the enrolment authority.

use std::{fmt, str::FromStr};

use ring::{
    rand::SecureRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    digest::{from_hex, to_hex},
    fault::{Fault, Lack, Misuse},
};

const PREFIX: &str = "ed25519:";

/// A public Ed25519 key; as text `ed25519:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdentityKey([u8; 32]);

impl IdentityKey {
    /// From the raw key.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The raw key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// Whether `signature` is this key's, of `message`.
    pub fn verify(&self, message: &[u8], signature: &IdentitySignature) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, &signature.0).is_ok()
    }
}

impl FromStr for IdentityKey {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self, Fault> {
        let hex = text
            .strip_prefix(PREFIX)
            .ok_or_else(|| Misuse::Setting { key: "identity key".into(), why: format!("expected {PREFIX:?} and 64 hexadecimal digits") })?;
        from_hex("identity key", hex).map(Self)
    }
}

impl TryFrom<String> for IdentityKey {
    type Error = Fault;
    fn try_from(text: String) -> Result<Self, Fault> {
        text.parse()
    }
}

impl From<IdentityKey> for String {
    fn from(key: IdentityKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", to_hex(&self.0))
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}…", to_hex(&self.0[..6]))
    }
}

/// An Ed25519 signature; as text 128 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdentitySignature([u8; 64]);

impl IdentitySignature {
    /// From the raw signature.
    pub fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }
    /// The raw signature.
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl TryFrom<String> for IdentitySignature {
    type Error = Fault;
    fn try_from(text: String) -> Result<Self, Fault> {
        from_hex("identity signature", &text).map(Self)
    }
}

impl From<IdentitySignature> for String {
    fn from(signature: IdentitySignature) -> Self {
        to_hex(&signature.0)
    }
}

impl fmt::Debug for IdentitySignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentitySignature({}…)", to_hex(&self.0[..6]))
    }
}

/// A private Ed25519 identity. Never printed.
pub struct Identity {
    pair: Ed25519KeyPair,
}

impl Identity {
    /// A new key as PKCS#8 DER (version 2), drawn from `random`.
    pub fn generate(random: &dyn SecureRandom) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let document = Ed25519KeyPair::generate_pkcs8(random)
            .map_err(|_| Fault::from(Lack::Resource { what: "random generator", why: "no random bytes for a key".into() }))?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }
    /// From PKCS#8 DER (version 2, as [`Identity::generate`] writes it).
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, Fault> {
        let pair = Ed25519KeyPair::from_pkcs8(der).map_err(|_| {
            Fault::from(Misuse::Setting { key: "identity".into(), why: "not an Ed25519 private key in PKCS#8 form".into() })
        })?;
        Ok(Self { pair })
    }
    /// The other half.
    pub fn key(&self) -> IdentityKey {
        IdentityKey(self.pair.public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes"))
    }
    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> IdentitySignature {
        IdentitySignature(self.pair.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity(of {:?})", self.key())
    }
}

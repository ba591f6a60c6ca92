//! ECDSA P-256 with SHA-256 and ASN.1 DER signatures: the one kind that `openssl dgst`, OpenSSF model signing, TUF clients
//! and hardware tokens all take. Ed25519 is not (`openssl dgst` refuses it), so it stays inside the round protocol.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    rand::SecureRandom,
    signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::pem;
use crate::{
    digest::Digest,
    fault::{Fault, Lack, Misuse},
};

const PRIVATE_LABEL: &str = "PRIVATE KEY";
const PUBLIC_LABEL: &str = "PUBLIC KEY";

/// SubjectPublicKeyInfo of an uncompressed P-256 point, up to the point (RFC 5480 §2).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
    0x07, 0x03, 0x42, 0x00,
];
/// 0x04, x, y.
const POINT: usize = 65;
/// The longest DER form of two 256-bit integers.
const MAX_SIGNATURE: usize = 72;

/// A detached signature, ASN.1 DER; base64 in JSON, raw in a `.sig` file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signature(Vec<u8>);

impl Signature {
    /// From the bytes of a `.sig` file.
    pub fn from_der(der: &[u8]) -> Result<Self, Fault> {
        if der.is_empty() || der.len() > MAX_SIGNATURE {
            return Err(Misuse::Setting {
                key: "signature".into(),
                why: format!("{} bytes are no P-256 signature in DER (at most {MAX_SIGNATURE})", der.len()),
            }
            .into());
        }
        Ok(Self(der.to_vec()))
    }
    /// The bytes of a `.sig` file.
    pub fn as_der(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<String> for Signature {
    type Error = Fault;
    fn try_from(text: String) -> Result<Self, Fault> {
        let der = STANDARD.decode(&text).map_err(|_| Misuse::Setting { key: "signature".into(), why: "not base64".into() })?;
        Self::from_der(&der)
    }
}

impl From<Signature> for String {
    fn from(signature: Signature) -> Self {
        STANDARD.encode(&signature.0)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", STANDARD.encode(&self.0))
    }
}

/// A private release key. Never printed; the key material is wiped by whoever holds the PKCS#8 bytes.
pub struct SigningKey {
    pair: EcdsaKeyPair,
}

impl SigningKey {
    /// A new key as PKCS#8 DER, drawn from `random`.
    pub fn generate(random: &dyn SecureRandom) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, random).map_err(|_| lack("no random bytes for a key"))?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }
    /// From PKCS#8 DER. ring needs `random` to check the pair.
    pub fn from_pkcs8(der: &[u8], random: &dyn SecureRandom) -> Result<Self, Fault> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, random).map_err(|_| Misuse::Setting {
            key: "release key".into(),
            why: "not a P-256 private key in PKCS#8 form; `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` makes one"
                .into(),
        })?;
        Ok(Self { pair })
    }
    /// From a `PRIVATE KEY` PEM.
    pub fn from_pem(text: &str, random: &dyn SecureRandom) -> Result<Self, Fault> {
        Self::from_pkcs8(&pem::decode(PRIVATE_LABEL, text)?, random)
    }
    /// PKCS#8 DER as PEM, for a file that only its owner may read.
    pub fn to_pem(pkcs8: &[u8]) -> Zeroizing<String> {
        pem::encode(PRIVATE_LABEL, pkcs8)
    }
    /// The other half.
    pub fn verifying_key(&self) -> VerifyingKey {
        let point = self.pair.public_key().as_ref().try_into().expect("a P-256 point has 65 bytes");
        VerifyingKey { point }
    }
    /// Signs `message`.
    pub fn sign(&self, message: &[u8], random: &dyn SecureRandom) -> Result<Signature, Fault> {
        let signature = self.pair.sign(random, message).map_err(|_| lack("no random bytes for a signature"))?;
        Ok(Signature(signature.as_ref().to_vec()))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.verifying_key().id())
    }
}

fn lack(why: &str) -> Fault {
    Lack::Resource { what: "random generator", why: why.to_owned() }.into()
}

/// A public release key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VerifyingKey {
    point: [u8; POINT],
}

impl VerifyingKey {
    /// From an uncompressed point.
    pub fn from_point(point: &[u8]) -> Result<Self, Fault> {
        let length = Misuse::Length { what: "P-256 point", expected: POINT, actual: point.len() };
        let point: [u8; POINT] = point.try_into().map_err(|_| length)?;
        if point[0] != 4 {
            return Err(Misuse::Setting { key: "release key".into(), why: "its point is not uncompressed".into() }.into());
        }
        Ok(Self { point })
    }
    /// From a `PUBLIC KEY` PEM (SubjectPublicKeyInfo).
    pub fn from_pem(text: &str) -> Result<Self, Fault> {
        let der = pem::decode(PUBLIC_LABEL, text)?;
        let point = der.strip_prefix(&SPKI_PREFIX).ok_or_else(|| Misuse::Setting {
            key: "release key".into(),
            why: "not a P-256 public key with an uncompressed point".into(),
        })?;
        Self::from_point(point)
    }
    /// The SubjectPublicKeyInfo as PEM; what `openssl dgst -verify` reads.
    pub fn to_pem(&self) -> String {
        pem::encode(PUBLIC_LABEL, &[SPKI_PREFIX.as_slice(), &self.point].concat()).to_string()
    }
    /// SHA-256 of the PEM text, as OpenSSF model signing names a key.
    pub fn id(&self) -> Digest {
        Digest::of(self.to_pem().as_bytes())
    }
    /// Whether `signature` is this key's, of `message`.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.point).verify(message, &signature.0).is_ok()
    }
}

impl TryFrom<String> for VerifyingKey {
    type Error = Fault;
    fn try_from(text: String) -> Result<Self, Fault> {
        Self::from_pem(&text)
    }
}

impl From<VerifyingKey> for String {
    fn from(key: VerifyingKey) -> Self {
        key.to_pem()
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.id())
    }
}

#[cfg(test)]
pub(crate) mod tests;

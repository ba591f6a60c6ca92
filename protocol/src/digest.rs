//! SHA-256 digests: how everything that travels is named and checked.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Misuse};

/// SHA-256 of some bytes; as text `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }
    /// A digest that is known already.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// The hexadecimal digits alone: a safe file name.
    pub fn hex(&self) -> String {
        to_hex(&self.0)
    }
    /// The first 12 digits, for people.
    pub fn short(&self) -> String {
        to_hex(&self.0[..6])
    }
}

/// A digest in the making.
pub struct Hasher(ring::digest::Context);

impl Default for Hasher {
    fn default() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }
}

impl Hasher {
    /// More bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    /// The digest of all bytes so far.
    pub fn finish(self) -> Digest {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        Digest(digest)
    }
}

impl TryFrom<&[u8]> for Digest {
    type Error = Fault;
    fn try_from(bytes: &[u8]) -> Result<Self, Fault> {
        bytes.try_into().map(Self).map_err(|_| Misuse::Length { what: "digest", expected: 32, actual: bytes.len() }.into())
    }
}

impl FromStr for Digest {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self, Fault> {
        let hex = text.strip_prefix("sha256:").ok_or_else(|| Misuse::Digest { text: text.chars().take(80).collect() })?;
        from_hex("digest", hex).map(Self)
    }
}

impl TryFrom<String> for Digest {
    type Error = Fault;
    fn try_from(text: String) -> Result<Self, Fault> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", to_hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}…", self.short())
    }
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|n| char::from_digit(u32::from(n), 16).expect("a nibble is a digit")).collect()
}

pub(crate) fn from_hex<const N: usize>(what: &'static str, text: &str) -> Result<[u8; N], Fault> {
    let fault = || Misuse::Hex { what, digits: 2 * N, text: text.chars().take(80).collect() };
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.filter(|d| d.len() == 2 * N && text.len() == 2 * N).ok_or_else(fault)?;
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NIST FIPS 180-4, example "abc".
    #[test]
    fn digest_of_a_known_text() {
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), text);
        assert_eq!(text.parse::<Digest>().unwrap(), Digest::of(b"abc"));
    }

    /// R62: a wrong or shortened digest is refused with a message that says what was expected.
    #[test]
    fn elided_digests_are_refused() {
        for bad in ["sha256:af8f...", "af8f", "md5:00", "", "sha256:", "sha256:é"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        let fault = "sha256:af8f...".parse::<Digest>().unwrap_err().to_string();
        assert!(fault.contains("64"), "{fault}");
    }
}

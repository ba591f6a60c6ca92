//! A release as an order names it: enough to fetch it, to check it, and to refuse it before a byte is fetched.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::sign::Signature;
use crate::{
    digest::Digest,
    fault::{Fault, Misuse},
    ids::{DeviceClass, ReleaseId},
};

/// One bundle of a release, by digest. The released digest of a node is [`ReleaseRef::bundle`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRef {
    /// `NAME-VERSION`.
    pub release: ReleaseId,
    /// SHA-256 of the bundle.
    pub bundle: Digest,
    /// Length of the bundle.
    pub bundle_bytes: u64,
    /// What the unpacked parts take.
    pub unpacked_bytes: u64,
    /// SHA-256 of the manifest.
    pub manifest: Digest,
    /// Length of the manifest.
    pub manifest_bytes: u64,
    /// The detached signatures of both.
    pub signatures: Signatures,
    /// Which devices it is for.
    pub class: DeviceClass,
    /// Oldest ONNX Runtime that runs it.
    pub min_runtime: RuntimeVersion,
}

/// Detached signatures; one per key that signed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signatures {
    /// Of the bundle's bytes.
    pub bundle: Vec<Signature>,
    /// Of the manifest's bytes.
    pub manifest: Vec<Signature>,
}

/// A version of ONNX Runtime, such as `1.23.2`. Compared number by number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuntimeVersion([u32; 3]);

impl FromStr for RuntimeVersion {
    type Err = Fault;
    /// `1.23.2` or `1.23`; a suffix such as `-rc1` or `+cu12` does not count.
    fn from_str(text: &str) -> Result<Self, Fault> {
        let fault = || {
            Fault::from(Misuse::Setting {
                key: "runtime version".into(),
                why: format!("{:?} is not of the form \"1.23.2\"", text.chars().take(40).collect::<String>()),
            })
        };
        let core = text.split(['-', '+']).next().unwrap_or_default();
        let mut numbers = [0; 3];
        let mut count = 0;
        for part in core.split('.') {
            let digits = !part.is_empty() && part.len() <= 6 && part.bytes().all(|b| b.is_ascii_digit());
            let slot = numbers.get_mut(count).filter(|_| digits).ok_or_else(fault)?;
            *slot = part.parse().map_err(|_| fault())?;
            count += 1;
        }
        if count < 2 { Err(fault()) } else { Ok(Self(numbers)) }
    }
}

impl TryFrom<String> for RuntimeVersion {
    type Error = Fault;
    fn try_from(text: String) -> Result<Self, Fault> {
        text.parse()
    }
}

impl From<RuntimeVersion> for String {
    fn from(version: RuntimeVersion) -> Self {
        version.to_string()
    }
}

impl fmt::Display for RuntimeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl fmt::Debug for RuntimeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtime_versions_compare_by_number() {
        let version = |text: &str| text.parse::<RuntimeVersion>().unwrap();
        assert!(version("1.9.0") < version("1.23.2"));
        assert_eq!(version("1.24"), version("1.24.0-rc.1"));
        assert_eq!(version("1.24.1+cu12").to_string(), "1.24.1");
        for bad in ["", "1", "1.", "1.2.3.4", "a.b", "1.9999999", "١.٢"] {
            assert!(bad.parse::<RuntimeVersion>().is_err(), "{bad:?}");
        }
    }
}

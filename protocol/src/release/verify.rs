//! From bytes and trusted keys to a verified release.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    bundle::{Limits, Parts},
    fault::ReleaseFault,
    manifest::{Component, Manifest},
    reference::{ReleaseRef, Signatures},
    sign::{Signature, VerifyingKey},
};
use crate::{
    digest::Digest,
    fault::{Fault, Misuse},
};

/// Whose releases are taken: so many of these keys must have signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseTrust {
    /// The keys.
    pub keys: Vec<VerifyingKey>,
    /// How many of them, at least.
    pub threshold: usize,
}

impl ReleaseTrust {
    /// Refuses a threshold that cannot be met, or that asks for nothing, and a key named twice.
    pub fn check(&self) -> Result<(), Fault> {
        let fault = |key: &str, why: String| Err(Misuse::Setting { key: format!("release.{key}"), why }.into());
        if self.threshold == 0 || self.threshold > self.keys.len() {
            return fault(
                "threshold",
                format!("{} of {} keys cannot be asked for; use 1 to {}", self.threshold, self.keys.len(), self.keys.len()),
            );
        }
        if self.keys.iter().enumerate().any(|(index, key)| self.keys[..index].contains(key)) {
            return fault("keys", "one key is named twice; it counts once".into());
        }
        Ok(())
    }
}

/// A release whose every byte has been checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// What was signed.
    pub manifest: Manifest,
    /// The bundle's entries; each matches its digest in the manifest.
    pub parts: Parts,
    /// SHA-256 of the bundle.
    pub digest: Digest,
}

/// One signature held against one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignatureCheck {
    /// `manifest` or `bundle`.
    pub layer: String,
    /// The key's id.
    pub key: Digest,
    /// Whether the key made any of the layer's signatures.
    pub valid: bool,
}

/// Checks everything: the manifest's signatures, then its form, the bundle's signatures, its checksum, its parts.
pub fn verify_release(
    bundle: &[u8],
    manifest: &[u8],
    signatures: &Signatures,
    trust: &ReleaseTrust,
    limits: &Limits,
) -> Result<Verified, Fault> {
    let manifest = verify_manifest(manifest, &signatures.manifest, trust)?;
    require("bundle", bundle, &signatures.bundle, trust)?;
    let digest = Digest::of(bundle);
    if digest != manifest.checksum {
        return Err(ReleaseFault::Checksum { expected: manifest.checksum, actual: digest }.into());
    }
    let parts = super::bundle::read(bundle, limits)?;
    same_components(&manifest.components, &parts.components())?;
    Ok(Verified { manifest, parts, digest })
}

/// Only the manifest: its signatures, then its form.
pub fn verify_manifest(manifest: &[u8], signatures: &[Signature], trust: &ReleaseTrust) -> Result<Manifest, Fault> {
    require("manifest", manifest, signatures, trust)?;
    Manifest::parse(manifest)
}

/// Enough distinct trusted keys must have signed these bytes.
fn require(what: &'static str, bytes: &[u8], signatures: &[Signature], trust: &ReleaseTrust) -> Result<(), Fault> {
    trust.check()?;
    let valid = check_signatures(what, bytes, signatures, trust).iter().filter(|check| check.valid).count();
    if valid < trust.threshold {
        return Err(ReleaseFault::Signature { what, valid, threshold: trust.threshold }.into());
    }
    Ok(())
}

fn same_components(listed: &BTreeMap<String, Component>, found: &BTreeMap<String, Component>) -> Result<(), Fault> {
    let fault = |name: &str, why: String| Err(ReleaseFault::Component { name: name.to_owned(), why }.into());
    for (name, component) in listed {
        match found.get(name) {
            None => return fault(name, "in the manifest, but not in the bundle".into()),
            Some(actual) if actual != component => {
                let Component { digest, bytes } = component;
                return fault(
                    name,
                    format!("the manifest says {bytes} bytes, {digest}; the bundle has {} bytes, {}", actual.bytes, actual.digest),
                );
            }
            Some(_) => {}
        }
    }
    match found.keys().find(|name| !listed.contains_key(*name)) {
        Some(name) => fault(name, "in the bundle, but not in the manifest".into()),
        None => Ok(()),
    }
}

impl ReleaseRef {
    /// Whether the signed manifest says what the order said, which nobody signed.
    pub fn check(&self, manifest: &Manifest) -> Result<(), Fault> {
        let fault = |field: &str| Err(ReleaseFault::Manifest { why: format!("{field}: the order says otherwise") }.into());
        if manifest.release()? != self.release {
            return fault("model_name, version");
        }
        if manifest.checksum != self.bundle {
            return fault("checksum");
        }
        if !manifest.target_devices.contains(&self.class) {
            return fault("target_devices");
        }
        if manifest.runtime.min_onnxruntime != self.min_runtime {
            return fault("runtime.min_onnxruntime");
        }
        if manifest.unpacked_bytes() != self.unpacked_bytes {
            return fault("components");
        }
        Ok(())
    }
}

/// Which trusted keys signed `bytes`, for a report. [`verify_release`] decides.
pub fn check_signatures(layer: &str, bytes: &[u8], signatures: &[Signature], trust: &ReleaseTrust) -> Vec<SignatureCheck> {
    trust
        .keys
        .iter()
        .map(|key| SignatureCheck {
            layer: layer.into(),
            key: key.id(),
            valid: signatures.iter().any(|signature| key.verify(bytes, signature)),
        })
        .collect()
}

#[cfg(test)]
mod tests;

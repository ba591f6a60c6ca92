//! The trust file: what a node believes before it has spoken to anyone (R104). Its operator hands it over out of band.
//!
//! ```toml
//! population = "stores"
//! authority = "ed25519:…"
//! coordinator_ca = """
//! -----BEGIN CERTIFICATE-----
//! …
//! """
//! [release]
//! threshold = 1
//! keys = ["""
//! -----BEGIN PUBLIC KEY-----
//! …
//! """]
//! ```

use serde::{Deserialize, Serialize};

use crate::{
    fault::{Fault, Misuse},
    ids::PopulationId,
    membership::IdentityKey,
    release::{pem, verify::ReleaseTrust},
};

/// What a node trusts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustFile {
    /// Which fleet.
    pub population: PopulationId,
    /// Who says which identities belong to it.
    pub authority: IdentityKey,
    /// Who signs the coordinator's TLS certificate, as PEM.
    pub coordinator_ca: String,
    /// Whose releases are taken.
    pub release: ReleaseTrust,
}

impl TrustFile {
    /// Reads it; a message names the key.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let fault = |key: &str, why: String| Fault::from(Misuse::Setting { key: key.into(), why });
        let file: Self = toml::from_str(text).map_err(|e| fault("trust file", e.to_string()))?;
        pem::decode("CERTIFICATE", &file.coordinator_ca).map_err(|e| fault("coordinator_ca", e.to_string()))?;
        file.release.check()?;
        Ok(file)
    }
    /// Writes it.
    pub fn to_toml(&self) -> Result<String, Fault> {
        toml::to_string(self).map_err(|e| Misuse::Setting { key: "trust file".into(), why: e.to_string() }.into())
    }
}

#[cfg(test)]
mod tests;

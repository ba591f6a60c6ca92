//! Who a certificate names: one SPIFFE id in the subject alternative name, nothing else counts.

use std::{fmt, str::FromStr};

use sapwood_protocol::{NodeId, OperatorId, PopulationId, Timestamp};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use super::PkiError;

/// What a member may do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Drives runs and rollouts.
    Coordinator,
    /// Trains and serves.
    Node(NodeId),
    /// Submits, watches, authorizes.
    Operator(OperatorId),
}

/// A member of a population: `spiffe://POPULATION/node/NAME`, `/operator/NAME` or `/coordinator`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The trust domain.
    pub population: PopulationId,
    /// Who in it.
    pub role: Role,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/", self.population)?;
        match &self.role {
            Role::Coordinator => f.write_str("coordinator"),
            Role::Node(name) => write!(f, "node/{name}"),
            Role::Operator(name) => write!(f, "operator/{name}"),
        }
    }
}

impl FromStr for Identity {
    type Err = PkiError;
    fn from_str(uri: &str) -> Result<Self, PkiError> {
        let parts: Vec<&str> = uri.strip_prefix("spiffe://").unwrap_or_default().split('/').collect();
        let (population, role) = match parts[..] {
            [population, "coordinator"] => (population, Role::Coordinator),
            [population, "node", name] => (population, Role::Node(name.parse()?)),
            [population, "operator", name] => (population, Role::Operator(name.parse()?)),
            _ => return Err(PkiError::Identity { why: format!("{uri:?} is no id of ours") }),
        };
        Ok(Self { population: population.parse()?, role })
    }
}

/// What a certificate says. Says nothing about who signed it: that is TLS's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// Whom it names.
    pub identity: Identity,
    /// First moment of validity.
    pub not_before: Timestamp,
    /// Last moment of validity.
    pub not_after: Timestamp,
    /// SubjectPublicKeyInfo, DER.
    pub public_key: Vec<u8>,
}

impl Certified {
    /// Reads a certificate in DER. Exactly one URI must be there.
    pub fn read(der: &[u8]) -> Result<Self, PkiError> {
        let wrong = |why: &str| PkiError::Identity { why: why.to_owned() };
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|e| wrong(&e.to_string()))?;
        if !rest.is_empty() {
            return Err(wrong("bytes after its end"));
        }
        let names = certificate.subject_alternative_name().map_err(|e| wrong(&e.to_string()))?;
        let names = names.ok_or_else(|| wrong("no subject alternative name"))?;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let (Some(uri), None) = (uris.next(), uris.next()) else {
            return Err(wrong("it must hold exactly one URI"));
        };
        let moment = |seconds: i64| Timestamp::from_millis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
        let validity = certificate.validity();
        Ok(Self {
            identity: uri.parse()?,
            not_before: moment(validity.not_before.timestamp()),
            not_after: moment(validity.not_after.timestamp()),
            public_key: certificate.public_key().raw.to_vec(),
        })
    }

    /// When a fresh one should be asked for: two thirds into its life.
    pub fn renew_at(&self) -> Timestamp {
        self.not_before + self.not_after.since(self.not_before) * 2 / 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_text_and_nothing_else_passes() {
        for uri in ["spiffe://fleet/coordinator", "spiffe://fleet/node/store-1", "spiffe://fleet.eu/operator/ann"] {
            assert_eq!(uri.parse::<Identity>().unwrap().to_string(), uri);
        }
        for bad in [
            "",
            "fleet/node/a",
            "spiffe://fleet",
            "spiffe://fleet/",
            "spiffe:///node/a",
            "spiffe://fleet/node/",
            "spiffe://fleet/node/a/b",
            "spiffe://fleet/node/..",
            "spiffe://fleet/Node/a",
            "spiffe://fleet/coordinator/",
            "https://fleet/node/a",
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad}");
        }
    }
}

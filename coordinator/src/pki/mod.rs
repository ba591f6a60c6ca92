//! Keys and certificates of a deployment.
//!
//! Three keys, three powers, so that each can be kept elsewhere:
//!
//! * the **enrolment authority** ([`Authority`], Ed25519) says who is a member. Its holder mints one-time tokens and signs
//!   memberships; the coordinator only relays, and cannot make a member.
//! * the **TLS authority** ([`Ca`], P-256) lies with the coordinator and turns a membership into short-lived certificates.
//! * the **release key** (P-256) signs what nodes may run.
//!
//! [`found`] makes all of them in one folder. That is right for a demo and a first trial; a fleet moves `authority/` away.

mod authority;
mod ca;
mod error;
pub(crate) mod files;
mod found;
mod identity;
mod tls;

#[cfg(test)]
mod tests;

pub use authority::{Application, Authority, SystemSecrets, TokenInfo, TokenTerms};
pub use ca::{Ca, CertificateRequest, Issued};
pub use error::PkiError;
pub use found::{CONTENTS, Deployment, FoundOptions, found};
pub use identity::{Certified, Identity, Role};
pub use tls::{ServerCertificate, server_config};

//! A release: what a run made, packed, measured, signed.
//!
//! ```text
//! parts ──bundle::write──▶ NAME-VERSION-CLASS.tar.gz ──digest──▶ manifest.checksum ──sign──▶ two detached signatures
//! ```
//!
//! * [`bundle`]: the archive, byte for byte reproducible, and its strict reader.
//! * [`manifest`]: what the archive holds, where it came from, how it measured, what it promises about privacy.
//! * [`gates`]: the numbers that a release must reach. A number that is missing fails.
//! * [`postprocess`]: from a model's outputs to an answer, by thresholds.
//! * [`sign`]: ECDSA P-256 with SHA-256, as `openssl dgst -sha256 -verify` reads it.
//! * [`verify`]: from bytes and trusted keys to a [`verify::Verified`] release, or the name of what is wrong.
//! * [`golden`]: example inputs and outputs, tried on the device before a release goes live.
//!
//! Signatures lie beside the bundle, never in it: signed bytes never change.

pub mod bundle;
pub mod documents;
pub mod fault;
pub mod gates;
pub mod golden;
pub mod manifest;
pub mod pem;
pub mod postprocess;
pub mod reference;
pub mod sign;
pub mod verify;
pub mod view;

pub use bundle::{Limits, Parts};
pub use fault::ReleaseFault;
pub use gates::{GateLine, GateReport, Gates, Measured};
pub use manifest::Manifest;
pub use postprocess::{Answer, Postprocess};
pub use reference::{ReleaseRef, RuntimeVersion, Signatures};
pub use sign::{Signature, SigningKey, VerifyingKey};
pub use verify::{Verified, verify_release};

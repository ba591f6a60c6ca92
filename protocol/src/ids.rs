//! Identities. One macro list makes a distinct type per kind, so that a run is never taken for a release.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Misuse};

/// The longest name of a node, a run, a release.
pub const MAX_NAME: usize = 64;

/// Lower-case letters, digits, `-`, `_` and `.`; starts with a letter or a digit: safe as a file name, a DNS label and a URI segment.
fn check(kind: &'static str, name: &str) -> Result<(), Fault> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'));
    if !first || !rest || name.len() > MAX_NAME || name.contains("..") {
        return Err(Misuse::Name { kind, name: name.chars().take(MAX_NAME).collect() }.into());
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl FromStr for $name {
            type Err = Fault;
            fn from_str(name: &str) -> Result<Self, Fault> {
                check($kind, name)?;
                Ok(Self(name.to_owned()))
            }
        }
        impl TryFrom<String> for $name {
            type Error = Fault;
            fn try_from(name: String) -> Result<Self, Fault> { name.parse() }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self { name.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
    )*};
}

names! {
    /// All nodes that one enrolment authority answers for.
    PopulationId "population";
    /// One enrolled node, by the name its operator gave it.
    NodeId "node";
    /// One federated run.
    RunId "run";
    /// One released model: `NAME-VERSION`.
    ReleaseId "release";
    /// A named ring of a rollout: lab, canary, region, global.
    RingId "ring";
    /// One operator or researcher, by the name in their certificate.
    OperatorId "operator";
    /// A one-time enrolment token, by its public part.
    TokenId "token";
    /// What a bundle is built for: `x86_64`, `x86_64-vnni`, `aarch64`, `jetson-orin`.
    DeviceClass "device class";
    /// What the versions of one model have in common.
    ModelName "model";
    /// A version as its author writes it, such as `2026-01-10-rc3`. Versions are ordered by their time, never as text.
    Version "version";
}

macro_rules! nonces {
    ($($(#[$doc:meta])* $name:ident $len:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $len]);

        impl $name {
            /// From bytes drawn by the caller.
            pub fn new(bytes: [u8; $len]) -> Self { Self(bytes) }
            /// The bytes.
            pub fn as_bytes(&self) -> &[u8; $len] { &self.0 }
        }
        impl TryFrom<&[u8]> for $name {
            type Error = Fault;
            fn try_from(bytes: &[u8]) -> Result<Self, Fault> {
                bytes.try_into().map(Self).map_err(|_| Misuse::Length { what: stringify!($name), expected: $len, actual: bytes.len() }.into())
            }
        }
        impl TryFrom<String> for $name {
            type Error = Fault;
            fn try_from(text: String) -> Result<Self, Fault> { crate::digest::from_hex(stringify!($name), &text).map(Self) }
        }
        impl FromStr for $name {
            type Err = Fault;
            fn from_str(text: &str) -> Result<Self, Fault> { crate::digest::from_hex(stringify!($name), text).map(Self) }
        }
        impl From<$name> for String {
            fn from(id: $name) -> Self { crate::digest::to_hex(&id.0) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&crate::digest::to_hex(&self.0)) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(self, f) }
        }
    )*};
}

nonces! {
    /// One attempt at one round. Random, never reused: everything that a node sends in the attempt is bound to it.
    SessionId 32;
    /// One continuous life of a node's state. It rotates at every connection, so a restored backup or a clone shows itself.
    Ticket 16;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_files_and_addresses() {
        assert!("store-017.eu_1".parse::<NodeId>().is_ok());
        let long = "a".repeat(65);
        for bad in ["", "-a", "A", "a/b", "..", "a..b", "a b", "ä", long.as_str()] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad:?}");
        }
        assert!(serde_json::from_str::<NodeId>("\"a/b\"").is_err());
    }

    #[test]
    fn a_nonce_survives_text() {
        let id = SessionId::new([7; 32]);
        assert_eq!(String::from(id).parse::<SessionId>().unwrap(), id);
        assert!("07".parse::<SessionId>().is_err());
        assert!("zz".repeat(32).parse::<SessionId>().is_err());
    }
}

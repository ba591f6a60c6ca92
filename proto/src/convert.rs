//! Wire to domain and back: the only place where wire fields are read. Decoding is strict and names what it refuses.

use prost::bytes::Bytes;
use sapwood_protocol::{
    Digest, Fault, SessionId, Ticket,
    fault::{Expiry, Lack, Misbehaviour, Misuse},
};
use serde_json::Value;
use tonic::{Code, Status, metadata::MetadataValue};

/// A document of the domain as it travels.
pub fn to_json<T: serde::Serialize>(value: &T) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("domain types have string keys and finite numbers"))
}

/// A document of the domain from the wire; bytes after it are refused.
pub fn from_json<T: serde::de::DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|e| Misbehaviour::Malformed { what, why: e.to_string() }.into())
}

/// An untyped document, for printing.
pub fn document(bytes: &[u8]) -> Result<Value, Fault> {
    from_json("document", bytes)
}

/// A digest of exactly 32 bytes.
pub fn digest(bytes: &[u8]) -> Result<Digest, Fault> {
    Digest::try_from(bytes)
}

/// A session id of exactly 32 bytes.
pub fn session(bytes: &[u8]) -> Result<SessionId, Fault> {
    SessionId::try_from(bytes)
}

/// A ticket of exactly 16 bytes, or none.
pub fn ticket(bytes: &[u8]) -> Result<Option<Ticket>, Fault> {
    if bytes.is_empty() { Ok(None) } else { Ticket::try_from(bytes).map(Some) }
}

/// Which header of a status says who was at fault.
const BLAME: &str = "sapwood-blame";

/// A fault as a gRPC status. The message is the fault's own; the blame travels beside it.
pub fn status(fault: &Fault) -> Status {
    let (code, blame) = match fault {
        Fault::PeerMisbehaved(
            Misbehaviour::Signature { .. } | Misbehaviour::WrongIdentity { .. } | Misbehaviour::ClonedIdentity { .. },
        ) => (Code::PermissionDenied, "peer"),
        Fault::PeerMisbehaved(_) => (Code::InvalidArgument, "peer"),
        Fault::PeerIncompatible(_) => (Code::FailedPrecondition, "version"),
        Fault::Misuse(Misuse::Unknown { .. }) => (Code::NotFound, "caller"),
        Fault::Misuse(_) => (Code::InvalidArgument, "caller"),
        Fault::Expired(Expiry::Token { .. } | Expiry::Statement { .. }) => (Code::PermissionDenied, "clock"),
        Fault::Expired(_) => (Code::Aborted, "clock"),
        Fault::Unavailable(Lack::Lease { .. }) => (Code::Unavailable, "lease"),
        Fault::Unavailable(_) => (Code::Unavailable, "environment"),
    };
    let mut status = Status::new(code, fault.to_string());
    status.metadata_mut().insert(BLAME, MetadataValue::from_static(blame));
    status
}

/// Whether asking again later can help.
pub fn may_retry(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown | Code::ResourceExhausted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_and_wrong_lengths_are_refused() {
        assert!(from_json::<u32>("number", b"1").is_ok());
        assert!(from_json::<u32>("number", b"1 2").is_err());
        assert!(digest(&[0; 31]).is_err());
        assert!(session(&[0; 33]).is_err());
        assert!(ticket(&[]).unwrap().is_none());
        assert!(ticket(&[0; 15]).is_err());
    }

    #[test]
    fn a_status_keeps_the_words_and_the_blame() {
        let status = status(&Expiry::Session.into());
        assert_eq!(status.code(), Code::Aborted);
        assert!(status.message().starts_with("too late"));
        assert!(!may_retry(&status));
    }
}

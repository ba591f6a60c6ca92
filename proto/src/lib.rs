//! The wire: generated messages and services, and the conversions to the domain's types. No logic lives here.
#![forbid(unsafe_code)]

pub mod convert;

/// Messages and services of wire version 1, generated from `proto/sapwood/v1`.
pub mod v1 {
    #![allow(clippy::all, clippy::use_self, unreachable_pub, unused_qualifications, missing_docs)]
    tonic::include_proto!("sapwood.v1");
}

/// Bytes of a model, an update or a bundle in one message: large enough to be cheap, small enough to bound a peer's memory.
pub const CHUNK: usize = 256 * 1024;

/// The largest message either side accepts: a chunk and its frame.
pub const MAX_MESSAGE: usize = 1024 * 1024;

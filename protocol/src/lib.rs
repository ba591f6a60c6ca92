//! What both ends of Sapwood must agree on. Pure: no I/O, no clock, no randomness of its own.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod canonical;
pub mod digest;
pub mod fault;
pub mod ids;
pub mod ledger;
pub mod machine;
pub mod membership;
pub mod release;
pub mod rollout;
pub mod round;
pub mod run;
pub mod slot;
pub mod spec;
pub mod time;
pub mod trust;
pub mod version;
pub mod view;

pub use digest::{Digest, Hasher};
pub use fault::{Blame, Fault};
pub use ids::{DeviceClass, ModelName, NodeId, OperatorId, PopulationId, ReleaseId, RingId, RunId, SessionId, Ticket, TokenId, Version};
pub use machine::{Cx, Decision, Machine, Secrets};
pub use time::Timestamp;

//! One file per noun.

pub(crate) mod coordinator;
mod daemon;
pub(crate) mod doctor;
pub(crate) mod fleet;
pub(crate) mod init;
pub(crate) mod model;
pub(crate) mod node;
pub(crate) mod privacy;
pub(crate) mod release;
pub(crate) mod rollout;
pub(crate) mod run;
pub(crate) mod runtime;

//! The edge node: it enrols, trains on data that never leaves it, submits updates, and serves what is released to it.
//!
//! - [`app`] puts a node together; serving comes first and needs no network.
//! - [`identity`] holds its keys and certificates, [`link`] its line to the coordinator, [`store`] what it remembers.
//! - `round` drives [`sapwood_protocol::round::NodeRound`]; [`train`] does the work within a budget.
//! - `agent` drives [`sapwood_protocol::slot::Slots`]; [`serve`] answers inference requests.
//!
//! This is a shell: it moves bytes. What to do is decided in `protocol`.
//!
//! A node wants a small runtime: two workers of a multi-threaded one are enough, since training has threads of its own.

pub mod agent;
pub mod app;
mod books;
mod clock;
pub mod config;
mod error;
mod files;
pub mod identity;
pub mod link;
mod objects;
pub mod points;
pub mod probe;
mod profile;
mod round;
pub mod serve;
pub mod store;
#[cfg(test)]
mod testing;
pub mod train;

pub use app::{Ready, run};
pub use books::{Account, Spent, account};
pub use config::{Config, ConfigError};
pub use error::NodeError;
pub use link::{Assignments, Reporter};

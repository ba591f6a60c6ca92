//! The coordinator: the shell around `protocol`'s decisions. It moves bytes, keeps facts, and decides nothing.
//!
//! - [`app`] is the process: one [`app::State`], its handles for [`grpc`], and [`app::serve`].
//! - [`drive`] asks a protocol's machine, commits what it says, and only then does it.
//! - [`store`] keeps facts, [`objects`] keeps bytes by digest.
//! - [`fleet`] knows who is here, and tells nodes what they should know.
//! - [`ledgers`] drives the privacy ledgers that runs are charged to.
//! - [`uploads`] receives updates, [`aggregate`] sums them; neither ever touches the disk.
//! - [`pki`], [`grpc`]: who may speak, and the wire. [`release`]: from parameters to a signed bundle.

pub mod aggregate;
pub mod app;
pub mod clock;
pub mod config;
pub mod drive;
pub mod fleet;
pub mod grpc;
pub mod ledgers;
pub mod objects;
pub mod pki;
pub mod release;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
pub mod uploads;

pub use app::{CoordinatorError, serve};
pub use config::Config;

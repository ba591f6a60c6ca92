//! Examples for Sapwood: where they come from, what they must look like, and how a simulation
//! splits them.
//!
//! - [`Source`] names data as a user does: `digits:1-10`, a folder of arrays or of images, an `.npz`, a
//!   `.csv`.
//! - [`load`] reads it, bounded, and checks it: a bad file is named with its row and column.
//! - [`Schema`] says what a data set must look like; a `.csv` needs one.
//! - [`partition`] deals rows to simulated nodes: at random, by label skew, or by a column.
//! - [`digits`] is the vendored data set of the demo.

mod columns;
pub mod digits;
mod error;
mod images;
mod nearest;
mod npy;
mod partition;
mod read;
mod schema;
mod source;
mod table;
mod write;

pub use columns::Columns;
pub use error::DataError;
pub use partition::{Partition, partition};
pub use read::{Limits, class_names, load, load_columns, load_with, read_tensors};
pub use schema::{Column, Csv, Encode, Filler, Input, Kind, Null, Schema, TargetKind, Violation};
pub use source::{Blocks, Source};
pub use write::{save_npy, save_npz};

//! Sapwood's models: the model is an ONNX graph, never Rust code.
//!
//! - [`onnx`] reads, checks and writes files; [`tensor`] and [`dataset`] are what goes in
//!   and out of a graph.
//! - [`layout`] turns the trained tensors into one flat vector in graph order and back.
//!
//! The crate decides and computes; it opens no file, reads no clock and draws no
//! randomness of its own.
#![deny(unsafe_code)]

pub mod dataset;
mod error;
pub mod layout;
pub mod onnx;
pub mod tensor;

pub use dataset::{DataFault, Dataset, Targets};
pub use error::ModelError;
pub use layout::{Layout, Parameter, Role, parameters, write_back};
pub use onnx::{Dim, Element, Model, ValueInfo};
pub use tensor::{Tensor, TensorData};

//! Sapwood's models: the model is an ONNX graph, never Rust code.
//!
//! - [`onnx`] reads, checks and writes files; [`tensor`], [`features`] and [`dataset`] are what goes in
//!   and out of a graph.
//! - [`layout`] turns the trained tensors into one flat vector in graph order and back.
//! - [`compose()`] puts preprocessing in front of a model; [`lora`] adapters beside its matrices, [`norm`] groups in the place of
//!   batches, [`head`] another last layer behind it; [`zoo`] builds models; [`quantize`] makes them INT8.
//! - [`inspect()`] and [`cost()`] describe a model, [`diff`] compares two, [`torch`] gives weights under PyTorch's names.
//! - [`interpreter`] runs graphs, on Burn's primitives and, where these are slow, on own kernels; [`train`] and [`Forward`] are its two uses; [`metrics`]
//!   judges answers.
//!
//! The crate decides and computes; it opens no file, reads no clock and draws no
//! randomness of its own.
#![deny(unsafe_code)]

mod compose;
mod cost;
pub mod dataset;
pub mod diff;
mod error;
pub mod features;
pub mod forward;
pub mod head;
mod inspect;
pub mod interpreter;
mod kernel;
pub mod layout;
pub mod lora;
pub mod metrics;
pub mod norm;
pub mod onnx;
pub mod quantize;
pub mod tensor;
pub mod torch;
pub mod train;
pub mod zoo;

pub use compose::compose;
pub use cost::{Cost, NodeCost, cost};
pub use dataset::{DataFault, Dataset, Targets};
pub use error::ModelError;
pub use features::Features;
pub use forward::Forward;
pub use inspect::{Inspection, inspect};
pub use layout::{Layout, Parameter, Role, parameters, trains_when_run, write_back};
pub use onnx::{Dim, Element, Model, ValueInfo};
pub use tensor::{Tensor, TensorData};

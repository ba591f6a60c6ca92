//! Static INT8 quantization: the same graph with `QuantizeLinear`/`DequantizeLinear` pairs.
//!
//! ```text
//! prepare   constants become initializers, no-ops go, BatchNormalization is folded
//! ranges    min and max of every float value over the calibration data
//! mark      which values become INT8, by operator, in the order of the graph
//! emit      INT8 weights, INT32 biases, Q/DQ pairs
//! ```
//!
//! Activations are U8 asymmetric, weights S8 symmetric per output channel, biases INT32.
//! The arithmetic and the choice of values are those of ONNX Runtime's own quantizer
//! (`onnxruntime.quantization.quantize_static`, QDQ format, MinMax calibration,
//! `per_channel=True`), so its graph optimizer finds the patterns that it fuses to
//! integer kernels. Operators outside its integer kernels stay in float and are listed.

mod arithmetic;
mod calibrate;
mod emit;
mod mark;
mod prepare;
#[cfg(test)]
mod tests;

use std::str::FromStr;

use crate::ModelError;
use crate::onnx::Model;

pub use calibrate::{Ranges, ranges};

/// Oldest opset with a channel axis in `DequantizeLinear`.
const OLDEST_OPSET: i64 = 13;

/// The processor that runs the quantized model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// x86-64 without VNNI: its 8-bit multiply-add may saturate, so weights keep 7 bits.
    X86_64,
    /// x86-64 with AVX-VNNI or AVX512-VNNI.
    X86_64Vnni,
    /// 64-bit ARM.
    Aarch64,
}

impl Target {
    fn reduce_range(self) -> bool {
        self == Self::X86_64
    }

    /// The name on the command line and in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::X86_64Vnni => "x86_64-vnni",
            Self::Aarch64 => "aarch64",
        }
    }
}

impl FromStr for Target {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self, ModelError> {
        [Self::X86_64, Self::X86_64Vnni, Self::Aarch64]
            .into_iter()
            .find(|target| target.name() == name)
            .ok_or_else(|| ModelError::Setting { name: "target", value: name.to_owned(), reason: "x86_64, x86_64-vnni or aarch64".into() })
    }
}

/// A quantized model and what became of its nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// The model with Q/DQ pairs.
    pub model: Model,
    /// Nodes of the prepared graph that compute on INT8 values, or were absorbed by one.
    pub quantized_nodes: usize,
    /// Labels of the nodes that still compute on floats.
    pub float_nodes: Vec<String>,
}

/// Quantizes a model with the ranges that [`ranges()`] found for it.
///
/// # Errors
/// [`ModelError::Opset`] below opset 13, [`ModelError::Calibration`] if a value that must
/// be quantized has no range, [`ModelError::BadTensor`] for weights that are not finite.
pub fn quantize(model: &Model, ranges: &Ranges, target: Target) -> Result<Quantized, ModelError> {
    if model.opset() < OLDEST_OPSET {
        return Err(ModelError::Opset { found: model.opset(), oldest: OLDEST_OPSET, newest: crate::onnx::NEWEST_OPSET });
    }
    let prepared = prepare::prepare(model)?;
    let marks = mark::mark(prepared, ranges)?;
    let (quantized_nodes, float_nodes) = (marks.quantized_nodes, marks.float_nodes.clone());
    let model = emit::emit(marks, target)?;
    Ok(Quantized { model, quantized_nodes, float_nodes })
}

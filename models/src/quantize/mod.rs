//! Quantization. Static INT8 is the same graph with `QuantizeLinear`/`DequantizeLinear` pairs.
//!
//! ```text
//! passes    constants become initializers, no-ops go, old opsets are raised, BatchNormalization is folded
//! ranges    range of every float value over the calibration data, MinMax or Percentile
//! mark      which values become INT8, by operator, in the order of the graph
//! emit      INT8 weights, INT32 biases, Q/DQ pairs
//! ```
//!
//! Activations are U8 asymmetric (S8 symmetric for TensorRT), weights S8 symmetric per output
//! channel, biases INT32 (f32 for TensorRT).
//! The arithmetic and the choice of values are those of ONNX Runtime's own quantizer
//! (`onnxruntime.quantization.quantize_static`, QDQ format, `per_channel=True`), so its graph
//! optimizer finds the patterns that it fuses to integer kernels. Operators that it leaves in
//! float stay in float and are listed.
//!
//! [`dynamic()`] needs no calibration and [`half()`] no integers. [`sensitivity()`] says what
//! loses most, and [`mixed()`] leaves that in float.

mod arithmetic;
mod calibrate;
mod constants;
mod dynamic;
mod emit;
mod half;
mod histogram;
mod mark;
pub mod passes;
mod rules;
mod sensitivity;
mod shift;
mod target;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::ModelError;
use crate::forward::Forward;
use crate::onnx::{Model, label};
use crate::tensor::Tensor;

pub use calibrate::{Calibrator, Ranges, ranges};
pub use dynamic::dynamic;
pub use half::half;
pub use sensitivity::{NodeError, Sensitivity, TensorError, mixed, sensitivity};
pub use shift::{Shift, shifts};
pub use target::Target;

/// Oldest opset with a channel axis in `DequantizeLinear`.
const OLDEST_OPSET: i64 = 13;

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
/// [`ModelError::Opset`] below opset 13, to which 11 and 12 are raised where that is sure, [`ModelError::Calibration`] if a value that must
/// be quantized has no range, [`ModelError::BadTensor`] for weights that are not finite.
pub fn quantize(model: &Model, ranges: &Ranges, target: Target) -> Result<Quantized, ModelError> {
    quantize_except(model, ranges, target, &BTreeSet::new())
}

/// As [`quantize()`], but the nodes with these labels ([`crate::onnx::label`], as in [`Quantized::float_nodes`]) stay in float.
///
/// # Errors
/// As [`quantize()`].
pub fn quantize_except(model: &Model, ranges: &Ranges, target: Target, float: &BTreeSet<String>) -> Result<Quantized, ModelError> {
    let prepared = passes::prepare(model)?;
    check_opset(&prepared)?;
    let marks = mark::mark(prepared, ranges, target, float)?;
    let (quantized_nodes, float_nodes) = (marks.quantized_nodes, marks.float_nodes.clone());
    let model = emit::emit(marks, target)?;
    Ok(Quantized { model, quantized_nodes, float_nodes })
}

fn check_opset(model: &Model) -> Result<(), ModelError> {
    if model.opset() < OLDEST_OPSET {
        return Err(ModelError::Opset { found: model.opset(), oldest: OLDEST_OPSET, newest: crate::onnx::NEWEST_OPSET });
    }
    Ok(())
}

/// Whether each node of the prepared graph computes on INT8 values for [`Target::X86_64Vnni`], by its label. Instead of calibration the
/// graph runs once on `inputs`, and every float value that is there then counts as one with a range.
pub(crate) fn preview(model: &Model, inputs: &[(&str, Tensor)]) -> Result<BTreeMap<String, bool>, ModelError> {
    let prepared = passes::prepare(model)?;
    check_opset(&prepared)?;
    let unit = |name: &str| (name.to_owned(), (0.0, 1.0));
    let mut seen: BTreeMap<String, (f32, f32)> = inputs.iter().filter(|(_, x)| x.as_f32().is_some()).map(|(name, _)| unit(name)).collect();
    Forward::new(&prepared)?.observe(inputs, &mut |name, _| seen.extend([unit(name)]))?;
    let ranges = Ranges::new(seen)?;
    let computes = |node: &&crate::onnx::pb::NodeProto| node.output.iter().any(|output| ranges.get(output).is_some());
    let labels: Vec<String> = prepared.graph().node.iter().filter(computes).map(label).collect();
    let float: BTreeSet<String> = mark::mark(prepared, &ranges, Target::X86_64Vnni, &BTreeSet::new())?.float_nodes.into_iter().collect();
    Ok(labels.into_iter().map(|label| (label.clone(), !float.contains(&label))).collect())
}

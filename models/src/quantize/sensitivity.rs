//! Which tensors and operators lose most by 8 bits, and models that leave the worst in float.

use std::collections::{BTreeMap, BTreeSet};

use super::calibrate::Examples;
use super::{Quantized, Ranges, Target, passes, quantize, quantize_except};
use crate::ModelError;
use crate::features::Features;
use crate::onnx::{Model, label};

/// What 8 bits cost, the worst first.
#[derive(Debug, Clone, PartialEq)]
pub struct Sensitivity {
    /// Each operator that can be quantized by itself.
    pub nodes: Vec<NodeError>,
    /// Each value that is quantized where everything is.
    pub tensors: Vec<TensorError>,
}

/// The error of the model's outputs where one operator alone is quantized.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeError {
    /// Label of the node, as in [`Quantized::float_nodes`].
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// Root mean square of the outputs' errors, as a share of the outputs' own.
    pub error: f64,
}

/// The error of one value where everything is quantized, with what came down to it.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorError {
    /// Name of the value.
    pub tensor: String,
    /// Its calibrated range.
    pub range: (f32, f32),
    /// Root mean square of the errors, as a share of the float values' own.
    pub error: f64,
}

/// Compares quantized graphs with the float one on examples `[n, ...]`, through the interpreter: one pass for each operator.
///
/// # Errors
/// As [`super::ranges`] and [`quantize()`].
pub fn sensitivity(model: &Model, ranges: &Ranges, target: Target, x: &Features) -> Result<Sensitivity, ModelError> {
    let prepared = passes::prepare(model)?;
    let truth = values(&prepared, x)?;
    let outputs: Vec<String> = prepared.outputs().into_iter().map(|o| o.name).collect();

    let labels: BTreeSet<String> = prepared.graph().node.iter().map(label).collect();
    let mut nodes = Vec::new();
    for node in &prepared.graph().node {
        let mut others = labels.clone();
        others.remove(&label(node));
        let alone = quantize_except(&prepared, ranges, target, &others)?;
        if alone.quantized_nodes > 0 {
            let found = values(&alone.model, x)?;
            let error = relative(outputs.iter().filter_map(|name| Some((truth.get(name)?, found.get(name)?))));
            nodes.push(NodeError { node: label(node), operator: node.op_type().to_owned(), error });
        }
    }
    let found = values(&quantize(&prepared, ranges, target)?.model, x)?;
    let mut tensors: Vec<TensorError> = ranges
        .iter()
        .filter_map(|(name, range)| {
            let dequantized = found
                .get(&format!("{name}_DequantizeLinear_Output"))
                .or_else(|| found.get(name).filter(|_| outputs.iter().any(|o| o == name)))?;
            Some(TensorError { tensor: name.to_owned(), range, error: relative([(truth.get(name)?, dequantized)].into_iter()) })
        })
        .collect();
    nodes.sort_by(|a, b| b.error.total_cmp(&a.error));
    tensors.sort_by(|a, b| b.error.total_cmp(&a.error));
    Ok(Sensitivity { nodes, tensors })
}

/// The quantized model with the fewest of `order`'s nodes in float for which `holds` says yes: one node more at a time, the
/// first of them first. `None` if it never does.
///
/// # Errors
/// As [`quantize()`], and what `holds` fails with.
pub fn mixed<E: From<ModelError>>(
    model: &Model,
    ranges: &Ranges,
    target: Target,
    order: &[String],
    mut holds: impl FnMut(&Model) -> Result<bool, E>,
) -> Result<Option<Quantized>, E> {
    let mut float = BTreeSet::new();
    let mut next = order.iter();
    loop {
        let quantized = quantize_except(model, ranges, target, &float)?;
        if quantized.quantized_nodes == 0 {
            return Ok(None);
        }
        if holds(&quantized.model)? {
            return Ok(Some(quantized));
        }
        let Some(node) = next.next() else { return Ok(None) };
        float.insert(node.clone());
    }
}

/// Every float value of every example.
fn values(model: &Model, x: &Features) -> Result<BTreeMap<String, Vec<f32>>, ModelError> {
    let mut all: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    Examples::new(model, x)?.show(&mut |name, values| all.entry(name.to_owned()).or_default().extend_from_slice(values))?;
    Ok(all)
}

/// Root mean square of the differences as a share of the first of each pair; 0 where both are 0 throughout.
fn relative<'v>(pairs: impl Iterator<Item = (&'v Vec<f32>, &'v Vec<f32>)>) -> f64 {
    let (mut noise, mut signal) = (0.0, 0.0);
    for (truth, found) in pairs {
        for (t, f) in truth.iter().zip(found) {
            let (t, f) = (f64::from(*t), f64::from(*f));
            noise += (f - t) * (f - t);
            signal += t * t;
        }
    }
    if noise == 0.0 { 0.0 } else { (noise / signal.max(f64::MIN_POSITIVE)).sqrt() }
}

//! What a model costs: operations, memory, and what each node has to do with training and quantizing.

mod flops;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::ModelError;
use crate::interpreter::Unsupported;
use crate::interpreter::survey::{Seen, Survey, survey};
use crate::layout::{by_node, candidates};
use crate::onnx::{Dim, Element, Model, ValueInfo, label, pb};
use crate::quantize;
use crate::tensor::Tensor;

/// The report of [`cost()`]. What cannot be known is `None`, and [`Cost::unknown`] or [`Cost::axes`] says why.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cost {
    /// The examples that all figures are for: one, unless the graph has a fixed batch.
    pub examples: usize,
    /// Floating-point operations of inference: a multiply and an add are two, a dot product of n terms counts 2n, a function of one
    /// value 1, a move 0.
    pub flops: Option<u64>,
    /// Bytes of all tensors in the file, whatever their type.
    pub stored_bytes: usize,
    /// Most bytes of inputs, outputs and values between them at one moment of inference, without weights and without what an operator
    /// needs while it computes. A reshaped value lies where it lay.
    pub peak_bytes: Option<usize>,
    /// Bytes that a training step keeps of the examples for its gradient, at most: what nodes read and make behind the first one that is
    /// trained. Weights, gradients and the optimizer's state come on top.
    pub training_bytes: Option<usize>,
    /// The nodes in the order of the graph.
    pub nodes: Vec<NodeCost>,
    /// Nodes whose operations or shapes are not known, each with the reason.
    pub unknown: Vec<Unsupported>,
    /// Axes that have no extent in the file, other than the examples', and were given none: nothing is known but bytes and parameters.
    pub axes: Vec<String>,
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeCost {
    /// As [`crate::onnx::label`] prints it.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// Type and shape of each output, where known.
    pub outputs: Vec<Option<(Element, Vec<usize>)>>,
    /// Values of the parameters that it reads. Those of a tensor that several nodes read count in each.
    pub parameters: usize,
    /// Those of them that gradients change when nothing is frozen.
    pub trained: usize,
    /// Floating-point operations; 0 for what is computed once, before any example comes.
    pub flops: Option<u64>,
    /// Whether it computes on 8 bits after [`quantize::quantize`] for a common processor; `None` if it is gone by then: folded into another node,
    /// computed in advance, or no operation.
    pub quantized: Option<bool>,
}

/// What one example, or a fixed batch of them, costs. The graph runs once, on ones.
///
/// `axes` gives extents to dynamic axes other than the examples', by their symbols in the file, or as `input:1` (the axis, from 0) where
/// they have none.
///
/// # Errors
/// [`ModelError::Setting`] for an axis that the model does not have; [`ModelError`] for initializers that cannot be read.
pub fn cost(model: &Model, axes: &BTreeMap<String, usize>) -> Result<Cost, ModelError> {
    let graph = model.graph();
    let extents = Extents::new(model, axes)?;
    let sizes: BTreeMap<String, usize> = candidates(model)?.into_iter().map(|(name, _, tensor)| (name, tensor.numel())).collect();
    let parameters = by_node(graph)?;
    let mut nodes = Vec::with_capacity(graph.node.len());
    for (node, read) in graph.node.iter().zip(&parameters) {
        let distinct: BTreeMap<&str, bool> = read.iter().map(|(name, role)| (name.as_str(), role.is_trained())).collect();
        let count = |all: bool| distinct.iter().filter(|(_, trained)| all || **trained).filter_map(|(name, _)| sizes.get(*name)).sum();
        nodes.push(NodeCost {
            node: label(node),
            op: node.op_type().to_owned(),
            outputs: vec![None; node.output.len()],
            parameters: count(true),
            trained: count(false),
            flops: None,
            quantized: None,
        });
    }
    let mut found = Cost { stored_bytes: stored(graph), nodes, axes: extents.missing.clone(), ..Cost::default() };
    let Some(inputs) = extents.ones(&model.inputs()) else { return Ok(found) };
    found.examples = inputs.first().and_then(|x| x.shape.first().copied()).unwrap_or(1);
    let declared = extents.declared(graph);
    let trains = |index: usize| found.nodes.get(index).is_some_and(|node: &NodeCost| node.trained > 0);
    let surveyed = survey(model, inputs.clone(), &trains, &|name| declared.get(name).cloned())?;
    found.fill(surveyed);
    let names: Vec<String> = model.inputs().into_iter().map(|input| input.name).collect();
    let named: Vec<(&str, Tensor)> = names.iter().map(String::as_str).zip(inputs).collect();
    if let Ok(quantized) = quantize::preview(model, &named) {
        for node in &mut found.nodes {
            node.quantized = quantized.get(&node.node).copied();
        }
    }
    Ok(found)
}

impl Cost {
    fn fill(&mut self, survey: Survey) {
        (self.peak_bytes, self.training_bytes) = (survey.peak, survey.kept);
        for (node, surveyed) in self.nodes.iter_mut().zip(survey.nodes) {
            let shape = |seen: Option<Seen>| seen.map(|seen| (seen.element, seen.shape));
            node.outputs = surveyed.outputs.into_iter().map(shape).collect();
            let lost = surveyed.fault.is_some() && surveyed.ran.is_empty();
            node.flops = if lost { None } else { surveyed.ran.iter().map(flops::flops).sum() };
            let reason = surveyed.fault.or_else(|| node.flops.is_none().then(|| "its operations are not counted".to_owned()));
            self.unknown.extend(reason.map(|reason| Unsupported { node: node.node.clone(), op: node.op.clone(), reason }));
        }
        self.flops = self.nodes.iter().map(|node| node.flops).sum();
    }
}

fn stored(graph: &pb::GraphProto) -> usize {
    let held = graph.initializer.iter().chain(graph.node.iter().flat_map(|n| &n.attribute).filter_map(|a| a.t.as_ref()));
    held.map(|tensor| {
        let typed = 4 * (tensor.float_data.len() + tensor.int32_data.len())
            + 8 * (tensor.int64_data.len() + tensor.double_data.len() + tensor.uint64_data.len());
        tensor.raw_data.as_ref().map_or(typed, Vec::len)
    })
    .sum()
}

/// Extents of symbolic axes.
struct Extents {
    by_symbol: BTreeMap<String, usize>,
    missing: Vec<String>,
}

impl Extents {
    fn new(model: &Model, given: &BTreeMap<String, usize>) -> Result<Self, ModelError> {
        let inputs = model.inputs();
        let open = inputs.iter().flat_map(|input| {
            let symbols = input.shape.iter().enumerate().filter_map(|(at, dim)| match dim {
                Dim::Symbol(symbol) => Some((at, axis_name(&input.name, at, symbol))),
                Dim::Fixed(_) => None,
            });
            symbols.collect::<Vec<_>>()
        });
        let open: Vec<(usize, String)> = open.collect();
        let known: BTreeSet<&str> = open.iter().map(|(_, name)| name.as_str()).collect();
        if let Some((name, extent)) = given.iter().find(|(name, extent)| !known.contains(name.as_str()) || **extent == 0) {
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            let reason =
                format!("an extent above 0 for one of the dynamic axes: {}", if known.is_empty() { "there is none" } else { &known });
            return Err(ModelError::Setting { name: "axis", value: format!("{name}={extent}"), reason });
        }
        let mut by_symbol: BTreeMap<String, usize> = open.iter().filter(|(at, _)| *at == 0).map(|(_, name)| (name.clone(), 1)).collect();
        by_symbol.extend(given.clone());
        let missing: BTreeSet<String> = open.into_iter().map(|(_, name)| name).filter(|name| !by_symbol.contains_key(name)).collect();
        Ok(Self { by_symbol, missing: missing.into_iter().collect() })
    }

    fn resolve(&self, value: &ValueInfo) -> Option<Seen> {
        let extent = |(at, dim): (usize, &Dim)| match dim {
            Dim::Fixed(n) => Some(*n),
            Dim::Symbol(symbol) => self.by_symbol.get(&axis_name(&value.name, at, symbol)).copied(),
        };
        let shape = value.shape.iter().enumerate().map(extent).collect::<Option<_>>()?;
        Some(Seen { element: value.element, shape })
    }

    /// An example of ones, in the order of the inputs.
    fn ones(&self, inputs: &[ValueInfo]) -> Option<Vec<Tensor>> {
        inputs.iter().map(|input| self.resolve(input)?.ones()).collect()
    }

    /// The values whose shapes the file declares.
    fn declared(&self, graph: &pb::GraphProto) -> BTreeMap<String, Seen> {
        let ranked = |value: &&pb::ValueInfoProto| {
            use pb::type_proto::Value::TensorType;
            let of = value.r#type.as_ref().and_then(|t| t.value.as_ref());
            matches!(of, Some(TensorType(tensor)) if tensor.shape.is_some())
        };
        let values = graph.value_info.iter().chain(&graph.output).filter(ranked).map(crate::onnx::value_info);
        values.filter_map(|value| Some((value.name.clone(), self.resolve(&value)?))).collect()
    }
}

/// The symbol, or the place of an axis that has none.
fn axis_name(value: &str, at: usize, symbol: &str) -> String {
    if symbol.is_empty() { format!("{value}:{at}") } else { symbol.to_owned() }
}

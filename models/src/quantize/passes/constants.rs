//! Constants: `Constant` nodes become initializers, and what only constants feed is computed.

use std::collections::{HashMap, HashSet};

use crate::ModelError;
use crate::forward::Forward;
use crate::onnx::{Attributes, Element, Model, constant, is_standard, pb, write_tensor};
use crate::tensor::Tensor;

use super::graph;

/// Never computed ahead: what is drawn anew each time, and pairs that say where 8 bits are meant.
const NEVER: [&str; 10] = [
    "Bernoulli",
    "DequantizeLinear",
    "Dropout",
    "DynamicQuantizeLinear",
    "Multinomial",
    "QuantizeLinear",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
];
/// A constant of more values than this, and than those it is computed from, is left to the device.
const MOST: usize = 1 << 16;

pub(super) fn to_initializers(proto: &mut pb::ModelProto) -> Result<(), ModelError> {
    let graph = graph(proto)?;
    let outputs: HashSet<String> = graph.output.iter().map(|o| o.name().to_owned()).collect();
    let mut kept = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node) {
        let name = node.output.first().cloned().unwrap_or_default();
        let is_constant = node.op_type() == "Constant" && !outputs.contains(&name);
        match is_constant.then(|| as_initializer(&node, &name)).transpose()?.flatten() {
            Some(tensor) => graph.initializer.push(tensor),
            None => kept.push(node),
        }
    }
    graph.node = kept;
    // An initializer that is also an input could be overridden; from here on it is fixed.
    let fixed: HashSet<&str> = graph.initializer.iter().map(|t| t.name()).collect();
    graph.input.retain(|v| !fixed.contains(v.name()));
    Ok(())
}

/// The value of a `Constant` node with its own element type, if it is a dense tensor.
fn as_initializer(node: &pb::NodeProto, name: &str) -> Result<Option<pb::TensorProto>, ModelError> {
    if let Some(tensor) = Attributes::of(node).get("value").and_then(|a| a.t.clone()) {
        return Ok(Some(pb::TensorProto { name: Some(name.to_owned()), ..tensor }));
    }
    // Strings and sparse constants have no dense tensor and stay nodes.
    let numeric = node.attribute.iter().any(|a| matches!(a.name(), "value_float" | "value_floats" | "value_int" | "value_ints"));
    if !numeric {
        return Ok(None);
    }
    Ok(constant(node)?.map(|tensor| write_tensor(name, &tensor)))
}

/// Computes nodes whose inputs are all constant, with the interpreter.
pub(super) fn fold(proto: &mut pb::ModelProto) -> Result<(), ModelError> {
    let mut graph = proto.graph.take().ok_or(ModelError::MissingGraph)?;
    let mut known: HashMap<String, pb::TensorProto> = graph.initializer.iter().map(|t| (t.name().to_owned(), t.clone())).collect();
    let outputs: HashSet<String> = graph.output.iter().map(|o| o.name().to_owned()).collect();
    let mut kept = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node) {
        let output = node.output.first().filter(|o| !outputs.contains(*o)).cloned();
        match output.and_then(|o| compute(proto, &node, &known, &o).map(|t| (o, t))) {
            Some((name, tensor)) => {
                let tensor = write_tensor(&name, &tensor);
                known.insert(name, tensor.clone());
                graph.initializer.push(tensor);
            }
            None => kept.push(node),
        }
    }
    graph.node = kept;
    proto.graph = Some(graph);
    Ok(())
}

/// The value of a node that reads constants only; `None` where it cannot be computed.
fn compute(shell: &pb::ModelProto, node: &pb::NodeProto, known: &HashMap<String, pb::TensorProto>, output: &str) -> Option<Tensor> {
    let plain = node.attribute.iter().all(|attribute| attribute.g.is_none() && attribute.graphs.is_empty());
    let foldable = plain && is_standard(node.domain()) && !NEVER.contains(&node.op_type());
    if !foldable || node.output.len() != 1 || node.input.is_empty() {
        return None;
    }
    let mut read = 0;
    let mut initializer: Vec<pb::TensorProto> = Vec::new();
    for name in node.input.iter().filter(|n| !n.is_empty()) {
        let tensor = known.get(name)?;
        if !matches!(Element::from_onnx(tensor.data_type()), Element::F32 | Element::I64 | Element::I32 | Element::Bool) {
            return None;
        }
        read += tensor.dims.iter().map(|dim| usize::try_from(*dim).unwrap_or(0)).product::<usize>();
        if initializer.iter().all(|t| t.name() != name) {
            initializer.push(tensor.clone());
        }
    }
    let graph = pb::GraphProto {
        node: vec![node.clone()],
        initializer,
        output: vec![pb::ValueInfoProto { name: Some(output.to_owned()), ..Default::default() }],
        ..Default::default()
    };
    let single = Model::new(pb::ModelProto { graph: Some(graph), ..shell.clone() }).ok()?;
    let (_, tensor) = Forward::new(&single).ok()?.run(&[]).ok()?.into_iter().next()?;
    Some(tensor).filter(|tensor| tensor.numel() <= MOST.max(read))
}

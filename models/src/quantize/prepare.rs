//! Rewrites before quantization, each leaving the graph's function as it is: constants
//! become initializers, no-ops go, constant subgraphs are computed, batch normalization
//! is folded into the convolution or matrix product before it.

use std::collections::{HashMap, HashSet};

use crate::ModelError;
use crate::forward::Forward;
use crate::onnx::edit::{fresh, names, readers, replace_input, sweep};
use crate::onnx::{Attributes, Element, Model, constant, is_standard, pb, read_tensor, write_tensor};
use crate::tensor::{Tensor, TensorData};

/// Operators worth computing ahead when all their inputs are constant.
const FOLDABLE: [&str; 16] = [
    "Transpose",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Concat",
    "Slice",
    "Gather",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Sqrt",
    "Neg",
    "Expand",
    "Shape",
];

/// The graph as the quantizer reads it. Names of values that remain are kept; the same
/// model always gives the same graph.
pub(super) fn prepare(model: &Model) -> Result<Model, ModelError> {
    let mut proto = model.proto().clone();
    let graph = proto.graph.as_mut().ok_or(ModelError::MissingGraph)?;
    constants_to_initializers(graph)?;
    drop_noops(graph);
    let mut proto = fold_constants(proto)?;
    let graph = proto.graph.as_mut().ok_or(ModelError::MissingGraph)?;
    fold_batch_norms(graph)?;
    sweep(graph);
    Model::new(proto)
}

fn constants_to_initializers(graph: &mut pb::GraphProto) -> Result<(), ModelError> {
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

/// Removes `Identity` and inference-time `Dropout`.
fn drop_noops(graph: &mut pb::GraphProto) {
    let mut index = 0;
    while index < graph.node.len() {
        if is_noop(&graph.node[index], graph) && bypass(graph, index) {
            graph.node.remove(index);
        } else {
            index += 1;
        }
    }
}

fn is_noop(node: &pb::NodeProto, graph: &pb::GraphProto) -> bool {
    if !is_standard(node.domain()) {
        return false;
    }
    match node.op_type() {
        "Identity" => true,
        "Dropout" => {
            let read = readers(graph);
            node.input.len() < 3 && node.output.iter().skip(1).all(|o| !read.contains_key(o))
        }
        _ => false,
    }
}

/// Joins a node's input and output into one value; false if both names must stay.
fn bypass(graph: &mut pb::GraphProto, index: usize) -> bool {
    let node = &graph.node[index];
    let (Some(input), Some(output)) = (node.input.first().cloned(), node.output.first().cloned()) else {
        return false;
    };
    let is_output = |name: &str| graph.output.iter().any(|o| o.name() == name);
    if !is_output(&output) {
        graph.node.iter_mut().for_each(|n| replace_input(n, &output, &input));
        return true;
    }
    let maker = graph.node.iter().position(|n| n.output.contains(&input));
    let Some(maker) = maker.filter(|_| !is_output(&input)) else { return false };
    for name in graph.node[maker].output.iter_mut().filter(|o| **o == input) {
        name.clone_from(&output);
    }
    graph.node.iter_mut().for_each(|n| replace_input(n, &input, &output));
    true
}

/// Computes nodes whose inputs are all constant, with the interpreter.
fn fold_constants(mut proto: pb::ModelProto) -> Result<pb::ModelProto, ModelError> {
    let mut graph = proto.graph.take().ok_or(ModelError::MissingGraph)?;
    let mut known: HashMap<String, pb::TensorProto> = graph.initializer.iter().map(|t| (t.name().to_owned(), t.clone())).collect();
    let outputs: HashSet<String> = graph.output.iter().map(|o| o.name().to_owned()).collect();
    let mut kept = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node) {
        let output = node.output.first().filter(|o| !outputs.contains(*o)).cloned();
        match output.and_then(|o| compute(&proto, &node, &known, &o).map(|t| (o, t))) {
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
    Ok(proto)
}

/// The value of a node that reads constants only; `None` where it cannot be computed.
fn compute(shell: &pb::ModelProto, node: &pb::NodeProto, known: &HashMap<String, pb::TensorProto>, output: &str) -> Option<Tensor> {
    let foldable = is_standard(node.domain()) && FOLDABLE.contains(&node.op_type());
    if !foldable || node.output.len() != 1 || node.input.is_empty() {
        return None;
    }
    let mut initializer: Vec<pb::TensorProto> = Vec::new();
    for name in node.input.iter().filter(|n| !n.is_empty()) {
        let tensor = known.get(name)?;
        if !matches!(Element::from_onnx(tensor.data_type()), Element::F32 | Element::I64) {
            return None;
        }
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
    Some(tensor)
}

/// A batch normalization as one factor and one offset for each channel.
struct Norm {
    factor: Vec<f64>,
    offset: Vec<f64>,
}

fn fold_batch_norms(graph: &mut pb::GraphProto) -> Result<(), ModelError> {
    let read = readers(graph);
    let outputs: HashSet<String> = graph.output.iter().map(|o| o.name().to_owned()).collect();
    let mut taken = names(graph);
    let mut index = 0;
    while index < graph.node.len() {
        let node = &graph.node[index];
        let is_norm = node.op_type() == "BatchNormalization" && is_standard(node.domain());
        let source = node.input.first().filter(|i| read.get(*i) == Some(&1) && !outputs.contains(*i));
        let maker = source.and_then(|i| graph.node.iter().position(|n| n.output.first() == Some(i)));
        if is_norm
            && let Some(maker) = maker
            && let Some(norm) = norm(graph, index)?
            && fold_into(graph, maker, &norm, &mut taken)?
        {
            let output = graph.node[index].output[0].clone();
            graph.node[maker].output[0] = output;
            graph.node.remove(index);
        } else {
            index += 1;
        }
    }
    Ok(())
}

/// The constants of an inference-time batch normalization, if they are constant.
fn norm(graph: &pb::GraphProto, index: usize) -> Result<Option<Norm>, ModelError> {
    let node = &graph.node[index];
    let epsilon = f64::from(Attributes::of(node).float("epsilon", 1e-5)?);
    let mut parts = Vec::with_capacity(4);
    for name in node.input.iter().skip(1) {
        let Some(values) = float_constant(graph, name)? else { return Ok(None) };
        parts.push(values);
    }
    let [scale, bias, mean, var] = parts.as_slice() else { return Ok(None) };
    let channels = scale.numel();
    if [bias, mean, var].iter().any(|t| t.numel() != channels) || node.output.len() != 1 {
        return Ok(None);
    }
    let of = |t: &Tensor| t.as_f32().unwrap_or_default().iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
    let (scale, bias, mean, var) = (of(scale), of(bias), of(mean), of(var));
    let factor: Vec<f64> = scale.iter().zip(&var).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
    let offset = bias.iter().zip(&mean).zip(&factor).map(|((b, m), f)| b - m * f).collect();
    Ok(Some(Norm { factor, offset }))
}

/// Multiplies the weights of a `Conv` or `Gemm`; false if its form does not allow it.
fn fold_into(graph: &mut pb::GraphProto, maker: usize, norm: &Norm, taken: &mut HashSet<String>) -> Result<bool, ModelError> {
    let node = &graph.node[maker];
    let attributes = Attributes::of(node);
    let (axis, beta) = match node.op_type() {
        "Conv" => (0, 1.0),
        "Gemm" => (usize::from(attributes.int("transB", 0)? == 0), f64::from(attributes.float("beta", 1.0)?)),
        _ => return Ok(false),
    };
    let channels = norm.factor.len();
    let Some(weight) = node.input.get(1).map(|n| float_constant(graph, n)).transpose()?.flatten() else {
        return Ok(false);
    };
    if weight.shape.get(axis) != Some(&channels) {
        return Ok(false);
    }
    let bias = match node.input.get(2).filter(|n| !n.is_empty()) {
        None => vec![0.0; channels],
        Some(name) => match float_constant(graph, name)? {
            Some(t) if t.numel() == channels => t.as_f32().unwrap_or_default().iter().map(|v| beta * f64::from(*v)).collect(),
            _ => return Ok(false),
        },
    };
    let folded = scale_axis(&weight, axis, &norm.factor);
    let bias: Vec<f32> = bias.iter().zip(norm.factor.iter().zip(&norm.offset)).map(|(b, (f, o))| (b * f + o) as f32).collect();
    let bias = Tensor { shape: vec![channels], data: TensorData::F32(bias) };
    // New names, because other nodes may read the old tensors; unread ones are swept.
    let stem = node.input[1].clone();
    let weight_name = fresh(format!("{stem}_folded"), taken);
    let bias_name = fresh(format!("{stem}_folded_bias"), taken);
    graph.initializer.push(write_tensor(&weight_name, &folded));
    graph.initializer.push(write_tensor(&bias_name, &bias));
    let node = &mut graph.node[maker];
    node.input.resize(3, String::new());
    node.input[1] = weight_name;
    node.input[2] = bias_name;
    if node.op_type() == "Gemm" {
        node.attribute.retain(|a| a.name() != "beta");
    }
    Ok(true)
}

/// Multiplies each slice along `axis` by its factor.
fn scale_axis(tensor: &Tensor, axis: usize, factor: &[f64]) -> Tensor {
    let inner: usize = tensor.shape[axis + 1..].iter().product();
    let values = tensor.as_f32().unwrap_or_default();
    let scaled = values.iter().enumerate().map(|(i, v)| (f64::from(*v) * factor[i / inner.max(1) % factor.len()]) as f32).collect();
    Tensor { shape: tensor.shape.clone(), data: TensorData::F32(scaled) }
}

/// An f32 initializer's value.
fn float_constant(graph: &pb::GraphProto, name: &str) -> Result<Option<Tensor>, ModelError> {
    let found = graph.initializer.iter().find(|t| t.name() == name);
    let float = found.filter(|t| t.data_type() == Element::F32.to_onnx());
    float.map(read_tensor).transpose()
}

//! Batch normalization joins the convolution or matrix product before it.

use std::collections::HashSet;

use crate::ModelError;
use crate::onnx::edit::{fresh, names, readers};
use crate::onnx::{Attributes, Element, is_standard, pb, read_tensor, write_tensor};
use crate::tensor::{Tensor, TensorData};

use super::graph;

/// A batch normalization as one factor and one offset for each channel.
struct Norm {
    factor: Vec<f64>,
    offset: Vec<f64>,
}

pub(super) fn fold(proto: &mut pb::ModelProto) -> Result<(), ModelError> {
    let graph = graph(proto)?;
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

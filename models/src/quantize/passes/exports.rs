//! What exporters leave in a graph and no device needs.

use std::collections::HashMap;

use crate::ModelError;
use crate::onnx::edit::{fresh, names, readers};
use crate::onnx::{is_standard, make, pb};

use super::graph;

/// Their output has the type of their first input.
const TYPE_OF_FIRST: [&str; 18] = [
    "Add",
    "Clip",
    "Concat",
    "Div",
    "Expand",
    "Flatten",
    "Gather",
    "Gemm",
    "Identity",
    "MatMul",
    "Mul",
    "Relu",
    "Reshape",
    "Slice",
    "Squeeze",
    "Sub",
    "Transpose",
    "Unsqueeze",
];

/// Drops notes: where in the program of its author a node comes from. They can be larger than the weights.
pub(super) fn drop_notes(proto: &mut pb::ModelProto) -> Result<(), ModelError> {
    let graph = graph(proto)?;
    graph.doc_string = None;
    graph.metadata_props.clear();
    for node in &mut graph.node {
        node.doc_string = None;
        node.metadata_props.clear();
    }
    for tensor in &mut graph.initializer {
        tensor.doc_string = None;
        tensor.metadata_props.clear();
    }
    for value in graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info) {
        value.doc_string = None;
        value.metadata_props.clear();
    }
    Ok(())
}

/// `CastLike` takes no more than a type from its second input: where that is known, it is a `Cast`, which can be computed ahead.
pub(super) fn name_types(proto: &mut pb::ModelProto) -> Result<(), ModelError> {
    let graph = graph(proto)?;
    let declared = graph.input.iter().chain(&graph.output).chain(&graph.value_info);
    let mut types: HashMap<String, i32> = declared.filter_map(|value| Some((value.name().to_owned(), element(value)?))).collect();
    types.extend(graph.initializer.iter().map(|tensor| (tensor.name().to_owned(), tensor.data_type())));
    for node in graph.node.iter_mut().filter(|node| is_standard(node.domain())) {
        let of = |input: usize| node.input.get(input).and_then(|input| types.get(input)).copied();
        if TYPE_OF_FIRST.contains(&node.op_type()) {
            let made = of(0).zip(node.output.first().cloned());
            types.extend(made.map(|(element, output)| (output, element)));
        } else if node.op_type() == "CastLike"
            && let Some(to) = of(1)
        {
            node.op_type = Some("Cast".into());
            node.input.truncate(1);
            node.attribute.push(make::int("to", i64::from(to)));
            types.extend(node.output.first().map(|output| (output.clone(), to)));
        }
    }
    Ok(())
}

fn element(value: &pb::ValueInfoProto) -> Option<i32> {
    match value.r#type.as_ref()?.value.as_ref()? {
        pb::type_proto::Value::TensorType(tensor) => tensor.elem_type.filter(|element| *element != 0),
        _ => None,
    }
}

/// `HardSwish(x)` as `x · HardSigmoid(x)` with slope 1/6 (Howard et al. 2019, section 5.2): runtimes have no kernel for it and do the
/// same, but after the quantizer has gone past it.
pub(super) fn expand_hard_swish(proto: &mut pb::ModelProto) -> Result<(), ModelError> {
    let graph = graph(proto)?;
    let mut taken = names(graph);
    let mut expanded = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node) {
        match (node.op_type(), node.input.as_slice(), node.output.as_slice()) {
            ("HardSwish", [x], [y]) if is_standard(node.domain()) => {
                let gate = fresh(format!("{y}_gate"), &mut taken);
                let slope = vec![make::float("alpha", 1.0 / 6.0), make::float("beta", 0.5)];
                expanded.push(make::node("HardSigmoid", &gate, &[x], &[&gate], slope));
                expanded.push(pb::NodeProto { op_type: Some("Mul".into()), input: vec![x.clone(), gate.clone()], ..node.clone() });
            }
            _ => expanded.push(node),
        }
    }
    graph.node = expanded;
    Ok(())
}

/// Removes operators whose outputs nothing reads.
pub(super) fn drop_unread(proto: &mut pb::ModelProto) -> Result<(), ModelError> {
    let graph = graph(proto)?;
    loop {
        let read = readers(graph);
        let before = graph.node.len();
        graph.node.retain(|node| node.output.iter().any(|output| read.contains_key(output)));
        if graph.node.len() == before {
            return Ok(());
        }
    }
}

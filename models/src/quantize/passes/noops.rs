//! Nodes that hand their input on.

use crate::ModelError;
use crate::onnx::edit::{readers, replace_input};
use crate::onnx::{is_standard, pb};

use super::graph;

/// Removes `Identity` and inference-time `Dropout`.
pub(super) fn remove(proto: &mut pb::ModelProto) -> Result<(), ModelError> {
    let graph = graph(proto)?;
    let mut index = 0;
    while index < graph.node.len() {
        if is_noop(&graph.node[index], graph) && bypass(graph, index) {
            graph.node.remove(index);
        } else {
            index += 1;
        }
    }
    Ok(())
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

//! Nodes that hand their input on.

use std::collections::{HashMap, HashSet};

use crate::ModelError;
use crate::onnx::edit::{readers, replace_inputs};
use crate::onnx::{is_standard, pb};

use super::graph;

/// Removes `Identity` and inference-time `Dropout`.
pub(super) fn remove(proto: &mut pb::ModelProto) -> Result<(), ModelError> {
    let graph = graph(proto)?;
    let read = readers(graph);
    let ends: HashSet<String> = graph.output.iter().map(|o| o.name().to_owned()).collect();
    // What goes, and what is read instead; chains are long, so all at once.
    let mut instead: HashMap<String, String> = HashMap::new();
    graph.node.retain(|node| {
        let (Some(input), Some(output)) = (node.input.first(), node.output.first()) else { return true };
        if !is_noop(node, &read) || input.is_empty() || ends.contains(output) {
            return true;
        }
        let source = instead.get(input).unwrap_or(input).clone();
        instead.insert(output.clone(), source);
        false
    });
    graph.node.iter_mut().for_each(|node| replace_inputs(node, &instead));
    let mut index = 0;
    while index < graph.node.len() {
        if is_noop(&graph.node[index], &read) && end(graph, index) {
            graph.node.remove(index);
        } else {
            index += 1;
        }
    }
    Ok(())
}

fn is_noop(node: &pb::NodeProto, read: &HashMap<String, usize>) -> bool {
    if !is_standard(node.domain()) {
        return false;
    }
    match node.op_type() {
        "Identity" => true,
        "Dropout" => node.input.len() < 3 && node.output.iter().skip(1).all(|o| !read.contains_key(o)),
        _ => false,
    }
}

/// Gives what a node of an output reads the output's name; false if both names must stay.
fn end(graph: &mut pb::GraphProto, index: usize) -> bool {
    let node = &graph.node[index];
    let (Some(input), Some(output)) = (node.input.first().cloned(), node.output.first().cloned()) else {
        return false;
    };
    let maker = graph.node.iter().position(|n| n.output.contains(&input));
    let Some(maker) = maker.filter(|_| !graph.output.iter().any(|o| o.name() == input)) else { return false };
    for name in graph.node[maker].output.iter_mut().filter(|o| **o == input) {
        name.clone_from(&output);
    }
    let instead = HashMap::from([(input, output)]);
    graph.node.iter_mut().for_each(|n| replace_inputs(n, &instead));
    true
}

//! What is computed twice is computed once: equal small constants, and equal operators on equal inputs.

use std::collections::{HashMap, HashSet};

use prost::Message as _;

use crate::ModelError;
use crate::onnx::edit::replace_input;
use crate::onnx::pb;

use super::graph;

/// Larger constants are weights, which are told apart by name.
const SMALL: usize = 64;
/// These give another answer each time.
const RANDOM: [&str; 7] = ["Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"];

/// Makes all readers of equal constants read the first of them.
pub(super) fn share_constants(proto: &mut pb::ModelProto) -> Result<(), ModelError> {
    let graph = graph(proto)?;
    let outputs = outputs(graph);
    let mut first: HashMap<Vec<u8>, String> = HashMap::new();
    let mut same: Vec<(String, String)> = Vec::new();
    for tensor in &graph.initializer {
        let nameless = pb::TensorProto { name: None, doc_string: None, ..tensor.clone() };
        if nameless.encoded_len() > SMALL || outputs.contains(tensor.name()) {
            continue;
        }
        let kept = first.entry(nameless.encode_to_vec()).or_insert_with(|| tensor.name().to_owned());
        if kept != tensor.name() {
            same.push((tensor.name().to_owned(), kept.clone()));
        }
    }
    for (name, kept) in same {
        graph.node.iter_mut().for_each(|node| replace_input(node, &name, &kept));
    }
    Ok(())
}

/// Removes operators that repeat an earlier one.
pub(super) fn share_operators(proto: &mut pb::ModelProto) -> Result<(), ModelError> {
    let graph = graph(proto)?;
    let outputs = outputs(graph);
    let mut first: HashMap<Vec<u8>, Vec<String>> = HashMap::new();
    let mut index = 0;
    while index < graph.node.len() {
        let node = &graph.node[index];
        let pure = !RANDOM.contains(&node.op_type()) && node.attribute.iter().all(|a| a.g.is_none() && a.graphs.is_empty());
        if !pure || node.output.iter().any(|output| outputs.contains(output)) {
            index += 1;
            continue;
        }
        let key = pb::NodeProto { name: None, doc_string: None, output: vec![], metadata_props: vec![], ..node.clone() }.encode_to_vec();
        let made = node.output.clone();
        match first.get(&key) {
            Some(kept) if kept.len() == made.len() && kept.iter().zip(&made).all(|(kept, made)| kept.is_empty() == made.is_empty()) => {
                for (made, kept) in made.iter().zip(kept) {
                    graph.node.iter_mut().for_each(|node| replace_input(node, made, kept));
                }
                graph.node.remove(index);
            }
            _ => {
                first.entry(key).or_insert(made);
                index += 1;
            }
        }
    }
    Ok(())
}

fn outputs(graph: &pb::GraphProto) -> HashSet<String> {
    graph.output.iter().map(|output| output.name().to_owned()).collect()
}

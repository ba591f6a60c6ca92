//! What is computed twice is computed once: equal small constants, and equal operators on equal inputs.

use std::collections::{HashMap, HashSet};

use prost::Message as _;

use crate::ModelError;
use crate::onnx::edit::replace_inputs;
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
    let mut instead: HashMap<String, String> = HashMap::new();
    for tensor in &graph.initializer {
        let nameless = pb::TensorProto { name: None, doc_string: None, ..tensor.clone() };
        if nameless.encoded_len() > SMALL || outputs.contains(tensor.name()) {
            continue;
        }
        let kept = first.entry(nameless.encode_to_vec()).or_insert_with(|| tensor.name().to_owned());
        if kept != tensor.name() {
            instead.insert(tensor.name().to_owned(), kept.clone());
        }
    }
    graph.node.iter_mut().for_each(|node| replace_inputs(node, &instead));
    Ok(())
}

/// Removes operators that repeat an earlier one.
pub(super) fn share_operators(proto: &mut pb::ModelProto) -> Result<(), ModelError> {
    let graph = graph(proto)?;
    let outputs = outputs(graph);
    let mut first: HashMap<Vec<u8>, Vec<String>> = HashMap::new();
    let mut instead: HashMap<String, String> = HashMap::new();
    let nodes = std::mem::take(&mut graph.node);
    for mut node in nodes {
        replace_inputs(&mut node, &instead);
        let pure = !RANDOM.contains(&node.op_type()) && node.attribute.iter().all(|a| a.g.is_none() && a.graphs.is_empty());
        if pure && !node.output.iter().any(|output| outputs.contains(output)) {
            let key = pb::NodeProto { name: None, doc_string: None, output: vec![], metadata_props: vec![], ..node.clone() };
            let kept = first.entry(key.encode_to_vec()).or_insert_with(|| node.output.clone());
            let alike = kept.len() == node.output.len() && kept.iter().zip(&node.output).all(|(a, b)| a.is_empty() == b.is_empty());
            if alike && *kept != node.output {
                instead.extend(node.output.into_iter().zip(kept.iter().cloned()).filter(|(made, _)| !made.is_empty()));
                continue;
            }
        }
        graph.node.push(node);
    }
    Ok(())
}

fn outputs(graph: &pb::GraphProto) -> HashSet<String> {
    graph.output.iter().map(|output| output.name().to_owned()).collect()
}

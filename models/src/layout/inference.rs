//! Turns training-only forms of nodes into their inference form.

use std::collections::HashSet;

use crate::ModelError;
use crate::onnx::edit::readers;
use crate::onnx::{label, pb};

/// `BatchNormalization`: one output, no `training_mode`. `Dropout`: no `training_mode`
/// input, no mask.
pub(super) fn to_inference(graph: &mut pb::GraphProto) -> Result<(), ModelError> {
    let (mut dropped, mut unread) = (HashSet::new(), HashSet::new());
    for node in &mut graph.node {
        match node.op_type() {
            "BatchNormalization" => {
                node.attribute.retain(|a| a.name() != "training_mode");
                drop_outputs(node, &mut dropped);
            }
            "Dropout" => {
                unread.extend(node.input.split_off(node.input.len().min(2)));
                drop_outputs(node, &mut dropped);
            }
            _ => {}
        }
    }
    for node in &graph.node {
        if let Some(value) = node.input.iter().find(|i| dropped.contains(i.as_str())) {
            return Err(ModelError::Unsupported {
                node: label(node),
                op: node.op_type().to_owned(),
                reason: format!("it reads `{value}`, which exists only while training"),
            });
        }
    }
    // A training graph may list running statistics as outputs; inference has none.
    graph.output.retain(|o| !dropped.contains(o.name()));
    graph.value_info.retain(|v| !dropped.contains(v.name()));
    // The constants that said that a graph trains; ONNX Runtime warns of what nothing reads.
    let read = readers(graph);
    let gone = |name: &str| unread.contains(name) && !read.contains_key(name);
    graph.initializer.retain(|t| !gone(t.name()));
    graph.node.retain(|n| n.op_type() != "Constant" || !n.output.iter().any(|o| gone(o)));
    Ok(())
}

fn drop_outputs(node: &mut pb::NodeProto, dropped: &mut HashSet<String>) {
    let extra = node.output.split_off(node.output.len().min(1));
    dropped.extend(extra.into_iter().filter(|o| !o.is_empty()));
}

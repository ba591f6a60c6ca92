//! Turns training-only forms of nodes into their inference form.

use std::collections::HashSet;

use crate::onnx::edit::readers;
use crate::onnx::{Attributes, Model, constant, label, pb, read_tensor};
use crate::{ModelError, Tensor};

/// The nodes that other runtimes run as in training, as [`label`] prints them: `BatchNormalization` by the statistics of the batch, and
/// `Dropout` that drops. Here a graph trains or not as its caller says.
pub fn trains_when_run(model: &Model) -> Vec<String> {
    let graph = model.graph();
    // The one number of a constant, if it is one.
    let number = |name: &String| {
        let stored = graph.initializer.iter().find(|t| t.name() == name).and_then(|t| read_tensor(t).ok());
        let made = || graph.node.iter().find(|n| n.output.first() == Some(name)).and_then(|n| constant(n).ok().flatten());
        stored.or_else(made).as_ref().and_then(Tensor::first)
    };
    let trains = |node: &&pb::NodeProto| match node.op_type() {
        "BatchNormalization" => Attributes::of(node).int("training_mode", 0).is_ok_and(|mode| mode != 0),
        "Dropout" => {
            let [ratio, mode] = [1, 2].map(|at| node.input.get(at).and_then(number));
            mode.is_some_and(|mode| mode != 0.0) && ratio != Some(0.0)
        }
        _ => false,
    };
    graph.node.iter().filter(trains).map(label).collect()
}

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

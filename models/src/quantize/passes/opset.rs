//! Opsets 11 and 12 to 13, the first whose quantized weights have a scale for each channel.

use crate::ModelError;
use crate::Tensor;
use crate::onnx::{edit, is_standard, pb, write_tensor};

/// From this opset on nothing has to be changed.
const RAISED: i64 = 13;
/// Further back more operators mean something else.
const OLDEST: i64 = 11;

/// What 13 changes for an operator.
enum Change {
    Nothing,
    /// An attribute became the second operand.
    Operand(&'static str),
    /// It means something else, which this graph does not tell how to write.
    Unknown,
}

/// Raises the opset; a graph with an operator that it cannot take along stays as it is, and is refused by its opset later.
///
/// What changed: <https://github.com/onnx/onnx/blob/main/docs/Changelog.md>. The axes of Squeeze, Unsqueeze and ReduceSum and the
/// sizes of Split became operands; Softmax, LogSoftmax and Hardmax took everything from their axis on together, which is the
/// same where that is the last; Dropout of opset 11 has its ratio as an attribute. All others gained types or attributes.
pub(super) fn raise(proto: &mut pb::ModelProto) -> Result<(), ModelError> {
    let standard = proto.opset_import.iter_mut().find(|set| is_standard(set.domain()));
    let Some(set) = standard.filter(|set| (OLDEST..RAISED).contains(&set.version())) else { return Ok(()) };
    let graph = proto.graph.as_mut().ok_or(ModelError::MissingGraph)?;
    let changes: Vec<Change> = graph.node.iter().map(change).collect();
    if changes.iter().any(|change| matches!(change, Change::Unknown)) {
        return Ok(());
    }
    set.version = Some(RAISED);
    let mut taken = edit::names(graph);
    for (index, change) in changes.into_iter().enumerate() {
        let Change::Operand(name) = change else { continue };
        let node = &mut graph.node[index];
        let Some(at) = node.attribute.iter().position(|a| a.name() == name) else { continue };
        let list = node.attribute.remove(at).ints;
        let operand = edit::fresh(format!("{}_{name}", node.output.first().map_or("", String::as_str)), &mut taken);
        node.input.truncate(1);
        node.input.push(operand.clone());
        graph.initializer.push(write_tensor(&operand, &Tensor::i64([list.len()], list)?));
    }
    Ok(())
}

fn change(node: &pb::NodeProto) -> Change {
    // What a graph within a graph reads is left to those who made it.
    if node.attribute.iter().any(|a| a.g.is_some() || !a.graphs.is_empty()) {
        return Change::Unknown;
    }
    let last = || node.attribute.iter().any(|a| a.name() == "axis" && a.i() == -1);
    match node.op_type() {
        _ if !is_standard(node.domain()) => Change::Nothing,
        "Squeeze" | "Unsqueeze" | "ReduceSum" => Change::Operand("axes"),
        "Split" => Change::Operand("split"),
        "Softmax" | "LogSoftmax" | "Hardmax" if !last() => Change::Unknown,
        "Dropout" => Change::Unknown,
        _ => Change::Nothing,
    }
}

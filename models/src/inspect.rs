//! What a model is, for people: parameters, inputs, operators, and what stands in the way
//! of training it.

use std::collections::BTreeMap;

use crate::interpreter::{self, Unsupported};
use crate::layout::{candidates, trains_when_run, uses};
use crate::onnx::{Element, Model, ValueInfo, is_standard, label, pb};

/// The report of [`inspect()`].
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Values in the flat vector when nothing is frozen: weights and running statistics.
    pub parameters: usize,
    /// Those of them that gradients change.
    pub trainable: usize,
    /// Graph inputs that the caller gives.
    pub inputs: Vec<ValueInfo>,
    /// Graph outputs.
    pub outputs: Vec<ValueInfo>,
    /// Number of nodes by operator, with its domain where that is not the standard one.
    pub operators: BTreeMap<String, usize>,
    /// Nodes that cannot be trained, each with the reason.
    pub untrainable: Vec<Unsupported>,
    /// What trains, but perhaps not as its author expects.
    pub warnings: Vec<String>,
}

/// Describes a model without compiling or running it for training.
pub fn inspect(model: &Model) -> Inspection {
    let graph = model.graph();
    let mut operators = BTreeMap::new();
    for node in &graph.node {
        *operators.entry(qualified(node)).or_default() += 1;
    }
    let mut untrainable = interpreter::unsupported(model);
    untrainable.extend(graph.node.iter().filter_map(|node| foreign_weight(graph, node)));
    // A broken constant makes the roles unreadable; it is listed above by its node.
    let found = candidates(model).unwrap_or_default();
    Inspection {
        parameters: found.iter().map(|(_, _, t)| t.numel()).sum(),
        trainable: found.iter().filter(|(_, r, _)| r.is_trained()).map(|(_, _, t)| t.numel()).sum(),
        inputs: model.inputs(),
        outputs: model.outputs(),
        operators,
        untrainable,
        warnings: warnings(model),
    }
}

fn qualified(node: &pb::NodeProto) -> String {
    if is_standard(node.domain()) {
        return node.op_type().to_owned();
    }
    format!("{}:{}", node.domain(), node.op_type())
}

/// A layer whose weight is a float of another width, which is not trained.
fn foreign_weight(graph: &pb::GraphProto, node: &pb::NodeProto) -> Option<Unsupported> {
    if !matches!(node.op_type(), "Conv" | "ConvTranspose" | "Gemm" | "MatMul") {
        return None;
    }
    let weight = node.input.get(1)?;
    let tensor = graph.initializer.iter().find(|t| t.name() == weight)?;
    let element = Element::from_onnx(tensor.data_type());
    (element != Element::F32).then(|| Unsupported {
        node: label(node),
        op: node.op_type().to_owned(),
        reason: format!("its weight `{weight}` is {element:?}; export the model in float32"),
    })
}

fn warnings(model: &Model) -> Vec<String> {
    let graph = model.graph();
    let mut found = Vec::new();
    let mut tied: Vec<_> = uses(graph).unwrap_or_default().into_iter().filter(|(_, u)| u.slots > 1).collect();
    tied.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, used) in tied {
        found.push(format!(
            "`{name}` is the weight of {} places and trains as one; exporters also merge \
             tensors that merely start equal",
            used.slots
        ));
    }
    let anonymous = |name: &str| name.strip_prefix("val_").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if graph.initializer.iter().any(|t| anonymous(t.name())) {
        found.push(
            "weights are called val_N: the exporter rewrote them; export with optimize=False to \
             keep their names and shapes"
                .to_owned(),
        );
    }
    if let [first, others @ ..] = trains_when_run(model).as_slice() {
        let others = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
        found.push(format!("{first}{others} runs as in training elsewhere, until the model is trained here and written for inference"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo;

    fn edited(edit: impl FnOnce(&mut pb::GraphProto)) -> Inspection {
        let mut proto = zoo::mlp(4, &[3], 2, 0).into_proto();
        edit(proto.graph.as_mut().unwrap());
        inspect(&Model::new(proto).unwrap())
    }

    #[test]
    fn a_clean_model_is_described() {
        let report = inspect(&zoo::cnn([1, 8, 8], 10, 0));
        assert_eq!((report.parameters, report.trainable), (13_706, 13_706));
        assert_eq!(report.operators["Conv"], 2);
        assert_eq!(report.operators["Relu"], 3);
        assert_eq!(report.inputs[0].name, "input");
        assert_eq!(report.outputs[0].name, "logits");
        assert_eq!((report.untrainable, report.warnings), (vec![], vec![]));
    }

    #[test]
    fn an_operator_that_cannot_be_trained_is_named_with_its_node() {
        let report = edited(|g| g.node[1].op_type = Some("NonMaxSuppression".into()));
        let [bad] = report.untrainable.as_slice() else { panic!("{:?}", report.untrainable) };
        assert_eq!(bad.op, "NonMaxSuppression");
        assert!(bad.node.contains("fc1.relu"), "{bad:?}");
    }

    #[test]
    fn half_precision_weights_are_named() {
        let report = edited(|g| {
            let weight = &mut g.initializer[0];
            weight.data_type = Some(Element::F16.to_onnx());
            weight.raw_data = Some(vec![0; 24]);
        });
        assert!(report.untrainable.iter().any(|u| u.reason.contains("F16")), "{:?}", report.untrainable);
        assert_eq!(report.trainable, 3 + 6 + 2);
    }

    #[test]
    fn tied_and_renamed_weights_are_warned_about() {
        let report = edited(|g| {
            let mut second = g.node[0].clone();
            second.name = Some("again".into());
            second.output[0] = "unused".into();
            g.node.insert(1, second);
        });
        assert_eq!(report.warnings.len(), 2, "{:?}", report.warnings);
        let report = edited(|g| {
            g.initializer[0].name = Some("val_6".into());
            g.node[0].input[1] = "val_6".into();
        });
        assert!(report.warnings[0].contains("optimize=False"));
    }
}

//! Group normalization in the place of batch normalization (Wu and He 2018), for training by example.
//!
//! `BatchNormalization` brings the examples of a batch together when it trains. Groups of channels of one example do not, and the
//! affine part, which is kept, starts from where it was. The running statistics go; a model trained with them must be trained on.

use std::collections::{HashMap, HashSet};

use crate::ModelError;
use crate::onnx::pb::{self, attribute_proto::AttributeType};
use crate::onnx::{Attributes, Model, constant, edit, is_standard, label, make, write_tensor};
use crate::tensor::Tensor;

/// Most groups that are chosen, as in the paper.
const MOST_GROUPS: usize = 32;
/// Since then, scale and bias of `GroupNormalization` are those of the channels.
const BY_CHANNEL: i64 = 21;

/// What was put in the place of one `BatchNormalization`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normalized {
    /// The node, as [`crate::onnx::label`] prints it.
    pub node: String,
    /// Its channels.
    pub channels: usize,
    /// Groups that they are in now.
    pub groups: usize,
}

/// The model with a group normalization for each `BatchNormalization`: the operator from opset 21 on, and before, as exporters write
/// it, `InstanceNormalization` of the groups between two `Reshape`s, with `Mul` and `Add`. Without `groups` there are at most 32, and
/// at least two channels in each, which still differ where an example has one cell in a channel.
///
/// # Errors
/// [`ModelError::Setting`] if the model has no such node, or `groups` do not divide the channels of one; [`ModelError::Unsupported`]
/// for one whose scale is no constant or whose statistics another node reads.
pub fn group_norm(model: &Model, groups: Option<usize>) -> Result<(Model, Vec<Normalized>), ModelError> {
    let setting = |value: String, reason: String| Err(ModelError::Setting { name: "groups", value, reason });
    let mut proto = model.proto().clone();
    let opset = model.opset();
    let graph = proto.graph.as_mut().ok_or(ModelError::MissingGraph)?;
    let channels = channels(graph)?;
    let readers = edit::readers(graph);
    let mut taken = edit::names(graph);
    let (mut nodes, mut found) = (Vec::with_capacity(graph.node.len()), Vec::new());
    for mut node in std::mem::take(&mut graph.node) {
        if node.op_type() != "BatchNormalization" || !is_standard(node.domain()) {
            nodes.push(node);
            continue;
        }
        let refuse =
            |reason: &str| ModelError::Unsupported { node: label(&node), op: "BatchNormalization".to_owned(), reason: reason.to_owned() };
        if node.output.iter().skip(1).any(|name| readers.contains_key(name)) {
            return Err(refuse("another node reads its statistics"));
        }
        if Attributes::of(&node).int("spatial", 1)? == 0 {
            return Err(refuse("it has a scale for each cell; export it with spatial = 1"));
        }
        let of_scale = node.input.get(1).and_then(|scale| channels.get(scale)).copied();
        let channels = of_scale.filter(|n| *n > 0).ok_or_else(|| refuse("its scale is no constant with a value for each channel"))?;
        let groups = match groups {
            Some(groups) if groups == 0 || !channels.is_multiple_of(groups) => {
                return setting(groups.to_string(), format!("{} has {channels} channels, which it does not divide", label(&node)));
            }
            Some(groups) => groups,
            None => (1..=MOST_GROUPS.min(channels / 2)).rev().find(|n| channels.is_multiple_of(*n)).unwrap_or(1),
        };
        found.push(Normalized { node: label(&node), channels, groups });
        let epsilon: Vec<pb::AttributeProto> = Attributes::of(&node).get("epsilon").cloned().into_iter().collect();
        if opset >= BY_CHANNEL {
            node.op_type = Some("GroupNormalization".to_owned());
            node.input.truncate(3);
            node.output.truncate(1);
            node.attribute = epsilon;
            node.attribute.push(make::int("num_groups", groups as i64));
            nodes.push(node);
        } else {
            nodes.extend(spelled_out(&node, [channels, groups], epsilon, &mut taken)?);
        }
    }
    graph.node = nodes;
    if found.is_empty() {
        return setting("group".to_owned(), "the model has no BatchNormalization".to_owned());
    }
    let before: HashSet<String> = graph.initializer.iter().map(|t| t.name().to_owned()).collect();
    edit::sweep(graph);
    // Old files list their initializers as inputs, too.
    let kept: HashSet<&str> = graph.initializer.iter().map(|t| t.name()).collect();
    graph.input.retain(|input| !before.contains(input.name()) || kept.contains(input.name()));
    Ok((Model::new(proto)?, found))
}

/// Lengths of the one-dimensional constants, by name.
fn channels(graph: &pb::GraphProto) -> Result<HashMap<String, usize>, ModelError> {
    let mut found = HashMap::new();
    for tensor in &graph.initializer {
        if let [n] = tensor.dims[..] {
            found.insert(tensor.name().to_owned(), usize::try_from(n).unwrap_or(0));
        }
    }
    for node in &graph.node {
        if let (Some(output), Some(Tensor { shape, .. })) = (node.output.first(), constant(node)?)
            && let [n] = shape[..]
        {
            found.insert(output.clone(), n);
        }
    }
    Ok(found)
}

/// `[batch, groups, ...]` to mean 0 and variance 1, then `[batch, channels, ...]` times scale plus bias, then the shape as it was.
fn spelled_out(
    node: &pb::NodeProto,
    [channels, groups]: [usize; 2],
    epsilon: Vec<pb::AttributeProto>,
    taken: &mut HashSet<String>,
) -> Result<Vec<pb::NodeProto>, ModelError> {
    let [x, scale, bias] = [0, 1, 2].map(|i| node.input[i].as_str());
    let prefix = if node.name().is_empty() { &node.output[0] } else { node.name() };
    let mut name = |part: &str| edit::fresh(format!("{prefix}/{part}"), taken);
    let value = |tensor: &Tensor| pb::AttributeProto {
        name: Some("value".to_owned()),
        r#type: Some(AttributeType::Tensor as i32),
        t: Some(write_tensor("", tensor)),
        ..Default::default()
    };
    let mut made = Vec::new();
    let mut add = |op: &str, part: &str, inputs: &[&str], attributes: Vec<pb::AttributeProto>| {
        let output = name(part);
        made.push(make::node(op, &output, inputs, &[&output], attributes));
        output
    };
    let list = |values: &[i64]| Tensor::i64([values.len()], values.to_vec()).map(|tensor| vec![value(&tensor)]);
    let fill = |filled: f32| Tensor::f32([1], vec![filled]).map(|tensor| vec![value(&tensor)]);
    let in_groups = add("Constant", "in_groups", &[], list(&[0, groups as i64, -1])?);
    let in_channels = add("Constant", "in_channels", &[], list(&[0, channels as i64, -1])?);
    let column = add("Constant", "column", &[], list(&[-1, 1])?);
    let count = add("Constant", "count", &[], list(&[groups as i64])?);
    // Made by nodes, so that they are no parameters.
    let ones = add("ConstantOfShape", "ones", &[&count], fill(1.0)?);
    let zeros = add("ConstantOfShape", "zeros", &[&count], fill(0.0)?);
    let shape = add("Shape", "shape", &[x], vec![]);
    let grouped = add("Reshape", "grouped", &[x, &in_groups], vec![]);
    let even = add("InstanceNormalization", "even", &[&grouped, &ones, &zeros], epsilon);
    let even = add("Reshape", "channels", &[&even, &in_channels], vec![]);
    let scale = add("Reshape", "scale", &[scale, &column], vec![]);
    let scaled = add("Mul", "scaled", &[&even, &scale], vec![]);
    let bias = add("Reshape", "bias", &[bias, &column], vec![]);
    let shifted = add("Add", "shifted", &[&scaled, &bias], vec![]);
    made.push(make::node("Reshape", prefix, &[&shifted, &shape], &[&node.output[0]], vec![]));
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{Optimizer, TrainConfig, Trainer};
    use crate::{Dataset, Features, Forward, Role, Targets, parameters, zoo};

    /// The zoo's, said to be of another opset; its operators are alike in all of these.
    fn mobilenet(opset: i64) -> Model {
        let mut proto = zoo::mobilenet([3, 16, 16], 4, 3).into_proto();
        proto.opset_import[0].version = Some(opset);
        Model::new(proto).unwrap()
    }

    fn images(n: usize) -> Features {
        Tensor::f32([n, 3, 16, 16], (0..n * 768).map(|i| (i as f32 * 0.37).sin()).collect()).unwrap().into()
    }

    /// Spelled out or as an operator, it computes the same, and what trained before but the statistics trains still.
    #[test]
    fn both_forms_are_one_function_of_the_same_parameters() {
        let (new, found) = group_norm(&mobilenet(21), None).unwrap();
        let (old, same) = group_norm(&mobilenet(17), None).unwrap();
        assert_eq!(found, same);
        assert!(found.len() > 10 && found.iter().all(|n| n.groups <= 32 && n.channels % n.groups == 0 && n.channels / n.groups >= 2));
        let count = |model: &Model, op: &str| model.graph().node.iter().filter(|n| n.op_type() == op).count();
        assert_eq!((count(&new, "GroupNormalization"), count(&old, "GroupNormalization")), (found.len(), 0));
        assert_eq!((count(&new, "BatchNormalization"), count(&old, "BatchNormalization")), (0, 0));
        assert_eq!(parameters(&new, &[]).unwrap(), parameters(&old, &[]).unwrap());
        let before = parameters(&mobilenet(17), &[]).unwrap().0;
        let trained: Vec<_> = before.parameters().iter().filter(|p| p.role != Role::Statistic).map(|p| (&p.name, p.role)).collect();
        let after = parameters(&old, &[]).unwrap().0;
        assert_eq!(after.parameters().iter().map(|p| (&p.name, p.role)).collect::<Vec<_>>(), trained);
        let [a, b] = [&new, &old].map(|model| Forward::new(model).unwrap().answer(&images(4)).unwrap());
        let far = a.as_f32().unwrap().iter().zip(b.as_f32().unwrap()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far < 1e-5, "{far}");
        for model in [new, old] {
            assert_eq!(Model::decode(&model.encode()).unwrap(), model);
        }
    }

    #[test]
    fn a_converted_model_trains_by_example_and_learns() {
        for opset in [17, 21] {
            let (model, _) = group_norm(&mobilenet(opset), Some(4)).unwrap();
            let config = TrainConfig { optimizer: Optimizer::adam(), lr: 0.01, batch: 8, ..TrainConfig::default() };
            let mut trainer = Trainer::new(&model, config.clone()).unwrap();
            trainer.check_units().unwrap();
            let before = Trainer::new(&mobilenet(opset), config).unwrap().check_units();
            assert!(matches!(before, Err(ModelError::Mixes { reason, .. }) if reason.contains("--norm group")));
            let data = Dataset { x: images(16), y: Targets::Classes((0..16).map(|i| i % 4).collect()) };
            let losses = trainer.train(&data, 12, 1, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
            assert!(losses[11].loss < 0.5 * losses[0].loss, "{losses:?}");
        }
    }

    #[test]
    fn what_cannot_be_grouped_is_refused_with_the_node() {
        let refused = |groups| group_norm(&mobilenet(17), groups).unwrap_err().to_string();
        assert!(refused(Some(7)).contains("which it does not divide"), "{}", refused(Some(7)));
        assert!(refused(Some(0)).contains("does not divide"));
        let none = group_norm(&zoo::mlp(4, &[3], 2, 0), None).unwrap_err().to_string();
        assert!(none.contains("has no BatchNormalization"), "{none}");
        let edited = |edit: &dyn Fn(&mut pb::GraphProto)| {
            let mut proto = mobilenet(17).into_proto();
            edit(proto.graph.as_mut().unwrap());
            group_norm(&Model::new(proto).unwrap(), None).map(|_| ())
        };
        let by_cell = edited(&|graph| {
            let node = graph.node.iter_mut().find(|n| n.op_type() == "BatchNormalization").unwrap();
            node.attribute.push(make::int("spatial", 0));
        });
        assert!(by_cell.unwrap_err().to_string().contains("spatial = 1"));
        let computed = edited(&|graph| {
            let at = graph.node.iter().position(|n| n.op_type() == "BatchNormalization").unwrap();
            let scale = std::mem::replace(&mut graph.node[at].input[1], "computed".to_owned());
            graph.node.insert(at, make::node("Exp", "exp", &[&scale], &["computed"], vec![]));
        });
        assert!(computed.unwrap_err().to_string().contains("is no constant"));
    }
}

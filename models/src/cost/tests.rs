//! Counts worked out by hand.

use super::*;
use crate::onnx::{make, write_tensor};
use crate::zoo;

fn floats(name: &str, shape: &[usize]) -> pb::TensorProto {
    write_tensor(name, &Tensor::f32(shape, vec![0.5; shape.iter().product()]).unwrap())
}

/// One node, which reads `x` `[batch, ...shape]`.
fn one(node: pb::NodeProto, weights: &[(&str, &[usize])], shape: &[usize]) -> Model {
    graph(vec![node], weights, &make::batched("x", shape))
}

fn graph(node: Vec<pb::NodeProto>, weights: &[(&str, &[usize])], input: &ValueInfo) -> Model {
    let output = ValueInfo { name: node.last().unwrap().output[0].clone(), element: Element::F32, shape: vec![] };
    let mut output = make::value(&output);
    output.r#type = None;
    let graph = pb::GraphProto {
        name: Some("g".into()),
        node,
        initializer: weights.iter().map(|(name, shape)| floats(name, shape)).collect(),
        input: vec![make::value(input)],
        output: vec![output],
        ..Default::default()
    };
    let import = pb::OperatorSetIdProto { domain: None, version: Some(17) };
    Model::new(pb::ModelProto { ir_version: Some(8), graph: Some(graph), opset_import: vec![import], ..Default::default() }).unwrap()
}

fn node(op: &str, inputs: &[&str], attributes: Vec<pb::AttributeProto>) -> pb::NodeProto {
    make::node(op, op, inputs, &["y"], attributes)
}

fn text(name: &str, value: &str) -> pb::AttributeProto {
    let kind = pb::attribute_proto::AttributeType::String as i32;
    pb::AttributeProto { name: Some(name.into()), r#type: Some(kind), s: Some(value.into()), ..Default::default() }
}

fn of(model: &Model) -> Cost {
    cost(model, &BTreeMap::new()).unwrap()
}

fn flops(model: &Model) -> u64 {
    let found = of(model);
    found.flops.unwrap_or_else(|| panic!("{found:?}"))
}

#[test]
fn products_count_two_for_each_term() {
    // 6 x 5 x 5 outputs of 2 channels x 3 x 3 each.
    let attributes = vec![make::int("group", 2), make::ints("pads", &[1; 4])];
    let conv = one(node("Conv", &["x", "w", "b"], attributes), &[("w", &[6, 2, 3, 3]), ("b", &[6])], &[4, 5, 5]);
    assert_eq!(flops(&conv), 150 * 2 * 18);
    // Strided: 3 x 3 outputs.
    let attributes = vec![make::ints("pads", &[1; 4]), make::ints("strides", &[2, 2])];
    let conv = one(node("Conv", &["x", "w"], attributes), &[("w", &[6, 4, 3, 3])], &[4, 5, 5]);
    assert_eq!(flops(&conv), 6 * 9 * 2 * 36);
    let gemm = one(node("Gemm", &["x", "w", "b"], vec![make::int("transB", 1)]), &[("w", &[3, 8]), ("b", &[3])], &[8]);
    assert_eq!(flops(&gemm), 3 * 2 * 8);
    let gemm = one(node("Gemm", &["x", "w"], vec![make::int("transA", 1)]), &[("w", &[1, 3])], &[8]);
    assert_eq!(flops(&gemm), 8 * 3 * 2);
    let product = one(node("MatMul", &["x", "w"], vec![]), &[("w", &[5, 4])], &[7, 5]);
    assert_eq!(flops(&product), 28 * 2 * 5);
}

#[test]
fn recurrent_layers_count_each_step_and_direction() {
    // Six steps, both ways: four gates of 4 units, 3 features, and 9 operations for each unit.
    let attributes = || vec![make::int("hidden_size", 4), make::int("layout", 1), text("direction", "bidirectional")];
    let lstm = one(node("LSTM", &["x", "w", "r"], attributes()), &[("w", &[2, 16, 3]), ("r", &[2, 16, 4])], &[6, 3]);
    assert_eq!(flops(&lstm), 6 * 2 * (2 * 16 * (3 + 4) + 9 * 4));
    let gru = one(node("GRU", &["x", "w", "r"], attributes()), &[("w", &[2, 12, 3]), ("r", &[2, 12, 4])], &[6, 3]);
    assert_eq!(flops(&gru), 6 * 2 * (2 * 12 * (3 + 4) + 8 * 4));
}

#[test]
fn memory_is_what_lives_at_one_moment_and_what_a_gradient_reads() {
    // 4 inputs, 3 hidden, 3 behind the ReLU, 2 logits.
    let mlp = zoo::mlp(4, &[3], 2, 0);
    let found = of(&mlp);
    assert_eq!((found.examples, found.stored_bytes), (1, 4 * (4 * 3 + 3 + 3 * 2 + 2)));
    assert_eq!((found.peak_bytes, found.training_bytes), (Some(4 * (4 + 3)), Some(4 * (4 + 3 + 3 + 2))));
    assert_eq!(found.flops, Some(2 * 4 * 3 + 3 + 2 * 3 * 2));
    // A gradient ends where nothing is trained: it reads what the preprocessing makes, and not what that reads.
    let whole = of(&crate::compose(&zoo::scale(&[4], 0.5), &mlp).unwrap());
    assert_eq!((whole.peak_bytes, whole.training_bytes), (Some(4 * (4 + 4)), found.training_bytes));
    assert_eq!((whole.nodes[0].trained, whole.nodes[0].flops), (0, Some(4)));
    // A reshaped value lies where it lay.
    let flatten = make::node("Flatten", "f", &["x"], &["f"], vec![]);
    let model = graph(vec![flatten, node("MatMul", &["f", "w"], vec![])], &[("w", &[12, 1])], &make::batched("x", &[3, 4]));
    assert_eq!((of(&model).peak_bytes, of(&model).training_bytes), (Some(4 * (12 + 1)), Some(4 * (12 + 1))));
}

#[test]
fn a_dynamic_axis_needs_an_extent() {
    let shape = vec![Dim::Symbol("batch".into()), Dim::Symbol("steps".into()), Dim::Symbol(String::new())];
    let input = ValueInfo { name: "x".into(), element: Element::F32, shape };
    let model = graph(vec![node("MatMul", &["x", "w"], vec![])], &[("w", &[5, 4])], &input);
    let found = of(&model);
    assert_eq!((found.flops, found.peak_bytes, found.axes), (None, None, vec!["steps".to_owned(), "x:2".to_owned()]));
    assert_eq!((found.nodes[0].parameters, found.nodes[0].outputs.clone()), (20, vec![None]));
    let given = |axes: &[(&str, usize)]| cost(&model, &axes.iter().map(|(name, extent)| ((*name).to_owned(), *extent)).collect());
    assert_eq!(given(&[("steps", 7), ("x:2", 5)]).unwrap().flops, Some(28 * 2 * 5));
    // One that does not fit is a fault of the node, not of ours.
    let unfit = given(&[("steps", 7), ("x:2", 6)]).unwrap();
    assert_eq!((unfit.flops, unfit.unknown.len()), (None, 1));
    for bad in [("step", 7), ("steps", 0)] {
        assert!(matches!(given(&[bad]), Err(ModelError::Setting { reason, .. }) if reason.contains("batch, steps, x:2")));
    }
}

#[test]
fn what_cannot_be_computed_is_unknown_and_named() {
    let foreign = make::node("NonMaxSuppression", "odd", &["x"], &["boxes"], vec![]);
    let nodes = vec![foreign, make::node("MatMul", "product", &["boxes", "w"], &["y"], vec![])];
    let model = graph(nodes, &[("w", &[5, 4])], &make::batched("x", &[3]));
    let found = of(&model);
    assert_eq!((found.flops, found.peak_bytes, found.training_bytes), (None, None, None));
    let unknown: Vec<&str> = found.unknown.iter().map(|u| u.node.as_str()).collect();
    assert_eq!(unknown, ["node `odd`", "node `product`"]);
    // Where the file says what the node makes, the others are known again.
    let mut proto = model.into_proto();
    proto.graph.as_mut().unwrap().value_info.push(make::value(&make::batched("boxes", &[5])));
    let found = of(&Model::new(proto).unwrap());
    assert_eq!((found.flops, found.nodes[1].flops, found.unknown.len()), (None, Some(2 * 5 * 4), 1));
}

#[test]
fn nodes_say_what_trains_and_what_becomes_int8() {
    let model = zoo::mobilenet([1, 16, 16], 2, 0);
    let found = of(&model);
    let of_op = |op: &str| found.nodes.iter().find(|n| n.op == op).unwrap();
    let (conv, norm) = (of_op("Conv"), of_op("BatchNormalization"));
    assert!(conv.trained > 0 && conv.trained == conv.parameters && conv.quantized == Some(true));
    // Mean and variance are no gradient's, and the node is folded into its convolution.
    assert!(norm.trained * 2 == norm.parameters && norm.quantized.is_none());
    assert!(found.unknown.is_empty() && found.axes.is_empty());
    let sum: usize = found.nodes.iter().map(|n| n.trained).sum();
    assert_eq!(sum, crate::inspect(&model).trainable);
    let shape = &conv.outputs[0].as_ref().unwrap().1;
    assert_eq!(shape[0], 1);
    // An operator that ONNX Runtime's quantizer leaves alone.
    let erf = of(&graph(vec![node("Erf", &["x"], vec![])], &[], &make::batched("x", &[3])));
    assert_eq!((erf.nodes[0].quantized, erf.flops), (Some(false), Some(3)));
}

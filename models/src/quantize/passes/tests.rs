use std::{collections::HashSet, fs, path::PathBuf};

use super::*;
use crate::onnx::{Element, make, write_tensor};
use crate::{Features, Forward, Tensor, TensorData, parameters, write_back, zoo};

fn model(nodes: Vec<pb::NodeProto>, initializer: Vec<pb::TensorProto>) -> Model {
    let shell = zoo::scale(&[4], 1.0).into_proto();
    let output = vec![make::value(&make::batched("y", &[4]))];
    let input = shell.graph.as_ref().unwrap().input.clone();
    let graph = pb::GraphProto { name: Some("g".into()), node: nodes, initializer, input, output, ..Default::default() };
    Model::new(pb::ModelProto { graph: Some(graph), ..shell }).unwrap()
}

fn n(op: &str, inputs: &[&str], output: &str, attributes: Vec<pb::AttributeProto>) -> pb::NodeProto {
    make::node(op, &format!("n_{output}"), inputs, &[output], attributes)
}

fn operators(model: &Model) -> Vec<&str> {
    model.graph().node.iter().map(|node| node.op_type()).collect()
}

fn answers(model: &Model, x: &Tensor) -> Vec<f32> {
    let forward = Forward::new(model).unwrap();
    forward.answer(&Features::from(x.clone())).unwrap().as_f32().unwrap().to_vec()
}

fn near(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-5 * (1.0 + b.abs())), "{a:?} {b:?}");
}

/// Numbers in [-1, 1) without a pattern, or small tokens.
fn noise(shape: &[usize], tokens: bool) -> Tensor {
    let number = |k: usize| (k * 7919 % 1000) as f32;
    let value = |k| if tokens { (1.0 + number(k) % 11.0).floor() } else { number(k) / 500.0 - 1.0 };
    Tensor::f32(shape.to_vec(), (0..shape.iter().product()).map(value).collect()).unwrap()
}

/// What PyTorch's newer exporter leaves around every layer is gone, and the answers are as before.
#[test]
fn exports_of_pytorch_are_cleaned_without_changing_answers() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/torch");
    for exporter in ["legacy", "dynamo"] {
        for (name, shape) in [
            ("mlp", &[3, 20][..]),
            ("cnn", &[3, 1, 8, 8]),
            ("lstm", &[3, 7, 6]),
            ("gru", &[3, 7, 6]),
            ("transformer", &[3, 6, 16]),
            ("text", &[3, 8]),
        ] {
            let export = Model::decode(&fs::read(folder.join(format!("{name}-{exporter}.onnx"))).unwrap()).unwrap();
            let (layout, flat) = parameters(&export, &[]).unwrap();
            let before = write_back(&export, &layout, &flat).unwrap();
            let after = prepare(&before).unwrap();
            let x = noise(shape, name == "text");
            near(&answers(&after, &x), &answers(&before, &x));

            let graph = after.graph();
            assert!(graph.node.iter().all(|node| node.metadata_props.is_empty() && node.doc_string.is_none()), "{name}-{exporter}");
            let read = edit::readers(graph);
            assert!(graph.node.iter().all(|node| node.output.iter().any(|output| read.contains_key(output))), "{name}-{exporter}");
            let constant: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name()).collect();
            let ahead = graph.node.iter().find(|node| node.input.iter().all(|input| constant.contains(input.as_str())));
            assert!(ahead.is_none(), "{name}-{exporter} computes constants: {:?}", ahead.map(|node| node.op_type()));
            let gone = ["BatchNormalization", "CastLike", "Constant", "Identity"];
            assert!(!operators(&after).iter().any(|op| gone.contains(op)), "{name}-{exporter}: {:?}", operators(&after));
        }
    }
}

#[test]
fn hard_swish_is_a_product_with_its_gate() {
    let mut plain = model(vec![n("HardSwish", &["input"], "y", vec![])], vec![]);
    let mut proto = plain.into_proto();
    proto.opset_import[0].version = Some(17);
    plain = Model::new(proto).unwrap();
    let expanded = prepare(&plain).unwrap();
    assert_eq!(operators(&expanded), ["HardSigmoid", "Mul"]);
    let x = Tensor::f32([3, 4], (-6..6).map(|v| v as f32 * 0.9).collect()).unwrap();
    near(&answers(&expanded, &x), &answers(&plain, &x));
}

#[test]
fn a_cast_to_the_type_of_something_is_computed_ahead() {
    let half = write_tensor("half", &Tensor { shape: vec![], data: TensorData::I64(vec![2]) });
    let cast = model(vec![n("CastLike", &["half", "input"], "two", vec![]), n("Mul", &["input", "two"], "y", vec![])], vec![half]);
    let after = prepare(&cast).unwrap();
    assert_eq!(operators(&after), ["Mul"]);
    assert_eq!(after.graph().initializer[0].data_type(), Element::F32.to_onnx());
    let x = noise(&[2, 4], false);
    near(&answers(&after, &x), &answers(&cast, &x));
}

#[test]
fn what_is_equal_is_computed_once_and_what_is_random_is_not() {
    let one = |name: &str| write_tensor(name, &Tensor::f32([1], vec![1.0]).unwrap());
    let twice = model(
        vec![n("Add", &["input", "a"], "p", vec![]), n("Add", &["input", "b"], "q", vec![]), n("Mul", &["p", "q"], "y", vec![])],
        vec![one("a"), one("b")],
    );
    let after = prepare(&twice).unwrap();
    assert_eq!(operators(&after), ["Add", "Mul"]);
    assert_eq!(after.graph().initializer.len(), 1);
    let x = noise(&[2, 4], false);
    near(&answers(&after, &x), &answers(&twice, &x));

    let drawn = |output: &str| n("RandomNormalLike", &["input"], output, vec![]);
    let random = model(vec![drawn("p"), drawn("q"), n("Sub", &["p", "q"], "y", vec![])], vec![]);
    assert_eq!(operators(&prepare(&random).unwrap()), ["RandomNormalLike", "RandomNormalLike", "Sub"]);
}

/// The name of an output is a promise to whoever serves the model.
#[test]
fn an_output_keeps_its_name_although_something_equal_comes_first() {
    let twice =
        model(vec![n("Relu", &["input"], "p", vec![]), n("Relu", &["input"], "y", vec![]), n("Neg", &["p"], "unread", vec![])], vec![]);
    let after = prepare(&twice).unwrap();
    assert_eq!(operators(&after), ["Relu"]);
    assert_eq!(after.outputs()[0].name, "y");
}

/// A constant that is small as a shape and large as values stays an instruction.
#[test]
fn what_would_blow_up_is_left_to_the_device() {
    let shape = write_tensor("shape", &Tensor { shape: vec![2], data: TensorData::I64(vec![1 << 10, 1 << 10]) });
    let zero = write_tensor("zero", &Tensor::f32([1], vec![0.0]).unwrap());
    let wide = model(
        vec![
            n("Expand", &["zero", "shape"], "many", vec![]),
            make::node("ReduceSum", "n_sum", &["many"], &["sum"], vec![make::int("keepdims", 0)]),
            n("Add", &["input", "sum"], "y", vec![]),
        ],
        vec![shape, zero],
    );
    assert_eq!(operators(&prepare(&wide).unwrap()), ["Expand", "ReduceSum", "Add"]);
}

//! Our quantizer against ONNX Runtime's own, on the same models and data.
//!
//! `testdata/quantize_reference.json` holds the scales, zero points and operator counts
//! that `testdata/quantize_reference.py` got from `onnxruntime.quantization`. To make it
//! again, run this test (it leaves the float models in cargo's temporary folder for
//! tests) and then the script on that folder.

use std::collections::BTreeMap;
use std::path::Path;

use sapwood_models::onnx::{Model, pb, read_tensor, write_tensor};
use sapwood_models::quantize::{Target, quantize, ranges};
use sapwood_models::{Tensor, TensorData, zoo};
use serde_json::Value;

/// Knuth's MMIX generator, written alike in the script.
struct Lcg(u64);

impl Lcg {
    fn unit(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }

    fn tensor(&mut self, shape: &[usize], low: f32, high: f32) -> Tensor {
        let count = shape.iter().product();
        let values = (0..count).map(|_| low + (high - low) * self.unit()).collect();
        Tensor { shape: shape.to_vec(), data: TensorData::F32(values) }
    }
}

fn attribute(name: &str, values: &[i64], list: bool) -> pb::AttributeProto {
    use pb::attribute_proto::AttributeType;
    let mut attribute = pb::AttributeProto { name: Some(name.into()), ..Default::default() };
    if list {
        attribute.ints = values.to_vec();
        attribute.set_type(AttributeType::Ints);
    } else {
        attribute.i = Some(values[0]);
        attribute.set_type(AttributeType::Int);
    }
    attribute
}

fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<pb::AttributeProto>) -> pb::NodeProto {
    pb::NodeProto {
        op_type: Some(op.into()),
        name: Some(format!("n_{output}")),
        input: inputs.iter().map(|s| (*s).to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute,
        ..Default::default()
    }
}

/// Everything that the zoo's models lack: a Clip read twice, a depthwise convolution, a
/// residual, both average pools, MatMul, Mul by a constant, a float operator in between,
/// Concat, a transposed Gemm.
fn block() -> Model {
    let same = || vec![attribute("pads", &[1, 1, 1, 1], true), attribute("kernel_shape", &[3, 3], true)];
    let pool = vec![attribute("kernel_shape", &[2, 2], true), attribute("strides", &[2, 2], true)];
    let group = attribute("group", &[4], false);
    let node = vec![
        node("Conv", &["input", "w1"], "c1", same()),
        node("Clip", &["c1", "low", "high"], "k1", vec![]),
        node("Conv", &["k1", "w2", "b2"], "c2", [same(), vec![group]].concat()),
        node("Relu", &["c2"], "r2", vec![]),
        node("Add", &["k1", "r2"], "sum", vec![]),
        node("AveragePool", &["sum"], "pool", pool),
        node("Conv", &["pool", "w3"], "c3", vec![attribute("kernel_shape", &[1, 1], true)]),
        node("GlobalAveragePool", &["c3"], "gap", vec![]),
        node("Flatten", &["gap"], "flat", vec![]),
        node("MatMul", &["flat", "w4"], "m", vec![]),
        node("Mul", &["m", "gain"], "g", vec![]),
        node("Sigmoid", &["g"], "s", vec![]),
        node("Concat", &["g", "s"], "cat", vec![attribute("axis", &[1], false)]),
        node("Gemm", &["cat", "w5", "b5"], "logits", vec![attribute("transB", &[1], false)]),
    ];
    let mut lcg = Lcg(11);
    let mut initializer = vec![write_tensor("low", &Tensor::scalar(0.0)), write_tensor("high", &Tensor::scalar(1.5))];
    for (name, shape) in [
        ("w1", &[4, 2, 3, 3][..]),
        ("w2", &[4, 1, 3, 3]),
        ("b2", &[4]),
        ("w3", &[6, 4, 1, 1]),
        ("w4", &[6, 5]),
        ("gain", &[5]),
        ("w5", &[3, 10]),
        ("b5", &[3]),
    ] {
        initializer.push(write_tensor(name, &lcg.tensor(shape, -0.7, 0.8)));
    }
    // Inputs and outputs as the zoo declares them.
    let shell = zoo::cnn([2, 6, 6], 3, 0).into_proto();
    let (input, output) = shell.graph.clone().map(|g| (g.input, g.output)).unwrap();
    let graph = pb::GraphProto { name: Some("block".into()), node, initializer, input, output, ..Default::default() };
    Model::new(pb::ModelProto { graph: Some(graph), ..shell }).unwrap()
}

fn models() -> [(&'static str, Model, Tensor); 3] {
    [
        ("cnn", zoo::cnn([1, 8, 8], 10, 7), Lcg(1).tensor(&[48, 1, 8, 8], 0.0, 1.0)),
        ("mlp", zoo::mlp(64, &[32], 10, 7), Lcg(2).tensor(&[48, 64], -1.0, 1.0)),
        ("block", block(), Lcg(3).tensor(&[48, 2, 6, 6], -1.0, 1.0)),
    ]
}

fn operators(model: &Model) -> BTreeMap<String, u64> {
    let mut count = BTreeMap::new();
    for node in &model.graph().node {
        *count.entry(node.op_type().to_owned()).or_default() += 1;
    }
    count
}

/// Values of an integer tensor.
fn integers(tensor: &Tensor) -> Option<Vec<i64>> {
    match &tensor.data {
        TensorData::U8(v) => Some(v.iter().map(|v| i64::from(*v)).collect()),
        TensorData::I8(v) => Some(v.iter().map(|v| i64::from(*v)).collect()),
        TensorData::I32(v) => Some(v.iter().map(|v| i64::from(*v)).collect()),
        _ => None,
    }
}

/// R77: calibrated INT8 that other tools read.
#[test]
fn scales_zero_points_and_operators_are_those_of_onnxruntime() {
    let reference: Value = serde_json::from_str(include_str!("../testdata/quantize_reference.json")).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (name, model, _) in models() {
        std::fs::write(folder.join(format!("{name}.onnx")), model.encode()).unwrap();
    }
    for (name, model, data) in models() {
        let ranges = ranges(&model, &data.into()).unwrap();
        for target in [Target::X86_64Vnni, Target::X86_64] {
            let ours = quantize(&model, &ranges, target).unwrap();
            let file = format!("{name}.{}.int8.onnx", target.name());
            std::fs::write(folder.join(file), ours.model.encode()).unwrap();
            let theirs = &reference[name][target.name()];
            compare(&format!("{name} {}", target.name()), &ours.model, theirs);
        }
    }
}

fn compare(case: &str, ours: &Model, theirs: &Value) {
    let counted: BTreeMap<String, u64> = serde_json::from_value(theirs["operators"].clone()).expect(case);
    assert_eq!(operators(ours), counted, "{case}");
    let found: BTreeMap<&str, Tensor> = ours.graph().initializer.iter().map(|t| (t.name(), read_tensor(t).unwrap())).collect();
    let expected = theirs["initializers"].as_object().expect(case);
    let names: Vec<&str> = expected.keys().map(String::as_str).collect();
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), names, "{case}");
    for (name, values) in expected {
        let tensor = &found[name.as_str()];
        let Some(integers) = integers(tensor) else {
            let values: Vec<f64> = serde_json::from_value(values.clone()).unwrap();
            let ours = tensor.as_f32().unwrap();
            assert_eq!(ours.len(), values.len(), "{case} {name}");
            for (a, b) in ours.iter().zip(&values) {
                assert!((f64::from(*a) - b).abs() <= 1e-6, "{case} {name}: {a} {b}");
            }
            continue;
        };
        let values: Vec<i64> = serde_json::from_value(values.clone()).unwrap();
        // Zero points are given in full, data as sum and sum of squares.
        if name.ends_with("_zero_point") {
            assert_eq!(integers, values, "{case} {name}");
            continue;
        }
        let sums = [integers.iter().sum::<i64>(), integers.iter().map(|v| v * v).sum()];
        for (a, b) in sums.iter().zip(&values) {
            // The last bit of a bias follows the last bit of an activation's range.
            let slack = if matches!(tensor.data, TensorData::I32(_)) { b.abs() as f64 * 1e-4 + 4.0 } else { 0.0 };
            assert!((a - b).abs() as f64 <= slack, "{case} {name}: {sums:?} {values:?}");
        }
    }
}

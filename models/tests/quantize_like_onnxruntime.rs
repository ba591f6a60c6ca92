//! Our quantizer against ONNX Runtime's own, on the same models and data.
//!
//! `testdata/quantize_reference.json` holds the scales, zero points and operator counts
//! that `testdata/quantize_reference.py` got from `onnxruntime.quantization`. To make it
//! again, run this test (it leaves the float models, as the quantizer's passes prepare them,
//! and the calibration data in cargo's temporary folder for tests) and then the script on
//! that folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sapwood_models::onnx::{Model, pb, read_tensor, write_tensor};
use sapwood_models::quantize::{Calibrator, Target, dynamic, passes, quantize, ranges};
use sapwood_models::{Tensor, TensorData, parameters, write_back, zoo};
use serde_json::Value;

/// Knuth's MMIX generator.
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

/// A graph of these nodes over weights drawn from a fixed sequence, with inputs and outputs as a CNN of the zoo declares them.
fn graph(name: &str, node: Vec<pb::NodeProto>, weights: &[(&str, &[usize])], mut initializer: Vec<pb::TensorProto>) -> Model {
    let mut lcg = Lcg(11);
    for (name, shape) in weights {
        initializer.push(write_tensor(name, &lcg.tensor(shape, -0.7, 0.8)));
    }
    let shell = zoo::cnn([2, 6, 6], 3, 0).into_proto();
    let (input, output) = shell.graph.clone().map(|g| (g.input, g.output)).unwrap();
    let graph = pb::GraphProto { name: Some(name.into()), node, initializer, input, output, ..Default::default() };
    Model::new(pb::ModelProto { graph: Some(graph), ..shell }).unwrap()
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
    let constants = vec![write_tensor("low", &Tensor::scalar(0.0)), write_tensor("high", &Tensor::scalar(1.5))];
    let weights: [(&str, &[usize]); 8] = [
        ("w1", &[4, 2, 3, 3]),
        ("w2", &[4, 1, 3, 3]),
        ("b2", &[4]),
        ("w3", &[6, 4, 1, 1]),
        ("w4", &[6, 5]),
        ("gain", &[5]),
        ("w5", &[3, 10]),
        ("b5", &[3]),
    ];
    graph("block", node, &weights, constants)
}

/// The operators that `quantize_static` takes and no other model here has.
fn rarities() -> Model {
    let named = |op: &str, inputs: &[&str], outputs: &[&str], attribute| {
        let output = outputs.iter().map(|s| (*s).to_owned()).collect();
        pb::NodeProto { output, ..node(op, inputs, outputs[0], attribute) }
    };
    let axis = |at: i64| vec![attribute("axis", &[at], false)];
    let node = vec![
        node("Pad", &["input", "pads"], "padded", vec![]),
        node("Pad", &["padded", "pads", "half"], "framed", vec![]),
        node("Conv", &["framed", "w1", "b1"], "c1", vec![attribute("kernel_shape", &[3, 3], true)]),
        node("InstanceNormalization", &["c1", "s1", "o1"], "i1", vec![]),
        node("LeakyRelu", &["i1"], "l1", vec![]),
        named("Split", &["l1", "halves"], &["left", "right"], axis(1)),
        node("Greater", &["left", "right"], "which", vec![]),
        node("Where", &["which", "left", "right"], "larger", vec![]),
        node("Sigmoid", &["larger"], "gate", vec![]),
        node("Mul", &["larger", "gate"], "gated", vec![]),
        node("Flatten", &["gated"], "flat", vec![]),
        node("LayerNormalization", &["flat", "s2", "o2"], "normal", axis(-1)),
        node("CumSum", &["normal", "one"], "sums", vec![]),
        node("ArgMax", &["sums"], "first", vec![attribute("axis", &[1], false), attribute("keepdims", &[0], false)]),
        node("Gather", &["table", "first"], "found", vec![]),
        named("TopK", &["sums", "ten"], &["top", "places"], axis(1)),
        node("GatherElements", &["flat", "places"], "picked", axis(1)),
        node("Concat", &["found", "top", "picked"], "all", axis(1)),
        node("Tanh", &["all"], "tame", vec![]),
        node("Gemm", &["tame", "w3", "b3"], "scores", vec![]),
        node("Softmax", &["scores"], "logits", axis(1)),
    ];
    let constants = vec![
        write_tensor("half", &Tensor::scalar(0.5)),
        write_tensor("pads", &Tensor::i64([8], vec![0, 0, 1, 1, 0, 0, 0, 1]).unwrap()),
        write_tensor("halves", &Tensor::i64([2], vec![2, 2]).unwrap()),
        write_tensor("one", &Tensor::i64([], vec![1]).unwrap()),
        write_tensor("ten", &Tensor::i64([1], vec![10]).unwrap()),
    ];
    let weights: [(&str, &[usize]); 9] = [
        ("w1", &[4, 2, 3, 3]),
        ("b1", &[4]),
        ("s1", &[4]),
        ("o1", &[4]),
        ("s2", &[96]),
        ("o2", &[96]),
        ("table", &[96, 4]),
        ("w3", &[24, 3]),
        ("b3", &[3]),
    ];
    graph("rarities", node, &weights, constants)
}

/// As PyTorch exports it, then in the form for inference.
fn exported(name: &str) -> Model {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/interop/torch/{name}.onnx"));
    let model = Model::decode(&std::fs::read(path).unwrap()).unwrap();
    let (layout, values) = parameters(&model, &[]).unwrap();
    write_back(&model, &layout, &values).unwrap()
}

/// Name, model and 48 calibration examples.
fn models() -> Vec<(&'static str, Model, Tensor)> {
    let tokens = |seed, length, vocabulary: f32| {
        let mut x = Lcg(seed).tensor(&[48, length], 0.0, vocabulary);
        let TensorData::F32(values) = &mut x.data else { unreachable!() };
        values.iter_mut().for_each(|v| *v = v.floor());
        x
    };
    let transformer = zoo::Transformer { length: 9, vocabulary: 20, width: 16, heads: 2, layers: 2 };
    vec![
        ("cnn", zoo::cnn([1, 8, 8], 10, 7), Lcg(1).tensor(&[48, 1, 8, 8], 0.0, 1.0)),
        ("mlp", zoo::mlp(64, &[32], 10, 7), Lcg(2).tensor(&[48, 64], -1.0, 1.0)),
        ("block", block(), Lcg(3).tensor(&[48, 2, 6, 6], -1.0, 1.0)),
        ("rarities", rarities(), Lcg(4).tensor(&[48, 2, 6, 6], -1.0, 1.0)),
        ("mobilenet", zoo::mobilenet([3, 16, 16], 10, 7), Lcg(5).tensor(&[48, 3, 16, 16], -1.0, 1.0)),
        ("lstm", zoo::lstm([7, 6], 12, 5, 7), Lcg(6).tensor(&[48, 7, 6], -1.0, 1.0)),
        ("transformer", transformer.build(5, 7).unwrap(), tokens(7, 9, 20.0)),
        ("cnn-legacy", exported("cnn-legacy"), Lcg(8).tensor(&[48, 1, 8, 8], -1.0, 1.0)),
        ("cnn-dynamo", exported("cnn-dynamo"), Lcg(8).tensor(&[48, 1, 8, 8], -1.0, 1.0)),
        ("gru-legacy", exported("gru-legacy"), Lcg(9).tensor(&[48, 7, 6], -1.0, 1.0)),
        ("transformer-legacy", exported("transformer-legacy"), Lcg(10).tensor(&[48, 6, 16], -1.0, 1.0)),
        ("transformer-dynamo", exported("transformer-dynamo"), Lcg(10).tensor(&[48, 6, 16], -1.0, 1.0)),
    ]
}

/// A target with a calibrator, as the reference names it.
const CASES: [(Target, Calibrator, &str); 4] = [
    (Target::X86_64Vnni, Calibrator::MinMax, "x86_64-vnni"),
    (Target::X86_64Vnni, Calibrator::Percentile(99.9), "x86_64-vnni percentile:99.9"),
    (Target::X86_64, Calibrator::MinMax, "x86_64"),
    (Target::JetsonTensorRt, Calibrator::MinMax, "jetson-tensorrt"),
];

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

/// What is also quantized without calibration. On some of the others `quantize_dynamic` fails in its shape inference.
const DYNAMIC: [&str; 4] = ["cnn", "mlp", "lstm", "transformer"];

/// R77: calibrated INT8 that other tools read.
#[test]
fn scales_zero_points_and_operators_are_those_of_onnxruntime() {
    let reference: Value = serde_json::from_str(include_str!("../testdata/quantize_reference.json")).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut found = Vec::new();
    for (name, model, x) in models() {
        std::fs::write(folder.join(format!("{name}.onnx")), passes::prepare(&model).unwrap().encode()).unwrap();
        let bytes: Vec<u8> = x.as_f32().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect();
        std::fs::write(folder.join(format!("{name}.x")), bytes).unwrap();
        let x = x.into();
        for (target, calibrator, case) in CASES {
            let ours = quantize(&model, &ranges(&model, &x, calibrator).unwrap(), target).unwrap();
            std::fs::write(folder.join(format!("{name}.{case}.onnx")), ours.model.encode()).unwrap();
            found.push((name, case, ours.model));
        }
        if !DYNAMIC.contains(&name) {
            continue;
        }
        let ours = dynamic(&model, Target::X86_64Vnni).unwrap().model;
        std::fs::write(folder.join(format!("{name}.dynamic.onnx")), ours.encode()).unwrap();
        found.push((name, "dynamic", ours));
    }
    for (name, case, ours) in found {
        compare(&format!("{name} {case}"), &ours, &reference[name][case]);
    }
}

fn compare(case: &str, ours: &Model, theirs: &Value) {
    let counted: BTreeMap<String, u64> = serde_json::from_value(theirs["operators"].clone()).expect(case);
    assert_eq!(operators(ours), counted, "{case}");
    let found: BTreeMap<&str, Tensor> = ours.graph().initializer.iter().map(|t| (t.name(), read_tensor(t).unwrap())).collect();
    let expected = theirs["initializers"].as_object().expect(case);
    let made = |name: &&str| ["_scale", "_zero_point", "_quantized"].iter().any(|end| name.ends_with(end));
    let names: Vec<&str> = expected.keys().map(String::as_str).collect();
    assert_eq!(found.keys().copied().filter(made).collect::<Vec<_>>(), names, "{case}");
    for (name, values) in expected {
        let tensor = &found[name.as_str()];
        let Some(integers) = integers(tensor) else {
            let values: Vec<f64> = serde_json::from_value(values.clone()).unwrap();
            let ours = tensor.as_f32().unwrap();
            assert_eq!(ours.len(), values.len(), "{case} {name}");
            for (a, b) in ours.iter().zip(&values) {
                assert!((f64::from(*a) - b).abs() <= 1e-6 * b.abs(), "{case} {name}: {a} {b}");
            }
            continue;
        };
        let values: Vec<i64> = serde_json::from_value(values.clone()).unwrap();
        // Zero points are given in full, data as sum and sum of squares.
        if name.ends_with("_zero_point") {
            // A bound on absolute values puts 0 in the middle between two integers; the last bit of the bound decides.
            let middle = |v: &[i64]| matches!(v, [127 | 128]);
            assert!(integers == values || middle(&integers) && middle(&values), "{case} {name}: {integers:?} {values:?}");
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

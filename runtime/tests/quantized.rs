//! ONNX Runtime runs every form that the quantizer writes, and answers nearly as the float model does.

use std::sync::OnceLock;

use sapwood_models::onnx::{
    Element, pb,
    pb::tensor_shape_proto::{Dimension, dimension::Value},
    write_tensor,
};
use sapwood_models::{
    Features, Forward, Model, Tensor, TensorData,
    quantize::{Calibrator, Target, dynamic, half, quantize, ranges},
    zoo,
};
use sapwood_runtime::{InstallOptions, Runtime, SessionOptions, disable_telemetry, host_class, install};

fn answers(model: &Model, x: &Features) -> Vec<f32> {
    static RUNTIME: OnceLock<()> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        disable_telemetry();
        install(InstallOptions::default(), &mut |_| {}).unwrap();
    });
    let runtime = Runtime::load(None).unwrap();
    let mut session = runtime.session(&model.encode(), SessionOptions::default()).unwrap();
    session.answer(x).unwrap().as_f32().unwrap().to_vec()
}

/// Whether this machine computes such a model as it is meant: where 8-bit products saturate, one bit must be free.
fn suits(target: Target) -> bool {
    target == Target::X86_64 || target.name() == host_class()
}

/// As [`distance`], both through ONNX Runtime.
fn apart(model: &Model, float: &Model, x: &Features) -> f64 {
    distance(&answers(model, x), &answers(float, x))
}

/// Root mean square of the differences, as a share of the true answers' own.
fn distance(found: &[f32], truth: &[f32]) -> f64 {
    assert_eq!(found.len(), truth.len());
    let noise: f64 = found.iter().zip(truth).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (noise / truth.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>()).sqrt()
}

fn x(shape: &[usize], value: impl Fn(usize) -> f32) -> Features {
    Tensor::f32(shape.to_vec(), (0..shape.iter().product()).map(value).collect()).unwrap().into()
}

fn waves(shape: &[usize]) -> Features {
    x(shape, |i| (i as f32 * 0.73).sin())
}

/// What detectors and segmenters end with: a transposed convolution, and interpolation.
fn upscaler() -> Model {
    let kind = |shape: &[i64]| {
        let dim = |n: &i64| Dimension { value: if *n > 0 { Some(Value::DimValue(*n)) } else { None }, ..Default::default() };
        let shape = pb::TensorShapeProto { dim: shape.iter().map(dim).collect() };
        let tensor = pb::type_proto::Tensor { elem_type: Some(Element::F32.to_onnx()), shape: Some(shape) };
        pb::TypeProto { value: Some(pb::type_proto::Value::TensorType(tensor)), ..Default::default() }
    };
    let declared =
        |name: &str, shape: &[i64]| pb::ValueInfoProto { name: Some(name.into()), r#type: Some(kind(shape)), ..Default::default() };
    let node = |op: &str, inputs: &[&str], output: &str, attribute: Vec<pb::AttributeProto>| pb::NodeProto {
        op_type: Some(op.into()),
        name: Some(format!("{op}_{output}")),
        input: inputs.iter().map(|name| (*name).into()).collect(),
        output: vec![output.into()],
        attribute,
        ..Default::default()
    };
    let ints = |name: &str, values: &[i64]| pb::AttributeProto {
        name: Some(name.into()),
        r#type: Some(pb::attribute_proto::AttributeType::Ints as i32),
        ints: values.to_vec(),
        ..Default::default()
    };
    let linear = pb::AttributeProto {
        name: Some("mode".into()),
        r#type: Some(pb::attribute_proto::AttributeType::String as i32),
        s: Some(b"linear".to_vec()),
        ..Default::default()
    };
    let weight = |name: &str, shape: &[usize]| {
        let values = (0..shape.iter().product()).map(|i| (i as f32 * 1.37).sin() * 0.4).collect();
        write_tensor(name, &Tensor::f32(shape.to_vec(), values).unwrap())
    };
    let graph = pb::GraphProto {
        name: Some("upscaler".into()),
        node: vec![
            node("ConvTranspose", &["x", "w", "b"], "larger", vec![ints("strides", &[2, 2]), ints("pads", &[1, 1, 1, 1])]),
            node("Relu", &["larger"], "active", vec![]),
            node("Resize", &["active", "", "scales"], "smooth", vec![linear]),
            node("Conv", &["smooth", "v"], "mixed", vec![]),
            node("Flatten", &["mixed"], "flat", vec![]),
            node("MatMul", &["flat", "m"], "y", vec![]),
        ],
        initializer: vec![
            weight("w", &[2, 4, 3, 3]),
            weight("b", &[4]),
            write_tensor("scales", &Tensor::f32([4], vec![1.0, 1.0, 2.0, 2.0]).unwrap()),
            weight("v", &[3, 4, 1, 1]),
            weight("m", &[3 * 18 * 18, 5]),
        ],
        input: vec![declared("x", &[-1, 2, 5, 5])],
        output: vec![declared("y", &[-1, 5])],
        ..Default::default()
    };
    let opset_import = vec![pb::OperatorSetIdProto { domain: None, version: Some(17) }];
    Model::new(pb::ModelProto { ir_version: Some(8), graph: Some(graph), opset_import, ..Default::default() }).unwrap()
}

/// Name, model, and examples that both calibrate and judge. Tokens without padding.
fn models() -> Vec<(&'static str, Model, Features)> {
    let text = zoo::Transformer { length: 9, vocabulary: 20, width: 16, heads: 2, layers: 2 };
    vec![
        ("mlp", zoo::mlp(64, &[32], 10, 1), waves(&[40, 64])),
        ("cnn", zoo::cnn([1, 8, 8], 10, 1), waves(&[40, 1, 8, 8])),
        ("mobilenet", zoo::mobilenet([3, 16, 16], 10, 1), waves(&[40, 3, 16, 16])),
        ("upscaler", upscaler(), waves(&[40, 2, 5, 5])),
        ("lstm", zoo::lstm([7, 6], 12, 5, 1), waves(&[40, 7, 6])),
        ("transformer", text.build(5, 1).unwrap(), x(&[40, 9], |i| (1 + i * 7919 % 19) as f32)),
    ]
}

#[test]
fn static_int8_runs_for_every_target() {
    for (name, model, x) in models() {
        for calibrator in [Calibrator::MinMax, Calibrator::Percentile(99.99)] {
            let ranges = ranges(&model, &x, calibrator).unwrap();
            for target in Target::ALL {
                let quantized = quantize(&model, &ranges, target).unwrap();
                // Every graph is right by the interpreter, and runs; what suits this machine is right in its kernels, too.
                let truth = Forward::new(&model).unwrap().answer(&x).unwrap();
                let meant = Forward::new(&quantized.model).unwrap().answer(&x).unwrap();
                let error = distance(meant.as_f32().unwrap(), truth.as_f32().unwrap());
                assert!(error > 0.0 && error < 0.25, "{name} for {}, {calibrator}: {error}", target.name());
                let error = apart(&quantized.model, &model, &x);
                assert!(error > 0.0 && (error < 0.25 || !suits(target)), "{name} for {}, {calibrator}: {error}", target.name());
            }
        }
    }
}

#[test]
fn what_tensorrt_reads_is_symmetric_with_float_biases() {
    for (name, model, x) in models() {
        let ranges = ranges(&model, &x, Calibrator::MinMax).unwrap();
        let quantized = quantize(&model, &ranges, Target::JetsonTensorRt).unwrap().model;
        let graph = quantized.graph();
        for tensor in graph.initializer.iter().filter(|t| t.name().ends_with("_zero_point")) {
            let zero = sapwood_models::onnx::read_tensor(tensor).unwrap();
            assert!(matches!(&zero.data, TensorData::I8(v) if v.iter().all(|v| *v == 0)), "{name}: {}", tensor.name());
        }
        // Nothing stands between a convolution or product and what it is fused with.
        let made = |op: &[&str]| graph.node.iter().filter(|n| op.contains(&n.op_type())).flat_map(|n| n.output.clone()).collect::<Vec<_>>();
        let products = made(&["Conv", "ConvTranspose", "Gemm", "MatMul"]);
        for relu in graph.node.iter().filter(|n| matches!(n.op_type(), "Relu" | "Clip")) {
            assert!(products.contains(&relu.input[0]) || made(&["Add"]).contains(&relu.input[0]), "{name}: {}", relu.input[0]);
        }
    }
}

#[test]
fn dynamic_int8_runs() {
    for (name, model, x) in models() {
        for target in [Target::X86_64, Target::X86_64Vnni] {
            let quantized = dynamic(&model, target).unwrap();
            assert!(quantized.quantized_nodes > 0, "{name}");
            let error = apart(&quantized.model, &model, &x);
            assert!(error > 0.0 && (error < 0.1 || !suits(target)), "{name} for {}: {error}", target.name());
        }
    }
    let lstm = dynamic(&zoo::lstm([7, 6], 12, 5, 1), Target::X86_64Vnni).unwrap().model;
    assert!(lstm.graph().node.iter().any(|n| n.op_type() == "DynamicQuantizeLSTM"));
}

#[test]
fn half_precision_weights_run() {
    for (name, model, x) in models() {
        let error = apart(&half(&model).unwrap().model, &model, &x);
        assert!(error > 0.0 && error < 2e-3, "{name}: {error}");
    }
}

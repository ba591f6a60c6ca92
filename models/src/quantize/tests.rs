mod opset;
mod shift;

use std::collections::BTreeMap;

use super::passes::prepare;
use super::*;
use crate::features::Features;
use crate::forward::Forward;
use crate::onnx::{make, pb, write_tensor};
use crate::tensor::{Tensor, TensorData};
use crate::zoo;

/// A fixed sequence in [-1, 1).
fn noise(shape: &[usize], seed: u32) -> Tensor {
    let count: usize = shape.iter().product();
    let mut state = seed;
    let values = (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    Tensor { shape: shape.to_vec(), data: TensorData::F32(values) }
}

fn model(shape: &[usize], nodes: Vec<pb::NodeProto>, weights: &[(&str, &[usize])], output: &str) -> Model {
    let initializer = weights
        .iter()
        .zip(1..)
        .map(|((name, shape), seed)| {
            let mut tensor = noise(shape, seed);
            if name.starts_with("var") {
                let TensorData::F32(values) = &mut tensor.data else { unreachable!() };
                values.iter_mut().for_each(|v| *v = v.abs() + 0.1);
            }
            write_tensor(name, &tensor)
        })
        .collect();
    let graph = pb::GraphProto {
        name: Some("g".into()),
        node: nodes,
        initializer,
        input: vec![make::value(&make::batched("input", shape))],
        output: vec![pb::ValueInfoProto { name: Some(output.into()), ..Default::default() }],
        ..Default::default()
    };
    let shell = zoo::scale(&[1], 1.0).into_proto();
    Model::new(pb::ModelProto { graph: Some(graph), ..shell }).unwrap()
}

fn n(op: &str, inputs: &[&str], output: &str, attributes: Vec<pb::AttributeProto>) -> pb::NodeProto {
    make::node(op, &format!("n_{output}"), inputs, &[output], attributes)
}

fn ops(model: &Model) -> Vec<&str> {
    model.graph().node.iter().map(|n| n.op_type()).collect()
}

fn run(model: &Model, x: &Tensor) -> Vec<f32> {
    let outputs = Forward::new(model).unwrap().run(&[("input", x.clone())]).unwrap();
    outputs[0].1.as_f32().unwrap().to_vec()
}

fn assert_close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{a} {b}");
    }
}

#[test]
fn batch_normalization_folds_into_conv_and_gemm_without_changing_answers() {
    let pads = || vec![make::ints("pads", &[1, 1, 1, 1]), make::ints("kernel_shape", &[3, 3])];
    let norm = |x: &str, i: &str, y: &str| {
        let names = ["s", "b", "m", "var"].map(|p| format!("{p}{i}"));
        let mut inputs = vec![x];
        inputs.extend(names.iter().map(String::as_str));
        n("BatchNormalization", &inputs, y, vec![])
    };
    let before = model(
        &[2, 4, 4],
        vec![
            n("Conv", &["input", "w1"], "c", pads()),
            norm("c", "1", "d"),
            n("Relu", &["d"], "r", vec![]),
            n("Flatten", &["r"], "f", vec![]),
            n("Gemm", &["f", "w2", "b2x"], "g", vec![]),
            norm("g", "2", "h"),
        ],
        &[
            ("w1", &[3, 2, 3, 3]),
            ("s1", &[3]),
            ("b1", &[3]),
            ("m1", &[3]),
            ("var1", &[3]),
            ("w2", &[48, 5]),
            ("b2x", &[5]),
            ("s2", &[5]),
            ("b2", &[5]),
            ("m2", &[5]),
            ("var2", &[5]),
        ],
        "h",
    );
    let after = prepare(&before).unwrap();
    assert_eq!(ops(&after), ["Conv", "Relu", "Flatten", "Gemm"]);
    assert_eq!(after.graph().initializer.len(), 4, "unread tensors are gone");
    let x = noise(&[3, 2, 4, 4], 99);
    assert_close(&run(&after, &x), &run(&before, &x));
}

#[test]
fn a_normalization_whose_input_is_read_twice_stays() {
    let before = model(
        &[4],
        vec![
            n("Gemm", &["input", "w"], "g", vec![]),
            n("BatchNormalization", &["g", "s", "b", "m", "var"], "h", vec![]),
            n("Add", &["g", "h"], "y", vec![]),
        ],
        &[("w", &[4, 4]), ("s", &[4]), ("b", &[4]), ("m", &[4]), ("var", &[4])],
        "y",
    );
    assert_eq!(ops(&prepare(&before).unwrap()), ["Gemm", "BatchNormalization", "Add"]);
}

#[test]
fn noops_and_constant_subgraphs_go_and_output_names_stay() {
    let before = model(
        &[4],
        vec![
            n("Identity", &["input"], "i", vec![]),
            n("Transpose", &["w"], "wt", vec![]),
            n("MatMul", &["i", "wt"], "m", vec![]),
            n("Dropout", &["m"], "d", vec![]),
            n("Identity", &["d"], "y", vec![]),
        ],
        &[("w", &[3, 4])],
        "y",
    );
    let after = prepare(&before).unwrap();
    assert_eq!(ops(&after), ["MatMul"]);
    assert_eq!(after.graph().initializer[0].dims, [4, 3]);
    assert_eq!(after.outputs()[0].name, "y");
    let x = noise(&[3, 4], 5);
    assert_close(&run(&after, &x), &run(&before, &x));
}

#[test]
fn nodes_follow_the_order_that_onnxruntime_writes() {
    let model = zoo::cnn([1, 8, 8], 10, 1);
    let ranges = ranges(&model, &noise(&[40, 1, 8, 8], 3).into(), Calibrator::MinMax).unwrap();
    let quantized = quantize(&model, &ranges, Target::X86_64Vnni).unwrap();
    let pair = ["QuantizeLinear", "DequantizeLinear"];
    let mut want = vec!["DequantizeLinear"; 8];
    want.extend(pair);
    for op in ["Conv", "MaxPool", "Conv", "MaxPool", "Flatten", "Gemm", "Gemm"] {
        want.push(op);
        want.extend(pair);
    }
    assert_eq!(ops(&quantized.model), want);
    assert_eq!(quantized.quantized_nodes, 10, "seven that remain and three absorbed ReLUs");
    assert!(quantized.float_nodes.is_empty());
    assert_eq!(quantized.model.inputs(), model.inputs());
    assert_eq!(quantized.model.outputs(), model.outputs());
    assert!(quantized.model.encode().len() * 2 < model.encode().len());
    assert_eq!(Model::decode(&quantized.model.encode()).unwrap(), quantized.model);
}

#[test]
fn weights_keep_seven_bits_where_the_processor_saturates() {
    let model = zoo::mlp(8, &[6], 3, 1);
    let ranges = ranges(&model, &noise(&[10, 8], 3).into(), Calibrator::MinMax).unwrap();
    for (target, bound) in [(Target::X86_64, 64), (Target::X86_64Vnni, 127), (Target::Aarch64, 127)] {
        let quantized = quantize(&model, &ranges, target).unwrap();
        let mut largest = 0;
        for proto in &quantized.model.graph().initializer {
            if let TensorData::I8(v) = crate::onnx::read_tensor(proto).unwrap().data {
                largest = largest.max(v.iter().map(|v| i32::from(*v).abs()).max().unwrap());
            }
        }
        assert_eq!(largest, bound, "{target:?}");
        assert_eq!(target.name().parse::<Target>().unwrap(), target);
    }
    assert!(matches!("riscv".parse::<Target>(), Err(ModelError::Setting { .. })));
}

#[test]
fn a_bias_that_two_nodes_share_is_copied() {
    let model = model(
        &[4],
        vec![n("Gemm", &["input", "w1", "b"], "g", vec![]), n("Gemm", &["g", "w2", "b"], "h", vec![])],
        &[("w1", &[4, 4]), ("w2", &[4, 4]), ("b", &[4])],
        "h",
    );
    let ranges = ranges(&model, &noise(&[10, 4], 3).into(), Calibrator::MinMax).unwrap();
    let quantized = quantize(&model, &ranges, Target::Aarch64).unwrap();
    let gemms: Vec<_> = quantized.model.graph().node.iter().filter(|n| n.op_type() == "Gemm").collect();
    assert_ne!(gemms[0].input[2], gemms[1].input[2]);
}

/// Found by review: the integer bias stood for `C`, where the graph says `beta * C`; and ONNX Runtime's QGemm takes `alpha`
/// into the bias's scale.
#[test]
fn a_gemm_keeps_its_alpha_and_beta() {
    let attributes = vec![make::float("alpha", 0.5), make::float("beta", -2.0)];
    let model = model(&[4], vec![n("Gemm", &["input", "w", "b"], "g", attributes)], &[("w", &[4, 4]), ("b", &[4])], "g");
    let ranges = ranges(&model, &noise(&[10, 4], 3).into(), Calibrator::MinMax).unwrap();
    let quantized = quantize(&model, &ranges, Target::Aarch64).unwrap().model;
    let constant = |name: &str| {
        let proto = quantized.graph().initializer.iter().find(|t| t.name() == name).unwrap();
        crate::onnx::read_tensor(proto).unwrap()
    };
    let (TensorData::I32(values), TensorData::F32(scales)) = (constant("b_quantized").data, constant("b_quantized_scale").data) else {
        panic!("INT32 with a float scale")
    };
    let stored: Vec<f32> = values.iter().zip(&scales).map(|(v, s)| *v as f32 * s).collect();
    let before: Vec<f32> = noise(&[4], 2).as_f32().unwrap().iter().map(|c| -2.0 * c).collect();
    assert_close(&stored, &before);
    let (weights, input) = (constant("w_scale"), constant("input_scale"));
    let expected: Vec<f32> = weights.as_f32().unwrap().iter().map(|w| w * input.as_f32().unwrap()[0] * 0.5).collect();
    assert_close(&scales, &expected);
    let gemm = quantized.graph().node.iter().find(|n| n.op_type() == "Gemm").unwrap();
    assert_eq!(gemm.attribute.iter().map(|a| a.name()).collect::<Vec<_>>(), ["alpha"]);
}

#[test]
fn operators_without_an_integer_kernel_are_listed() {
    let model = model(&[4], vec![n("Gemm", &["input", "w"], "g", vec![]), n("Tanh", &["g"], "y", vec![])], &[("w", &[4, 4])], "y");
    let ranges = ranges(&model, &noise(&[10, 4], 3).into(), Calibrator::MinMax).unwrap();
    let quantized = quantize(&model, &ranges, Target::Aarch64).unwrap();
    assert_eq!(quantized.quantized_nodes, 1);
    assert_eq!(quantized.float_nodes, ["node `n_y`"]);
    assert_eq!(quantized.model.outputs()[0].name, "y");
}

#[test]
fn bad_calibration_and_old_opsets_are_refused() {
    let model = zoo::mlp(4, &[], 2, 0);
    let empty = Tensor::f32([0, 4], vec![]).unwrap();
    assert!(matches!(ranges(&model, &empty.into(), Calibrator::MinMax), Err(ModelError::Calibration { .. })));
    let mut nan = noise(&[5, 4], 1);
    let TensorData::F32(values) = &mut nan.data else { unreachable!() };
    values[7] = f32::NAN;
    assert!(matches!(ranges(&model, &nan.into(), Calibrator::MinMax), Err(ModelError::Calibration { .. })));
    assert!(ranges(&model, &noise(&[5, 3], 1).into(), Calibrator::MinMax).is_err());

    let none = Ranges::default();
    let refused = quantize(&model, &none, Target::Aarch64).unwrap_err();
    assert!(matches!(&refused, ModelError::Calibration { tensor, .. } if tensor == "input"));
    let swapped = Ranges::new(BTreeMap::from([("x".to_owned(), (1.0, 0.0))]));
    assert!(matches!(swapped, Err(ModelError::Calibration { .. })));

    let mut old = model.into_proto();
    old.opset_import[0].version = Some(10);
    let refused = quantize(&Model::new(old).unwrap(), &none, Target::Aarch64).unwrap_err();
    assert!(matches!(refused, ModelError::Opset { found: 10, oldest: 13, .. }));
}

#[test]
fn ranges_are_the_extremes_over_all_batches() {
    let model = zoo::scale(&[2], 2.0);
    let mut x = noise(&[70, 2], 4);
    let TensorData::F32(values) = &mut x.data else { unreachable!() };
    values[0] = -5.0;
    values[139] = 7.0;
    let ranges = ranges(&model, &x.into(), Calibrator::MinMax).unwrap();
    assert_eq!(ranges.get("input"), Some((-5.0, 7.0)));
    assert_eq!(ranges.get("scaled"), Some((-10.0, 14.0)));
}

#[test]
fn calibrators_have_names_and_bounds() {
    assert_eq!("minmax".parse::<Calibrator>().unwrap(), Calibrator::MinMax);
    assert_eq!("percentile".parse::<Calibrator>().unwrap(), Calibrator::Percentile(99.999));
    assert_eq!("percentile:50".parse::<Calibrator>().unwrap(), Calibrator::Percentile(50.0));
    assert_eq!(Calibrator::Percentile(99.9).to_string().parse::<Calibrator>().unwrap(), Calibrator::Percentile(99.9));
    for bad in ["", "entropy", "minmax:3", "percentile:", "percentile:0", "percentile:101", "percentile:nan"] {
        assert!(matches!(bad.parse::<Calibrator>(), Err(ModelError::Setting { name: "calibrator", .. })), "{bad}");
    }
}

#[test]
fn a_percentile_leaves_outliers_out_of_every_range() {
    let model = zoo::scale(&[50], 2.0);
    let mut x = noise(&[70, 50], 4);
    let TensorData::F32(values) = &mut x.data else { unreachable!() };
    values[17] = 1000.0;
    let (all, most, x) = (Calibrator::MinMax, Calibrator::Percentile(99.9), Features::from(x));
    assert_eq!(ranges(&model, &x, all).unwrap().get("input").unwrap().1, 1000.0);
    let (min, max) = ranges(&model, &x, most).unwrap().get("scaled").unwrap();
    assert!(min < -1.9 && max < 2.1, "{min} {max}");
}

/// One product in a hundred times the range of the others.
fn uneven() -> (Model, Ranges, Features) {
    let nodes = vec![
        n("Gemm", &["input", "w1"], "a", vec![]),
        n("Mul", &["a", "gain"], "b", vec![]),
        n("Concat", &["a", "b"], "c", vec![make::int("axis", 1)]),
        n("Gemm", &["c", "w2"], "y", vec![]),
    ];
    let mut proto = model(&[4], nodes, &[("w1", &[4, 4]), ("w2", &[8, 3]), ("gain", &[1])], "y").into_proto();
    proto.graph.as_mut().unwrap().initializer[2] = write_tensor("gain", &Tensor::f32([1], vec![100.0]).unwrap());
    let (model, x) = (Model::new(proto).unwrap(), Features::from(noise(&[20, 4], 3)));
    let ranges = ranges(&model, &x, Calibrator::MinMax).unwrap();
    (model, ranges, x)
}

#[test]
fn the_report_names_what_loses_most() {
    let (model, ranges, x) = uneven();
    let found = sensitivity(&model, &ranges, Target::Aarch64, &x).unwrap();
    assert_eq!(found.nodes.len(), 4);
    assert!(found.nodes.windows(2).all(|w| w[0].error >= w[1].error));
    assert!(found.nodes.iter().all(|node| node.error > 0.0 && node.error < 0.1), "{found:?}");
    assert_eq!(found.tensors.len(), 5, "{found:?}");
    let error = |name: &str| found.tensors.iter().find(|t| t.tensor == name).unwrap().error;
    assert!(error("input") < 0.01 && error("y") > error("input"));
}

#[test]
fn mixed_precision_leaves_as_many_nodes_in_float_as_it_takes() {
    let (model, ranges, x) = uneven();
    let found = sensitivity(&model, &ranges, Target::Aarch64, &x).unwrap();
    let order: Vec<String> = found.nodes.iter().map(|n| n.node.clone()).collect();
    let try_with = |wanted: usize| {
        let mut asked = 0;
        let mixed = mixed(&model, &ranges, Target::Aarch64, &order, |_| {
            asked += 1;
            Ok::<_, ModelError>(asked > wanted)
        });
        mixed.unwrap().map(|q| q.float_nodes)
    };
    assert_eq!(try_with(0), Some(vec![]));
    assert_eq!(try_with(1), Some(vec![order[0].clone()]));
    assert_eq!(try_with(3).unwrap().len(), 3);
    assert_eq!(try_with(4), None, "all in float is no quantized model");
}

#[test]
fn a_table_of_embeddings_gives_its_parameters_to_what_is_looked_up() {
    let mut proto = model(
        &[4],
        vec![
            n("ArgMax", &["input"], "place", vec![make::int("axis", 1), make::int("keepdims", 0)]),
            n("Gather", &["table", "place"], "found", vec![]),
            n("Gemm", &["found", "w", "b"], "y", vec![]),
        ],
        &[("table", &[4, 6]), ("w", &[6, 3]), ("b", &[3])],
        "y",
    )
    .into_proto();
    proto.opset_import[0].version = Some(17);
    let model = Model::new(proto).unwrap();
    let ranges = ranges(&model, &noise(&[10, 4], 3).into(), Calibrator::MinMax).unwrap();
    let quantized = quantize(&model, &ranges, Target::Aarch64).unwrap();
    assert!(quantized.float_nodes.is_empty());
    let pair = quantized.model.graph().node.iter().find(|n| n.op_type() == "QuantizeLinear" && n.input[0] == "found").unwrap();
    assert_eq!(pair.input[1], "table_scale");
    let x = noise(&[5, 4], 8);
    for (a, b) in run(&quantized.model, &x).iter().zip(run(&model, &x)) {
        assert!((a - b).abs() < 0.05, "{a} {b}");
    }
}

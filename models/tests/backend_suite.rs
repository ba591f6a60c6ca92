//! The ONNX project's own cases: a model, its inputs and what must come out, for each operator and its variants.
//!
//! `SAPWOOD_ONNX_CASES` names the folders, with `:` between them; `.ci/run` provides them (Debian's libonnx-testdata up to opset 17,
//! and behind that what `tests/interop/onnx_cases.py` writes). Each case passes, fails, or needs what the interpreter does not have;
//! the last must be no operator of [`REQUIRED`].
#![allow(clippy::print_stdout, reason = "what was counted is told")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use prost::Message;
use sapwood_models::onnx::{Element, Model, OLDEST_OPSET, pb, read_tensor};
use sapwood_models::{Forward, ModelError, Tensor, TensorData};

/// Operators of the models that people bring: every variant over f32, integers and booleans must be computed.
const REQUIRED: &[&str] = &[
    "Conv",
    "ConvTranspose",
    "Resize",
    "Upsample",
    "LRN",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "BatchNormalization",
    "LayerNormalization",
    "GroupNormalization",
    "RMSNormalization",
    "Gemm",
    "MatMul",
    "Gather",
    "GatherElements",
    "GatherND",
    "Slice",
    "Split",
    "Concat",
    "Pad",
    "Expand",
    "Tile",
    "Where",
    "Equal",
    "Less",
    "LessOrEqual",
    "Greater",
    "GreaterOrEqual",
    "Trilu",
    "OneHot",
    "TopK",
    "CumSum",
    "Clip",
    "HardSwish",
    "HardSigmoid",
    "Gelu",
    "Erf",
    "Softmax",
    "LSTM",
    "GRU",
    "RNN",
    "InstanceNormalization",
    "Transpose",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "Sqrt",
    "Exp",
    "Log",
    "Tanh",
    "Sigmoid",
    "Relu",
    "ReduceMean",
    "ReduceSum",
    "ReduceMax",
    "ReduceMin",
    "ArgMax",
    "Shape",
    "ConstantOfShape",
    "Range",
    "Constant",
    "If",
];

/// Cases that ask for what is not promised, by how their names begin.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("test_if_opt", "optional values are not promised"),
    ("test_if_seq", "nor sequences"),
    (
        "test_resize_downsample_scales_linear_align_corners",
        "by the text of the specification, and in ONNX Runtime, the extents are whole; the reference divides by a fraction",
    ),
    ("test_resize_downsample_scales_cubic_align_corners", "as above"),
    ("test_batchnorm_epsilon_training_mode", "statistics of the batch are outputs of these; here training moves its parameters by them"),
    ("test_batchnorm_example_training_mode", "as above"),
    (
        "test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True",
        "onnx 1.16 expects wrong values here; the same case of 1.19 passes",
    ),
];

/// What became of a case.
enum Outcome {
    Passed,
    /// The operator at fault, and why.
    Unsupported(String, String),
    Failed(String),
}

/// Whether a case is one of those that must be computed: its types are f32, i32, i64 and bool, and its opset is read.
fn promised(case: &Path) -> bool {
    const TYPES: [Element; 4] = [Element::F32, Element::I32, Element::I64, Element::Bool];
    let name = case.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if EXCEPTIONS.iter().any(|(begin, _)| name.starts_with(begin)) {
        return false;
    }
    let proto = pb::ModelProto::decode(fs::read(case.join("model.onnx")).unwrap().as_slice()).unwrap();
    let opset = proto.opset_import.iter().find(|set| set.domain().is_empty()).map_or(0, |set| set.version());
    let tensors = fs::read_dir(case.join("test_data_set_0")).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let computed = |bytes: Vec<u8>| {
        pb::TensorProto::decode(bytes.as_slice()).is_ok_and(|tensor| TYPES.contains(&Element::from_onnx(tensor.data_type())))
    };
    opset >= OLDEST_OPSET && tensors.into_iter().all(computed)
}

fn cases(folder: &Path, found: &mut Vec<PathBuf>) {
    if folder.join("model.onnx").is_file() {
        found.push(folder.to_owned());
        return;
    }
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            cases(&path, found);
        }
    }
}

/// `None` for a type that is not computed: strings, sequences, half floats.
fn tensor(path: &Path) -> Option<Tensor> {
    let proto = pb::TensorProto::decode(fs::read(path).ok()?.as_slice()).ok()?;
    let known = [Element::F32, Element::F64, Element::I64, Element::I32, Element::Bool, Element::U8, Element::I8];
    known.contains(&Element::from_onnx(proto.data_type())).then(|| read_tensor(&proto).ok()).flatten()
}

fn run(case: &Path) -> Outcome {
    let bytes = fs::read(case.join("model.onnx")).unwrap();
    let blame = |reason: String| {
        let op = pb::ModelProto::decode(bytes.as_slice()).ok().and_then(|model| model.graph);
        let op = op.and_then(|graph| graph.node.iter().map(|node| node.op_type().to_owned()).next_back());
        Outcome::Unsupported(op.unwrap_or_default(), reason)
    };
    let refusal = |error: ModelError| match error {
        ModelError::Unsupported { op, reason, .. } => Outcome::Unsupported(op, reason),
        other => Outcome::Failed(other.to_string()),
    };
    let model = match Model::decode(&bytes) {
        Ok(model) => model,
        Err(error) => return blame(error.to_string()),
    };
    let data = case.join("test_data_set_0");
    let mut inputs = Vec::new();
    for (i, input) in model.inputs().iter().enumerate() {
        let Some(tensor) = tensor(&data.join(format!("input_{i}.pb"))) else {
            return blame(format!("an input of type {:?}", input.element));
        };
        inputs.push((input.name.clone(), tensor));
    }
    let fed: Vec<(&str, Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
    let results = match Forward::new(&model).and_then(|forward| forward.run(&fed)) {
        Ok(results) => results,
        Err(error) => return refusal(error),
    };
    for (i, (name, got)) in results.iter().enumerate() {
        let Some(expected) = tensor(&data.join(format!("output_{i}.pb"))) else {
            return blame(format!("the output `{name}`"));
        };
        if let Err(difference) = same(got, &expected) {
            return Outcome::Failed(format!("{name}: {difference}"));
        }
    }
    Outcome::Passed
}

/// The tolerances of ONNX's own runner; integers and booleans to the bit.
fn same(got: &Tensor, expected: &Tensor) -> Result<(), String> {
    if got.shape != expected.shape {
        return Err(format!("the shape is {:?}, not {:?}", got.shape, expected.shape));
    }
    let (TensorData::F32(got), TensorData::F32(expected)) = (&got.data, &expected.data) else {
        return if got.data == expected.data { Ok(()) } else { Err(format!("{:?}, not {:?}", got.data, expected.data)) };
    };
    let near = |a: f32, b: f32| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-5 + 1e-3 * b.abs();
    match got.iter().zip(expected).position(|(a, b)| !near(*a, *b)) {
        Some(i) => Err(format!("element {i} is {}, not {}", got[i], expected[i])),
        None => Ok(()),
    }
}

/// A program of its own, without the test harness: what was counted is always printed.
fn main() {
    let Some(folders) = env::var_os("SAPWOOD_ONNX_CASES") else {
        assert!(env::var_os("CI").is_none(), "CI must provide SAPWOOD_ONNX_CASES");
        println!("SKIPPED: SAPWOOD_ONNX_CASES is not set");
        return;
    };
    println!("\nrunning the ONNX project's own cases");
    let mut found = Vec::new();
    env::split_paths(&folders).for_each(|folder| cases(&folder, &mut found));
    found.sort();
    let stale = EXCEPTIONS.iter().filter(|(begin, _)| {
        let named = |case: &&PathBuf| case.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(begin));
        found.iter().filter(named).all(|case| matches!(run(case), Outcome::Passed))
    });
    assert_eq!(stale.map(|(begin, _)| *begin).collect::<Vec<_>>(), Vec::<&str>::new(), "exceptions that are none");
    let (mut passed, mut failed, mut excepted, mut unsupported) = (0, Vec::new(), Vec::new(), BTreeMap::<String, usize>::new());
    for case in &found {
        let name = case.strip_prefix("/").unwrap_or(case).display().to_string();
        match run(case) {
            Outcome::Passed => passed += 1,
            Outcome::Failed(why) if promised(case) => failed.push(format!("{name}: {why}")),
            Outcome::Unsupported(op, why) if REQUIRED.contains(&op.as_str()) && promised(case) => {
                failed.push(format!("{name}: {op}: {why}"));
            }
            Outcome::Failed(why) => excepted.push(format!("{name}: {why}")),
            Outcome::Unsupported(op, _) => *unsupported.entry(op).or_default() += 1,
        }
    }
    println!("ONNX's cases: {passed} passed, {} unsupported, {} failed", unsupported.values().sum::<usize>(), failed.len());
    let counts: Vec<String> = unsupported.iter().map(|(op, count)| format!("{op} {count}")).collect();
    println!("unsupported, by operator: {}", counts.join(", "));
    println!("and {} of other types, of older opsets, or named as exceptions, fail:\n{}", excepted.len(), excepted.join("\n"));
    assert!(failed.is_empty(), "{} failed, or unsupported though required:\n{}", failed.len(), failed.join("\n"));
    assert!(passed > 0, "no case was found in {}", Path::new(&folders).display());
}

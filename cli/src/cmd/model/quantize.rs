//! `model quantize`.

use sapwood_models::{
    Dataset, Forward, Model, Targets, metrics,
    quantize::{self as int8, Calibrator, Quantized, Ranges, Sensitivity, Shift, Target},
};
use serde_json::{Value, json};

use super::{Engine, Mode, QuantizeArgs, answers::Answers, files::read_data, read_model, write_model};
use crate::output::{Answer, Exit, Failure, OrFail, bytes, table};

/// The report keeps every value of these examples in memory.
const SENSITIVITY_EXAMPLES: usize = 32;
/// Lines of the report that a person is shown.
const SHOWN: usize = 10;

pub(super) fn quantize(args: &QuantizeArgs) -> Result<Answer, Failure> {
    let model = read_model(&args.file)?;
    // Both spellings of the architecture are in use: Rust's and everybody else's.
    let target: Target = args.target.replace("x86-64", "x86_64").parse().or_usage()?;
    let Made { quantized, sensitivity, shifts } = match args.mode {
        Mode::Static => static_int8(args, &model, target)?,
        _ if args.sensitivity || args.max_drop.is_some() => {
            return Err(Failure::usage("--sensitivity and --max-drop are for --mode static"));
        }
        Mode::Dynamic => Made::of(int8::dynamic(&model, target).or_usage()?),
        Mode::Fp16 => Made::of(int8::half(&model).or_usage()?),
    };
    // A graph that our own interpreter cannot read would be a fault of ours: fail here, not on a node.
    if !matches!(args.mode, Mode::Dynamic) {
        Forward::new(&quantized.model).or_usage()?;
    }
    let before = model.encode().len() as u64;
    let after = write_model(&args.out, &quantized.model)?;
    let mut text = format!(
        "{}: {} from {} ({:.0} %), {} nodes in INT8, {} in float{}",
        args.out.display(),
        bytes(after),
        bytes(before),
        100.0 * after as f64 / before as f64,
        quantized.quantized_nodes,
        quantized.float_nodes.len(),
        if quantized.float_nodes.is_empty() { String::new() } else { format!(": {}", quantized.float_nodes.join(", ")) },
    );
    let mut data = json!({"fp32_bytes": before, "int8_bytes": after, "quantized_nodes": quantized.quantized_nodes, "float_nodes": quantized.float_nodes});
    if let Some(found) = sensitivity.filter(|_| args.sensitivity) {
        text.push_str(&shown(&found));
        data["sensitivity"] = report(&found);
    }
    if let Some(shifts) = shifts {
        text.push_str(&warned(&shifts));
        let one = |s: &Shift| json!({"tensor": s.tensor, "calibrated": s.calibrated, "found": s.found, "outside": s.outside, "distance": s.distance});
        data["shifted"] = shifts.iter().map(one).collect();
    }
    Ok(Answer::new(data, text))
}

/// What became of the model, and what was asked about it.
struct Made {
    quantized: Quantized,
    sensitivity: Option<Sensitivity>,
    /// Where the evaluation data differ from the calibration data, if there are any.
    shifts: Option<Vec<Shift>>,
}

impl Made {
    fn of(quantized: Quantized) -> Self {
        Self { quantized, sensitivity: None, shifts: None }
    }
}

fn static_int8(args: &QuantizeArgs, model: &Model, target: Target) -> Result<Made, Failure> {
    let calibrator: Calibrator = args.calibrator.parse().or_usage()?;
    let read = |data: &str| read_data(data, args.schema.as_deref(), args.preprocess.as_deref());
    let missing = || Failure::usage("--mode static needs --calibration").hint("--mode dynamic needs no data");
    let data = read(args.calibration.as_deref().ok_or_else(missing)?)?;
    let first = |data: &Dataset, most: usize| data.subset(&(0..data.len().min(most)).collect::<Vec<_>>()).x;
    let x = first(&data, args.samples);
    let ranges = int8::ranges(model, &x, calibrator).or_usage()?;
    let evaluation = args.evaluation.as_deref().map(read).transpose()?;
    let shifts = evaluation.as_ref().map(|other| int8::shifts(model, &x, &ranges, &first(other, args.samples)).or_usage()).transpose()?;
    if !args.sensitivity && args.max_drop.is_none() {
        return Ok(Made { shifts, ..Made::of(int8::quantize(model, &ranges, target).or_usage()?) });
    }
    let sensitivity = int8::sensitivity(model, &ranges, target, &first(&data, args.samples.min(SENSITIVITY_EXAMPLES))).or_usage()?;
    let quantized = match (args.max_drop, &evaluation) {
        (None, _) => int8::quantize(model, &ranges, target).or_usage()?,
        (Some(most), Some(evaluation)) => within(model, &ranges, target, &sensitivity, most, evaluation)?,
        (Some(_), None) => return Err(Failure::usage("--max-drop needs --evaluation")),
    };
    Ok(Made { quantized, sensitivity: Some(sensitivity), shifts })
}

/// As much in INT8 as a drop of accuracy allows.
fn within(model: &Model, ranges: &Ranges, target: Target, found: &Sensitivity, most: f64, data: &Dataset) -> Result<Quantized, Failure> {
    let float = accuracy(model, data)?;
    let order: Vec<String> = found.nodes.iter().map(|n| n.node.clone()).collect();
    let holds = |quantized: &Model| Ok::<_, Score>(float - accuracy(quantized, data)? <= most);
    let mixed = int8::mixed(model, ranges, target, &order, holds).map_err(|Score(failure)| failure)?;
    mixed.ok_or_else(|| Failure::new(Exit::Refused, format!("with any operator in INT8, accuracy falls by more than {most}")))
}

/// A failure of a score, which may come from the model.
struct Score(Failure);

impl From<Failure> for Score {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl From<sapwood_models::ModelError> for Score {
    fn from(error: sapwood_models::ModelError) -> Self {
        Self(Failure::usage(crate::output::chain(&error)))
    }
}

/// The share of right answers, through the interpreter.
fn accuracy(model: &Model, data: &Dataset) -> Result<f64, Failure> {
    let Targets::Classes(labels) = &data.y else { return Err(Failure::usage("--max-drop is for data with classes")) };
    let answers = Answers::new(model, Engine::Burn)?.all(&data.x)?;
    let values = answers.as_f32().ok_or_else(|| Failure::usage("the model's first output is not float32"))?;
    Ok(metrics::accuracy(values, answers.row_len(), labels))
}

fn report(found: &Sensitivity) -> Value {
    let nodes: Vec<_> = found.nodes.iter().map(|n| json!({"node": n.node, "operator": n.operator, "error": n.error})).collect();
    let tensors: Vec<_> =
        found.tensors.iter().map(|t| json!({"tensor": t.tensor, "min": t.range.0, "max": t.range.1, "error": t.error})).collect();
    json!({"nodes": nodes, "tensors": tensors})
}

fn shown(found: &Sensitivity) -> String {
    let percent = |error: f64| format!("{:.3} %", 100.0 * error);
    let nodes = found.nodes.iter().take(SHOWN).map(|n| vec![n.node.clone(), n.operator.clone(), percent(n.error)]);
    let tensors = found.tensors.iter().take(SHOWN);
    let tensors = tensors.map(|t| vec![t.tensor.clone(), format!("{:.4}..{:.4}", t.range.0, t.range.1), percent(t.error)]);
    format!(
        "\n\nError of the answers with one operator in INT8, the worst {SHOWN}:\n{}\n\nError of each value with all in INT8, the worst {SHOWN}:\n{}",
        table(&["node", "operator", "error"], &nodes.collect::<Vec<_>>()),
        table(&["value", "range", "error"], &tensors.collect::<Vec<_>>()),
    )
}

/// A warning of tensors that are spread otherwise than in calibration.
fn warned(shifts: &[Shift]) -> String {
    if shifts.is_empty() {
        return String::new();
    }
    let lines: Vec<String> = shifts.iter().take(SHOWN).map(|shift| format!("  {shift}")).collect();
    let rest = if shifts.len() > SHOWN { format!("\n  and {} more", shifts.len() - SHOWN) } else { String::new() };
    format!(
        "\n\nWarning: the evaluation data are not distributed as the calibration data; calibrate with data such as the model will see.\n{}{rest}",
        lines.join("\n")
    )
}

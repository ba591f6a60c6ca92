//! `model quantize`.

use sapwood_models::{forward::Forward, quantize as int8};
use serde_json::json;

use super::{QuantizeArgs, files::read_data, read_model, write_model};
use crate::output::{Answer, Failure, OrFail, bytes};

pub(super) fn quantize(args: &QuantizeArgs) -> Result<Answer, Failure> {
    let model = read_model(&args.file)?;
    // Both spellings of the architecture are in use: Rust's and everybody else's.
    let target: int8::Target = args.target.replace("x86-64", "x86_64").parse().or_usage()?;
    let data = read_data(&args.calibration, args.schema.as_deref(), args.preprocess.as_deref())?;
    let rows: Vec<usize> = (0..data.len().min(args.samples)).collect();
    let ranges = int8::ranges(&model, &data.subset(&rows).x, int8::Calibrator::MinMax).or_usage()?;
    let quantized = int8::quantize(&model, &ranges, target).or_usage()?;
    // A graph that our own interpreter cannot read would be a fault of ours: fail here, not on a node.
    Forward::new(&quantized.model).or_usage()?;
    let before = model.encode().len() as u64;
    let after = write_model(&args.out, &quantized.model)?;
    let text = format!(
        "{}: {} from {} ({:.0} %), {} nodes in INT8, {} in float{}",
        args.out.display(),
        bytes(after),
        bytes(before),
        100.0 * after as f64 / before as f64,
        quantized.quantized_nodes,
        quantized.float_nodes.len(),
        if quantized.float_nodes.is_empty() { String::new() } else { format!(": {}", quantized.float_nodes.join(", ")) },
    );
    Ok(Answer::new(
        json!({"fp32_bytes": before, "int8_bytes": after, "quantized_nodes": quantized.quantized_nodes, "float_nodes": quantized.float_nodes}),
        text,
    ))
}

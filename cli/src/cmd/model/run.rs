//! `model run`.

use std::path::Path;

use sapwood_data::{Limits, read_tensors, save_npz};
use sapwood_models::Features;
use serde_json::json;

use super::{Engine, answers::Answers, read_model};
use crate::output::{Answer, Failure, OrFail, table};

/// All outputs of a model for the arrays of one `.npz`, into another.
pub(super) fn run(file: &Path, input: &Path, out: &Path, engine: Engine) -> Result<Answer, Failure> {
    let model = read_model(file)?;
    let x: Features = read_tensors(input, Limits::default()).or_usage()?.into_iter().collect();
    let outputs = Answers::new(&model, engine)?.run(&x)?;
    save_npz(out, outputs.iter().map(|(name, tensor)| (name.as_str(), tensor))).or_usage()?;
    let rows: Vec<_> = outputs.iter().map(|(name, t)| vec![name.clone(), format!("{:?}", t.element()), format!("{:?}", t.shape)]).collect();
    let shapes: Vec<_> = outputs.iter().map(|(name, tensor)| json!({"name": name, "shape": tensor.shape})).collect();
    let text = format!("{}\n{}", table(&["output", "type", "shape"], &rows), out.display());
    Ok(Answer::new(json!({"outputs": shapes, "file": out}), text))
}

//! `model run`.

use std::path::Path;

use sapwood_data::{Limits, read_tensors, save_npz};
use sapwood_models::{Features, Tensor};
use sapwood_protocol::release::{
    Answer, Postprocess,
    documents::{self, Config},
};
use serde_json::json;

use super::{Engine, answers::Answers, read_model};
use crate::output::{self, Exit, Failure, OrFail, table};

/// All outputs of a model for the arrays of one `.npz`, into another.
pub(super) fn run(file: &Path, input: &Path, out: &Path, engine: Engine, config: Option<&Path>) -> Result<output::Answer, Failure> {
    let model = read_model(file)?;
    let postprocess = config.map(read_config).transpose()?;
    let x: Features = read_tensors(input, Limits::default()).or_usage()?.into_iter().collect();
    let outputs = Answers::new(&model, engine)?.run(&x)?;
    save_npz(out, outputs.iter().map(|(name, tensor)| (name.as_str(), tensor))).or_usage()?;
    let rows: Vec<_> = outputs.iter().map(|(name, t)| vec![name.clone(), format!("{:?}", t.element()), format!("{:?}", t.shape)]).collect();
    let shapes: Vec<_> = outputs.iter().map(|(name, tensor)| json!({"name": name, "shape": tensor.shape})).collect();
    let mut text = format!("{}\n{}", table(&["output", "type", "shape"], &rows), out.display());
    let mut data = json!({"outputs": shapes, "file": out});
    if let Some(postprocess) = postprocess {
        let answers = answers(&postprocess, outputs.first().map(|(_, tensor)| tensor))?;
        let score = |answer: &Answer| answer.score.map_or_else(|| "-".to_owned(), |score| format!("{score:.4}"));
        let row = |(at, answer): (usize, &Answer)| vec![at.to_string(), answer.label.clone(), score(answer), answer.accepted.to_string()];
        let rows: Vec<_> = answers.iter().enumerate().map(row).collect();
        text = format!("{}\n{text}", table(&["row", "label", "score", "accepted"], &rows));
        data["answers"] = json!(answers);
    }
    Ok(output::Answer::new(data, text))
}

/// What a bundle's `config.json` makes of the outputs.
fn read_config(path: &Path) -> Result<Postprocess, Failure> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| Failure::new(Exit::NotFound, format!("{name}: {e}")))?;
    let config: Config = documents::from_bytes(&name, &bytes).map_err(|fault| Failure::usage(fault.to_string()))?;
    config.postprocess.check(&format!("{name}: postprocess")).map_err(|fault| Failure::usage(fault.to_string()))?;
    Ok(config.postprocess)
}

/// One for each example; none where the outputs are the answer.
fn answers(postprocess: &Postprocess, output: Option<&Tensor>) -> Result<Vec<Answer>, Failure> {
    let values = output.and_then(|output| Some((output.row_len(), output.as_f32()?)));
    let (width, values) = values.ok_or_else(|| Failure::usage("the model's first output is not float32"))?;
    postprocess.fits("postprocess", width).map_err(|fault| Failure::usage(fault.to_string()))?;
    Ok(values.chunks_exact(width.max(1)).filter_map(|row| postprocess.answer(row)).collect())
}

//! `model run`.

use std::path::Path;

use sapwood_data::{Limits, read_tensors, save_npz};
use sapwood_models::{Features, Forward, Tensor};
use sapwood_runtime::{Runtime, SessionOptions};
use serde_json::json;

use super::{Engine, read_model};
use crate::output::{Answer, Exit, Failure, OrFail, table};

/// All outputs of a model for the arrays of one `.npz`, into another.
pub(super) fn run(file: &Path, input: &Path, out: &Path, engine: Engine) -> Result<Answer, Failure> {
    let model = read_model(file)?;
    let x: Features = read_tensors(input, Limits::default()).or_usage()?.into_iter().collect();
    let outputs = match engine {
        Engine::Burn => {
            let forward = Forward::new(&model).or_usage()?;
            let inputs = forward.feed(&x).or_usage()?;
            forward.run(&inputs).or_usage()?
        }
        Engine::Ort => {
            let runtime = Runtime::load(None).or_fail(Exit::NotFound).map_err(|f| f.hint("sapwood runtime install"))?;
            let mut session = runtime.session(&model.encode(), SessionOptions::default()).or_usage()?;
            let read: Vec<_> = session.inputs().iter().map(|input| (input.name.clone(), input.element)).collect();
            let inputs = x.feed(read.iter().map(|(name, element)| (name.as_str(), *element))).or_usage()?;
            let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
            session.run(&inputs).or_usage()?
        }
    };
    save_npz(out, outputs.iter().map(|(name, tensor)| (name.as_str(), tensor))).or_usage()?;
    let rows: Vec<_> = outputs.iter().map(|(name, t)| vec![name.clone(), format!("{:?}", t.element()), format!("{:?}", t.shape)]).collect();
    let shapes: Vec<_> = outputs.iter().map(|(name, tensor)| json!({"name": name, "shape": tensor.shape})).collect();
    let text = format!("{}\n{}", table(&["output", "type", "shape"], &rows), out.display());
    Ok(Answer::new(json!({"outputs": shapes, "file": out}), text))
}

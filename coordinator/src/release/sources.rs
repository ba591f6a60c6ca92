//! Data sets that a run declares: vendored ones by name, uploaded ones by digest. Never a path: a caller must not choose what
//! the coordinator reads from its disk.

use std::{fs::File, io};

use sapwood_data::Source;
use sapwood_models::{Dataset, Model, Tensor, forward::Forward};
use sapwood_protocol::Digest;

use super::ReleaseError;
use crate::objects::Objects;

/// Examples that pass through the interpreter at once.
const AT_ONCE: usize = 256;

/// Loads what `text`, the value of `key`, declares: `digits:12-14`, or `sha256:…` of an uploaded `.npz`.
pub(super) fn declared(key: &'static str, text: &str, objects: &Objects) -> Result<Dataset, ReleaseError> {
    if text.starts_with("sha256:") {
        let digest: Digest = text.parse()?;
        let folder = tempfile::tempdir().map_err(ReleaseError::Temporary)?;
        let path = folder.path().join("data.npz");
        let (mut object, _) = objects.open_at(digest, 0)?;
        let mut copy = File::create_new(&path).map_err(ReleaseError::Temporary)?;
        io::copy(&mut object, &mut copy).map_err(ReleaseError::Temporary)?;
        return Ok(sapwood_data::load(&Source::Path(path), None)?);
    }
    match text.parse()? {
        source @ Source::Digits(_) => Ok(sapwood_data::load(&source, None)?),
        Source::Path(_) => Err(ReleaseError::setting(
            key,
            format_args!("{text:?} is no declared data set; write \"digits:…\", or name an .npz file beside run.toml"),
        )),
    }
}

/// The features as the model reads them.
pub(super) fn prepared(preprocess: Option<&Model>, x: &Tensor) -> Result<Tensor, ReleaseError> {
    let Some(graph) = preprocess else { return Ok(x.clone()) };
    let forward = Forward::new(graph)?;
    let (mut shape, mut values) = (Vec::new(), Vec::new());
    let rows: Vec<usize> = (0..x.rows()).collect();
    for rows in rows.chunks(AT_ONCE) {
        let part = forward.features(x.take_rows(rows))?;
        values.extend_from_slice(part.as_f32().unwrap_or_default());
        shape = part.shape;
    }
    match shape.first_mut() {
        Some(batch) => *batch = x.rows(),
        None => return Err(ReleaseError::setting("model.preprocess", "its output has no axis for the examples")),
    }
    Ok(Tensor::f32(shape, values)?)
}

/// The name of a graph's input, of which there must be one.
pub(super) fn only_input(what: &str, graph: &Model) -> Result<String, ReleaseError> {
    let mut inputs = graph.inputs().into_iter();
    match (inputs.next(), inputs.next()) {
        (Some(input), None) => Ok(input.name),
        _ => Err(ReleaseError::setting("model", format_args!("the graph {what} must have one input"))),
    }
}

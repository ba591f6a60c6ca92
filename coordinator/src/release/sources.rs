//! Data sets that a run declares: vendored ones by name, uploaded ones by digest. Never a path: a caller must not choose what
//! the coordinator reads from its disk.

use std::{fs::File, io};

use sapwood_data::Source;
use sapwood_models::{Dataset, Features, Model, forward::Forward};
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
pub(super) fn prepared(preprocess: Option<&Model>, x: &Features) -> Result<Features, ReleaseError> {
    match preprocess {
        None => Ok(x.clone()),
        Some(graph) => Ok(Forward::new(graph)?.features(x, AT_ONCE)?),
    }
}

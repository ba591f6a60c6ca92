//! Data sets that a run declares: vendored ones by name, uploaded ones by digest. Never a path: a caller must not choose what
//! the coordinator reads from its disk.

use std::{fs::File, io};

use sapwood_data::{Schema, Source};
use sapwood_models::{Dataset, Features, Model, ValueInfo, forward::Forward};
use sapwood_protocol::{
    Digest,
    release::documents::{FeatureSchema, SchemaId},
};

use super::ReleaseError;
use crate::objects::Objects;

/// Examples that pass through the interpreter at once.
const AT_ONCE: usize = 256;

/// Loads what `text`, the value of `key`, declares: `digits:12-14`, or `sha256:…` of an uploaded `.npz`. It must meet the run's schema.
pub(super) fn declared(key: &'static str, text: &str, schema: Option<&Schema>, objects: &Objects) -> Result<Dataset, ReleaseError> {
    let refused = ReleaseError::data(key);
    if text.starts_with("sha256:") {
        let digest: Digest = text.parse()?;
        let folder = tempfile::tempdir().map_err(ReleaseError::Temporary)?;
        let path = folder.path().join("data.npz");
        let (mut object, _) = objects.open_at(digest, 0)?;
        let mut copy = File::create_new(&path).map_err(ReleaseError::Temporary)?;
        io::copy(&mut object, &mut copy).map_err(ReleaseError::Temporary)?;
        return sapwood_data::load(&Source::Path(path), schema).map_err(refused);
    }
    match text.parse::<Source>().map_err(refused)? {
        source @ Source::Digits(_) => sapwood_data::load(&source, schema).map_err(refused),
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

/// Where a run names its schema.
const SCHEMA: &str = "data.schema";

/// The run's schema, if it named one.
pub(super) fn schema(digest: Option<Digest>, objects: &Objects) -> Result<Option<Schema>, ReleaseError> {
    let Some(digest) = digest else { return Ok(None) };
    let bytes = objects.read(digest)?;
    let text = std::str::from_utf8(&bytes).map_err(|e| ReleaseError::setting(SCHEMA, e))?;
    Ok(Some(Schema::parse(text).map_err(ReleaseError::data(SCHEMA))?))
}

/// Refuses a schema if not all that passes it feeds a graph of these inputs.
pub(super) fn fits(schema: Option<&Schema>, inputs: &[ValueInfo]) -> Result<(), ReleaseError> {
    let Some(schema) = schema else { return Ok(()) };
    schema.fits(inputs).map(|_| ()).map_err(ReleaseError::data(SCHEMA))
}

/// As it lies in a bundle.
pub(super) fn document(digest: Option<Digest>, schema: Option<&Schema>) -> Option<FeatureSchema> {
    let (digest, schema) = digest.zip(schema)?;
    let id = SchemaId { version: schema.version(), digest };
    Some(FeatureSchema { id, schema: serde_json::to_value(schema).expect("a schema has string keys and finite numbers") })
}

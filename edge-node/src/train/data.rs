//! The node's examples: read and checked first, read again when the files change, preprocessed once.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use sapwood_data::{DataError, Limits, Schema, Source};
use sapwood_models::{Dataset, Forward, Model, Tensor, TensorData};
use sapwood_protocol::{Digest, round::Decline};

use super::chain;

/// A data set as the node's operator names it.
#[derive(Clone, Debug)]
pub struct DataSet {
    /// By which name runs ask for it.
    pub name: Option<String>,
    /// Where it lies.
    pub source: Source,
    /// What it must look like, by the operator's word.
    pub schema: Option<PathBuf>,
}

/// The examples as last read.
#[derive(Default)]
pub(super) struct Cache {
    loaded: Option<Loaded>,
}

struct Loaded {
    stamp: Vec<Stamp>,
    /// By whose schema it was read, if the node has none of its own.
    asked: Option<Schema>,
    raw: Dataset,
    /// Behind the graph of this digest.
    prepared: Option<(Digest, Dataset)>,
}

/// When a file last changed, as far as its folder says.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(PathBuf, u64, Option<SystemTime>);

impl Cache {
    /// The examples, raw: from memory if the files are as they were, from the disk otherwise.
    ///
    /// `most` bounds what is read, `asked` is the run's own schema.
    pub(super) fn load(&mut self, set: &DataSet, asked: Option<&Schema>, most: u64) -> Result<&Dataset, Decline> {
        let stamp = stamps(set);
        // Another run's schema may take another column for the target.
        let read_by = asked.filter(|_| set.schema.is_none());
        let fresh = self.loaded.as_ref().is_some_and(|loaded| loaded.stamp == stamp && loaded.asked.as_ref() == read_by);
        if !fresh {
            self.loaded = None;
            let own = set.schema.as_deref().map(read_schema).transpose()?;
            let (raw, _) = sapwood_data::load_with(&set.source, own.as_ref().or(asked), Limits { bytes: most }).map_err(|e| decline(&e))?;
            tracing::info!(source = %set.source, "data read and checked");
            tracing::debug!(examples = raw.len(), "so many");
            self.loaded = Some(Loaded { stamp, asked: read_by.cloned(), raw, prepared: None });
        }
        let loaded = self.loaded.as_ref().expect("loaded above or before");
        if let Some(asked) = asked {
            asked.check(&set.source.to_string(), &loaded.raw).map_err(|e| decline(&e))?;
        }
        Ok(&loaded.raw)
    }

    /// The loaded examples behind `graph`; `model` is its bytes, needed if it has not been applied yet.
    pub(super) fn prepared(&mut self, graph: Option<Digest>, model: Option<&[u8]>) -> Result<&Dataset, Decline> {
        let loaded = self.loaded.as_mut().expect("load comes before prepare");
        let Some(graph) = graph else { return Ok(&loaded.raw) };
        if loaded.prepared.as_ref().is_none_or(|(digest, _)| *digest != graph) {
            let model = model.ok_or_else(|| Decline::Model { why: "its preprocessing graph did not come with the task".to_owned() })?;
            let x = preprocess(model, &loaded.raw.x)?;
            loaded.prepared = Some((graph, Dataset { x, y: loaded.raw.y.clone() }));
        }
        let (_, prepared) = loaded.prepared.as_ref().expect("prepared above or before");
        Ok(prepared)
    }

    /// Bytes of the examples held.
    pub(super) fn bytes(&self) -> u64 {
        let of = |data: &Dataset| data.x.numel() as u64 * 4;
        self.loaded.as_ref().map_or(0, |loaded| of(&loaded.raw) + loaded.prepared.as_ref().map_or(0, |(_, data)| of(data)))
    }
}

fn preprocess(model: &[u8], x: &Tensor) -> Result<Tensor, Decline> {
    let fault = |why: String| Decline::Model { why: format!("preprocessing: {why}") };
    let model = Model::decode(model).map_err(|e| fault(chain(&e)))?;
    let inputs = model.inputs();
    let [input] = &inputs[..] else { return Err(fault(format!("the graph has {} inputs, expected one", inputs.len()))) };
    let forward = Forward::new(&model).map_err(|e| fault(chain(&e)))?;
    let outputs = forward.run(&[(&input.name, x.clone())]).map_err(|e| fault(chain(&e)))?;
    let Some((_, output)) = outputs.into_iter().next() else { return Err(fault("the graph has no output".to_owned())) };
    match &output.data {
        TensorData::F32(values) if output.rows() == x.rows() => match values.iter().position(|v| !v.is_finite()) {
            None => Ok(output),
            Some(at) => {
                let (row, column) = (at / output.row_len().max(1), at % output.row_len().max(1));
                Err(Decline::BadData { why: format!("after preprocessing, row {row} column {column} is not finite") })
            }
        },
        _ => Err(fault("the graph must give f32, one row for each example".to_owned())),
    }
}

fn read_schema(path: &Path) -> Result<Schema, Decline> {
    let why = |e: String| Decline::BadData { why: format!("the node's schema {}: {e}", path.display()) };
    let text = std::fs::read_to_string(path).map_err(|e| why(e.to_string()))?;
    parse_schema(&text).map_err(|e| why(chain(&e)))
}

/// A schema in either of its two forms.
pub(super) fn parse_schema(text: &str) -> Result<Schema, DataError> {
    if text.trim_start().starts_with('{') { Schema::from_json(text) } else { Schema::from_toml(text) }
}

pub(super) fn decline(error: &DataError) -> Decline {
    let why = chain(error);
    match error {
        DataError::Io { .. } | DataError::MissingArray { .. } | DataError::Source { .. } => Decline::NoData { why },
        DataError::TooLarge { .. } => Decline::Resources { why },
        _ => Decline::BadData { why },
    }
}

/// Everything that would make reading again worth while.
fn stamps(set: &DataSet) -> Vec<Stamp> {
    let data = match &set.source {
        Source::Path(path) if path.is_dir() => vec![path.join("x.npy"), path.join("y.npy")],
        Source::Path(path) => vec![path.clone()],
        Source::Digits(_) => Vec::new(),
    };
    data.into_iter().chain(set.schema.clone()).map(stamp).collect()
}

fn stamp(path: PathBuf) -> Stamp {
    let metadata = std::fs::metadata(&path).ok();
    Stamp(path, metadata.as_ref().map_or(0, std::fs::Metadata::len), metadata.and_then(|m| m.modified().ok()))
}

#[cfg(test)]
mod tests {
    use sapwood_models::Targets;

    use super::*;

    /// Found by review: what one run's schema had read was given to the next run, whose target is another column.
    #[test]
    fn another_schema_reads_another_target() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.csv");
        std::fs::write(&path, "a,digit,fraud\n0.5,1,0\n0.25,2,1\n").unwrap();
        let schema = |target: &str| {
            let text = format!("[input]\nshape = [1]\n[targets]\nclasses = 3\n[csv]\ntarget = \"{target}\"\nfeatures = [\"a\"]\n");
            parse_schema(&text).unwrap()
        };
        let set = DataSet { name: None, source: Source::Path(path), schema: None };
        let mut cache = Cache::default();
        for (target, labels) in [("digit", [1, 2]), ("fraud", [0, 1]), ("digit", [1, 2])] {
            let data = cache.load(&set, Some(&schema(target)), 1 << 20).unwrap();
            assert_eq!(data.y, Targets::Classes(labels.to_vec()), "{target}");
        }
    }
}

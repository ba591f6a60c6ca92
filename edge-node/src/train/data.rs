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
    entities: Option<Entities>,
    /// Behind the graph of this digest.
    prepared: Option<(Digest, Dataset)>,
}

/// The rows of each entity.
struct Entities {
    key: String,
    rows: Vec<Vec<usize>>,
}

/// When a file last changed, as far as its folder says.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(PathBuf, u64, Option<SystemTime>);

impl Cache {
    /// The examples, raw: from memory if the files are as they were, from the disk otherwise.
    ///
    /// `most` bounds what is read, `asked` is the run's own schema, `key` the column that tells entities apart.
    pub(super) fn load(&mut self, set: &DataSet, asked: Option<&Schema>, key: Option<&str>, most: u64) -> Result<&Dataset, Decline> {
        let stamp = stamps(set, key);
        // Another run's schema may take another column for the target.
        let read_by = asked.filter(|_| set.schema.is_none());
        let by = |loaded: &Loaded| loaded.entities.as_ref().map(|entities| entities.key.clone());
        let fresh = |loaded: &Loaded| loaded.stamp == stamp && loaded.asked.as_ref() == read_by && by(loaded).as_deref() == key;
        let fresh = self.loaded.as_ref().is_some_and(fresh);
        if !fresh {
            self.loaded = None;
            let own = set.schema.as_deref().map(read_schema).transpose()?;
            let keys: Vec<&str> = key.into_iter().collect();
            let read = sapwood_data::load_with(&set.source, own.as_ref().or(asked), &keys, Limits { bytes: most });
            let (raw, columns) = read.map_err(|e| decline(&e))?;
            let entities = key.and_then(|key| Some(Entities { key: key.to_owned(), rows: columns.groups(key)? }));
            tracing::info!(source = %set.source, "data read and checked");
            self.loaded = Some(Loaded { stamp, asked: read_by.cloned(), raw, entities, prepared: None });
        }
        let loaded = self.loaded.as_ref().expect("loaded above or before");
        if let Some(asked) = asked {
            asked.check(&set.source.to_string(), &loaded.raw).map_err(|e| decline(&e))?;
        }
        Ok(&loaded.raw)
    }

    /// The loaded examples behind `graph`, and the rows of each entity if they were loaded with a key; `model` is the graph's bytes, needed
    /// if it has not been applied yet.
    pub(super) fn prepared(&mut self, graph: Option<Digest>, model: Option<&[u8]>) -> Result<(&Dataset, Option<&[Vec<usize>]>), Decline> {
        let loaded = self.loaded.as_mut().expect("load comes before prepare");
        let entities = loaded.entities.as_ref().map(|entities| &entities.rows[..]);
        let Some(graph) = graph else { return Ok((&loaded.raw, entities)) };
        if loaded.prepared.as_ref().is_none_or(|(digest, _)| *digest != graph) {
            let model = model.ok_or_else(|| Decline::Model { why: "its preprocessing graph did not come with the task".to_owned() })?;
            let x = preprocess(model, &loaded.raw.x)?;
            loaded.prepared = Some((graph, Dataset { x, y: loaded.raw.y.clone() }));
        }
        let (_, prepared) = loaded.prepared.as_ref().expect("prepared above or before");
        Ok((prepared, entities))
    }

    /// Bytes of the examples held.
    pub(super) fn bytes(&self) -> u64 {
        let of = |data: &Dataset| data.x.numel() as u64 * 4;
        let rows = |loaded: &Loaded| if loaded.entities.is_some() { loaded.raw.len() as u64 * 32 } else { 0 };
        let prepared = |loaded: &Loaded| loaded.prepared.as_ref().map_or(0, |(_, data)| of(data));
        self.loaded.as_ref().map_or(0, |loaded| of(&loaded.raw) + rows(loaded) + prepared(loaded))
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
        DataError::Io { .. } | DataError::MissingArray { .. } | DataError::NoColumn { .. } | DataError::Source { .. } => {
            Decline::NoData { why }
        }
        DataError::TooLarge { .. } => Decline::Resources { why },
        _ => Decline::BadData { why },
    }
}

/// Everything that would make reading again worth while.
fn stamps(set: &DataSet, key: Option<&str>) -> Vec<Stamp> {
    let data = match &set.source {
        Source::Path(path) if path.is_dir() => {
            let key = key.map(|key| path.join(format!("{key}.npy")));
            [path.join("x.npy"), path.join("y.npy")].into_iter().chain(key).collect()
        }
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
            let data = cache.load(&set, Some(&schema(target)), None, 1 << 20).unwrap();
            assert_eq!(data.y, Targets::Classes(labels.to_vec()), "{target}");
        }
    }
    /// The same files are read again for another key, and a column that is not there is told, not guessed.
    #[test]
    fn another_key_tells_other_entities_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.csv");
        std::fs::write(&path, "a,y,customer,household\n0.5,1,x,h\n0.25,0,w,h\n0.75,0,x,h\n").unwrap();
        let schema = "[input]\nshape = [1]\n[targets]\nclasses = 2\n[csv]\ntarget = \"y\"\nfeatures = [\"a\"]\n";
        let schema = parse_schema(schema).unwrap();
        let set = DataSet { name: None, source: Source::Path(path), schema: None };
        let mut cache = Cache::default();
        for (key, rows) in
            [("customer", vec![vec![0, 2], vec![1]]), ("household", vec![vec![0, 1, 2]]), ("customer", vec![vec![0, 2], vec![1]])]
        {
            cache.load(&set, Some(&schema), Some(key), 1 << 20).unwrap();
            assert_eq!(cache.prepared(None, None).unwrap().1.unwrap(), rows, "{key}");
        }
        cache.load(&set, Some(&schema), None, 1 << 20).unwrap();
        assert_eq!(cache.prepared(None, None).unwrap().1, None);
        let refused = cache.load(&set, Some(&schema), Some("store"), 1 << 20).unwrap_err();
        assert!(matches!(&refused, Decline::NoData { why } if why.contains("no column `store`")), "{refused:?}");
    }
}

//! The node's examples: read and checked first, read again when the files change, preprocessed once.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use sapwood_data::{DataError, Limits, Schema, Source};
use sapwood_models::{Dataset, Features, Forward, Model};
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
    /// Behind the graph of this digest, row by row or all at once.
    prepared: Option<(Digest, bool, Dataset)>,
}

/// What is trained on.
pub(super) struct Prepared<'a> {
    pub(super) data: &'a Dataset,
    /// The rows of each entity, if they were loaded with a key.
    pub(super) entities: Option<&'a [Vec<usize>]>,
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
        let stamp = stamps(set);
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
            let classes = sapwood_data::class_names(&set.source).ok().flatten().map(|names| names.join(", "));
            tracing::info!(source = %set.source, classes, "data read and checked");
            self.loaded = Some(Loaded { stamp, asked: read_by.cloned(), raw, entities, prepared: None });
        }
        let loaded = self.loaded.as_ref().expect("loaded above or before");
        if let Some(asked) = asked {
            asked.check(&set.source.to_string(), &loaded.raw).map_err(|e| decline(&e))?;
        }
        Ok(&loaded.raw)
    }

    /// The loaded examples behind `graph`; `model` is its bytes, needed if it has not been applied yet. `alone`: each row by itself, so that none depends on another, whatever the graph does.
    pub(super) fn prepared(&mut self, graph: Option<Digest>, alone: bool, model: Option<&[u8]>) -> Result<Prepared<'_>, Decline> {
        let loaded = self.loaded.as_mut().expect("load comes before prepare");
        let entities = loaded.entities.as_ref().map(|entities| &entities.rows[..]);
        let Some(graph) = graph else { return Ok(Prepared { data: &loaded.raw, entities }) };
        if loaded.prepared.as_ref().is_none_or(|(digest, as_was, _)| (*digest, *as_was) != (graph, alone)) {
            let model = model.ok_or_else(|| Decline::Model { why: "its preprocessing graph did not come with the task".to_owned() })?;
            // Never two of them in memory.
            loaded.prepared = None;
            let x = preprocess(model, &loaded.raw.x, if alone { 1 } else { loaded.raw.len() })?;
            loaded.prepared = Some((graph, alone, Dataset { x, y: loaded.raw.y.clone() }));
        }
        let (_, _, prepared) = loaded.prepared.as_ref().expect("prepared above or before");
        Ok(Prepared { data: prepared, entities })
    }

    /// Bytes of the examples held.
    pub(super) fn bytes(&self) -> u64 {
        let of = |data: &Dataset| data.x.numel() as u64 * 4;
        let rows = |loaded: &Loaded| if loaded.entities.is_some() { loaded.raw.len() as u64 * 64 } else { 0 };
        let prepared = |loaded: &Loaded| loaded.prepared.as_ref().map_or(0, |(_, _, data)| of(data));
        self.loaded.as_ref().map_or(0, |loaded| of(&loaded.raw) + rows(loaded) + prepared(loaded))
    }
}

/// `x` behind the graph, `at_once` rows at a time.
fn preprocess(model: &[u8], x: &Features, at_once: usize) -> Result<Features, Decline> {
    let fault = |why: String| Decline::Model { why: format!("preprocessing: {why}") };
    let model = Model::decode(model).map_err(|e| fault(chain(&e)))?;
    let prepared = Forward::new(&model).and_then(|graph| graph.features(x, at_once)).map_err(|e| fault(chain(&e)))?;
    for (_, tensor) in prepared.iter() {
        if let Some(at) = tensor.as_f32().unwrap_or_default().iter().position(|v| !v.is_finite()) {
            let (row, column) = (at / tensor.row_len().max(1), at % tensor.row_len().max(1));
            return Err(Decline::BadData { why: format!("after preprocessing, row {row} column {column} is not finite") });
        }
    }
    Ok(prepared)
}

fn read_schema(path: &Path) -> Result<Schema, Decline> {
    let why = |e: String| Decline::BadData { why: format!("the node's schema {}: {e}", path.display()) };
    let text = std::fs::read_to_string(path).map_err(|e| why(e.to_string()))?;
    Schema::parse(&text).map_err(|e| why(chain(&e)))
}

pub(super) fn decline(error: &DataError) -> Decline {
    let why = chain(error);
    match error {
        // Which columns there are instead is nobody else's business.
        DataError::NoColumn { column, .. } => {
            tracing::warn!(%why, "a run tells entities apart by a column that is not there");
            Decline::NoData { why: format!("this node's data has no column `{column}`, which privacy.entity_key asks for") }
        }
        DataError::Io { .. } | DataError::MissingArray { .. } | DataError::Source { .. } => Decline::NoData { why },
        DataError::TooLarge { .. } => Decline::Resources { why },
        _ => Decline::BadData { why },
    }
}

/// Everything that would make reading again worth while.
fn stamps(set: &DataSet) -> Vec<Stamp> {
    let data = match &set.source {
        Source::Path(path) if path.is_dir() => {
            let within = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
            let array = |path: &PathBuf| path.extension().is_some_and(|e| e == "npy");
            let mut files: Vec<PathBuf> = within(path).filter(array).collect();
            // Images lie in a folder for each class.
            for class in within(path).filter(|path| path.is_dir()) {
                files.extend(within(&class));
                files.push(class);
            }
            files.sort();
            files
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
    use sapwood_models::{
        Targets, Tensor,
        onnx::{pb, write_tensor},
        zoo,
    };

    use super::*;
    use crate::train::tests::{data, write_data};

    /// Found by review: what one run's schema had read was given to the next run, whose target is another column.
    #[test]
    fn a_new_or_changed_image_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        ["a", "b"].iter().for_each(|class| std::fs::create_dir(dir.path().join(class)).unwrap());
        let set = DataSet { name: None, source: Source::Path(dir.path().to_path_buf()), schema: None };
        let write = |name: &str, bytes: &str| {
            std::fs::write(dir.path().join(name), bytes).unwrap();
            stamps(&set)
        };
        let one = write("a/1.png", "1");
        assert_eq!(one, stamps(&set));
        let two = write("b/2.png", "1");
        assert!(one != two && two != write("b/2.png", "12"));
    }

    #[test]
    fn another_schema_reads_another_target() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.csv");
        std::fs::write(&path, "a,digit,fraud\n0.5,1,0\n0.25,2,1\n").unwrap();
        let schema = |target: &str| {
            let text = format!("[input]\nshape = [1]\n[targets]\nclasses = 3\n[csv]\ntarget = \"{target}\"\nfeatures = [\"a\"]\n");
            Schema::parse(&text).unwrap()
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
        let schema = Schema::parse(schema).unwrap();
        let set = DataSet { name: None, source: Source::Path(path), schema: None };
        let mut cache = Cache::default();
        for (key, rows) in
            [("customer", vec![vec![0, 2], vec![1]]), ("household", vec![vec![0, 1, 2]]), ("customer", vec![vec![0, 2], vec![1]])]
        {
            cache.load(&set, Some(&schema), Some(key), 1 << 20).unwrap();
            assert_eq!(cache.prepared(None, true, None).unwrap().entities.unwrap(), rows, "{key}");
        }
        cache.load(&set, Some(&schema), None, 1 << 20).unwrap();
        assert_eq!(cache.prepared(None, true, None).unwrap().entities, None);
        let refused = cache.load(&set, Some(&schema), Some("store"), 1 << 20).unwrap_err();
        assert!(matches!(&refused, Decline::NoData { why } if why.contains("no column `store`")), "{refused:?}");
    }
    /// A run's schema is held against every input of the node's data; what breaks it is told by file, row, feature, value and rule.
    #[test]
    fn data_that_breaks_the_run_s_schema_is_declined_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let lengths = Tensor::f32([3], vec![2.0, 9.0, 1.0]).unwrap();
        let x = [("x".to_owned(), Tensor::f32([3, 2], vec![0.5; 6]).unwrap()), ("lengths".to_owned(), lengths)];
        sapwood_data::save_npy(folder.path(), &Dataset { x: x.into_iter().collect(), y: Targets::Classes(vec![0, 1, 0]) }).unwrap();
        let schema = |most: u32| {
            let lengths = format!("name = \"lengths\"\nshape = []\ntype = \"integer\"\nrange = [1, {most}]");
            Schema::parse(&format!("[[inputs]]\nname = \"x\"\nshape = [2]\n[[inputs]]\n{lengths}\n[targets]\nclasses = 2")).unwrap()
        };
        let (mut cache, set) = (Cache::default(), data(folder.path()));
        cache.load(&set, Some(&schema(9)), None, 1 << 20).unwrap();
        let refused = cache.load(&set, Some(&schema(8)), None, 1 << 20).unwrap_err();
        let said = format!("{}: row 1, input `lengths`, column 0: 9 is outside 1..=8, the range in the schema", folder.path().display());
        assert_eq!(refused, Decline::BadData { why: said });
    }

    /// Each value less the largest of its column: of all rows that the graph sees.
    fn mixing() -> Model {
        let mut proto = zoo::scale(&[4], 1.0).into_proto();
        let graph = proto.graph.as_mut().unwrap();
        let node = |op: &str, input: &[&str], output: &str| pb::NodeProto {
            op_type: Some(op.into()),
            name: Some(op.into()),
            input: input.iter().map(|name| (*name).into()).collect(),
            output: vec![output.into()],
            ..Default::default()
        };
        graph.initializer.push(write_tensor("rows", &Tensor::i64([1], vec![0]).unwrap()));
        graph.node = vec![node("ReduceMax", &["input", "rows"], "most"), node("Sub", &["input", "most"], "scaled")];
        Model::new(proto).unwrap()
    }

    /// Found by review: a run's graph saw all rows at once, and could put one into all others. Under a budget each row is alone with it.
    #[test]
    fn a_graph_that_mixes_rows_gets_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        write_data(folder.path(), |_| ());
        let mut cache = Cache::default();
        let raw = cache.load(&data(folder.path()), None, None, 1 << 20).unwrap().x.clone();
        let (name, mixing) = (Some(Digest::of(b"graph")), mixing().encode());
        let alone = cache.prepared(name, true, Some(&mixing)).unwrap().data;
        assert!(alone.x.only().unwrap().as_f32().unwrap().iter().all(|v| *v == 0.0));
        let together = cache.prepared(name, false, Some(&mixing)).unwrap().data;
        let (together, raw) = (together.x.only().unwrap(), raw.only().unwrap());
        assert!(together.as_f32().unwrap().iter().any(|v| *v < 0.0) && together.shape == raw.shape);
    }
}

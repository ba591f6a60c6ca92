//! Tables of text: a `.csv` with a header line, read as its schema says.

use std::{collections::BTreeMap, fs::File, io::Read as _, path::Path};

use csv::{Position, StringRecord};
use sapwood_models::{Dataset, Targets, Tensor};

use crate::{Columns, DataError, Limits, Schema, TargetKind};

/// Where each part of an example is in a record.
struct Layout {
    names: StringRecord,
    features: Vec<usize>,
    target: Vec<usize>,
    group: Vec<usize>,
    /// Those of `group` in which no cell may be empty.
    asked: Vec<usize>,
}

pub(crate) fn read(path: &Path, schema: Option<&Schema>, asked: &[&str], limits: Limits) -> Result<(Dataset, Columns), DataError> {
    let Some(schema) = schema.filter(|s| s.csv().is_some()) else {
        return Err(DataError::SchemaNeeded { path: path.to_path_buf() });
    };
    let file = File::open(path).map_err(DataError::io("open", path))?;
    let bytes = file.metadata().map_err(DataError::io("read", path))?.len();
    if bytes > limits.bytes {
        return Err(DataError::TooLarge { path: path.to_path_buf(), bytes, limit: limits.bytes });
    }
    // The limit holds even for what is no regular file.
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file.take(limits.bytes));
    let names = reader.headers().map_err(|e| broken(path, &e))?.clone();
    let layout = Layout::new(path, names, schema, asked)?;

    let mut rows = Rows::default();
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(|e| broken(path, &e))? {
        layout.read(path, &record, schema.targets(), &mut rows)?;
    }
    Ok(rows.finish(schema, &layout))
}

/// What has been read, flat.
#[derive(Default)]
struct Rows {
    count: usize,
    features: Vec<f32>,
    labels: Vec<i64>,
    values: Vec<f32>,
    groups: Vec<Vec<String>>,
}

impl Rows {
    fn finish(self, schema: &Schema, layout: &Layout) -> (Dataset, Columns) {
        let shape = std::iter::once(self.count).chain(schema.input().shape.iter().copied());
        let x = Tensor { shape: shape.collect(), data: sapwood_models::TensorData::F32(self.features) };
        let y = match schema.targets() {
            TargetKind::Classes(_) => Targets::Classes(self.labels),
            TargetKind::Values(width) => {
                Targets::Values(Tensor { shape: vec![self.count, width], data: sapwood_models::TensorData::F32(self.values) })
            }
        };
        let names = layout.group.iter().map(|at| layout.names[*at].to_owned());
        let columns: BTreeMap<_, _> = names.zip(self.groups).collect();
        (Dataset { x: x.into(), y }, Columns::new(columns))
    }
}

impl Layout {
    fn new(path: &Path, names: StringRecord, schema: &Schema, asked: &[&str]) -> Result<Self, DataError> {
        let malformed = |reason| DataError::Malformed { path: path.to_path_buf(), reason };
        let Some(csv) = schema.csv() else { return Err(DataError::SchemaNeeded { path: path.to_path_buf() }) };
        let find = |wanted: &str| {
            let mut at = names.iter().enumerate().filter(|(_, name)| *name == wanted).map(|(at, _)| at);
            match (at.next(), at.next()) {
                (Some(at), None) => Ok(Some(at)),
                (None, _) => Ok(None),
                (Some(_), Some(_)) => Err(malformed(format!("it has two columns `{wanted}`"))),
            }
        };
        let known = || names.iter().collect::<Vec<_>>().join(", ");
        let named = |wanted: &str| {
            let why = || malformed(format!("it has no column `{wanted}`, which the schema names; its columns are {}", known()));
            find(wanted)?.ok_or_else(why)
        };
        let all = |wanted: &[String]| wanted.iter().map(|name| named(name)).collect::<Result<Vec<_>, _>>();
        let (target, mut group) = (all(&csv.target)?, all(&csv.group)?);
        let mut filled = Vec::new();
        for name in asked {
            let missing = || DataError::NoColumn { file: path.display().to_string(), column: (*name).to_owned(), known: known() };
            let at = find(name)?.ok_or_else(missing)?;
            filled.push(at);
            if target.contains(&at) || csv.features.iter().any(|feature| feature == name) {
                return Err(malformed(format!(
                    "column `{name}` tells rows apart, so it can be no feature or target, as the schema has it"
                )));
            }
            if !group.contains(&at) {
                group.push(at);
            }
        }
        let features = if csv.features.is_empty() {
            (0..names.len()).filter(|at| !target.contains(at) && !group.contains(at)).collect()
        } else {
            all(&csv.features)?
        };
        if features.len() != schema.width() {
            return Err(malformed(format!(
                "it has {} feature columns, the schema's input.shape {:?} holds {}",
                features.len(),
                schema.input().shape,
                schema.width()
            )));
        }
        Ok(Self { names, features, target, group, asked: filled })
    }

    fn read(&self, path: &Path, record: &StringRecord, kind: TargetKind, rows: &mut Rows) -> Result<(), DataError> {
        let refuse = |at: usize, reason: String| DataError::Cell {
            path: path.to_path_buf(),
            line: record.position().map_or(0, Position::line),
            column: self.names[at].to_owned(),
            reason,
        };
        for &at in &self.features {
            rows.features.push(number(&record[at]).map_err(|reason| refuse(at, reason))?);
        }
        for &at in &self.target {
            match kind {
                TargetKind::Classes(classes) => {
                    rows.labels.push(label(&record[at], classes).map_err(|reason| refuse(at, reason))?);
                }
                TargetKind::Values(_) => rows.values.push(number(&record[at]).map_err(|reason| refuse(at, reason))?),
            }
        }
        rows.groups.resize_with(self.group.len(), Vec::new);
        for (values, &at) in rows.groups.iter_mut().zip(&self.group) {
            if record[at].is_empty() && self.asked.contains(&at) {
                return Err(refuse(at, "it is empty; fill it in or leave the row out".to_owned()));
            }
            values.push(record[at].to_owned());
        }
        rows.count += 1;
        Ok(())
    }
}

fn number(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) => Err(format!("`{text}` is not a finite number")),
        Err(_) if text.is_empty() => Err("it is empty; fill it in or leave the row out".to_owned()),
        Err(_) => Err(format!("`{text}` is not a number")),
    }
}

fn label(text: &str, classes: usize) -> Result<i64, String> {
    match text.parse::<i64>() {
        Ok(label) if usize::try_from(label).is_ok_and(|l| l < classes) => Ok(label),
        Ok(label) => Err(format!("label {label} is not one of the {classes} classes 0..={}", classes - 1)),
        Err(_) => Err(format!("`{text}` is not a class; classes are whole numbers from 0")),
    }
}

/// Says on which line a record is not as wide as the header, or not UTF-8.
fn broken(path: &Path, error: &csv::Error) -> DataError {
    DataError::Malformed { path: path.to_path_buf(), reason: error.to_string() }
}

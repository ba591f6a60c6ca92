//! Tables of text: a `.csv` with a header line, read as its schema says.

use std::{collections::BTreeMap, fs::File, io::Read as _, path::Path};

use csv::{Position, StringRecord};
use sapwood_models::{Dataset, Targets, Tensor, TensorData, features::MAIN};

use crate::{Column, Columns, Csv, DataError, Input, Limits, Schema, TargetKind, nearest, schema::Rule};

/// Where each part of an example is in a record.
struct Layout<'a> {
    names: StringRecord,
    /// The columns of each input, with the rule for their cells.
    inputs: Vec<Vec<(usize, Rule<'a>)>>,
    target: Vec<usize>,
    group: Vec<usize>,
    /// Those of `group` in which no cell may be empty.
    asked: Vec<usize>,
    /// Texts that mean the same as an empty cell.
    nulls: &'a [String],
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

    let mut rows = Rows { inputs: vec![Vec::new(); layout.inputs.len()], ..Rows::default() };
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(|e| broken(path, &e))? {
        layout.read(path, &record, schema.targets(), &mut rows)?;
        // One-hot codes of many values are much larger than their texts.
        let bytes = rows.inputs.iter().map(|values| values.len() as u64 * 4).sum();
        if bytes > limits.bytes {
            return Err(DataError::TooLarge { path: path.to_path_buf(), bytes, limit: limits.bytes });
        }
    }
    Ok(rows.finish(schema, &layout))
}

/// What has been read, flat.
#[derive(Default)]
struct Rows {
    count: usize,
    inputs: Vec<Vec<f32>>,
    labels: Vec<i64>,
    values: Vec<f32>,
    groups: Vec<Vec<String>>,
}

impl Rows {
    fn finish(self, schema: &Schema, layout: &Layout<'_>) -> (Dataset, Columns) {
        let x = schema.inputs().iter().zip(self.inputs).map(|(input, values)| {
            let shape = std::iter::once(self.count).chain(input.shape()).collect();
            (input.name.clone().unwrap_or_else(|| MAIN.to_owned()), Tensor { shape, data: TensorData::F32(values) })
        });
        let y = match schema.targets() {
            TargetKind::Classes(_) => Targets::Classes(self.labels),
            TargetKind::Values(width) => Targets::Values(Tensor { shape: vec![self.count, width], data: TensorData::F32(self.values) }),
        };
        let names = layout.group.iter().map(|at| layout.names[*at].to_owned());
        let columns: BTreeMap<_, _> = names.zip(self.groups).collect();
        (Dataset { x: x.collect(), y }, Columns::new(columns))
    }
}

/// The header of one table.
struct Header<'a> {
    path: &'a Path,
    names: &'a StringRecord,
}

impl Header<'_> {
    fn malformed(&self, reason: String) -> DataError {
        DataError::Malformed { path: self.path.to_path_buf(), reason }
    }

    fn known(&self) -> String {
        self.names.iter().collect::<Vec<_>>().join(", ")
    }

    fn find(&self, wanted: &str) -> Result<Option<usize>, DataError> {
        let mut at = self.names.iter().enumerate().filter(|(_, name)| *name == wanted).map(|(at, _)| at);
        match (at.next(), at.next()) {
            (at, None) => Ok(at),
            _ => Err(self.malformed(format!("it has two columns `{wanted}`"))),
        }
    }

    /// A column that the schema names.
    fn named(&self, wanted: &str) -> Result<usize, DataError> {
        let hint = || nearest::hint(wanted, self.names.iter());
        let missing =
            || self.malformed(format!("it has no column `{wanted}`, which the schema names; its columns are {}{}", self.known(), hint()));
        self.find(wanted)?.ok_or_else(missing)
    }

    fn all(&self, wanted: &[String]) -> Result<Vec<usize>, DataError> {
        wanted.iter().map(|name| self.named(name)).collect()
    }

    /// Where the columns that the inputs list are; any other one must be in `used` or in `csv.ignore`.
    fn listed<'s>(&self, schema: &'s Schema, csv: &Csv, used: &[usize]) -> Result<Vec<Vec<(usize, Rule<'s>)>>, DataError> {
        let place = |column: &'s Column| Ok((self.named(&column.name)?, column.rule()));
        let of = |input: &'s Input| input.columns.iter().map(place).collect::<Result<Vec<_>, DataError>>();
        let inputs = schema.inputs().iter().map(of).collect::<Result<Vec<_>, _>>()?;
        let read: Vec<usize> = inputs.iter().flatten().map(|(at, _)| *at).chain(used.iter().copied()).collect();
        let extra = (0..self.names.len()).find(|at| !read.contains(at) && !csv.ignore.iter().any(|name| *name == self.names[*at]));
        let Some(extra) = extra.map(|at| &self.names[at]) else { return Ok(inputs) };
        let hint = nearest::hint(extra, schema.inputs().iter().flat_map(|input| &input.columns).map(|column| column.name.as_str()));
        Err(self.malformed(format!("column `{extra}` is not in the schema{hint}; correct it, or list it in csv.ignore")))
    }

    /// The columns of an only input that lists none: those of `csv.features`, or all that are not `used`.
    fn rest<'s>(&self, input: &'s Input, csv: &Csv, used: &[usize]) -> Result<Vec<(usize, Rule<'s>)>, DataError> {
        let ignored = |at: &usize| csv.ignore.iter().any(|name| *name == self.names[*at]);
        let features = match csv.features.is_empty() {
            true => (0..self.names.len()).filter(|at| !used.contains(at) && !ignored(at)).collect(),
            false => self.all(&csv.features)?,
        };
        if features.len() != input.width() {
            let (count, shape, width) = (features.len(), input.shape(), input.width());
            return Err(self.malformed(format!("it has {count} feature columns, the schema's shape {shape:?} holds {width}")));
        }
        Ok(features.into_iter().map(|at| (at, input.rule())).collect())
    }
}

impl<'a> Layout<'a> {
    fn new(path: &Path, names: StringRecord, schema: &'a Schema, asked: &[&str]) -> Result<Self, DataError> {
        let Some(csv) = schema.csv() else { return Err(DataError::SchemaNeeded { path: path.to_path_buf() }) };
        let header = Header { path, names: &names };
        let (target, mut group) = (header.all(&csv.target)?, header.all(&csv.group)?);
        let mut filled = Vec::new();
        for name in asked {
            let missing = || DataError::NoColumn { file: path.display().to_string(), column: (*name).to_owned(), known: header.known() };
            let at = header.find(name)?.ok_or_else(missing)?;
            filled.push(at);
            let columns = schema.inputs().iter().flat_map(|input| &input.columns).map(|column| &column.name);
            if target.contains(&at) || columns.chain(&csv.features).any(|feature| feature == name) {
                return Err(
                    header.malformed(format!("column `{name}` tells rows apart, so it can be no feature or target, as the schema has it"))
                );
            }
            if !group.contains(&at) {
                group.push(at);
            }
        }
        let used = [&target[..], &group].concat();
        let inputs = match schema.inputs() {
            [only] if only.columns.is_empty() => vec![header.rest(only, csv, &used)?],
            _ => header.listed(schema, csv, &used)?,
        };
        Ok(Self { names, inputs, target, group, asked: filled, nulls: &csv.nulls })
    }

    fn read(&self, path: &Path, record: &StringRecord, kind: TargetKind, rows: &mut Rows) -> Result<(), DataError> {
        let refuse = |at: usize, reason: String| DataError::Cell {
            path: path.to_path_buf(),
            line: record.position().map_or(0, Position::line),
            column: self.names[at].to_owned(),
            reason,
        };
        let is_null = |text: &str| text.is_empty() || self.nulls.iter().any(|null| null == text);
        for (cells, row) in self.inputs.iter().zip(&mut rows.inputs) {
            for (at, rule) in cells {
                let text = &record[*at];
                rule.read(text, is_null(text), row).map_err(|reason| refuse(*at, reason))?;
            }
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

//! Reading a [`Source`]: `.npz`, a folder of `.npy` or of images, `.csv`, or the vendored digits.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::BufReader,
    path::Path,
};

use sapwood_models::{Dataset, Targets, Tensor, TensorData, features::MAIN};
use zip::ZipArchive;

use crate::{
    Columns, DataError, Schema, Source, TargetKind, digits, images,
    npy::{self, Array, Fault, Numbers},
    table,
};

/// The array of the targets.
const TARGETS: &str = "y";

/// Bounds of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of the features together, as they unpack, or of one table.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 4 << 30 }
    }
}

/// Reads a data set and checks it: against the schema if there is one, and anyway that there are
/// examples, as many labels, and nothing but finite numbers.
///
/// Without a schema, `y` of integers are classes and `y` of floats are values. The features come
/// as f32, whatever the file holds.
///
/// # Errors
/// [`DataError`] with file, row and column.
pub fn load(source: &Source, schema: Option<&Schema>) -> Result<Dataset, DataError> {
    load_columns(source, schema, &[]).map(|(data, _)| data)
}

/// As [`load`], with the columns that are neither features nor targets: `block` of the digits, `class` of images, those that the schema of a table
/// names as `group`, and those that are `asked` for by name. Of arrays that is one more array of whole numbers, one for each row.
///
/// # Errors
/// As [`load`]; [`DataError::NoColumn`] for a column that is not there.
pub fn load_columns(source: &Source, schema: Option<&Schema>, asked: &[&str]) -> Result<(Dataset, Columns), DataError> {
    load_with(source, schema, asked, Limits::default())
}

/// As [`load_columns`], within other limits.
///
/// # Errors
/// As [`load_columns`].
pub fn load_with(source: &Source, schema: Option<&Schema>, asked: &[&str], limits: Limits) -> Result<(Dataset, Columns), DataError> {
    let (mut data, columns) = match source {
        Source::Digits(blocks) => {
            let number = |block: &usize| vec![block.to_string(); digits::rows(*block).len()];
            let column = blocks.numbers().iter().flat_map(number).collect();
            let data = digits::blocks(blocks.numbers().iter().copied());
            (data, Columns::new(BTreeMap::from([("block".to_owned(), column)])))
        }
        Source::Path(path) => read_path(path, schema, asked, limits)?,
    };
    let file = source.to_string();
    if let Some(missing) = asked.iter().find(|name| columns.get(name).is_none()) {
        let known = columns.names().collect::<Vec<_>>().join(", ");
        return Err(DataError::NoColumn { file, column: (*missing).to_owned(), known });
    }
    match schema {
        Some(schema) => {
            schema.fill(&mut data);
            schema.check(&file, &data)?;
        }
        None => data.check(None).map_err(|fault| DataError::Fault { file, fault })?,
    }
    Ok((data, columns))
}

/// The names of the classes, by their numbers, where the source has them: a folder of images.
///
/// # Errors
/// As [`load`].
pub fn class_names(source: &Source) -> Result<Option<Vec<String>>, DataError> {
    match source {
        Source::Path(path) if path.is_dir() => images::classes(path),
        _ => Ok(None),
    }
}

fn read_path(path: &Path, schema: Option<&Schema>, asked: &[&str], limits: Limits) -> Result<(Dataset, Columns), DataError> {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    if path.is_dir() {
        if let Some(classes) = images::classes(path)? {
            return images::read(path, classes, schema, limits);
        }
        return arrays(path, &stored_in(path)?, schema, asked, &mut |name, limits| npy_file(path, name, limits), limits);
    }
    match extension.to_str() {
        Some("npz") => {
            let mut archive = open_npz(path)?;
            let names = archive.file_names().filter_map(|n| n.strip_suffix(".npy").map(str::to_owned)).collect();
            arrays(path, &names, schema, asked, &mut |name, limits| member(path, &mut archive, name, limits), limits)
        }
        Some("csv") => table::read(path, schema, asked, limits),
        Some("parquet") => Err(unsupported(path, "Parquet is not read yet; save the columns as .csv or .npz")),
        Some("npy") => Err(unsupported(path, "one array is no data set; name the folder that holds x.npy and y.npy")),
        _ if !path.exists() => Err(DataError::io("open", path)(std::io::ErrorKind::NotFound.into())),
        _ => Err(unsupported(path, "the data is a folder of x.npy and y.npy or of images by class, an .npz, or a .csv with a schema")),
    }
}

/// Arrays by name: `y` is the targets, those that are `asked` for are columns, and the others are features: `x`, or one for each of
/// a model's inputs.
fn arrays(
    path: &Path,
    names: &BTreeSet<String>,
    schema: Option<&Schema>,
    asked: &[&str],
    read: &mut dyn FnMut(&str, Limits) -> Result<Array, DataError>,
    limits: Limits,
) -> Result<(Dataset, Columns), DataError> {
    let y = targets(path, read(TARGETS, limits)?, schema)?;
    let mut features = Vec::new();
    for name in names.iter().filter(|name| *name != TARGETS && !asked.contains(&name.as_str())) {
        let used: u64 = features.iter().map(|(_, tensor): &(String, Tensor)| tensor.numel() as u64 * 4).sum();
        match read(name, Limits { bytes: limits.bytes.saturating_sub(used) }) {
            // What has not one row for each target is about the data, and none of it: names of classes, means.
            Ok(Array { shape, .. }) if name != MAIN && shape.first() != Some(&y.len()) => {}
            Ok(array) => features.push((name.clone(), feature(path, name, array)?)),
            Err(DataError::Type { .. }) if name != MAIN => {}
            Err(error) => return Err(error),
        }
    }
    if features.is_empty() {
        // There is no such array: the error says how it should be called.
        read(MAIN, limits)?;
    }
    let data = Dataset { x: features.into_iter().collect(), y };
    let mut columns = BTreeMap::new();
    for &name in asked {
        let array = read(name, limits).map_err(|error| match error {
            DataError::MissingArray { .. } => {
                DataError::NoColumn { file: path.display().to_string(), column: name.to_owned(), known: "no array of this name".to_owned() }
            }
            error => error,
        })?;
        let values = whole_numbers(path, name, array)?;
        if values.len() != data.len() {
            let reason = format!("array `{name}` has {} values for {} examples", values.len(), data.len());
            return Err(DataError::Malformed { path: path.to_path_buf(), reason });
        }
        columns.insert(name.to_owned(), values.iter().map(i64::to_string).collect());
    }
    Ok((data, Columns::new(columns)))
}

/// Names of the arrays of a folder.
fn stored_in(folder: &Path) -> Result<BTreeSet<String>, DataError> {
    let entries = std::fs::read_dir(folder).map_err(DataError::io("open", folder))?;
    let name = |entry: std::io::Result<std::fs::DirEntry>| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".npy")?.to_owned());
    Ok(entries.filter_map(name).collect())
}

fn unsupported(path: &Path, reason: &str) -> DataError {
    DataError::Unsupported { path: path.to_path_buf(), reason: reason.to_owned() }
}

fn npy_file(folder: &Path, name: &str, limits: Limits) -> Result<Array, DataError> {
    let path = folder.join(format!("{name}.npy"));
    // A name that another one chose leads nowhere else.
    if path.parent() != Some(folder) || !path.exists() {
        return Err(DataError::MissingArray { path: folder.to_path_buf(), array: format!("{name}.npy") });
    }
    let file = File::open(&path).map_err(DataError::io("open", &path))?;
    npy::read(BufReader::new(file), limits.bytes).map_err(|fault| refuse(&path, name, fault, limits))
}

fn open_npz(path: &Path) -> Result<ZipArchive<BufReader<File>>, DataError> {
    let file = File::open(path).map_err(DataError::io("open", path))?;
    ZipArchive::new(BufReader::new(file)).map_err(|e| DataError::Malformed { path: path.to_path_buf(), reason: e.to_string() })
}

/// Reads one array of an `.npz`. What it unpacks to is bounded by its own header, and that by the
/// limit, so an archive that is small on disk cannot be large in memory.
fn member(path: &Path, archive: &mut ZipArchive<BufReader<File>>, name: &str, limits: Limits) -> Result<Array, DataError> {
    let stored = format!("{name}.npy");
    if archive.index_for_name(&stored).is_none() {
        return Err(DataError::MissingArray { path: path.to_path_buf(), array: name.to_owned() });
    }
    let file = archive.by_name(&stored);
    let file = file.map_err(|e| DataError::Malformed { path: path.to_path_buf(), reason: e.to_string() })?;
    npy::read(file, limits.bytes).map_err(|fault| refuse(path, name, fault, limits))
}

fn refuse(path: &Path, array: &str, fault: Fault, limits: Limits) -> DataError {
    let path = path.to_path_buf();
    match fault {
        Fault::Malformed(reason) => DataError::Malformed { path, reason: format!("array `{array}`: {reason}") },
        Fault::TooLarge(bytes) => DataError::TooLarge { path, bytes, limit: limits.bytes },
        Fault::Type(found) => DataError::Type { path, array: array.to_owned(), found },
    }
}

/// Every array of an `.npz`, by name: the inputs of a model. Floats come as f32; 16-bit integers
/// as 32-bit ones.
///
/// # Errors
/// [`DataError`] for a file that is missing, damaged or too large, and for values that do not fit
/// an f32.
pub fn read_tensors(path: &Path, limits: Limits) -> Result<BTreeMap<String, Tensor>, DataError> {
    let mut archive = open_npz(path)?;
    let stored = archive.file_names().map(str::to_owned);
    let names: Vec<_> = stored.filter_map(|n| n.strip_suffix(".npy").map(str::to_owned)).collect();
    let mut tensors = BTreeMap::new();
    for name in names {
        let Array { shape, numbers } = member(path, &mut archive, &name, limits)?;
        let data = match numbers {
            Numbers::U8(v) => TensorData::U8(v),
            Numbers::I8(v) => TensorData::I8(v),
            Numbers::I16(v) => TensorData::I32(v.into_iter().map(i32::from).collect()),
            Numbers::I32(v) => TensorData::I32(v),
            Numbers::I64(v) => TensorData::I64(v),
            Numbers::Bool(v) => TensorData::Bool(v),
            floats => TensorData::F32(to_f32(path, &name, &shape, floats)?),
        };
        tensors.insert(name, Tensor { shape, data });
    }
    Ok(tensors)
}

fn feature(path: &Path, name: &str, array: Array) -> Result<Tensor, DataError> {
    if array.shape.len() < if name == MAIN { 2 } else { 1 } {
        let reason = format!("array `{name}` has shape {:?}, it needs an axis of examples and one of features", array.shape);
        return Err(DataError::Malformed { path: path.to_path_buf(), reason });
    }
    let values = to_f32(path, name, &array.shape, array.numbers)?;
    Ok(Tensor { shape: array.shape, data: TensorData::F32(values) })
}

fn targets(path: &Path, y: Array, schema: Option<&Schema>) -> Result<Targets, DataError> {
    let as_values = match schema.map(Schema::targets) {
        Some(TargetKind::Values(_)) => true,
        Some(TargetKind::Classes(_)) => false,
        None => y.numbers.is_float(),
    };
    if as_values { values(path, y) } else { Ok(Targets::Classes(whole_numbers(path, TARGETS, y)?)) }
}

/// `[n]` and `[n, k]` are one and `k` values for each example.
fn values(path: &Path, y: Array) -> Result<Targets, DataError> {
    let mut shape = y.shape;
    let data = to_f32(path, "y", &shape, y.numbers)?;
    if shape.len() < 2 {
        shape.push(1);
    }
    Ok(Targets::Values(Tensor { shape, data: TensorData::F32(data) }))
}

/// `[n]` or `[n, 1]` of whole numbers, also when they are stored as floats.
fn whole_numbers(path: &Path, name: &str, array: Array) -> Result<Vec<i64>, DataError> {
    let flat = array.shape.len() == 1 || (array.shape.len() == 2 && array.shape[1] == 1);
    if !flat {
        let reason = format!("array `{name}` has shape {:?}; it needs one whole number for each example", array.shape);
        return Err(DataError::Malformed { path: path.to_path_buf(), reason });
    }
    let whole = |row: usize, value: f64| {
        // Every whole number below 2^53 is exact in f64; what is beyond is neither a label nor the number of anybody.
        if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
            return Ok(value as i64);
        }
        Err(DataError::Value {
            path: path.to_path_buf(),
            array: name.to_owned(),
            row,
            column: 0,
            reason: format!("{value} is no whole number"),
        })
    };
    match array.numbers {
        Numbers::F32(v) => v.into_iter().enumerate().map(|(row, v)| whole(row, f64::from(v))).collect(),
        Numbers::F64(v) => v.into_iter().enumerate().map(|(row, v)| whole(row, v)).collect(),
        Numbers::I64(v) => Ok(v),
        Numbers::U8(v) => Ok(v.into_iter().map(i64::from).collect()),
        Numbers::I8(v) => Ok(v.into_iter().map(i64::from).collect()),
        Numbers::I16(v) => Ok(v.into_iter().map(i64::from).collect()),
        Numbers::I32(v) => Ok(v.into_iter().map(i64::from).collect()),
        Numbers::Bool(v) => Ok(v.into_iter().map(i64::from).collect()),
    }
}

/// Narrows to f32. A finite number that would become infinite is refused; NaN and infinity pass,
/// for the check that names them.
fn to_f32(path: &Path, array: &str, shape: &[usize], numbers: Numbers) -> Result<Vec<f32>, DataError> {
    if let Numbers::F64(values) = &numbers
        && let Some(at) = values.iter().position(|v| v.is_finite() && (*v as f32).is_infinite())
    {
        let width = shape.iter().skip(1).product::<usize>().max(1);
        return Err(DataError::Value {
            path: path.to_path_buf(),
            array: array.to_owned(),
            row: at / width,
            column: at % width,
            reason: format!("{} does not fit a 32-bit float", values[at]),
        });
    }
    Ok(match numbers {
        Numbers::F32(values) => values,
        Numbers::Bool(values) => values.into_iter().map(|v| f32::from(u8::from(v))).collect(),
        Numbers::F64(values) => values.into_iter().map(|v| v as f32).collect(),
        Numbers::I32(values) => values.into_iter().map(|v| v as f32).collect(),
        Numbers::I64(values) => values.into_iter().map(|v| v as f32).collect(),
        Numbers::U8(values) => values.into_iter().map(f32::from).collect(),
        Numbers::I8(values) => values.into_iter().map(f32::from).collect(),
        Numbers::I16(values) => values.into_iter().map(f32::from).collect(),
    })
}

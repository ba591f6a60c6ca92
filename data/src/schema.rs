//! What a data set must look like.
//!
//! ```
//! let schema = sapwood_data::Schema::from_toml(r#"
//!     [input]
//!     name = "x"             # optional: the model's input
//!     shape = [1, 8, 8]      # of one example, without the batch
//!     range = [0.0, 16.0]    # optional: least and greatest value
//!
//!     [targets]
//!     classes = 10           # labels 0 to 9; or `values = 1` for regression
//!
//!     [csv]                  # only for .csv files
//!     target = "digit"       # or a list, for several values
//!     group = ["store"]      # optional: columns to partition by or to tell entities apart, which are no features
//! "#)?;
//! assert_eq!(schema.input().shape, [1, 8, 8]);
//! # Ok::<(), sapwood_data::DataError>(())
//! ```
//!
//! The features of a table are all other columns in file order, unless `csv.features` lists them.

use std::collections::BTreeSet;

use sapwood_models::{DataFault, Dataset, Dim, Element, Targets, Tensor, ValueInfo, dataset::Known, features::MAIN, tensor::numel};
use serde::{Deserialize, Serialize};

use crate::DataError;

/// Most values in one example; more is a typing error.
const MAX_EXAMPLE: usize = 1 << 28;

/// The description of a data set. One that exists does not contradict itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct Schema(Raw);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    input: Input,
    targets: TargetKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    csv: Option<Csv>,
}

/// The features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Name of the model's input, if it matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Shape of one example, without the batch.
    pub shape: Vec<usize>,
    /// Least and greatest value, both allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f32; 2]>,
}

/// The targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    /// Labels from 0 to this, exclusive.
    Classes(usize),
    /// So many real values for each example.
    Values(usize),
}

/// Which column of a table is what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Csv {
    /// Columns of the features in the order of the flattened input; by default all others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// Columns of the target: one for classes.
    #[serde(with = "one_or_many")]
    pub target: Vec<String>,
    /// Columns to partition by or to tell entities apart, which are neither. One that is asked for by name need not be here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group: Vec<String>,
}

impl Schema {
    /// Reads a schema file: JSON if it is called so, else TOML.
    ///
    /// # Errors
    /// If the file cannot be read or is no schema.
    pub fn read(path: &std::path::Path) -> Result<Self, DataError> {
        let text = std::fs::read_to_string(path).map_err(|source| DataError::Io { action: "read", path: path.to_owned(), source })?;
        if path.extension().is_some_and(|e| e == "json") { Self::from_json(&text) } else { Self::from_toml(&text) }
    }

    /// Reads a schema from TOML.
    ///
    /// # Errors
    /// [`DataError::Schema`] for what is malformed, unknown or contradictory.
    pub fn from_toml(text: &str) -> Result<Self, DataError> {
        toml::from_str(text).map_err(|e| DataError::Schema { reason: e.to_string() })
    }

    /// Reads a schema from JSON.
    ///
    /// # Errors
    /// As [`from_toml`](Self::from_toml).
    pub fn from_json(text: &str) -> Result<Self, DataError> {
        serde_json::from_str(text).map_err(|e| DataError::Schema { reason: e.to_string() })
    }

    /// The schema of the vendored digits.
    #[must_use]
    pub fn digits() -> Self {
        Self(Raw {
            input: Input { name: None, shape: vec![1, 8, 8], range: Some([0.0, 16.0]) },
            targets: TargetKind::Classes(10),
            csv: None,
        })
    }

    /// The features.
    #[must_use]
    pub fn input(&self) -> &Input {
        &self.0.input
    }

    /// The targets.
    #[must_use]
    pub fn targets(&self) -> TargetKind {
        self.0.targets
    }

    /// The columns of a table, if the schema describes one.
    #[must_use]
    pub fn csv(&self) -> Option<&Csv> {
        self.0.csv.as_ref()
    }

    /// Values in one example.
    #[must_use]
    pub fn width(&self) -> usize {
        self.0.input.shape.iter().product()
    }

    /// Checks examples against this schema; `file` names them in the error.
    ///
    /// # Errors
    /// [`DataError::Fault`] or [`DataError::OutOfRange`] with row and column.
    pub fn check(&self, file: &str, data: &Dataset) -> Result<(), DataError> {
        let fault = |fault| DataError::Fault { file: file.to_owned(), fault };
        let classes = match (self.0.targets, &data.y) {
            (TargetKind::Classes(n), Targets::Classes(_)) => Some(Known::classes(n)),
            (TargetKind::Values(width), Targets::Values(y)) if y.row_len() == width => None,
            (TargetKind::Classes(_), Targets::Values(_)) => {
                return Err(fault(DataFault::Targets { found: "real values", needed: "labels" }));
            }
            (TargetKind::Values(_), Targets::Classes(_)) => {
                return Err(fault(DataFault::Targets { found: "labels", needed: "real values" }));
            }
            (TargetKind::Values(width), Targets::Values(y)) => {
                let expected = format!("[n, {width}] for the targets");
                return Err(fault(DataFault::Shape { expected, found: format!("{:?}", y.shape) }));
            }
        };
        data.check(classes).map_err(fault)?;
        let example = self.0.input.shape.iter().map(|n| Dim::Fixed(*n));
        let shape = std::iter::once(Dim::Symbol("n".to_owned())).chain(example).collect();
        let input = ValueInfo { name: self.0.input.name.clone().unwrap_or_else(|| MAIN.to_owned()), element: Element::F32, shape };
        data.x.check_for(std::slice::from_ref(&input)).map_err(fault)?;
        self.check_range(file, data.x.for_input(&input.name).map_err(fault)?)
    }

    fn check_range(&self, file: &str, x: &Tensor) -> Result<(), DataError> {
        let (Some([low, high]), Some(x)) = (self.0.input.range, x.as_f32()) else {
            return Ok(());
        };
        let Some(at) = x.iter().position(|v| !(low..=high).contains(v)) else { return Ok(()) };
        let width = self.width().max(1);
        let (row, column, value) = (at / width, at % width, x[at]);
        Err(DataError::OutOfRange { file: file.to_owned(), row, column, value, low, high })
    }
}

impl TryFrom<Raw> for Schema {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let width = numel(&raw.input.shape).filter(|n| (1..=MAX_EXAMPLE).contains(n));
        let Some(width) = width else {
            return Err(format!("input.shape = {:?} must hold 1 to {MAX_EXAMPLE} values", raw.input.shape));
        };
        if let Some([low, high]) = raw.input.range
            && !(low.is_finite() && high.is_finite() && low < high)
        {
            return Err(format!("input.range = [{low}, {high}] must be finite and ascending"));
        }
        let columns = match raw.targets {
            TargetKind::Classes(n) if n < 2 => return Err(format!("targets.classes = {n} must be at least 2")),
            TargetKind::Values(0) => return Err("targets.values = 0 must be at least 1".to_owned()),
            TargetKind::Classes(_) => 1,
            TargetKind::Values(n) => n,
        };
        if let Some(csv) = &raw.csv {
            csv.check(width, columns)?;
        }
        Ok(Self(raw))
    }
}

impl From<Schema> for Raw {
    fn from(schema: Schema) -> Self {
        schema.0
    }
}

impl Csv {
    fn check(&self, width: usize, targets: usize) -> Result<(), String> {
        if self.target.len() != targets {
            return Err(format!("csv.target names {} columns, targets needs {targets}", self.target.len()));
        }
        if !self.features.is_empty() && self.features.len() != width {
            return Err(format!("csv.features names {} columns, input.shape holds {width} values", self.features.len()));
        }
        let mut seen = BTreeSet::new();
        let names = self.features.iter().chain(&self.target).chain(&self.group);
        match names.into_iter().find(|name| !seen.insert(*name)) {
            Some(twice) => Err(format!("[csv] uses column `{twice}` twice")),
            None => Ok(()),
        }
    }
}

/// `"a"` or `["a", "b"]`.
mod one_or_many {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected the name of a column or a list of names")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
        Ok(match OneOrMany::deserialize(from)? {
            OneOrMany::One(name) => vec![name],
            OneOrMany::Many(names) => names,
        })
    }

    pub(super) fn serialize<S: Serializer>(names: &[String], to: S) -> Result<S::Ok, S::Error> {
        match names {
            [only] => only.serialize(to),
            many => many.serialize(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[input]\nshape = [2]\nrange = [0.0, 1.0]\n[targets]\nclasses = 3\n[csv]\ntarget = \"y\"\n";

    fn data() -> Dataset {
        Dataset { x: Tensor::f32([2, 2], vec![0.0, 0.5, 0.25, 1.0]).unwrap().into(), y: Targets::Classes(vec![0, 2]) }
    }

    #[test]
    fn toml_and_json_are_one_schema() {
        let schema = Schema::from_toml(GOOD).unwrap();
        let json = serde_json::to_string(&schema).unwrap();
        assert_eq!(Schema::from_json(&json).unwrap(), schema);
        assert_eq!(Schema::from_toml(&toml::to_string(&schema).unwrap()).unwrap(), schema);
        assert_eq!(schema.csv().unwrap().target, ["y"]);
    }

    #[test]
    fn contradictions_and_unknown_keys_are_refused() {
        let cases = [
            ("shape = [2]", "shape = [2, 0]", "must hold"),
            ("shape = [2]", "shape = [9223372036854775807, 3]", "must hold"),
            ("[0.0, 1.0]", "[1.0, 0.0]", "ascending"),
            ("[0.0, 1.0]", "[0.0, nan]", "finite"),
            ("classes = 3", "classes = 1", "at least 2"),
            ("classes = 3", "values = 2", "names 1 columns"),
            ("classes = 3", "clases = 3", "clases"),
            ("[input]", "[input]\nshpae = 3", "shpae"),
            ("target = \"y\"", "target = \"y\"\nfeatures = [\"a\"]", "csv.features names 1"),
            ("target = \"y\"", "target = \"y\"\ngroup = [\"y\"]", "`y` twice"),
            ("target = \"y\"", "target = 3", "name of a column"),
        ];
        for (from, to, reason) in cases {
            let refused = Schema::from_toml(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(refused.contains(reason), "{to}: {refused}");
        }
    }

    #[test]
    fn examples_are_checked_by_row_and_column() {
        let schema = Schema::from_toml(GOOD).unwrap();
        schema.check("d", &data()).unwrap();

        let mut wide = data();
        wide.x = Tensor::f32([2, 2], vec![0.0, 0.5, 0.25, 1.5]).unwrap().into();
        let refused = schema.check("d", &wide).unwrap_err();
        assert_eq!(refused.to_string(), "d: row 1, column 1: 1.5 is outside 0..=1, the range in the schema");

        let mut label = data();
        label.y = Targets::Classes(vec![0, 3]);
        let refused = schema.check("d", &label).unwrap_err();
        assert!(matches!(refused, DataError::Fault { fault: DataFault::Label { row: 1, label: 3, classes: 3 }, .. }), "{refused}");

        let mut values = data();
        values.y = Targets::Values(Tensor::f32([2, 1], vec![0.0, 1.0]).unwrap());
        assert!(matches!(schema.check("d", &values), Err(DataError::Fault { fault: DataFault::Targets { .. }, .. })));
    }

    #[test]
    fn the_digits_fit_their_schema() {
        Schema::digits().check("digits", &crate::digits::load()).unwrap();
    }
}

//! What a data set must look like.
//!
//! ```
//! let schema = sapwood_data::Schema::from_toml(r#"
//!     [input]
//!     name = "x"             # optional: the model's input
//!     shape = [1, 8, 8]      # of one example, without the batch
//!     range = [0.0, 16.0]    # optional: least and greatest value
//!     unit = "grey level"    # optional: for people
//!
//!     [targets]
//!     classes = 10           # labels 0 to 9; or `values = 1` for regression
//!
//!     [csv]                  # only for .csv files
//!     target = "digit"       # or a list, for several values
//!     group = ["store"]      # optional: columns to partition by or to tell entities apart, which are no features
//! "#)?;
//! assert_eq!(schema.inputs()[0].shape(), [1, 8, 8]);
//! # Ok::<(), sapwood_data::DataError>(())
//! ```
//!
//! The features of a table are all other columns in file order, unless `csv.features` lists them. `[input]` is the short form of one
//! entry in `[[inputs]]`, and an input may list its features one by one:
//!
//! ```
//! let schema = sapwood_data::Schema::from_toml(r#"
//!     version = 3            # the author's; 1 if left out
//!
//!     [[inputs]]
//!     name = "customer"
//!     columns = [
//!         { name = "age", type = "integer", unit = "years", range = [0, 120] },
//!         { name = "income", unit = "EUR", range = [0, 1e6], null = { fill = 0 } },
//!         { name = "shop", type = "category", values = ["north", "south"], encode = "one-hot" },
//!     ]
//!
//!     [[inputs]]
//!     name = "visits"
//!     shape = [4]
//!     columns = [{ name = "q1" }, { name = "q2" }, { name = "q3" }, { name = "q4", null = { mean = 1.5 } }]
//!
//!     [targets]
//!     values = 1
//!
//!     [csv]
//!     target = "spent"
//!     ignore = ["note"]      # any other column is refused
//!     nulls = ["NA"]         # texts that mean the same as an empty cell
//! "#)?;
//! assert_eq!(schema.inputs()[0].shape(), [4]); // two numbers, and two of the one-hot code
//! # Ok::<(), sapwood_data::DataError>(())
//! ```
//!
//! In arrays a null is NaN, and columns are places in a row. Arrays that the schema does not name are not looked at.

mod csv;
mod input;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use sapwood_models::{
    DataFault, Dataset, Dim, Element, Targets, ValueInfo,
    dataset::Known,
    features::{MAIN, sources},
};
use serde::{Deserialize, Serialize};

pub(crate) use self::rule::Rule;
pub use self::{
    csv::Csv,
    input::{Column, Input, Violation},
    rule::{Encode, Filler, Kind, Null},
};
use crate::{DataError, nearest};

/// The description of a data set. One that exists does not contradict itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct Schema {
    version: u32,
    inputs: Vec<Input>,
    targets: TargetKind,
    csv: Option<Csv>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default = "first")]
    version: u32,
    /// The short form of one entry in `inputs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input: Option<Input>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<Input>,
    targets: TargetKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    csv: Option<Csv>,
}

fn first() -> u32 {
    1
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

impl Schema {
    /// Reads a schema file: JSON if it is called so, else TOML.
    ///
    /// # Errors
    /// If the file cannot be read or is no schema.
    pub fn read(path: &std::path::Path) -> Result<Self, DataError> {
        let text = std::fs::read_to_string(path).map_err(|source| DataError::Io { action: "read", path: path.to_owned(), source })?;
        if path.extension().is_some_and(|e| e == "json") { Self::from_json(&text) } else { Self::from_toml(&text) }
    }

    /// Reads a schema from either form, by its first character.
    ///
    /// # Errors
    /// As [`from_toml`](Self::from_toml).
    pub fn parse(text: &str) -> Result<Self, DataError> {
        if text.trim_start().starts_with('{') { Self::from_json(text) } else { Self::from_toml(text) }
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
        let pixels = Input { shape: Some(vec![1, 8, 8]), range: Some([0.0, 16.0]), ..Input::default() };
        Self { version: 1, inputs: vec![pixels], targets: TargetKind::Classes(10), csv: None }
    }

    /// The author's version.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The inputs, one at least.
    #[must_use]
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// The targets.
    #[must_use]
    pub fn targets(&self) -> TargetKind {
        self.targets
    }

    /// The columns of a table, if the schema describes one.
    #[must_use]
    pub fn csv(&self) -> Option<&Csv> {
        self.csv.as_ref()
    }

    /// Names of the inputs, that of an only one being [`MAIN`] by default.
    fn names(&self) -> Vec<&str> {
        self.inputs.iter().map(|input| input.name.as_deref().unwrap_or(MAIN)).collect()
    }

    /// Puts what the schema says in the place of each null.
    pub(crate) fn fill(&self, data: &mut Dataset) {
        let names = self.names();
        for (input, name) in self.inputs.iter().zip(&names).filter(|(input, _)| input.fills()) {
            // What is missing is told by the check.
            if let Some(values) = data.x.values_mut(&names, name) {
                input.fill(values);
            }
        }
    }

    /// Checks examples against this schema; `file` names them in the error.
    ///
    /// # Errors
    /// [`DataError::Violation`] with row, column, value and rule; [`DataError::NoInput`]; [`DataError::Fault`].
    pub fn check(&self, file: &str, data: &Dataset) -> Result<(), DataError> {
        let fault = |fault| DataError::Fault { file: file.to_owned(), fault };
        let classes = match (self.targets, &data.y) {
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
        let (names, have) = (self.names(), data.x.iter().map(|(name, _)| name).collect::<Vec<_>>());
        let sources = sources(&have, &names).map_err(|_| self.missing(file, &have))?;
        let infos = self.inputs.iter().zip(&names).map(|(input, name)| {
            let example = input.shape().into_iter().map(Dim::Fixed);
            let shape = std::iter::once(Dim::Symbol("n".to_owned())).chain(example).collect();
            ValueInfo { name: (*name).to_owned(), element: Element::F32, shape }
        });
        data.x.check_for(&infos.collect::<Vec<_>>()).map_err(fault)?;
        let several = self.inputs.len() > 1;
        for (input, source) in self.inputs.iter().zip(sources) {
            let values = data.x.iter().find(|(name, _)| *name == source).and_then(|(_, tensor)| tensor.as_f32());
            let broken = |violation| DataError::Violation { file: file.to_owned(), violation };
            input.check(values.unwrap_or_default(), Some(source).filter(|_| several)).map_err(broken)?;
        }
        data.check(classes).map_err(fault)
    }

    /// The first input that no array is called after.
    fn missing(&self, file: &str, have: &[&str]) -> DataError {
        let names = self.names();
        let input = names.iter().find(|name| !have.contains(name)).copied().unwrap_or(MAIN).to_owned();
        let spare = have.iter().copied().filter(|name| !names.contains(name));
        let hint = nearest::hint(&input, spare);
        DataError::NoInput { file: file.to_owned(), input, known: have.join(", "), hint }
    }

    /// Whether all that passes the schema feeds a model of these inputs. Gives the schema's input for each of them.
    ///
    /// # Errors
    /// [`DataError::Schema`] with the input whose name, shape or type does not fit.
    pub fn fits(&self, model: &[ValueInfo]) -> Result<Vec<&Input>, DataError> {
        let names = self.names();
        let read: Vec<&str> = model.iter().map(|input| input.name.as_str()).collect();
        let found = sources(&names, &read).map_err(|_| {
            let lacking = read.iter().find(|name| !names.contains(name)).copied().unwrap_or_default();
            let hint = nearest::hint(lacking, names.iter().copied());
            let reason = format!("the model reads `{lacking}`, and the schema describes {}{hint}", names.join(", "));
            DataError::Schema { reason }
        })?;
        let pairs =
            model.iter().zip(found).filter_map(|(info, found)| Some((info, &self.inputs[names.iter().position(|name| *name == found)?])));
        let fit = |(info, input): (&ValueInfo, _)| match Input::misfit(input, info) {
            None => Ok(input),
            Some(why) => Err(DataError::Schema { reason: format!("input `{}`: {why}", info.name) }),
        };
        pairs.map(fit).collect()
    }
}

impl TryFrom<Raw> for Schema {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let Raw { version, input, mut inputs, targets, csv } = raw;
        let short = input.is_some();
        match (input, inputs.is_empty()) {
            (Some(input), true) => inputs.push(input),
            (None, false) => {}
            (Some(_), false) => return Err("it has both [input] and [[inputs]]; use one of them".to_owned()),
            (None, true) => return Err("it has no [input] and no [[inputs]]".to_owned()),
        }
        if version == 0 {
            return Err("version = 0; versions count from 1".to_owned());
        }
        let mut seen = BTreeSet::new();
        for (at, input) in inputs.iter().enumerate() {
            let path = match &input.name {
                _ if short => "input".to_owned(),
                Some(name) => format!("inputs `{name}`"),
                None if inputs.len() > 1 => {
                    return Err(format!("inputs[{at}] has no name; of several inputs each has that of the model's"));
                }
                None => "inputs[0]".to_owned(),
            };
            input.validate(&path)?;
            if !seen.insert(&input.name) {
                return Err(format!("{path} is there twice"));
            }
        }
        let columns = match targets {
            TargetKind::Classes(n) if n < 2 => return Err(format!("targets.classes = {n} must be at least 2")),
            TargetKind::Values(0) => return Err("targets.values = 0 must be at least 1".to_owned()),
            TargetKind::Classes(_) => 1,
            TargetKind::Values(n) => n,
        };
        if let Some(csv) = &csv {
            csv.check(&inputs, columns)?;
        }
        Ok(Self { version, inputs, targets, csv })
    }
}

impl From<Schema> for Raw {
    /// Always the long form.
    fn from(schema: Schema) -> Self {
        let Schema { version, inputs, targets, csv } = schema;
        Self { version, input: None, inputs, targets, csv }
    }
}

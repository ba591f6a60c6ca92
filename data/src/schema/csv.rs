//! Which columns a table has.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Column, Input};

/// Which column of a table is what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Csv {
    /// Columns of the only input, in the order of the flattened example; by default all others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// Columns of the target: one for classes.
    #[serde(with = "one_or_many")]
    pub target: Vec<String>,
    /// Columns to partition by or to tell entities apart, which are neither. One that is asked for by name need not be here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group: Vec<String>,
    /// Columns that may be there and are not read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// Texts of a cell that mean the same as an empty one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nulls: Vec<String>,
}

impl Csv {
    pub(super) fn check(&self, inputs: &[Input], targets: usize) -> Result<(), String> {
        if self.target.len() != targets {
            return Err(format!("csv.target names {} columns, targets needs {targets}", self.target.len()));
        }
        let columns: Vec<&Column> = inputs.iter().flat_map(|input| &input.columns).collect();
        match inputs {
            _ if !columns.is_empty() && !self.features.is_empty() => {
                return Err("csv.features and the columns of the inputs say the same thing twice; leave csv.features out".to_owned());
            }
            [only] if columns.is_empty() => {
                let width = only.width();
                if !self.features.is_empty() && self.features.len() != width {
                    let shape = only.shape();
                    return Err(format!(
                        "csv.features names {} columns, the input's shape {shape:?} holds {width} values",
                        self.features.len()
                    ));
                }
            }
            inputs => {
                if let Some(bare) = inputs.iter().find(|input| input.columns.is_empty()) {
                    let name = bare.name.as_deref().unwrap_or_default();
                    return Err(format!("inputs `{name}` lists no columns, so no table can feed it"));
                }
            }
        }
        let mut seen = BTreeSet::new();
        let names = columns.into_iter().map(|column| &column.name).chain(&self.features).chain(&self.target).chain(&self.group);
        match names.chain(&self.ignore).find(|name| !seen.insert(*name)) {
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

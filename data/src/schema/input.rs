//! One input of a model, and the columns that fill it.

use std::fmt;

use sapwood_models::{Dim, Element, ValueInfo, tensor::numel};
use serde::{Deserialize, Serialize};

use super::rule::{Encode, Kind, Null, Rule};

/// Most values in one example; more is a typing error.
const MAX_EXAMPLE: usize = 1 << 28;
/// What an input without columns has of what only columns have.
const NO_VALUES: &[String] = &[];

/// One input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Name of the model's input; of several inputs each has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Shape of one example, without the batch; `[]` is one number. May be left out where there are columns: then it is a row of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<usize>>,
    /// Type of all its values, where there are no columns.
    #[serde(rename = "type", default)]
    pub kind: Kind,
    /// What its numbers count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Least and greatest value, both allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f64; 2]>,
    /// What becomes of nulls.
    #[serde(default, skip_serializing_if = "is_refused")]
    pub null: Null,
    /// Its features one by one, in order: columns of a table, or places in a row of an array.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<Column>,
}

/// One feature of an input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name: in a table, that of the column.
    pub name: String,
    /// Its type.
    #[serde(rename = "type", default)]
    pub kind: Kind,
    /// Of a category: all its values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// Of a category: how it becomes numbers.
    #[serde(default, skip_serializing_if = "is_index")]
    pub encode: Encode,
    /// What its numbers count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Least and greatest value, both allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f64; 2]>,
    /// What becomes of nulls.
    #[serde(default, skip_serializing_if = "is_refused")]
    pub null: Null,
}

fn is_refused(null: &Null) -> bool {
    *null == Null::Refuse
}

fn is_index(encode: &Encode) -> bool {
    *encode == Encode::Index
}

/// The first value that breaks the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Row of the example, from 0.
    pub row: usize,
    /// Which feature: a column by name, or by its flat index in the example, from 0.
    pub feature: String,
    /// The value, as printed.
    pub value: String,
    /// What it breaks, as the end of a sentence that begins with the value.
    pub rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}, {}: {} {}", self.row, self.feature, self.value, self.rule)
    }
}

impl Column {
    pub(crate) fn rule(&self) -> Rule<'_> {
        let Self { kind, ref values, encode, ref unit, range, ref null, .. } = *self;
        Rule { kind, values, encode, unit: unit.as_deref(), range, null }
    }
}

impl Input {
    /// Shape of one example.
    pub fn shape(&self) -> Vec<usize> {
        self.shape.clone().unwrap_or_else(|| vec![self.columns_width()])
    }

    /// Values in one example.
    pub fn width(&self) -> usize {
        match &self.shape {
            Some(shape) => shape.iter().product(),
            None => self.columns_width(),
        }
    }

    fn columns_width(&self) -> usize {
        self.columns.iter().map(|column| column.rule().width()).sum()
    }

    /// The rule for each of its values, where there are no columns.
    pub(crate) fn rule(&self) -> Rule<'_> {
        let Self { kind, ref unit, range, ref null, .. } = *self;
        Rule { kind, values: NO_VALUES, encode: Encode::Index, unit: unit.as_deref(), range, null }
    }

    /// Whether it contradicts itself; `path` names it.
    pub(super) fn validate(&self, path: &str) -> Result<(), String> {
        let within = |why: String| format!("{path}: {why}");
        if self.kind == Kind::Category {
            return Err(within("a category is a column; list it under `columns`".to_owned()));
        }
        if !self.columns.is_empty()
            && (self.kind != Kind::Float || self.unit.is_some() || self.range.is_some() || self.null != Null::Refuse)
        {
            return Err(within("type, unit, range and null are said of each column, where there are columns".to_owned()));
        }
        self.rule().check().map_err(within)?;
        for column in &self.columns {
            column.rule().check().map_err(|why| within(format!("column `{}`: {why}", column.name)))?;
        }
        let shape = match &self.shape {
            Some(shape) => shape.clone(),
            None if self.columns.is_empty() => return Err(within("it has neither `shape` nor `columns`".to_owned())),
            None => vec![self.columns_width()],
        };
        let Some(width) = numel(&shape).filter(|n| (1..=MAX_EXAMPLE).contains(n)) else {
            return Err(within(format!("shape = {shape:?} must hold 1 to {MAX_EXAMPLE} values")));
        };
        if !self.columns.is_empty() && self.columns_width() != width {
            let columns = self.columns_width();
            return Err(within(format!("shape = {shape:?} holds {width} values, and the columns make {columns}; leave it out")));
        }
        Ok(())
    }

    /// Checks the values of whole examples; `of_several` names the input.
    ///
    /// # Errors
    /// The first that breaks a rule.
    pub fn check(&self, values: &[f32], of_several: Option<&str>) -> Result<(), Violation> {
        let place = |feature: String| of_several.map_or_else(|| feature.clone(), |name| format!("input `{name}`, {feature}"));
        let violation = |row: usize, feature: String, value: f32, rule: String| Violation {
            row,
            feature: place(feature),
            value: value.to_string(),
            rule,
        };
        let width = self.width().max(1);
        if self.columns.is_empty() {
            let broken = self.rule().row(values);
            return broken.map_err(|(at, rule)| violation(at / width, format!("column {}", at % width), values[at], rule));
        }
        for (row, mut values) in values.chunks_exact(width).enumerate() {
            for column in &self.columns {
                let rule = column.rule();
                let (own, rest) = values.split_at(rule.width());
                rule.row(own).map_err(|(at, broken)| violation(row, format!("column `{}`", column.name), own[at], broken))?;
                values = rest;
            }
        }
        Ok(())
    }

    /// Whether any null is filled.
    pub(super) fn fills(&self) -> bool {
        self.rule().fills() || self.columns.iter().any(|column| column.rule().fills())
    }

    /// Fills the nulls of whole examples.
    pub(super) fn fill(&self, values: &mut [f32]) {
        if self.columns.is_empty() {
            let rule = self.rule();
            return values.iter_mut().for_each(|value| rule.fill(std::slice::from_mut(value)));
        }
        for mut values in values.chunks_exact_mut(self.width().max(1)) {
            for column in &self.columns {
                let rule = column.rule();
                let (own, rest) = values.split_at_mut(rule.width());
                rule.fill(own);
                values = rest;
            }
        }
    }

    /// Why not all that passes could be read by a model's input, if so.
    pub(super) fn misfit(&self, input: &ValueInfo) -> Option<String> {
        let shape = self.shape();
        let extent = |(dim, have): (&Dim, &usize)| !matches!(dim, Dim::Fixed(n) if n != have);
        if input.shape.len() != shape.len() + 1 || !input.shape.iter().skip(1).zip(&shape).all(extent) {
            let dims: Vec<String> =
                input.shape.iter().skip(1).map(|dim| if let Dim::Fixed(n) = dim { n.to_string() } else { "?".to_owned() }).collect();
            return Some(format!("the schema's examples have shape {shape:?}, the model reads [{}]", dims.join(", ")));
        }
        let (low, high) = match input.element {
            Element::I64 | Element::I32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
            Element::U8 => (0, 255),
            Element::I8 => (-128, 127),
            Element::Bool => (0, 1),
            Element::F32 | Element::F64 => return None,
            other => return Some(format!("the model reads {other:?}, which no data feeds")),
        };
        let one_hot = |column: &Column| column.rule().width() > 1;
        let within = |column: &Column| one_hot(column) || column.rule().is_within(low, high);
        let fits = if self.columns.is_empty() { self.rule().is_within(low, high) } else { self.columns.iter().all(within) };
        let range = if low < i64::from(i16::MIN) { String::new() } else { format!(" and a range within [{low}, {high}]") };
        (!fits).then(|| format!("the model reads {:?}; the schema must say type = \"integer\"{range}", input.element))
    }
}

//! What one value may be: its type, its range, what becomes of a null.

use serde::{Deserialize, Serialize};

use crate::nearest;

/// Above this, whole numbers next to each other are the same 32-bit float.
const EXACT: f64 = 16_777_216.0;

/// Of which type a feature is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Any finite number.
    #[default]
    Float,
    /// A whole number, to 2^24 either way: beyond, 32-bit floats skip some.
    Integer,
    /// One of the texts in `values`; in tables only.
    Category,
}

/// How a category becomes numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encode {
    /// Its place among the values, from 0: for embeddings, and for `one-hot` graphs in front of a model.
    #[default]
    Index,
    /// As many numbers as there are values, of which one is 1 and the others 0.
    OneHot,
}

/// What becomes of a null: an empty cell of a table, NaN in an array.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawNull", into = "RawNull")]
pub enum Null {
    /// The data is refused.
    #[default]
    Refuse,
    /// This value is put in its place, on every node the same.
    Fill(Filler),
    /// As a fill; says that the number is the mean of public data.
    Mean(f64),
}

/// What stands in for a null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Filler {
    /// Of a number.
    Number(f64),
    /// Of a category: one of its values.
    Text(String),
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields, expecting = "expected null = \"refuse\", { fill = VALUE } or { mean = NUMBER }")]
enum RawNull {
    Word(String),
    Fill { fill: Filler },
    Mean { mean: f64 },
}

impl TryFrom<RawNull> for Null {
    type Error = String;

    fn try_from(raw: RawNull) -> Result<Self, String> {
        match raw {
            RawNull::Fill { fill } => Ok(Self::Fill(fill)),
            RawNull::Mean { mean } => Ok(Self::Mean(mean)),
            RawNull::Word(word) if word == "refuse" => Ok(Self::Refuse),
            // Each node has another mean, and what serves has none.
            RawNull::Word(word) if word == "mean" => {
                Err("null = \"mean\" has no number; write it out, as in null = { mean = 37.2 }".to_owned())
            }
            RawNull::Word(word) => Err(format!("null = {word:?} is not \"refuse\", {{ fill = VALUE }} or {{ mean = NUMBER }}")),
        }
    }
}

impl From<Null> for RawNull {
    fn from(null: Null) -> Self {
        match null {
            Null::Refuse => Self::Word("refuse".to_owned()),
            Null::Fill(fill) => Self::Fill { fill },
            Null::Mean(mean) => Self::Mean { mean },
        }
    }
}

/// The rule for each value of an input, or of one column.
#[derive(Clone, Copy)]
pub(crate) struct Rule<'a> {
    pub(super) kind: Kind,
    pub(super) values: &'a [String],
    pub(super) encode: Encode,
    pub(super) unit: Option<&'a str>,
    pub(super) range: Option<[f64; 2]>,
    pub(super) null: &'a Null,
}

impl Rule<'_> {
    /// Numbers of a row that it takes.
    pub(crate) fn width(&self) -> usize {
        if self.is_one_hot() { self.values.len() } else { 1 }
    }

    fn is_one_hot(&self) -> bool {
        self.kind == Kind::Category && self.encode == Encode::OneHot
    }

    /// Whether it contradicts itself.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some([low, high]) = self.range
            && !(low.is_finite() && high.is_finite() && low < high)
        {
            return Err(format!("range = [{low}, {high}] must be finite and ascending"));
        }
        if self.kind == Kind::Category {
            if self.range.is_some() {
                return Err("a category has values and no range".to_owned());
            }
            if self.values.len() < 2 {
                return Err("a category needs two `values` at least".to_owned());
            }
            let twice = self.values.iter().enumerate().find(|(at, value)| self.values[..*at].contains(value));
            if let Some((_, value)) = twice {
                return Err(format!("values has {value:?} twice"));
            }
        } else if !self.values.is_empty() || self.encode != Encode::default() {
            return Err("`values` and `encode` are for type = \"category\"".to_owned());
        }
        match self.filler() {
            None => Ok(()),
            Some(Err(why)) => Err(why),
            Some(Ok(value)) => self.number(value).map_err(|why| format!("null is filled with {value}, which {why}")),
        }
    }

    /// The number in the place of a null: an index, of a category.
    fn filler(&self) -> Option<Result<f32, String>> {
        let filler = match self.null {
            Null::Refuse => return None,
            Null::Fill(filler) => filler,
            Null::Mean(mean) => &Filler::Number(*mean),
        };
        Some(match (self.kind, filler) {
            (Kind::Category, Filler::Text(text)) => self.index(text).map_err(|why| format!("null is filled with {why}")),
            (Kind::Category, Filler::Number(number)) => Err(format!("null is filled with {number}, and a category has texts")),
            (_, Filler::Number(number)) => Ok(*number as f32),
            (_, Filler::Text(text)) => Err(format!("null is filled with {text:?}, which is no number")),
        })
    }

    /// What stands in for a null, if nulls are not refused.
    fn fill_in(&self) -> Option<f32> {
        self.filler()?.ok()
    }

    /// Whether nulls are filled.
    pub(crate) fn fills(&self) -> bool {
        *self.null != Null::Refuse
    }

    /// Reads a cell of a table onto the end of a row; `null` says that the text stands for no value.
    pub(crate) fn read(&self, text: &str, null: bool, row: &mut Vec<f32>) -> Result<(), String> {
        let value = match null {
            true => self.fill_in().ok_or_else(|| match text {
                "" => "it is empty; fill it in or leave the row out".to_owned(),
                mark => format!("`{mark}` is null, which the schema refuses"),
            })?,
            false if self.kind == Kind::Category => self.index(text)?,
            false => {
                // In double precision, so that no digit of a whole number is lost before it is looked at.
                let number: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
                if number.is_nan() {
                    return self.read(text, true, row);
                }
                let value = number as f32;
                match self.kind == Kind::Integer && number.abs() > EXACT {
                    true => Err(beyond()),
                    false => self.number(value),
                }
                .map_err(|why| format!("`{text}` {why}"))?;
                value
            }
        };
        if self.is_one_hot() {
            let first = row.len();
            row.resize(first + self.values.len(), 0.0);
            row[first + value as usize] = 1.0;
        } else {
            row.push(value);
        }
        Ok(())
    }

    fn index(&self, text: &str) -> Result<f32, String> {
        let found = self.values.iter().position(|value| value == text);
        found.map(|index| index as f32).ok_or_else(|| {
            let near = nearest::hint(text, self.values.iter().map(String::as_str));
            format!("`{text}`, which is none of the {} values in the schema{near}", self.values.len())
        })
    }

    /// Puts what the schema says in the place of each NaN, row by row of [`Rule::width`].
    pub(super) fn fill(&self, values: &mut [f32]) {
        let Some(filler) = self.fill_in() else { return };
        if !values.iter().any(|value| value.is_nan()) {
            return;
        }
        if self.is_one_hot() {
            values.fill(0.0);
            values[filler as usize] = 1.0;
        } else {
            values.fill(filler);
        }
    }

    /// Checks the numbers of one row; on a refusal, which of them, and what it breaks.
    pub(super) fn row(&self, values: &[f32]) -> Result<(), (usize, String)> {
        if !self.is_one_hot() {
            return values.iter().enumerate().try_for_each(|(at, value)| self.number(*value).map_err(|why| (at, why)));
        }
        let code = |at: usize, why: &str| Err((at, format!("{why}: a category of {} values is one 1 and 0 elsewhere", self.values.len())));
        if let Some(at) = values.iter().position(|value| *value != 0.0 && *value != 1.0) {
            return code(at, "is neither 0 nor 1");
        }
        let mut ones = values.iter().enumerate().filter(|(_, value)| **value == 1.0);
        match (ones.next(), ones.next()) {
            (Some(_), None) => Ok(()),
            (None, _) => code(0, "is 0 like all others"),
            (_, Some((at, _))) => code(at, "is the second 1"),
        }
    }

    /// What the number breaks, as the end of a sentence that begins with it.
    fn number(&self, value: f32) -> Result<(), String> {
        if value.is_nan() {
            return Err(self.fill_in().map_or_else(
                || "is null, which the schema refuses".to_owned(),
                |fill| format!("is null; the schema has {fill} in its place"),
            ));
        }
        if !value.is_finite() {
            return Err("is not a finite number".to_owned());
        }
        let whole = value.fract() == 0.0;
        match self.kind {
            Kind::Category if !whole || !(0.0..self.values.len() as f32).contains(&value) => {
                return Err(format!("is no index of the {} values in the schema", self.values.len()));
            }
            Kind::Integer if !whole => return Err("is no whole number, and the type in the schema is integer".to_owned()),
            Kind::Integer if f64::from(value.abs()) > EXACT => return Err(beyond()),
            _ => {}
        }
        match self.range {
            // What is written with a few digits is the float next to it on both sides.
            Some([low, high]) if !(low as f32..=high as f32).contains(&value) => {
                let unit = self.unit.map_or_else(String::new, |unit| format!(" {unit}"));
                Err(format!("is outside {low}..={high}{unit}, the range in the schema"))
            }
            _ => Ok(()),
        }
    }

    /// Whether every number that passes is a whole one from `low` to `high`.
    pub(super) fn is_within(&self, low: i64, high: i64) -> bool {
        let [least, most] = match self.kind {
            Kind::Float => return false,
            Kind::Category => [0.0, (self.values.len() - 1) as f64],
            Kind::Integer => self.range.unwrap_or([-EXACT, EXACT]),
        };
        (low as f64) <= least && most <= (high as f64)
    }
}

fn beyond() -> String {
    format!("is beyond {EXACT}, where 32-bit floats skip whole numbers")
}

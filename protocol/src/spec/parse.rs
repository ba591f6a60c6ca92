//! From text to a checked [`Spec`].

use std::time::Duration;

use toml::{Table, Value};

use super::{Gates, PostprocessKind, PostprocessSpec, Spec, Weights};
use crate::fault::{Fault, Misuse};

impl Spec {
    /// Reads a `run.toml` and checks it.
    ///
    /// # Errors
    /// [`Misuse::Setting`] with the path of the key that is unknown (and the nearest valid one), missing, of the wrong type,
    /// out of range, or beyond this version.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let table: Table = text.parse().map_err(|e: toml::de::Error| setting("run.toml", e.to_string().trim_end()))?;
        refuse_unknown("", &table, &known())?;
        require(&table)?;
        let given = ["cohort.minimum", "privacy.clip", "strategy.weights"].map(|key| at(&table, key).is_some());
        let mut spec: Self = serde_path_to_error::deserialize(Value::Table(table))
            .map_err(|e| setting(&e.path().to_string(), e.inner().to_string().trim_end()))?;
        let [minimum, clip, weights] = given;
        spec.fill(minimum, clip, weights);
        spec.validate()?;
        Ok(spec)
    }
}

pub(super) fn setting(key: &str, why: impl Into<String>) -> Fault {
    Misuse::Setting { key: key.to_owned(), why: why.into() }.into()
}

/// What must be written out, and why.
fn require(table: &Table) -> Result<(), Fault> {
    let text = |key| at(table, key).and_then(Value::as_str);
    if text("model.file").is_none_or(str::is_empty) {
        return Err(setting("model.file", "missing; name the ONNX file to train"));
    }
    Ok(())
}

impl Spec {
    /// Defaults that follow from what was written, each unless it was written itself.
    fn fill(&mut self, minimum: bool, clip: bool, weights: bool) {
        if !minimum {
            self.cohort.minimum = if self.is_secure() || self.is_private() { self.survivors() } else { self.cohort.size };
        }
        // Without noise a clip norm is there to bound the grid, with noise it decides how much of it there is.
        if !clip && !self.is_private() {
            self.privacy.clip = 10.0;
        }
        if !weights && self.is_private() {
            self.strategy.weights = Weights::Uniform;
        }
    }
}

fn at<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    let (section, key) = path.split_once('.')?;
    table.get(section)?.as_table()?.get(key)
}

/// Names the first key that nobody reads, and the nearest one that somebody does.
fn refuse_unknown(path: &str, table: &Table, known: &Table) -> Result<(), Fault> {
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (known.get(key), value) {
            (Some(Value::Table(known)), Value::Table(table)) => refuse_unknown(&path, table, known)?,
            (Some(Value::Table(_)), _) => return Err(setting(&path, "a section is expected here, such as [model]")),
            (Some(_), _) => {}
            (None, _) => {
                let nearest = known.keys().max_by(|a, b| similarity(a, key).total_cmp(&similarity(b, key)));
                let all = known.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                let why = match nearest.filter(|nearest| similarity(nearest, key) > 0.7) {
                    Some(nearest) => format!("no such key; did you mean `{nearest}`? (known here: {all})"),
                    None => format!("no such key (known here: {all})"),
                };
                return Err(setting(&path, why));
            }
        }
    }
    Ok(())
}

/// From 0 to 1. A key that holds the other one, as `local_epochs` holds `epochs`, is near.
fn similarity(known: &str, key: &str) -> f64 {
    let part = key.len() > 2 && (known.contains(key) || key.contains(known));
    strsim::jaro_winkler(known, key).max(if part { 0.9 } else { 0.0 })
}

/// Every key that may be written: those of a spec with all its optional values.
fn known() -> Table {
    let mut spec = Spec::default();
    let text = || Some(String::new());
    spec.model.preprocess = text();
    spec.data.source = text();
    spec.data.schema = text();
    spec.evaluate.data = text();
    spec.release.calibration = text();
    spec.release.postprocess =
        PostprocessSpec { kind: Some(PostprocessKind::None), labels: Vec::new(), threshold: Some(0.0), below: text() };
    spec.secure_aggregation.bits = Some(0);
    spec.privacy.clip_quantile = Some(0.0);
    spec.privacy.expected_units = Some(0.0);
    spec.privacy.entity_key = text();
    spec.privacy.spare_rounds = Some(0);
    spec.release.gates = Gates {
        min_accuracy: Some(0.0),
        max_int8_drop: Some(0.0),
        max_bytes: Some(0),
        max_p99: Some(Duration::ZERO),
        max_cold_start: Some(Duration::ZERO),
    };
    Table::try_from(&spec).expect("a spec is a table of plain values")
}

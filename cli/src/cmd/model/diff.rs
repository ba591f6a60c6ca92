//! `model diff`.

use sapwood_models::{
    Dataset, Model, Tensor,
    diff::{Difference, Distance, Stored, diff as compare, distance},
    metrics::argmax,
};
use serde_json::{Value, json};

use super::{DiffArgs, Engine, answers::Answers, files::read_data, read_model};
use crate::output::{Answer, Failure, table};

/// Tensors that a person is shown, those that differ most.
const SHOWN: usize = 20;

pub(super) fn diff(args: &DiffArgs) -> Result<Answer, Failure> {
    let (first, second) = (read_model(&args.first)?, read_model(&args.second)?);
    let found = compare(&first, &second);
    let answers = match &args.data {
        Some(data) => {
            let Dataset { x, .. } = read_data(data, args.schema.as_deref(), args.preprocess.as_deref())?;
            let all = |model: &Model, engine: Engine| Answers::new(model, engine)?.all(&x);
            Some(Apart::of(&all(&first, args.runtime)?, &all(&second, args.runtime)?)?)
        }
        None => None,
    };
    let changed = |(node, what): &(String, String)| json!({"node": node, "what": what});
    let exchanged = |(before, after): &(Stored, Stored)| json!({"name": after.name, "before": stored(before), "after": stored(after)});
    let mut data = json!({
        "same": found.is_same(),
        "signature": found.signature,
        "nodes": {
            "added": found.added_nodes,
            "removed": found.removed_nodes,
            "changed": found.changed_nodes.iter().map(changed).collect::<Vec<_>>(),
        },
        "parameters": {
            "added": found.added.iter().map(stored).collect::<Vec<_>>(),
            "removed": found.removed.iter().map(stored).collect::<Vec<_>>(),
            "changed": found.changed.iter().map(exchanged).collect::<Vec<_>>(),
            "common": found.common.iter().map(apart).collect::<Vec<_>>(),
        },
        "largest_difference": number(found.total.largest),
        "relative_difference": number(found.total.relative),
    });
    let mut text = told(&found);
    if let Some(answers) = answers {
        data["answers"] = answers.json();
        text.push(answers.text());
    }
    Ok(Answer::new(data, text.join("\n")))
}

/// How far the answers of two models are apart.
struct Apart {
    examples: usize,
    distance: Distance,
    /// Share of the examples with the same largest answer, where there are several to choose from.
    agreement: Option<f64>,
}

impl Apart {
    fn of(first: &Tensor, second: &Tensor) -> Result<Self, Failure> {
        if first.shape != second.shape {
            let (first, second) = (first.shape.get(1..), second.shape.get(1..));
            return Err(Failure::usage(format!("the answers have different shapes: {first:?} and {second:?} for each example")));
        }
        let (Some(a), Some(b)) = (first.as_f32(), second.as_f32()) else {
            return Err(Failure::usage("a model's first output is not float32"));
        };
        let (examples, width) = (first.rows(), first.row_len());
        let same = || a.chunks(width).zip(b.chunks(width)).filter(|(a, b)| argmax(a).is_some_and(|best| argmax(b) == Some(best))).count();
        let agreement = (width > 1 && examples > 0).then(|| same() as f64 / examples as f64);
        Ok(Self { examples, distance: distance(a, b), agreement })
    }

    fn json(&self) -> Value {
        json!({
            "examples": self.examples,
            "largest_difference": number(self.distance.largest),
            "relative_difference": number(self.distance.relative),
            "agreement": self.agreement,
        })
    }

    fn text(&self) -> String {
        let agreement =
            self.agreement.map_or_else(String::new, |share| format!("; the largest answer is the same for {:.2} %", 100.0 * share));
        let Distance { largest, relative, .. } = self.distance;
        format!("answers to {} examples differ by up to {largest:.3e}, relative {relative:.3e}{agreement}", self.examples)
    }
}

fn told(found: &Difference) -> Vec<String> {
    let mut rows = Vec::new();
    let mut row = |what: &str, name: &str, how: String| rows.push(vec![what.to_owned(), name.to_owned(), how]);
    for how in &found.signature {
        row("model", "", how.clone());
    }
    for (what, list) in [("node added", &found.added_nodes), ("node removed", &found.removed_nodes)] {
        list.iter().for_each(|name| row(what, name, String::new()));
    }
    found.changed_nodes.iter().for_each(|(name, how)| row("node changed", name, how.clone()));
    for (what, list) in [("tensor added", &found.added), ("tensor removed", &found.removed)] {
        list.iter().for_each(|held| row(what, &held.name, shape(held)));
    }
    for (before, after) in &found.changed {
        row("tensor changed", &after.name, format!("{}, then {}", shape(before), shape(after)));
    }
    let mut differing: Vec<&Distance> = found.common.iter().filter(|d| d.largest != 0.0).collect();
    // NaN first.
    differing.sort_by(|a, b| b.relative.total_cmp(&a.relative));
    let mut text = Vec::new();
    if !rows.is_empty() {
        text.push(table(&["what", "name", "how"], &rows));
    }
    if !differing.is_empty() {
        let line = |d: &&Distance| vec![d.name.clone(), format!("{:.3e}", d.largest), format!("{:.3e}", d.relative)];
        let rows: Vec<_> = differing.iter().take(SHOWN).map(line).collect();
        text.push(table(&["tensor", "largest difference", "relative difference"], &rows));
        if differing.len() > SHOWN {
            text.push(format!("and {} more", differing.len() - SHOWN));
        }
    }
    let Distance { largest, relative, .. } = found.total;
    let (common, differing) = (found.common.len(), differing.len());
    text.push(if found.is_same() {
        format!("the same: every node, and all {common} tensors to the bit")
    } else if differing == 0 {
        format!("different; the {common} tensors of both are the same")
    } else {
        format!("different; {differing} of the {common} tensors of both differ, by up to {largest:.3e}, relative {relative:.3e} together")
    });
    text
}

fn stored(held: &Stored) -> Value {
    json!({"name": held.name, "element": format!("{:?}", held.element), "shape": held.shape})
}

fn shape(held: &Stored) -> String {
    format!("{:?}{:?}", held.element, held.shape)
}

fn apart(distance: &Distance) -> Value {
    json!({"name": distance.name, "largest_difference": number(distance.largest), "relative_difference": number(distance.relative)})
}

/// JSON has neither NaN nor infinity: these are texts.
fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { json!(value.to_string()) }
}

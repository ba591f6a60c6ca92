//! `model inspect`.

use sapwood_models::{Cost, Dim, Element, NodeCost, ValueInfo, cost, inspect as inspect_model};
use serde_json::{Value, json};

use super::{InspectArgs, read_model};
use crate::output::{Answer, Failure, OrFail as _, bytes, table};

/// Nodes that are shown unless all are asked for.
const SHOWN: usize = 40;

pub(super) fn inspect(args: &InspectArgs) -> Result<Answer, Failure> {
    let model = read_model(&args.file)?;
    let found = inspect_model(&model);
    let cost = cost(&model, &args.axes.iter().cloned().collect()).or_usage()?;
    let named = |list: &[sapwood_models::interpreter::Unsupported]| -> Vec<Value> {
        list.iter().map(|u| json!({"node": u.node, "op": u.op, "reason": u.reason})).collect()
    };
    let data = json!({
        "parameters": found.parameters,
        "trainable": found.trainable,
        "inputs": found.inputs.iter().map(value).collect::<Vec<_>>(),
        "outputs": found.outputs.iter().map(value).collect::<Vec<_>>(),
        "operators": found.operators,
        "untrainable": named(&found.untrainable),
        "warnings": found.warnings,
        "examples": cost.examples,
        "flops": cost.flops,
        "parameter_bytes": 4 * found.parameters,
        "stored_bytes": cost.stored_bytes,
        "peak_bytes": cost.peak_bytes,
        "training_bytes": cost.training_bytes,
        "unknown_axes": cost.axes,
        "unknown": named(&cost.unknown),
        "nodes": cost.nodes.iter().map(node).collect::<Vec<_>>(),
    });
    let mut rows = Vec::new();
    for (what, values) in [("input", &found.inputs), ("output", &found.outputs)] {
        rows.extend(values.iter().map(|v| vec![what.to_owned(), v.name.clone(), shape(v)]));
    }
    rows.extend(found.operators.iter().map(|(op, count)| vec!["operator".to_owned(), op.clone(), count.to_string()]));
    rows.extend(found.untrainable.iter().map(|u| vec!["untrainable".to_owned(), format!("{} ({})", u.node, u.op), u.reason.clone()]));
    rows.extend(cost.unknown.iter().map(|u| vec!["not counted".to_owned(), format!("{} ({})", u.node, u.op), u.reason.clone()]));
    let mut text = vec![summary(found.parameters, found.trainable, &cost), table(&["what", "name", "value"], &rows), String::new()];
    text.push(nodes(&cost, args.nodes));
    text.extend(found.warnings.iter().map(|warning| format!("warning: {warning}")));
    if let [first, ..] = cost.axes.as_slice() {
        let axes = cost.axes.join(", ");
        text.push(format!("operations and memory are not known: give extents to {axes}, as in --axis {first}=128"));
    }
    Ok(Answer::new(data, text.join("\n")))
}

fn summary(parameters: usize, trainable: usize, cost: &Cost) -> String {
    let of = if cost.examples > 1 { format!("{} examples", cost.examples) } else { "one example".to_owned() };
    let memory = |found: Option<usize>| found.map_or_else(|| "unknown".to_owned(), |n| bytes(n as u64));
    [
        format!(
            "{parameters} parameters ({}), {trainable} trainable; {} in the file",
            memory(Some(4 * parameters)),
            memory(Some(cost.stored_bytes))
        ),
        format!(
            "{of}: {} floating-point operations, a multiply and an add being two",
            cost.flops.map_or_else(|| "an unknown number of".to_owned(), count)
        ),
        format!(
            "{of}: {} of activations at once in inference, {} kept by a training step",
            memory(cost.peak_bytes),
            memory(cost.training_bytes)
        ),
    ]
    .join("\n")
}

/// The nodes that compute something for each example.
fn nodes(cost: &Cost, all: bool) -> String {
    let computing = |n: &&NodeCost| all || n.flops != Some(0) || n.parameters > 0;
    let rows: Vec<Vec<String>> = cost.nodes.iter().filter(computing).map(row).collect();
    let heads = ["node", "operator", "output", "parameters", "operations", "trained", "INT8"];
    let (shown, more) = if all || rows.len() <= SHOWN { (&rows[..], 0) } else { (&rows[..SHOWN], rows.len() - SHOWN) };
    let still = cost.nodes.len() - rows.len();
    let rest = match (more, still) {
        (0, 0) => String::new(),
        (0, still) => format!("\nand {still} nodes without parameters that only move values or are computed once; --nodes shows them"),
        (more, still) => format!("\nand {more} nodes like these, and {still} that only move values; --nodes shows all"),
    };
    format!("{}{rest}", table(&heads, shown))
}

fn row(node: &NodeCost) -> Vec<String> {
    let name = node.node.strip_prefix("node `").and_then(|name| name.strip_suffix('`')).unwrap_or(&node.node);
    let output = node.outputs.first().cloned().flatten().map_or_else(|| "?".to_owned(), |(element, shape)| format!("{element:?}{shape:?}"));
    let some = |n: usize| if n == 0 { String::new() } else { n.to_string() };
    let trained = match node.trained {
        0 => "",
        n if n == node.parameters => "yes",
        _ => "partly",
    };
    let quantized = match node.quantized {
        Some(true) => "yes",
        Some(false) => "no",
        None => "",
    };
    vec![
        name.to_owned(),
        node.op.clone(),
        output,
        some(node.parameters),
        node.flops.map_or_else(|| "?".to_owned(), count),
        trained.to_owned(),
        quantized.to_owned(),
    ]
}

fn node(node: &NodeCost) -> Value {
    let output = |seen: &Option<(Element, Vec<usize>)>| {
        seen.as_ref().map(|(element, shape)| json!({"element": format!("{element:?}"), "shape": shape}))
    };
    json!({
        "node": node.node,
        "op": node.op,
        "outputs": node.outputs.iter().map(output).collect::<Vec<_>>(),
        "parameters": node.parameters,
        "trained": node.trained,
        "flops": node.flops,
        "quantized": node.quantized,
    })
}

/// A number for people.
fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..10_000_000 => format!("{:.1} k", n as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.1} G", n as f64 / 1e9),
    }
}

fn value(v: &ValueInfo) -> Value {
    json!({"name": v.name, "element": format!("{:?}", v.element), "shape": v.shape.iter().map(dim).collect::<Vec<_>>()})
}

fn shape(v: &ValueInfo) -> String {
    let dims: Vec<String> = v.shape.iter().map(|d| dim(d).to_string().replace('"', "")).collect();
    format!("{:?}[{}]", v.element, dims.join(", "))
}

fn dim(dim: &Dim) -> Value {
    match dim {
        Dim::Fixed(n) => json!(n),
        Dim::Symbol(name) => json!(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_well() {
        assert_eq!([9_999, 10_000, 12_345_678, 20_000_000_000].map(count), ["9999", "10.0 k", "12.3 M", "20.0 G"]);
    }
}

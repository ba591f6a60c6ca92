//! Helpers to rewrite graphs: who reads a value, and reading another one instead.

use std::collections::{HashMap, HashSet};

use super::pb::{GraphProto, NodeProto};

/// How many times each value is read: by nodes, by graphs in their attributes, and as a
/// graph output.
pub(crate) fn readers(graph: &GraphProto) -> HashMap<String, usize> {
    let mut count = HashMap::new();
    read_by(graph, &mut count);
    count
}

fn read_by(graph: &GraphProto, count: &mut HashMap<String, usize>) {
    for output in &graph.output {
        *count.entry(output.name().to_owned()).or_default() += 1;
    }
    for node in &graph.node {
        for input in node.input.iter().filter(|i| !i.is_empty()) {
            *count.entry(input.clone()).or_default() += 1;
        }
        for attribute in &node.attribute {
            for inner in attribute.g.iter().chain(&attribute.graphs) {
                read_by(inner, count);
            }
        }
    }
}

/// Makes a node and the graphs in its attributes read other values: by name, what is read instead.
pub(crate) fn replace_inputs(node: &mut NodeProto, instead: &HashMap<String, String>) {
    for input in &mut node.input {
        if let Some(new) = instead.get(input) {
            input.clone_from(new);
        }
    }
    for inner in node.attribute.iter_mut().flat_map(|a| a.g.iter_mut().chain(&mut a.graphs)) {
        inner.node.iter_mut().for_each(|n| replace_inputs(n, instead));
        // A graph may hand on what it did not make.
        for output in &mut inner.output {
            if let Some(new) = instead.get(output.name()) {
                output.name = Some(new.clone());
            }
        }
    }
}

/// Every value name of a graph and of the graphs in its attributes.
pub(crate) fn names(graph: &GraphProto) -> HashSet<String> {
    let mut found: HashSet<String> = graph
        .input
        .iter()
        .map(|v| v.name())
        .chain(graph.initializer.iter().map(|t| t.name()))
        .chain(graph.node.iter().flat_map(|n| n.output.iter().map(String::as_str)))
        .map(str::to_owned)
        .collect();
    for attribute in graph.node.iter().flat_map(|n| &n.attribute) {
        for inner in attribute.g.iter().chain(&attribute.graphs) {
            found.extend(names(inner));
        }
    }
    found
}

/// `name`, with underscores until it is free; it is taken from then on.
pub(crate) fn fresh(name: String, taken: &mut HashSet<String>) -> String {
    let mut new = name;
    while !taken.insert(new.clone()) {
        new.push('_');
    }
    new
}

/// Removes initializers that nothing reads, and descriptions of values that are gone.
pub(crate) fn sweep(graph: &mut GraphProto) {
    let read = readers(graph);
    graph.initializer.retain(|t| read.contains_key(t.name()));
    let exist = names(graph);
    graph.value_info.retain(|v| exist.contains(v.name()));
}

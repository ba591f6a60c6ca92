//! Checks of a decoded model: versions, domains, tensors, single assignment and order.

use std::collections::{HashMap, HashSet};

use super::pb::{AttributeProto, GraphProto, ModelProto, NodeProto};
use super::{NEWEST_OPSET, OLDEST_OPSET, is_standard, label, opset_of, values};
use crate::ModelError;

/// Nesting allowed in models built in memory; files meet [`super::Limits::depth`] first.
const MAX_DEPTH: usize = 32;

pub(super) fn model(proto: &ModelProto) -> Result<(), ModelError> {
    let (oldest, newest) = (OLDEST_OPSET, NEWEST_OPSET);
    let found = opset_of(proto).ok_or(ModelError::MissingOpset { oldest, newest })?;
    if !(oldest..=newest).contains(&found) {
        return Err(ModelError::Opset { found, oldest, newest });
    }
    let graph_proto = proto.graph.as_ref().ok_or(ModelError::MissingGraph)?;
    if graph_proto.output.is_empty() {
        return Err(ModelError::MissingGraph);
    }
    let imported: HashSet<&str> = proto.opset_import.iter().map(|o| o.domain()).collect();
    for function in &proto.functions {
        domain(&imported, function.domain(), || format!("function `{}`", function.name()))?;
        for node in &function.node {
            for attribute in &node.attribute {
                attribute_values(&imported, attribute, &Scope::default(), 1)?;
            }
        }
    }
    for training in &proto.training_info {
        for part in training.initialization.iter().chain(&training.algorithm) {
            graph(&imported, part, &Scope::default(), 1)?;
        }
    }
    graph(&imported, graph_proto, &Scope::default(), 1)
}

/// Names visible to a subgraph from the graphs around it.
#[derive(Default)]
struct Scope<'a> {
    outer: Option<&'a Self>,
    names: HashSet<&'a str>,
}

impl Scope<'_> {
    fn sees(&self, name: &str) -> bool {
        self.names.contains(name) || self.outer.is_some_and(|outer| outer.sees(name))
    }
}

fn graph<'a>(imported: &HashSet<&str>, graph: &'a GraphProto, outer: &'a Scope<'a>, depth: usize) -> Result<(), ModelError> {
    if depth > MAX_DEPTH {
        return Err(ModelError::TooDeep { limit: MAX_DEPTH });
    }
    let mut scope = Scope { outer: Some(outer), names: HashSet::new() };
    inputs(graph, &mut scope)?;
    let makers = makers(graph, &scope)?;
    for (index, node) in graph.node.iter().enumerate() {
        domain(imported, node.domain(), || label(node))?;
        for input in node.input.iter().filter(|name| !name.is_empty()) {
            if scope.sees(input) {
                continue;
            }
            return Err(match makers.get(input.as_str()) {
                Some(maker) if *maker >= index => ModelError::Unordered { node: label(node), value: input.clone() },
                _ => ModelError::UndefinedValue { value: input.clone(), reader: label(node) },
            });
        }
        attributes(imported, node, &scope, depth)?;
        scope.names.extend(node.output.iter().filter(|o| !o.is_empty()).map(String::as_str));
    }
    for output in &graph.output {
        if !scope.sees(output.name()) {
            return Err(ModelError::UndefinedValue { value: output.name().to_owned(), reader: "the graph's output".into() });
        }
    }
    Ok(())
}

/// Enters inputs and initializers; an initializer may give a default to an input.
fn inputs<'a>(graph: &'a GraphProto, scope: &mut Scope<'a>) -> Result<(), ModelError> {
    for input in &graph.input {
        unique(scope, input.name(), "a graph input")?;
    }
    let declared = scope.names.clone();
    let mut initialized = HashSet::new();
    let dense = graph.initializer.iter();
    let sparse = graph.sparse_initializer.iter().filter_map(|s| s.values.as_ref());
    for tensor in dense.chain(sparse) {
        values::check(tensor)?;
        if tensor.name().is_empty() {
            return Err(ModelError::BadTensor { tensor: String::new(), reason: "an initializer has no name".into() });
        }
        let twice = !initialized.insert(tensor.name());
        if twice || !declared.contains(tensor.name()) {
            unique(scope, tensor.name(), "an initializer")?;
        }
    }
    for indices in graph.sparse_initializer.iter().filter_map(|s| s.indices.as_ref()) {
        values::check(indices)?;
    }
    Ok(())
}

/// Index of the node that makes each value; refuses values that are made twice.
fn makers<'a>(graph: &'a GraphProto, scope: &Scope<'_>) -> Result<HashMap<&'a str, usize>, ModelError> {
    let mut makers = HashMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        for output in node.output.iter().filter(|o| !o.is_empty()) {
            let known = scope.sees(output) || makers.insert(output.as_str(), index).is_some();
            if known {
                return Err(ModelError::DuplicateValue { value: output.clone(), by: label(node) });
            }
        }
    }
    Ok(makers)
}

fn unique<'a>(scope: &mut Scope<'a>, name: &'a str, by: &str) -> Result<(), ModelError> {
    if !scope.names.insert(name) {
        return Err(ModelError::DuplicateValue { value: name.to_owned(), by: by.to_owned() });
    }
    Ok(())
}

fn attributes(imported: &HashSet<&str>, node: &NodeProto, scope: &Scope<'_>, depth: usize) -> Result<(), ModelError> {
    let mut names = HashSet::new();
    for attribute in &node.attribute {
        if !names.insert(attribute.name()) {
            return Err(ModelError::BadNode { node: label(node), reason: format!("attribute `{}` stands twice", attribute.name()) });
        }
        attribute_values(imported, attribute, scope, depth)?;
    }
    Ok(())
}

fn attribute_values(imported: &HashSet<&str>, attribute: &AttributeProto, scope: &Scope<'_>, depth: usize) -> Result<(), ModelError> {
    for tensor in attribute.t.iter().chain(&attribute.tensors) {
        values::check(tensor)?;
    }
    for sparse in attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors) {
        for tensor in sparse.values.iter().chain(&sparse.indices) {
            values::check(tensor)?;
        }
    }
    for inner in attribute.g.iter().chain(&attribute.graphs) {
        graph(imported, inner, scope, depth + 1)?;
    }
    Ok(())
}

fn domain(imported: &HashSet<&str>, domain: &str, item: impl FnOnce() -> String) -> Result<(), ModelError> {
    let known = if is_standard(domain) { imported.iter().any(|d| is_standard(d)) } else { imported.contains(domain) };
    if known {
        return Ok(());
    }
    Err(ModelError::UnknownDomain { item: item(), domain: domain.to_owned() })
}

//! Joins a preprocessing graph and a model into one graph.

use std::collections::{HashMap, HashSet};

use crate::ModelError;
use crate::dataset::ShowDims;
use crate::onnx::edit::{fresh, names, replace_inputs};
use crate::onnx::{Dim, Model, is_standard, label, pb};

/// Operators whose meaning did not change over the opsets that are read; a prefix of
/// these alone fits a model of any opset.
const TIMELESS: [&str; 5] = ["Add", "Sub", "Mul", "Div", "Identity"];

/// Those that a prefix of opset 13 to 17 may have, too, before a model of opset 13 or later: later versions add types and attributes,
/// and mean the same without these.
const SINCE_13: [&str; 4] = ["Cast", "Flatten", "OneHot", "Resize"];

/// The model with one input computed by `prefix`: the one that is called as the prefix's own, else the first.
///
/// The prefix has one output, of the type and shape of that input. Its
/// values and nodes are renamed to `preprocess/...`, the model's keep their names, so
/// that layouts and freeze patterns stay valid. The result takes the prefix's inputs and
/// then the model's other inputs.
///
/// # Errors
/// [`ModelError::Compose`] if the prefix has not exactly one output, if type, shape,
/// opset or functions do not fit, or if the prefix holds control flow.
pub fn compose(prefix: &Model, model: &Model) -> Result<Model, ModelError> {
    let bridge = fits(prefix, model)?;
    let mut joined = model.proto().clone();
    merge_versions(&mut joined, prefix)?;
    let graph = joined.graph.as_mut().ok_or(ModelError::MissingGraph)?;

    let mut taken = names(graph);
    taken.remove(bridge.as_str());
    let renamed = rename_prefix(prefix, &mut taken)?;
    let made = renamed.output.first().map_or("", |o| o.name()).to_owned();
    let instead = HashMap::from([(bridge.clone(), made)]);
    for node in &mut graph.node {
        replace_inputs(node, &instead);
    }
    let rest = graph.input.drain(..).filter(|v| v.name() != bridge).collect::<Vec<_>>();
    graph.input = renamed.input.into_iter().chain(rest).collect();
    graph.node.splice(0..0, renamed.node);
    graph.initializer.splice(0..0, renamed.initializer);
    graph.value_info.splice(0..0, renamed.value_info);
    Model::new(joined)
}

/// Checks that the prefix's output is what an input of the model reads; returns the input's name.
fn fits(prefix: &Model, model: &Model) -> Result<String, ModelError> {
    let [output] = prefix
        .outputs()
        .try_into()
        .map_err(|outputs: Vec<_>| refuse(format!("the prefix has {} outputs, it must have one", outputs.len())))?;
    let (inputs, raw) = (model.inputs(), prefix.inputs());
    let same = inputs.iter().find(|input| raw.first().is_some_and(|raw| raw.name == input.name));
    let Some(input) = same.or(inputs.first()).cloned() else {
        return Err(refuse("the model has no input".into()));
    };
    if output.element != input.element {
        return Err(refuse(format!("the prefix makes {:?}, input `{}` of the model is {:?}", output.element, input.name, input.element)));
    }
    let same = output.shape.len() == input.shape.len()
        && output.shape.iter().zip(&input.shape).all(|pair| match pair {
            (Dim::Fixed(a), Dim::Fixed(b)) => a == b,
            _ => true,
        });
    if !same {
        return Err(refuse(format!(
            "the prefix makes shape {}, input `{}` of the model has {}",
            ShowDims(&output.shape),
            input.name,
            ShowDims(&input.shape)
        )));
    }
    if model.graph().output.iter().any(|o| o.name() == input.name) {
        return Err(refuse(format!("the model answers its own input `{}`", input.name)));
    }
    Ok(input.name)
}

fn merge_versions(joined: &mut pb::ModelProto, prefix: &Model) -> Result<(), ModelError> {
    let lasting = |model: i64| {
        let since_13 = (13..=17).contains(&prefix.opset()) && model >= 13;
        let lasts = |op: &str| TIMELESS.contains(&op) || since_13 && SINCE_13.contains(&op);
        prefix.graph().node.iter().all(|n| is_standard(n.domain()) && lasts(n.op_type()))
    };
    for import in &prefix.proto().opset_import {
        let same_domain =
            |o: &&pb::OperatorSetIdProto| o.domain() == import.domain() || (is_standard(o.domain()) && is_standard(import.domain()));
        match joined.opset_import.iter().find(same_domain) {
            None => joined.opset_import.push(import.clone()),
            Some(have) if have.version() == import.version() => {}
            Some(have) if is_standard(import.domain()) && lasting(have.version()) => {}
            Some(have) => {
                return Err(refuse(format!(
                    "the prefix uses opset {} of domain `{}`, the model {}",
                    import.version(),
                    import.domain(),
                    have.version()
                )));
            }
        }
    }
    if !prefix.proto().functions.is_empty() {
        return Err(refuse("the prefix defines functions; inline them".into()));
    }
    joined.ir_version = joined.ir_version.max(prefix.proto().ir_version);
    Ok(())
}

/// The prefix's graph with names that do not meet `taken`.
fn rename_prefix(prefix: &Model, taken: &mut HashSet<String>) -> Result<pb::GraphProto, ModelError> {
    let mut graph = prefix.graph().clone();
    if !graph.sparse_initializer.is_empty() {
        return Err(refuse("the prefix holds sparse initializers".into()));
    }
    let mut map: HashMap<String, String> = HashMap::new();
    // What the caller feeds keeps its name where the model leaves it free.
    let fed: Vec<String> = prefix.inputs().into_iter().map(|v| v.name).collect();
    for name in &fed {
        let new = if taken.contains(name) { inner(name, taken) } else { name.clone() };
        taken.insert(new.clone());
        map.insert(name.clone(), new);
    }
    let made = graph.node.iter().flat_map(|n| &n.output).filter(|o| !o.is_empty());
    for name in graph.initializer.iter().map(|t| t.name()).chain(made.map(String::as_str)) {
        let new = inner(name, taken);
        map.insert(name.to_owned(), new);
    }
    let rename = |name: &mut String| {
        if let Some(new) = map.get(name.as_str()) {
            name.clone_from(new);
        }
    };
    for node in &mut graph.node {
        if node.attribute.iter().any(|a| a.g.is_some() || !a.graphs.is_empty()) {
            return Err(refuse(format!("{} of the prefix holds a graph", label(node))));
        }
        node.input.iter_mut().chain(&mut node.output).for_each(rename);
        if !node.name().is_empty() {
            node.name = Some(format!("preprocess/{}", node.name()));
        }
    }
    for tensor in &mut graph.initializer {
        tensor.name.iter_mut().for_each(rename);
    }
    for value in graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info) {
        value.name.iter_mut().for_each(rename);
    }
    Ok(graph)
}

/// The name of a value of the prefix within the joined graph.
fn inner(name: &str, taken: &mut HashSet<String>) -> String {
    fresh(format!("preprocess/{name}"), taken)
}

fn refuse(reason: String) -> ModelError {
    ModelError::Compose { reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::parameters;
    use crate::zoo;

    fn reason(fault: &ModelError) -> &str {
        match fault {
            ModelError::Compose { reason } => reason,
            other => panic!("not a refusal to compose: {other}"),
        }
    }

    #[test]
    fn the_model_keeps_its_parameters_and_the_caller_its_input_name() {
        let model = zoo::cnn([1, 8, 8], 10, 0);
        let joined = compose(&zoo::scale(&[1, 8, 8], 0.0625), &model).unwrap();
        assert_eq!(joined.inputs(), model.inputs());
        assert_eq!(joined.outputs(), model.outputs());
        assert_eq!(parameters(&joined, &[]).unwrap(), parameters(&model, &[]).unwrap());
        let first = &joined.graph().node[0];
        assert_eq!(first.op_type(), "Mul");
        assert_eq!(joined.graph().node[1].input[0], first.output[0]);
        assert_eq!(Model::decode(&joined.encode()).unwrap(), joined);
    }

    #[test]
    fn a_prefix_computes_the_input_of_its_own_name() {
        let model = zoo::lstm_with_lengths([7, 3], 8, 2, 0);
        let mut swapped = model.clone().into_proto();
        swapped.graph.as_mut().unwrap().input.swap(0, 1);
        let swapped = Model::new(swapped).unwrap();
        let scale = zoo::scale(&[7, 3], 0.5);
        let joined = compose(&scale, &swapped).unwrap();
        let names = |model: &Model| model.inputs().into_iter().map(|input| input.name).collect::<Vec<_>>();
        assert_eq!(names(&joined), names(&model));
    }

    #[test]
    fn composing_twice_keeps_names_unique() {
        let scale = zoo::scale(&[4], 0.5);
        let once = compose(&scale, &zoo::mlp(4, &[3], 2, 0)).unwrap();
        let twice = compose(&scale, &once).unwrap();
        let factors = twice.graph().initializer.iter().filter(|t| t.name().contains("factor"));
        assert_eq!(factors.map(|t| t.name()).collect::<HashSet<_>>().len(), 2);
    }

    #[test]
    fn misfits_are_refused_with_both_sides_named() {
        let model = zoo::mlp(4, &[], 2, 0);
        let shape = compose(&zoo::scale(&[5], 1.0), &model).unwrap_err();
        assert_eq!(reason(&shape), "the prefix makes shape [batch, 5], input `input` of the model has [batch, 4]");
        let mut two = zoo::scale(&[4], 1.0).into_proto();
        let graph = two.graph.as_mut().unwrap();
        graph.output.push(graph.output[0].clone());
        let two = compose(&Model::new(two).unwrap(), &model).unwrap_err();
        assert!(reason(&two).contains("2 outputs"), "{two}");
    }

    #[test]
    fn opsets_must_agree_unless_the_prefix_means_the_same_in_both() {
        let mut newer = zoo::mlp(4, &[], 2, 0).into_proto();
        newer.opset_import[0].version = Some(20);
        let newer = Model::new(newer).unwrap();
        assert_eq!(compose(&zoo::scale(&[4], 1.0), &newer).unwrap().opset(), 20);
        assert_eq!(compose(&zoo::rows(&[2, 2], 0.0, 1.0), &newer).unwrap().opset(), 20);
        let mut newest = zoo::rows(&[2, 2], 0.0, 1.0).into_proto();
        newest.opset_import[0].version = Some(21);
        assert!(compose(&Model::new(newest).unwrap(), &newer).is_err());
        let mut fancy = zoo::scale(&[4], 1.0).into_proto();
        let node = &mut fancy.graph.as_mut().unwrap().node[0];
        node.op_type = Some("Pow".into());
        let refused = compose(&Model::new(fancy).unwrap(), &newer).unwrap_err();
        assert!(reason(&refused).contains("opset 17"), "{refused}");
    }
}

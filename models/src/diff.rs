//! What two models have in common, and where they part.

use std::collections::BTreeMap;

use crate::onnx::{Element, Model, constant, label, pb, read_tensor};
use crate::tensor::{Tensor, TensorData};

/// The report of [`diff()`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Difference {
    /// Nodes of the second model alone, as [`crate::onnx::label`] prints them.
    pub added_nodes: Vec<String>,
    /// Nodes of the first model alone.
    pub removed_nodes: Vec<String>,
    /// Nodes of both that are not alike, and what about them is not.
    pub changed_nodes: Vec<(String, String)>,
    /// Stored tensors of the second model alone.
    pub added: Vec<Stored>,
    /// Stored tensors of the first model alone.
    pub removed: Vec<Stored>,
    /// Tensors of both that have another type or shape: as in the first model, and as in the second.
    pub changed: Vec<(Stored, Stored)>,
    /// Tensors of both with the same type and shape.
    pub common: Vec<Distance>,
    /// All of these together; 0 without any.
    pub total: Distance,
    /// What differs of the models themselves: operator set, inputs, outputs.
    pub signature: Vec<String>,
}

/// A tensor in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub name: String,
    /// Type of its values.
    pub element: Element,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// How far the values of a tensor in two models are apart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Distance {
    /// Name of the tensor.
    pub name: String,
    /// Largest absolute difference; NaN if a value is.
    pub largest: f64,
    /// Euclidean length of the difference by that of the first model's values; infinite if these are all 0 and the others are not.
    pub relative: f64,
}

impl Difference {
    /// Whether nothing differs: neither graph nor values.
    pub fn is_same(&self) -> bool {
        let graphs = self.added_nodes.is_empty() && self.removed_nodes.is_empty() && self.changed_nodes.is_empty();
        let tensors = self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty();
        graphs && tensors && self.signature.is_empty() && self.common.iter().all(|distance| distance.largest == 0.0)
    }
}

/// Compares graphs by the names of their nodes, and the tensors stored in them (initializers and `Constant` nodes) by their own.
pub fn diff(first: &Model, second: &Model) -> Difference {
    let mut found = Difference { signature: signature(first, second), ..Difference::default() };
    let (before, after) = (nodes(first), nodes(second));
    found.removed_nodes = before.keys().filter(|name| !after.contains_key(*name)).cloned().collect();
    for (name, node) in &after {
        match before.get(name) {
            None => found.added_nodes.push(name.clone()),
            Some(old) => found.changed_nodes.extend(changes(old, node).map(|what| (name.clone(), what))),
        }
    }
    let (before, after) = (tensors(first), tensors(second));
    found.removed = before.iter().filter(|(name, _)| !after.contains_key(*name)).map(|(name, held)| held.told(name)).collect();
    let mut total = Sums::default();
    for (name, held) in &after {
        let Some(old) = before.get(name) else {
            found.added.push(held.told(name));
            continue;
        };
        if (old.element, &old.shape) != (held.element, &held.shape) {
            found.changed.push((old.told(name), held.told(name)));
            continue;
        }
        let sums = old.distance(held);
        total.add(&sums);
        found.common.push(sums.distance(name));
    }
    found.total = total.distance("");
    found
}

/// How far two lists of values are apart, as [`Distance`] has it.
pub fn distance(first: &[f32], second: &[f32]) -> Distance {
    let mut sums = Sums::default();
    first.iter().zip(second).for_each(|(a, b)| sums.pair(f64::from(*a), f64::from(*b)));
    sums.distance("")
}

fn signature(first: &Model, second: &Model) -> Vec<String> {
    let mut found = Vec::new();
    if first.opset() != second.opset() {
        found.push(format!("the operator set is {}, then {}", first.opset(), second.opset()));
    }
    for (what, before, after) in [("inputs", first.inputs(), second.inputs()), ("outputs", first.outputs(), second.outputs())] {
        if before != after {
            let list = |values: &[crate::ValueInfo]| {
                let one = |v: &crate::ValueInfo| format!("`{}` {:?}{}", v.name, v.element, crate::dataset::ShowDims(&v.shape));
                values.iter().map(one).collect::<Vec<_>>().join(", ")
            };
            found.push(format!("the {what} are {}, then {}", list(&before), list(&after)));
        }
    }
    found
}

/// Nodes by label, without those that only hold a tensor.
fn nodes(model: &Model) -> BTreeMap<String, &pb::NodeProto> {
    model.graph().node.iter().filter(|node| node.op_type() != "Constant").map(|node| (label(node), node)).collect()
}

fn changes(old: &pb::NodeProto, new: &pb::NodeProto) -> Option<String> {
    let mut found = Vec::new();
    if (old.domain(), old.op_type()) != (new.domain(), new.op_type()) {
        found.push(format!("{} became {}", old.op_type(), new.op_type()));
    }
    for (what, before, after) in [("reads", &old.input, &new.input), ("makes", &old.output, &new.output)] {
        if before != after {
            found.push(format!("{what} {}, then {}", before.join(", "), after.join(", ")));
        }
    }
    let named = |node: &pb::NodeProto| -> BTreeMap<String, pb::AttributeProto> {
        node.attribute.iter().map(|a| (a.name().to_owned(), pb::AttributeProto { doc_string: None, ..a.clone() })).collect()
    };
    let (before, after) = (named(old), named(new));
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed: Vec<&str> = names.into_iter().filter(|name| before.get(*name) != after.get(*name)).map(String::as_str).collect();
    if !changed.is_empty() {
        found.push(format!("other {}", changed.join(", ")));
    }
    (!found.is_empty()).then(|| found.join("; "))
}

/// A stored tensor; values that cannot be computed with are only compared.
struct Held {
    element: Element,
    shape: Vec<usize>,
    values: Option<Tensor>,
    proto: Option<pb::TensorProto>,
}

impl Held {
    fn of(proto: &pb::TensorProto) -> Self {
        let shape = proto.dims.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect();
        let values = read_tensor(proto).ok();
        let unread = values.is_none().then(|| pb::TensorProto { doc_string: None, ..proto.clone() });
        Self { element: Element::from_onnx(proto.data_type()), shape, values, proto: unread }
    }

    fn told(&self, name: &str) -> Stored {
        Stored { name: name.to_owned(), element: self.element, shape: self.shape.clone() }
    }

    fn distance(&self, other: &Self) -> Sums {
        let mut sums = Sums::default();
        match (&self.values, &other.values) {
            (Some(a), Some(b)) => numbers(a).zip(numbers(b)).for_each(|(a, b)| sums.pair(a, b)),
            // Strings and packed types have no distance: equal, or not.
            _ if self.proto == other.proto => {}
            _ => sums.pair(0.0, 1.0),
        }
        sums
    }
}

fn numbers(tensor: &Tensor) -> Box<dyn Iterator<Item = f64> + '_> {
    match &tensor.data {
        TensorData::F32(v) => Box::new(v.iter().map(|v| f64::from(*v))),
        TensorData::I64(v) => Box::new(v.iter().map(|v| *v as f64)),
        TensorData::I32(v) => Box::new(v.iter().map(|v| f64::from(*v))),
        TensorData::U8(v) => Box::new(v.iter().map(|v| f64::from(*v))),
        TensorData::I8(v) => Box::new(v.iter().map(|v| f64::from(*v))),
        TensorData::Bool(v) => Box::new(v.iter().map(|v| f64::from(u8::from(*v)))),
    }
}

fn tensors(model: &Model) -> BTreeMap<String, Held> {
    let graph = model.graph();
    let mut found: BTreeMap<String, Held> = graph.initializer.iter().map(|t| (t.name().to_owned(), Held::of(t))).collect();
    for node in &graph.node {
        if let (Some(name), Ok(Some(tensor))) = (node.output.first(), constant(node)) {
            let held = Held { element: tensor.element(), shape: tensor.shape.clone(), values: Some(tensor), proto: None };
            found.insert(name.clone(), held);
        }
    }
    found
}

/// Sums over pairs of values.
#[derive(Default)]
struct Sums {
    largest: f64,
    difference: f64,
    first: f64,
}

impl Sums {
    fn pair(&mut self, a: f64, b: f64) {
        // Equal infinities, as masks hold them, do not differ; nor do two NaN.
        let apart = if a == b || (a.is_nan() && b.is_nan()) { 0.0 } else { (a - b).abs() };
        // `f64::max` would drop a NaN.
        if apart > self.largest || apart.is_nan() {
            self.largest = apart;
        }
        self.difference += apart * apart;
        self.first += if a.is_finite() { a * a } else { 0.0 };
    }

    fn add(&mut self, more: &Self) {
        if more.largest > self.largest || more.largest.is_nan() {
            self.largest = more.largest;
        }
        self.difference += more.difference;
        self.first += more.first;
    }

    fn distance(&self, name: &str) -> Distance {
        let relative = if self.difference == 0.0 { 0.0 } else { (self.difference / self.first).sqrt() };
        Distance { name: name.to_owned(), largest: self.largest, relative }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{make, write_tensor};
    use crate::zoo;

    fn edited(edit: impl FnOnce(&mut pb::GraphProto)) -> Model {
        let mut proto = zoo::mlp(4, &[3], 2, 0).into_proto();
        edit(proto.graph.as_mut().unwrap());
        Model::new(proto).unwrap()
    }

    #[test]
    fn a_model_is_its_own_equal() {
        let model = zoo::cnn([1, 8, 8], 3, 0);
        let found = diff(&model, &model);
        assert!(found.is_same() && found.common.len() == model.graph().initializer.len(), "{found:?}");
        assert_eq!((found.total.largest, found.total.relative), (0.0, 0.0));
    }

    #[test]
    fn values_are_measured_against_the_first_model() {
        let with = |bias: &[f32]| edited(|g| *held(g, "fc1.bias") = write_tensor("fc1.bias", &Tensor::f32([3], bias.to_vec()).unwrap()));
        let found = diff(&with(&[3.0, 4.0, 0.0]), &with(&[3.0, 4.0, -1.0]));
        let bias = found.common.iter().find(|d| d.name == "fc1.bias").unwrap();
        assert_eq!((bias.largest, bias.relative), (1.0, 0.2));
        assert!(!found.is_same() && found.total.largest == 1.0 && found.total.relative < 0.2);
        let from_nothing = diff(&with(&[0.0; 3]), &with(&[0.0, 2.0, 0.0]));
        assert_eq!(from_nothing.common.iter().find(|d| d.name == "fc1.bias").unwrap().relative, f64::INFINITY);
        let nan = diff(&with(&[0.0; 3]), &with(&[0.0, f32::NAN, 1.0]));
        assert!(nan.total.largest.is_nan() && !nan.is_same());
        assert!(diff(&with(&[f32::NEG_INFINITY; 3]), &with(&[f32::NEG_INFINITY; 3])).is_same());
    }

    fn held<'g>(graph: &'g mut pb::GraphProto, name: &str) -> &'g mut pb::TensorProto {
        graph.initializer.iter_mut().find(|t| t.name() == name).unwrap()
    }

    #[test]
    fn nodes_and_tensors_that_came_went_or_changed_are_named() {
        let first = zoo::mlp(4, &[3], 2, 0);
        let second = edited(|g| {
            let last = g.node.last_mut().unwrap();
            let logits = std::mem::replace(&mut last.output[0], "before".into());
            g.node[1].op_type = Some("Tanh".into());
            g.node.push(make::node("Add", "shift", &["before", "offset"], &[&logits], vec![]));
            g.initializer.push(write_tensor("offset", &Tensor::scalar(1.0)));
        });
        let found = diff(&first, &second);
        assert_eq!((found.added_nodes.clone(), found.removed_nodes.clone()), (vec!["node `shift`".to_owned()], vec![]));
        let changed: Vec<_> = found.changed_nodes.iter().map(|(node, what)| format!("{node}: {what}")).collect();
        assert!(changed.iter().any(|c| c.contains("Relu became Tanh")) && changed.iter().any(|c| c.contains("makes logits, then before")));
        assert_eq!(found.added, [Stored { name: "offset".into(), element: Element::F32, shape: vec![] }]);
        assert!(found.removed.is_empty() && !found.is_same());
        assert_eq!(diff(&second, &first).removed, found.added);

        let wider = diff(&first, &zoo::mlp(4, &[5], 2, 0));
        let (before, after) = wider.changed.iter().find(|(old, _)| old.name == "fc1.bias").unwrap();
        assert_eq!((&before.shape[..], &after.shape[..]), (&[3][..], &[5][..]));
        let other_input = diff(&first, &zoo::mlp(6, &[3], 2, 0));
        assert_eq!(other_input.signature.len(), 1, "{other_input:?}");
    }
}

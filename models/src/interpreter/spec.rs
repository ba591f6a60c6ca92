//! One node of a graph, as the operator that compiles it sees it.

use std::cell::RefCell;
use std::collections::HashSet;

use super::fault::Fault;
use super::value::Host;
use crate::onnx::pb::{self, attribute_proto::AttributeType};

/// A constant operand.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    Floats { data: Vec<f32> },
    Ints(Host),
}

/// A node with its attributes and constant operands. Every attribute that an operator
/// understands is read through a method here; one that is left over is refused, so that
/// no attribute is ever ignored in silence.
pub(crate) struct Spec<'a> {
    node: &'a pb::NodeProto,
    pub(crate) opset: i64,
    constant: &'a dyn Fn(&str) -> Option<Known>,
    read: RefCell<HashSet<&'a str>>,
    /// The first attribute of a wrong type that was read.
    mistyped: RefCell<Option<Fault>>,
}

impl<'a> Spec<'a> {
    pub(crate) fn new(node: &'a pb::NodeProto, opset: i64, constant: &'a dyn Fn(&str) -> Option<Known>) -> Self {
        Self { node, opset, constant, read: RefCell::default(), mistyped: RefCell::default() }
    }

    pub(crate) fn op(&self) -> &str {
        self.node.op_type()
    }

    /// Whether operand `i` is given.
    pub(crate) fn has(&self, i: usize) -> bool {
        self.node.input.get(i).is_some_and(|name| !name.is_empty())
    }

    pub(crate) fn inputs(&self) -> usize {
        self.node.input.len()
    }

    /// Whether output `i` is asked for.
    pub(crate) fn gives(&self, i: usize) -> bool {
        self.node.output.get(i).is_some_and(|name| !name.is_empty())
    }

    pub(crate) fn outputs(&self) -> usize {
        self.node.output.len()
    }

    /// Refuses a node with fewer or more operands than the operator has.
    pub(crate) fn arity(&self, least: usize, most: usize) -> Result<(), Fault> {
        let given = self.inputs();
        if given < least || given > most || !(0..least).all(|i| self.has(i)) {
            return Err(Fault::broken(format!("{} takes {least} to {most} inputs, not {given}", self.op())));
        }
        Ok(())
    }

    /// Operand `i`, if its values are known before anything runs.
    pub(crate) fn known(&self, i: usize) -> Option<Known> {
        self.node.input.get(i).filter(|name| !name.is_empty()).and_then(|name| (self.constant)(name))
    }

    /// The value of a float operand with one element, if it is known.
    pub(crate) fn known_scalar(&self, i: usize) -> Option<f32> {
        match self.known(i)? {
            Known::Floats { data, .. } if data.len() == 1 => data.first().copied(),
            Known::Ints(host) if host.data.len() == 1 => host.data.first().map(|v| *v as f32),
            _ => None,
        }
    }

    fn attribute(&self, name: &str, kind: AttributeType) -> Option<&'a pb::AttributeProto> {
        let found = self.node.attribute.iter().find(|a| a.name() == name)?;
        self.read.borrow_mut().insert(found.name());
        if found.r#type() != kind {
            let reason = format!("attribute `{name}` is {}, not {}", found.r#type().as_str_name(), kind.as_str_name());
            self.mistyped.borrow_mut().get_or_insert(Fault::broken(reason));
            return None;
        }
        Some(found)
    }

    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name, AttributeType::Int).map(pb::AttributeProto::i)
    }

    pub(crate) fn flag(&self, name: &str, default: bool) -> bool {
        self.int(name).map_or(default, |v| v != 0)
    }

    pub(crate) fn float(&self, name: &str) -> Option<f32> {
        self.attribute(name, AttributeType::Float).map(pb::AttributeProto::f)
    }

    pub(crate) fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.attribute(name, AttributeType::Ints).map(|a| a.ints.clone())
    }

    pub(crate) fn floats(&self, name: &str) -> Option<Vec<f32>> {
        self.attribute(name, AttributeType::Floats).map(|a| a.floats.clone())
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.attribute(name, AttributeType::String).map(|a| String::from_utf8_lossy(a.s()).into_owned())
    }

    pub(crate) fn texts(&self, name: &str) -> Option<Vec<String>> {
        let texts = |a: &pb::AttributeProto| a.strings.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect();
        self.attribute(name, AttributeType::Strings).map(texts)
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<&'a pb::TensorProto> {
        self.attribute(name, AttributeType::Tensor).and_then(|a| a.t.as_ref())
    }

    /// A list of extents with one entry for each spatial axis, or `default` for all.
    pub(crate) fn spatial(&self, name: &str, rank: usize, default: usize) -> Result<Vec<usize>, Fault> {
        let Some(list) = self.ints(name) else { return Ok(vec![default; rank]) };
        let bad = || Fault::broken(format!("{name} = {list:?} for {rank} spatial axes"));
        if list.len() != rank {
            return Err(bad());
        }
        // An extent above 2^31 cannot be meant and would overflow the size arithmetic.
        let extent = |v: &i64| u32::try_from(*v).ok().filter(|v| *v > 0).map(|v| v as usize);
        list.iter().map(|v| extent(v).ok_or_else(bad)).collect()
    }

    /// Refuses attributes of a wrong type, and those that no method above was asked for.
    pub(crate) fn finish(&self) -> Result<(), Fault> {
        if let Some(fault) = self.mistyped.borrow_mut().take() {
            return Err(fault);
        }
        let read = self.read.borrow();
        match self.node.attribute.iter().find(|a| !read.contains(a.name())) {
            Some(left) => Err(Fault::unsupported(format!("attribute `{}` is not known", left.name()))),
            None => Ok(()),
        }
    }
}

//! From a graph to a plan: constants are computed, branches chosen, last reads marked.

use std::collections::{HashMap, HashSet};

use super::branch::{Conditional, free};
use super::engine::Engine;
use super::fault::Fault;
use super::operator::{Context, Inputs, Mode, Operator};
use super::ops;
use super::plan::{Bound, Operand, Plan, Step};
use super::spec::{Known, Spec};
use super::value::{Held, Value, read};
use crate::ModelError;
use crate::layout::Parameter;
use crate::onnx::{Model, is_standard, label, pb, read_tensor};

/// The nodes on which the outputs depend, by address.
pub(super) fn needed(graph: &pb::GraphProto, parameters: &[Parameter], outputs: &[String]) -> HashSet<*const pb::NodeProto> {
    let fed: HashSet<&str> = parameters.iter().map(|p| p.name.as_str()).collect();
    let mut wanted: HashSet<&str> = outputs.iter().map(String::as_str).collect();
    let mut found = HashSet::new();
    for node in graph.node.iter().rev() {
        let makes = |o: &String| wanted.contains(o.as_str()) && !fed.contains(o.as_str());
        if node.output.iter().any(makes) {
            reads(node, &mut wanted);
            found.insert(std::ptr::from_ref(node));
        }
    }
    found
}

/// Names that a node reads, and the graphs in its attributes.
fn reads<'a>(node: &'a pb::NodeProto, names: &mut HashSet<&'a str>) {
    names.extend(node.input.iter().map(String::as_str));
    for inner in node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)) {
        names.extend(inner.output.iter().map(pb::ValueInfoProto::name));
        inner.node.iter().for_each(|node| reads(node, names));
    }
}

/// The state of compiling: nodes come in order, and those whose operands are all constant
/// are computed at once.
pub(super) struct Compiler<B: Engine> {
    opset: i64,
    slots: HashMap<String, usize>,
    names: Vec<String>,
    parameters: Vec<usize>,
    constants: HashMap<usize, Value<B::Plain>>,
    /// What was computed of constants.
    folded: Held,
    steps: Vec<Step<B>>,
}

impl<B: Engine> Compiler<B> {
    pub(super) fn new(model: &Model, parameters: &[Parameter]) -> Result<Self, ModelError> {
        let mut compiler = Self::empty(model.opset());
        for parameter in parameters {
            let slot = compiler.slot(&parameter.name);
            compiler.parameters.push(slot);
        }
        compiler.initializers(model.graph())?;
        Ok(compiler)
    }

    fn empty(opset: i64) -> Self {
        Self {
            opset,
            slots: HashMap::new(),
            names: Vec::new(),
            parameters: Vec::new(),
            constants: HashMap::new(),
            folded: Held::default(),
            steps: Vec::new(),
        }
    }

    fn initializers(&mut self, graph: &pb::GraphProto) -> Result<(), ModelError> {
        for proto in &graph.initializer {
            if self.slots.contains_key(proto.name()) {
                continue;
            }
            // An initializer of a type that is not computed matters only if a node reads it.
            let Ok(tensor) = read_tensor(proto) else { continue };
            let value = Value::from_tensor(tensor).map_err(|fault| fault.at(proto.name(), "initializer"))?;
            let slot = self.slot(proto.name());
            self.constants.insert(slot, value);
        }
        Ok(())
    }

    fn slot(&mut self, name: &str) -> usize {
        *self.slots.entry(name.to_owned()).or_insert_with(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })
    }

    /// Makes the outputs of a node that cannot be compiled known by name.
    pub(super) fn reserve(&mut self, node: &pb::NodeProto) {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            self.slot(name);
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.slots.get(name).copied()
    }

    pub(super) fn steps(&self) -> &[Step<B>] {
        &self.steps
    }

    pub(super) fn constants(&self) -> impl Iterator<Item = (usize, &Value<B::Plain>)> {
        self.constants.iter().map(|(slot, value)| (*slot, value))
    }

    /// The parameter that lives in a slot; they came first.
    fn parameter(&self, slot: usize) -> Option<usize> {
        self.parameters.get(slot).map(|first| {
            debug_assert_eq!(*first, slot, "their names differ");
            slot
        })
    }

    pub(super) fn node(&mut self, node: &pb::NodeProto) -> Result<(), ModelError> {
        let at = |fault: Fault| fault.at(&label(node), node.op_type());
        if is_standard(node.domain()) && node.op_type() == "If" {
            let branches = branches(node).map_err(at)?;
            return match self.chosen(node).map_err(at)? {
                Some(which) => self.branch(node, branches[usize::from(which)]),
                None => self.conditional(node, branches),
            };
        }
        let operator = self.operator(node).map_err(at)?;
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            inputs.push(if name.is_empty() { None } else { Some(self.slot(name)) });
        }
        let mut outputs = Vec::with_capacity(node.output.len());
        for name in &node.output {
            outputs.push(if name.is_empty() { None } else { Some(self.slot(name)) });
        }
        if operator.is_pure() && inputs.iter().flatten().all(|slot| self.constants.contains_key(slot)) {
            return self.fold(operator.as_ref(), &inputs, &outputs).map_err(at);
        }
        let operand = |slot: usize| Operand { slot, last: false, parameter: self.parameter(slot) };
        let inputs = inputs.into_iter().map(|slot| slot.map(operand)).collect();
        self.steps.push(Step { label: label(node), node: node.clone(), operator, inputs, outputs });
        Ok(())
    }

    /// What a constant says about the branch of an `If`: <https://onnx.ai/onnx/operators/onnx__If.html>, alike in all opsets.
    fn chosen(&self, node: &pb::NodeProto) -> Result<Option<bool>, Fault> {
        match node.input.first().map(|condition| self.known(condition)) {
            Some(Some(Known::Ints(host))) if host.data.len() == 1 => Ok(Some(host.data != [0])),
            Some(Some(_)) => Err(Fault::broken("its condition is not one boolean")),
            Some(None) => Ok(None),
            None => Err(Fault::broken("it has no condition")),
        }
    }

    /// A step that runs one branch or the other, each a plan of its own that reads values from here.
    fn conditional(&mut self, node: &pb::NodeProto, branches: [&pb::GraphProto; 2]) -> Result<(), ModelError> {
        let mut captured: Vec<&str> = branches.iter().flat_map(|branch| free(branch)).collect();
        captured.sort_unstable();
        captured.dedup();
        let (known, run): (Vec<&str>, Vec<&str>) =
            captured.into_iter().partition(|name| self.slots.get(*name).is_some_and(|slot| self.constants.contains_key(slot)));
        let mut plans = Vec::with_capacity(2);
        for branch in branches {
            let mut inner = Self::empty(self.opset);
            for name in &known {
                let slot = inner.slot(name);
                inner.constants.insert(slot, self.constants[&self.slots[*name]].clone());
            }
            inner.initializers(branch)?;
            for node in &branch.node {
                inner.node(node)?;
            }
            let outputs: Vec<String> = branch.output.iter().map(|output| output.name().to_owned()).collect();
            plans.push(inner.finish(run.iter().copied(), &outputs)?);
        }
        let operator = Box::new(Conditional { plans });
        let mut operand = |name: &str| {
            let slot = self.slot(name);
            Some(Operand { slot, last: false, parameter: self.parameter(slot) })
        };
        let inputs = node.input.iter().map(String::as_str).take(1).chain(run).map(&mut operand).collect();
        let outputs = node.output.iter().map(|name| (!name.is_empty()).then(|| self.slot(name))).collect();
        // Without its branches, which are plans now.
        let bare = pb::NodeProto { attribute: Vec::new(), ..node.clone() };
        self.steps.push(Step { label: label(node), node: bare, operator, inputs, outputs });
        Ok(())
    }

    /// Puts the nodes of `branch` in the place of `node`.
    fn branch(&mut self, node: &pb::NodeProto, branch: &pb::GraphProto) -> Result<(), ModelError> {
        self.initializers(branch)?;
        for inner in &branch.node {
            self.node(inner)?;
        }
        for (outer, inner) in node.output.iter().zip(&branch.output) {
            let slot = self.slot(inner.name());
            self.slots.insert(outer.clone(), slot);
        }
        // Another branch may have the same names for its own.
        for inner in branch.node.iter().flat_map(|n| &n.output).map(String::as_str).chain(branch.initializer.iter().map(|t| t.name())) {
            self.slots.remove(inner);
        }
        Ok(())
    }

    fn operator(&self, node: &pb::NodeProto) -> Result<Box<dyn Operator<B>>, Fault> {
        if !is_standard(node.domain()) {
            return Err(Fault::unsupported(format!("operators of domain `{}` are not known", node.domain())));
        }
        let compile = ops::find::<B>(node.op_type()).ok_or_else(|| Fault::unsupported("there is no such operator here"))?;
        let known = |name: &str| self.known(name);
        let spec = Spec::new(node, self.opset, &known);
        let operator = compile(&spec)?;
        spec.finish()?;
        Ok(operator)
    }

    fn known(&self, name: &str) -> Option<Known> {
        match self.constants.get(self.slots.get(name)?)? {
            Value::Host(host) => Some(Known::Ints(host.clone())),
            Value::Float(tensor) => read::<B::Plain>(tensor.clone()).ok().map(|data| Known::Floats { data }),
        }
    }

    /// Computes a node whose operands are all known.
    fn fold(&mut self, operator: &dyn Operator<B>, inputs: &[Option<usize>], outputs: &[Option<usize>]) -> Result<(), Fault> {
        let operands = inputs.iter().map(|slot| slot.map(|s| Value::lift(self.constants[&s].clone())));
        let mut cx = Context { mode: Mode::Inference, updatable: Vec::new(), updates: Vec::new() };
        let results = operator.run(Inputs::new(operands.collect()), &mut cx)?;
        for (slot, result) in outputs.iter().zip(results) {
            if let Some(slot) = slot {
                self.folded.add(result.weight())?;
                self.constants.insert(*slot, result.lower());
            }
        }
        Ok(())
    }

    /// The plan whose inputs have these names.
    pub(super) fn finish<'n>(mut self, inputs: impl Iterator<Item = &'n str>, outputs: &[String]) -> Result<Plan<B>, ModelError> {
        let inputs = inputs.map(|input| self.slot(input)).collect();
        let mut produced = Vec::with_capacity(outputs.len());
        for name in outputs {
            let slot = self.slots.get(name).copied();
            produced.push(slot.ok_or_else(|| ModelError::UndefinedValue { value: name.clone(), reader: "the caller".to_owned() })?);
        }
        let transposed = self.transpose_weights(&produced);
        let read = self.mark_last_reads(&produced);
        let constants = self.constants.into_iter().filter(|(slot, _)| read.contains(slot)).collect();
        let bound = |(slot, transposed): (&usize, bool)| Bound { slot: *slot, transposed };
        Ok(Plan {
            inputs,
            parameters: self.parameters.iter().zip(transposed).map(bound).collect(),
            names: self.names,
            constants,
            steps: self.steps,
            outputs: produced,
            opset: self.opset,
        })
    }

    /// Keeps a parameter transposed where every node that reads it would rather have it so.
    fn transpose_weights(&mut self, outputs: &[usize]) -> Vec<bool> {
        let mut readers: Vec<Vec<(usize, usize)>> = vec![Vec::new(); self.parameters.len()];
        for (s, step) in self.steps.iter().enumerate() {
            for (i, operand) in step.inputs.iter().enumerate() {
                if let Some(parameter) = operand.and_then(|o| o.parameter) {
                    readers[parameter].push((s, i));
                }
            }
        }
        let mut chosen = vec![false; self.parameters.len()];
        for (index, readers) in readers.into_iter().enumerate() {
            let wanted = readers.iter().all(|(s, i)| self.steps[*s].operator.wants_transposed(*i));
            chosen[index] = wanted && !readers.is_empty() && !outputs.contains(&self.parameters[index]);
            if chosen[index] {
                for (s, i) in readers {
                    self.steps[s].operator.take_transposed(i);
                }
            }
        }
        chosen
    }

    /// Marks the last read of every slot, drops outputs that nothing reads, and gives the
    /// slots that are read at all.
    fn mark_last_reads(&mut self, outputs: &[usize]) -> HashSet<usize> {
        let mut read: HashSet<usize> = outputs.iter().copied().collect();
        for step in self.steps.iter_mut().rev() {
            for output in &mut step.outputs {
                *output = output.filter(|slot| read.contains(slot));
            }
            for operand in step.inputs.iter_mut().rev().flatten() {
                operand.last = read.insert(operand.slot);
            }
        }
        read
    }
}

/// The branches of an `If`, as its condition counts them: else, then.
fn branches(node: &pb::NodeProto) -> Result<[&pb::GraphProto; 2], Fault> {
    let branch = |name: &str| {
        let found = node.attribute.iter().find(|a| a.name() == name).and_then(|a| a.g.as_ref());
        let found = found.ok_or_else(|| Fault::broken(format!("it has no {name}")))?;
        if found.output.len() == node.output.len() {
            Ok(found)
        } else {
            Err(Fault::broken(format!("it has {} outputs, and its {name} {}", node.output.len(), found.output.len())))
        }
    };
    Ok([branch("else_branch")?, branch("then_branch")?])
}

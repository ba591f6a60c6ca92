//! Compiling a graph, and running what was compiled.

use std::collections::{HashMap, HashSet};

use burn_backend::tensor::FloatTensor;

use super::engine::Engine;
use super::fault::Fault;
use super::operator::{Context, Inputs, Mode, Operator};
use super::ops;
use super::spec::{Known, Spec};
use super::value::{Value, read};
use crate::ModelError;
use crate::layout::Parameter;
use crate::onnx::{Model, is_standard, label, pb, read_tensor};

/// A graph ready to run. Values live in numbered slots.
pub(crate) struct Plan<B: Engine> {
    names: Vec<String>,
    inputs: Vec<usize>,
    parameters: Vec<Bound>,
    constants: Vec<(usize, Value<B::Plain>)>,
    steps: Vec<Step<B>>,
    outputs: Vec<usize>,
}

/// Where a parameter of the layout goes.
struct Bound {
    slot: usize,
    transposed: bool,
}

/// A compiled node.
struct Step<B: Engine> {
    label: String,
    op: String,
    operator: Box<dyn Operator<B>>,
    inputs: Vec<Option<Operand>>,
    /// Slot of each output, if anything reads it.
    outputs: Vec<Option<usize>>,
}

#[derive(Debug, Clone, Copy)]
struct Operand {
    slot: usize,
    /// Nothing reads the slot after this, so its value is moved out.
    last: bool,
    /// Index of the parameter that lives in the slot.
    parameter: Option<usize>,
}

/// A node that normalizes with statistics of the batch when it trains.
pub(crate) struct Mixing<'a> {
    pub(crate) label: &'a str,
    pub(crate) op: &'a str,
    /// Names of the running statistics that it updates.
    pub(crate) statistics: Vec<&'a str>,
}

/// What a run gives.
pub(crate) struct Outcome<B: Engine> {
    /// The values asked for, in the order of [`Plan::compile`]'s `outputs`.
    pub(crate) outputs: Vec<Value<B>>,
    /// New values of parameters that forward passes update (running statistics), by index.
    pub(crate) statistics: Vec<(usize, FloatTensor<B::Plain>)>,
}

impl<B: Engine> Plan<B> {
    /// Compiles what `outputs` need of the graph. `parameters` are fed at each run; all
    /// other initializers become constants.
    ///
    /// # Errors
    /// The first node that cannot be computed, with the reason.
    pub(crate) fn compile(model: &Model, parameters: &[Parameter], outputs: &[String]) -> Result<Self, ModelError> {
        let mut compiler = Compiler::<B>::new(model, parameters)?;
        let needed = needed(model.graph(), parameters, outputs);
        for node in model.graph().node.iter().filter(|n| needed.contains(&std::ptr::from_ref(*n))) {
            compiler.node(node)?;
        }
        compiler.finish(model, outputs)
    }

    /// Whether parameter `i` is fed with its two axes swapped.
    pub(crate) fn is_transposed(&self, i: usize) -> bool {
        self.parameters[i].transposed
    }

    /// The first node that mixes the rows of a batch in training.
    pub(crate) fn mixing(&self) -> Option<Mixing<'_>> {
        self.steps.iter().find_map(|step| {
            let updated = step.operator.statistics();
            let parameter = |i: &usize| step.inputs.get(*i).copied().flatten().filter(|o| o.parameter.is_some());
            let statistics: Vec<&str> = updated.iter().filter_map(parameter).map(|o| self.names[o.slot].as_str()).collect();
            let mixes = !updated.is_empty() && statistics.len() == updated.len();
            mixes.then_some(Mixing { label: &step.label, op: &step.op, statistics })
        })
    }

    /// Runs the graph. `inputs` are in the order of the model's, `parameters` in that of the
    /// layout. `observe` sees every value that a node computes.
    ///
    /// # Errors
    /// [`ModelError::Shape`] and the like, naming the node.
    pub(crate) fn run(
        &self,
        inputs: Vec<Value<B>>,
        parameters: &[FloatTensor<B>],
        mode: Mode<'_>,
        observe: &mut dyn FnMut(&str, &Value<B>),
    ) -> Result<Outcome<B>, ModelError> {
        let mut values: Vec<Option<Value<B>>> = vec![None; self.names.len()];
        for (slot, constant) in &self.constants {
            values[*slot] = Some(Value::lift(constant.clone()));
        }
        for (slot, input) in self.inputs.iter().zip(inputs) {
            values[*slot] = Some(input);
        }
        for (bound, tensor) in self.parameters.iter().zip(parameters) {
            values[bound.slot] = Some(Value::Float(tensor.clone()));
        }
        let mut cx = Context { mode, updatable: Vec::new(), updates: Vec::new() };
        let mut statistics = Vec::new();
        for step in &self.steps {
            let operands =
                step.inputs.iter().map(|operand| operand.and_then(|o| if o.last { values[o.slot].take() } else { values[o.slot].clone() }));
            let operands = Inputs::new(operands.collect());
            cx.updatable.clear();
            cx.updatable.extend(step.inputs.iter().map(|o| o.is_some_and(|o| o.parameter.is_some())));
            let results = step.operator.run(operands, &mut cx).map_err(|fault| fault.at(&step.label, &step.op))?;
            for (input, value) in cx.updates.drain(..) {
                if let Some(Some(Operand { parameter: Some(index), .. })) = step.inputs.get(input) {
                    statistics.push((*index, value));
                }
            }
            for (slot, result) in step.outputs.iter().zip(results) {
                if let Some(slot) = slot {
                    observe(&self.names[*slot], &result);
                    values[*slot] = Some(result);
                }
            }
        }
        let taken = self.outputs.iter().map(|slot| {
            values[*slot]
                .clone()
                .ok_or_else(|| ModelError::UndefinedValue { value: self.names[*slot].clone(), reader: "the caller".to_owned() })
        });
        Ok(Outcome { outputs: taken.collect::<Result<_, _>>()?, statistics })
    }
}

/// The nodes on which the outputs depend, by address.
fn needed(graph: &pb::GraphProto, parameters: &[Parameter], outputs: &[String]) -> HashSet<*const pb::NodeProto> {
    let fed: HashSet<&str> = parameters.iter().map(|p| p.name.as_str()).collect();
    let mut wanted: HashSet<&str> = outputs.iter().map(String::as_str).collect();
    let mut found = HashSet::new();
    for node in graph.node.iter().rev() {
        let makes = |o: &String| wanted.contains(o.as_str()) && !fed.contains(o.as_str());
        if node.output.iter().any(makes) {
            wanted.extend(node.input.iter().map(String::as_str));
            found.insert(std::ptr::from_ref(node));
        }
    }
    found
}

/// The state of compiling: nodes come in order, and those whose operands are all constant
/// are computed at once.
struct Compiler<B: Engine> {
    opset: i64,
    slots: HashMap<String, usize>,
    names: Vec<String>,
    parameters: Vec<usize>,
    constants: HashMap<usize, Value<B::Plain>>,
    steps: Vec<Step<B>>,
}

impl<B: Engine> Compiler<B> {
    fn new(model: &Model, parameters: &[Parameter]) -> Result<Self, ModelError> {
        let mut compiler = Self {
            opset: model.opset(),
            slots: HashMap::new(),
            names: Vec::new(),
            parameters: Vec::new(),
            constants: HashMap::new(),
            steps: Vec::new(),
        };
        for parameter in parameters {
            let slot = compiler.slot(&parameter.name);
            compiler.parameters.push(slot);
        }
        for proto in &model.graph().initializer {
            if compiler.slots.contains_key(proto.name()) {
                continue;
            }
            // An initializer of a type that is not computed matters only if a node reads it.
            let Ok(tensor) = read_tensor(proto) else { continue };
            let value = Value::from_tensor(tensor).map_err(|fault| fault.at(proto.name(), "initializer"))?;
            let slot = compiler.slot(proto.name());
            compiler.constants.insert(slot, value);
        }
        Ok(compiler)
    }

    fn slot(&mut self, name: &str) -> usize {
        *self.slots.entry(name.to_owned()).or_insert_with(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })
    }

    fn node(&mut self, node: &pb::NodeProto) -> Result<(), ModelError> {
        let at = |fault: Fault| fault.at(&label(node), node.op_type());
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
        let parameter = |slot| self.parameters.iter().position(|p| *p == slot);
        let operand = |slot: usize| Operand { slot, last: false, parameter: parameter(slot) };
        let inputs = inputs.into_iter().map(|slot| slot.map(operand)).collect();
        self.steps.push(Step { label: label(node), op: node.op_type().to_owned(), operator, inputs, outputs });
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
                self.constants.insert(*slot, result.lower());
            }
        }
        Ok(())
    }

    fn finish(mut self, model: &Model, outputs: &[String]) -> Result<Plan<B>, ModelError> {
        let inputs = model.inputs().iter().map(|input| self.slot(&input.name)).collect();
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
        })
    }

    /// Keeps a parameter transposed where every node that reads it would rather have it so.
    fn transpose_weights(&mut self, outputs: &[usize]) -> Vec<bool> {
        let mut chosen = vec![false; self.parameters.len()];
        for (index, slot) in self.parameters.iter().enumerate() {
            let readers = || {
                let operands =
                    |(s, step): (usize, &Step<B>)| step.inputs.iter().enumerate().map(move |(i, o)| (s, i, *o)).collect::<Vec<_>>();
                self.steps.iter().enumerate().flat_map(operands).filter(|(_, _, o)| o.is_some_and(|o| o.slot == *slot))
            };
            let wanted = readers().all(|(s, i, _)| self.steps[s].operator.wants_transposed(i));
            chosen[index] = wanted && readers().next().is_some() && !outputs.contains(slot);
            let readers: Vec<(usize, usize)> = readers().map(|(s, i, _)| (s, i)).collect();
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

/// A node that cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// The node, as [`crate::onnx::label`] prints it.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// Why not.
    pub reason: String,
}

/// Every node of the model that the interpreter refuses. What only a run can tell (shapes)
/// is not looked at.
pub fn unsupported(model: &Model) -> Vec<Unsupported> {
    let layout = crate::layout::parameters(model, &[]).map(|(layout, _)| layout).unwrap_or_default();
    let compiler = Compiler::<burn_flex::Flex>::new(model, layout.parameters());
    let Ok(mut compiler) = compiler else { return Vec::new() };
    let fed: HashSet<&str> = layout.parameters().iter().map(|p| p.name.as_str()).collect();
    let mut found = Vec::new();
    for node in &model.graph().node {
        if node.output.iter().any(|o| fed.contains(o.as_str())) {
            continue;
        }
        let outcome = super::guard("compiling", || compiler.node(node));
        if let Err(error) = outcome {
            let reason = match error {
                ModelError::Unsupported { reason, .. } | ModelError::Shape { reason, .. } | ModelError::BadNode { reason, .. } => reason,
                other => other.to_string(),
            };
            found.push(Unsupported { node: label(node), op: node.op_type().to_owned(), reason });
        }
    }
    found
}

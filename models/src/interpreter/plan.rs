//! A compiled graph, and running it.

use std::collections::HashSet;

use burn_backend::tensor::FloatTensor;

use super::compile::{Compiler, needed};
use super::engine::Engine;
use super::operator::{Context, Inputs, Mode, Operator};
use super::value::{Held, Value};
use crate::ModelError;
use crate::layout::Parameter;
use crate::onnx::{Model, label, pb};

/// A graph ready to run. Values live in numbered slots.
pub(crate) struct Plan<B: Engine> {
    pub(super) names: Vec<String>,
    pub(super) inputs: Vec<usize>,
    pub(super) parameters: Vec<Bound>,
    pub(super) constants: Vec<(usize, Value<B::Plain>)>,
    pub(super) steps: Vec<Step<B>>,
    pub(super) outputs: Vec<usize>,
    pub(super) opset: i64,
}

/// Where a parameter of the layout goes.
pub(super) struct Bound {
    pub(super) slot: usize,
    pub(super) transposed: bool,
}

/// A compiled node.
pub(super) struct Step<B: Engine> {
    pub(super) label: String,
    /// As the file has it; tensors in it are small, because constants are no steps.
    pub(super) node: pb::NodeProto,
    pub(super) operator: Box<dyn Operator<B>>,
    pub(super) inputs: Vec<Option<Operand>>,
    /// Slot of each output, if anything reads it.
    pub(super) outputs: Vec<Option<usize>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Operand {
    pub(super) slot: usize,
    /// Nothing reads the slot after this, so its value is moved out.
    pub(super) last: bool,
    /// Index of the parameter that lives in the slot.
    pub(super) parameter: Option<usize>,
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
        let inputs = model.inputs();
        compiler.finish(inputs.iter().map(|input| input.name.as_str()), outputs)
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
            mixes.then_some(Mixing { label: &step.label, op: step.node.op_type(), statistics })
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
        // What each slot holds of values that were computed.
        let (mut held, mut weights) = (Held::default(), vec![0; self.names.len()]);
        for step in &self.steps {
            let operands =
                step.inputs.iter().map(|operand| operand.and_then(|o| if o.last { values[o.slot].take() } else { values[o.slot].clone() }));
            let operands = Inputs::new(operands.collect());
            step.inputs.iter().flatten().filter(|o| o.last).for_each(|o| held.free(std::mem::take(&mut weights[o.slot])));
            cx.updatable.clear();
            cx.updatable.extend(step.inputs.iter().map(|o| o.is_some_and(|o| o.parameter.is_some())));
            let results = step.operator.run(operands, &mut cx).map_err(|fault| fault.at(&step.label, step.node.op_type()))?;
            for (input, value) in cx.updates.drain(..) {
                if let Some(Some(Operand { parameter: Some(index), .. })) = step.inputs.get(input) {
                    statistics.push((*index, value));
                }
            }
            for (slot, result) in step.outputs.iter().zip(results) {
                if let Some(slot) = slot {
                    weights[*slot] = result.weight();
                    held.add(weights[*slot]).map_err(|fault| fault.at(&step.label, step.node.op_type()))?;
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

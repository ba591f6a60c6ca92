//! What a graph makes of one example: shape and lifetime of every value, found by running it once. Shapes can hang on constants that
//! only the operators work out, so nothing tells them as well as the operators themselves.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use burn_flex::Flex;

use super::compile::{Compiler, needed};
use super::guard;
use super::operator::{Context, Inputs, Mode};
use super::plan::{Plan, Step};
use super::value::{Value, bounded};
use crate::ModelError;
use crate::onnx::{Element, Model, pb};
use crate::tensor::{Tensor, TensorData, numel};

/// Type and extents of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) element: Element,
    pub(crate) shape: Vec<usize>,
}

impl Seen {
    fn of(value: &Value<Flex>) -> Self {
        let element = match value {
            Value::Float(_) => Element::F32,
            Value::Host(host) => host.element,
        };
        Self { element, shape: value.shape() }
    }

    pub(crate) fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    fn bytes(&self) -> usize {
        let width = match self.element {
            Element::F64 | Element::I64 => 8,
            Element::F16 => 2,
            Element::I8 | Element::U8 | Element::Bool => 1,
            _ => 4,
        };
        width * self.numel()
    }

    /// A value of ones.
    pub(crate) fn ones(&self) -> Option<Tensor> {
        let count = numel(&self.shape).filter(|_| bounded(&self.shape).is_ok())?;
        let data = match self.element {
            Element::F32 | Element::F64 | Element::F16 => TensorData::F32(vec![1.0; count]),
            Element::I64 => TensorData::I64(vec![1; count]),
            Element::I32 => TensorData::I32(vec![1; count]),
            Element::I8 => TensorData::I8(vec![1; count]),
            Element::U8 => TensorData::U8(vec![1; count]),
            Element::Bool => TensorData::Bool(vec![true; count]),
            Element::Other(_) => return None,
        };
        Some(Tensor { shape: self.shape.clone(), data })
    }
}

/// One computation. An `If` makes as many as the branch that a constant chooses.
pub(crate) struct Ran {
    pub(crate) node: pb::NodeProto,
    pub(crate) inputs: Vec<Option<Seen>>,
    pub(crate) outputs: Vec<Seen>,
}

/// What became of one node of the graph.
#[derive(Default)]
pub(crate) struct Surveyed {
    /// By index of its outputs; `None` where that is not known.
    pub(crate) outputs: Vec<Option<Seen>>,
    /// Empty for what is computed once, before any example comes, and for what no output of the graph needs.
    pub(crate) ran: Vec<Ran>,
    /// Why it could not be computed.
    pub(crate) fault: Option<String>,
}

/// The report of [`survey`].
pub(crate) struct Survey {
    /// One for each node of the graph.
    pub(crate) nodes: Vec<Surveyed>,
    /// Most bytes of inputs, outputs and values between them at one moment of inference; `None` if a node could not be computed.
    pub(crate) peak: Option<usize>,
    /// Bytes of float values that the gradient reads again; `None` likewise.
    pub(crate) kept: Option<usize>,
}

/// Runs the graph on `inputs`, which are in the order of the model's. `trains` says which node has a parameter that a gradient changes.
///
/// # Errors
/// [`ModelError`] for initializers that cannot be read. A node that cannot be computed is noted, and those after it go on where the
/// file declares the shapes of its outputs (`declared`).
pub(crate) fn survey(
    model: &Model,
    inputs: Vec<Tensor>,
    trains: &dyn Fn(usize) -> bool,
    declared: &dyn Fn(&str) -> Option<Seen>,
) -> Result<Survey, ModelError> {
    let graph = model.graph();
    let outputs: Vec<String> = graph.output.iter().map(|o| o.name().to_owned()).collect();
    let mut compiler = Compiler::<Flex>::new(model, &[])?;
    let wanted = needed(graph, &[], &outputs);
    let mut compiled = Vec::with_capacity(graph.node.len());
    for node in &graph.node {
        let first = compiler.steps().len();
        let mut fault = None;
        if wanted.contains(&std::ptr::from_ref(node))
            && let Err(error) = guard("compiling", || compiler.node(node))
        {
            fault = Some(reason(error));
            compiler.reserve(node);
        }
        compiled.push(Compiled { steps: first..compiler.steps().len(), fault });
    }
    let slots = |names: &[String]| names.iter().map(|name| compiler.find(name)).collect::<Vec<_>>();
    let named: Vec<_> = graph.node.iter().map(|node| (slots(&node.input), slots(&node.output))).collect();
    let made: Vec<Vec<Option<usize>>> = compiler.steps().iter().map(|step| step.outputs.clone()).collect();
    let known = compiler.constants().map(|(slot, value)| (slot, Seen::of(value))).collect();
    let present: Vec<String> = outputs.into_iter().filter(|name| compiler.find(name).is_some()).collect();
    let read = model.inputs();
    let plan = compiler.finish(read.iter().map(|input| input.name.as_str()), &present)?;

    let mut run = Run::new(&plan, known);
    for (slot, input) in plan.inputs.iter().zip(inputs) {
        run.take(*slot, Value::from_tensor(input).map_err(|fault| fault.at("an input", "input"))?, None);
    }
    let mut nodes = Vec::with_capacity(graph.node.len());
    for (index, ((node, compiled), (read, written))) in graph.node.iter().zip(compiled).zip(&named).enumerate() {
        let mut surveyed = Surveyed { fault: compiled.fault, ..Surveyed::default() };
        for at in compiled.steps {
            match run.step(&plan.steps[at], &made[at], trains(index)) {
                Ok(ran) => surveyed.ran.push(ran),
                Err(fault) => surveyed.fault = surveyed.fault.or(Some(fault)),
            }
        }
        if surveyed.fault.is_some() {
            run.whole = false;
            let inputs = read.iter().map(|slot| slot.and_then(|slot| run.seen.get(&slot).cloned())).collect();
            for (slot, name) in written.iter().zip(&node.output) {
                let Some((slot, seen)) = slot.zip(declared(name)) else { continue };
                run.replace(slot, seen);
            }
            let outputs: Option<Vec<Seen>> = written.iter().flatten().map(|slot| run.seen.get(slot).cloned()).collect();
            surveyed.ran = outputs.map(|outputs| Ran { node: node.clone(), inputs, outputs }).into_iter().collect();
        }
        surveyed.outputs = written.iter().map(|slot| slot.and_then(|slot| run.seen.get(&slot).cloned())).collect();
        nodes.push(surveyed);
    }
    let (peak, kept) = (run.peak, run.kept.values().sum());
    Ok(Survey { nodes, peak: run.whole.then_some(peak), kept: run.whole.then_some(kept) })
}

struct Compiled {
    steps: Range<usize>,
    fault: Option<String>,
}

fn reason(error: ModelError) -> String {
    match error {
        ModelError::Unsupported { reason, .. }
        | ModelError::Shape { reason, .. }
        | ModelError::BadNode { reason, .. }
        | ModelError::Backend { reason, .. } => reason,
        other => other.to_string(),
    }
}

/// The run so far.
struct Run {
    values: Vec<Option<Value<Flex>>>,
    seen: HashMap<usize, Seen>,
    /// Whether a gradient flows through a slot.
    flows: HashSet<usize>,
    /// Slots that are no constants, and the buffer in which each lies: named by the slot that it was made for.
    buffers: HashMap<usize, usize>,
    /// Bytes of each buffer that is in use, and how many slots lie in it.
    live: HashMap<usize, (usize, usize)>,
    peak: usize,
    /// Bytes of the buffers, and the masks of dropout, that the gradient reads.
    kept: HashMap<(usize, bool), usize>,
    /// Whether every node was computed.
    whole: bool,
}

impl Run {
    fn new(plan: &Plan<Flex>, seen: HashMap<usize, Seen>) -> Self {
        let mut values: Vec<Option<Value<Flex>>> = vec![None; plan.names.len()];
        for (slot, constant) in &plan.constants {
            values[*slot] = Some(constant.clone());
        }
        let (flows, buffers, live, kept) = (HashSet::new(), HashMap::new(), HashMap::new(), HashMap::new());
        Self { values, seen, flows, buffers, live, peak: 0, kept, whole: true }
    }

    fn take(&mut self, slot: usize, value: Value<Flex>, shares: Option<usize>) {
        let seen = Seen::of(&value);
        let buffer = shares.unwrap_or(slot);
        self.live.entry(buffer).or_insert((seen.bytes(), 0)).1 += 1;
        self.buffers.insert(slot, buffer);
        self.seen.insert(slot, seen);
        self.values[slot] = Some(value);
    }

    /// A value of which only the shape is known.
    fn replace(&mut self, slot: usize, seen: Seen) {
        if let Some(value) = seen.ones().and_then(|ones| Value::from_tensor(ones).ok()) {
            self.values[slot] = Some(value);
        }
        self.seen.insert(slot, seen);
    }

    fn step(&mut self, step: &Step<Flex>, made: &[Option<usize>], trains: bool) -> Result<Ran, String> {
        let operands: Vec<_> = step.inputs.iter().map(|o| o.map(|o| o.slot)).collect();
        if operands.iter().flatten().any(|slot| self.values[*slot].is_none()) {
            return Err("what it reads could not be computed".to_owned());
        }
        let inputs = operands.iter().map(|slot| slot.and_then(|slot| self.seen.get(&slot).cloned())).collect();
        let values = Inputs::new(operands.iter().map(|slot| slot.and_then(|slot| self.values[slot].clone())).collect());
        let mut cx = Context { mode: Mode::Inference, updatable: vec![false; operands.len()], updates: Vec::new() };
        let results = guard(&step.label, || step.operator.run(values, &mut cx).map_err(|fault| fault.at(&step.label, step.node.op_type())));
        let results = results.map_err(reason)?;

        let outputs: Vec<Seen> = results.iter().map(Seen::of).collect();
        let mut unread = 0;
        let own = operands.first().copied().flatten().and_then(|slot| self.buffers.get(&slot).copied());
        for (at, value) in results.into_iter().enumerate() {
            let shares = own.filter(|_| at == 0 && is_view(step.node.op_type()));
            match (made.get(at).copied().flatten(), step.outputs.get(at).copied().flatten()) {
                (_, Some(slot)) => self.take(slot, value, shares),
                (slot, None) => {
                    unread += outputs[at].bytes();
                    self.seen.extend(slot.map(|slot| (slot, outputs[at].clone())));
                }
            }
        }
        self.peak = self.peak.max(self.live.values().map(|(bytes, _)| bytes).sum::<usize>() + unread);
        self.learn(step, trains);
        for operand in step.inputs.iter().flatten().filter(|o| o.last) {
            self.values[operand.slot] = None;
            let Some(buffer) = self.buffers.get(&operand.slot) else { continue };
            if let Some((_, users)) = self.live.get_mut(buffer) {
                *users -= 1;
                if *users == 0 {
                    self.live.remove(buffer);
                }
            }
        }
        Ok(Ran { node: step.node.clone(), inputs, outputs })
    }

    /// Notes what a gradient that flows through this step reads: what it reads and what it makes.
    fn learn(&mut self, step: &Step<Flex>, trains: bool) {
        let read: Vec<usize> = step.inputs.iter().flatten().map(|o| o.slot).collect();
        if !trains && !read.iter().any(|slot| self.flows.contains(slot)) {
            return;
        }
        let written: Vec<usize> = step.outputs.iter().flatten().copied().collect();
        for slot in read.iter().chain(&written) {
            let (Some(seen), Some(buffer)) = (self.seen.get(slot), self.buffers.get(slot)) else { continue };
            if seen.element == Element::F32 {
                self.kept.insert((*buffer, false), seen.bytes());
                if step.node.op_type() == "Dropout" && written.contains(slot) {
                    // In training it makes a value of its own, and a mask.
                    self.kept.insert((*slot, true), 2 * seen.bytes());
                }
            }
        }
        self.flows.extend(written);
    }
}

/// Operators that give their input's values in another shape, without a copy.
fn is_view(op: &str) -> bool {
    matches!(op, "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Identity" | "Dropout")
}

//! Decides which values become INT8, walking the graph once in order; what each operator
//! asks for is in [`super::rules`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Ranges, Target};
use crate::ModelError;
use crate::onnx::edit::{fresh, names, readers};
use crate::onnx::{Attributes, Element, Model, label, pb};

/// What is to be done, and the graph it is to be done to.
pub(super) struct Marks {
    pub(super) model: pb::ModelProto,
    /// Values to quantize, by name.
    pub(super) values: BTreeMap<String, Mark>,
    /// Biases to quantize, by name of their (unshared) initializer.
    pub(super) biases: BTreeMap<String, Bias>,
    pub(super) ranges: BTreeMap<String, (f32, f32)>,
    pub(super) quantized_nodes: usize,
    pub(super) float_nodes: Vec<String>,
}

/// How one value is quantized.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Mark {
    /// 8 bits, with the parameters of its own range.
    Activation,
    /// 8 bits, with the parameters of another value.
    Like(String),
    /// S8 constant, with a scale for each index of the axis or one for all.
    Weight { axis: Option<usize> },
}

/// Which values give a bias its scale.
pub(super) struct Bias {
    pub(super) input: String,
    pub(super) weight: String,
    pub(super) alpha: f32,
    pub(super) beta: f32,
}

/// Marks all but the nodes whose labels are in `float`.
pub(super) fn mark(model: Model, ranges: &Ranges, target: Target, float: &BTreeSet<String>) -> Result<Marks, ModelError> {
    let mut proto = model.into_proto();
    let graph = proto.graph.take().ok_or(ModelError::MissingGraph)?;
    let mut walk = Walk::new(graph, ranges, target);
    let kept: HashSet<usize> =
        walk.graph.node.iter().enumerate().filter(|(_, node)| float.contains(&label(node))).map(|(index, _)| index).collect();
    walk.adjust_ranges(&kept);
    for index in (0..walk.graph.node.len()).filter(|index| !kept.contains(index)) {
        if walk.node(index)? {
            walk.done.insert(index);
        }
    }
    let float_nodes = walk.float_nodes(ranges);
    let quantized_nodes = walk.done.len();
    let Walk { mut graph, values, biases, ranges, removed, .. } = walk;
    let mut index = 0;
    graph.node.retain(|_| {
        index += 1;
        !removed.contains(&(index - 1))
    });
    proto.graph = Some(graph);
    Ok(Marks { model: proto, values, biases, ranges, quantized_nodes, float_nodes })
}

/// The marks made so far. Its methods are the ones that `rules` is written in.
pub(super) struct Walk {
    pub(super) graph: pb::GraphProto,
    pub(super) target: Target,
    ranges: BTreeMap<String, (f32, f32)>,
    /// Dims of the f32 initializers.
    constants: HashMap<String, Vec<i64>>,
    readers: HashMap<String, usize>,
    /// Inputs and outputs of the graph.
    ends: HashSet<String>,
    taken: HashSet<String>,
    values: BTreeMap<String, Mark>,
    biases: BTreeMap<String, Bias>,
    /// Nodes that another one absorbed.
    removed: HashSet<usize>,
    /// Nodes that compute on INT8 values.
    done: HashSet<usize>,
}

impl Walk {
    fn new(graph: pb::GraphProto, ranges: &Ranges, target: Target) -> Self {
        let float = Element::F32.to_onnx();
        let constants =
            graph.initializer.iter().filter(|t| t.data_type() == float).map(|t| (t.name().to_owned(), t.dims.clone())).collect();
        let ends = graph.input.iter().chain(&graph.output).map(|v| v.name().to_owned()).collect();
        Self {
            target,
            ranges: ranges.iter().map(|(name, range)| (name.to_owned(), range)).collect(),
            constants,
            readers: readers(&graph),
            ends,
            taken: names(&graph),
            values: BTreeMap::new(),
            biases: BTreeMap::new(),
            removed: HashSet::new(),
            done: HashSet::new(),
            graph,
        }
    }

    /// What only a ReLU or Clip reads needs no more range than comes out of it, and shares lie between 0 and 1.
    fn adjust_ranges(&mut self, kept: &HashSet<usize>) {
        for (_, node) in self.graph.node.iter().enumerate().filter(|(index, _)| !kept.contains(index)) {
            let (Some(input), Some(output)) = (node.input.first(), node.output.first()) else { continue };
            match node.op_type() {
                "Relu" | "Clip" => {
                    let known = self.ranges.contains_key(input) && self.readers.get(input) == Some(&1);
                    if let Some(range) = self.ranges.get(output).copied().filter(|_| known) {
                        self.ranges.insert(input.clone(), range);
                    }
                }
                "Softmax" => {
                    if let Some(range) = self.ranges.get_mut(output) {
                        *range = (0.0, 1.0);
                    }
                }
                _ => {}
            }
        }
    }

    /// 8 bits with parameters of its own, unless it has a mark already.
    pub(super) fn activate(&mut self, name: &str) {
        if self.is_float(name) {
            self.values.entry(name.to_owned()).or_insert(Mark::Activation);
        }
    }

    /// 8 bits with the parameters of `input`.
    pub(super) fn activate_like(&mut self, output: &str, input: &str) {
        if self.is_float(output) {
            self.values.insert(output.to_owned(), Mark::Like(input.to_owned()));
        }
    }

    /// A constant gets a scale for each index of `axis`, or one for all where it has no such axis.
    pub(super) fn weight(&mut self, name: &str, axis: usize) {
        let Some(dims) = self.constants.get(name) else { return self.activate(name) };
        if axis < dims.len() {
            self.values.insert(name.to_owned(), Mark::Weight { axis: Some(axis) });
        } else {
            self.values.entry(name.to_owned()).or_insert(Mark::Weight { axis: None });
        }
    }

    /// Marks the constant bias of node `index`, input 2, with a value for each index of the weight's `axis`; one that other
    /// slots read too is copied first, because its scale depends on the node.
    pub(super) fn bias(&mut self, index: usize, axis: usize) -> Result<(), ModelError> {
        let [input, weight, bias, ..] = &self.graph.node[index].input[..] else { return Ok(()) };
        let (input, weight, bias) = (input.clone(), weight.clone(), bias.clone());
        let channels = self.constants.get(&weight).and_then(|dims| dims.get(axis));
        let fits = self.constants.get(&bias).is_some_and(|dims| dims.len() == 1 && dims.first() == channels);
        if !fits || !self.target.integer_bias() {
            return Ok(());
        }
        let is_gemm = self.graph.node[index].op_type() == "Gemm";
        let (mut alpha, mut beta) = (1.0, 1.0);
        if is_gemm {
            let attributes = Attributes::of(&self.graph.node[index]);
            (alpha, beta) = (attributes.float("alpha", 1.0)?, attributes.float("beta", 1.0)?);
            // A scale is above 0.
            if !(alpha.is_finite() && alpha > 0.0 && beta.is_finite()) {
                return Ok(());
            }
        }
        let mut name = bias.clone();
        if self.readers.get(&bias).copied().unwrap_or_default() > 1 {
            name = fresh(format!("{bias}_{index}"), &mut self.taken);
            let Some(original) = self.graph.initializer.iter().find(|t| t.name() == bias) else {
                return Ok(());
            };
            let copy = pb::TensorProto { name: Some(name.clone()), ..original.clone() };
            self.graph.initializer.push(copy);
        }
        let node = &mut self.graph.node[index];
        node.input[2].clone_from(&name);
        // The bias takes beta in.
        node.attribute.retain(|a| !is_gemm || a.name() != "beta");
        self.biases.insert(name, Bias { input, weight, alpha, beta });
        Ok(())
    }

    /// Lets whatever makes `input` make `output` instead of node `index`, if only this node reads `input`.
    pub(super) fn absorb(&mut self, index: usize, input: &str, output: &str) -> bool {
        let alone = self.readers.get(input) == Some(&1) && !self.ends.contains(input);
        if !(alone && self.ranges.contains_key(output) && self.ranges.contains_key(input)) {
            return false;
        }
        for name in self.graph.node.iter_mut().flat_map(|n| &mut n.output).filter(|o| *o == input) {
            *name = output.to_owned();
        }
        self.values.remove(input);
        self.removed.insert(index);
        true
    }

    pub(super) fn is_marked(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    pub(super) fn is_constant(&self, name: &str) -> bool {
        self.constants.contains_key(name)
    }

    pub(super) fn is_float(&self, name: &str) -> bool {
        self.is_constant(name) || self.ranges.contains_key(name)
    }

    pub(super) fn need(&self, values: &[&String]) -> Result<(), ModelError> {
        let Some(missing) = values.iter().find(|name| !self.is_float(name)) else { return Ok(()) };
        Err(ModelError::Calibration { tensor: (*missing).clone(), reason: "it has no finite range; calibrate this very model".into() })
    }

    /// Nodes that make float values and were not touched.
    fn float_nodes(&self, ranges: &Ranges) -> Vec<String> {
        let nodes = self.graph.node.iter().enumerate();
        nodes
            .filter(|(index, node)| {
                let float = node.output.iter().any(|o| ranges.get(o).is_some());
                float && !self.done.contains(index)
            })
            .map(|(_, node)| label(node))
            .collect()
    }
}

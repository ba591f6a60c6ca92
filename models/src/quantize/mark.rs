//! Decides which values become INT8, walking the graph once in order.
//!
//! The rules are those of ONNX Runtime's QDQ quantizer, operator by operator
//! (`onnxruntime/quantization/operators/*.py`, classes `QDQ*`).

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Ranges;
use crate::ModelError;
use crate::onnx::edit::{fresh, names, readers};
use crate::onnx::{Attributes, Element, Model, is_standard, label, pb};

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
    /// U8, with the parameters of its own range.
    Activation,
    /// U8, with the parameters of another value.
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

pub(super) fn mark(model: Model, ranges: &Ranges) -> Result<Marks, ModelError> {
    let mut proto = model.into_proto();
    let graph = proto.graph.take().ok_or(ModelError::MissingGraph)?;
    let mut walk = Walk::new(graph, ranges);
    walk.adjust_ranges();
    for index in 0..walk.graph.node.len() {
        walk.node(index)?;
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

struct Walk {
    graph: pb::GraphProto,
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
    fn new(graph: pb::GraphProto, ranges: &Ranges) -> Self {
        let float = Element::F32.to_onnx();
        let constants =
            graph.initializer.iter().filter(|t| t.data_type() == float).map(|t| (t.name().to_owned(), t.dims.clone())).collect();
        let ends = graph.input.iter().chain(&graph.output).map(|v| v.name().to_owned()).collect();
        Self {
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

    /// What only a ReLU or Clip reads needs no more range than comes out of it.
    fn adjust_ranges(&mut self) {
        for node in &self.graph.node {
            if !matches!(node.op_type(), "Relu" | "Clip") {
                continue;
            }
            let (Some(input), Some(output)) = (node.input.first(), node.output.first()) else { continue };
            let known = self.ranges.contains_key(input) && self.readers.get(input) == Some(&1);
            if let Some(range) = self.ranges.get(output).copied().filter(|_| known) {
                self.ranges.insert(input.clone(), range);
            }
        }
    }

    fn node(&mut self, index: usize) -> Result<(), ModelError> {
        let node = self.graph.node[index].clone();
        let (Some(input), Some(output)) = (node.input.first(), node.output.first()) else { return Ok(()) };
        if !is_standard(node.domain()) {
            return Ok(());
        }
        let marked = match node.op_type() {
            "Conv" => self.weighted(index, &node, 0)?,
            "Gemm" => {
                let axis = usize::from(Attributes::of(&node).int("transB", 0)? == 0);
                self.weighted(index, &node, axis)?
            }
            "MatMul" => self.matmul(&node)?,
            "Add" | "Mul" | "Concat" | "GlobalAveragePool" => self.elementwise(&node),
            "Relu" | "Clip" => self.activation(index, input, output),
            "MaxPool" | "AveragePool" | "Flatten" | "Reshape" | "Transpose" | "Squeeze" | "Unsqueeze" | "Slice" => {
                self.pass_through(input, output)
            }
            _ => false,
        };
        if marked {
            self.done.insert(index);
        }
        Ok(())
    }

    /// `Conv` and `Gemm`: INT8 weights by channel and an INT32 bias.
    fn weighted(&mut self, index: usize, node: &pb::NodeProto, axis: usize) -> Result<bool, ModelError> {
        let (input, output, Some(weight)) = (&node.input[0], &node.output[0], node.input.get(1)) else {
            return Ok(false);
        };
        self.need(&[input, output])?;
        self.activate(input);
        self.activate(output);
        self.weight(weight, axis);
        if let Some(bias) = node.input.get(2).filter(|b| !b.is_empty()) {
            self.bias(index, bias, input, weight, axis)?;
        }
        Ok(true)
    }

    fn matmul(&mut self, node: &pb::NodeProto) -> Result<bool, ModelError> {
        self.need(&[&node.output[0]])?;
        for name in node.input.iter().chain(&node.output) {
            if self.constants.contains_key(name) {
                self.weight(name, 1);
            } else {
                self.need(&[name])?;
                self.activate(name);
            }
        }
        Ok(true)
    }

    fn elementwise(&mut self, node: &pb::NodeProto) -> bool {
        // Arithmetic on shapes has no float values and stays as it is.
        if !node.output.iter().any(|o| self.is_float(o)) {
            return false;
        }
        for name in node.input.iter().chain(&node.output) {
            self.activate(name);
        }
        true
    }

    /// `Relu` and `Clip` vanish where the producer can write their output: U8 clips there.
    fn activation(&mut self, index: usize, input: &str, output: &str) -> bool {
        if !self.is_marked(input) {
            return false;
        }
        let absorbed = self.ranges.contains_key(output)
            && self.ranges.contains_key(input)
            && self.readers.get(input) == Some(&1)
            && !self.ends.contains(input);
        if absorbed {
            for name in self.graph.node.iter_mut().flat_map(|n| &mut n.output).filter(|o| *o == input) {
                *name = output.to_owned();
            }
            self.values.remove(input);
            self.removed.insert(index);
        } else {
            self.activate(input);
        }
        self.activate(output);
        true
    }

    /// Operators that only move values, or average them, keep their input's parameters.
    fn pass_through(&mut self, input: &str, output: &str) -> bool {
        if !self.is_marked(input) || !self.is_float(output) {
            return false;
        }
        self.values.insert(output.to_owned(), Mark::Like(input.to_owned()));
        true
    }

    fn activate(&mut self, name: &str) {
        if self.is_float(name) {
            self.values.entry(name.to_owned()).or_insert(Mark::Activation);
        }
    }

    fn weight(&mut self, name: &str, axis: usize) {
        let Some(dims) = self.constants.get(name) else { return self.activate(name) };
        let axis = Some(axis).filter(|a| *a < dims.len());
        self.values.insert(name.to_owned(), Mark::Weight { axis });
    }

    /// Marks a constant bias `[channels]`; one that other slots read too is copied first,
    /// because its scale depends on the node.
    fn bias(&mut self, index: usize, bias: &str, input: &str, weight: &str, axis: usize) -> Result<(), ModelError> {
        let channels = self.constants.get(weight).and_then(|dims| dims.get(axis));
        let fits = self.constants.get(bias).is_some_and(|dims| dims.len() == 1 && dims.first() == channels);
        if !fits {
            return Ok(());
        }
        let (mut alpha, mut beta) = (1.0, 1.0);
        if self.graph.node[index].op_type() == "Gemm" {
            let attributes = Attributes::of(&self.graph.node[index]);
            (alpha, beta) = (attributes.float("alpha", 1.0)?, attributes.float("beta", 1.0)?);
            // A scale is above 0.
            if !(alpha.is_finite() && alpha > 0.0 && beta.is_finite()) {
                return Ok(());
            }
        }
        let mut name = bias.to_owned();
        if self.readers.get(bias).copied().unwrap_or_default() > 1 {
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
        node.attribute.retain(|a| node.op_type.as_deref() != Some("Gemm") || a.name() != "beta");
        self.biases.insert(name, Bias { input: input.to_owned(), weight: weight.to_owned(), alpha, beta });
        Ok(())
    }

    fn is_marked(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    fn is_float(&self, name: &str) -> bool {
        self.constants.contains_key(name) || self.ranges.contains_key(name)
    }

    fn need(&self, values: &[&String]) -> Result<(), ModelError> {
        let Some(missing) = values.iter().find(|name| !self.is_float(name)) else { return Ok(()) };
        Err(ModelError::Calibration { tensor: (*missing).clone(), reason: "it has no range; calibrate this very model".into() })
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

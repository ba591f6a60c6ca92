//! Nodes and weights of a graph, one after the other.

use rand::Rng as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use crate::onnx::{Model, ValueInfo, make, pb, write_tensor};
use crate::tensor::{Tensor, TensorData};

/// A graph under construction.
pub(super) struct Builder {
    graph: pb::GraphProto,
    rng: ChaCha8Rng,
}

impl Builder {
    pub(super) fn new(name: &str, input: &ValueInfo, seed: u64) -> Self {
        let graph = pb::GraphProto { name: Some(name.into()), input: vec![make::value(input)], ..Default::default() };
        Self { graph, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Another input.
    pub(super) fn input(&mut self, input: &ValueInfo) {
        self.graph.input.push(make::value(input));
    }

    /// A node with one output, whose name it gives.
    pub(super) fn node(&mut self, op: &str, name: &str, inputs: &[&str], attributes: Vec<pb::AttributeProto>) -> String {
        let output = format!("{name}.out");
        self.graph.node.push(make::node(op, name, inputs, &[&output], attributes));
        output
    }

    /// A node of any outputs.
    pub(super) fn push(&mut self, node: pb::NodeProto) {
        self.graph.node.push(node);
    }

    /// A weight drawn from `[-bound, bound)`.
    pub(super) fn drawn(&mut self, name: &str, shape: &[usize], bound: f64) {
        let values = (0..shape.iter().product()).map(|_| self.uniform(bound)).collect();
        self.floats(name, shape, values);
    }

    /// A weight of equal values.
    pub(super) fn filled(&mut self, name: &str, shape: &[usize], value: f32) {
        self.floats(name, shape, vec![value; shape.iter().product()]);
    }

    pub(super) fn floats(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        let tensor = Tensor { shape: shape.to_vec(), data: TensorData::F32(values) };
        self.graph.initializer.push(write_tensor(name, &tensor));
    }

    /// A list of integers: axes, shapes.
    pub(super) fn ints(&mut self, name: &str, values: &[i64]) {
        let tensor = Tensor { shape: vec![values.len()], data: TensorData::I64(values.to_vec()) };
        self.graph.initializer.push(write_tensor(name, &tensor));
    }

    /// The last layer, from values `[batch, width]`, and the finished model.
    pub(super) fn finish(mut self, layer: &str, from: &str, width: usize, classes: usize) -> Model {
        self.drawn(&format!("{layer}.weight"), &[width, classes], glorot(width, classes));
        self.filled(&format!("{layer}.bias"), &[classes], 0.0);
        let inputs = [from, &format!("{layer}.weight"), &format!("{layer}.bias")];
        self.graph.node.push(make::node("Gemm", layer, &inputs, &["logits"], vec![]));
        self.graph.output = vec![make::value(&make::batched("logits", &[classes]))];
        super::finish(self.graph)
    }

    /// One value in `[-bound, bound)`, from the top 53 bits of the generator: the same on
    /// every platform and with every version of the sampling crates.
    fn uniform(&mut self, bound: f64) -> f32 {
        let unit = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (bound * (2.0 * unit - 1.0)) as f32
    }
}

/// Bound of He's uniform distribution.
pub(super) fn he(fan_in: usize) -> f64 {
    (6.0 / fan_in.max(1) as f64).sqrt()
}

/// Bound of Glorot's uniform distribution.
pub(super) fn glorot(fan_in: usize, fan_out: usize) -> f64 {
    (6.0 / (fan_in + fan_out).max(1) as f64).sqrt()
}

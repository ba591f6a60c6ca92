//! Builds a chain of layers, each reading what the last one made.

use rand::Rng as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use crate::onnx::{Model, make, pb, write_tensor};
use crate::tensor::{Tensor, TensorData};

/// A feed-forward chain under construction.
pub(super) struct Stack {
    graph: pb::GraphProto,
    /// Name of the last value.
    value: String,
    /// Its shape without the batch.
    shape: Vec<usize>,
    rng: ChaCha8Rng,
    convs: usize,
    denses: usize,
}

impl Stack {
    pub(super) fn new(name: &str, shape: &[usize], seed: u64) -> Self {
        let graph =
            pb::GraphProto { name: Some(name.into()), input: vec![make::value(&make::batched("input", shape))], ..Default::default() };
        Self { graph, value: "input".into(), shape: shape.to_vec(), rng: ChaCha8Rng::seed_from_u64(seed), convs: 0, denses: 0 }
    }

    /// 3 x 3 convolution, stride 1, same size.
    pub(super) fn conv3x3(&mut self, channels: usize) {
        self.convs += 1;
        let name = format!("conv{}", self.convs);
        let fan_in = 9 * self.shape[0];
        let shape = vec![channels, self.shape[0], 3, 3];
        self.weights(&name, shape, channels, he(fan_in));
        let attributes = vec![
            make::ints("dilations", &[1, 1]),
            make::int("group", 1),
            make::ints("kernel_shape", &[3, 3]),
            make::ints("pads", &[1, 1, 1, 1]),
            make::ints("strides", &[1, 1]),
        ];
        self.weighted("Conv", &name, attributes);
        self.shape[0] = channels;
    }

    /// 2 x 2 max pooling, stride 2; nothing where an extent is below 2.
    pub(super) fn max_pool2(&mut self) {
        if self.shape[1] < 2 || self.shape[2] < 2 {
            return;
        }
        let attributes = vec![make::ints("kernel_shape", &[2, 2]), make::ints("strides", &[2, 2])];
        self.plain("MaxPool", &format!("pool{}", self.convs), attributes);
        self.shape[1] /= 2;
        self.shape[2] /= 2;
    }

    pub(super) fn flatten(&mut self) {
        self.plain("Flatten", "flatten", vec![make::int("axis", 1)]);
        self.shape = vec![self.shape.iter().product()];
    }

    pub(super) fn relu(&mut self) {
        let name = match self.value.strip_suffix(".out") {
            Some(layer) => format!("{layer}.relu"),
            None => format!("{}.relu", self.value),
        };
        self.plain("Relu", &name, vec![]);
    }

    /// Fully connected layer before a ReLU.
    pub(super) fn dense(&mut self, width: usize) {
        let bound = he(self.shape[0]);
        self.gemm(width, bound);
    }

    /// The last layer, and the finished model.
    pub(super) fn last(mut self, classes: usize) -> Model {
        let bound = glorot(self.shape[0], classes);
        self.gemm(classes, bound);
        let node = self.graph.node.last_mut().expect("a layer was just added");
        node.output = vec!["logits".into()];
        self.graph.output = vec![make::value(&make::batched("logits", &[classes]))];
        super::finish(self.graph)
    }

    fn gemm(&mut self, width: usize, bound: f64) {
        self.denses += 1;
        let name = format!("fc{}", self.denses);
        self.weights(&name, vec![self.shape[0], width], width, bound);
        self.weighted("Gemm", &name, vec![]);
        self.shape = vec![width];
    }

    fn weights(&mut self, layer: &str, shape: Vec<usize>, outputs: usize, bound: f64) {
        let count = shape.iter().product();
        let values = (0..count).map(|_| self.uniform(bound)).collect();
        let weight = Tensor { shape, data: TensorData::F32(values) };
        let bias = Tensor { shape: vec![outputs], data: TensorData::F32(vec![0.0; outputs]) };
        self.graph.initializer.push(write_tensor(&format!("{layer}.weight"), &weight));
        self.graph.initializer.push(write_tensor(&format!("{layer}.bias"), &bias));
    }

    fn weighted(&mut self, op: &str, name: &str, attributes: Vec<pb::AttributeProto>) {
        let output = format!("{name}.out");
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let inputs = [self.value.as_str(), &weight, &bias];
        self.graph.node.push(make::node(op, name, &inputs, &[&output], attributes));
        self.value = output;
    }

    fn plain(&mut self, op: &str, name: &str, attributes: Vec<pb::AttributeProto>) {
        let output = format!("{name}.out");
        let node = make::node(op, name, &[&self.value], &[&output], attributes);
        self.graph.node.push(node);
        self.value = output;
    }

    /// One value in `[-bound, bound)`, from the top 53 bits of the generator: the same on
    /// every platform and with every version of the sampling crates.
    fn uniform(&mut self, bound: f64) -> f32 {
        let unit = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (bound * (2.0 * unit - 1.0)) as f32
    }
}

/// Bound of He's uniform distribution.
fn he(fan_in: usize) -> f64 {
    (6.0 / fan_in.max(1) as f64).sqrt()
}

/// Bound of Glorot's uniform distribution.
fn glorot(fan_in: usize, fan_out: usize) -> f64 {
    (6.0 / (fan_in + fan_out).max(1) as f64).sqrt()
}

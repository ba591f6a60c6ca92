//! Builds a chain of layers, each reading what the last one made.

use super::builder::{Builder, he};
use crate::onnx::{Model, make, pb};

/// A feed-forward chain under construction.
pub(super) struct Stack {
    builder: Builder,
    /// Name of the last value.
    value: String,
    /// Its shape without the batch.
    shape: Vec<usize>,
    convs: usize,
    denses: usize,
}

impl Stack {
    pub(super) fn new(name: &str, shape: &[usize], seed: u64) -> Self {
        let builder = Builder::new(name, &make::batched("input", shape), seed);
        Self { builder, value: "input".into(), shape: shape.to_vec(), convs: 0, denses: 0 }
    }

    /// 3 x 3 convolution, stride 1, same size.
    pub(super) fn conv3x3(&mut self, channels: usize) {
        self.convs += 1;
        let name = format!("conv{}", self.convs);
        let attributes = vec![
            make::ints("dilations", &[1, 1]),
            make::int("group", 1),
            make::ints("kernel_shape", &[3, 3]),
            make::ints("pads", &[1, 1, 1, 1]),
            make::ints("strides", &[1, 1]),
        ];
        self.weighted("Conv", &name, &[channels, self.shape[0], 3, 3], channels, 9 * self.shape[0], attributes);
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
        let name = format!("{}.relu", self.value.strip_suffix(".out").unwrap_or(&self.value));
        self.plain("Relu", &name, vec![]);
    }

    /// Fully connected layer before a ReLU.
    pub(super) fn dense(&mut self, width: usize) {
        self.denses += 1;
        let name = format!("fc{}", self.denses);
        self.weighted("Gemm", &name, &[self.shape[0], width], width, self.shape[0], vec![]);
        self.shape = vec![width];
    }

    /// The last layer, and the finished model.
    pub(super) fn last(self, classes: usize) -> Model {
        self.builder.finish(&format!("fc{}", self.denses + 1), &self.value, self.shape[0], classes)
    }

    /// A layer with drawn weights and zero biases, before a ReLU.
    fn weighted(&mut self, op: &str, name: &str, shape: &[usize], outputs: usize, fan_in: usize, attributes: Vec<pb::AttributeProto>) {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        self.builder.drawn(&weight, shape, he(fan_in));
        self.builder.filled(&bias, &[outputs], 0.0);
        self.value = self.builder.node(op, name, &[&self.value, &weight, &bias], attributes);
    }

    fn plain(&mut self, op: &str, name: &str, attributes: Vec<pb::AttributeProto>) {
        self.value = self.builder.node(op, name, &[&self.value], attributes);
    }
}

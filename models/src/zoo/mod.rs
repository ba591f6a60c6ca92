//! Built-in models, for those who bring none of their own.
//!
//! Each takes `input` `[batch, ...]` (f32, or tokens) and answers `logits` `[batch, classes]`, in
//! opset 17 and IR version 8, which every ONNX Runtime of the last years reads. Weights
//! are drawn from a seed: He's uniform distribution before a ReLU (He et al. 2015,
//! arXiv:1502.01852), Glorot's for the last layer (Glorot & Bengio 2010), zero biases.
//! Fully connected weights are stored `[in, out]` (`transB = 0`): training on that layout
//! is about twice as fast as on its transpose.

mod builder;
mod lstm;
mod mobilenet;
mod preprocess;
mod stack;
#[cfg(test)]
mod tests;
mod transformer;

use crate::ModelError;
use crate::onnx::{Dim, Element, Model, ValueInfo, make, pb, write_tensor};
use crate::tensor::{Tensor, TensorData};
pub use preprocess::{Interpolation, normalize, one_hot, resize};
use stack::Stack;

/// Operator set of the zoo's graphs.
pub const OPSET: i64 = 17;
/// IR version of the zoo's files.
pub const IR_VERSION: i64 = 8;

/// A multilayer perceptron with ReLU between its layers.
///
/// `inputs` features, one hidden layer for each width in `hidden`.
pub fn mlp(inputs: usize, hidden: &[usize], classes: usize, seed: u64) -> Model {
    let mut stack = Stack::new("mlp", &[inputs], seed);
    for &width in hidden {
        stack.dense(width);
        stack.relu();
    }
    stack.last(classes)
}

/// A small convolutional network for images `[channels, height, width]` of about 8 x 8 to
/// 32 x 32: two 3 x 3 convolutions (16 and 32 channels), each with ReLU and 2 x 2 max
/// pooling (left out where the image is smaller than 2), then 64 hidden units.
pub fn cnn(shape: [usize; 3], classes: usize, seed: u64) -> Model {
    convolutional("cnn", shape, 64, classes, seed)
}

/// The LeNet-like network of the training benchmarks, for images `[1, 28, 28]`: as [`cnn`]
/// with 128 hidden units; 206 922 parameters for 10 classes.
pub fn lenet(classes: usize, seed: u64) -> Model {
    convolutional("lenet", [1, 28, 28], 128, classes, seed)
}

/// A small MobileNetV2 for images `[channels, height, width]` of 16 x 16 and more: a 3 x 3 convolution and five inverted
/// residual blocks, each with batch normalization; 85 000 parameters and more. Images below 48 keep their size in the first.
pub fn mobilenet(shape: [usize; 3], classes: usize, seed: u64) -> Model {
    mobilenet::build(shape, classes, seed)
}

/// An LSTM over sequences `[steps, features]`, of which the last state answers. Weights as PyTorch draws them; forget gates
/// begin open (Jozefowicz et al. 2015).
pub fn lstm(shape: [usize; 2], hidden: usize, classes: usize, seed: u64) -> Model {
    lstm::build(shape, hidden, classes, false, seed)
}

/// As [`lstm`], with a second input `lengths`, int32 `[batch]`: the steps that each sequence has. What comes behind them is padding
/// and is not read.
pub fn lstm_with_lengths(shape: [usize; 2], hidden: usize, classes: usize, seed: u64) -> Model {
    lstm::build(shape, hidden, classes, true, seed)
}

/// A transformer encoder that classifies token sequences: `input` is int64 `[batch, length]`, of which token 0 is padding.
/// Normalization comes before attention and before the two linear layers, the mean over all real tokens answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transformer {
    /// Tokens in a sequence.
    pub length: usize,
    /// Distinct tokens, with padding.
    pub vocabulary: usize,
    /// Floats for each token.
    pub width: usize,
    /// Attention heads; they divide the width.
    pub heads: usize,
    /// Layers.
    pub layers: usize,
}

impl Transformer {
    /// The model.
    ///
    /// # Errors
    /// [`ModelError::Setting`] if an extent is 0, or the heads do not divide the width.
    pub fn build(&self, classes: usize, seed: u64) -> Result<Model, ModelError> {
        let bad = |name, value: usize, reason: &str| Err(ModelError::Setting { name, value: value.to_string(), reason: reason.into() });
        if self.length == 0 || self.vocabulary < 2 {
            return bad("vocabulary", self.vocabulary, "a sequence holds a token, which is not the padding");
        }
        if self.heads == 0 || self.width == 0 || !self.width.is_multiple_of(self.heads) {
            return bad("heads", self.heads, &format!("the width, {}, is a multiple of the heads", self.width));
        }
        Ok(transformer::build(self, classes, seed))
    }
}

fn convolutional(name: &str, shape: [usize; 3], hidden: usize, classes: usize, seed: u64) -> Model {
    let mut stack = Stack::new(name, &shape, seed);
    for channels in [16, 32] {
        stack.conv3x3(channels);
        stack.relu();
        stack.max_pool2();
    }
    stack.flatten();
    stack.dense(hidden);
    stack.relu();
    stack.last(classes)
}

/// A preprocessing graph for [`crate::compose()`]: `scaled = input * factor`, both
/// `[batch, ...shape]`. The factor is a scalar, so training never changes it.
pub fn scale(shape: &[usize], factor: f32) -> Model {
    let graph = pb::GraphProto {
        name: Some("scale".into()),
        node: vec![make::node("Mul", "scale", &["input", "factor"], &["scaled"], vec![])],
        initializer: vec![write_tensor("factor", &Tensor::scalar(factor))],
        input: vec![make::value(&make::batched("input", shape))],
        output: vec![make::value(&make::batched("scaled", shape))],
        ..Default::default()
    };
    finish(graph)
}

/// A preprocessing graph for [`crate::compose()`] that makes rows of features: `rows = (flattened input - mean) * factor`,
/// `[batch, ...shape]` to `[batch, product of shape]`. Both numbers are scalars, so training never changes them.
pub fn rows(shape: &[usize], mean: f32, factor: f32) -> Model {
    let features: usize = shape.iter().product();
    let graph = pb::GraphProto {
        name: Some("rows".into()),
        node: vec![
            make::node("Flatten", "flatten", &["input"], &["flat"], vec![make::int("axis", 1)]),
            make::node("Sub", "centre", &["flat", "mean"], &["centred"], vec![]),
            make::node("Mul", "scale", &["centred", "factor"], &["rows"], vec![]),
        ],
        initializer: vec![write_tensor("mean", &Tensor::scalar(mean)), write_tensor("factor", &Tensor::scalar(factor))],
        input: vec![make::value(&make::batched("input", shape))],
        output: vec![make::value(&make::batched("rows", &[features]))],
        ..Default::default()
    };
    finish(graph)
}

/// A loss graph for [`crate::train::TrainConfig::loss_graph`]: softmax cross-entropy of `output` `[batch, classes]` and `target`, int64
/// `[batch]`. A loss of one's own may begin as this.
pub fn cross_entropy() -> Model {
    let batch = || Dim::Symbol("batch".into());
    let value = |name: &str, element, shape| make::value(&ValueInfo { name: name.to_owned(), element, shape });
    let graph = pb::GraphProto {
        name: Some("cross_entropy".into()),
        node: vec![
            make::node("LogSoftmax", "log", &["output"], &["log"], vec![make::int("axis", 1)]),
            make::node("Unsqueeze", "column", &["target", "classes"], &["column"], vec![]),
            make::node("GatherElements", "own", &["log", "column"], &["own"], vec![make::int("axis", 1)]),
            make::node("Squeeze", "row", &["own", "classes"], &["row"], vec![]),
            make::node("Neg", "negative", &["row"], &["loss"], vec![]),
        ],
        initializer: vec![write_tensor("classes", &Tensor { shape: vec![1], data: TensorData::I64(vec![1]) })],
        input: vec![
            value("output", Element::F32, vec![batch(), Dim::Symbol("classes".into())]),
            value("target", Element::I64, vec![batch()]),
        ],
        output: vec![value("loss", Element::F32, vec![batch()])],
        ..Default::default()
    };
    finish(graph)
}

fn finish(graph: pb::GraphProto) -> Model {
    let proto = pb::ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("sapwood".into()),
        producer_version: Some(env!("CARGO_PKG_VERSION").into()),
        graph: Some(graph),
        opset_import: vec![pb::OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
        ..Default::default()
    };
    Model::new(proto).expect("the zoo builds well-formed graphs")
}

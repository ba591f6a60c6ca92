//! Built-in models, for those who bring none of their own.
//!
//! Each takes `input` `[batch, ...]` (f32) and answers `logits` `[batch, classes]`, in
//! opset 17 and IR version 8, which every ONNX Runtime of the last years reads. Weights
//! are drawn from a seed: He's uniform distribution before a ReLU (He et al. 2015,
//! arXiv:1502.01852), Glorot's for the last layer (Glorot & Bengio 2010), zero biases.
//! Fully connected weights are stored `[in, out]` (`transB = 0`): training on that layout
//! is about twice as fast as on its transpose.

mod stack;
#[cfg(test)]
mod tests;

use crate::onnx::{Model, make, pb, write_tensor};
use crate::tensor::Tensor;
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

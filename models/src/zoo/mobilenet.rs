//! Inverted residual blocks with depthwise convolutions (MobileNetV2, Sandler et al. 2018, arXiv:1801.04381, section 3).

use super::builder::{Builder, he};
use crate::onnx::{Model, make, pb};

/// Channels read and written by each block, and its stride.
const BLOCKS: [(usize, usize, usize); 5] = [(16, 24, 2), (24, 24, 1), (24, 48, 2), (48, 48, 1), (48, 80, 2)];
/// How much wider a block is inside.
const EXPANSION: usize = 4;
/// A smaller image is not made smaller at once.
const SMALL: usize = 48;

/// See [`super::mobilenet`].
pub(super) fn build(shape: [usize; 3], classes: usize, seed: u64) -> Model {
    let mut net = Net(Builder::new("mobilenet", &make::batched("input", &shape), seed));
    net.0.floats("zero", &[], vec![0.0]);
    net.0.floats("six", &[], vec![6.0]);
    let stride = if shape[1].min(shape[2]) < SMALL { 1 } else { 2 };
    let mut value = net.conv("stem", "input", [shape[0], 16], 3, stride, 1);
    value = net.relu6("stem", &value);
    for (i, (read, written, stride)) in BLOCKS.into_iter().enumerate() {
        let (block, wide) = (format!("block{}", i + 1), read * EXPANSION);
        let mut inner = net.conv(&format!("{block}.expand"), &value, [read, wide], 1, 1, 1);
        inner = net.relu6(&format!("{block}.expand"), &inner);
        inner = net.conv(&format!("{block}.depthwise"), &inner, [wide, wide], 3, stride, wide);
        inner = net.relu6(&format!("{block}.depthwise"), &inner);
        inner = net.conv(&format!("{block}.project"), &inner, [wide, written], 1, 1, 1);
        let residual = stride == 1 && read == written;
        value = if residual { net.0.node("Add", &format!("{block}.add"), &[&value, &inner], vec![]) } else { inner };
    }
    value = net.0.node("GlobalAveragePool", "pool", &[&value], vec![]);
    value = net.0.node("Flatten", "flatten", &[&value], vec![make::int("axis", 1)]);
    net.0.finish("fc", &value, BLOCKS[BLOCKS.len() - 1].1, classes)
}

struct Net(Builder);

impl Net {
    /// Convolution of the same size over `stride`, without a bias, and batch normalization.
    fn conv(&mut self, name: &str, from: &str, [read, written]: [usize; 2], kernel: usize, stride: usize, groups: usize) -> String {
        let weight = format!("{name}.weight");
        self.0.drawn(&weight, &[written, read / groups, kernel, kernel], he(kernel * kernel * read / groups));
        let (pad, kernel, stride) = ((kernel / 2) as i64, kernel as i64, stride as i64);
        let attributes: Vec<pb::AttributeProto> = vec![
            make::ints("dilations", &[1, 1]),
            make::int("group", groups as i64),
            make::ints("kernel_shape", &[kernel, kernel]),
            make::ints("pads", &[pad; 4]),
            make::ints("strides", &[stride, stride]),
        ];
        let value = self.0.node("Conv", name, &[from, &weight], attributes);
        let operands = [("scale", 1.0), ("bias", 0.0), ("mean", 0.0), ("variance", 1.0)].map(|(what, value)| {
            let operand = format!("{name}.norm.{what}");
            self.0.filled(&operand, &[written], value);
            operand
        });
        let [scale, bias, mean, variance] = &operands;
        self.0.node("BatchNormalization", &format!("{name}.norm"), &[&value, scale, bias, mean, variance], vec![])
    }

    fn relu6(&mut self, layer: &str, from: &str) -> String {
        self.0.node("Clip", &format!("{layer}.relu6"), &[from, "zero", "six"], vec![])
    }
}

//! A small encoder over tokens, normalized before each part (Vaswani et al. 2017, arXiv:1706.03762; Xiong et al. 2020,
//! arXiv:2002.04745).

use super::Transformer;
use super::builder::{Builder, glorot, he};
use crate::onnx::{Element, Model, ValueInfo, make};

/// Where a padded place's score ends up: e to this is 0.
const NEVER: f32 = -1e9;

/// See [`Transformer`].
pub(super) fn build(t: &Transformer, classes: usize, seed: u64) -> Model {
    let input = ValueInfo { element: Element::I64, ..make::batched("input", &[t.length]) };
    let mut net = Net { builder: Builder::new("transformer", &input, seed), t };
    let (length, width) = (t.length, t.width);
    net.builder.drawn("tokens", &[t.vocabulary, width], glorot(width, width));
    net.builder.drawn("places", &[length, width], glorot(width, width));
    for (name, values) in [("padding", vec![0]), ("across", vec![1]), ("apart", vec![1, 2]), ("behind", vec![2])] {
        net.builder.ints(name, &values);
    }
    let heads = t.heads as i64;
    net.builder.ints("split", &[0, length as i64, heads, (width / t.heads) as i64]);
    net.builder.ints("joined", &[0, length as i64, width as i64]);
    net.builder.floats("never", &[], vec![NEVER]);
    net.builder.floats("always", &[], vec![0.0]);
    net.builder.floats("one", &[], vec![1.0]);
    net.builder.floats("temperature", &[], vec![1.0 / ((width / t.heads) as f32).sqrt()]);

    let b = &mut net.builder;
    let padded = b.node("Equal", "padded", &["input", "padding"], vec![]);
    let apart = b.node("Unsqueeze", "padded.apart", &[&padded, "apart"], vec![]);
    let mask = b.node("Where", "mask", &[&apart, "never", "always"], vec![]);
    let embedded = b.node("Gather", "embed", &["tokens", "input"], vec![]);
    let mut value = b.node("Add", "place", &[&embedded, "places"], vec![]);
    for layer in 1..=t.layers {
        let attended = net.attention(&format!("layer{layer}.attention"), &value, &mask);
        value = net.builder.node("Add", &format!("layer{layer}.attended"), &[&value, &attended], vec![]);
        let thought = net.feed_forward(&format!("layer{layer}.mlp"), &value);
        value = net.builder.node("Add", &format!("layer{layer}.out"), &[&value, &thought], vec![]);
    }
    value = net.normalized("norm", &value);

    // The mean over what is no padding.
    let b = &mut net.builder;
    let real = b.node("Not", "real", &[&padded], vec![]);
    let real = b.node("Cast", "real.float", &[&real], vec![make::int("to", i64::from(Element::F32.to_onnx()))]);
    let real = b.node("Unsqueeze", "real.behind", &[&real, "behind"], vec![]);
    let kept = b.node("Mul", "kept", &[&value, &real], vec![]);
    let dropped = vec![make::int("keepdims", 0)];
    let total = b.node("ReduceSum", "total", &[&kept, "across"], dropped.clone());
    let count = b.node("ReduceSum", "count", &[&real, "across"], dropped);
    let count = b.node("Max", "count.least", &[&count, "one"], vec![]);
    let mean = b.node("Div", "mean", &[&total, &count], vec![]);
    net.builder.finish("fc", &mean, width, classes)
}

struct Net<'a> {
    builder: Builder,
    t: &'a Transformer,
}

impl Net<'_> {
    fn normalized(&mut self, name: &str, from: &str) -> String {
        let (scale, bias) = (format!("{name}.scale"), format!("{name}.bias"));
        self.builder.filled(&scale, &[self.t.width], 1.0);
        self.builder.filled(&bias, &[self.t.width], 0.0);
        self.builder.node("LayerNormalization", name, &[from, &scale, &bias], vec![make::int("axis", -1)])
    }

    fn linear(&mut self, name: &str, from: &str, [read, written]: [usize; 2], bound: f64) -> String {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        self.builder.drawn(&weight, &[read, written], bound);
        self.builder.filled(&bias, &[written], 0.0);
        let product = self.builder.node("MatMul", &format!("{name}.product"), &[from, &weight], vec![]);
        self.builder.node("Add", name, &[&product, &bias], vec![])
    }

    fn attention(&mut self, name: &str, from: &str, mask: &str) -> String {
        let width = self.t.width;
        let from = self.normalized(&format!("{name}.norm"), from);
        // Keys stand with their axis last, ready for the product.
        let [query, key, value] = [("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])].map(|(what, order)| {
            let name = format!("{name}.{what}");
            let all = self.linear(&name, &from, [width, width], glorot(width, width));
            let split = self.builder.node("Reshape", &format!("{name}.split"), &[&all, "split"], vec![]);
            self.builder.node("Transpose", &format!("{name}.heads"), &[&split], vec![make::ints("perm", &order)])
        });
        let b = &mut self.builder;
        let scores = b.node("MatMul", &format!("{name}.scores"), &[&query, &key], vec![]);
        let scores = b.node("Mul", &format!("{name}.scaled"), &[&scores, "temperature"], vec![]);
        let scores = b.node("Add", &format!("{name}.masked"), &[&scores, mask], vec![]);
        let shares = b.node("Softmax", &format!("{name}.shares"), &[&scores], vec![make::int("axis", -1)]);
        let mixed = b.node("MatMul", &format!("{name}.mixed"), &[&shares, &value], vec![]);
        let mixed = b.node("Transpose", &format!("{name}.places"), &[&mixed], vec![make::ints("perm", &[0, 2, 1, 3])]);
        let joined = b.node("Reshape", &format!("{name}.joined"), &[&mixed, "joined"], vec![]);
        self.linear(&format!("{name}.output"), &joined, [width, width], glorot(width, width))
    }

    fn feed_forward(&mut self, name: &str, from: &str) -> String {
        let (width, wide) = (self.t.width, 2 * self.t.width);
        let from = self.normalized(&format!("{name}.norm"), from);
        let inner = self.linear(&format!("{name}.first"), &from, [width, wide], he(width));
        let inner = self.builder.node("Relu", &format!("{name}.relu"), &[&inner], vec![]);
        self.linear(&format!("{name}.second"), &inner, [wide, width], glorot(wide, width))
    }
}

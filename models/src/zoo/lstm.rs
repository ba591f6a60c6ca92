//! One LSTM layer over a sequence, of which the last state answers: after all steps, or after as many as each sequence has.

use super::builder::Builder;
use crate::onnx::{Dim, Element, Model, ValueInfo, make};

/// See [`super::lstm`].
pub(super) fn build([steps, features]: [usize; 2], hidden: usize, classes: usize, lengths: bool, seed: u64) -> Model {
    let mut net = Builder::new("lstm", &make::batched("input", &[steps, features]), seed);
    let bound = 1.0 / (hidden.max(1) as f64).sqrt();
    net.drawn("lstm.weight", &[1, 4 * hidden, features], bound);
    net.drawn("lstm.recurrence", &[1, 4 * hidden, hidden], bound);
    // Gates in ONNX's order: input, output, forget, cell; once for the input and once for the state.
    let bias = (0..8 * hidden).map(|i| if i / hidden.max(1) == 2 { 1.0 } else { 0.0 }).collect();
    net.floats("lstm.bias", &[1, 8 * hidden], bias);
    net.ints("direction", &[0]);
    let by_step = net.node("Transpose", "by_step", &["input"], vec![make::ints("perm", &[1, 0, 2])]);
    let mut inputs = vec![by_step.as_str(), "lstm.weight", "lstm.recurrence", "lstm.bias"];
    if lengths {
        let shape = vec![Dim::Symbol("batch".into())];
        net.input(&ValueInfo { name: "lengths".into(), element: Element::I32, shape });
        inputs.push("lengths");
    }
    net.push(make::node("LSTM", "lstm", &inputs, &["", "lstm.state"], vec![make::int("hidden_size", hidden as i64)]));
    let state = net.node("Squeeze", "last", &["lstm.state", "direction"], vec![]);
    net.finish("fc", &state, hidden, classes)
}

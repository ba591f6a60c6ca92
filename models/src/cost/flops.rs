//! Floating-point operations of one node, counted by its shapes.
//!
//! A multiply and an add are two. A dot product of n terms counts 2n, with its bias or without. A function of one value (`Exp`, `Tanh`,
//! `Gelu`, a comparison with a bound) counts one, whatever it costs. Moving values, and arithmetic on integers and truth values, counts
//! nothing.

use crate::interpreter::survey::{Ran, Seen};
use crate::onnx::{Attributes, Element, is_standard};

/// For each value: mean, difference, square, mean of squares, quotient, scale, bias.
const NORMALIZATION: u64 = 7;
/// Square, mean of squares, quotient, scale.
const RMS: u64 = 4;
/// Largest value, difference, exponential, sum, quotient.
const SOFTMAX: u64 = 5;
/// Scale and shift, which hold mean and variance.
const BATCH_NORM: u64 = 2;
/// For each unit of a state: three gates' sigmoids, the candidate's tanh; f·c + i·g; o·tanh(c).
const LSTM: u64 = 9;
/// Two sigmoids, a tanh; r·(Rh + b); (1 - z)·g + z·h.
const GRU: u64 = 8;

/// `None` for an operator, or a use of one, whose work is not known.
pub(super) fn flops(ran: &Ran) -> Option<u64> {
    let (node, inputs, outputs) = (&ran.node, &ran.inputs, &ran.outputs);
    if !is_standard(node.domain()) {
        return None;
    }
    let input = |at: usize| inputs.get(at).and_then(Option::as_ref);
    let size = |at: usize| input(at).map(|seen| seen.numel() as u64);
    let made: u64 = outputs.iter().filter(|seen| seen.element == Element::F32).map(|seen| seen.numel() as u64).sum();
    let first = outputs.first().map(|seen| seen.numel() as u64);
    let float = input(0).is_some_and(|seen| seen.element == Element::F32);
    Some(match node.op_type() {
        "Conv" => 2 * first? * terms(input(1)?)?,
        "ConvTranspose" => 2 * size(0)? * terms(input(1)?)?,
        "MatMul" => 2 * first? * *input(0)?.shape.last()? as u64,
        "Gemm" => {
            let transposed = Attributes::of(node).int("transA", 0).ok()? != 0;
            2 * first? * *input(0)?.shape.get(usize::from(!transposed))? as u64
        }
        op @ ("LSTM" | "GRU" | "RNN") => {
            let (weight, state) = (input(1)?, input(2)?);
            let (directions, hidden, features) = (*state.shape.first()?, *state.shape.last()?, *weight.shape.last()?);
            let steps = (input(0)?.numel() / features.max(1)) as u64;
            let each = match op {
                "LSTM" => LSTM,
                "GRU" => GRU,
                _ => 1,
            };
            let peepholes = if op == "LSTM" { size(7).unwrap_or(0) } else { 0 };
            steps * (2 * (weight.numel() + state.numel()) as u64 + 2 * peepholes + each * (directions * hidden) as u64)
        }
        "BatchNormalization" => BATCH_NORM * first?,
        "LayerNormalization" | "InstanceNormalization" | "GroupNormalization" => NORMALIZATION * first?,
        "RMSNormalization" => RMS * first?,
        "Softmax" | "LogSoftmax" => SOFTMAX * first?,
        "MaxPool" | "AveragePool" => first? * Attributes::of(node).ints("kernel_shape").ok()??.iter().map(|k| *k as u64).product::<u64>(),
        "QuantizeLinear" | "DequantizeLinear" => 2 * first?,
        "Sum" | "Mean" | "Max" | "Min" => made * (inputs.len() as u64).saturating_sub(1),
        "GlobalAveragePool" | "GlobalMaxPool" | "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL1"
        | "ReduceL2" | "ReduceSumSquare" | "ReduceLogSum" | "ReduceLogSumExp" | "CumSum"
            if float =>
        {
            size(0)?
        }
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "CumSum" => 0,
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" | "Neg" | "Abs" | "Sqrt" | "Exp" | "Log" | "Reciprocal" | "Sin" | "Cos" | "Floor"
        | "Ceil" | "Round" | "Sign" | "Relu" | "LeakyRelu" | "Sigmoid" | "Tanh" | "Elu" | "Selu" | "Softplus" | "Softsign"
        | "HardSigmoid" | "HardSwish" | "Gelu" | "Erf" | "Mish" | "Clip" | "PRelu" => made,
        "Constant" | "ConstantOfShape" | "Shape" | "Size" | "Range" | "Cast" | "CastLike" | "Dropout" | "Identity" | "Reshape"
        | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose" | "Expand" | "Slice" | "Split" | "Concat" | "Gather" | "GatherElements"
        | "GatherND" | "Pad" | "Tile" | "Where" | "OneHot" | "Trilu" | "TopK" | "ArgMax" | "ArgMin" | "Equal" | "Less" | "LessOrEqual"
        | "Greater" | "GreaterOrEqual" | "And" | "Or" | "Xor" | "Not" | "IsNaN" | "NonZero" => 0,
        _ => return None,
    })
}

/// Terms of the dot product behind each output of a convolution: channels of a group times the kernel.
fn terms(weight: &Seen) -> Option<u64> {
    Some((weight.numel() / (*weight.shape.first()?).max(1)) as u64)
}

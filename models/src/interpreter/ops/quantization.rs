//! `QuantizeLinear` and `DequantizeLinear`.
//!
//! <https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html>,
//! <https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html>
//!
//! `q = saturate(round(x / scale) + zero)`, halves to even, and `x = (q - zero) * scale`; one
//! scale for the tensor or one per index of `axis`. Types are u8 and i8, and i32 for
//! dequantizing (biases); 16-bit, 4-bit and 8-bit float types and blocks (opset 21) are
//! refused. This computes what a quantized graph means, node by node in f32, to check one
//! against the runtime that serves it; it is no fast path, and no gradient flows through.

use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Host, Value, axis, dims, floats, read};
use crate::onnx::Element;

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "QuantizeLinear" => quantize,
        "DequantizeLinear" => dequantize,
        _ => return None,
    })
}

/// Axis of per-channel scales.
fn channels(spec: &Spec<'_>) -> Result<i64, Fault> {
    spec.arity(2, 3)?;
    // Only 8-bit floats saturate or not.
    let _ = spec.int("saturate");
    if spec.int("block_size").unwrap_or(0) != 0 {
        return Err(Fault::unsupported("blocks are not computed"));
    }
    Ok(spec.int("axis").unwrap_or(1))
}

/// Scale and zero point of each element of a tensor.
struct Grid {
    scales: Vec<f32>,
    zeros: Vec<i64>,
    /// Elements behind one index of the axis.
    inner: usize,
}

impl Grid {
    fn new(shape: &[usize], along: i64, scales: Vec<f32>, zeros: Option<Vec<i64>>) -> Result<Self, Fault> {
        let zeros = zeros.unwrap_or_else(|| vec![0; scales.len()]);
        let inner = match scales.len() {
            1 => 1,
            n => {
                let along = axis(along, shape.len())?;
                if shape[along] != n {
                    return Err(Fault::shape(format!("{n} scales for axis {along} of {shape:?}")));
                }
                shape[along + 1..].iter().product()
            }
        };
        if zeros.len() != scales.len() {
            return Err(Fault::shape(format!("{} scales and {} zero points", scales.len(), zeros.len())));
        }
        if let Some(scale) = scales.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            return Err(Fault::broken(format!("a scale is {scale}")));
        }
        Ok(Self { scales, zeros, inner: inner.max(1) })
    }

    fn at(&self, i: usize) -> (f32, i64) {
        let channel = i / self.inner % self.scales.len();
        (self.scales[channel], self.zeros[channel])
    }
}

struct Quantize {
    axis: i64,
    /// The type asked for where there is no zero point to tell it.
    element: Element,
}

fn quantize<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    let axis = channels(spec)?;
    if spec.int("precision").unwrap_or(0) > 1 {
        return Err(Fault::unsupported("only f32 is divided"));
    }
    let element = match spec.int("output_dtype").unwrap_or(0) {
        0 => Element::U8,
        code => Element::from_onnx(i32::try_from(code).unwrap_or(0)),
    };
    Ok(Box::new(Quantize { axis, element }))
}

impl<B: Engine> Operator<B> for Quantize {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.float(0)?;
        let scales = read::<B>(inputs.float(1)?)?;
        let zero = inputs.optional_host(2)?;
        let element = zero.as_ref().map_or(self.element, |z| z.element);
        let (low, high) = match element {
            Element::U8 => (0.0, 255.0),
            Element::I8 => (-128.0, 127.0),
            other => return Err(Fault::unsupported(format!("{other:?} is not computed"))),
        };
        let shape = dims::<B>(&x);
        let grid = Grid::new(&shape, self.axis, scales, zero.map(|z| z.data))?;
        let quantum = |(i, v): (usize, f32)| {
            let (scale, zero) = grid.at(i);
            ((v / scale).round_ties_even() + zero as f32).clamp(low, high) as i64
        };
        let data = read::<B>(x)?.into_iter().enumerate().map(quantum).collect();
        Ok(vec![Value::Host(Host::new(element, shape, data))])
    }
}

struct Dequantize {
    axis: i64,
}

fn dequantize<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    let axis = channels(spec)?;
    if !matches!(spec.int("output_dtype").unwrap_or(0), 0 | 1) {
        return Err(Fault::unsupported("only f32 is given"));
    }
    Ok(Box::new(Dequantize { axis }))
}

impl<B: Engine> Operator<B> for Dequantize {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let q = inputs.host(0)?;
        if !matches!(q.element, Element::U8 | Element::I8 | Element::I32) {
            return Err(Fault::unsupported(format!("{:?} is not computed", q.element)));
        }
        let scales = read::<B>(inputs.float(1)?)?;
        let grid = Grid::new(&q.shape, self.axis, scales, inputs.optional_host(2)?.map(|z| z.data))?;
        let value = |(i, q): (usize, &i64)| {
            let (scale, zero) = grid.at(i);
            (q - zero) as f32 * scale
        };
        let values = q.data.iter().enumerate().map(value).collect();
        Ok(vec![Value::Float(floats::<B>(values, &q.shape))])
    }
}

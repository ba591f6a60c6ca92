//! `Softmax` and `LogSoftmax`.
//!
//! <https://onnx.ai/onnx/operators/onnx__Softmax.html>
//!
//! From opset 13 along one axis (default -1). Before, the axis (default 1) split the shape
//! in two and the softmax ran over all of the second part.

use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Value, axis, dims, reshape};
use crate::kernel::softmax::Softmax as Kernel;

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "Softmax" | "LogSoftmax" => softmax,
        _ => return None,
    })
}

struct Softmax {
    axis: i64,
    log: bool,
    /// The rule before opset 13.
    flatten: bool,
}

fn softmax<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 1)?;
    let flatten = spec.opset < 13;
    let axis = spec.int("axis").unwrap_or(if flatten { 1 } else { -1 });
    Ok(Box::new(Softmax { axis, log: spec.op() == "LogSoftmax", flatten }))
}

impl<B: Engine> Operator<B> for Softmax {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.float(0)?;
        let shape = dims::<B>(&x);
        let mut along = axis(self.axis, shape.len())?;
        if shape.contains(&0) {
            return Err(Fault::shape(format!("input {shape:?} is empty")));
        }
        let mut x = x;
        if self.flatten {
            let (rows, width) = (shape[..along].iter().product(), shape[along..].iter().product());
            x = reshape::<B>(x, &[rows, width]);
            along = 1;
        }
        let last = along + 1 == dims::<B>(&x).len();
        let y = match self.log {
            true => B::log_softmax(x, along),
            false if last => B::apply(Kernel, [x]),
            false => B::softmax(x, along),
        };
        Ok(vec![Value::Float(reshape::<B>(y, &shape))])
    }
}

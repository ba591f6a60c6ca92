//! `LayerNormalization`.
//!
//! <https://onnx.ai/onnx/operators/onnx__LayerNormalization.html> (since opset 17)
//!
//! Normalizes over all axes from `axis` (default -1) on. Only the first output, and
//! scale and bias of exactly the normalized shape.

use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Value, axis, dims, reshape};

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "LayerNormalization" => layer_norm,
        _ => return None,
    })
}

struct LayerNorm {
    axis: i64,
    epsilon: f64,
}

fn layer_norm<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(2, 3)?;
    if spec.outputs() > 1 {
        return Err(Fault::unsupported("the outputs Mean and InvStdDev are not computed"));
    }
    if spec.int("stash_type").unwrap_or(1) != 1 {
        return Err(Fault::unsupported("statistics are computed in f32 only"));
    }
    Ok(Box::new(LayerNorm { axis: spec.int("axis").unwrap_or(-1), epsilon: f64::from(spec.float("epsilon").unwrap_or(1e-5)) }))
}

impl<B: Engine> Operator<B> for LayerNorm {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.float(0)?;
        let shape = dims::<B>(&x);
        let from = axis(self.axis, shape.len())?;
        let (outer, width) = (shape[..from].iter().product(), shape[from..].iter().product());
        let mut operand = |i| match inputs.optional_float(i)? {
            Some(tensor) if dims::<B>(&tensor) == shape[from..] => Ok(Some(reshape::<B>(tensor, &[width]))),
            Some(tensor) => Err(Fault::shape(format!("input {i} is {:?}, not {:?}", dims::<B>(&tensor), &shape[from..]))),
            None => Ok(None),
        };
        let scale = operand(1)?.ok_or_else(|| Fault::broken("Scale is missing"))?;
        let bias = operand(2)?;
        if shape.contains(&0) {
            return Err(Fault::shape(format!("input {shape:?} is empty")));
        }
        let y = B::layer_norm(reshape::<B>(x, &[outer, width]), scale, bias, self.epsilon);
        Ok(vec![Value::Float(reshape::<B>(y, &shape))])
    }
}

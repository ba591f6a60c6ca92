//! Local response normalization: `LRN`.
//!
//! <https://onnx.ai/onnx/operators/onnx__LRN.html>
//!
//! `y = x / (bias + alpha / size · Σ x²)^beta`, the sum over the `size` channels around each; of an even number the extra one
//! comes behind. Input `[n, c, ...]`. Opset 13 added types.

use burn_backend::Scalar;

use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Value, bounded, dims};
use crate::kernel::resample::{Line, Resample};

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "LRN" => lrn,
        _ => return None,
    })
}

struct Lrn {
    size: usize,
    alpha: f32,
    beta: f32,
    bias: f32,
}

fn lrn<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 1)?;
    let size = spec.int("size").ok_or_else(|| Fault::broken("size is missing"))?;
    let size = usize::try_from(size).ok().filter(|size| *size > 0).ok_or_else(|| Fault::broken(format!("size = {size}")))?;
    let float = |name, default| spec.float(name).unwrap_or(default);
    Ok(Box::new(Lrn { size, alpha: float("alpha", 1e-4), beta: float("beta", 0.75), bias: float("bias", 1.0) }))
}

impl<B: Engine> Operator<B> for Lrn {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.float(0)?;
        let shape = dims::<B>(&x);
        let channels = *shape.get(1).ok_or_else(|| Fault::shape(format!("input {shape:?} has no channels")))?;
        if shape.contains(&0) {
            return Ok(vec![Value::Float(x)]);
        }
        bounded(&[channels, self.size.min(channels)])?;
        let (before, behind) = ((self.size - 1) / 2, self.size / 2);
        let taps = |c: usize| (c.saturating_sub(before)..c.saturating_add(behind).saturating_add(1).min(channels)).map(|k| (k as u32, 1.0));
        let around = Line { read: channels, taps: (0..channels).map(|c| taps(c).collect()).collect(), fill: 0.0 };
        let sums = B::apply(Resample(vec![(1, around)]), [B::float_mul(x.clone(), x.clone())]);
        let scaled = B::float_mul_scalar(sums, Scalar::from(self.alpha / self.size as f32));
        let norm = B::float_powf_scalar(B::float_add_scalar(scaled, Scalar::from(self.bias)), Scalar::from(-self.beta));
        Ok(vec![Value::Float(B::float_mul(x, norm))])
    }
}

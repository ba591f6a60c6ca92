//! `Dropout`.
//!
//! <https://onnx.ai/onnx/operators/onnx__Dropout.html>
//!
//! In training each element is zeroed with probability `ratio`, and the others are divided
//! by `1 - ratio`; otherwise the input passes. `ratio` is an attribute before opset 12 and
//! an input (which must be constant) from then on. Whether the graph trains is decided
//! by how it runs, not by the `training_mode` input. Masks come from the generator of the
//! run, never from the backend's global one, so that equal seeds give equal bits.

use rand::Rng;

use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Mode, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Value, bounded, dims, floats};

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "Dropout" => dropout,
        _ => return None,
    })
}

struct Dropout {
    ratio: f32,
}

fn dropout<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 3)?;
    // The run has its own seed.
    let _ = spec.int("seed");
    let ratio = if spec.opset < 12 {
        spec.float("ratio")
    } else if spec.has(1) {
        Some(spec.known_scalar(1).ok_or_else(|| Fault::unsupported("ratio must be a constant"))?)
    } else {
        None
    };
    let ratio = ratio.unwrap_or(0.5);
    if !(0.0..1.0).contains(&ratio) {
        return Err(Fault::broken(format!("ratio = {ratio} is not in 0..1")));
    }
    Ok(Box::new(Dropout { ratio }))
}

impl<B: Engine> Operator<B> for Dropout {
    fn run(&self, mut inputs: Inputs<B>, cx: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.float(0)?;
        let Mode::Training(generator) = &mut cx.mode else {
            return Ok(vec![Value::Float(x)]);
        };
        if self.ratio == 0.0 {
            return Ok(vec![Value::Float(x)]);
        }
        let shape = dims::<B>(&x);
        let scale = 1.0 / (1.0 - self.ratio);
        // An element is dropped if its 32 random bits fall below ratio * 2^32.
        let below = (f64::from(self.ratio) * 4_294_967_296.0) as u32;
        let mask = (0..bounded(&shape)?).map(|_| if generator.next_u32() < below { 0.0 } else { scale }).collect();
        Ok(vec![Value::Float(B::float_mul(x, floats::<B>(mask, &shape)))])
    }

    fn is_pure(&self) -> bool {
        false
    }
}

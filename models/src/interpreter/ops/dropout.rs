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
use crate::interpreter::value::{Host, Value, bounded, dims, floats};
use crate::onnx::Element;

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "Dropout" => dropout,
        _ => return None,
    })
}

struct Dropout {
    ratio: f32,
    /// Whether the mask is asked for.
    mask: bool,
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
    Ok(Box::new(Dropout { ratio, mask: spec.gives(1) }))
}

impl<B: Engine> Operator<B> for Dropout {
    fn run(&self, mut inputs: Inputs<B>, cx: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.float(0)?;
        let shape = dims::<B>(&x);
        let count = bounded(&shape)?;
        let kept: Option<Vec<bool>> = match &mut cx.mode {
            Mode::Training(generator) if self.ratio > 0.0 => {
                // An element is dropped if its 32 random bits fall below ratio * 2^32.
                let below = (f64::from(self.ratio) * 4_294_967_296.0) as u32;
                Some((0..count).map(|_| generator.next_u32() >= below).collect())
            }
            _ => None,
        };
        let mask = |kept: &Option<Vec<bool>>| {
            let data = kept.as_ref().map_or_else(|| vec![1; count], |kept| kept.iter().map(|kept| i64::from(*kept)).collect());
            Value::Host(Host::new(Element::Bool, shape.clone(), data))
        };
        let mask = self.mask.then(|| mask(&kept));
        let y = match kept {
            Some(kept) => {
                let scale = 1.0 / (1.0 - self.ratio);
                let factors = kept.into_iter().map(|kept| if kept { scale } else { 0.0 }).collect();
                B::float_mul(x, floats::<B>(factors, &shape))
            }
            None => x,
        };
        Ok(std::iter::once(Value::Float(y)).chain(mask).collect())
    }

    fn is_pure(&self) -> bool {
        false
    }
}

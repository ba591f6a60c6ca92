//! `LayerNormalization`, `RMSNormalization`.
//!
//! <https://onnx.ai/onnx/operators/onnx__LayerNormalization.html> (since opset 17),
//! <https://onnx.ai/onnx/operators/onnx__RMSNormalization.html> (since opset 23)
//!
//! Both normalize over all axes from `axis` (default -1) on, to mean 0 and variance 1, or
//! by the root of the mean square alone. Scale and bias of exactly the normalized shape.

use burn_backend::Scalar;

use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Value, axis, dims, reshape};
use crate::kernel::layer_norm::LayerNorm as Kernel;

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "LayerNormalization" | "RMSNormalization" => layer_norm,
        _ => return None,
    })
}

struct LayerNorm {
    /// Whether the mean is taken away.
    centred: bool,
    axis: i64,
    epsilon: f64,
    /// Whether mean and inverse deviation are asked for.
    statistics: bool,
}

fn layer_norm<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(2, 3)?;
    if spec.int("stash_type").unwrap_or(1) != 1 {
        return Err(Fault::unsupported("statistics are computed in f32 only"));
    }
    Ok(Box::new(LayerNorm {
        centred: spec.op() == "LayerNormalization",
        axis: spec.int("axis").unwrap_or(-1),
        epsilon: f64::from(spec.float("epsilon").unwrap_or(1e-5)),
        statistics: spec.gives(1) || spec.gives(2),
    }))
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
        let rows = reshape::<B>(x, &[outer, width]);
        let statistics = self.statistics.then(|| {
            let mut each = shape.clone();
            each[from..].fill(1);
            let mean = B::float_mean_dim(rows.clone(), 1);
            let centred = B::float_sub(rows.clone(), mean.clone());
            let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred), 1);
            let inverse = B::float_recip(B::float_sqrt(B::float_add_scalar(variance, Scalar::from(self.epsilon))));
            [mean, inverse].map(|tensor| Value::Float(reshape::<B>(tensor, &each)))
        });
        let kernel = Kernel { epsilon: self.epsilon, centred: self.centred };
        let y = match bias {
            Some(_) if !self.centred => return Err(Fault::broken("RMSNormalization takes no bias")),
            Some(bias) => B::apply(kernel, [rows, scale, bias]),
            None => B::apply(kernel, [rows, scale]),
        };
        let y = Value::Float(reshape::<B>(y, &shape));
        Ok(std::iter::once(y).chain(statistics.into_iter().flatten()).collect())
    }
}

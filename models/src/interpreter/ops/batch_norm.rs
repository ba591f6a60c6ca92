//! `BatchNormalization`.
//!
//! <https://onnx.ai/onnx/operators/onnx__BatchNormalization.html>
//!
//! `y = scale * (x - mean) / sqrt(var + epsilon) + bias` for each channel (axis 1). Opset 9
//! removed `spatial`, 14 added `training_mode` and cut the outputs to three.
//!
//! Whether the batch's own statistics are used is decided by how the graph runs, not by
//! `training_mode`: in training, if the running statistics are parameters that may change
//! (freezing them therefore freezes the normalization). The running statistics then move as
//! ONNX says, `running = running * momentum + batch * (1 - momentum)`, with the unbiased
//! variance, as PyTorch has it. A batch with one cell per channel has no variance; it is
//! normalized with the running statistics and moves nothing.

use burn_backend::{Scalar, ops::FloatTensorOps as _, tensor::FloatTensor};

use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Mode, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Value, dims, floats};
use crate::kernel::batch_norm::BatchNorm as Kernel;

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "BatchNormalization" => batch_norm,
        _ => return None,
    })
}

const MEAN: usize = 3;
const VARIANCE: usize = 4;
const STATISTICS: [usize; 2] = [MEAN, VARIANCE];

struct BatchNorm {
    epsilon: f64,
    momentum: f32,
}

fn batch_norm<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(5, 5)?;
    if spec.opset < 9 && !spec.flag("spatial", true) {
        return Err(Fault::unsupported("statistics per cell (spatial = 0) are not computed"));
    }
    // How the graph runs decides (see above).
    let _ = spec.int("training_mode");
    let momentum = spec.float("momentum").unwrap_or(0.9);
    if !(0.0..=1.0).contains(&momentum) {
        return Err(Fault::broken(format!("momentum = {momentum} is not in 0..=1")));
    }
    Ok(Box::new(BatchNorm { epsilon: f64::from(spec.float("epsilon").unwrap_or(1e-5)), momentum }))
}

impl<B: Engine> Operator<B> for BatchNorm {
    fn run(&self, mut inputs: Inputs<B>, cx: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.float(0)?;
        let shape = dims::<B>(&x);
        let channels = *shape.get(1).ok_or_else(|| Fault::shape(format!("input {shape:?} has no channels")))?;
        let mut operand = |i| {
            let tensor = inputs.float(i)?;
            match dims::<B>(&tensor) {
                found if found == [channels] => Ok(tensor),
                found => Err(Fault::shape(format!("input {i} is {found:?}, not [{channels}]"))),
            }
        };
        let (scale, bias, mean, variance) = (operand(1)?, operand(2)?, operand(MEAN)?, operand(VARIANCE)?);
        let cells = shape.iter().product::<usize>() / channels.max(1);
        let training = matches!(cx.mode, Mode::Training(_)) && STATISTICS.iter().all(|i| cx.is_updatable(*i));
        if !training || cells < 2 {
            return Ok(vec![Value::Float(B::batch_norm(x, scale, bias, mean, variance, self.epsilon))]);
        }
        let statistics = B::statistics(&x);
        let unbiased = cells as f32 / (cells - 1) as f32;
        cx.update(MEAN, self.moved::<B>(mean, &statistics.mean, 1.0));
        cx.update(VARIANCE, self.moved::<B>(variance, &statistics.variance, unbiased));
        let kernel = Kernel { statistics, epsilon: self.epsilon };
        Ok(vec![Value::Float(B::apply(kernel, [x, scale, bias]))])
    }

    /// In training mode the node changes its statistics, so it is never folded.
    fn is_pure(&self) -> bool {
        false
    }

    fn statistics(&self) -> &'static [usize] {
        &STATISTICS
    }
}

impl BatchNorm {
    fn moved<B: Engine>(&self, running: FloatTensor<B>, batch: &[f32], correction: f32) -> FloatTensor<B::Plain> {
        let old = B::Plain::float_mul_scalar(B::lower(running), Scalar::from(self.momentum));
        let new = batch.iter().map(|v| v * (1.0 - self.momentum) * correction).collect();
        B::Plain::float_add(old, floats::<B::Plain>(new, &[batch.len()]))
    }
}

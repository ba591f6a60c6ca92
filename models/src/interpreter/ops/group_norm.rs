//! `GroupNormalization`, `InstanceNormalization`.
//!
//! <https://onnx.ai/onnx/operators/onnx__GroupNormalization.html> (since opset 18),
//! <https://onnx.ai/onnx/operators/onnx__InstanceNormalization.html>
//!
//! Each group of neighbouring channels of each row is brought to mean 0 and variance 1; an instance is
//! a group of one channel. Rows never mix, so that both may be trained on the clipped gradients
//! of single rows, unlike BatchNormalization. Scale and bias are those of the channels; of the
//! groups in opsets 18 to 20.

use burn_backend::tensor::FloatTensor;

use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Value, dims, floats, reshape};
use crate::kernel::layer_norm::LayerNorm;

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "GroupNormalization" | "InstanceNormalization" => group_norm,
        _ => return None,
    })
}

struct GroupNorm {
    /// None for one group a channel.
    groups: Option<usize>,
    /// Whether scale and bias have an element a group.
    scaled_by_group: bool,
    epsilon: f64,
}

fn group_norm<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(3, 3)?;
    let grouped = spec.op() == "GroupNormalization";
    let groups = match spec.int("num_groups") {
        Some(n) if grouped => Some(usize::try_from(n).ok().filter(|n| *n > 0).ok_or_else(|| Fault::broken(format!("num_groups = {n}")))?),
        None if grouped => return Err(Fault::broken("num_groups is missing")),
        Some(_) => return Err(Fault::broken("an instance has no num_groups")),
        None => None,
    };
    if spec.int("stash_type").unwrap_or(1) != 1 {
        return Err(Fault::unsupported("statistics are computed in f32 only"));
    }
    let epsilon = f64::from(spec.float("epsilon").unwrap_or(1e-5));
    Ok(Box::new(GroupNorm { groups, scaled_by_group: grouped && spec.opset < 21, epsilon }))
}

impl<B: Engine> Operator<B> for GroupNorm {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.float(0)?;
        let shape = dims::<B>(&x);
        if shape.len() < 2 || shape.contains(&0) {
            return Err(Fault::shape(format!("input {shape:?} has no channels or no cells")));
        }
        let (rows, channels) = (shape[0], shape[1]);
        let groups = self.groups.unwrap_or(channels);
        if !channels.is_multiple_of(groups) {
            return Err(Fault::shape(format!("{channels} channels in {groups} groups")));
        }
        let parts = if self.scaled_by_group { groups } else { channels };
        let mut operand = |i| {
            let tensor = inputs.float(i)?;
            match dims::<B>(&tensor) {
                found if found == [parts] => Ok(reshape::<B>(tensor, &[1, parts, 1])),
                found => Err(Fault::shape(format!("input {i} is {found:?}, not [{parts}]"))),
            }
        };
        let (scale, bias): (FloatTensor<B>, FloatTensor<B>) = (operand(1)?, operand(2)?);
        let all: usize = shape.iter().product();
        let width = all / (rows * groups);
        let kernel = LayerNorm { epsilon: self.epsilon, centred: true };
        let y = B::apply(kernel, [reshape::<B>(x, &[rows * groups, width]), floats::<B>(vec![1.0; width], &[width])]);
        let y = reshape::<B>(y, &[rows, parts, all / (rows * parts)]);
        Ok(vec![Value::Float(reshape::<B>(B::float_add(B::float_mul(y, scale), bias), &shape))])
    }
}

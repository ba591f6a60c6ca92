//! Reductions: `ReduceMean`, `ReduceSum`, `ReduceMax`, `ReduceMin`, `ReduceProd`, `ReduceL1`,
//! `ReduceL2`, `ReduceSumSquare`, `ReduceLogSum`, `ReduceLogSumExp`.
//!
//! <https://onnx.ai/onnx/operators/onnx__ReduceMean.html>
//!
//! The axes moved from an attribute to an input in opset 13 for ReduceSum and 18 for the
//! others; both are read. No axes means all, or none with `noop_with_empty_axes`. On
//! integers, ReduceProd, ReduceSum, ReduceMax and ReduceMin are computed, exactly. Of no
//! elements, the sum is 0, the product 1, the maximum -∞, and the mean no number.

use burn_backend::tensor::FloatTensor;

use super::elementwise::spread;
use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Host, Value, axes, bounded, floats, reshape};

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL1" | "ReduceL2" | "ReduceSumSquare"
        | "ReduceLogSum" | "ReduceLogSumExp" => reduce,
        _ => return None,
    })
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Mean,
    Sum,
    Max,
    Min,
    Prod,
    L1,
    L2,
    SumSquare,
    LogSum,
    LogSumExp,
}

struct Reduce {
    kind: Kind,
    axes: Option<Vec<i64>>,
    keep: bool,
    none_means_none: bool,
}

fn reduce<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 2)?;
    let kind = match spec.op() {
        "ReduceMean" => Kind::Mean,
        "ReduceSum" => Kind::Sum,
        "ReduceMax" => Kind::Max,
        "ReduceMin" => Kind::Min,
        "ReduceProd" => Kind::Prod,
        "ReduceL1" => Kind::L1,
        "ReduceL2" => Kind::L2,
        "ReduceLogSum" => Kind::LogSum,
        "ReduceLogSumExp" => Kind::LogSumExp,
        _ => Kind::SumSquare,
    };
    Ok(Box::new(Reduce {
        kind,
        axes: spec.ints("axes"),
        keep: spec.flag("keepdims", true),
        none_means_none: spec.flag("noop_with_empty_axes", false),
    }))
}

impl<B: Engine> Operator<B> for Reduce {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.any(0)?;
        let given = inputs.optional_host(1)?.map(|h| h.data).or_else(|| self.axes.clone()).unwrap_or_default();
        let shape = x.shape();
        if given.is_empty() && self.none_means_none {
            return Ok(vec![x]);
        }
        let along = if given.is_empty() { (0..shape.len()).collect() } else { axes(&given, shape.len())? };
        let mut out = shape.clone();
        for &a in along.iter().rev() {
            if self.keep {
                out[a] = 1;
            } else {
                out.remove(a);
            }
        }
        match x {
            Value::Float(_) if shape.contains(&0) => {
                let data = vec![self.of_nothing(); bounded(&out)?];
                Ok(vec![Value::Float(floats::<B>(data, &out))])
            }
            Value::Float(x) => {
                let x = if shape.is_empty() { reshape::<B>(x, &[1]) } else { x };
                let y = self.floats::<B>(x, if shape.is_empty() { &[0] } else { &along });
                Ok(vec![Value::Float(reshape::<B>(y, &out))])
            }
            Value::Host(host) => {
                let mut kept = shape.clone();
                along.iter().for_each(|a| kept[*a] = 1);
                // Where each element goes: axes that are reduced count nothing.
                let place = spread(&kept, &shape)?;
                let mut data: Vec<Option<i64>> = vec![None; bounded(&kept)?];
                for (value, at) in host.data.iter().zip(place) {
                    data[at] = Some(data[at].map_or(Ok(*value), |sum| self.integers(sum, *value))?);
                }
                if data.contains(&None) {
                    return Err(Fault::shape(format!("input {shape:?} is empty")));
                }
                Ok(vec![Value::Host(Host::new(host.element, out, data.into_iter().flatten().collect()))])
            }
        }
    }
}

impl Reduce {
    fn floats<B: Engine>(&self, x: FloatTensor<B>, along: &[usize]) -> FloatTensor<B> {
        let sum = |x| along.iter().fold(x, |x, &a| B::float_sum_dim(x, a));
        let largest = |x| along.iter().fold(x, |x, &a| B::float_max_dim(x, a));
        // One axis after another, outermost first; the extents stay as ones.
        match self.kind {
            Kind::Mean => along.iter().fold(x, |x, &a| B::float_mean_dim(x, a)),
            Kind::Max => largest(x),
            Kind::Min => along.iter().fold(x, |x, &a| B::float_min_dim(x, a)),
            Kind::Prod => along.iter().fold(x, |x, &a| B::float_prod_dim(x, a)),
            Kind::Sum => sum(x),
            Kind::L1 => sum(B::float_abs(x)),
            Kind::L2 => B::float_sqrt(sum(B::float_mul(x.clone(), x))),
            Kind::SumSquare => sum(B::float_mul(x.clone(), x)),
            Kind::LogSum => B::float_log(sum(x)),
            Kind::LogSumExp => {
                // The largest is taken out, so that nothing overflows; it is a constant to the gradient.
                let top = largest(B::float_detach(x.clone()));
                let rest = B::float_log(sum(B::float_exp(B::float_sub(x, top.clone()))));
                B::float_add(rest, top)
            }
        }
    }

    /// Over no elements at all.
    fn of_nothing(&self) -> f32 {
        match self.kind {
            Kind::Sum | Kind::L1 | Kind::L2 | Kind::SumSquare => 0.0,
            Kind::Prod => 1.0,
            Kind::Max | Kind::LogSum | Kind::LogSumExp => f32::NEG_INFINITY,
            Kind::Min => f32::INFINITY,
            Kind::Mean => f32::NAN,
        }
    }

    fn integers(&self, a: i64, b: i64) -> Result<i64, Fault> {
        match self.kind {
            Kind::Sum => a.checked_add(b),
            Kind::Prod => a.checked_mul(b),
            Kind::Max => Some(a.max(b)),
            Kind::Min => Some(a.min(b)),
            _ => return Err(Fault::unsupported("only f32 is computed")),
        }
        .ok_or_else(|| Fault::shape("the integers overflow"))
    }
}

//! Reductions: `ReduceMean`, `ReduceSum`, `ReduceMax`, `ReduceMin`, `ReduceProd`, `ReduceL2`,
//! `ReduceSumSquare`.
//!
//! <https://onnx.ai/onnx/operators/onnx__ReduceMean.html>
//!
//! The axes moved from an attribute to an input in opset 13 for ReduceSum and 18 for the
//! others; both are read. No axes means all, or none with `noop_with_empty_axes`. On
//! integers, ReduceProd, ReduceSum, ReduceMax and ReduceMin of everything (sizes) are
//! computed.

use burn_backend::tensor::FloatTensor;

use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Host, Value, axes, reshape};

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL2" | "ReduceSumSquare" => reduce,
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
    L2,
    SumSquare,
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
        "ReduceL2" => Kind::L2,
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
        if shape.contains(&0) {
            return Err(Fault::shape(format!("input {shape:?} is empty")));
        }
        match x {
            Value::Float(x) => {
                let x = if shape.is_empty() { reshape::<B>(x, &[1]) } else { x };
                let y = self.floats::<B>(x, if shape.is_empty() { &[0] } else { &along });
                Ok(vec![Value::Float(reshape::<B>(y, &out))])
            }
            Value::Host(host) if along.len() == shape.len() => {
                let value = self.integers(&host.data)?;
                Ok(vec![Value::Host(Host::new(host.element, out, vec![value]))])
            }
            Value::Host(_) => Err(Fault::unsupported("integers are reduced over all axes only")),
        }
    }
}

impl Reduce {
    fn floats<B: Engine>(&self, x: FloatTensor<B>, along: &[usize]) -> FloatTensor<B> {
        let x = match self.kind {
            Kind::L2 | Kind::SumSquare => B::float_mul(x.clone(), x),
            _ => x,
        };
        // One axis after another, outermost first; the extents stay as ones.
        let y = along.iter().fold(x, |x, &a| match self.kind {
            Kind::Mean => B::float_mean_dim(x, a),
            Kind::Max => B::float_max_dim(x, a),
            Kind::Min => B::float_min_dim(x, a),
            Kind::Prod => B::float_prod_dim(x, a),
            Kind::Sum | Kind::L2 | Kind::SumSquare => B::float_sum_dim(x, a),
        });
        if self.kind == Kind::L2 { B::float_sqrt(y) } else { y }
    }

    fn integers(&self, data: &[i64]) -> Result<i64, Fault> {
        match self.kind {
            Kind::Sum => data.iter().try_fold(0i64, |a, b| a.checked_add(*b)),
            Kind::Prod => data.iter().try_fold(1i64, |a, b| a.checked_mul(*b)),
            Kind::Max => data.iter().max().copied(),
            Kind::Min => data.iter().min().copied(),
            _ => return Err(Fault::unsupported("only f32 is computed")),
        }
        .ok_or_else(|| Fault::shape("the integers overflow"))
    }
}

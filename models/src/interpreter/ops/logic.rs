//! Comparisons, boolean logic and `Where`, which shape arithmetic and masks need.
//!
//! <https://onnx.ai/onnx/operators/>: Equal, Less, LessOrEqual, Greater, GreaterOrEqual, And,
//! Or, Xor, Not, IsNaN, Where.
//!
//! Comparisons give booleans on the host, which have no gradient. `Where` also selects between f32
//! tensors, with gradients, under a condition on the host.

use burn_backend::{BoolStore, DType, Shape, TensorData as BurnData};
use burn_flex::FlexDevice;

use super::elementwise::{combine, spread};
use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Host, Value, broadcast, dims, padded, read, reshape};
use crate::onnx::Element;

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "And" | "Or" | "Xor" => compare,
        "Not" => not,
        "IsNaN" => is_nan,
        "Where" => select,
        _ => return None,
    })
}

/// What holds between two integers, and between two floats where that is defined.
struct Compare {
    integers: fn(i64, i64) -> bool,
    floats: Option<fn(f32, f32) -> bool>,
}

fn compare<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(2, 2)?;
    let of = |integers: fn(i64, i64) -> bool, floats: fn(f32, f32) -> bool| Compare { integers, floats: Some(floats) };
    let logical = |integers: fn(i64, i64) -> bool| Compare { integers, floats: None };
    Ok(Box::new(match spec.op() {
        "Equal" => of(|a, b| a == b, |a, b| a == b),
        "Less" => of(|a, b| a < b, |a, b| a < b),
        "LessOrEqual" => of(|a, b| a <= b, |a, b| a <= b),
        "Greater" => of(|a, b| a > b, |a, b| a > b),
        "GreaterOrEqual" => of(|a, b| a >= b, |a, b| a >= b),
        "And" => logical(|a, b| a != 0 && b != 0),
        "Or" => logical(|a, b| a != 0 || b != 0),
        _ => logical(|a, b| (a != 0) != (b != 0)),
    }))
}

impl<B: Engine> Operator<B> for Compare {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let result = match (inputs.any(0)?, inputs.any(1)?, self.floats) {
            (Value::Host(x), Value::Host(y), _) => combine(&x, &y, Element::Bool, |a, b| Some(i64::from((self.integers)(a, b))))?,
            (Value::Float(x), Value::Float(y), Some(holds)) => {
                let (dx, dy) = (dims::<B>(&x), dims::<B>(&y));
                let shape = broadcast(&dx, &dy)?;
                let plain = |tensor| read::<B::Plain>(B::lower(tensor));
                let (x, y) = (plain(x)?, plain(y)?);
                let pairs = spread(&dx, &shape)?.into_iter().zip(spread(&dy, &shape)?);
                let data = pairs.map(|(i, j)| i64::from(holds(x[i], y[j]))).collect();
                Host::new(Element::Bool, shape, data)
            }
            _ => return Err(Fault::broken("the operands differ in element type")),
        };
        Ok(vec![Value::Host(result)])
    }
}

struct IsNan;

fn is_nan<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 1)?;
    Ok(Box::new(IsNan))
}

impl<B: Engine> Operator<B> for IsNan {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.float(0)?;
        let shape = dims::<B>(&x);
        let data = read::<B::Plain>(B::lower(x))?.into_iter().map(|v| i64::from(v.is_nan())).collect();
        Ok(vec![Value::Host(Host::new(Element::Bool, shape, data))])
    }
}

struct Not;

fn not<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 1)?;
    Ok(Box::new(Not))
}

impl<B: Engine> Operator<B> for Not {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.host(0)?;
        let data = x.data.iter().map(|v| i64::from(*v == 0)).collect();
        Ok(vec![Value::Host(Host::new(Element::Bool, x.shape, data))])
    }
}

struct Where;

fn select<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(3, 3)?;
    Ok(Box::new(Where))
}

impl<B: Engine> Operator<B> for Where {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let condition = inputs.host(0)?;
        let (x, y) = (inputs.any(1)?, inputs.any(2)?);
        let shape = broadcast(&broadcast(&condition.shape, &x.shape())?, &y.shape())?;
        let picks = spread(&condition.shape, &shape)?.into_iter().map(|i| condition.data[i] != 0);
        match (x, y) {
            (Value::Host(x), Value::Host(y)) => {
                let (ix, iy) = (spread(&x.shape, &shape)?, spread(&y.shape, &shape)?);
                let data = picks.zip(ix.into_iter().zip(iy)).map(|(pick, (i, j))| if pick { x.data[i] } else { y.data[j] });
                let data = data.collect();
                Ok(vec![Value::Host(Host::new(x.element, shape, data))])
            }
            (Value::Float(x), Value::Float(y)) => {
                let picks: Vec<bool> = picks.collect();
                // The backend wants ranks of at least one.
                let full = padded(&shape, shape.len().max(1));
                let mask = BurnData::new(picks, full.clone()).convert_dtype(DType::Bool(BoolStore::Native));
                let mask = B::bool_from_data(mask, &FlexDevice);
                let expand = |t| {
                    let ranked = padded(&dims::<B>(&t), full.len());
                    B::float_expand(reshape::<B>(t, &ranked), Shape::from(full.clone()))
                };
                let result = B::float_mask_where(expand(y), mask, expand(x));
                Ok(vec![Value::Float(reshape::<B>(result, &shape))])
            }
            _ => Err(Fault::broken("the branches differ in element type")),
        }
    }
}

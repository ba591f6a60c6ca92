//! Arithmetic, element by element, with broadcasting.
//!
//! <https://onnx.ai/onnx/operators/>: Add, Sub, Mul, Div, Mod, Pow, Min, Max, Sum, Mean, and
//! of one operand Neg, Abs, Sqrt, Exp, Log, Reciprocal, Sin, Cos, Floor, Ceil, Round, Sign.
//!
//! On f32 they are computed by the backend with gradients; on integers (shape arithmetic)
//! on the host, exactly and with overflow refused. Floor, Ceil, Round and Sign have a zero
//! gradient almost everywhere. Where Min and Max tie, the gradient goes to the first.

use burn_backend::{Scalar, TensorMetadata, get_device_settings, tensor::FloatTensor};

use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Host, Value, bounded_on_host, broadcast, dims, padded, read, reshape};
use crate::kernel::rows::AddRow;

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" => binary,
        "Min" | "Max" | "Sum" | "Mean" => variadic,
        "Neg" | "Abs" | "Sqrt" | "Exp" | "Log" | "Reciprocal" | "Sin" | "Cos" | "Floor" | "Ceil" | "Round" | "Sign" => unary,
        _ => return None,
    })
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    /// Python's sign rule, or C's with `fmod`.
    Mod {
        fmod: bool,
    },
    Pow {
        exponent: Option<f32>,
    },
    Min,
    Max,
}

fn binary<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(2, 2)?;
    Ok(Box::new(match spec.op() {
        "Add" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Mod" => Binary::Mod { fmod: spec.flag("fmod", false) },
        _ => Binary::Pow { exponent: spec.known_scalar(1) },
    }))
}

impl<B: Engine> Operator<B> for Binary {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.any(0)?;
        if let (Value::Float(x), Self::Pow { exponent: Some(exponent) }) = (&x, self) {
            // The exponent's rank may exceed the base's, but a scalar never changes extents.
            let rank = inputs.any(1)?.shape().len().max(dims::<B>(x).len());
            let x = reshape::<B>(x.clone(), &padded(&dims::<B>(x), rank));
            return Ok(vec![Value::Float(power::<B>(x, *exponent))]);
        }
        Ok(vec![self.apply(x, inputs.any(1)?)?])
    }
}

/// `x ^ exponent`; whole small powers by multiplication, which is exact for negative bases.
fn power<B: Engine>(x: FloatTensor<B>, exponent: f32) -> FloatTensor<B> {
    match exponent {
        1.0 => x,
        2.0 => B::float_mul(x.clone(), x),
        3.0 => B::float_mul(B::float_mul(x.clone(), x.clone()), x),
        0.5 => B::float_sqrt(x),
        _ => B::float_powf_scalar(x, Scalar::from(exponent)),
    }
}

impl Binary {
    fn apply<B: Engine>(self, x: Value<B>, y: Value<B>) -> Result<Value<B>, Fault> {
        match (x, y) {
            (Value::Float(x), Value::Float(y)) if self == Self::Add && is_row::<B>(&y, &x) => Ok(Value::Float(B::apply(AddRow, [x, y]))),
            (Value::Float(x), Value::Float(y)) if self == Self::Add && is_row::<B>(&x, &y) => Ok(Value::Float(B::apply(AddRow, [y, x]))),
            (Value::Float(x), Value::Float(y)) => {
                let (x, y, shape) = aligned::<B>(x, y)?;
                Ok(Value::Float(reshape::<B>(self.floats::<B>(x, y)?, &shape)))
            }
            (Value::Host(x), Value::Host(y)) => {
                let element = x.element;
                combine(&x, &y, element, |a, b| self.integers(a, b)).map(Value::Host)
            }
            // Pow alone may mix types; the result has that of the base.
            (Value::Float(x), Value::Host(y)) if matches!(self, Self::Pow { .. }) => {
                let exponents = y.data.iter().map(|v| *v as f32).collect();
                self.apply(Value::Float(x), Value::Float(super::super::value::floats::<B>(exponents, &y.shape)))
            }
            (Value::Host(x), Value::Float(y)) if matches!(self, Self::Pow { .. }) => {
                let (dx, dy) = (x.shape.clone(), dims::<B>(&y));
                let shape = broadcast(&dx, &dy)?;
                let y = read::<B::Plain>(B::lower(y))?;
                let pairs = spread(&dx, &shape)?.into_iter().zip(spread(&dy, &shape)?);
                let data = pairs.map(|(i, j)| (x.data[i] as f64).powf(f64::from(y[j])) as i64).collect();
                Ok(Value::Host(Host::new(x.element, shape, data)))
            }
            _ => Err(Fault::broken("the operands differ in element type")),
        }
    }

    fn floats<B: Engine>(self, x: FloatTensor<B>, y: FloatTensor<B>) -> Result<FloatTensor<B>, Fault> {
        let bools = get_device_settings::<B>(&x.device()).bool_dtype;
        Ok(match self {
            Self::Add => B::float_add(x, y),
            Self::Sub => B::float_sub(x, y),
            Self::Mul => B::float_mul(x, y),
            Self::Div => B::float_div(x, y),
            Self::Pow { .. } => B::float_powf(x, y),
            Self::Min | Self::Max => {
                let shape = burn_backend::Shape::from(broadcast(&dims::<B>(&x), &dims::<B>(&y))?);
                let (x, y) = (B::float_expand(x, shape.clone()), B::float_expand(y, shape));
                let second = match self {
                    Self::Min => B::float_lower(y.clone(), x.clone(), bools),
                    _ => B::float_greater(y.clone(), x.clone(), bools),
                };
                B::float_mask_where(x, second, y)
            }
            Self::Mod { .. } => return Err(Fault::unsupported("f32 remainders are not computed")),
        })
    }

    fn integers(self, x: i64, y: i64) -> Option<i64> {
        match self {
            Self::Add => x.checked_add(y),
            Self::Sub => x.checked_sub(y),
            Self::Mul => x.checked_mul(y),
            Self::Div => x.checked_div(y),
            Self::Mod { fmod: true } => x.checked_rem(y),
            Self::Mod { fmod: false } => {
                let r = x.checked_rem(y)?;
                Some(if r != 0 && (r < 0) != (y < 0) { r + y } else { r })
            }
            Self::Pow { .. } => x.checked_pow(u32::try_from(y).ok()?),
            Self::Min => Some(x.min(y)),
            Self::Max => Some(x.max(y)),
        }
    }
}

/// Whether `row` is added to each row of `x`, as a bias is.
fn is_row<B: Engine>(row: &FloatTensor<B>, x: &FloatTensor<B>) -> bool {
    let (row, x) = (dims::<B>(row), dims::<B>(x));
    row.len() == 1 && x.len() > 1 && x.last() == row.last() && !x.contains(&0)
}

/// Two operands of one rank, and the shape of their result.
type Aligned<B> = (FloatTensor<B>, FloatTensor<B>, Vec<usize>);

/// Brings both operands to one rank (the backend broadcasts only extents of 1) and tells
/// the shape of the result.
pub(super) fn aligned<B: Engine>(x: FloatTensor<B>, y: FloatTensor<B>) -> Result<Aligned<B>, Fault> {
    let (dx, dy) = (dims::<B>(&x), dims::<B>(&y));
    let shape = broadcast(&dx, &dy)?;
    let rank = shape.len().max(1);
    Ok((reshape::<B>(x, &padded(&dx, rank)), reshape::<B>(y, &padded(&dy, rank)), shape))
}

/// Combines host integers with broadcasting; `None` from `f` is an overflow or a division
/// by zero.
pub(super) fn combine(x: &Host, y: &Host, element: crate::onnx::Element, f: impl Fn(i64, i64) -> Option<i64>) -> Result<Host, Fault> {
    let shape = broadcast(&x.shape, &y.shape)?;
    let (ix, iy) = (spread(&x.shape, &shape)?, spread(&y.shape, &shape)?);
    let mut data = Vec::with_capacity(ix.len());
    for (i, j) in ix.into_iter().zip(iy) {
        let (a, b) = (x.data[i], y.data[j]);
        data.push(f(a, b).ok_or_else(|| Fault::shape(format!("{a} and {b} overflow or divide by zero")))?);
    }
    Ok(Host::new(element, shape, data))
}

/// For each element of `to`, the flat index of its source in a tensor of shape `from`
/// that broadcasts to it.
pub(super) fn spread(from: &[usize], to: &[usize]) -> Result<Vec<usize>, Fault> {
    bounded_on_host(to)?;
    let from = padded(from, to.len());
    let mut index = vec![0];
    let mut stride = from.iter().product::<usize>();
    for (have, want) in from.iter().zip(to) {
        stride /= (*have).max(1);
        let step = if *have == 1 { 0 } else { stride };
        index = index.iter().flat_map(|base| (0..*want).map(move |i| base + i * step)).collect();
    }
    Ok(index)
}

/// Folds any number of operands from the left.
struct Variadic {
    step: Binary,
    mean: bool,
}

fn variadic<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, usize::MAX)?;
    let step = match spec.op() {
        "Min" => Binary::Min,
        "Max" => Binary::Max,
        _ => Binary::Add,
    };
    Ok(Box::new(Variadic { step, mean: spec.op() == "Mean" }))
}

impl<B: Engine> Operator<B> for Variadic {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let count = inputs.len();
        let mut result = inputs.any(0)?;
        for i in 1..count {
            result = self.step.apply(result, inputs.any(i)?)?;
        }
        if !self.mean {
            return Ok(vec![result]);
        }
        match result {
            Value::Float(sum) => Ok(vec![Value::Float(B::float_div_scalar(sum, Scalar::from(count as f32)))]),
            Value::Host(_) => Err(Fault::unsupported("the mean of integers is not computed")),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Unary {
    Neg,
    Abs,
    Sqrt,
    Exp,
    Log,
    Reciprocal,
    Sin,
    Cos,
    Floor,
    Ceil,
    Round,
    Sign,
}

fn unary<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 1)?;
    Ok(Box::new(match spec.op() {
        "Neg" => Unary::Neg,
        "Abs" => Unary::Abs,
        "Sqrt" => Unary::Sqrt,
        "Exp" => Unary::Exp,
        "Log" => Unary::Log,
        "Reciprocal" => Unary::Reciprocal,
        "Sin" => Unary::Sin,
        "Cos" => Unary::Cos,
        "Floor" => Unary::Floor,
        "Ceil" => Unary::Ceil,
        "Round" => Unary::Round,
        _ => Unary::Sign,
    }))
}

impl<B: Engine> Operator<B> for Unary {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = match inputs.any(0)? {
            Value::Float(x) => x,
            Value::Host(mut host) => {
                for v in &mut host.data {
                    *v = match self {
                        Self::Neg => v.checked_neg(),
                        Self::Abs => v.checked_abs(),
                        Self::Sign => Some(v.signum()),
                        _ => return Err(Fault::unsupported("only f32 is computed")),
                    }
                    .ok_or_else(|| Fault::shape(format!("{v} overflows")))?;
                }
                return Ok(vec![Value::Host(host)]);
            }
        };
        Ok(vec![Value::Float(match self {
            Self::Neg => B::float_neg(x),
            Self::Abs => B::float_abs(x),
            Self::Sqrt => B::float_sqrt(x),
            Self::Exp => B::float_exp(x),
            Self::Log => B::float_log(x),
            Self::Reciprocal => B::float_recip(x),
            Self::Sin => B::float_sin(x),
            Self::Cos => B::float_cos(x),
            Self::Floor => B::float_floor(x),
            Self::Ceil => B::float_ceil(x),
            Self::Round => B::float_round(x),
            Self::Sign => B::float_sign(x),
        })])
    }
}

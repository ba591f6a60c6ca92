//! Values out of nothing, out of shapes and between types: `Constant`, `ConstantOfShape`,
//! `Shape`, `Size`, `Range`, `Cast`, `CastLike`.
//!
//! <https://onnx.ai/onnx/operators/onnx__Constant.html>,
//! <https://onnx.ai/onnx/operators/onnx__Cast.html>
//!
//! Shape and Size read no values, so what depends on them alone is plain integer
//! arithmetic. Floats are computed in f32, so casts between float types keep the value as
//! it is; casts from f32 to integers cut the gradient, as they must.

use burn_backend::tensor::FloatTensor;

use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Host, Value, bounded, bounded_on_host, extents, floats, read};
use crate::onnx::{Element, read_tensor};
use crate::tensor::{Tensor, TensorData};

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "Constant" => constant,
        "ConstantOfShape" => constant_of_shape,
        "Shape" => shape,
        "Size" => size,
        "Range" => range,
        "Cast" | "CastLike" => cast,
        _ => return None,
    })
}

struct Constant(Tensor);

fn constant<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(0, 0)?;
    let tensor = if let Some(proto) = spec.tensor("value") {
        read_tensor(proto).map_err(|e| Fault::broken(e.to_string()))?
    } else if let Some(value) = spec.float("value_float") {
        Tensor::scalar(value)
    } else if let Some(values) = spec.floats("value_floats") {
        Tensor { shape: vec![values.len()], data: TensorData::F32(values) }
    } else if let Some(value) = spec.int("value_int") {
        Tensor { shape: Vec::new(), data: TensorData::I64(vec![value]) }
    } else if let Some(values) = spec.ints("value_ints") {
        Tensor { shape: vec![values.len()], data: TensorData::I64(values) }
    } else {
        return Err(Fault::unsupported("only dense numbers can be constants"));
    };
    Ok(Box::new(Constant(tensor)))
}

impl<B: Engine> Operator<B> for Constant {
    fn run(&self, _: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        Ok(vec![Value::from_tensor(self.0.clone())?])
    }
}

struct ConstantOfShape(Tensor);

fn constant_of_shape<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 1)?;
    let value = match spec.tensor("value") {
        Some(proto) => read_tensor(proto).map_err(|e| Fault::broken(e.to_string()))?,
        None => Tensor::scalar(0.0),
    };
    if value.numel() != 1 {
        return Err(Fault::broken("the value must be one number"));
    }
    Ok(Box::new(ConstantOfShape(value)))
}

impl<B: Engine> Operator<B> for ConstantOfShape {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let shape = extents(&inputs.host(0)?.data)?;
        let count = bounded(&shape)?;
        Ok(vec![match Value::<B>::from_tensor(self.0.clone())? {
            Value::Host(one) => {
                bounded_on_host(&shape)?;
                Value::Host(Host::new(one.element, shape, vec![one.data[0]; count]))
            }
            Value::Float(one) => Value::Float(floats::<B>(vec![read::<B>(one)?[0]; count], &shape)),
        }])
    }
}

/// The extents of a tensor from `start` to `end` (opset 15).
struct Shape {
    start: i64,
    end: Option<i64>,
}

fn shape<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 1)?;
    Ok(Box::new(Shape { start: spec.int("start").unwrap_or(0), end: spec.int("end") }))
}

impl<B: Engine> Operator<B> for Shape {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let shape: Vec<i64> = inputs.any(0)?.shape().iter().map(|d| *d as i64).collect();
        let rank = shape.len() as i64;
        let clamp = |v: i64| (if v < 0 { v.saturating_add(rank) } else { v }).clamp(0, rank) as usize;
        let (start, end) = (clamp(self.start), clamp(self.end.unwrap_or(rank)));
        Ok(vec![Value::Host(Host::list(shape.get(start..end).unwrap_or_default().to_vec()))])
    }
}

struct Size;

fn size<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 1)?;
    Ok(Box::new(Size))
}

impl<B: Engine> Operator<B> for Size {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let count = bounded(&inputs.any(0)?.shape())? as i64;
        Ok(vec![Value::Host(Host::new(Element::I64, Vec::new(), vec![count]))])
    }
}

struct Range;

fn range<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(3, 3)?;
    Ok(Box::new(Range))
}

impl<B: Engine> Operator<B> for Range {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let operands = [inputs.any(0)?, inputs.any(1)?, inputs.any(2)?];
        if let [Value::Float(start), Value::Float(limit), Value::Float(delta)] = &operands {
            let one = |x: &FloatTensor<B>| match read::<B>(x.clone())?[..] {
                [v] => Ok(v),
                _ => Err(Fault::broken("start, limit and delta are scalars")),
            };
            let (start, limit, delta) = (one(start)?, one(limit)?, one(delta)?);
            let count = ((limit - start) / delta).ceil().max(0.0);
            if count.is_nan() || count > u32::MAX as f32 {
                return Err(Fault::shape(format!("range {start}..{limit} by {delta}")));
            }
            let count = bounded(&[count as usize])?;
            let data = (0..count).map(|i| start + i as f32 * delta).collect();
            return Ok(vec![Value::Float(floats::<B>(data, &[count]))]);
        }
        let mut operands = operands.into_iter();
        let mut one = || match operands.next() {
            Some(Value::Host(host)) if host.data.len() == 1 => Ok((host.data[0], host.element)),
            Some(Value::Host(_)) => Err(Fault::broken("start, limit and delta are scalars")),
            _ => Err(Fault::broken("start, limit and delta differ in element type")),
        };
        let ((start, element), (limit, _), (delta, _)) = (one()?, one()?, one()?);
        let bad = || Fault::shape(format!("range {start}..{limit} by {delta}"));
        let span = limit.checked_sub(start).ok_or_else(bad)?;
        let count = match delta {
            0 => return Err(bad()),
            d if (span > 0) != (d > 0) || span == 0 => 0,
            d => span.unsigned_abs().div_ceil(d.unsigned_abs()),
        };
        let count = usize::try_from(count).map_err(|_| bad())?;
        bounded_on_host(&[count])?;
        let data = (0..count as i64).map(|i| start + i * delta).collect();
        Ok(vec![Value::Host(Host::new(element, vec![count], data))])
    }
}

/// The target type; `None` takes that of the second operand.
struct Cast(Option<Element>);

fn cast<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 2)?;
    // Both matter only for 8-bit floats, which are refused.
    let _ = (spec.int("saturate"), spec.text("round_mode"));
    if spec.op() == "CastLike" {
        return Ok(Box::new(Cast(None)));
    }
    let code = spec.int("to").and_then(|code| i32::try_from(code).ok());
    let element = Element::from_onnx(code.ok_or_else(|| Fault::broken("the target type is missing"))?);
    match element {
        Element::F32 | Element::F64 | Element::I8 | Element::U8 | Element::I32 | Element::I64 | Element::Bool => {
            Ok(Box::new(Cast(Some(element))))
        }
        other => Err(Fault::unsupported(format!("{other:?} is not computed"))),
    }
}

impl<B: Engine> Operator<B> for Cast {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.any(0)?;
        let to = match self.0 {
            Some(element) => element,
            None => match inputs.any(1)? {
                Value::Float(_) => Element::F32,
                Value::Host(host) => host.element,
            },
        };
        let is_float = matches!(to, Element::F32 | Element::F64);
        Ok(vec![match x {
            Value::Float(x) if is_float => Value::Float(x),
            Value::Float(x) => {
                let shape = super::super::value::dims::<B>(&x);
                let data = read::<B>(x)?.into_iter().map(|v| narrow(v as i64, v != 0.0, to)).collect();
                Value::Host(Host::new(to, shape, data))
            }
            Value::Host(host) if is_float => Value::Float(floats::<B>(host.data.iter().map(|v| *v as f32).collect(), &host.shape)),
            Value::Host(host) => {
                let data = host.data.iter().map(|v| narrow(*v, *v != 0, to)).collect();
                Value::Host(Host::new(to, host.shape, data))
            }
        }])
    }
}

/// Wraps to the width of the type, as a C cast does.
fn narrow(value: i64, truth: bool, to: Element) -> i64 {
    match to {
        Element::I8 => i64::from(value as i8),
        Element::U8 => i64::from(value as u8),
        Element::I32 => i64::from(value as i32),
        Element::Bool => i64::from(truth),
        _ => value,
    }
}

//! New shapes for the same values: `Reshape`, `Flatten`, `Squeeze`, `Unsqueeze`, `Identity`,
//! `Transpose`, `Expand`.
//!
//! <https://onnx.ai/onnx/operators/onnx__Reshape.html>
//!
//! - Reshape: 0 copies the extent (unless `allowzero`, opset 14), -1 infers one.
//! - Squeeze, Unsqueeze: axes are an attribute before opset 13, an input from then on.
//! - Expand broadcasts both ways: an extent of 1 in the target keeps the input's.

use burn_backend::Shape;

use super::elementwise::spread;
use super::indexing::advance;
use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Host, Value, axes, axis, bounded, broadcast, dims, extents, padded, reshape};

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Identity" => view,
        "Transpose" => transpose,
        "Expand" => expand,
        _ => return None,
    })
}

/// Same values in the same order.
enum View {
    Reshape { allow_zero: bool, shape: Option<Vec<i64>> },
    Flatten { axis: i64 },
    Squeeze { axes: Option<Vec<i64>> },
    Unsqueeze { axes: Option<Vec<i64>> },
    Identity,
}

fn view<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 2)?;
    Ok(Box::new(match spec.op() {
        "Reshape" => View::Reshape { allow_zero: spec.flag("allowzero", false), shape: spec.ints("shape") },
        "Flatten" => View::Flatten { axis: spec.int("axis").unwrap_or(1) },
        "Squeeze" => View::Squeeze { axes: spec.ints("axes") },
        "Unsqueeze" => View::Unsqueeze { axes: spec.ints("axes") },
        _ => View::Identity,
    }))
}

impl<B: Engine> Operator<B> for View {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.any(0)?;
        let operand = inputs.optional_host(1)?.map(|h| h.data);
        let have = x.shape();
        let want = self.shape(&have, operand)?;
        if bounded(&want)? != bounded(&have)? {
            return Err(Fault::shape(format!("{have:?} does not fit {want:?}")));
        }
        Ok(vec![match x {
            Value::Float(x) => Value::Float(reshape::<B>(x, &want)),
            Value::Host(host) => Value::Host(Host { shape: want, ..host }),
        }])
    }
}

impl View {
    fn shape(&self, have: &[usize], operand: Option<Vec<i64>>) -> Result<Vec<usize>, Fault> {
        match self {
            Self::Identity => Ok(have.to_vec()),
            Self::Reshape { allow_zero, shape } => {
                let wanted = operand.or_else(|| shape.clone()).ok_or_else(|| Fault::broken("the shape is missing"))?;
                resolve(have, &wanted, *allow_zero)
            }
            Self::Flatten { axis: at } => {
                // The axis may be the rank itself: everything is then one column.
                let at = if *at == have.len() as i64 { have.len() } else { axis(*at, have.len())? };
                Ok(vec![have[..at].iter().product(), have[at..].iter().product()])
            }
            Self::Squeeze { axes: given } => {
                let given = operand.or_else(|| given.clone());
                let along = match given {
                    Some(list) => axes(&list, have.len())?,
                    None => (0..have.len()).filter(|i| have[*i] == 1).collect(),
                };
                if let Some(a) = along.iter().find(|a| have[**a] != 1) {
                    return Err(Fault::shape(format!("axis {a} of {have:?} is not 1")));
                }
                Ok(have.iter().enumerate().filter(|(i, _)| !along.contains(i)).map(|(_, d)| *d).collect())
            }
            Self::Unsqueeze { axes: given } => {
                let list = operand.or_else(|| given.clone()).ok_or_else(|| Fault::broken("axes are missing"))?;
                let mut shape = have.to_vec();
                // Before any axis is put in, that there are not too many.
                bounded(&vec![1; have.len().saturating_add(list.len())])?;
                for a in axes(&list, have.len() + list.len())? {
                    shape.insert(a, 1);
                }
                Ok(shape)
            }
        }
    }
}

fn resolve(have: &[usize], wanted: &[i64], allow_zero: bool) -> Result<Vec<usize>, Fault> {
    let bad = || Fault::shape(format!("{have:?} cannot be reshaped to {wanted:?}"));
    let mut shape = Vec::with_capacity(wanted.len());
    let mut free = None;
    for (i, &d) in wanted.iter().enumerate() {
        shape.push(match d {
            -1 if free.is_none() => {
                free = Some(i);
                1
            }
            0 if !allow_zero => *have.get(i).ok_or_else(bad)?,
            d => usize::try_from(d).map_err(|_| bad())?,
        });
    }
    if let Some(i) = free {
        let (total, rest) = (bounded(have)?, bounded(&shape)?);
        if rest == 0 || total % rest != 0 {
            return Err(bad());
        }
        shape[i] = total / rest;
    }
    Ok(shape)
}

struct Transpose {
    permutation: Option<Vec<i64>>,
}

fn transpose<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 1)?;
    Ok(Box::new(Transpose { permutation: spec.ints("perm") }))
}

impl<B: Engine> Operator<B> for Transpose {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.any(0)?;
        let shape = x.shape();
        let order: Vec<usize> = match &self.permutation {
            Some(list) => {
                // `axes` refuses repetitions; the order itself is then the list's.
                if axes(list, shape.len())?.len() != shape.len() {
                    return Err(Fault::shape(format!("perm {list:?} of {shape:?}")));
                }
                list.iter().map(|a| axis(*a, shape.len())).collect::<Result<_, _>>()?
            }
            None => (0..shape.len()).rev().collect(),
        };
        match x {
            Value::Float(x) if shape.len() < 2 => Ok(vec![Value::Float(x)]),
            Value::Float(x) => Ok(vec![Value::Float(B::float_permute(x, &order))]),
            Value::Host(host) => {
                let out: Vec<usize> = order.iter().map(|a| shape[*a]).collect();
                let strides: Vec<usize> = order.iter().map(|a| shape[a + 1..].iter().product()).collect();
                let mut place = vec![0; out.len()];
                let mut data = Vec::with_capacity(host.data.len());
                for _ in 0..host.data.len() {
                    data.push(host.data[place.iter().zip(&strides).map(|(i, stride)| i * stride).sum::<usize>()]);
                    advance(&mut place, &out);
                }
                Ok(vec![Value::Host(Host::new(host.element, out, data))])
            }
        }
    }
}

struct Expand;

fn expand<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(2, 2)?;
    Ok(Box::new(Expand))
}

impl<B: Engine> Operator<B> for Expand {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.any(0)?;
        let have = x.shape();
        let want = broadcast(&have, &extents(&inputs.host(1)?.data)?)?;
        match x {
            Value::Float(x) => {
                if dims::<B>(&x) == want {
                    return Ok(vec![Value::Float(x)]);
                }
                let x = reshape::<B>(x, &padded(&have, want.len()));
                Ok(vec![Value::Float(B::float_expand(x, Shape::from(want)))])
            }
            Value::Host(host) => {
                let data = spread(&have, &want)?.into_iter().map(|i| host.data[i]).collect();
                Ok(vec![Value::Host(Host::new(host.element, want, data))])
            }
        }
    }
}

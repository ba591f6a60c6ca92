//! What is where: `GatherElements`, `TopK`, `ArgMax`, `ArgMin`, `OneHot`, `Trilu`, `CumSum`, `Tile`.
//!
//! <https://onnx.ai/onnx/operators/onnx__GatherElements.html>,
//! <https://onnx.ai/onnx/operators/onnx__TopK.html>,
//! <https://onnx.ai/onnx/operators/onnx__ArgMax.html>,
//! <https://onnx.ai/onnx/operators/onnx__OneHot.html>,
//! <https://onnx.ai/onnx/operators/onnx__Trilu.html>,
//! <https://onnx.ai/onnx/operators/onnx__CumSum.html>,
//! <https://onnx.ai/onnx/operators/onnx__Tile.html>
//!
//! Where things are is found on the host; floats are then picked by position, so that the
//! gradient goes to where they came from. Positions themselves have none.
//!
//! - TopK: k is an attribute before opset 10, an input from then on; 11 added `largest` and
//!   `sorted`. Of equal values the first comes first.
//! - ArgMax, ArgMin: of equal values the first counts, or with `select_last_index` (opset 12)
//!   the last.
//! - OneHot: an index outside the depth gives a row without a one.
//! - Trilu replaces, rather than multiplies: masks of -inf stay whole.

use std::cmp::Ordering;

use burn_backend::{BoolStore, DType, Scalar, TensorData as BurnData, tensor::FloatTensor};
use burn_flex::FlexDevice;

use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Host, Value, axis, bounded, bounded_on_host, dims, extents, floats, read, reshape};
use crate::onnx::Element;

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "GatherElements" => gather_elements,
        "TopK" => top_k,
        "ArgMax" | "ArgMin" => arg,
        "OneHot" => one_hot,
        "Trilu" => trilu,
        "CumSum" => cum_sum,
        "Tile" => tile,
        _ => return None,
    })
}

/// The elements of `x` at these row-major positions, in a new shape.
fn pick<B: Engine>(x: Value<B>, positions: Vec<usize>, shape: Vec<usize>) -> Result<Value<B>, Fault> {
    match x {
        Value::Host(host) => {
            let data = positions.into_iter().map(|at| host.data[at]).collect();
            Ok(Value::Host(Host::new(host.element, shape, data)))
        }
        Value::Float(_) if positions.is_empty() => Err(Fault::unsupported("an empty f32 tensor")),
        Value::Float(x) => {
            let all = dims::<B>(&x).iter().product();
            let count = positions.len();
            let positions: Vec<i64> = positions.into_iter().map(|at| at as i64).collect();
            let indices = B::int_from_data(BurnData::new(positions, [count]), &FlexDevice);
            Ok(Value::Float(reshape::<B>(B::float_select(reshape::<B>(x, &[all]), 0, indices), &shape)))
        }
    }
}

/// Lines of a tensor along an axis: the position of the first element of each, and the distance between two.
struct Lines {
    firsts: Vec<usize>,
    step: usize,
    extent: usize,
}

impl Lines {
    fn of(shape: &[usize], axis: usize) -> Self {
        let (extent, step) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
        let outer: usize = shape[..axis].iter().product();
        let firsts = (0..outer).flat_map(|o| (0..step).map(move |i| o * extent * step + i)).collect();
        Self { firsts, step, extent }
    }

    /// Positions along each line as `compare` orders what stands there; equal values keep their order.
    fn sorted<T: Copy>(&self, data: &[T], compare: impl Fn(T, T) -> Ordering) -> Vec<Vec<usize>> {
        let line = |first: &usize| {
            let mut order: Vec<usize> = (0..self.extent).collect();
            let at = |i: usize| data[first + i * self.step];
            order.sort_by(|a, b| compare(at(*a), at(*b)));
            order
        };
        self.firsts.iter().map(line).collect()
    }
}

/// Orders each line of `x` along `lines`, descending or ascending. What is no number counts as larger than any, as in NumPy.
fn sorted<B: Engine>(x: &Value<B>, lines: &Lines, descending: bool) -> Result<Vec<Vec<usize>>, Fault> {
    let turned = |order: Ordering| if descending { order.reverse() } else { order };
    Ok(match x {
        Value::Host(host) => lines.sorted(&host.data, |a, b| turned(a.cmp(&b))),
        Value::Float(x) => {
            let data = read::<B::Plain>(B::lower(x.clone()))?;
            let compare = |a: f32, b: f32| a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
            lines.sorted(&data, |a, b| turned(compare(a, b)))
        }
    })
}

struct GatherElements {
    axis: i64,
}

fn gather_elements<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(2, 2)?;
    Ok(Box::new(GatherElements { axis: spec.int("axis").unwrap_or(0) }))
}

impl<B: Engine> Operator<B> for GatherElements {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let (x, wanted) = (inputs.any(0)?, inputs.host(1)?);
        let shape = x.shape();
        let at = axis(self.axis, shape.len())?;
        let fits = wanted.shape.len() == shape.len() && (0..shape.len()).all(|d| d == at || wanted.shape[d] <= shape[d]);
        if !fits {
            return Err(Fault::shape(format!("indices {:?} of {shape:?}", wanted.shape)));
        }
        let mut place = vec![0; shape.len()];
        let mut positions = Vec::with_capacity(wanted.data.len());
        for index in &wanted.data {
            let index = axis(*index, shape[at]).map_err(|_| Fault::shape(format!("index {index} is outside axis {at} of {shape:?}")))?;
            let coordinates = place.iter().enumerate().map(|(d, i)| if d == at { index } else { *i });
            positions.push(coordinates.zip(&shape).fold(0, |flat, (i, extent)| flat * extent + i));
            advance(&mut place, &wanted.shape);
        }
        Ok(vec![pick(x, positions, wanted.shape)?])
    }
}

/// The next place of a tensor, row by row.
pub(super) fn advance(place: &mut [usize], shape: &[usize]) {
    for (i, extent) in place.iter_mut().zip(shape).rev() {
        *i += 1;
        if *i < *extent {
            return;
        }
        *i = 0;
    }
}

struct TopK {
    k: Option<i64>,
    axis: i64,
    largest: bool,
}

fn top_k<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 2)?;
    // What is not asked to be sorted may be.
    let _ = spec.int("sorted");
    Ok(Box::new(TopK { k: spec.int("k"), axis: spec.int("axis").unwrap_or(-1), largest: spec.flag("largest", true) }))
}

impl<B: Engine> Operator<B> for TopK {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.any(0)?;
        let k = inputs.optional_host(1)?.and_then(|host| host.data.first().copied()).or(self.k);
        let mut shape = x.shape();
        let at = axis(self.axis, shape.len())?;
        let k = k.and_then(|k| usize::try_from(k).ok()).filter(|k| *k <= shape[at]);
        let k = k.ok_or_else(|| Fault::shape(format!("k is not within 0 to {}", shape[at])))?;
        let lines = Lines::of(&shape, at);
        let orders = sorted(&x, &lines, self.largest)?;
        shape[at] = k;
        let places = Lines::of(&shape, at);
        let mut positions = vec![0; bounded(&shape)?];
        let mut indices = vec![0i64; positions.len()];
        for ((order, from), to) in orders.iter().zip(&lines.firsts).zip(&places.firsts) {
            for (rank, i) in order.iter().take(k).enumerate() {
                let place = to + rank * places.step;
                (positions[place], indices[place]) = (from + i * lines.step, *i as i64);
            }
        }
        let indices = Value::Host(Host::new(Element::I64, shape.clone(), indices));
        Ok(vec![pick(x, positions, shape)?, indices])
    }
}

struct Arg {
    largest: bool,
    axis: i64,
    keep: bool,
    last: bool,
}

fn arg<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 1)?;
    Ok(Box::new(Arg {
        largest: spec.op() == "ArgMax",
        axis: spec.int("axis").unwrap_or(0),
        keep: spec.flag("keepdims", true),
        last: spec.flag("select_last_index", false),
    }))
}

impl<B: Engine> Operator<B> for Arg {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.any(0)?;
        let mut shape = x.shape();
        let at = axis(self.axis, shape.len())?;
        if shape[at] == 0 {
            return Err(Fault::shape(format!("axis {at} of {shape:?} is empty")));
        }
        let lines = Lines::of(&shape, at);
        let best = match &x {
            Value::Host(host) => self.best(&lines, &host.data),
            Value::Float(x) => self.best(&lines, &read::<B::Plain>(B::lower(x.clone()))?),
        };
        if self.keep {
            shape[at] = 1;
        } else {
            shape.remove(at);
        }
        Ok(vec![Value::Host(Host::new(Element::I64, shape, best))])
    }
}

impl Arg {
    fn best<T: Copy + PartialOrd>(&self, lines: &Lines, data: &[T]) -> Vec<i64> {
        let better = |new: T, old: T| {
            let strictly = if self.largest { new > old } else { new < old };
            strictly || (self.last && new == old)
        };
        let line = |first: &usize| {
            let at = |i: usize| data[first + i * lines.step];
            (1..lines.extent).fold(0, |best, i| if better(at(i), at(best)) { i } else { best }) as i64
        };
        lines.firsts.iter().map(line).collect()
    }
}

struct OneHot {
    axis: i64,
}

fn one_hot<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(3, 3)?;
    Ok(Box::new(OneHot { axis: spec.int("axis").unwrap_or(-1) }))
}

impl<B: Engine> Operator<B> for OneHot {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let whole = |value: Value<B>| match value {
            Value::Host(host) => Ok((host.shape, host.data)),
            Value::Float(x) => {
                let shape = dims::<B>(&x);
                Ok((shape, read::<B>(x)?.into_iter().map(|v| v as i64).collect()))
            }
        };
        let (indices, depth) = (whole(inputs.any(0)?)?, whole(inputs.any(1)?)?.1);
        let (mut shape, indices) = indices;
        let depth = match depth[..] {
            [depth] => extents(&[depth])?[0],
            _ => return Err(Fault::broken("the depth is one number")),
        };
        let at = axis(self.axis, shape.len() + 1)?;
        let inner: usize = shape[at..].iter().product();
        shape.insert(at, depth);
        let mut hot = vec![false; bounded_on_host(&shape)?];
        for (i, index) in indices.iter().enumerate() {
            if let Ok(class) = axis(*index, depth) {
                hot[(i / inner * depth + class) * inner + i % inner] = true;
            }
        }
        let pair = |len: usize| if len == 2 { Ok(()) } else { Err(Fault::broken("the values are off and on")) };
        Ok(vec![match inputs.any(2)? {
            Value::Host(values) => {
                pair(values.data.len())?;
                let data = hot.into_iter().map(|on| values.data[usize::from(on)]).collect();
                Value::Host(Host::new(values.element, shape, data))
            }
            Value::Float(values) => {
                let values = read::<B>(values)?;
                pair(values.len())?;
                Value::Float(floats::<B>(hot.into_iter().map(|on| values[usize::from(on)]).collect(), &shape))
            }
        }])
    }
}

struct Trilu {
    upper: bool,
}

fn trilu<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 2)?;
    Ok(Box::new(Trilu { upper: spec.flag("upper", true) }))
}

impl<B: Engine> Operator<B> for Trilu {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.any(0)?;
        let diagonal = inputs.optional_host(1)?.map_or(Some(0), |host| host.data.first().copied());
        let diagonal = diagonal.ok_or_else(|| Fault::broken("the diagonal is one number"))?;
        let shape = x.shape();
        let [.., rows, columns] = shape[..] else { return Err(Fault::shape(format!("{shape:?} is no matrix"))) };
        let matrix = (0..rows).flat_map(|row| (0..columns).map(move |column| column as i64 - row as i64));
        let outside: Vec<bool> = matrix.map(|over| if self.upper { over < diagonal } else { over > diagonal }).collect();
        Ok(vec![match x {
            Value::Host(mut host) => {
                let cells = host.data.iter_mut().zip(outside.iter().cycle());
                cells.filter(|(_, outside)| **outside).for_each(|(cell, _)| *cell = 0);
                Value::Host(host)
            }
            Value::Float(x) if shape.contains(&0) => Value::Float(x),
            Value::Float(x) => {
                let copies = bounded(&shape)? / outside.len();
                let mask = BurnData::new(outside.repeat(copies), shape).convert_dtype(DType::Bool(BoolStore::Native));
                Value::Float(B::float_mask_fill(x, B::bool_from_data(mask, &FlexDevice), Scalar::from(0.0f32)))
            }
        }])
    }
}

struct CumSum {
    exclusive: bool,
    reverse: bool,
}

fn cum_sum<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(2, 2)?;
    Ok(Box::new(CumSum { exclusive: spec.flag("exclusive", false), reverse: spec.flag("reverse", false) }))
}

impl<B: Engine> Operator<B> for CumSum {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let (x, along) = (inputs.any(0)?, inputs.host(1)?);
        let shape = x.shape();
        let at = match along.data[..] {
            [one] => axis(one, shape.len())?,
            _ => return Err(Fault::broken("the axis is one number")),
        };
        Ok(vec![match x {
            Value::Host(mut host) => {
                let lines = Lines::of(&shape, at);
                for first in &lines.firsts {
                    let mut sum = 0i64;
                    for i in 0..lines.extent {
                        let i = if self.reverse { lines.extent - 1 - i } else { i };
                        let cell = &mut host.data[first + i * lines.step];
                        let after = sum.checked_add(*cell).ok_or_else(|| Fault::shape("the sum overflows"))?;
                        *cell = if self.exclusive { sum } else { after };
                        sum = after;
                    }
                }
                Value::Host(host)
            }
            Value::Float(x) if shape.contains(&0) => Value::Float(x),
            Value::Float(x) => {
                let turned = |x: FloatTensor<B>| if self.reverse { B::float_flip(x, &[at]) } else { x };
                let x = turned(x);
                let sums = B::float_cumsum(x.clone(), at);
                // What is itself left out is taken off again: exact but for the last bits.
                let sums = if self.exclusive { B::float_sub(sums, x) } else { sums };
                Value::Float(turned(sums))
            }
        }])
    }
}

struct Tile;

fn tile<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(2, 2)?;
    Ok(Box::new(Tile))
}

impl<B: Engine> Operator<B> for Tile {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let (x, repeats) = (inputs.any(0)?, extents(&inputs.host(1)?.data)?);
        let have = x.shape();
        if repeats.len() != have.len() {
            return Err(Fault::shape(format!("{} repeats of {have:?}", repeats.len())));
        }
        let shape: Vec<usize> = have.iter().zip(&repeats).map(|(extent, times)| extent.saturating_mul(*times)).collect();
        let count = bounded_on_host(&shape)?;
        let mut place = vec![0; shape.len()];
        let mut positions = Vec::with_capacity(count);
        for _ in 0..count {
            positions.push(place.iter().zip(&have).fold(0, |flat, (i, extent)| flat * extent + i % extent));
            advance(&mut place, &shape);
        }
        Ok(vec![pick(x, positions, shape)?])
    }
}

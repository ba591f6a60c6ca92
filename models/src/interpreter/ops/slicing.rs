//! Parts and unions of tensors: `Slice`, `Split`, `Concat`, `Gather`, `Pad`.
//!
//! <https://onnx.ai/onnx/operators/onnx__Slice.html>,
//! <https://onnx.ai/onnx/operators/onnx__Split.html>,
//! <https://onnx.ai/onnx/operators/onnx__Gather.html>,
//! <https://onnx.ai/onnx/operators/onnx__Pad.html>
//!
//! - Slice: bounds are attributes before opset 10, inputs from then on; out-of-range bounds
//!   are clamped; steps may be negative.
//! - Split: sizes are an attribute before opset 13, an input from then on; opset 18 has
//!   `num_outputs` with a smaller last part.
//! - Gather: integer indices along one axis, negative ones from the end. On a weight this
//!   is an embedding; its gradient adds up over repeated indices.
//! - Pad: constant, reflect, edge, and since opset 19 wrap; pads are an attribute before opset
//!   11. Negative pads (cropping) are refused.

use burn_backend::ops::PadMode;
use burn_backend::{Slice as Range, TensorData as BurnData, tensor::FloatTensor};
use burn_flex::FlexDevice;

use super::indexing::advance;
use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Host, Value, axes, axis, bounded, bounded_on_host, dims, extents, floats, read, reshape};

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "Slice" => slice,
        "Split" => split,
        "Concat" => concat,
        "Gather" => gather,
        "Pad" => pad,
        _ => return None,
    })
}

/// The indices that are picked along one axis.
struct Picks {
    axis: usize,
    indices: Vec<usize>,
}

/// Picks rows of a host tensor along an axis.
fn pick_host(host: &Host, picks: &Picks) -> Host {
    let (outer, extent, inner) = around(&host.shape, picks.axis);
    let mut data = Vec::with_capacity(outer * picks.indices.len() * inner);
    for o in 0..outer {
        for i in &picks.indices {
            let from = (o * extent + i) * inner;
            data.extend_from_slice(&host.data[from..from + inner]);
        }
    }
    let mut shape = host.shape.clone();
    shape[picks.axis] = picks.indices.len();
    Host::new(host.element, shape, data)
}

/// Sizes before, at and after an axis.
fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

struct Slice {
    starts: Option<Vec<i64>>,
    ends: Option<Vec<i64>>,
    axes: Option<Vec<i64>>,
}

fn slice<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 5)?;
    Ok(Box::new(Slice { starts: spec.ints("starts"), ends: spec.ints("ends"), axes: spec.ints("axes") }))
}

impl<B: Engine> Operator<B> for Slice {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.any(0)?;
        let shape = x.shape();
        let mut list =
            |i, attribute: &Option<Vec<i64>>| inputs.optional_host(i).map(|host| host.map(|h| h.data).or_else(|| attribute.clone()));
        let missing = || Fault::broken("starts or ends are missing");
        let starts = list(1, &self.starts)?.ok_or_else(missing)?;
        let ends = list(2, &self.ends)?.ok_or_else(missing)?;
        let along = list(3, &self.axes)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = list(4, &None)?.unwrap_or_else(|| vec![1; starts.len()]);
        if ends.len() != starts.len() || along.len() != starts.len() || steps.len() != starts.len() {
            return Err(Fault::broken("starts, ends, axes and steps differ in length"));
        }
        axes(&along, shape.len())?;
        let mut x = x;
        for i in 0..starts.len() {
            let axis = axis(along[i], shape.len())?;
            let (first, count, step) = bounds(shape[axis], starts[i], ends[i], steps[i])?;
            x = cut(x, axis, shape[axis], first, count, step)?;
        }
        Ok(vec![x])
    }
}

/// First index, number of indices and step of a slice of an axis, by NumPy's rules.
fn bounds(extent: usize, start: i64, end: i64, step: i64) -> Result<(usize, usize, i64), Fault> {
    let bad = || Fault::broken(format!("slice {start}..{end} by {step} of {extent}"));
    let size = i64::try_from(extent).map_err(|_| bad())?;
    let wrap = |v: i64| if v < 0 { v.saturating_add(size) } else { v };
    let (low, high) = match step {
        0 => return Err(bad()),
        1.. => (wrap(start).clamp(0, size), wrap(end).clamp(0, size)),
        _ => (wrap(start).clamp(-1, size - 1), wrap(end).clamp(-1, size - 1)),
    };
    let span = if step > 0 { high - low } else { low - high };
    let count = if span > 0 { (span - 1) / step.saturating_abs() + 1 } else { 0 };
    Ok((usize::try_from(low.max(0)).map_err(|_| bad())?, usize::try_from(count).map_err(|_| bad())?, step))
}

fn cut<B: Engine>(x: Value<B>, axis: usize, extent: usize, first: usize, count: usize, step: i64) -> Result<Value<B>, Fault> {
    if first == 0 && count == extent && step == 1 {
        return Ok(x);
    }
    let index = |i: usize| (first as i64).saturating_add((i as i64).saturating_mul(step)) as usize;
    match x {
        Value::Host(host) => Ok(Value::Host(pick_host(&host, &Picks { axis, indices: (0..count).map(index).collect() }))),
        Value::Float(x) if count == 0 => {
            let mut shape = dims::<B>(&x);
            shape[axis] = 0;
            Ok(Value::Float(floats::<B>(Vec::new(), &shape)))
        }
        Value::Float(x) if step == 1 => Ok(Value::Float(narrow::<B>(x, axis, first, count))),
        Value::Float(x) => Ok(Value::Float(select::<B>(x, axis, (0..count).map(index).collect()))),
    }
}

fn narrow<B: Engine>(x: FloatTensor<B>, axis: usize, first: usize, count: usize) -> FloatTensor<B> {
    let mut ranges: Vec<Range> = dims::<B>(&x).iter().map(|d| Range::from(0..*d)).collect();
    ranges[axis] = Range::from(first..first + count);
    B::float_slice(x, &ranges)
}

fn select<B: Engine>(x: FloatTensor<B>, axis: usize, indices: Vec<usize>) -> FloatTensor<B> {
    let count = indices.len();
    let indices: Vec<i64> = indices.into_iter().map(|i| i as i64).collect();
    B::float_select(x, axis, B::int_from_data(BurnData::new(indices, [count]), &FlexDevice))
}

struct Split {
    axis: i64,
    sizes: Option<Vec<i64>>,
    parts: usize,
}

fn split<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 2)?;
    // num_outputs repeats what the list of outputs says.
    let _ = spec.int("num_outputs");
    Ok(Box::new(Split { axis: spec.int("axis").unwrap_or(0), sizes: spec.ints("split"), parts: spec.outputs() }))
}

impl<B: Engine> Operator<B> for Split {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.any(0)?;
        let shape = x.shape();
        let axis = axis(self.axis, shape.len())?;
        let given = inputs.optional_host(1)?.map(|h| h.data).or_else(|| self.sizes.clone());
        let sizes = match given {
            Some(list) => extents(&list)?,
            None => {
                let even = shape[axis].div_ceil(self.parts.max(1));
                (0..self.parts).map(|i| even.min(shape[axis].saturating_sub(i * even))).collect()
            }
        };
        let total = sizes.iter().try_fold(0usize, |a, b| a.checked_add(*b));
        if sizes.len() != self.parts || total != Some(shape[axis]) {
            return Err(Fault::shape(format!("parts {sizes:?} of axis {axis} of {shape:?}")));
        }
        let mut first = 0;
        let mut parts = Vec::with_capacity(sizes.len());
        for size in sizes {
            parts.push(cut(x.clone(), axis, shape[axis], first, size, 1)?);
            first += size;
        }
        Ok(parts)
    }
}

struct Concat {
    axis: i64,
}

fn concat<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, usize::MAX)?;
    Ok(Box::new(Concat { axis: spec.int("axis").ok_or_else(|| Fault::broken("axis is missing"))? }))
}

impl<B: Engine> Operator<B> for Concat {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let values = (0..inputs.len()).map(|i| inputs.any(i)).collect::<Result<Vec<_>, _>>()?;
        let first = values[0].shape();
        let axis = axis(self.axis, first.len())?;
        let mut out = first.clone();
        out[axis] = 0;
        for value in &values {
            let shape = value.shape();
            let fits = shape.len() == first.len() && (0..shape.len()).all(|i| i == axis || shape[i] == first[i]);
            if !fits {
                return Err(Fault::shape(format!("{shape:?} does not join {first:?} along axis {axis}")));
            }
            out[axis] = out[axis].saturating_add(shape[axis]);
        }
        bounded(&out)?;
        let (mut floats, mut hosts) = (Vec::new(), Vec::new());
        for value in values {
            match value {
                Value::Float(t) => floats.push(t),
                Value::Host(h) => hosts.push(h),
            }
        }
        match (floats.is_empty(), hosts.is_empty()) {
            (false, true) => Ok(vec![Value::Float(B::float_cat(floats, axis))]),
            (true, false) => {
                bounded_on_host(&out)?;
                Ok(vec![Value::Host(join(&hosts, axis, out))])
            }
            _ => Err(Fault::broken("the operands differ in element type")),
        }
    }
}

fn join(hosts: &[Host], axis: usize, shape: Vec<usize>) -> Host {
    let outer: usize = shape[..axis].iter().product();
    let mut data = Vec::with_capacity(shape.iter().product());
    for o in 0..outer {
        for host in hosts {
            let (_, extent, inner) = around(&host.shape, axis);
            data.extend_from_slice(&host.data[o * extent * inner..(o + 1) * extent * inner]);
        }
    }
    Host::new(hosts[0].element, shape, data)
}

struct Gather {
    axis: i64,
}

fn gather<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(2, 2)?;
    Ok(Box::new(Gather { axis: spec.int("axis").unwrap_or(0) }))
}

impl<B: Engine> Operator<B> for Gather {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let (x, wanted) = (inputs.any(0)?, inputs.host(1)?);
        let shape = x.shape();
        let at = axis(self.axis, shape.len())?;
        let indices: Vec<usize> = wanted
            .data
            .iter()
            .map(|i| axis(*i, shape[at]))
            .collect::<Result<_, _>>()
            .map_err(|_| Fault::shape(format!("an index is outside axis {at} of {shape:?}")))?;
        // The axis is replaced by the shape of the indices; a scalar index removes it.
        let mut out = shape[..at].to_vec();
        out.extend(&wanted.shape);
        out.extend(&shape[at + 1..]);
        bounded(&out)?;
        match x {
            Value::Host(host) => {
                bounded_on_host(&out)?;
                let picked = pick_host(&host, &Picks { axis: at, indices });
                Ok(vec![Value::Host(Host { shape: out, ..picked })])
            }
            Value::Float(_) if indices.is_empty() => Err(Fault::unsupported("no index")),
            // Neighbours are a slice, whose gradient need not be added up.
            Value::Float(x) if indices.windows(2).all(|pair| pair[0] + 1 == pair[1]) => {
                Ok(vec![Value::Float(reshape::<B>(narrow::<B>(x, at, indices[0], indices.len()), &out))])
            }
            Value::Float(x) => Ok(vec![Value::Float(reshape::<B>(select::<B>(x, at, indices), &out))]),
        }
    }
}

struct Pad {
    mode: String,
    pads: Option<Vec<i64>>,
    /// The fill of opsets before 11; an operand from then on.
    value: f32,
}

fn pad<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 4)?;
    let mode = spec.text("mode").unwrap_or_else(|| "constant".to_owned());
    if !["constant", "reflect", "edge", "wrap"].contains(&mode.as_str()) {
        return Err(Fault::unsupported(format!("mode = {mode}")));
    }
    Ok(Box::new(Pad { mode, pads: spec.ints("pads"), value: spec.float("value").unwrap_or(0.0) }))
}

impl<B: Engine> Operator<B> for Pad {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.any(0)?;
        let shape = x.shape();
        let list = inputs.optional_host(1)?.map(|h| h.data).or_else(|| self.pads.clone());
        let list = list.ok_or_else(|| Fault::broken("pads are missing"))?;
        let fill = inputs.take(2);
        let along = match inputs.optional_host(3)? {
            Some(host) => host.data.iter().map(|a| axis(*a, shape.len())).collect::<Result<Vec<_>, _>>()?,
            None => (0..shape.len()).collect(),
        };
        if list.len() != 2 * along.len() {
            return Err(Fault::broken(format!("{} pads for {} axes", list.len(), along.len())));
        }
        let list = extents(&list).map_err(|_| Fault::unsupported("negative pads (cropping); use Slice"))?;
        let mut pads = vec![(0, 0); shape.len()];
        for (i, a) in along.iter().enumerate() {
            pads[*a] = (list[i], list[i + along.len()]);
        }
        let widened = |(d, (b, e)): (&usize, &(usize, usize))| d.saturating_add(*b).saturating_add(*e);
        let out: Vec<usize> = shape.iter().zip(&pads).map(widened).collect();
        bounded(&out)?;
        let reaches = shape.iter().zip(&pads).all(|(d, (b, e))| b < d && e < d);
        if self.mode == "reflect" && !reaches {
            return Err(Fault::shape(format!("pads {pads:?} do not reflect in {shape:?}")));
        }
        if self.mode != "constant" && shape.contains(&0) {
            return Err(Fault::shape(format!("{shape:?} has nothing to repeat")));
        }
        match (x, fill) {
            (Value::Float(x), fill) => {
                let value = match fill {
                    Some(Value::Float(fill)) => *read::<B::Plain>(B::lower(fill))?.first().unwrap_or(&self.value),
                    Some(Value::Host(_)) => return Err(Fault::broken("the fill value is of another element type")),
                    None => self.value,
                };
                Ok(vec![Value::Float(match self.mode.as_str() {
                    "constant" => B::float_pad(x, &pads, PadMode::Constant(value)),
                    "reflect" => B::float_pad(x, &pads, PadMode::Reflect),
                    "edge" => B::float_pad(x, &pads, PadMode::Edge),
                    _ => (0..shape.len()).fold(x, |x, a| {
                        let from = (0..out[a]).map(|i| self.source(i, pads[a].0, shape[a]).unwrap_or(0)).collect();
                        select::<B>(x, a, from)
                    }),
                })])
            }
            (Value::Host(x), fill) => {
                let fill = match fill {
                    Some(Value::Host(fill)) => *fill.data.first().unwrap_or(&0),
                    Some(Value::Float(_)) => return Err(Fault::broken("the fill value is of another element type")),
                    None => 0,
                };
                let mut place = vec![0; shape.len()];
                let count = bounded_on_host(&out)?;
                let mut data = Vec::with_capacity(count);
                for _ in 0..count {
                    let from = (0..shape.len()).try_fold(0, |flat, a| Some(flat * shape[a] + self.source(place[a], pads[a].0, shape[a])?));
                    data.push(from.map_or(fill, |from| x.data[from]));
                    advance(&mut place, &out);
                }
                Ok(vec![Value::Host(Host::new(x.element, out, data))])
            }
        }
    }
}

impl Pad {
    /// Where element `i` of a padded axis comes from; none for the fill.
    fn source(&self, i: usize, before: usize, extent: usize) -> Option<usize> {
        let (at, extent) = (i as i64 - before as i64, extent as i64);
        let from = match self.mode.as_str() {
            "constant" if !(0..extent).contains(&at) => return None,
            "edge" => at.clamp(0, extent - 1),
            "reflect" if at < 0 => -at,
            "reflect" if at >= extent => 2 * (extent - 1) - at,
            "wrap" => at.rem_euclid(extent),
            _ => at,
        };
        usize::try_from(from).ok()
    }
}

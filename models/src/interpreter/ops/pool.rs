//! Pooling: `MaxPool`, `AveragePool`, `GlobalAveragePool`, `GlobalMaxPool`.
//!
//! <https://onnx.ai/onnx/operators/onnx__MaxPool.html>,
//! <https://onnx.ai/onnx/operators/onnx__AveragePool.html>,
//! <https://onnx.ai/onnx/operators/onnx__GlobalAveragePool.html>
//!
//! One to three spatial axes. AveragePool divides by the cells that count: real cells, and
//! with `count_include_pad` the declared pads too, but never the overhang of `ceil_mode`.
//! Opset 10 added `ceil_mode`, 19 dilations in AveragePool. MaxPool's `Indices` are found on
//! the host.

use burn_backend::{TensorData as BurnData, ops::PadMode, tensor::FloatTensor};
use burn_flex::FlexDevice;

use super::indexing::advance;
use super::window::{Placed, Window};
use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Host, Value, affordable, bounded, dims, floats, read, reshape};
use crate::kernel::pool::MaxPool;
use crate::onnx::Element;

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "MaxPool" => max_pool,
        "AveragePool" => average_pool,
        "GlobalAveragePool" => global_average,
        "GlobalMaxPool" => global_max,
        _ => return None,
    })
}

enum Kind {
    Max {
        /// If `Indices` are asked for, whether they count columns first.
        indices: Option<bool>,
    },
    Average {
        count_pads: bool,
    },
}

struct Pool {
    window: Window,
    kind: Kind,
}

fn window(spec: &Spec<'_>) -> Result<Window, Fault> {
    spec.arity(1, 1)?;
    let rank = spec.ints("kernel_shape").map(|k| k.len()).ok_or_else(|| Fault::broken("kernel_shape is missing"))?;
    Window::read(spec, spec.spatial("kernel_shape", rank, 1)?, 3)
}

fn max_pool<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    let by_column = match spec.int("storage_order").unwrap_or(0) {
        0 => false,
        1 => true,
        other => return Err(Fault::broken(format!("storage_order = {other}"))),
    };
    Ok(Box::new(Pool { window: window(spec)?, kind: Kind::Max { indices: spec.gives(1).then_some(by_column) } }))
}

fn average_pool<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    let count_pads = spec.flag("count_include_pad", false);
    Ok(Box::new(Pool { window: window(spec)?, kind: Kind::Average { count_pads } }))
}

impl<B: Engine> Operator<B> for Pool {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.float(0)?;
        let shape = dims::<B>(&x);
        if shape.len() != self.window.kernel.len() + 2 || shape.contains(&0) {
            return Err(Fault::shape(format!("input {shape:?}, kernel {:?}", self.window.kernel)));
        }
        let placed = self.window.place(&shape[2..])?;
        let out: Vec<usize> = shape[..2].iter().copied().chain(placed.iter().map(|p| p.out)).collect();
        bounded(&out)?;
        affordable(&[&out[..], &self.window.kernel].concat())?;
        match self.kind {
            Kind::Max { indices } => {
                let indices = match indices {
                    Some(by_column) => Some(self.indices(&read::<B::Plain>(B::lower(x.clone()))?, &shape, &placed, by_column)?),
                    None => None,
                };
                let y = Value::Float(self.max::<B>(x, &placed)?);
                Ok(std::iter::once(y).chain(indices.map(Value::Host)).collect())
            }
            Kind::Average { count_pads } => Ok(vec![Value::Float(self.average::<B>(x, &shape[2..], &placed, count_pads)?)]),
        }
    }
}

impl Pool {
    fn max<B: Engine>(&self, x: FloatTensor<B>, placed: &[Placed]) -> Result<FloatTensor<B>, Fault> {
        if placed.len() > 2 {
            return self.by_axis::<B>(pad::<B>(x, placed, f32::NEG_INFINITY)?, placed, B::float_max_dim);
        }
        let mut shape = dims::<B>(&x);
        let geometry = self.window.geometry(placed, &shape[2..]);
        let y = B::apply(MaxPool(geometry), [reshape::<B>(x, &[shape[0], shape[1], geometry.input[0], geometry.input[1]])]);
        shape.splice(2.., placed.iter().map(|p| p.out));
        Ok(reshape::<B>(y, &shape))
    }

    fn average<B: Engine>(&self, x: FloatTensor<B>, input: &[usize], placed: &[Placed], count_pads: bool) -> Result<FloatTensor<B>, Fault> {
        let window = &self.window;
        let x = pad::<B>(x, placed, 0.0)?;
        let dense = window.dilation.iter().all(|d| *d == 1);
        let y = match window.kernel[..] {
            [k] if dense => B::avg_pool1d(x, k, window.stride[0], 0, true, false),
            [_, _] if dense => B::avg_pool2d(x, pair(&window.kernel), pair(&window.stride), [0; 2], true, false),
            _ => self.by_axis::<B>(x, placed, B::float_mean_dim)?,
        };
        // Divided by the whole kernel so far; scale to the cells that count.
        let mut factors = vec![1.0f32];
        let mut shape = vec![1, 1];
        for (i, p) in placed.iter().enumerate() {
            let end = input[i] + p.begin;
            let counted = if count_pads { 0..end + p.declared_end } else { p.begin..end };
            let axis: Vec<f32> = (0..p.out)
                .map(|o| {
                    let taps = self.taps(i, o).filter(|at| counted.contains(at)).count();
                    window.kernel[i] as f32 / taps.max(1) as f32
                })
                .collect();
            factors = factors.iter().flat_map(|f| axis.iter().map(move |a| f * a)).collect();
            shape.push(p.out);
        }
        if factors.iter().all(|f| *f == 1.0) {
            return Ok(y);
        }
        Ok(B::float_mul(y, floats::<B>(factors, &shape)))
    }

    /// Where the window `out` reads along spatial axis `i`, counted from the first pad.
    fn taps(&self, i: usize, out: usize) -> impl Iterator<Item = usize> {
        let (first, dilation) = (out * self.window.stride[i], self.window.dilation[i]);
        (0..self.window.kernel[i]).map(move |tap| first + tap * dilation)
    }

    /// One axis after the other, for what the backend has no primitive for: a window's maximum or mean is that of its lines'.
    fn by_axis<B: Engine>(
        &self,
        x: FloatTensor<B>,
        placed: &[Placed],
        reduce: impl Fn(FloatTensor<B>, usize) -> FloatTensor<B>,
    ) -> Result<FloatTensor<B>, Fault> {
        placed.iter().enumerate().try_fold(x, |x, (i, p)| {
            let mut shape = dims::<B>(&x);
            shape.splice(i + 2..=i + 2, [p.out, self.window.kernel[i]]);
            bounded(&shape)?;
            let at: Vec<i64> = (0..p.out).flat_map(|out| self.taps(i, out)).map(|at| at as i64).collect();
            let count = [at.len()];
            let x = B::float_select(x, i + 2, B::int_from_data(BurnData::new(at, count), &FlexDevice));
            let y = reduce(reshape::<B>(x, &shape), i + 3);
            shape.remove(i + 3);
            Ok(reshape::<B>(y, &shape))
        })
    }

    /// Where each maximum lies, as a position in the whole input.
    fn indices(&self, x: &[f32], shape: &[usize], placed: &[Placed], by_column: bool) -> Result<Host, Fault> {
        let spatial = &shape[2..];
        let plane: usize = spatial.iter().product();
        let out: Vec<usize> = placed.iter().map(|p| p.out).collect();
        let cells: usize = out.iter().product();
        let mut found = Vec::with_capacity(shape[0] * shape[1] * cells);
        for first in (0..shape[0] * shape[1]).map(|p| p * plane) {
            let mut place = vec![0; out.len()];
            for _ in 0..cells {
                let mut best: Option<(f32, usize)> = None;
                let mut tap = vec![0; out.len()];
                for _ in 0..self.window.kernel.iter().product() {
                    let at = |i: usize| {
                        let padded = place[i] * self.window.stride[i] + tap[i] * self.window.dilation[i];
                        padded.checked_sub(placed[i].begin).filter(|at| *at < spatial[i])
                    };
                    if let Some(at) = (0..out.len()).map(at).collect::<Option<Vec<usize>>>() {
                        let row_major = at.iter().zip(spatial).fold(0, |flat, (i, extent)| flat * extent + i);
                        let told = match by_column {
                            true => at.iter().zip(spatial).rev().fold(0, |flat, (i, extent)| flat * extent + i),
                            false => row_major,
                        };
                        let value = x[first + row_major];
                        if best.is_none_or(|(most, _)| value > most) {
                            best = Some((value, first + told));
                        }
                    }
                    advance(&mut tap, &self.window.kernel);
                }
                let (_, at) = best.ok_or_else(|| Fault::shape("a window lies in the pads alone"))?;
                found.push(at as i64);
                advance(&mut place, &out);
            }
        }
        let mut out_shape = shape[..2].to_vec();
        out_shape.extend(out);
        Ok(Host::new(Element::I64, out_shape, found))
    }
}

fn pair(list: &[usize]) -> [usize; 2] {
    [list[0], list[1]]
}

fn pad<B: Engine>(x: FloatTensor<B>, placed: &[Placed], fill: f32) -> Result<FloatTensor<B>, Fault> {
    if placed.iter().all(|p| p.begin == 0 && p.end == 0) {
        return Ok(x);
    }
    let mut pads = vec![(0, 0); 2];
    pads.extend(placed.iter().map(|p| (p.begin, p.end)));
    let padded: Vec<_> = dims::<B>(&x).iter().zip(&pads).map(|(d, (b, e))| d + b + e).collect();
    bounded(&padded)?;
    Ok(B::float_pad(x, &pads, PadMode::Constant(fill)))
}

/// Pools all spatial axes to one cell.
struct Global {
    max: bool,
}

fn global_average<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 1)?;
    Ok(Box::new(Global { max: false }))
}

fn global_max<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 1)?;
    Ok(Box::new(Global { max: true }))
}

impl<B: Engine> Operator<B> for Global {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.float(0)?;
        let mut shape = dims::<B>(&x);
        if shape.len() < 3 || shape.contains(&0) {
            return Err(Fault::shape(format!("input {shape:?} has no spatial cells")));
        }
        let cells = shape[2..].iter().product();
        let flat = reshape::<B>(x, &[shape[0], shape[1], cells]);
        let y = if self.max { B::float_max_dim(flat, 2) } else { B::float_mean_dim(flat, 2) };
        shape[2..].fill(1);
        Ok(vec![Value::Float(reshape::<B>(y, &shape))])
    }
}

//! Pooling: `MaxPool`, `AveragePool`, `GlobalAveragePool`, `GlobalMaxPool`.
//!
//! <https://onnx.ai/onnx/operators/onnx__MaxPool.html>,
//! <https://onnx.ai/onnx/operators/onnx__AveragePool.html>,
//! <https://onnx.ai/onnx/operators/onnx__GlobalAveragePool.html>
//!
//! One and two spatial axes. MaxPool: no `Indices` output. AveragePool divides by the
//! cells that count: real cells, and with `count_include_pad` the declared pads too, but
//! never the overhang of `ceil_mode`. Opset 10 added `ceil_mode`, 19 dilations in
//! AveragePool (refused).

use burn_backend::ops::PadMode;
use burn_backend::tensor::FloatTensor;

use super::window::{Placed, Window};
use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Value, bounded, dims, floats, reshape};

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
    Max,
    Average { count_pads: bool },
}

struct Pool {
    window: Window,
    kind: Kind,
}

fn window(spec: &Spec<'_>) -> Result<Window, Fault> {
    spec.arity(1, 1)?;
    let rank = spec.ints("kernel_shape").map(|k| k.len()).ok_or_else(|| Fault::broken("kernel_shape is missing"))?;
    Window::read(spec, spec.spatial("kernel_shape", rank, 1)?)
}

fn max_pool<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    if spec.outputs() > 1 {
        return Err(Fault::unsupported("the Indices output is not computed"));
    }
    // Only the refused Indices output depends on the storage order.
    let _ = spec.int("storage_order");
    Ok(Box::new(Pool { window: window(spec)?, kind: Kind::Max }))
}

fn average_pool<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    let window = window(spec)?;
    if window.dilation.iter().any(|d| *d != 1) {
        return Err(Fault::unsupported("dilations other than 1 are not computed"));
    }
    let count_pads = spec.flag("count_include_pad", false);
    Ok(Box::new(Pool { window, kind: Kind::Average { count_pads } }))
}

impl<B: Engine> Operator<B> for Pool {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.float(0)?;
        let shape = dims::<B>(&x);
        if shape.len() != self.window.kernel.len() + 2 || shape.contains(&0) {
            return Err(Fault::shape(format!("input {shape:?}, kernel {:?}", self.window.kernel)));
        }
        let placed = self.window.place(&shape[2..])?;
        let y = match self.kind {
            Kind::Max => self.max::<B>(x, &placed)?,
            Kind::Average { count_pads } => self.average::<B>(x, &shape[2..], &placed, count_pads)?,
        };
        Ok(vec![Value::Float(y)])
    }
}

impl Pool {
    fn max<B: Engine>(&self, x: FloatTensor<B>, placed: &[Placed]) -> Result<FloatTensor<B>, Fault> {
        let window = &self.window;
        let x = pad::<B>(x, placed, f32::NEG_INFINITY)?;
        Ok(match window.kernel[..] {
            [k] => B::max_pool1d(x, k, window.stride[0], 0, window.dilation[0], false),
            _ => B::max_pool2d(x, pair(&window.kernel), pair(&window.stride), [0; 2], pair(&window.dilation), false),
        })
    }

    fn average<B: Engine>(&self, x: FloatTensor<B>, input: &[usize], placed: &[Placed], count_pads: bool) -> Result<FloatTensor<B>, Fault> {
        let window = &self.window;
        let x = pad::<B>(x, placed, 0.0)?;
        let y = match window.kernel[..] {
            [k] => B::avg_pool1d(x, k, window.stride[0], 0, true, false),
            _ => B::avg_pool2d(x, pair(&window.kernel), pair(&window.stride), [0; 2], true, false),
        };
        // The primitive divided by the whole kernel; scale to the cells that count.
        let mut factors = vec![1.0f32];
        let mut shape = vec![1, 1];
        for (i, p) in placed.iter().enumerate() {
            let end = input[i] + p.begin;
            let (first, last) = if count_pads { (0, end + p.declared_end) } else { (p.begin, end) };
            let axis: Vec<f32> = (0..p.out)
                .map(|o| {
                    let start = o * window.stride[i];
                    let cells = (start + window.kernel[i]).min(last).saturating_sub(start.max(first));
                    window.kernel[i] as f32 / cells.max(1) as f32
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

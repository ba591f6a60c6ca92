//! Convolution: `Conv` in one and two dimensions.
//!
//! <https://onnx.ai/onnx/operators/onnx__Conv.html>
//!
//! Input `[n, c, spatial...]`, weight `[m, c / group, kernel...]`, bias `[m]`. Groups
//! (also depthwise), strides, dilations, asymmetric pads and `auto_pad` are computed.
//! Opset 11 changed documentation only, 22 added types.

use burn_backend::ops::{ConvOptions, PadMode};
use burn_backend::tensor::FloatTensor;

use super::window::{Placed, Window};
use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Value, bounded, dims};

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "Conv" => conv,
        _ => return None,
    })
}

struct Conv {
    /// One for each number of spatial axes that the attributes admit; the input decides.
    windows: Vec<Window>,
    group: usize,
    /// Whether `kernel_shape` was given and must equal the weight's.
    kernel_given: bool,
}

fn conv<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(2, 3)?;
    let group = spec.int("group").unwrap_or(1);
    let group = usize::try_from(group).ok().filter(|g| *g > 0).ok_or_else(|| Fault::broken(format!("group = {group}")))?;
    let kernel_given = spec.ints("kernel_shape").is_some();
    let told = ["kernel_shape", "strides", "dilations"].iter().find_map(|name| spec.ints(name).map(|list| list.len()));
    let told = told.or_else(|| spec.ints("pads").map(|list| list.len() / 2));
    let ranks = told.map_or(vec![1, 2], |rank| vec![rank]);
    let window = |rank: usize| Window::read(spec, spec.spatial("kernel_shape", rank, 1)?, 2);
    let windows = ranks.into_iter().map(window).collect::<Result<_, _>>()?;
    Ok(Box::new(Conv { windows, group, kernel_given }))
}

impl<B: Engine> Operator<B> for Conv {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let (x, w, bias) = (inputs.float(0)?, inputs.float(1)?, inputs.optional_float(2)?);
        let (dx, dw) = (dims::<B>(&x), dims::<B>(&w));
        let bad = |why: &str| Fault::shape(format!("input {dx:?}, weight {dw:?}, group {}: {why}", self.group));
        let fits = |w: &&Window| dx.len() == w.kernel.len() + 2 && dw.len() == dx.len();
        let mut window = self.windows.iter().find(fits).cloned().ok_or_else(|| bad("ranks differ"))?;
        if dx[1] != dw[1].saturating_mul(self.group) || dw[0] == 0 || dw[0] % self.group != 0 {
            return Err(bad("channels differ"));
        }
        if self.kernel_given && window.kernel != dw[2..] {
            return Err(bad("kernel_shape differs"));
        }
        window.kernel = dw[2..].to_vec();
        if dw.contains(&0) || dx[0] == 0 {
            return Err(bad("an axis is empty"));
        }
        if let Some(shape) = bias.as_ref().map(dims::<B>).filter(|shape| *shape != [dw[0]]) {
            return Err(bad(&format!("bias {shape:?}")));
        }
        let placed = window.place(&dx[2..])?;
        let mut out = vec![dx[0], dw[0]];
        out.extend(placed.iter().map(|p| p.out));
        bounded(&out)?;
        let (x, pads) = pad::<B>(x, &placed)?;
        let y = match placed.len() {
            1 => B::conv1d(x, w, bias, ConvOptions::new([window.stride[0]], [pads[0]], [window.dilation[0]], self.group)),
            _ => {
                let options = ConvOptions::new(
                    [window.stride[0], window.stride[1]],
                    [pads[0], pads[1]],
                    [window.dilation[0], window.dilation[1]],
                    self.group,
                );
                B::conv2d(x, w, bias, options)
            }
        };
        Ok(vec![Value::Float(y)])
    }
}

/// Leaves symmetric pads to the convolution and pads the input with zeros otherwise.
fn pad<B: Engine>(x: FloatTensor<B>, placed: &[Placed]) -> Result<(FloatTensor<B>, Vec<usize>), Fault> {
    if placed.iter().all(|p| p.begin == p.declared_end) {
        return Ok((x, placed.iter().map(|p| p.begin).collect()));
    }
    let mut pads = vec![(0, 0); 2];
    pads.extend(placed.iter().map(|p| (p.begin, p.end)));
    let padded: Vec<_> = dims::<B>(&x).iter().zip(&pads).map(|(d, (b, e))| d + b + e).collect();
    bounded(&padded)?;
    Ok((B::float_pad(x, &pads, PadMode::Constant(0.0)), vec![0; placed.len()]))
}

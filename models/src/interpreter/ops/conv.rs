//! Convolution: `Conv` in one and two dimensions.
//!
//! <https://onnx.ai/onnx/operators/onnx__Conv.html>
//!
//! Input `[n, c, spatial...]`, weight `[m, c / group, kernel...]`, bias `[m]`. Groups
//! (also depthwise), strides, dilations, asymmetric pads and `auto_pad` are computed.
//! Opset 11 changed documentation only, 22 added types.

use burn_backend::tensor::FloatTensor;

use super::window::{Placed, Window};
use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Value, affordable, bounded, dims, reshape};
use crate::kernel::conv::Conv as Kernel;

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
        affordable(&[&out[..], &dw[1..]].concat())?;
        // The windows of one line of the output stand side by side while they are multiplied.
        bounded(&[&dw[1..], &out[out.len() - 1..]].concat())?;
        let y = convolve::<B>(self.group, &window, &placed, x, w, bias);
        Ok(vec![Value::Float(reshape::<B>(y, &out))])
    }
}

/// One spatial axis is the second of two.
fn convolve<B: Engine>(
    groups: usize,
    window: &Window,
    placed: &[Placed],
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
) -> FloatTensor<B> {
    let geometry = window.geometry(placed, &dims::<B>(&x)[2..]);
    let planes = |tensor: FloatTensor<B>, extents: [usize; 2]| {
        let shape = dims::<B>(&tensor);
        reshape::<B>(tensor, &[shape[0], shape[1], extents[0], extents[1]])
    };
    let (kernel, x, w) = (Kernel { geometry, groups }, planes(x, geometry.input), planes(w, geometry.kernel));
    match bias {
        Some(bias) => B::apply(kernel, [x, w, bias]),
        None => B::apply(kernel, [x, w]),
    }
}

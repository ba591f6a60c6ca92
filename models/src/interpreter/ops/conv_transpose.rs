//! Transposed convolution: `ConvTranspose` in one to three dimensions.
//!
//! <https://onnx.ai/onnx/operators/onnx__ConvTranspose.html>
//!
//! Input `[n, c, spatial...]`, weight `[c, m / group, kernel...]`, bias `[m]`. An output axis has
//! `stride · (in - 1) + output_padding + dilation · (kernel - 1) + 1` cells less its pads, or what `output_shape` or
//! `auto_pad` (`in · stride`) say; pads then make up the difference, and where there is too little, the last cells read
//! nothing. Opset 11 changed documentation only, 22 added types.

use burn_backend::ops::{ConvTransposeOptions, PadMode};
use burn_backend::{Slice as Range, tensor::FloatTensor};

use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Value, affordable, bounded, dims, extents, reshape};
use crate::kernel::conv::{Conv, Geometry};
use crate::kernel::conv_transpose::ConvTranspose as Kernel;

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "ConvTranspose" => conv_transpose,
        _ => return None,
    })
}

/// How pads are found.
#[derive(Debug, PartialEq)]
enum Pads {
    /// All that begin, then all that end.
    Explicit(Vec<usize>),
    /// The odd pad goes to the end.
    SameUpper,
    /// The odd pad goes to the beginning.
    SameLower,
}

struct ConvTranspose {
    group: usize,
    /// As given; the weight decides how many axes there are.
    kernel: Option<Vec<usize>>,
    stride: Option<Vec<usize>>,
    dilation: Option<Vec<usize>>,
    added: Option<Vec<usize>>,
    shape: Option<Vec<usize>>,
    pads: Pads,
}

fn conv_transpose<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(2, 3)?;
    let group = spec.int("group").unwrap_or(1);
    let list = |name: &str, least: usize| -> Result<Option<Vec<usize>>, Fault> {
        let Some(given) = spec.ints(name) else { return Ok(None) };
        // More cannot be meant, and would overflow the size arithmetic.
        let fits = |v: &usize| (least..=u16::MAX as usize).contains(v);
        let read = extents(&given).ok().filter(|list| list.iter().all(fits));
        read.map(Some).ok_or_else(|| Fault::broken(format!("{name} = {given:?}")))
    };
    let pads = list("pads", 0)?.unwrap_or_default();
    let pads = match spec.text("auto_pad").as_deref() {
        None | Some("NOTSET") => Pads::Explicit(pads),
        Some("VALID") => Pads::Explicit(Vec::new()),
        Some("SAME_UPPER") => Pads::SameUpper,
        Some("SAME_LOWER") => Pads::SameLower,
        Some(other) => return Err(Fault::broken(format!("auto_pad = {other}"))),
    };
    Ok(Box::new(ConvTranspose {
        group: usize::try_from(group).ok().filter(|g| *g > 0).ok_or_else(|| Fault::broken(format!("group = {group}")))?,
        kernel: list("kernel_shape", 1)?,
        stride: list("strides", 1)?,
        dilation: list("dilations", 1)?,
        added: list("output_padding", 0)?,
        shape: list("output_shape", 1)?,
        pads,
    }))
}

/// One spatial axis on a given input.
#[derive(Debug, Clone, Copy)]
struct Placed {
    input: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    /// Cells cut off at the beginning.
    begin: usize,
    out: usize,
}

impl Placed {
    /// Cells that the input reaches, before any are cut off.
    fn reached(&self) -> usize {
        (self.input - 1) * self.stride + (self.kernel - 1) * self.dilation + 1
    }
}

impl<B: Engine> Operator<B> for ConvTranspose {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let (x, w, bias) = (inputs.float(0)?, inputs.float(1)?, inputs.optional_float(2)?);
        let (dx, dw) = (dims::<B>(&x), dims::<B>(&w));
        let bad = |why: &str| Fault::shape(format!("input {dx:?}, weight {dw:?}, group {}: {why}", self.group));
        if !(3..=5).contains(&dx.len()) || dw.len() != dx.len() {
            return Err(bad("one to three spatial axes are computed, alike in both"));
        }
        if dx.contains(&0) || dw.contains(&0) {
            return Err(bad("an axis is empty"));
        }
        if dx[1] != dw[0] || dx[1] % self.group != 0 {
            return Err(bad("channels differ"));
        }
        if self.kernel.as_ref().is_some_and(|kernel| *kernel != dw[2..]) {
            return Err(bad("kernel_shape differs"));
        }
        let channels = dw[1].saturating_mul(self.group);
        if let Some(shape) = bias.as_ref().map(dims::<B>).filter(|shape| *shape != [channels]) {
            return Err(bad(&format!("bias {shape:?}")));
        }
        let placed = (0..dx.len() - 2).map(|i| self.place(i, &dx, &dw)).collect::<Result<Vec<_>, _>>()?;
        let mut shape = vec![dx[0], channels];
        shape.extend(placed.iter().map(|p| p.out));
        bounded(&shape)?;
        affordable(&[&dx[..], &dw[1..]].concat())?;
        let y = match placed[..] {
            [depth, height, width] => self.volume::<B>(x, w, [depth, height, width], &shape)?,
            [.., last] => self.plane::<B>(x, w, if placed.len() == 2 { Some(placed[0]) } else { None }, last)?,
            [] => return Err(bad("no spatial axis")),
        };
        let y = reshape::<B>(y, &shape);
        let Some(bias) = bias else { return Ok(vec![Value::Float(y)]) };
        let mut across = vec![1; shape.len()];
        across[1] = channels;
        Ok(vec![Value::Float(B::float_add(y, reshape::<B>(bias, &across)))])
    }
}

impl ConvTranspose {
    fn place(&self, i: usize, x: &[usize], w: &[usize]) -> Result<Placed, Fault> {
        let axes = x.len() - 2;
        let of = |list: &Option<Vec<usize>>, name: &str, default: usize| match list {
            None => Ok(default),
            Some(list) if list.len() == axes => Ok(list[i]),
            Some(list) => Err(Fault::broken(format!("{name} = {list:?} for {axes} spatial axes"))),
        };
        let (stride, dilation, added) =
            (of(&self.stride, "strides", 1)?, of(&self.dilation, "dilations", 1)?, of(&self.added, "output_padding", 0)?);
        let mut placed = Placed { input: x[i + 2], kernel: w[i + 2], stride, dilation, begin: 0, out: 0 };
        bounded(&[placed.input, stride])?;
        bounded(&[placed.kernel, dilation])?;
        let whole = placed.reached() + added;
        // An output_shape with all axes is read by some, so is one with the spatial ones alone.
        let asked = match &self.shape {
            Some(shape) if shape.len() == axes => Some(shape[i]),
            Some(shape) if shape.len() == axes + 2 => Some(shape[i + 2]),
            Some(shape) => return Err(Fault::broken(format!("output_shape = {shape:?} for {axes} spatial axes"))),
            None if matches!(self.pads, Pads::Explicit(_)) => None,
            None => Some(placed.input * stride),
        };
        match (asked, &self.pads) {
            (Some(out), pads) => {
                let total = whole.saturating_sub(out);
                placed.begin = if *pads == Pads::SameUpper { total / 2 } else { total - total / 2 };
                placed.out = out;
            }
            (None, Pads::Explicit(pads)) if pads.len() == 2 * axes || pads.is_empty() => {
                let at = |k: usize| pads.get(k).copied().unwrap_or(0);
                placed.begin = at(i);
                placed.out = whole.saturating_sub(at(i) + at(i + axes));
            }
            (None, pads) => return Err(Fault::broken(format!("{pads:?} for {axes} spatial axes"))),
        }
        if placed.out == 0 {
            return Err(Fault::shape(format!("nothing is left of {whole} cells")));
        }
        Ok(placed)
    }

    /// One or two axes; of one the first is 1.
    fn plane<B: Engine>(&self, x: FloatTensor<B>, w: FloatTensor<B>, first: Option<Placed>, last: Placed) -> Result<FloatTensor<B>, Fault> {
        let one = Placed { input: 1, kernel: 1, stride: 1, dilation: 1, begin: 0, out: 1 };
        let axes = [first.unwrap_or(one), last];
        // The convolution that goes back reads what is written here.
        let geometry = Geometry {
            input: axes.map(|p| p.out),
            kernel: axes.map(|p| p.kernel),
            stride: axes.map(|p| p.stride),
            dilation: axes.map(|p| p.dilation),
            begin: axes.map(|p| p.begin),
            out: axes.map(|p| p.input),
        };
        let planes = |tensor: FloatTensor<B>, extents: [usize; 2]| {
            let shape = dims::<B>(&tensor);
            reshape::<B>(tensor, &[shape[0], shape[1], extents[0], extents[1]])
        };
        let (x, w) = (planes(x, geometry.out), planes(w, geometry.kernel));
        // The columns of one line stand side by side while they are multiplied.
        bounded(&[&dims::<B>(&w)[1..], &[geometry.out[1]]].concat())?;
        Ok(B::apply(Kernel(Conv { geometry, groups: self.group }), [x, w]))
    }

    /// By the backend, without pads; they are cut off, and what is missing at the end is zero.
    fn volume<B: Engine>(&self, x: FloatTensor<B>, w: FloatTensor<B>, axes: [Placed; 3], shape: &[usize]) -> Result<FloatTensor<B>, Fault> {
        let reached = axes.map(|p| p.reached());
        bounded(&[&shape[..2], &reached].concat())?;
        let options = ConvTransposeOptions {
            stride: axes.map(|p| p.stride),
            padding: [0; 3],
            padding_out: [0; 3],
            dilation: axes.map(|p| p.dilation),
            groups: self.group,
        };
        let y = B::conv_transpose3d(x, w, None, options);
        let mut ranges: Vec<Range> = shape[..2].iter().map(|d| Range::from(0..*d)).collect();
        ranges.extend(axes.iter().zip(reached).map(|(p, whole)| Range::from(p.begin.min(whole)..(p.begin + p.out).min(whole))));
        let mut behind = vec![(0, 0); 2];
        behind.extend(axes.iter().zip(reached).map(|(p, whole)| (0, (p.begin + p.out).saturating_sub(whole.max(p.begin)))));
        let y = B::float_slice(y, &ranges);
        Ok(if behind.iter().all(|(_, end)| *end == 0) { y } else { B::float_pad(y, &behind, PadMode::Constant(0.0)) })
    }
}

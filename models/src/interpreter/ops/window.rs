//! Sliding windows: the geometry that convolution and pooling share.
//!
//! `auto_pad`, `ceil_mode` and asymmetric `pads` are all resolved here, once the input is
//! known, into explicit pads with which plain rounding down gives the right output.

use crate::interpreter::fault::Fault;
use crate::interpreter::spec::Spec;
use crate::kernel::conv::Geometry;

/// How pads are found.
#[derive(Debug, Clone, PartialEq)]
enum Pads {
    /// Begin and end of each spatial axis.
    Explicit(Vec<(usize, usize)>),
    /// Output is the input divided by the stride, rounded up; the odd pad goes to the end.
    SameUpper,
    /// The same with the odd pad at the beginning.
    SameLower,
}

/// Kernel, stride, dilation and pads of each spatial axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Window {
    pub(super) kernel: Vec<usize>,
    pub(super) stride: Vec<usize>,
    pub(super) dilation: Vec<usize>,
    pads: Pads,
    ceil: bool,
}

/// One spatial axis of a window on a given input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Placed {
    /// Number of windows.
    pub(super) out: usize,
    /// Pad at the beginning.
    pub(super) begin: usize,
    /// Pad at the end that the windows really touch (never negative).
    pub(super) end: usize,
    /// Pad at the end that the node declares; windows may reach past it in ceil mode.
    pub(super) declared_end: usize,
}

impl Window {
    /// Reads the attributes that Conv and the pools share; over `most` spatial axes are refused.
    pub(super) fn read(spec: &Spec<'_>, kernel: Vec<usize>, most: usize) -> Result<Self, Fault> {
        let rank = kernel.len();
        if !(1..=most).contains(&rank) {
            return Err(Fault::unsupported(format!("{rank} spatial axes; 1 to {most} are computed")));
        }
        let mode = spec.text("auto_pad").unwrap_or_else(|| "NOTSET".to_owned());
        let pads = spec.ints("pads").unwrap_or_else(|| vec![0; 2 * rank]);
        let pads = match mode.as_str() {
            "NOTSET" => Pads::Explicit(explicit(&pads, rank)?),
            "VALID" => Pads::Explicit(vec![(0, 0); rank]),
            "SAME_UPPER" => Pads::SameUpper,
            "SAME_LOWER" => Pads::SameLower,
            other => return Err(Fault::broken(format!("auto_pad = {other}"))),
        };
        Ok(Self {
            stride: spec.spatial("strides", rank, 1)?,
            dilation: spec.spatial("dilations", rank, 1)?,
            ceil: spec.flag("ceil_mode", false),
            kernel,
            pads,
        })
    }

    /// Places the windows on an input with these spatial extents.
    pub(super) fn place(&self, input: &[usize]) -> Result<Vec<Placed>, Fault> {
        if input.len() != self.kernel.len() {
            return Err(Fault::shape(format!("{} spatial axes, the kernel has {}", input.len(), self.kernel.len())));
        }
        (0..input.len()).map(|i| self.place_axis(i, input[i])).collect()
    }

    /// As kernels of two spatial axes take it; of one axis the first is 1.
    pub(super) fn geometry(&self, placed: &[Placed], input: &[usize]) -> Geometry {
        let two = |one: &dyn Fn(usize) -> usize, missing: usize| match placed.len() {
            1 => [missing, one(0)],
            _ => [one(0), one(1)],
        };
        Geometry {
            input: two(&|i| input[i], 1),
            kernel: two(&|i| self.kernel[i], 1),
            stride: two(&|i| self.stride[i], 1),
            dilation: two(&|i| self.dilation[i], 1),
            begin: two(&|i| placed[i].begin, 0),
            out: two(&|i| placed[i].out, 1),
        }
    }

    fn place_axis(&self, i: usize, input: usize) -> Result<Placed, Fault> {
        let (stride, extent) = (self.stride[i], self.dilation[i] * (self.kernel[i] - 1) + 1);
        let (begin, end, out) = match &self.pads {
            Pads::Explicit(pads) => {
                let (begin, end) = pads[i];
                let free = (input + begin + end)
                    .checked_sub(extent)
                    .ok_or_else(|| Fault::shape(format!("a window of {extent} does not fit {input} with pads {begin} and {end}")))?;
                let mut out = if self.ceil { free.div_ceil(stride) } else { free / stride } + 1;
                // A window that would start in the end pad is left out.
                if self.ceil && (out - 1) * stride >= input + begin {
                    out -= 1;
                }
                (begin, end, out)
            }
            same => {
                let out = input.div_ceil(stride);
                let total = (out.saturating_sub(1) * stride + extent).saturating_sub(input);
                let (small, large) = (total / 2, total - total / 2);
                if *same == Pads::SameUpper { (small, large, out) } else { (large, small, out) }
            }
        };
        if input == 0 || out == 0 {
            return Err(Fault::shape("an empty spatial axis"));
        }
        let touched = ((out - 1) * stride + extent).saturating_sub(input + begin);
        Ok(Placed { out, begin, end: touched, declared_end: end })
    }
}

fn explicit(pads: &[i64], rank: usize) -> Result<Vec<(usize, usize)>, Fault> {
    let bad = || Fault::broken(format!("pads = {pads:?} for {rank} spatial axes"));
    if pads.len() != 2 * rank {
        return Err(bad());
    }
    let pad = |v: i64| u16::try_from(v).map(usize::from).map_err(|_| bad());
    (0..rank).map(|i| Ok((pad(pads[i])?, pad(pads[i + rank])?))).collect()
}

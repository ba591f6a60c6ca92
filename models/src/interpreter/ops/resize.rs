//! Interpolation: `Resize` and its forerunner `Upsample`.
//!
//! <https://onnx.ai/onnx/operators/onnx__Resize.html>,
//! <https://onnx.ai/onnx/operators/onnx__Upsample.html>
//!
//! Each axis is interpolated by itself: nearest, linear and cubic, over any number of axes, in every coordinate transformation,
//! with `exclude_outside`, `antialias`, `axes` and `keep_aspect_ratio_policy` (all opset 18). Positions are computed in f32 and in
//! the order of ONNX Runtime's operations, so that halves fall to the same side. `align_corners` divides by the whole
//! extents, as the specification says and ONNX Runtime does; ONNX's reference divides by the extent before it is rounded down.
//!
//! Upsample (7 to 9) and Resize of opset 10 know scales alone, and positions that are `x / scale`; their nearest is rounded
//! down, or up where the axis shrinks. 11 brought sizes, the region of interest and the other modes.

use super::resample::{Antialias, Mode, Nearest, Transformation, line};
use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Value, axis, bounded, dims, extents, read};
use crate::kernel::resample::Resample;

/// Most elements that all new elements of one axis may read.
const MOST_TAPS: usize = 1 << 24;

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "Resize" => resize,
        "Upsample" => upsample,
        _ => return None,
    })
}

/// What `sizes` mean for extents that should keep their ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Aspect {
    Stretch,
    NotLarger,
    NotSmaller,
}

struct Resize {
    mode: Mode,
    transformation: Transformation,
    axes: Option<Vec<i64>>,
    aspect: Aspect,
    /// The scales of Upsample before they were an operand.
    scales: Option<Vec<f32>>,
    /// Where roi, scales and sizes stand.
    operands: [Option<usize>; 3],
}

fn upsample<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(1, 2)?;
    let scales = spec.floats("scales");
    let operands = [None, (scales.is_none()).then_some(1), None];
    Ok(Box::new(Resize { scales, operands, ..early(spec)? }))
}

/// Before opset 11.
fn early(spec: &Spec<'_>) -> Result<Resize, Fault> {
    let mode = match spec.text("mode").as_deref() {
        None | Some("nearest") => Mode::Nearest(Nearest::Early),
        Some("linear" | "bilinear") => Mode::Linear { antialias: Antialias::Off },
        Some(other) => return Err(Fault::unsupported(format!("mode = {other}"))),
    };
    let operands = [None, Some(1), None];
    Ok(Resize { mode, transformation: Transformation::Asymmetric, axes: None, aspect: Aspect::Stretch, scales: None, operands })
}

fn resize<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    if spec.opset < 11 {
        spec.arity(2, 2)?;
        return Ok(Box::new(early(spec)?));
    }
    spec.arity(1, 4)?;
    let outside = spec.float("extrapolation_value").unwrap_or(0.0);
    let transformation = match spec.text("coordinate_transformation_mode").as_deref() {
        None | Some("half_pixel") => Transformation::HalfPixel,
        Some("half_pixel_symmetric") => Transformation::HalfPixelSymmetric,
        Some("pytorch_half_pixel") => Transformation::PytorchHalfPixel,
        Some("align_corners") => Transformation::AlignCorners,
        Some("asymmetric") => Transformation::Asymmetric,
        Some("tf_half_pixel_for_nn") => Transformation::TfHalfPixelForNn,
        Some("tf_crop_and_resize") => Transformation::Crop { region: (0.0, 1.0), outside },
        Some(other) => return Err(Fault::unsupported(format!("coordinate_transformation_mode = {other}"))),
    };
    let nearest = match spec.text("nearest_mode").as_deref() {
        None | Some("round_prefer_floor") => Nearest::RoundPreferFloor,
        Some("round_prefer_ceil") => Nearest::RoundPreferCeil,
        Some("floor") => Nearest::Floor,
        Some("ceil") => Nearest::Ceil,
        Some(other) => return Err(Fault::unsupported(format!("nearest_mode = {other}"))),
    };
    let antialias = if spec.flag("antialias", false) { Antialias::On } else { Antialias::Off };
    let (a, within) = (spec.float("cubic_coeff_a").unwrap_or(-0.75), spec.flag("exclude_outside", false));
    let mode = match spec.text("mode").as_deref() {
        None | Some("nearest") => Mode::Nearest(nearest),
        Some("linear") => Mode::Linear { antialias },
        Some("cubic") => Mode::Cubic { a, within, antialias },
        Some(other) => return Err(Fault::unsupported(format!("mode = {other}"))),
    };
    let aspect = match spec.text("keep_aspect_ratio_policy").as_deref() {
        None | Some("stretch") => Aspect::Stretch,
        Some("not_larger") => Aspect::NotLarger,
        Some("not_smaller") => Aspect::NotSmaller,
        Some(other) => return Err(Fault::unsupported(format!("keep_aspect_ratio_policy = {other}"))),
    };
    let operands = [Some(1), Some(2), Some(3)];
    Ok(Box::new(Resize { mode, transformation, axes: spec.ints("axes"), aspect, scales: None, operands }))
}

impl<B: Engine> Operator<B> for Resize {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let x = inputs.float(0)?;
        let shape = dims::<B>(&x);
        let along = match &self.axes {
            Some(list) => list.iter().map(|a| axis(*a, shape.len())).collect::<Result<Vec<_>, _>>()?,
            None => (0..shape.len()).collect(),
        };
        if (1..along.len()).any(|i| along[i..].contains(&along[i - 1])) {
            return Err(Fault::broken(format!("axes {along:?} repeat")));
        }
        let mut numbers = |operand: Option<usize>| -> Result<Option<Vec<f32>>, Fault> {
            let Some(tensor) = operand.map(|i| inputs.optional_float(i)).transpose()?.flatten() else { return Ok(None) };
            Ok(Some(read::<B::Plain>(B::lower(tensor))?).filter(|list| !list.is_empty()))
        };
        let (roi, scales) = (numbers(self.operands[0])?, numbers(self.operands[1])?.or_else(|| self.scales.clone()));
        let sizes = self.operands[2].map(|i| inputs.optional_host(i)).transpose()?.flatten().map(|host| host.data);
        let sizes = sizes.filter(|sizes| !sizes.is_empty());
        let each = self.extents(&shape, &along, scales, sizes)?;
        let mut out = shape.clone();
        along.iter().zip(&each).for_each(|(axis, (extent, _))| out[*axis] = *extent);
        bounded(&out)?;
        let mut lines = Vec::new();
        for (i, (axis, (extent, scale))) in along.iter().zip(&each).enumerate() {
            let transformation = match self.transformation {
                Transformation::Crop { outside, .. } => Transformation::Crop { region: region(roi.as_deref(), along.len(), i)?, outside },
                other => other,
            };
            // A whole axis that keeps its extent keeps its elements.
            let cropped = matches!(transformation, Transformation::Crop { region, .. } if region != (0.0, 1.0));
            if *extent == shape[*axis] && *scale == 1.0 && !cropped {
                continue;
            }
            if extent.saturating_mul(self.mode.taps(*scale)) > MOST_TAPS {
                return Err(Fault::shape(format!("axis {axis} of {shape:?} is too long to be resized to {extent}")));
            }
            lines.push((*axis, line(self.mode, transformation, shape[*axis], *extent, *scale)));
        }
        // Shrinking first leaves less to do.
        lines.sort_by(|(_, a), (_, b)| (a.taps.len() * b.read).cmp(&(b.taps.len() * a.read)));
        let mut reached = shape;
        for (axis, line) in &lines {
            reached[*axis] = line.taps.len();
            bounded(&reached)?;
        }
        Ok(vec![Value::Float(if lines.is_empty() { x } else { B::apply(Resample(lines), [x]) })])
    }
}

impl Resize {
    /// New extent and scale of each of the axes.
    fn extents(
        &self,
        shape: &[usize],
        along: &[usize],
        scales: Option<Vec<f32>>,
        sizes: Option<Vec<i64>>,
    ) -> Result<Vec<(usize, f32)>, Fault> {
        let fits = |len: usize| if len == along.len() { Ok(()) } else { Err(Fault::broken(format!("{len} numbers for axes {along:?}"))) };
        if let Some(axis) = along.iter().find(|axis| shape[**axis] == 0) {
            return Err(Fault::shape(format!("axis {axis} of {shape:?} is empty")));
        }
        match (scales, sizes) {
            (Some(scales), None) => {
                fits(scales.len())?;
                let one = |(axis, scale): (&usize, f32)| {
                    let extent = shape[*axis] as f32 * scale;
                    // Not a number is neither.
                    if !(scale > 0.0 && (1.0..=u32::MAX as f32).contains(&extent)) {
                        return Err(Fault::shape(format!("{shape:?} scaled by {scale}")));
                    }
                    Ok((extent as usize, scale))
                };
                along.iter().zip(scales).map(one).collect()
            }
            (None, Some(sizes)) => {
                fits(sizes.len())?;
                let sizes = extents(&sizes)?;
                if sizes.contains(&0) {
                    return Err(Fault::shape(format!("{shape:?} resized to {sizes:?}")));
                }
                let ratios: Vec<f32> = along.iter().zip(&sizes).map(|(axis, size)| *size as f32 / shape[*axis] as f32).collect();
                let common = match self.aspect {
                    Aspect::Stretch => return Ok(sizes.into_iter().zip(ratios).collect()),
                    Aspect::NotLarger => ratios.into_iter().fold(f32::INFINITY, f32::min),
                    Aspect::NotSmaller => ratios.into_iter().fold(0.0, f32::max),
                };
                Ok(along.iter().map(|axis| ((shape[*axis] as f32 * common).round().max(1.0) as usize, common)).collect())
            }
            _ => Err(Fault::broken("either scales or sizes must be given")),
        }
    }
}

/// Begin and end of axis `i` of so many: first all begin, then all end.
fn region(roi: Option<&[f32]>, axes: usize, i: usize) -> Result<(f32, f32), Fault> {
    match roi {
        Some(roi) if roi.len() == 2 * axes && roi.iter().all(|v| v.is_finite()) => Ok((roi[i], roi[i + axes])),
        other => Err(Fault::broken(format!("the region of interest is {other:?} for {axes} axes"))),
    }
}

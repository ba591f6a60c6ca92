//! Convolution of one plane with one kernel, line by line.

use super::columns::reach;
use super::conv::Geometry;
use super::lanes::dot;
use super::simd;

/// Adds the convolution of plane `x` with kernel `w` to plane `y`.
pub(super) fn forward(g: &Geometry, x: &[f32], w: &[f32], y: &mut [f32]) {
    simd(|| {
        each_line(g, |tap, read, written, count| {
            let (to, weight) = (&mut y[written..written + count], w[tap]);
            match g.stride[1] {
                1 => to.iter_mut().zip(&x[read..]).for_each(|(y, x)| *y += weight * x),
                stride => to.iter_mut().zip(x[read..].iter().step_by(stride)).for_each(|(y, x)| *y += weight * x),
            }
        });
    });
}

/// Adds the gradients for `dy` to those of the plane and of the kernel.
pub(super) fn backward(g: &Geometry, x: &[f32], w: &[f32], dy: &[f32], dx: Option<&mut [f32]>, dw: Option<&mut [f32]>) {
    simd(|| back(g, x, w, dy, dx, dw));
}

#[inline(always)]
fn back(g: &Geometry, x: &[f32], w: &[f32], dy: &[f32], dx: Option<&mut [f32]>, dw: Option<&mut [f32]>) {
    if let Some(dx) = dx {
        each_line(g, |tap, read, written, count| {
            let (from, weight) = (&dy[written..written + count], w[tap]);
            match g.stride[1] {
                1 => dx[read..].iter_mut().zip(from).for_each(|(dx, dy)| *dx += weight * dy),
                stride => dx[read..].iter_mut().step_by(stride).zip(from).for_each(|(dx, dy)| *dx += weight * dy),
            }
        });
    }
    if let Some(dw) = dw {
        each_line(g, |tap, read, written, count| {
            let from = &dy[written..written + count];
            dw[tap] += match g.stride[1] {
                1 => dot(from, &x[read..read + count]),
                stride => from.iter().zip(x[read..].iter().step_by(stride)).map(|(dy, x)| dy * x).sum(),
            };
        });
    }
}

/// Each tap on each line that it reads: the tap, where it reads first, where that is written, and how many cells.
#[inline(always)]
fn each_line(g: &Geometry, mut each: impl FnMut(usize, usize, usize, usize)) {
    for ky in 0..g.kernel[0] {
        let (top, bottom, y) = reach(g.out[0], g.input[0], g.stride[0], ky * g.dilation[0], g.begin[0]);
        for kx in 0..g.kernel[1] {
            let (left, right, x) = reach(g.out[1], g.input[1], g.stride[1], kx * g.dilation[1], g.begin[1]);
            if left == right {
                continue;
            }
            for line in 0..bottom - top {
                let read = (y + line * g.stride[0]) * g.input[1] + x;
                each(ky * g.kernel[1] + kx, read, (top + line) * g.out[1] + left, right - left);
            }
        }
    }
}

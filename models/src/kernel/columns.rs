//! Images as columns: every window of an image becomes a column, so that a convolution is one matrix product (Chellapilla,
//! Puri, Simard 2006).

use super::conv::Geometry;

/// Where along one axis the windows read with one of their taps: `(first, last, at)`, outputs `first..last` and the input
/// position of `first`. The others read pads, if all do then `(0, 0, 0)`.
pub(super) fn reach(out: usize, input: usize, stride: usize, tap: usize, begin: usize) -> (usize, usize, usize) {
    let first = begin.saturating_sub(tap).div_ceil(stride).min(out);
    let last = (input + begin).saturating_sub(tap).div_ceil(stride).min(out);
    if first < last { (first, last, first * stride + tap - begin) } else { (0, 0, 0) }
}

/// Writes the columns of `channels` planes: `[channels · kh · kw, oh · ow]`.
pub(super) fn gather(g: &Geometry, planes: &[f32], columns: &mut [f32]) {
    each_row(g, columns.len() / g.cells(), |row, plane, ky, kx| {
        let plane = &planes[plane * g.plane()..][..g.plane()];
        let row = &mut columns[row * g.cells()..][..g.cells()];
        let (top, bottom, y) = reach(g.out[0], g.input[0], g.stride[0], ky, g.begin[0]);
        let (left, right, x) = reach(g.out[1], g.input[1], g.stride[1], kx, g.begin[1]);
        row[..top * g.out[1]].fill(0.0);
        row[bottom * g.out[1]..].fill(0.0);
        for (i, line) in row[top * g.out[1]..bottom * g.out[1]].chunks_exact_mut(g.out[1]).enumerate() {
            let read = &plane[(y + i * g.stride[0]) * g.input[1] + x..];
            line[..left].fill(0.0);
            line[right..].fill(0.0);
            match g.stride[1] {
                1 => line[left..right].copy_from_slice(&read[..right - left]),
                stride => line[left..right].iter_mut().zip(read.iter().step_by(stride)).for_each(|(to, from)| *to = *from),
            }
        }
    });
}

/// Adds columns to the cells of the planes that they were read from.
pub(super) fn scatter(g: &Geometry, columns: &[f32], planes: &mut [f32]) {
    each_row(g, columns.len() / g.cells(), |row, plane, ky, kx| {
        let plane = &mut planes[plane * g.plane()..][..g.plane()];
        let row = &columns[row * g.cells()..][..g.cells()];
        let (top, bottom, y) = reach(g.out[0], g.input[0], g.stride[0], ky, g.begin[0]);
        let (left, right, x) = reach(g.out[1], g.input[1], g.stride[1], kx, g.begin[1]);
        for (i, line) in row[top * g.out[1]..bottom * g.out[1]].chunks_exact(g.out[1]).enumerate() {
            let from = &line[left..right];
            let to = &mut plane[(y + i * g.stride[0]) * g.input[1] + x..];
            match g.stride[1] {
                1 => to.iter_mut().zip(from).for_each(|(to, from)| *to += from),
                stride => to.iter_mut().step_by(stride).zip(from).for_each(|(to, from)| *to += from),
            }
        }
    });
}

/// Each row of the columns with its plane and its tap, the latter in input cells.
fn each_row(g: &Geometry, rows: usize, mut each: impl FnMut(usize, usize, usize, usize)) {
    let taps = g.kernel[0] * g.kernel[1];
    for row in 0..rows {
        let tap = row % taps;
        each(row, row / taps, tap / g.kernel[1] * g.dilation[0], tap % g.kernel[1] * g.dilation[1]);
    }
}

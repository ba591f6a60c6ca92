//! Images as columns: every window of an image becomes a column, so that a convolution is one matrix product (Chellapilla,
//! Puri, Simard 2006).

use super::conv::Geometry;

/// Values in the columns of one product: they stay in the cache, and a large image needs no more memory than a small one.
const ROOM: usize = 1 << 18;

/// Where along one axis the windows read with one of their taps: `(first, last, at)`, outputs `first..last` and the input
/// position of `first`. The others read pads, if all do then `(0, 0, 0)`.
pub(super) fn reach(out: usize, input: usize, stride: usize, tap: usize, begin: usize) -> (usize, usize, usize) {
    let first = begin.saturating_sub(tap).div_ceil(stride).min(out);
    let last = (input + begin).saturating_sub(tap).div_ceil(stride).min(out);
    if first < last { (first, last, first * stride + tap - begin) } else { (0, 0, 0) }
}

/// Some lines of the output: their columns.
#[derive(Clone, Copy)]
pub(super) struct Lines {
    pub(super) first: usize,
    pub(super) end: usize,
}

impl Lines {
    /// All lines, as many at a time as their columns of `depth` values have room for.
    pub(super) fn of(g: &Geometry, depth: usize) -> impl Iterator<Item = Self> {
        let (lines, step) = (g.out[0], (ROOM / (depth * g.out[1]).max(1)).max(1));
        (0..lines).step_by(step).map(move |first| Self { first, end: (first + step).min(lines) })
    }

    /// Cells of the output in these lines.
    pub(super) fn cells(self, g: &Geometry) -> std::ops::Range<usize> {
        self.first * g.out[1]..self.end * g.out[1]
    }
}

/// Writes the columns of `channels` planes: `[channels · kh · kw, cells of the lines]`.
pub(super) fn gather(g: &Geometry, lines: Lines, planes: &[f32], columns: &mut [f32]) {
    let cells = lines.cells(g).len();
    each_line(g, lines, columns.len() / cells, |row, (first, end), (left, right, stride), at| {
        let row = &mut columns[row * cells..][..cells];
        row[..first * g.out[1]].fill(0.0);
        row[end * g.out[1]..].fill(0.0);
        for (i, line) in row[first * g.out[1]..end * g.out[1]].chunks_exact_mut(g.out[1]).enumerate() {
            let read = &planes[at + i * g.stride[0] * g.input[1]..];
            line[..left].fill(0.0);
            line[right..].fill(0.0);
            match stride {
                1 => line[left..right].copy_from_slice(&read[..right - left]),
                stride => line[left..right].iter_mut().zip(read.iter().step_by(stride)).for_each(|(to, from)| *to = *from),
            }
        }
    });
}

/// Adds columns to the cells of the planes that they were read from.
pub(super) fn scatter(g: &Geometry, lines: Lines, columns: &[f32], planes: &mut [f32]) {
    let cells = lines.cells(g).len();
    each_line(g, lines, columns.len() / cells, |row, (first, end), (left, right, stride), at| {
        let row = &columns[row * cells..][..cells];
        for (i, line) in row[first * g.out[1]..end * g.out[1]].chunks_exact(g.out[1]).enumerate() {
            let (from, to) = (&line[left..right], &mut planes[at + i * g.stride[0] * g.input[1]..]);
            match stride {
                1 => to.iter_mut().zip(from).for_each(|(to, from)| *to += from),
                stride => to.iter_mut().step_by(stride).zip(from).for_each(|(to, from)| *to += from),
            }
        }
    });
}

/// For each of `rows` rows of the columns, which belongs to one tap on one plane: the row; the first and the last of the lines,
/// counted from the first, that read cells; the first and the last cell in each that does, and the stride; where the first is read.
fn each_line(g: &Geometry, lines: Lines, rows: usize, mut each: impl FnMut(usize, (usize, usize), (usize, usize, usize), usize)) {
    let taps = g.kernel[0] * g.kernel[1];
    for row in 0..rows {
        let (plane, tap) = (row / taps, row % taps);
        let (ky, kx) = (tap / g.kernel[1] * g.dilation[0], tap % g.kernel[1] * g.dilation[1]);
        let (top, bottom, y) = reach(g.out[0], g.input[0], g.stride[0], ky, g.begin[0]);
        let (left, right, x) = reach(g.out[1], g.input[1], g.stride[1], kx, g.begin[1]);
        let (first, end) = (top.clamp(lines.first, lines.end), bottom.clamp(lines.first, lines.end));
        let skipped = first.saturating_sub(top) * g.stride[0];
        let at = plane * g.plane() + if first < end { (y + skipped) * g.input[1] + x } else { 0 };
        each(row, (first - lines.first, end - lines.first), (left, right, g.stride[1]), at);
    }
}

//! Convolution in two dimensions, forwards and backwards, as matrix products over columns; depthwise ones directly.

use std::ops::Range;

use burn_flex::{Flex, FlexTensor};
use ndarray::{ArrayView2, ArrayViewMut2, linalg::general_mat_mul, s};
use rayon::prelude::*;

use super::columns::Lines;
use super::{Kernel, columns, depthwise, lanes, rows::total, simd, values};
use crate::interpreter::value::{dims, floats};

/// Most sums over parts of a batch, and most floats in all of them: what runs at once adds to its own.
const PARTS: usize = 8;
const IN_PARTS: usize = 1 << 22;

/// How a convolution reads its input; axes are height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Of the input.
    pub(crate) input: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
    /// Pads before the first cell; those behind the last follow from `out`.
    pub(crate) begin: [usize; 2],
    /// Of the output.
    pub(crate) out: [usize; 2],
}

impl Geometry {
    /// Cells of an input plane.
    pub(super) fn plane(&self) -> usize {
        self.input[0] * self.input[1]
    }

    /// Cells of an output plane.
    pub(super) fn cells(&self) -> usize {
        self.out[0] * self.out[1]
    }

    /// Whether the columns of an image are the image.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1; 2] && self.stride == [1; 2] && self.begin == [0; 2] && self.out == self.input
    }
}

/// `x` `[n, c, h, w]`, weight `[m, c / groups, kh, kw]`, and a bias `[m]` if it is a `Kernel<3>`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conv {
    pub(crate) geometry: Geometry,
    pub(crate) groups: usize,
}

impl Kernel<2> for Conv {
    type Saved = [FlexTensor; 2];

    fn forward(&self, [x, w]: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let saved = [x.to_contiguous(), w.to_contiguous()];
        (self.convolve(&saved[0], &saved[1], None), saved)
    }

    fn backward(&self, saved: Self::Saved, gradient: FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        self.back(&saved, &gradient.to_contiguous(), wanted)
    }
}

impl Kernel<3> for Conv {
    type Saved = [FlexTensor; 2];

    fn forward(&self, [x, w, bias]: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        let saved = [x.to_contiguous(), w.to_contiguous()];
        (self.convolve(&saved[0], &saved[1], Some(&bias.to_contiguous())), saved)
    }

    fn backward(&self, saved: Self::Saved, gradient: FlexTensor, [x, w, bias]: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let gradient = gradient.to_contiguous();
        let planes = values(&gradient).chunks_exact(self.geometry.cells());
        let channels = dims::<Flex>(&gradient)[1];
        let bias = bias.then(|| {
            let mut sums = vec![0.0; channels];
            planes.enumerate().for_each(|(i, plane)| sums[i % channels] += simd(|| lanes::sum(plane)));
            floats::<Flex>(sums, &[channels])
        });
        let [x, w] = self.back(&saved, &gradient, [x, w]);
        [x, w, bias]
    }
}

/// The extents of one group of channels.
struct Group {
    /// Input and output channels.
    read: usize,
    written: usize,
    /// Values in a column: `read · kh · kw`.
    depth: usize,
}

impl Conv {
    fn group(&self, x: &FlexTensor, w: &FlexTensor) -> Group {
        let (read, written) = (dims::<Flex>(x)[1] / self.groups, dims::<Flex>(w)[0] / self.groups);
        Group { read, written, depth: read * self.geometry.kernel[0] * self.geometry.kernel[1] }
    }

    pub(super) fn convolve(&self, x: &FlexTensor, w: &FlexTensor, bias: Option<&FlexTensor>) -> FlexTensor {
        let (g, group) = (&self.geometry, self.group(x, w));
        let (examples, channels) = (dims::<Flex>(x)[0], self.groups * group.written);
        let mut y = vec![0.0; examples * channels * g.cells()];
        let weights = values(w);
        let example = |columns: &mut Vec<f32>, (y, x): (&mut [f32], &[f32])| {
            if let Some(bias) = bias {
                y.chunks_exact_mut(g.cells()).zip(values(bias)).for_each(|(plane, bias)| plane.fill(*bias));
            }
            let groups = y.chunks_exact_mut(group.written * g.cells()).zip(x.chunks_exact(group.read * g.plane()));
            for ((y, x), w) in groups.zip(weights.chunks_exact(group.written * group.depth)) {
                if group.read == 1 && group.written == 1 {
                    depthwise::forward(g, x, w, y);
                    continue;
                }
                self.by_lines(x, columns, group.depth, |cells, columns| {
                    let mut y = matrix_mut(y, g.cells());
                    product(1.0, matrix(w, group.depth), columns, y.slice_mut(s![.., cells]));
                });
            }
        };
        let of_example = self.groups * group.read * g.plane();
        y.par_chunks_exact_mut(channels * g.cells()).zip(values(x).par_chunks_exact(of_example)).for_each_init(Vec::new, example);
        floats::<Flex>(y, &[examples, channels, g.out[0], g.out[1]])
    }

    /// The image as columns, some cells of the output at a time: itself, or what is written into `buffer`.
    fn by_lines(&self, x: &[f32], buffer: &mut Vec<f32>, depth: usize, mut each: impl FnMut(Range<usize>, ArrayView2<'_, f32>)) {
        if self.geometry.is_pointwise() {
            return each(0..self.geometry.cells(), matrix(x, self.geometry.cells()));
        }
        for lines in Lines::of(&self.geometry, depth) {
            let cells = lines.cells(&self.geometry);
            buffer.resize(depth * cells.len(), 0.0);
            columns::gather(&self.geometry, lines, x, buffer);
            each(cells.clone(), matrix(buffer, cells.len()));
        }
    }

    /// The gradients of input and weight; of the input only its shape matters where that of the weight is not wanted.
    pub(super) fn back(&self, [x, w]: &[FlexTensor; 2], gradient: &FlexTensor, [of_x, of_w]: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let (g, group) = (&self.geometry, self.group(x, w));
        let examples = dims::<Flex>(x)[0];
        let weights = values(w);
        let (image, answer) = (self.groups * group.read * g.plane(), self.groups * group.written * g.cells());
        let parts = (IN_PARTS / weights.len().max(1)).clamp(1, PARTS);
        let at_once = examples.div_ceil(parts);
        let mut dx = vec![0.0; if of_x { values(x).len() } else { 0 }];
        let mut slices: Vec<&mut [f32]> = dx.chunks_mut((at_once * image).max(1)).collect();
        slices.resize_with(examples.div_ceil(at_once.max(1)), Default::default);
        let part = |(slice, (x, dy)): (&mut [f32], (&[f32], &[f32]))| {
            let mut dw = vec![0.0; if of_w { weights.len() } else { 0 }];
            let mut buffer = Vec::new();
            for (i, (x, dy)) in x.chunks_exact(image).zip(dy.chunks_exact(answer)).enumerate() {
                for k in 0..self.groups {
                    let x = &x[k * group.read * g.plane()..][..group.read * g.plane()];
                    let dy = &dy[k * group.written * g.cells()..][..group.written * g.cells()];
                    let at = k * group.written * group.depth..(k + 1) * group.written * group.depth;
                    let dx = of_x.then(|| &mut slice[i * image + k * group.read * g.plane()..][..group.read * g.plane()]);
                    let dw = of_w.then(|| &mut dw[at.clone()]);
                    if group.read == 1 && group.written == 1 {
                        depthwise::backward(g, x, &weights[at], dy, dx, dw);
                        continue;
                    }
                    let dy = matrix(dy, g.cells());
                    if let Some(dw) = dw {
                        let mut dw = matrix_mut(dw, group.depth);
                        self.by_lines(x, &mut buffer, group.depth, |cells, columns| {
                            product(1.0, dy.slice(s![.., cells]), columns.t(), dw.view_mut());
                        });
                    }
                    if let Some(dx) = dx {
                        self.spread(matrix(&weights[at], group.depth), dy, dx, &mut buffer);
                    }
                }
            }
            dw
        };
        let work = values(x).par_chunks(at_once * image).zip(values(gradient).par_chunks(at_once * answer));
        let sums: Vec<Vec<f32>> = slices.into_par_iter().zip(work).map(part).collect();
        let dw = of_w.then(|| floats::<Flex>(total(sums), &dims::<Flex>(w)));
        [of_x.then(|| floats::<Flex>(dx, &dims::<Flex>(x))), dw]
    }

    /// Adds the gradient of the columns, `wᵀ · dy`, to the image.
    fn spread(&self, w: ArrayView2<'_, f32>, dy: ArrayView2<'_, f32>, dx: &mut [f32], buffer: &mut Vec<f32>) {
        if self.geometry.is_pointwise() {
            return product(1.0, w.t(), dy, matrix_mut(dx, self.geometry.cells()));
        }
        for lines in Lines::of(&self.geometry, w.ncols()) {
            let cells = lines.cells(&self.geometry);
            buffer.resize(w.ncols() * cells.len(), 0.0);
            product(0.0, w.t(), dy.slice(s![.., cells.clone()]), matrix_mut(buffer, cells.len()));
            columns::scatter(&self.geometry, lines, buffer, dx);
        }
    }
}

/// A row-major matrix with so many columns.
fn matrix(values: &[f32], columns: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((values.len() / columns, columns), values).expect("a slice of whole rows")
}

/// The same, to be written.
fn matrix_mut(values: &mut [f32], columns: usize) -> ArrayViewMut2<'_, f32> {
    ArrayViewMut2::from_shape((values.len() / columns, columns), values).expect("a slice of whole rows")
}

/// `c = a · b + beta · c`.
fn product(beta: f32, a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>, mut c: ArrayViewMut2<'_, f32>) {
    general_mat_mul(1.0, &a, &b, beta, &mut c);
}

//! Kernels against the backend's own primitives, and gradients against what bilinearity demands of them.

use burn_backend::ops::{ConvOptions, ModuleOps as _};
use burn_flex::{Flex, FlexTensor};
use proptest::prelude::*;

use super::conv::{Conv, Geometry};
use super::layer_norm::LayerNorm;
use super::pool::MaxPool;
use super::rows::AddRow;
use super::{Kernel, values};
use crate::interpreter::value::floats;

fn tensor(shape: &[usize], seed: usize) -> FlexTensor {
    let count = shape.iter().product::<usize>();
    floats::<Flex>((0..count).map(|i| ((i + 1) as f32 * (0.7 + seed as f32)).sin()).collect(), shape)
}

fn inner(a: &FlexTensor, b: &FlexTensor) -> f64 {
    values(&a.to_contiguous()).iter().zip(values(&b.to_contiguous())).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn assert_close(a: &FlexTensor, b: &FlexTensor) {
    let (a, b) = (a.to_contiguous(), b.to_contiguous());
    assert_eq!(values(&a).len(), values(&b).len());
    for (i, (a, b)) in values(&a).iter().zip(values(&b)).enumerate() {
        assert!(a == b || (a - b).abs() <= 1e-4 * (1.0 + b.abs()), "value {i}: {a}, not {b}");
    }
}

/// Extents, kernel, stride, dilation and pads on each side of one axis.
fn axis() -> impl Strategy<Value = [usize; 6]> {
    (1..4usize, 1..4usize, 1..3usize, 0..3usize, 0..3usize, 0..7usize).prop_map(|(kernel, stride, dilation, begin, end, more)| {
        let least = (dilation * (kernel - 1) + 1).saturating_sub(begin + end).max(1);
        [least + more, kernel, stride, dilation, begin, end]
    })
}

fn geometry(height: [usize; 6], width: [usize; 6]) -> Geometry {
    let both = |i: usize| [height[i], width[i]];
    let out = |a: [usize; 6]| (a[0] + a[4] + a[5] - a[3] * (a[1] - 1) - 1) / a[2] + 1;
    Geometry { input: both(0), kernel: both(1), stride: both(2), dilation: both(3), begin: both(4), out: [out(height), out(width)] }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// The value is the backend's; the gradient of a bilinear function is its adjoint.
    #[test]
    fn convolution_is_the_backends_and_its_gradients_are_adjoint(
        (height, width) in (axis(), axis()),
        (examples, groups, read, written) in (1..11usize, 1..4usize, 1..4usize, 1..4usize),
    ) {
        let geometry = geometry(height, width);
        let conv = Conv { geometry, groups };
        let x = tensor(&[examples, groups * read, height[0], width[0]], 1);
        let w = tensor(&[groups * written, read, height[1], width[1]], 2);
        let bias = tensor(&[groups * written], 3);
        let (y, saved) = Kernel::<3>::forward(&conv, [x.clone(), w.clone(), bias.clone()]);
        let mut options = ConvOptions::new(geometry.stride, [0; 2], geometry.dilation, groups);
        options.padding = [(height[4], height[5]), (width[4], width[5])];
        assert_close(&y, &Flex::conv2d(x.clone(), w.clone(), Some(bias), options));

        let dy = tensor(&[examples, groups * written, geometry.out[0], geometry.out[1]], 4);
        let [Some(dx), Some(dw), Some(db)] = Kernel::<3>::backward(&conv, saved, dy.clone(), [true; 3]) else { panic!("all are wanted") };
        let plain = |x: FlexTensor, w: FlexTensor| Kernel::<2>::forward(&conv, [x, w]).0;
        let (other_x, other_w) = (tensor(&[examples, groups * read, height[0], width[0]], 5), tensor(&[groups * written, read, height[1], width[1]], 6));
        let near = |a: f64, b: f64| (a - b).abs() < 1e-3 * (1.0 + a.abs());
        prop_assert!(near(inner(&dy, &plain(other_x.clone(), w)), inner(&dx, &other_x)));
        prop_assert!(near(inner(&dy, &plain(x, other_w.clone())), inner(&dw, &other_w)));
        let cells = geometry.out[0] * geometry.out[1];
        let channel = |c: usize| -> f64 {
            values(&dy).chunks(cells).skip(c).step_by(groups * written).flatten().map(|v| f64::from(*v)).sum()
        };
        prop_assert!((0..groups * written).all(|c| near(channel(c), f64::from(values(&db)[c]))));
    }

    /// The largest of each window, and the gradient lands where that was.
    #[test]
    fn the_largest_takes_the_gradient((height, width) in (axis(), axis()), examples in 1..3usize) {
        let geometry = geometry(height, width);
        let x = tensor(&[examples, 2, height[0], width[0]], 1);
        let (y, saved) = MaxPool(geometry).forward([x.clone()]);
        // One window at a time, by its definition.
        let plane = height[0] * width[0];
        let mut expected = vec![0.0; values(&x).len()];
        for (p, image) in values(&x).chunks(plane).enumerate() {
            for (oy, ox) in (0..geometry.out[0]).flat_map(|y| (0..geometry.out[1]).map(move |x| (y, x))) {
                let at = |o: usize, k: usize, i: usize| {
                    (o * geometry.stride[i] + k * geometry.dilation[i]).checked_sub(geometry.begin[i]).filter(|at| *at < geometry.input[i])
                };
                let taps = (0..geometry.kernel[0]).flat_map(|ky| (0..geometry.kernel[1]).map(move |kx| (ky, kx)));
                let read = taps.filter_map(|(ky, kx)| Some(at(oy, ky, 0)? * width[0] + at(ox, kx, 1)?));
                let most = read.fold(None, |most: Option<usize>, at| Some(most.filter(|most| image[*most] >= image[at]).unwrap_or(at)));
                let out = (p * geometry.out[0] + oy) * geometry.out[1] + ox;
                prop_assert_eq!(values(&y)[out], most.map_or(f32::NEG_INFINITY, |at| image[at]));
                if let Some(at) = most {
                    expected[p * plane + at] += 1.0;
                }
            }
        }
        let ones = floats::<Flex>(vec![1.0; values(&y).len()], &[examples, 2, geometry.out[0], geometry.out[1]]);
        let [Some(dx)] = MaxPool(geometry).backward(saved, ones, [true]) else { panic!("it is wanted") };
        prop_assert_eq!(values(&dx), &expected[..]);
    }
}

/// A large image is convolved some lines at a time.
#[test]
fn a_large_image_is_convolved_by_parts() {
    for (stride, dilation) in [([1, 1], [1, 1]), ([2, 3], [3, 2])] {
        let out = |axis: usize| (300 + 4 - dilation[axis] * 2 - 1) / stride[axis] + 1;
        let geometry = Geometry { input: [300; 2], kernel: [3; 2], stride, dilation, begin: [2; 2], out: [out(0), out(1)] };
        let conv = Conv { geometry, groups: 1 };
        let (x, w) = (tensor(&[1, 4, 300, 300], 1), tensor(&[2, 4, 3, 3], 2));
        let (y, saved) = Kernel::<2>::forward(&conv, [x.clone(), w.clone()]);
        let mut options = ConvOptions::new(stride, [0; 2], dilation, 1);
        options.padding = [(2, 2); 2];
        assert_close(&y, &Flex::conv2d(x.clone(), w.clone(), None, options));
        let dy = tensor(&[1, 2, out(0), out(1)], 4);
        let [Some(dx), Some(dw)] = Kernel::<2>::backward(&conv, saved, dy.clone(), [true; 2]) else { panic!("both are wanted") };
        let whole = inner(&dy, &y);
        for (what, found) in [("x", inner(&dx, &x)), ("w", inner(&dw, &w))] {
            assert!((found - whole).abs() < 1e-4 * (1.0 + whole.abs()), "{what}: {found}, not {whole}");
        }
    }
}

/// Rows of many parts and of one: the mean of each is the bias' and its deviation the scale's, and gradients are differences.
#[test]
fn rows_are_normalized_and_their_gradients_are_differences() {
    for (rows, width, centred) in [(3, 5, true), (1200, 40, true), (1200, 40, false)] {
        let norm = LayerNorm { epsilon: 1e-5, centred };
        let [x, scale, bias] = [tensor(&[rows, width], 1), tensor(&[width], 2), tensor(&[width], 3)];
        let forward = |inputs: [FlexTensor; 3]| Kernel::<3>::forward(&norm, inputs);
        let (y, saved) = forward([x.clone(), scale.clone(), bias.clone()]);
        for (x, y) in values(&x).chunks(width).zip(values(&y).chunks(width)) {
            let mean = if centred { x.iter().sum::<f32>() / width as f32 } else { 0.0 };
            let deviation = (x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / width as f32 + 1e-5).sqrt();
            for (i, y) in y.iter().enumerate() {
                let expected = (x[i] - mean) / deviation * values(&scale)[i] + values(&bias)[i];
                assert!((y - expected).abs() < 1e-4, "{y}, not {expected}");
            }
        }
        let dy = tensor(&[rows, width], 4);
        let gradients = Kernel::<3>::backward(&norm, saved, dy.clone(), [true; 3]).map(Option::unwrap);
        for (which, (input, gradient)) in [&x, &scale, &bias].into_iter().zip(&gradients).enumerate() {
            let step = tensor(&input.layout().shape().to_vec(), 5);
            let at = |h: f32| {
                let moved = values(input).iter().zip(values(&step)).map(|(v, s)| v + h * s).collect();
                let mut inputs = [x.clone(), scale.clone(), bias.clone()];
                inputs[which] = floats::<Flex>(moved, &input.layout().shape().to_vec());
                inner(&dy, &forward(inputs).0)
            };
            let (slope, exact) = ((at(1e-2) - at(-1e-2)) / 2e-2, inner(gradient, &step));
            assert!((slope - exact).abs() < 2e-2 * (1.0 + exact.abs()), "{rows} rows, input {which}: {slope}, not {exact}");
        }
    }
}

/// A row is added to each, and gets the sum of their gradients.
#[test]
fn a_row_is_added_to_each() {
    for rows in [1, 7, 3000] {
        let (x, row) = (tensor(&[rows, 10], 1), tensor(&[10], 2));
        let (y, width) = AddRow.forward([x.clone(), row.clone()]);
        let expected: Vec<f32> = values(&x).chunks(10).flat_map(|x| x.iter().zip(values(&row)).map(|(x, b)| x + b)).collect();
        assert_eq!(values(&y), expected);
        let [Some(dx), Some(sums)] = AddRow.backward(width, x.clone(), [true; 2]) else { panic!("both are wanted") };
        assert_eq!(values(&dx), values(&x));
        let column = |i: usize| values(&x).iter().skip(i).step_by(10).map(|v| f64::from(*v)).sum::<f64>();
        assert!((0..10).all(|i| (f64::from(values(&sums)[i]) - column(i)).abs() < 1e-3));
    }
}

/// What is no number is found in any place of a window, and stays.
#[test]
fn no_number_is_more_than_any() {
    let geometry = Geometry { input: [1, 3], kernel: [1, 3], stride: [1; 2], dilation: [1; 2], begin: [0; 2], out: [1, 1] };
    for place in 0..3 {
        let mut x = vec![1.0, f32::INFINITY, 2.0];
        x[place] = f32::NAN;
        let (y, (_, cells)) = MaxPool(geometry).forward([floats::<Flex>(x, &[1, 1, 1, 3])]);
        assert!(values(&y)[0].is_nan() && cells == [place as u32], "{place}");
    }
}

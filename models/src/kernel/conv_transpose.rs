//! Transposed convolution in two dimensions: what carries the gradient of a convolution back to its input, and the other way round.

use burn_flex::{Flex, FlexTensor};

use super::Kernel;
use super::conv::Conv;
use crate::interpreter::value::{dims, floats};

/// `x` `[n, c, h, w]` and weight `[c, m / groups, kh, kw]` give `[n, m, oh, ow]`. The convolution is the one that reads what is
/// written here: its `input` is this one's output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvTranspose(pub(crate) Conv);

impl Kernel<2> for ConvTranspose {
    type Saved = [FlexTensor; 2];

    fn forward(&self, [x, w]: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let saved = [x.to_contiguous(), w.to_contiguous()];
        let [y, _] = self.0.back(&[self.written(&saved[0], &saved[1]), saved[1].clone()], &saved[0], [true, false]);
        (y.expect("it is asked for"), saved)
    }

    fn backward(&self, [x, w]: Self::Saved, gradient: FlexTensor, [of_x, of_w]: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let gradient = gradient.to_contiguous();
        let dx = of_x.then(|| self.0.convolve(&gradient, &w, None));
        let [_, dw] = self.0.back(&[gradient, w], &x, [false, of_w]);
        [dx, dw]
    }
}

impl ConvTranspose {
    /// A tensor of the output's shape.
    fn written(&self, x: &FlexTensor, w: &FlexTensor) -> FlexTensor {
        let (examples, channels, [height, width]) = (dims::<Flex>(x)[0], dims::<Flex>(w)[1] * self.0.groups, self.0.geometry.input);
        let shape = [examples, channels, height, width];
        floats::<Flex>(vec![0.0; shape.iter().product()], &shape)
    }
}

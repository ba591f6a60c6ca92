//! The backends that a plan runs on.
//!
//! Plans are generic over [`Engine`], so the same operator code serves inference (plain
//! [`Flex`]) and training ([`Autodiff`] around it). Tensors that outlive one run (weights,
//! constants) are kept as [`Engine::Plain`] tensors and lifted into each run, because a
//! tensor with a tape must not be shared between steps.

use burn_autodiff::Autodiff;
use burn_backend::{AutodiffBackend, Backend, tensor::FloatTensor};
use burn_flex::{Flex, FlexDevice};

use crate::kernel::{Kernel, batch_norm::Statistics, record};

/// A backend of the interpreter.
pub(crate) trait Engine: Backend<Device = FlexDevice> {
    /// The same backend without a tape.
    type Plain: Engine<Plain = Self::Plain>;

    /// A tensor of this engine that no gradient flows into.
    fn lift(tensor: FloatTensor<Self::Plain>) -> FloatTensor<Self>;

    /// The values of a tensor, without its tape.
    fn lower(tensor: FloatTensor<Self>) -> FloatTensor<Self::Plain>;

    /// Mean and variance of each channel.
    fn statistics(tensor: &FloatTensor<Self>) -> Statistics;

    /// Runs a kernel; a tape learns its gradient.
    fn apply<K: Kernel<N>, const N: usize>(kernel: K, inputs: [FloatTensor<Self>; N]) -> FloatTensor<Self>;
}

impl Engine for Flex {
    type Plain = Self;

    fn lift(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        tensor
    }

    fn lower(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        tensor
    }

    fn statistics(tensor: &FloatTensor<Self>) -> Statistics {
        Statistics::of(tensor)
    }

    fn apply<K: Kernel<N>, const N: usize>(kernel: K, inputs: [FloatTensor<Self>; N]) -> FloatTensor<Self> {
        kernel.forward(inputs).0
    }
}

impl Engine for Autodiff<Flex> {
    type Plain = Flex;

    fn lift(tensor: FloatTensor<Flex>) -> FloatTensor<Self> {
        Self::from_inner(tensor)
    }

    fn lower(tensor: FloatTensor<Self>) -> FloatTensor<Flex> {
        Self::inner(tensor)
    }

    fn statistics(tensor: &FloatTensor<Self>) -> Statistics {
        Statistics::of(tensor.primitive())
    }

    fn apply<K: Kernel<N>, const N: usize>(kernel: K, inputs: [FloatTensor<Self>; N]) -> FloatTensor<Self> {
        record(kernel, inputs)
    }
}

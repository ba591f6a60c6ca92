//! Functions of tensors with a gradient of their own, where those of the backend's primitives cost too much.
//!
//! A [`Kernel`] sees plain tensors. [`Engine::apply`](crate::interpreter::engine::Engine::apply) runs it with or without a
//! tape. A kernel's results do not depend on the number of threads: what is summed over examples is summed in parts that the
//! batch alone decides, and these in order.

pub(crate) mod batch_norm;
mod columns;
pub(crate) mod conv;
pub(crate) mod conv_transpose;
mod depthwise;
mod lanes;
pub(crate) mod layer_norm;
mod math;
pub(crate) mod pointwise;
pub(crate) mod pool;
pub(crate) mod resample;
pub(crate) mod rows;
pub(crate) mod softmax;
#[cfg(test)]
mod tests;

use std::{fmt::Debug, marker::PhantomData};

use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_backend::tensor::FloatTensor;
use burn_flex::{Flex, FlexTensor};

/// A function of `N` tensors.
pub(crate) trait Kernel<const N: usize>: Clone + Debug + Send + 'static {
    /// What the way back needs of the way forth.
    type Saved: Clone + Debug + Send + 'static;

    /// The value.
    fn forward(&self, inputs: [FlexTensor; N]) -> (FlexTensor, Self::Saved);

    /// The gradients with respect to the `wanted` inputs, of the shapes of these, for a `gradient` of the value's shape.
    fn backward(&self, saved: Self::Saved, gradient: FlexTensor, wanted: [bool; N]) -> [Option<FlexTensor>; N];
}

/// Flex with a tape.
type Tape = Autodiff<Flex>;

/// Puts a kernel on the tape.
pub(crate) fn record<K: Kernel<N>, const N: usize>(kernel: K, inputs: [FloatTensor<Tape>; N]) -> FloatTensor<Tape> {
    let guards = inputs.each_ref().map(|input| input.node());
    let (value, saved) = kernel.forward(inputs.map(|input| input.into_primitive()));
    match Step::<K>(PhantomData).prepare::<NoCheckpointing>(guards).compute_bound().stateful() {
        OpsKind::Tracked(step) => step.finish((kernel, saved), value),
        OpsKind::UnTracked(step) => step.finish(value),
    }
}

#[derive(Debug)]
struct Step<K>(PhantomData<K>);

impl<K: Kernel<N>, const N: usize> Backward<Flex, N> for Step<K> {
    type State = (K, K::Saved);

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let (kernel, saved) = ops.state;
        let found = kernel.backward(saved, gradient, ops.parents.each_ref().map(Option::is_some));
        for (parent, gradient) in ops.parents.iter().zip(found) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

/// The row-major values of a tensor that has been made contiguous.
fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("made contiguous before, and all floats are f32")
}

/// Runs what is inlined here with the widest vectors of the processor at hand.
#[inline(always)]
fn simd<R>(run: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(run)
}

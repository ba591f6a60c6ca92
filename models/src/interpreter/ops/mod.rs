//! The operators, one file per family. Each file opens with its specification, its
//! constraints and the opsets that changed it, and offers `family`, which finds the
//! compiler of an operator by name. A new family is one file and one line here.

mod activation;
mod batch_norm;
mod constant;
mod conv;
mod conv_transpose;
mod dropout;
mod elementwise;
mod gather_nd;
mod gemm;
mod group_norm;
mod indexing;
mod layer_norm;
mod logic;
mod lrn;
mod pool;
mod quantization;
mod recurrent;
mod reduce;
mod resample;
mod reshape;
mod resize;
mod slicing;
mod softmax;
mod window;

#[cfg(test)]
mod tests;

use super::engine::Engine;
use super::operator::Compile;

/// Finds the compiler of an operator of one family by name.
type Family<B> = fn(&str) -> Option<Compile<B>>;

/// The compiler of a standard operator, or `None` if there is no such operator here.
pub(super) fn find<B: Engine>(op_type: &str) -> Option<Compile<B>> {
    let families: [Family<B>; 22] = [
        activation::family::<B>,
        batch_norm::family::<B>,
        constant::family::<B>,
        conv::family::<B>,
        conv_transpose::family::<B>,
        dropout::family::<B>,
        elementwise::family::<B>,
        gather_nd::family::<B>,
        gemm::family::<B>,
        group_norm::family::<B>,
        indexing::family::<B>,
        layer_norm::family::<B>,
        logic::family::<B>,
        lrn::family::<B>,
        pool::family::<B>,
        quantization::family::<B>,
        recurrent::family::<B>,
        reduce::family::<B>,
        reshape::family::<B>,
        resize::family::<B>,
        slicing::family::<B>,
        softmax::family::<B>,
    ];
    families.iter().find_map(|family| family(op_type))
}

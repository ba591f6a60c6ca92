//! Matrix products: `Gemm` and `MatMul`.
//!
//! <https://onnx.ai/onnx/operators/onnx__Gemm.html>,
//! <https://onnx.ai/onnx/operators/onnx__MatMul.html>
//!
//! - Gemm: `alpha * A' * B' + beta * C` on matrices. Opset 7 made C broadcastable, 9 added
//!   integers (not computed here), 11 made C optional.
//! - MatMul: NumPy rules (1-D operands, broadcast batch axes). Opset 9 added integers.
//!
//! Exporters write linear layers as `Gemm` with `transB = 1`. Its gradient would come out as
//! a transposed view that the optimizer then walks element by element, so such a weight
//! is kept in memory as `[in, out]` (see [`Operator::wants_transposed`]).

use burn_backend::{Scalar, tensor::FloatTensor};

use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Value, affordable, bounded, broadcast, dims, padded, reshape};
use crate::kernel::rows::AddRow;

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "Gemm" => gemm,
        "MatMul" => matmul,
        _ => return None,
    })
}

struct Gemm {
    transpose_a: bool,
    transpose_b: bool,
    alpha: f32,
    beta: f32,
}

fn gemm<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(2, 3)?;
    Ok(Box::new(Gemm {
        transpose_a: spec.flag("transA", false),
        transpose_b: spec.flag("transB", false),
        alpha: spec.float("alpha").unwrap_or(1.0),
        beta: spec.float("beta").unwrap_or(1.0),
    }))
}

impl<B: Engine> Operator<B> for Gemm {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let a = transposed_if::<B>(self.transpose_a, inputs.float(0)?)?;
        let b = transposed_if::<B>(self.transpose_b, inputs.float(1)?)?;
        let (da, db) = (dims::<B>(&a), dims::<B>(&b));
        if da[1] != db[0] {
            return Err(Fault::shape(format!("{da:?} times {db:?}")));
        }
        bounded(&[da[0], db[1]])?;
        affordable(&[da[0], da[1], db[1]])?;
        let mut y = scaled::<B>(B::float_matmul(a, b), self.alpha);
        let out = [da[0], db[1]];
        if let Some(c) = inputs.optional_float(2)? {
            let shape = padded(&dims::<B>(&c), 2);
            if broadcast(&shape, &out)? != out {
                return Err(Fault::shape(format!("C of {shape:?} does not broadcast to {out:?}")));
            }
            let c = scaled::<B>(reshape::<B>(c, &shape), self.beta);
            let bias = shape == [1, out[1]] && !out.contains(&0);
            y = if bias { B::apply(AddRow, [y, reshape::<B>(c, &out[1..])]) } else { B::float_add(y, c) };
        }
        Ok(vec![Value::Float(y)])
    }

    fn wants_transposed(&self, input: usize) -> bool {
        input == 1 && self.transpose_b
    }

    fn take_transposed(&mut self, input: usize) {
        if input == 1 {
            self.transpose_b = !self.transpose_b;
        }
    }
}

fn scaled<B: Engine>(tensor: FloatTensor<B>, factor: f32) -> FloatTensor<B> {
    if factor == 1.0 { tensor } else { B::float_mul_scalar(tensor, Scalar::from(factor)) }
}

fn transposed_if<B: Engine>(transpose: bool, matrix: FloatTensor<B>) -> Result<FloatTensor<B>, Fault> {
    let shape = dims::<B>(&matrix);
    if shape.len() != 2 {
        return Err(Fault::shape(format!("a matrix is needed, not {shape:?}")));
    }
    Ok(if transpose { B::float_swap_dims(matrix, 0, 1) } else { matrix })
}

struct MatMul;

fn matmul<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(2, 2)?;
    Ok(Box::new(MatMul))
}

impl<B: Engine> Operator<B> for MatMul {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let (a, b) = (inputs.float(0)?, inputs.float(1)?);
        let (mut da, mut db) = (dims::<B>(&a), dims::<B>(&b));
        let bad = || Fault::shape(format!("{:?} times {:?}", dims::<B>(&a), dims::<B>(&b)));
        if da.is_empty() || db.is_empty() {
            return Err(bad());
        }
        // A vector is a row on the left and a column on the right; its axis goes again after.
        let (row, column) = (da.len() == 1, db.len() == 1);
        if row {
            da.insert(0, 1);
        }
        if column {
            db.push(1);
        }
        let (m, k, n) = (da[da.len() - 2], da[da.len() - 1], db[db.len() - 1]);
        if k != db[db.len() - 2] {
            return Err(bad());
        }
        let mut out = broadcast(&da[..da.len() - 2], &db[..db.len() - 2]).map_err(|_| bad())?;
        out.extend([m, n]);
        bounded(&out)?;
        affordable(&[&out[..], &[k]].concat())?;
        let y = if db.len() == 2 {
            // A linear layer on a batch of sequences is one large product.
            let rows = bounded(&da[..da.len() - 1])?;
            B::float_matmul(reshape::<B>(a, &[rows, k]), reshape::<B>(b, &db))
        } else {
            let rank = out.len();
            B::float_matmul(reshape::<B>(a, &padded(&da, rank)), reshape::<B>(b, &padded(&db, rank)))
        };
        if column {
            out.pop();
        }
        if row {
            out.remove(out.len() - 1 - usize::from(!column));
        }
        Ok(vec![Value::Float(reshape::<B>(y, &out))])
    }
}

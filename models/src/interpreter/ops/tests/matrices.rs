use super::{case, weights};

#[test]
fn gemm() {
    let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 0.0, 2.0, 1.0, 0.0, 3.0]);
    case("Gemm").x(&[2, 3], &a).x(&[3, 2], &b).gives(&[2, 2], &[5.0, 11.0, 14.0, 23.0]).differentiable();
    // transB reads the same numbers as a 2 x 3 matrix.
    case("Gemm").int("transB", 1).x(&[2, 3], &a).x(&[2, 3], &b).gives(&[2, 2], &[7.0, 10.0, 16.0, 22.0]).differentiable();
    case("Gemm").int("transA", 1).x(&[3, 2], &a).x(&[3, 2], &b).gives(&[2, 2], &[7.0, 18.0, 10.0, 22.0]).differentiable();
    let scaled = case("Gemm").float("alpha", 0.5).float("beta", 2.0).x(&[2, 3], &a).x(&[3, 2], &b);
    scaled.x(&[2], &[1.0, -1.0]).gives(&[2, 2], &[4.5, 3.5, 9.0, 9.5]).differentiable();
}

#[test]
fn gemm_refuses_shapes_that_do_not_fit() {
    case("Gemm").some(&[2, 3]).some(&[2, 3]).refused();
    case("Gemm").some(&[2]).some(&[2, 3]).refused();
    case("Gemm").some(&[2, 3]).some(&[3, 2]).some(&[3]).refused();
    // C may not enlarge the product.
    case("Gemm").some(&[1, 3]).some(&[3, 2]).some(&[4, 2]).refused();
}

#[test]
fn matmul_follows_numpy() {
    let v = [1.0, 2.0, 3.0];
    case("MatMul").x(&[3], &v).x(&[3], &v).gives(&[], &[14.0]).differentiable();
    case("MatMul").x(&[3], &v).x(&[3, 1], &v).gives(&[1], &[14.0]).differentiable();
    case("MatMul").x(&[1, 3], &v).x(&[3], &v).gives(&[1], &[14.0]).differentiable();
    let batch: Vec<f32> = (0..12).map(|i| i as f32).collect();
    case("MatMul").x(&[2, 2, 3], &batch).x(&[3], &[1.0, 0.0, -1.0]).gives(&[2, 2], &[-2.0, -2.0, -2.0, -2.0]);
    case("MatMul").x(&[2, 2, 3], &batch).x(&[3, 1], &v).gives(&[2, 2, 1], &[8.0, 26.0, 44.0, 62.0]).differentiable();
    // Batch axes broadcast.
    case("MatMul").some(&[2, 1, 2, 3]).some(&[3, 3, 2]).differentiable();
    case("MatMul").some(&[2, 3]).some(&[4, 3, 2]).differentiable();
    case("MatMul").some(&[2, 3]).some(&[4, 2, 2]).refused();
    case("MatMul").some(&[]).some(&[2]).refused();
}

#[test]
fn weights_of_the_harness_differ() {
    let w = weights(&[4]);
    assert!(w.windows(2).all(|p| p[0] != p[1]));
}

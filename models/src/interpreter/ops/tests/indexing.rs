use super::{Case, case};

const SIX: [f32; 6] = [3.0, 1.0, 2.0, 4.0, 6.0, 5.0];

fn on_six(op: &'static str) -> Case {
    case(op).x(&[2, 3], &SIX)
}

/// Shapes and integers of an output.
fn ints(case: &Case, output: usize) -> (Vec<usize>, Vec<i64>) {
    let tensor = case.try_run().unwrap().swap_remove(output);
    let values = tensor.as_i64().unwrap().to_vec();
    (tensor.shape, values)
}

#[test]
fn gather_elements() {
    let at = |axis: i64, shape: &[usize], indices: &[i64]| on_six("GatherElements").int("axis", axis).table(shape, indices);
    at(0, &[1, 3], &[1, 0, -1]).gives(&[1, 3], &[4.0, 1.0, 5.0]).differentiable();
    // An element that is picked twice gets both gradients.
    at(1, &[2, 2], &[2, 2, 0, 1]).gives(&[2, 2], &[2.0, 2.0, 4.0, 6.0]).differentiable();
    at(1, &[2, 4], &[0; 8]).gives(&[2, 4], &[3.0, 3.0, 3.0, 3.0, 4.0, 4.0, 4.0, 4.0]);
    case("GatherElements").list(&[7, 8, 9]).list(&[2, -3]).gives_ints(&[2], &[9, 7]);
    at(1, &[2, 1], &[3, 0]).refused();
    at(1, &[2, 1], &[0, -4]).refused();
    at(1, &[3, 1], &[0; 3]).refused();
    at(1, &[2], &[0; 2]).refused();
    at(2, &[2, 1], &[0; 2]).refused();
}

#[test]
fn gather_nd() {
    let at = |shape: &[usize], indices: &[i64]| on_six("GatherND").table(shape, indices);
    at(&[2, 2], &[0, 2, -1, 0]).gives(&[2], &[2.0, 4.0]).differentiable();
    // Whole rows, one of them twice.
    at(&[3, 1], &[1, 0, 1]).gives(&[3, 3], &[4.0, 6.0, 5.0, 3.0, 1.0, 2.0, 4.0, 6.0, 5.0]).differentiable();
    at(&[2, 1], &[2, 0]).int("batch_dims", 1).gives(&[2], &[2.0, 4.0]).differentiable();
    case("GatherND").table(&[2, 2], &[1, 2, 3, 4]).table(&[1, 2], &[1, 0]).gives_ints(&[1], &[3]);
    at(&[0, 2], &[]).gives(&[0], &[]);
    at(&[1, 2], &[0, 3]).refused();
    at(&[1, 3], &[0, 0, 0]).refused();
    at(&[3, 1], &[0, 0, 0]).int("batch_dims", 1).refused();
    at(&[2, 2], &[0, 0, 0, 0]).int("batch_dims", 1).refused();
    at(&[1, 2], &[0, 0]).int("batch_dims", -1).refused();
    at(&[1, 0], &[]).refused();
}

#[test]
fn top_k() {
    let largest = on_six("TopK").list(&[2]);
    largest.gives(&[2, 2], &[3.0, 2.0, 6.0, 5.0]).differentiable();
    assert_eq!(ints(&on_six("TopK").list(&[2]).outputs(2), 1), (vec![2, 2], vec![0, 2, 1, 2]));
    on_six("TopK").int("largest", 0).int("axis", 0).list(&[1]).gives(&[1, 3], &SIX[..3]);
    // Of equal values the first; k was an attribute.
    let equal = || case("TopK").opset(9).int("k", 2).x(&[4], &[1.0, 2.0, 2.0, 2.0]).outputs(2);
    assert_eq!(ints(&equal(), 1).1, [1, 2]);
    // An order that does not hold together would panic on a line as long as this, of numbers and none.
    let mixed: Vec<f32> = (0..99).map(|i| if i % 3 == 0 { f32::NAN } else { (i * 37 % 100) as f32 }).collect();
    let top = case("TopK").x(&[99], &mixed).list(&[34]).run();
    assert!(top.as_f32().unwrap()[..33].iter().all(|v| v.is_nan()) && top.as_f32().unwrap()[33] == 96.0, "{top:?}");
    case("TopK").list(&[5, 9, 7]).list(&[2]).gives_ints(&[2], &[9, 7]);
    on_six("TopK").list(&[0]).list(&[0]).refused();
    on_six("TopK").list(&[4]).refused();
    on_six("TopK").list(&[-1]).refused();
}

#[test]
fn arg_max_and_min() {
    on_six("ArgMax").int("axis", 1).gives_ints(&[2, 1], &[0, 1]);
    on_six("ArgMin").int("axis", -1).int("keepdims", 0).gives_ints(&[2], &[1, 0]);
    on_six("ArgMax").gives_ints(&[1, 3], &[1, 1, 1]);
    let equal = |last| case("ArgMax").int("select_last_index", last).x(&[3], &[1.0, 2.0, 2.0]);
    equal(0).gives_ints(&[1], &[1]);
    equal(1).gives_ints(&[1], &[2]);
    case("ArgMin").list(&[3, 1, 2]).gives_ints(&[1], &[1]);
    on_six("ArgMax").int("axis", 2).refused();
    case("ArgMax").x(&[2, 0], &[]).int("axis", 1).refused();
}

#[test]
fn one_hot() {
    let of = |indices: &[i64]| case("OneHot").list(indices).integer(3);
    of(&[1, -1, 9]).constant(&[2], &[-1.0, 2.0]).gives(&[3, 3], &[-1.0, 2.0, -1.0, -1.0, -1.0, 2.0, -1.0, -1.0, -1.0]);
    of(&[0, 2]).int("axis", 0).list(&[0, 1]).gives_ints(&[3, 2], &[1, 0, 0, 0, 0, 1]);
    of(&[0]).list(&[0]).refused();
    case("OneHot").list(&[0]).integer(-1).list(&[0, 1]).refused();
    case("OneHot").list(&[0]).integer(1 << 40).list(&[0, 1]).refused();
}

#[test]
fn trilu() {
    let square = || case("Trilu").x(&[1, 2, 3], &SIX);
    square().gives(&[1, 2, 3], &[3.0, 1.0, 2.0, 0.0, 6.0, 5.0]).differentiable();
    square().int("upper", 0).gives(&[1, 2, 3], &[3.0, 0.0, 0.0, 4.0, 6.0, 0.0]).differentiable();
    square().integer(1).gives(&[1, 2, 3], &[0.0, 1.0, 2.0, 0.0, 0.0, 5.0]);
    // What is cut off was not multiplied: masks of -inf leave no NaN.
    let masked = case("Trilu").x(&[2, 2], &[f32::NEG_INFINITY; 4]).run();
    assert_eq!(masked.as_f32().unwrap(), [f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY]);
    case("Trilu").table(&[2, 2], &[1, 2, 3, 4]).int("upper", 0).gives_ints(&[2, 2], &[1, 0, 3, 4]);
    case("Trilu").some(&[3]).refused();
}

#[test]
fn cum_sum() {
    let along = |axis| on_six("CumSum").integer(axis);
    along(1).gives(&[2, 3], &[3.0, 4.0, 6.0, 4.0, 10.0, 15.0]).differentiable();
    along(0).int("exclusive", 1).gives(&[2, 3], &[0.0, 0.0, 0.0, 3.0, 1.0, 2.0]).differentiable();
    along(-1).int("reverse", 1).gives(&[2, 3], &[6.0, 3.0, 2.0, 15.0, 11.0, 5.0]).differentiable();
    along(1).int("reverse", 1).int("exclusive", 1).gives(&[2, 3], &[3.0, 2.0, 0.0, 11.0, 5.0, 0.0]).differentiable();
    case("CumSum").list(&[1, 2, 3]).integer(0).int("exclusive", 1).gives_ints(&[3], &[0, 1, 3]);
    case("CumSum").list(&[i64::MAX, 1]).integer(0).refused();
    along(2).refused();
}

#[test]
fn tile() {
    on_six("Tile").list(&[1, 2]).gives(&[2, 6], &[3.0, 1.0, 2.0, 3.0, 1.0, 2.0, 4.0, 6.0, 5.0, 4.0, 6.0, 5.0]).differentiable();
    case("Tile").list(&[1, 2]).list(&[3]).gives_ints(&[6], &[1, 2, 1, 2, 1, 2]);
    on_six("Tile").list(&[2]).refused();
    on_six("Tile").list(&[1 << 40, 1 << 40]).refused();
    on_six("Tile").list(&[1, -1]).refused();
}

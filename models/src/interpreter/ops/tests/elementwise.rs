use super::case;

#[test]
fn arithmetic_broadcasts() {
    let (a, b) = ([1.0, 2.0, 3.0, 4.0], [10.0, 20.0]);
    case("Add").x(&[2, 2], &a).x(&[2], &b).gives(&[2, 2], &[11.0, 22.0, 13.0, 24.0]).differentiable();
    case("Sub").x(&[2], &b).x(&[2, 2], &a).gives(&[2, 2], &[9.0, 18.0, 7.0, 16.0]).differentiable();
    case("Mul").x(&[2, 2], &a).x(&[2, 1], &b).gives(&[2, 2], &[10.0, 20.0, 60.0, 80.0]).differentiable();
    case("Div").x(&[2, 2], &a).x(&[], &[2.0]).gives(&[2, 2], &[0.5, 1.0, 1.5, 2.0]).differentiable();
    case("Add").x(&[], &[1.0]).x(&[], &[2.0]).gives(&[], &[3.0]).differentiable();
    case("Add").some(&[2, 3]).some(&[2]).refused();
    case("Mod").some(&[2]).some(&[2]).refused();
}

#[test]
fn powers() {
    case("Pow").x(&[3], &[1.0, -2.0, 3.0]).constant(&[], &[2.0]).gives(&[3], &[1.0, 4.0, 9.0]).differentiable();
    case("Pow").x(&[2], &[-2.0, 3.0]).constant(&[1], &[3.0]).gives(&[2], &[-8.0, 27.0]).differentiable();
    case("Pow").x(&[2], &[4.0, 9.0]).constant(&[], &[0.5]).gives(&[2], &[2.0, 3.0]).differentiable();
    case("Pow").x(&[2], &[4.0, 9.0]).constant(&[], &[-1.5]).gives(&[2], &[0.125, 1.0 / 27.0]).differentiable();
    case("Pow").x(&[2], &[2.0, 3.0]).x(&[2], &[3.0, 2.0]).gives(&[2], &[8.0, 9.0]).differentiable();
    case("Pow").x(&[2], &[2.0, 3.0]).integer(2).gives(&[2], &[4.0, 9.0]).differentiable();
}

#[test]
fn extrema_and_sums_of_many() {
    let max = || case("Max").x(&[3], &[1.0, 5.0, -1.0]).x(&[1], &[0.5]);
    max().gives(&[3], &[1.0, 5.0, 0.5]).differentiable();
    max().x(&[3], &[9.0, 0.0, 0.0]).gives(&[3], &[9.0, 5.0, 0.5]).differentiable();
    case("Min").x(&[3], &[1.0, 5.0, -1.0]).x(&[1], &[0.5]).gives(&[3], &[0.5, 0.5, -1.0]).differentiable();
    case("Sum").x(&[2], &[1.0, 2.0]).x(&[2], &[3.0, 4.0]).x(&[1], &[1.0]).gives(&[2], &[5.0, 7.0]).differentiable();
    case("Mean").x(&[2], &[1.0, 2.0]).x(&[2], &[3.0, 4.0]).gives(&[2], &[2.0, 3.0]).differentiable();
    case("Max").x(&[2], &[1.0, 2.0]).gives(&[2], &[1.0, 2.0]);
}

#[test]
fn functions_of_one_operand() {
    let x = [0.25, 1.0, 2.25];
    for (op, f) in [
        ("Neg", (|v| -v) as fn(f32) -> f32),
        ("Abs", f32::abs),
        ("Sqrt", f32::sqrt),
        ("Exp", f32::exp),
        ("Log", f32::ln),
        ("Reciprocal", f32::recip),
        ("Sin", f32::sin),
        ("Cos", f32::cos),
        ("Sigmoid", |v| 1.0 / (1.0 + (-v).exp())),
        ("Tanh", f32::tanh),
        ("Softplus", |v| v.exp().ln_1p()),
        ("Softsign", |v| v / (1.0 + v.abs())),
        ("Mish", |v| v * v.exp().ln_1p().tanh()),
    ] {
        case(op).x(&[3], &x).gives(&[3], &x.map(f)).differentiable();
    }
    case("Floor").x(&[2], &[1.5, -1.5]).gives(&[2], &[1.0, -2.0]);
    case("Ceil").x(&[2], &[1.5, -1.5]).gives(&[2], &[2.0, -1.0]);
    case("Round").x(&[3], &[0.5, 1.5, -2.7]).gives(&[3], &[0.0, 2.0, -3.0]);
    case("Sign").x(&[3], &[0.5, 0.0, -2.7]).gives(&[3], &[1.0, 0.0, -1.0]);
}

#[test]
fn activations() {
    let x = [-2.0, -0.5, 0.5, 4.0];
    case("Relu").x(&[4], &x).gives(&[4], &[0.0, 0.0, 0.5, 4.0]).differentiable();
    case("LeakyRelu").float("alpha", 0.1).x(&[4], &x).gives(&[4], &[-0.2, -0.05, 0.5, 4.0]).differentiable();
    let elu = |a: f32, g: f32| x.map(|v| g * if v > 0.0 { v } else { a * (v.exp() - 1.0) });
    case("Elu").float("alpha", 0.5).x(&[4], &x).gives(&[4], &elu(0.5, 1.0)).differentiable();
    case("Selu").x(&[4], &x).gives(&[4], &elu(1.673_263_2, 1.050_701)).differentiable();
    case("HardSigmoid").x(&[4], &x).gives(&[4], &[0.1, 0.4, 0.6, 1.0]).differentiable();
    case("HardSwish").x(&[4], &x).gives(&[4], &[-1.0 / 3.0, -0.5 * 2.5 / 6.0, 0.5 * 3.5 / 6.0, 4.0]).differentiable();
    // Values of scipy's erf.
    case("Erf").x(&[2], &[0.5, -1.0]).gives(&[2], &[0.520_499_9, -0.842_700_8]).differentiable();
    case("Gelu").opset(20).x(&[2], &[1.0, -0.5]).gives(&[2], &[0.841_344_7, -0.154_268_8]).differentiable();
    case("Gelu").opset(20).text("approximate", "tanh").x(&[2], &[1.0, -0.5]).gives(&[2], &[0.841_192, -0.154_286]).differentiable();
    case("Gelu").opset(20).text("approximate", "guess").x(&[1], &[1.0]).refused();
    case("PRelu").x(&[2, 2], &[-1.0, 2.0, -3.0, -4.0]).x(&[2], &[0.5, 0.25]).gives(&[2, 2], &[-0.5, 2.0, -1.5, -1.0]).differentiable();
    case("PRelu").some(&[2]).some(&[2, 2]).refused();
}

#[test]
fn activations_stay_finite_far_out() {
    let x = [-200.0, 200.0];
    for op in ["Elu", "Selu", "Softplus", "Sigmoid", "Tanh", "HardSwish", "Gelu", "Mish"] {
        let case = case(op).opset(20).x(&[2], &x);
        assert!(case.run().as_f32().unwrap().iter().all(|v| v.is_finite()), "{op}");
        case.differentiable();
    }
}

#[test]
fn clip_reads_both_forms() {
    let x = [-2.0, 0.5, 9.0];
    case("Clip").x(&[3], &x).constant(&[], &[0.0]).constant(&[], &[6.0]).gives(&[3], &[0.0, 0.5, 6.0]).differentiable();
    case("Clip").x(&[3], &x).left_out().constant(&[], &[6.0]).gives(&[3], &[-2.0, 0.5, 6.0]);
    case("Clip").opset(10).float("min", -1.0).x(&[3], &x).gives(&[3], &[-1.0, 0.5, 9.0]);
    // A bound that is fed, and integers.
    case("Clip").x(&[3], &x).x(&[], &[0.0]).gives(&[3], &[0.0, 0.5, 9.0]);
    case("Clip").list(&[-2, 5, 9]).integer(0).integer(6).gives_ints(&[3], &[0, 5, 6]);
    case("Clip").x(&[3], &x).constant(&[2], &[0.0, 1.0]).refused();
}

#[test]
fn reductions() {
    let x = [1.0, 2.0, 3.0, 4.0, 5.0, 7.0];
    case("ReduceMean").ints("axes", &[1]).x(&[2, 3], &x).gives(&[2, 1], &[2.0, 16.0 / 3.0]).differentiable();
    case("ReduceMean").ints("axes", &[-1]).int("keepdims", 0).x(&[2, 3], &x).gives(&[2], &[2.0, 16.0 / 3.0]).differentiable();
    case("ReduceMean").opset(18).x(&[2, 3], &x).list(&[0]).gives(&[1, 3], &[2.5, 3.5, 5.0]).differentiable();
    case("ReduceSum").x(&[2, 3], &x).list(&[0, 1]).gives(&[1, 1], &[22.0]).differentiable();
    case("ReduceSum").int("keepdims", 0).x(&[2, 3], &x).gives(&[], &[22.0]).differentiable();
    case("ReduceSum").int("noop_with_empty_axes", 1).x(&[2, 3], &x).gives(&[2, 3], &x);
    case("ReduceMax").ints("axes", &[1]).x(&[2, 3], &x).gives(&[2, 1], &[3.0, 7.0]).differentiable();
    case("ReduceMin").ints("axes", &[0]).int("keepdims", 0).x(&[2, 3], &x).gives(&[3], &[1.0, 2.0, 3.0]).differentiable();
    case("ReduceProd").ints("axes", &[1]).x(&[2, 3], &x).gives(&[2, 1], &[6.0, 140.0]).differentiable();
    case("ReduceL2").ints("axes", &[1]).x(&[1, 2], &[3.0, 4.0]).gives(&[1, 1], &[5.0]).differentiable();
    case("ReduceSumSquare").ints("axes", &[1]).x(&[1, 2], &[3.0, 4.0]).gives(&[1, 1], &[25.0]).differentiable();
    case("ReduceProd").int("keepdims", 0).list(&[2, 3, 4]).gives_ints(&[], &[24]);
    case("ReduceMean").ints("axes", &[2]).some(&[2, 3]).refused();
    case("ReduceMean").ints("axes", &[1, -1]).some(&[2, 3]).refused();
}

#[test]
fn integers_are_exact_and_do_not_wrap() {
    case("Add").list(&[1, 2]).list(&[3]).gives_ints(&[2], &[4, 5]);
    case("Div").list(&[7, -7]).integer(2).gives_ints(&[2], &[3, -3]);
    case("Mod").list(&[7, -7]).integer(3).gives_ints(&[2], &[1, 2]);
    case("Mod").int("fmod", 1).list(&[7, -7]).integer(3).gives_ints(&[2], &[1, -1]);
    case("Neg").list(&[3]).gives_ints(&[1], &[-3]);
    case("Mul").list(&[i64::MAX]).integer(2).refused();
    case("Div").list(&[1]).integer(0).refused();
    case("Add").list(&[1]).some(&[1]).refused();
}

use super::{Case, case};

fn ramp(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32).collect()
}

#[test]
fn conv_by_hand() {
    // 0 1 2 / 3 4 5 / 6 7 8 with a diagonal kernel
    let x = ramp(9);
    case("Conv")
        .x(&[1, 1, 3, 3], &x)
        .x(&[1, 1, 2, 2], &[1.0, 0.0, 0.0, 1.0])
        .gives(&[1, 1, 2, 2], &[4.0, 6.0, 10.0, 12.0])
        .differentiable();
    case("Conv").x(&[1, 1, 3, 3], &x).x(&[1, 1, 2, 2], &[1.0, 0.0, 0.0, 1.0]).x(&[1], &[0.5]).gives(&[1, 1, 2, 2], &[4.5, 6.5, 10.5, 12.5]);
    case("Conv")
        .ints("pads", &[1, 1, 1, 1])
        .ints("strides", &[2, 2])
        .x(&[1, 1, 3, 3], &x)
        .x(&[1, 1, 3, 3], &[1.0; 9])
        .gives(&[1, 1, 2, 2], &[8.0, 12.0, 20.0, 24.0]);
    case("Conv").ints("dilations", &[2, 2]).x(&[1, 1, 3, 3], &x).x(&[1, 1, 2, 2], &[1.0; 4]).gives(&[1, 1, 1, 1], &[16.0]);
    // Asymmetric pads: one row above, one column to the right.
    case("Conv")
        .ints("pads", &[1, 0, 0, 1])
        .x(&[1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0])
        .x(&[1, 1, 2, 2], &[1.0; 4])
        .gives(&[1, 1, 2, 2], &[3.0, 2.0, 10.0, 6.0])
        .differentiable();
    // SAME: 2 windows over 3 cells, 1 pad, at the end or at the beginning.
    let same =
        |mode| case("Conv").text("auto_pad", mode).ints("strides", &[2]).x(&[1, 1, 4], &[1.0, 2.0, 3.0, 4.0]).x(&[1, 1, 3], &[1.0; 3]);
    same("SAME_UPPER").gives(&[1, 1, 2], &[6.0, 7.0]).differentiable();
    same("SAME_LOWER").gives(&[1, 1, 2], &[3.0, 9.0]).differentiable();
    same("VALID").gives(&[1, 1, 1], &[6.0]);
}

#[test]
fn conv_gradients() {
    let conv = || case("Conv");
    conv().some(&[2, 3, 5, 4]).some(&[4, 3, 3, 3]).some(&[4]).differentiable();
    conv().ints("pads", &[1, 1, 1, 1]).ints("strides", &[2, 1]).some(&[2, 2, 5, 4]).some(&[3, 2, 3, 3]).some(&[3]).differentiable();
    conv().int("group", 2).some(&[2, 4, 4, 4]).some(&[6, 2, 3, 3]).some(&[6]).differentiable();
    conv().int("group", 3).ints("pads", &[1, 1, 1, 1]).some(&[1, 3, 4, 4]).some(&[3, 1, 3, 3]).differentiable();
    conv().ints("dilations", &[2, 1]).some(&[1, 2, 6, 4]).some(&[2, 2, 2, 2]).differentiable();
    conv().ints("strides", &[2]).ints("pads", &[2, 1]).some(&[2, 3, 7]).some(&[4, 3, 3]).some(&[4]).differentiable();
    conv().int("group", 2).some(&[2, 4, 6]).some(&[4, 2, 2]).differentiable();
    conv().some(&[2, 3, 4, 4]).some(&[5, 3, 1, 1]).some(&[5]).differentiable();
}

#[test]
fn conv_refuses_what_does_not_fit() {
    let conv = |x: &[usize], w: &[usize]| case("Conv").some(x).some(w);
    conv(&[1, 2, 4, 4], &[1, 3, 2, 2]).refused();
    conv(&[1, 2, 4], &[1, 2, 2, 2]).refused();
    conv(&[1, 2, 4, 4], &[1, 2, 5, 5]).refused();
    conv(&[1, 3, 4, 4], &[3, 3, 2, 2]).int("group", 2).refused();
    conv(&[1, 2, 4, 4], &[1, 2, 2, 2]).ints("kernel_shape", &[3, 3]).refused();
    conv(&[1, 2, 4, 4], &[1, 2, 2, 2]).ints("strides", &[0, 1]).refused();
    conv(&[1, 2, 4, 4], &[1, 2, 2, 2]).ints("pads", &[-1, 0, 0, 0]).refused();
    conv(&[1, 2, 4, 4], &[1, 2, 2, 2]).ints("dilations", &[i64::MAX, 1]).refused();
    conv(&[1, 2, 4, 4], &[1, 2, 2, 2]).some(&[2]).refused();
    case("Conv").ints("kernel_shape", &[1, 1, 1]).some(&[1, 1, 1, 1, 1]).some(&[1, 1, 1, 1, 1]).refused();
}

#[test]
fn conv_transpose_by_hand() {
    // Each value lays the kernel down, weighed.
    let of = || case("ConvTranspose").x(&[1, 1, 2], &[1.0, 2.0]).x(&[1, 1, 3], &[1.0, 10.0, 100.0]);
    of().gives(&[1, 1, 4], &[1.0, 12.0, 120.0, 200.0]).differentiable();
    of().x(&[1], &[0.5]).gives(&[1, 1, 4], &[1.5, 12.5, 120.5, 200.5]).differentiable();
    let apart = || of().ints("strides", &[2]);
    apart().gives(&[1, 1, 5], &[1.0, 10.0, 102.0, 20.0, 200.0]);
    apart().ints("pads", &[1, 0]).gives(&[1, 1, 4], &[10.0, 102.0, 20.0, 200.0]);
    apart().ints("output_padding", &[1]).gives(&[1, 1, 6], &[1.0, 10.0, 102.0, 20.0, 200.0, 0.0]).differentiable();
    // What must go goes from the beginning first, or with SAME_UPPER from the end.
    apart().ints("output_shape", &[4]).gives(&[1, 1, 4], &[10.0, 102.0, 20.0, 200.0]);
    apart().ints("output_shape", &[4]).text("auto_pad", "SAME_UPPER").gives(&[1, 1, 4], &[1.0, 10.0, 102.0, 20.0]);
    apart().text("auto_pad", "SAME_UPPER").gives(&[1, 1, 4], &[1.0, 10.0, 102.0, 20.0]);
    apart().text("auto_pad", "SAME_LOWER").gives(&[1, 1, 4], &[10.0, 102.0, 20.0, 200.0]);
    apart().ints("output_shape", &[7]).gives(&[1, 1, 7], &[1.0, 10.0, 102.0, 20.0, 200.0, 0.0, 0.0]);
    of().ints("dilations", &[2]).gives(&[1, 1, 6], &[1.0, 2.0, 10.0, 20.0, 100.0, 200.0]);
}

#[test]
fn conv_transpose_gradients() {
    let of = || case("ConvTranspose");
    of().some(&[2, 3, 4, 3]).some(&[3, 2, 3, 2]).some(&[2]).differentiable();
    of().ints("strides", &[2, 3]).ints("pads", &[1, 0, 1, 1]).some(&[2, 2, 3, 3]).some(&[2, 3, 3, 3]).some(&[3]).differentiable();
    of().int("group", 2).ints("dilations", &[1, 2]).some(&[1, 4, 3, 3]).some(&[4, 2, 2, 2]).some(&[4]).differentiable();
    of().int("group", 3).ints("strides", &[2, 2]).some(&[1, 3, 2, 3]).some(&[3, 1, 2, 2]).differentiable();
    of().some(&[2, 3, 3, 3]).some(&[3, 4, 1, 1]).differentiable();
    // Three axes, where pads are cut off and what is missing is added.
    of().ints("strides", &[2, 1, 2]).ints("pads", &[1, 0, 0, 0, 1, 1]).some(&[1, 2, 2, 3, 2]).some(&[2, 2, 2, 2, 2]).differentiable();
    let more = of().int("group", 2).ints("output_shape", &[6, 4, 4]).some(&[2, 2, 2, 2, 2]).some(&[2, 1, 2, 3, 2]).some(&[2]);
    more.differentiable();
    assert_eq!(more.run().shape, [2, 2, 6, 4, 4]);
}

#[test]
fn conv_transpose_refuses_what_does_not_fit() {
    let of = |x: &[usize], w: &[usize]| case("ConvTranspose").some(x).some(w);
    of(&[1, 2, 4, 4], &[3, 2, 2, 2]).refused();
    of(&[1, 2, 4], &[2, 2, 2, 2]).refused();
    of(&[1, 3, 4, 4], &[3, 1, 2, 2]).int("group", 2).refused();
    of(&[1, 2, 4, 4], &[2, 1, 2, 2]).some(&[2]).refused();
    of(&[1, 2, 4, 4], &[2, 1, 2, 2]).ints("kernel_shape", &[3, 3]).refused();
    of(&[1, 2, 4, 4], &[2, 1, 2, 2]).ints("pads", &[3, 0, 3, 0]).refused();
    of(&[1, 2, 4, 4], &[2, 1, 2, 2]).ints("pads", &[1, 0]).refused();
    of(&[1, 2, 4, 4], &[2, 1, 2, 2]).ints("strides", &[0, 1]).refused();
    of(&[1, 2, 4, 4], &[2, 1, 2, 2]).ints("strides", &[i64::MAX, 1]).refused();
    of(&[1, 2, 4, 4], &[2, 1, 2, 2]).ints("output_shape", &[60_000, 60_000]).refused();
    of(&[1, 2, 4, 4], &[2, 1, 0, 2]).refused();
}

fn pool(op: &'static str, kernel: &[i64]) -> Case {
    case(op).ints("kernel_shape", kernel)
}

#[test]
fn max_pool() {
    let x = [1.0, 5.0, 2.0, 0.0, 3.0, 4.0, -1.0, 8.0, 7.0];
    pool("MaxPool", &[2, 2]).x(&[1, 1, 3, 3], &x).gives(&[1, 1, 2, 2], &[5.0, 5.0, 8.0, 8.0]).differentiable();
    pool("MaxPool", &[2, 2])
        .ints("strides", &[2, 2])
        .int("ceil_mode", 1)
        .x(&[1, 1, 3, 3], &x)
        .gives(&[1, 1, 2, 2], &[5.0, 4.0, 8.0, 7.0])
        .differentiable();
    // A pad never wins, also over negative values.
    pool("MaxPool", &[2]).ints("pads", &[1, 0]).x(&[1, 1, 3], &[-3.0, -2.0, -5.0]).gives(&[1, 1, 3], &[-3.0, -2.0, -2.0]).differentiable();
    pool("MaxPool", &[2]).ints("dilations", &[2]).x(&[1, 1, 4], &[1.0, 2.0, 0.0, 5.0]).gives(&[1, 1, 2], &[1.0, 5.0]);
    pool("MaxPool", &[2, 2])
        .text("auto_pad", "SAME_UPPER")
        .ints("strides", &[2, 2])
        .x(&[1, 1, 3, 3], &x)
        .gives(&[1, 1, 2, 2], &[5.0, 4.0, 8.0, 7.0]);
    // Where each maximum lies, rows first or columns first.
    for (order, places) in [(0, [1, 1, 7, 7]), (1, [3, 3, 5, 5])] {
        let both = pool("MaxPool", &[2, 2]).int("storage_order", order).outputs(2).x(&[1, 1, 3, 3], &x).try_run().unwrap();
        assert_eq!((both[0].as_f32().unwrap(), both[1].as_i64().unwrap()), (&[5.0, 5.0, 8.0, 8.0][..], &places[..]));
    }
    pool("MaxPool", &[2, 2, 2]).some(&[2, 2, 3, 4, 3]).differentiable();
    pool("MaxPool", &[4, 4]).x(&[1, 1, 3, 3], &x).refused();
}

#[test]
fn average_pool() {
    let x = ramp(9);
    pool("AveragePool", &[2, 2]).x(&[1, 1, 3, 3], &x).gives(&[1, 1, 2, 2], &[2.0, 3.0, 5.0, 6.0]).differentiable();
    let padded = |include| {
        pool("AveragePool", &[2, 2])
            .ints("pads", &[1, 1, 0, 0])
            .ints("strides", &[2, 2])
            .int("count_include_pad", include)
            .x(&[1, 1, 3, 3], &x)
    };
    padded(0).gives(&[1, 1, 2, 2], &[0.0, 1.5, 4.5, 6.0]).differentiable();
    padded(1).gives(&[1, 1, 2, 2], &[0.0, 0.75, 2.25, 6.0]).differentiable();
    // The overhang of ceil mode counts for nothing.
    for include in [0, 1] {
        pool("AveragePool", &[2])
            .ints("strides", &[2])
            .int("ceil_mode", 1)
            .int("count_include_pad", include)
            .x(&[1, 1, 3], &[1.0, 2.0, 3.0])
            .gives(&[1, 1, 2], &[1.5, 3.0])
            .differentiable();
    }
    let dilated = pool("AveragePool", &[2]).opset(19).ints("dilations", &[2]).x(&[1, 1, 5], &[1.0, 2.0, 3.0, 4.0, 5.0]);
    dilated.gives(&[1, 1, 3], &[2.0, 3.0, 4.0]).differentiable();
    pool("AveragePool", &[2, 2, 1]).ints("pads", &[0, 1, 0, 1, 0, 0]).some(&[1, 2, 3, 3, 2]).differentiable();
}

#[test]
fn global_pools() {
    let x = [1.0, 2.0, 3.0, 6.0, -1.0, -2.0, -3.0, -4.0];
    case("GlobalAveragePool").x(&[1, 2, 2, 2], &x).gives(&[1, 2, 1, 1], &[3.0, -2.5]).differentiable();
    case("GlobalMaxPool").x(&[1, 2, 2, 2], &x).gives(&[1, 2, 1, 1], &[6.0, -1.0]).differentiable();
    case("GlobalAveragePool").x(&[1, 2, 4], &x).gives(&[1, 2, 1], &[3.0, -2.5]);
    case("GlobalAveragePool").some(&[1, 2]).refused();
}

use super::{Case, case};

fn scaled(x: &[f32], scale: f32) -> Case {
    case("Resize").x(&[1, 1, x.len()], x).left_out().constant(&[3], &[1.0, 1.0, scale])
}

fn sized(x: &[f32], size: i64) -> Case {
    case("Resize").x(&[1, 1, x.len()], x).left_out().left_out().list(&[1, 1, size])
}

impl Case {
    fn line(&self, values: &[f32]) -> &Self {
        self.gives(&[1, 1, values.len()], values)
    }
}

#[test]
fn nearest() {
    let x = [1.0, 2.0, 3.0];
    let of =
        |mode: &str, transformation: &str| sized(&x, 6).text("nearest_mode", mode).text("coordinate_transformation_mode", transformation);
    scaled(&x, 2.0).line(&[1.0, 1.0, 2.0, 2.0, 3.0, 3.0]).differentiable();
    // Positions are 0, 0.5, 1, 1.5, 2, 2.5.
    of("floor", "asymmetric").line(&[1.0, 1.0, 2.0, 2.0, 3.0, 3.0]).differentiable();
    of("ceil", "asymmetric").line(&[1.0, 2.0, 2.0, 3.0, 3.0, 3.0]);
    of("round_prefer_floor", "asymmetric").line(&[1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
    of("round_prefer_ceil", "asymmetric").line(&[1.0, 2.0, 2.0, 3.0, 3.0, 3.0]);
    of("floor", "align_corners").line(&[1.0, 1.0, 1.0, 2.0, 2.0, 3.0]);
    // Before opset 11 an axis that shrinks was rounded up.
    case("Resize").opset(10).x(&[4], &[0.0, 1.0, 2.0, 3.0]).constant(&[1], &[0.6]).gives(&[2], &[0.0, 2.0]);
    case("Upsample").opset(9).text("mode", "nearest").x(&[2], &[1.0, 2.0]).constant(&[1], &[2.0]).gives(&[4], &[1.0, 1.0, 2.0, 2.0]);
}

#[test]
fn linear() {
    let x = [1.0, 2.0, 4.0];
    let of =
        |size: i64, transformation: &str| sized(&x, size).text("mode", "linear").text("coordinate_transformation_mode", transformation);
    scaled(&x, 2.0).text("mode", "linear").line(&[1.0, 1.25, 1.75, 2.5, 3.5, 4.0]).differentiable();
    of(5, "align_corners").line(&[1.0, 1.5, 2.0, 3.0, 4.0]).differentiable();
    of(1, "align_corners").line(&[1.0]);
    of(1, "pytorch_half_pixel").line(&[1.0]);
    of(6, "asymmetric").line(&[1.0, 1.5, 2.0, 3.0, 4.0, 4.0]);
    // The whole axis would be 4.8 long; what is left of it lies in the middle.
    let symmetric = scaled(&x, 1.6).text("mode", "linear").text("coordinate_transformation_mode", "half_pixel_symmetric").run();
    let (first, last) = (symmetric.as_f32().unwrap()[0], symmetric.as_f32().unwrap()[3]);
    assert!((first - (1.0 + 0.0625)).abs() < 1e-6 && (last - (4.0 - 0.125)).abs() < 1e-6, "{symmetric:?}");
    // Two axes at once, by name.
    let both = case("Resize").text("mode", "linear").ints("axes", &[3, 2]).opset(18);
    let both = both.x(&[1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0]).left_out().left_out().list(&[4, 2]);
    both.gives(&[1, 1, 2, 4], &[1.0, 1.25, 1.75, 2.0, 3.0, 3.25, 3.75, 4.0]).differentiable();
}

#[test]
fn cubic_and_antialias() {
    let x = [1.0, 2.0, 4.0, 3.0];
    let cubic = || scaled(&x, 2.0).text("mode", "cubic");
    cubic().differentiable();
    cubic().int("exclude_outside", 1).float("cubic_coeff_a", -0.5).differentiable();
    // At whole positions nothing is between.
    sized(&x, 4).text("mode", "cubic").line(&x);
    // A line stays a line inside.
    let straight: Vec<f32> = (0..8).map(|i| i as f32).collect();
    let halves = scaled(&straight, 2.0).text("mode", "cubic").float("cubic_coeff_a", -0.5).run();
    assert!((halves.as_f32().unwrap()[7] - 3.25).abs() < 1e-5, "{halves:?}");
    // Where an axis shrinks, each element takes its neighbours in: with 1, 3, 3 and 1 eighths.
    let smooth = scaled(&x, 0.5).opset(18).text("mode", "linear").int("antialias", 1);
    smooth.line(&[1.75, 3.25]).differentiable();
    scaled(&x, 0.5).opset(18).text("mode", "cubic").int("antialias", 1).differentiable();
}

#[test]
fn crops_and_ratios() {
    let crop = |begin: f32, end: f32| {
        let roi = [0.0, 0.0, begin, 1.0, 1.0, end];
        let of = case("Resize").text("mode", "linear").text("coordinate_transformation_mode", "tf_crop_and_resize");
        of.float("extrapolation_value", 9.0).x(&[1, 1, 3], &[1.0, 2.0, 4.0]).constant(&[6], &roi).left_out().list(&[1, 1, 3])
    };
    crop(0.5, 1.0).line(&[2.0, 3.0, 4.0]).differentiable();
    crop(0.5, 1.5).line(&[2.0, 4.0, 9.0]).differentiable();
    let kept = |policy: &str| {
        let of = case("Resize").opset(18).ints("axes", &[1, 2]).text("keep_aspect_ratio_policy", policy);
        of.some(&[1, 2, 4]).left_out().left_out().list(&[3, 4]).run().shape
    };
    assert_eq!((kept("not_larger"), kept("not_smaller"), kept("stretch")), (vec![1, 2, 4], vec![1, 3, 6], vec![1, 3, 4]));
}

#[test]
fn resize_refuses_what_does_not_fit() {
    let x = [1.0, 2.0];
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e30, 0.1] {
        scaled(&x, scale).refused();
    }
    sized(&x, 0).refused();
    sized(&x, -1).refused();
    sized(&x, 1 << 40).refused();
    sized(&x, 1 << 27).text("mode", "cubic").refused();
    sized(&x, 4).text("mode", "nearer").refused();
    sized(&x, 4).ints("axes", &[0, 0, 1]).refused();
    sized(&x, 4).ints("axes", &[0]).refused();
    sized(&x, 4).text("coordinate_transformation_mode", "tf_crop_and_resize").refused();
    case("Resize").some(&[1, 2]).left_out().constant(&[2], &[1.0, 2.0]).list(&[1, 4]).refused();
    case("Resize").some(&[1, 2]).refused();
    case("Resize").some(&[1, 0]).left_out().constant(&[2], &[1.0, 2.0]).refused();
}

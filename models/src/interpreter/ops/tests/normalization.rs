use super::{Case, case};

#[test]
fn batch_norm_in_inference() {
    let bn = case("BatchNormalization").float("epsilon", 0.0);
    let bn = bn.x(&[2, 2], &[1.0, 2.0, 3.0, 4.0]).x(&[2], &[1.0, 2.0]).x(&[2], &[0.0, 1.0]).x(&[2], &[1.0, 0.0]).x(&[2], &[4.0, 1.0]);
    bn.gives(&[2, 2], &[0.0, 5.0, 1.0, 9.0]);
    case("BatchNormalization").some(&[2, 3, 2]).some(&[3]).some(&[3]).some(&[3]).x(&[3], &[0.5, 1.0, 2.0]).differentiable();
    case("BatchNormalization").some(&[2, 3]).some(&[2]).some(&[3]).some(&[3]).some(&[3]).refused();
}

#[test]
fn layer_norm() {
    // Mean 2, variance 1: (-1, 1)
    let norm = || case("LayerNormalization").float("epsilon", 0.0).x(&[1, 2], &[1.0, 3.0]);
    norm().x(&[2], &[2.0, 2.0]).x(&[2], &[0.5, 0.0]).gives(&[1, 2], &[-1.5, 2.0]);
    norm().x(&[2], &[2.0, 2.0]).gives(&[1, 2], &[-2.0, 2.0]);
    case("LayerNormalization").some(&[2, 3, 4]).some(&[4]).some(&[4]).differentiable();
    case("LayerNormalization").int("axis", 1).some(&[2, 3, 2]).some(&[3, 2]).some(&[3, 2]).differentiable();
    case("LayerNormalization").some(&[2, 3]).some(&[2]).refused();
    // Mean and inverse deviation beside it.
    let three = norm().x(&[2], &[2.0, 2.0]).outputs(3).try_run().unwrap();
    assert_eq!(
        [&three[1], &three[2]].map(|tensor| (tensor.shape.as_slice(), tensor.as_f32().unwrap()[0])),
        [(&[1, 1][..], 2.0), (&[1, 1][..], 1.0)]
    );
}

#[test]
fn the_root_of_the_mean_square() {
    // Mean square 5.
    let root = 5f32.sqrt();
    let norm = case("RMSNormalization").opset(23).float("epsilon", 0.0).x(&[1, 2], &[1.0, 3.0]).x(&[2], &[2.0, 1.0]);
    norm.gives(&[1, 2], &[2.0 / root, 3.0 / root]).differentiable();
    case("RMSNormalization").opset(23).int("axis", 1).some(&[2, 3, 2]).some(&[3, 2]).differentiable();
    case("RMSNormalization").opset(23).some(&[2, 3]).some(&[3]).some(&[3]).refused();
}

#[test]
fn groups_of_channels() {
    // Two groups of two channels with one cell each: every pair becomes (-1, 1).
    let pairs = || case("GroupNormalization").float("epsilon", 0.0).int("num_groups", 2).x(&[1, 4, 1], &[1.0, 3.0, 10.0, 30.0]);
    pairs().opset(21).x(&[4], &[1.0, 2.0, 3.0, 4.0]).x(&[4], &[0.0, 0.0, 0.5, 0.0]).gives(&[1, 4, 1], &[-1.0, 2.0, -2.5, 4.0]);
    // Before opset 21 scale and bias were those of the groups.
    pairs().opset(18).x(&[2], &[1.0, 2.0]).x(&[2], &[0.0, 0.5]).gives(&[1, 4, 1], &[-1.0, 1.0, -1.5, 2.5]);
    let group = || case("GroupNormalization").opset(21).int("num_groups", 2);
    group().some(&[2, 4, 3]).some(&[4]).some(&[4]).differentiable();
    case("InstanceNormalization").some(&[2, 3, 2, 2]).some(&[3]).some(&[3]).differentiable();
    group().some(&[2, 3, 3]).some(&[3]).some(&[3]).refused();
    group().some(&[2, 4, 3]).some(&[2]).some(&[4]).refused();
    case("GroupNormalization").opset(21).some(&[2, 4, 3]).some(&[4]).some(&[4]).refused();
    case("GroupNormalization").opset(21).int("num_groups", 0).some(&[2, 4, 3]).some(&[4]).some(&[4]).refused();
}

#[test]
fn softmax() {
    let e: Vec<f32> = [1.0f32, 2.0, 3.0].iter().map(|v| v.exp()).collect();
    let total: f32 = e.iter().sum();
    let shares: Vec<f32> = e.iter().map(|v| v / total).collect();
    case("Softmax").x(&[1, 3], &[1.0, 2.0, 3.0]).gives(&[1, 3], &shares).differentiable();
    let logs: Vec<f32> = shares.iter().map(|s| s.ln()).collect();
    case("LogSoftmax").x(&[1, 3], &[1.0, 2.0, 3.0]).gives(&[1, 3], &logs).differentiable();
    case("Softmax").int("axis", 1).some(&[2, 3, 2]).differentiable();
    // Shifting all logits changes nothing, and large ones do not overflow.
    case("Softmax").x(&[1, 3], &[1001.0, 1002.0, 1003.0]).gives(&[1, 3], &shares);
    // Before opset 13 the softmax ran over everything from the axis on.
    case("Softmax").opset(11).x(&[1, 2, 2], &[0.0; 4]).gives(&[1, 2, 2], &[0.25; 4]);
    case("Softmax").x(&[1, 2, 2], &[0.0; 4]).gives(&[1, 2, 2], &[0.5; 4]);
    case("Softmax").int("axis", 3).some(&[2, 2]).refused();
}

#[test]
fn lrn() {
    // One cell of three channels, two around each: itself and the next.
    let of = |size: i64| case("LRN").int("size", size).float("alpha", 2.0).float("beta", 1.0).float("bias", 3.0);
    let x = || of(2).x(&[1, 3, 1], &[1.0, 2.0, -1.0]);
    x().gives(&[1, 3, 1], &[1.0 / 8.0, 2.0 / 8.0, -1.0 / 4.0]).differentiable();
    of(3).x(&[1, 2], &[1.0, 2.0]).gives(&[1, 2], &[3.0 / 19.0, 6.0 / 19.0]);
    of(i64::MAX).x(&[1, 1], &[2.0]).gives(&[1, 1], &[2.0 / 3.0]);
    case("LRN").int("size", 3).some(&[2, 5, 2, 3]).differentiable();
    case("LRN").some(&[1, 2]).refused();
    of(0).some(&[1, 2]).refused();
    of(3).some(&[2]).refused();
}

#[test]
fn dropout_passes_in_inference() {
    let x = [1.0, -2.0, 3.0];
    case("Dropout").x(&[3], &x).gives(&[3], &x);
    case("Dropout").constant_ratio(&x, 0.9).gives(&[3], &x);
    case("Dropout").constant_ratio(&x, 1.5).refused();
    case("Dropout").opset(10).float("ratio", 0.3).x(&[3], &x).gives(&[3], &x);
    // A ratio that is computed cannot be known.
    case("Dropout").x(&[3], &x).x(&[], &[0.5]).refused();
}

impl Case {
    fn constant_ratio(self, x: &[f32], ratio: f32) -> Self {
        self.x(&[x.len()], x).constant(&[], &[ratio])
    }
}

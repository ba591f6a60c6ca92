//! ONNX Runtime reads what `norm` and `head` write, and answers as Burn does.

use sapwood_models::{Features, Forward, Model, Tensor, head, norm::group_norm, zoo};
use sapwood_runtime::{InstallOptions, Runtime, SessionOptions, disable_telemetry, install};

fn near(what: &str, model: &Model, x: &Features) {
    disable_telemetry();
    install(InstallOptions::default(), &mut |_| {}).unwrap();
    let runtime = Runtime::load(None).unwrap();
    let mut session = runtime.session(&model.encode(), SessionOptions::default()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let theirs = session.answer(x).unwrap();
    let ours = Forward::new(model).unwrap().answer(x).unwrap();
    assert_eq!(theirs.shape, ours.shape, "{what}");
    let pairs = || theirs.as_f32().unwrap().iter().zip(ours.as_f32().unwrap());
    let far = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let spread = pairs().map(|(a, _)| a.abs()).fold(0.0, f32::max);
    assert!(far < 1e-4 && spread > 0.01, "{what}: {far} apart, answers up to {spread}");
}

/// The operator from opset 21 on, and its spelling before, in groups chosen and given.
#[test]
fn group_normalization_is_computed_alike() {
    for opset in [13, 17, 18, 20, 21] {
        let mut proto = zoo::mobilenet([3, 24, 24], 4, 3).into_proto();
        proto.opset_import[0].version = Some(opset);
        let model = Model::new(proto).unwrap();
        let x = Tensor::f32([5, 3, 24, 24], (0..5 * 1728).map(|i| (i as f32 * 0.37).sin()).collect()).unwrap().into();
        for groups in [None, Some(1), Some(4)] {
            near(&format!("opset {opset}, {groups:?} groups"), &group_norm(&model, groups).unwrap().0, &x);
        }
    }
}

#[test]
fn a_new_head_is_computed_alike() {
    let x = Tensor::f32([5, 1, 8, 8], (0..320).map(|i| (i as f32 * 0.37).sin()).collect()).unwrap().into();
    near("cnn", &head::replace(&zoo::cnn([1, 8, 8], 10, 1), 3, 2).unwrap().0, &x);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/torch");
    let x: Features = Tensor::f32([5, 20], (0..100).map(|i| (i as f32 * 0.37).sin()).collect()).unwrap().into();
    for exporter in ["legacy", "dynamo"] {
        let model = Model::decode(&std::fs::read(folder.join(format!("mlp-{exporter}.onnx"))).unwrap()).unwrap();
        near(exporter, &head::replace(&model, 3, 2).unwrap().0, &x);
    }
}

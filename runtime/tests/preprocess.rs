//! Preprocessing is one graph with two readers: the interpreter applies it before training, and devices serve it composed with the
//! model in ONNX Runtime. Both must give the model the same numbers.

use std::{ops::ControlFlow, sync::OnceLock};

use sapwood_models::{
    Dataset, Element, Features, Forward, Model, Targets, Tensor, compose,
    metrics::argmax,
    train::{TrainConfig, Trainer},
    zoo::{self, Interpolation},
};
use sapwood_runtime::{InstallOptions, Runtime, SessionOptions, disable_telemetry, install};

fn in_onnxruntime(model: &Model, x: &Features) -> Tensor {
    static RUNTIME: OnceLock<()> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        disable_telemetry();
        install(InstallOptions::default(), &mut |_| {}).unwrap();
    });
    let mut session = Runtime::load(None).unwrap().session(&model.encode(), SessionOptions::default()).unwrap();
    session.answer(x).unwrap()
}

fn floats(shape: &[usize], value: impl Fn(usize) -> f32) -> Tensor {
    Tensor::f32(shape.to_vec(), (0..shape.iter().product()).map(value).collect()).unwrap()
}

fn values(tensor: &Tensor) -> &[f32] {
    tensor.as_f32().unwrap()
}

/// A prefix, the model behind it, and raw features.
fn cases() -> Vec<(&'static str, Model, Model, Tensor)> {
    let pixel = |i: usize| (i * 7919 % 256) as f32;
    let flat = compose(&zoo::rows(&[5, 7], 0.0, 1.0), &zoo::mlp(35, &[12], 4, 3)).unwrap();
    vec![
        ("scale", zoo::scale(&[1, 8, 8], 1.0 / 255.0), zoo::cnn([1, 8, 8], 4, 1), floats(&[24, 1, 8, 8], pixel)),
        (
            "normalize channels",
            zoo::normalize(&[3, 8, 8], &[125.3, 123.0, 113.9], &[63.0, 62.1, 66.7]).unwrap(),
            zoo::cnn([3, 8, 8], 4, 2),
            floats(&[24, 3, 8, 8], pixel),
        ),
        (
            "normalize features",
            zoo::normalize(&[6], &[3.0, -1.0, 0.1, 90.0, 0.0, 1e-3], &[2.0, 0.3, 0.7, 41.0, 1.0, 1e-4]).unwrap(),
            zoo::mlp(6, &[12], 4, 4),
            floats(&[24, 6], |i| (i as f32 * 0.37).sin() * [4.0, 1.0, 0.5, 120.0, 1.0, 2e-3][i % 6]),
        ),
        ("one-hot", zoo::one_hot(&[5], 7).unwrap(), flat, floats(&[24, 5], |i| (i * 5 % 7) as f32)),
        (
            "resize",
            zoo::resize([1, 16, 12], [8, 8], Interpolation::Linear).unwrap(),
            zoo::cnn([1, 8, 8], 4, 5),
            floats(&[24, 1, 16, 12], |i| pixel(i) / 255.0),
        ),
    ]
}

/// What the trainer trained on, its own answers, and those of the composed graph that nodes serve.
#[test]
fn what_nodes_serve_is_what_the_trainer_saw() {
    for (name, prefix, model, raw) in cases() {
        let raw = Features::from(raw);
        // As nodes do it before they train, some rows at a time.
        let prepared = Forward::new(&prefix).unwrap().features(&raw, 7).unwrap();
        // Subtraction, division and codes have one right answer: the same bits. Four weighted neighbours can be summed in any order.
        let served = in_onnxruntime(&prefix, &raw);
        let found = prepared.only().unwrap();
        let apart = values(found).iter().zip(values(&served)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(found.shape == served.shape && apart <= if name == "resize" { 1e-6 } else { 0.0 }, "{name}: {apart}");
        assert_ne!(prepared, raw, "{name} does something");

        let y = Targets::Classes((0..24).map(|i| i % 4).collect());
        let data = Dataset { x: prepared.clone(), y };
        let mut trainer = Trainer::new(&model, TrainConfig { lr: 0.05, batch: 8, ..TrainConfig::default() }).unwrap();
        trainer.train(&data, 3, 1, &mut |_| ControlFlow::Continue(())).unwrap();
        let trained = trainer.export();
        let ours = Forward::new(&trained).unwrap().answer(&prepared).unwrap();
        let joined = compose(&prefix, &trained).unwrap();
        let theirs = in_onnxruntime(&joined, &raw);
        assert_eq!(ours.shape, theirs.shape);
        let apart = values(&ours).iter().zip(values(&theirs)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-4, "{name}: {apart}");
        // And not because nothing matters: without the prefix the answers are others.
        if joined.inputs()[0].shape == trained.inputs()[0].shape && joined.inputs()[0].element == Element::F32 {
            let bare = in_onnxruntime(&trained, &raw);
            assert!(values(&bare).iter().zip(values(&theirs)).any(|(a, b)| (a - b).abs() > 1e-2), "{name}");
        }
        // The trainer's accuracy is that of what is served.
        let classes = values(&theirs).chunks(4).map(|row| argmax(row).unwrap() as i64);
        let right = classes.zip((0..24).map(|i| i % 4)).filter(|(a, b)| a == b).count();
        assert_eq!(trainer.evaluate(&data).unwrap().accuracy, Some(right as f64 / 24.0), "{name}");
    }
}

/// Centres of pixels, computed one by one in double precision.
fn resized(x: &Tensor, to: [usize; 2], interpolation: Interpolation) -> Vec<f32> {
    let [n, c, h, w] = x.shape[..] else { panic!("an image") };
    let at = |image: usize, y: usize, x_: usize| f64::from(values(x)[(image * h + y) * w + x_]);
    let taps = |out: usize, to: usize, from: usize| {
        let place = ((out as f64 + 0.5) * from as f64 / to as f64 - 0.5).clamp(0.0, from as f64 - 1.0);
        match interpolation {
            Interpolation::Linear => (place as usize, (place as usize + 1).min(from - 1), place.fract()),
            // Ties go down.
            Interpolation::Nearest => ((place - 0.5).ceil() as usize, 0, 0.0),
        }
    };
    let mut out = Vec::new();
    for image in 0..n * c {
        for y in 0..to[0] {
            for x_ in 0..to[1] {
                let ((top, bottom, down), (left, right, along)) = (taps(y, to[0], h), taps(x_, to[1], w));
                let upper = at(image, top, left) * (1.0 - along) + at(image, top, right) * along;
                let lower = at(image, bottom, left) * (1.0 - along) + at(image, bottom, right) * along;
                out.push((upper * (1.0 - down) + lower * down) as f32);
            }
        }
    }
    out
}

#[test]
fn onnxruntime_resizes_as_the_graph_says() {
    for (from, to) in [([2, 5, 7], [8, 8]), ([1, 16, 12], [8, 5]), ([3, 8, 8], [28, 30]), ([1, 1, 9], [4, 9])] {
        let x = floats(&[&[2][..], &from].concat(), |i| (i * 7919 % 256) as f32);
        for interpolation in [Interpolation::Linear, Interpolation::Nearest] {
            let found = in_onnxruntime(&zoo::resize(from, to, interpolation).unwrap(), &x.clone().into());
            assert_eq!(found.shape, [2, from[0], to[0], to[1]]);
            let expected = resized(&x, to, interpolation);
            let apart = values(&found).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 2e-3, "{from:?} to {to:?}, {interpolation:?}: {apart}");
        }
        // In front of a model, whose input it makes.
        let model = zoo::cnn([from[0], to[0], to[1]], 3, 1);
        let prefix = zoo::resize(from, to, Interpolation::Linear).unwrap();
        let joined = in_onnxruntime(&compose(&prefix, &model).unwrap(), &x.clone().into());
        let apart = in_onnxruntime(&model, &in_onnxruntime(&prefix, &x.into()).into());
        assert_eq!(joined, apart);
    }
}

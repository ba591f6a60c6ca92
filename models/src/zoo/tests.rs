use std::ops::ControlFlow;

use super::*;
use crate::layout::{Role, parameters};
use crate::onnx::{Dim, Element};
use crate::train::{Optimizer, TrainConfig, TrainError, Trainer};
use crate::{DataFault, Dataset, Features, Forward, Targets};

fn batched(shape: &[usize]) -> Vec<Dim> {
    make::batched("", shape).shape
}

#[test]
fn shapes_and_parameter_counts_are_those_of_the_drawing_board() {
    let mlp = mlp(784, &[256], 10, 0);
    let (layout, _) = parameters(&mlp, &[]).unwrap();
    assert_eq!(layout.length(), 784 * 256 + 256 + 256 * 10 + 10);
    assert_eq!(layout.get("fc1.weight").unwrap().shape, [784, 256]);
    assert_eq!(mlp.inputs()[0].shape, batched(&[784]));
    assert_eq!(mlp.outputs()[0].name, "logits");

    let lenet = lenet(10, 0);
    assert_eq!(parameters(&lenet, &[]).unwrap().0.length(), 206_922);

    let cnn = cnn([1, 8, 8], 10, 0);
    let (layout, _) = parameters(&cnn, &[]).unwrap();
    assert_eq!(layout.length(), 160 + 4640 + (128 * 64 + 64) + 650);
    assert_eq!(cnn.inputs()[0].element, Element::F32);
    assert_eq!(cnn.outputs()[0].shape, batched(&[10]));
}

#[test]
fn weights_follow_the_seed_and_their_bound() {
    let of = |seed| parameters(&cnn([1, 8, 8], 10, seed), &[]).unwrap();
    assert_eq!(of(3).1, of(3).1);
    assert_ne!(of(3).1, of(4).1);
    let (layout, flat) = of(3);
    for parameter in layout.parameters() {
        let values = &flat[parameter.range()];
        if parameter.role == Role::Bias {
            assert!(values.iter().all(|v| *v == 0.0));
            continue;
        }
        let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        let fan_in: usize = match parameter.shape.len() {
            4 => parameter.shape[1..].iter().product(),
            _ => parameter.shape[0],
        };
        let bound = (6.0 / fan_in as f32).sqrt();
        assert!(largest <= bound, "{}: {largest} > {bound}", parameter.name);
        assert!(largest > 0.7 * bound || parameter.name == "fc2.weight", "{}", parameter.name);
    }
}

fn of(length: usize, vocabulary: usize) -> Transformer {
    Transformer { length, vocabulary, width: 16, heads: 4, layers: 2 }
}

/// Every kind trains on what only it is made for, and its export is the graph that was trained.
#[test]
fn every_kind_learns() {
    let even = |i: usize| i.is_multiple_of(2);
    let classes = |n: usize| Targets::Classes((0..n).map(|i| i64::from(even(i))).collect());
    // Stripes one way or the other.
    let image = |i: usize| {
        (0..256).map(move |at| f32::from(u8::from((if even(i) { at / 16 } else { at }) % 4 < 2)) - 0.5 + (i * at % 7) as f32 / 20.0)
    };
    let images = Dataset { x: Tensor::f32([24, 1, 16, 16], (0..24).flat_map(image).collect()).unwrap().into(), y: classes(24) };
    // Whether the first of six steps is large.
    let step = |i: usize, t: usize| if t == 0 && even(i) { 1.0 } else { ((i * 7 + t * 3) % 5) as f32 / 10.0 };
    let steps = (0..40).flat_map(|i| (0..6).flat_map(move |t| [step(i, t), 1.0 - step(i, t)]));
    let sequences = Dataset { x: Tensor::f32([40, 6, 2], steps.collect()).unwrap().into(), y: classes(40) };
    // Whether token 9 comes anywhere, before the padding.
    let token = |i: usize, t: usize| match t {
        _ if t > 2 + i % 4 => 0,
        _ if t == i % 3 && even(i) => 9,
        _ => 1 + (i * 5 + t * 3) % 8,
    };
    let tokens = (0..48).flat_map(|i| (0..7).map(move |t| token(i, t) as f32)).collect();
    let texts = Dataset { x: Tensor::f32([48, 7], tokens).unwrap().into(), y: classes(48) };

    let kinds =
        [(mobilenet([1, 16, 16], 2, 1), images, 8), (lstm([6, 2], 12, 2, 1), sequences, 30), (of(7, 10).build(2, 1).unwrap(), texts, 30)];
    for (model, data, epochs) in kinds {
        assert_eq!(Model::decode(&model.encode()).unwrap(), model);
        let config = TrainConfig { optimizer: Optimizer::adam(), lr: 0.01, batch: 8, ..plain() };
        let mut trainer = Trainer::new(&model, config).unwrap();
        trainer.train(&data, epochs, 1, &mut |_| ControlFlow::Continue(())).unwrap();
        let found = trainer.evaluate(&data).unwrap();
        assert_eq!(found.accuracy, Some(1.0), "{}: {found:?}", model.graph().name());
        let exported = Trainer::new(&trainer.export(), plain()).unwrap().evaluate(&data).unwrap();
        assert!((exported.loss - found.loss).abs() < 1e-6);
    }
}

fn plain() -> TrainConfig {
    TrainConfig { lr: 1.0, batch: 1, ..TrainConfig::default() }
}

/// Where padding stands, nothing of the place is read.
#[test]
fn padding_is_not_read() {
    let mut trainer = Trainer::new(&of(6, 10).build(3, 5).unwrap(), plain()).unwrap();
    let ask = |trainer: &Trainer, tokens: [f32; 6]| {
        Forward::new(&trainer.export()).unwrap().answer(&Tensor::f32([1, 6], tokens.to_vec()).unwrap().into()).unwrap()
    };
    let (short, full) = ([4.0, 7.0, 2.0, 0.0, 0.0, 0.0], [4.0, 7.0, 2.0, 1.0, 1.0, 1.0]);
    let before = [short, full].map(|tokens| ask(&trainer, tokens));
    let mut moved = trainer.parameters();
    let places = trainer.layout().get("places").unwrap().range();
    moved[places.start + 3 * 16..places.end].fill(7.0);
    trainer.set_parameters(&moved).unwrap();
    let after = [short, full].map(|tokens| ask(&trainer, tokens));
    assert_eq!(before[0], after[0]);
    assert_ne!(before[1], after[1]);
    // Padding alone has an answer, too.
    assert!(ask(&trainer, [0.0; 6]).as_f32().unwrap().iter().all(|v| v.is_finite()));
}

/// Two inputs, one of them integers: the sum of the first steps tells the classes, and what is behind them is noise.
#[test]
fn an_lstm_with_lengths_learns_and_does_not_read_the_padding() {
    let steps = |i: usize| 2 + i % 4;
    let value = |i: usize, step: usize| if step < steps(i) { [-0.7, 0.8][i / 4 % 2] } else { ((i * 5 + step * 3) % 9) as f32 - 4.0 };
    let x = (0..64).flat_map(|i| (0..6).map(move |step| value(i, step))).collect();
    let lengths = (0..64).map(|i| steps(i) as f32).collect();
    let x = Tensor::f32([64, 6, 1], x).unwrap();
    let features = [("x".to_owned(), x), ("lengths".to_owned(), Tensor::f32([64], lengths).unwrap())];
    let data = Dataset { x: features.into_iter().collect(), y: Targets::Classes((0..64).map(|i| i / 4 % 2).collect()) };
    let config = TrainConfig { optimizer: Optimizer::adam(), lr: 0.02, batch: 16, ..plain() };
    let mut trainer = Trainer::new(&lstm_with_lengths([6, 1], 8, 2, 1), config).unwrap();
    trainer.train(&data, 20, 1, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(trainer.evaluate(&data).unwrap().accuracy, Some(1.0));

    let answer = |features: &Features| Forward::new(&trainer.export()).unwrap().answer(features).unwrap();
    let mut other = data.x.clone();
    let quiet = data.x.for_input("input").unwrap().as_f32().unwrap().iter().enumerate();
    let quiet = quiet.map(|(at, v)| if at % 6 < steps(at / 6) { *v } else { 0.0 }).collect();
    other = other.replaced("input", Tensor::f32([64, 6, 1], quiet).unwrap()).unwrap();
    assert_eq!(answer(&data.x), answer(&other));

    // One array for two inputs: it could be either.
    let alone: Features = data.x.for_input("input").unwrap().clone().into();
    let refused = trainer.evaluate(&Dataset { x: alone, y: data.y.clone() }).unwrap_err();
    assert!(matches!(refused, TrainError::Data(DataFault::Missing { .. })), "{refused:?}");
}

#[test]
fn heads_that_do_not_divide_the_width_are_refused() {
    for bad in [
        Transformer { heads: 3, ..of(4, 4) },
        Transformer { heads: 0, ..of(4, 4) },
        of(0, 4),
        of(4, 1),
        Transformer { width: 0, ..of(4, 4) },
    ] {
        assert!(matches!(bad.build(2, 1), Err(ModelError::Setting { .. })), "{bad:?}");
    }
}

#[test]
fn tiny_images_lose_their_pools_instead_of_vanishing() {
    let model = cnn([3, 2, 1], 2, 0);
    let pools = model.graph().node.iter().filter(|n| n.op_type() == "MaxPool").count();
    assert_eq!(pools, 0);
    assert_eq!(parameters(&model, &[]).unwrap().0.get("fc1.weight").unwrap().shape, [64, 64]);
}

#[test]
fn files_round_trip_and_scaling_has_nothing_to_train() {
    for model in [mlp(4, &[], 2, 1), cnn([1, 8, 8], 10, 1), lenet(10, 1), scale(&[1, 8, 8], 0.0625)] {
        assert_eq!(Model::decode(&model.encode()).unwrap(), model);
    }
    let refused = parameters(&scale(&[4], 0.5), &[]).unwrap_err();
    assert_eq!(refused, ModelError::NothingToTrain);
}

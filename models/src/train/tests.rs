//! Training as its users see it.

use std::ops::ControlFlow;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Labels, Loss, Metric, Optimizer, Progress, Schedule, Shape, TrainConfig, TrainError, Trainer, UnitGradient};
use crate::onnx::make::{batched, int, ints, node, value};
use crate::onnx::{Model, pb, write_tensor};
use crate::{DataFault, Dataset, Dim, Element, Forward, ModelError, Targets, Tensor, ValueInfo, zoo};

mod apart;
mod graph;
mod units;

fn config(loss: Loss, optimizer: Optimizer, lr: f32, batch: usize) -> TrainConfig {
    TrainConfig { loss, optimizer, lr, batch, ..TrainConfig::default() }
}

fn plain(lr: f32, batch: usize) -> TrainConfig {
    config(Loss::CrossEntropy, Optimizer::sgd(), lr, batch)
}

fn floats(name: &str, values: &[f32]) -> pb::AttributeProto {
    pb::AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(pb::attribute_proto::AttributeType::Floats as i32),
        floats: values.to_vec(),
        ..Default::default()
    }
}

fn go(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn uniform(generator: &mut ChaCha8Rng) -> f32 {
    (generator.next_u32() as f32 / u32::MAX as f32) * 2.0 - 1.0
}

/// Four classes: which corner of the plane a noisy point is in.
fn corners(n: usize, seed: u64) -> Dataset {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for i in 0..n {
        let (right, up) = (i % 2, i / 2 % 2);
        for side in [right, up] {
            x.push(side as f32 * 2.0 - 1.0 + 0.6 * uniform(&mut generator));
        }
        y.push((2 * up + right) as i64);
    }
    Dataset { x: Tensor::f32([n, 2], x).unwrap().into(), y: Targets::Classes(y) }
}

/// Two classes: a bright row or a bright column in a noisy 8 x 8 image.
fn bars(n: usize, seed: u64) -> Dataset {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for i in 0..n {
        let (at, column) = (generator.next_u32() as usize % 8, i % 2);
        for cell in 0..64 {
            let on = if column == 1 { cell % 8 } else { cell / 8 } == at;
            x.push(f32::from(u8::from(on)) + 0.3 * uniform(&mut generator));
        }
        y.push(column as i64);
    }
    Dataset { x: Tensor::f32([n, 1, 8, 8], x).unwrap().into(), y: Targets::Classes(y) }
}

/// A graph from `x` `[batch, features]` to `y`.
fn graph(features: usize, nodes: Vec<pb::NodeProto>, weights: &[(&str, &[usize], &[f32])], outputs: usize) -> Model {
    let tensor = |(name, shape, values): &(&str, &[usize], &[f32])| write_tensor(name, &Tensor::f32(*shape, values.to_vec()).unwrap());
    let graph = pb::GraphProto {
        name: Some("test".into()),
        node: nodes,
        initializer: weights.iter().map(tensor).collect(),
        input: vec![value(&batched("x", &[features]))],
        output: vec![value(&batched("y", &[outputs]))],
        ..Default::default()
    };
    Model::new(pb::ModelProto {
        ir_version: Some(8),
        graph: Some(graph),
        opset_import: vec![pb::OperatorSetIdProto { domain: None, version: Some(17) }],
        ..Default::default()
    })
    .unwrap()
}

/// One linear layer stored `[out, in]`, and the tail of the graph.
fn linear(tail: Vec<pb::NodeProto>, from: &str) -> Model {
    let ratio = node("Constant", "half", &[], &["ratio"], vec![floats("value_floats", &[0.5])]);
    let shape = node("Constant", "tied", &[], &["shape"], vec![ints("value_ints", &[32, 4])]);
    let mut nodes = vec![ratio, shape];
    nodes.push(node("Gemm", "fc", &["x", "w", "b"], &[from], vec![int("transB", 1)]));
    nodes.extend(tail);
    graph(2, nodes, &[("w", &[4, 2], &[0.1, -0.2, 0.3, 0.05, -0.1, 0.2, 0.4, -0.3]), ("b", &[4], &[0.0; 4])], 4)
}

/// Four tokens, an embedding of six, their mean, two classes.
fn text(element: Element) -> Model {
    let mut proto = graph(
        4,
        vec![
            node("Cast", "whole", &["x"], &["t"], vec![int("to", i64::from(Element::I64.to_onnx()))]),
            node("Gather", "embed", &["table", "t"], &["e"], vec![]),
            node("ReduceMean", "mean", &["e"], &["m"], vec![ints("axes", &[1]), int("keepdims", 0)]),
            node("MatMul", "head", &["m", "w"], &["y"], vec![]),
        ],
        &[("table", &[6, 3], &[0.1; 18]), ("w", &[3, 2], &[0.2, -0.1, 0.3, 0.1, -0.2, 0.4])],
        2,
    )
    .into_proto();
    let graph = proto.graph.as_mut().unwrap();
    graph.input = vec![value(&ValueInfo { element, ..batched("x", &[4]) })];
    Model::new(proto).unwrap()
}

/// Whether the token 5 is there.
fn sentences() -> Dataset {
    let x: Vec<f32> = (0..32).flat_map(|i| [1 + i % 4, i % 5, if i % 2 == 0 { 5 } else { 2 }, (i / 3) % 5]).map(|t| t as f32).collect();
    let y = (0..32).map(|i| i64::from(i % 2 == 0)).collect();
    Dataset { x: Tensor::f32([32, 4], x).unwrap().into(), y: Targets::Classes(y) }
}

#[test]
fn tokens_are_read_as_the_model_has_them() {
    for element in [Element::I64, Element::I32, Element::U8, Element::F32] {
        let mut trainer = Trainer::new(&text(element), config(Loss::CrossEntropy, Optimizer::adam(), 0.1, 8)).unwrap();
        trainer.train(&sentences(), 20, 1, &mut go).unwrap();
        assert_eq!(trainer.evaluate(&sentences()).unwrap().accuracy, Some(1.0), "{element:?}");
    }
}

#[test]
fn what_is_no_token_is_refused() {
    let mut trainer = Trainer::new(&text(Element::I64), plain(0.1, 8)).unwrap();
    let before = trainer.parameters();
    let with = |value: f32| {
        let mut data = sentences();
        let crate::TensorData::F32(x) = &mut data.x.only_mut().unwrap().data else { unreachable!() };
        x[6] = value;
        data
    };
    let refused = trainer.train(&with(1.5), 1, 1, &mut go).unwrap_err();
    let expected = DataFault::NotOfType { row: 1, column: 2, value: "1.5".into(), element: Element::I64 };
    assert_eq!(refused, TrainError::Data(expected));
    let refused = trainer.train(&with(6.0), 1, 1, &mut go).unwrap_err();
    assert!(matches!(&refused, TrainError::Model(ModelError::Shape { node, .. }) if node.contains("embed")), "{refused:?}");
    assert_eq!(trainer.parameters(), before);
    // Half floats, or text, are no features.
    let refused = Trainer::new(&text(Element::F16), plain(0.1, 8)).map(drop).unwrap_err();
    assert!(matches!(&refused, ModelError::Input { name, .. } if name == "x"), "{refused:?}");
}

#[test]
fn a_trainer_moves_between_threads() {
    fn send<T: Send>() {}
    send::<Trainer>();
    send::<Forward>();
}

#[test]
fn a_perceptron_learns_and_its_export_answers_the_same() {
    let model = zoo::mlp(2, &[16], 4, 1);
    for optimizer in [Optimizer::Sgd { momentum: 0.9, weight_decay: 0.0, nesterov: true }, Optimizer::adam(), Optimizer::adamw()] {
        let mut trainer = Trainer::new(&model, config(Loss::CrossEntropy, optimizer, 0.02, 16)).unwrap();
        let before = trainer.evaluate(&corners(200, 9)).unwrap();
        let history = trainer.train(&corners(400, 2), 10, 3, &mut go).unwrap();
        let after = trainer.evaluate(&corners(200, 9)).unwrap();
        assert_eq!((history.len(), history[0].examples), (10, 400));
        assert!(history[9].loss < history[0].loss && after.loss < before.loss);
        assert!(after.accuracy.unwrap() > 0.98, "{optimizer:?}: {after:?}");
        assert_eq!(after.correct, Some((after.accuracy.unwrap() * 200.0).round() as usize));

        // The exported graph gives, through the interpreter, what the trainer measured.
        let held_out = corners(200, 9);
        let exported = Forward::new(&trainer.export()).unwrap();
        let answers = exported.answer(&held_out.x).unwrap();
        let Targets::Classes(labels) = &held_out.y else { unreachable!() };
        assert_eq!(crate::metrics::accuracy(answers.as_f32().unwrap(), 4, labels), after.accuracy.unwrap());
    }
}

#[test]
fn a_convolutional_network_learns() {
    let mut trainer = Trainer::new(&zoo::cnn([1, 8, 8], 2, 1), config(Loss::CrossEntropy, Optimizer::adam(), 3e-3, 32)).unwrap();
    trainer.train(&bars(512, 2), 6, 3, &mut go).unwrap();
    let after = trainer.evaluate(&bars(256, 4)).unwrap();
    assert!(after.accuracy.unwrap() > 0.97, "{after:?}");
}

#[test]
fn regression_learns_a_line() {
    let n = 64;
    let mut generator = ChaCha8Rng::seed_from_u64(5);
    let x: Vec<f32> = (0..2 * n).map(|_| uniform(&mut generator)).collect();
    let y = x.chunks(2).map(|p| 0.5 * p[0] - 2.0 * p[1] + 0.25).collect();
    let data = Dataset { x: Tensor::f32([n, 2], x).unwrap().into(), y: Targets::Values(Tensor::f32([n, 1], y).unwrap()) };
    let mut trainer = Trainer::new(&zoo::mlp(2, &[], 1, 1), config(Loss::Mse, Optimizer::sgd(), 0.3, 8)).unwrap();
    trainer.train(&data, 60, 1, &mut go).unwrap();
    let after = trainer.evaluate(&data).unwrap();
    assert!(after.loss < 1e-6 && after.accuracy.is_none(), "{after:?}");
}

/// R85: the same seed and data give the same weights, on one thread or two.
#[test]
fn training_is_the_same_bits_on_any_number_of_threads() {
    let run = |model: &Model, data: &Dataset, threads, seed| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut trainer = Trainer::new(model, config(Loss::CrossEntropy, Optimizer::adam(), 1e-3, 64)).unwrap();
            trainer.train(data, 2, seed, &mut go).unwrap();
            trainer.parameters().iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        })
    };
    for (model, data) in [(zoo::cnn([1, 8, 8], 2, 1), bars(200, 3)), (zoo::mlp(2, &[512, 512], 4, 1), corners(200, 3))] {
        let one = run(&model, &data, 1, 7);
        assert_eq!(one, run(&model, &data, 1, 7));
        assert_eq!(one, run(&model, &data, 2, 7));
        assert_ne!(one, run(&model, &data, 1, 8), "the seed must matter");
    }
}

/// With one full batch and a learning rate of 1 the change of the parameters is the
/// gradient of the loss that `evaluate` measures.
#[test]
fn a_step_follows_the_gradient_of_the_loss() {
    let data = corners(12, 1);
    let model = graph(
        2,
        vec![
            node("Gemm", "a", &["x", "w1", "b1"], &["h"], vec![int("transB", 1)]),
            node("Tanh", "t", &["h"], &["t"], vec![]),
            node("Gemm", "b", &["t", "w2"], &["y"], vec![]),
        ],
        &[
            ("w1", &[3, 2], &[0.5, -0.3, 0.2, 0.8, -0.6, 0.1]),
            ("b1", &[3], &[0.1, -0.1, 0.2]),
            ("w2", &[3, 4], &[0.3, -0.2, 0.5, 0.1, -0.4, 0.6, 0.2, -0.1, 0.7, -0.5, 0.3, 0.2]),
        ],
        4,
    );
    let mut trainer = Trainer::new(&model, plain(1.0, 12)).unwrap();
    let before = trainer.parameters();
    let slopes: Vec<f32> = (0..before.len())
        .map(|i| {
            let mut at = |d: f32| {
                let mut moved = before.clone();
                moved[i] += d;
                trainer.set_parameters(&moved).unwrap();
                trainer.evaluate(&data).unwrap().loss
            };
            ((at(1e-2) - at(-1e-2)) / 2e-2) as f32
        })
        .collect();
    trainer.set_parameters(&before).unwrap();
    trainer.train(&data, 1, 0, &mut go).unwrap();
    for (i, ((old, new), slope)) in before.iter().zip(trainer.parameters()).zip(slopes).enumerate() {
        assert!((old - new - slope).abs() < 1e-4, "parameter {i} moved by {}, its slope is {slope}", old - new);
    }
}

/// Three batches that make one step move the parameters as one batch of all their examples.
#[test]
fn accumulated_batches_are_one_large_batch() {
    let model = zoo::mlp(2, &[5], 4, 3);
    let trained = |batch, accumulate| {
        let config = TrainConfig { accumulate, ..config(Loss::CrossEntropy, Optimizer::adam(), 0.05, batch) };
        let mut trainer = Trainer::new(&model, config).unwrap();
        // The last step has fewer examples, and its last batch fewer still.
        trainer.train(&corners(20, 4), 3, 1, &mut go).unwrap();
        trainer.parameters()
    };
    let (large, small) = (trained(12, 1), trained(4, 3));
    assert!(large.iter().zip(&small).all(|(a, b)| (a - b).abs() < 1e-5), "{large:?} {small:?}");
    assert_ne!(large, trained(4, 1));
}

#[test]
fn a_long_gradient_is_scaled_down_and_a_short_one_is_not() {
    let model = zoo::mlp(2, &[5], 4, 3);
    let moved = |gradient_clip| {
        let config = TrainConfig { gradient_clip, ..plain(1.0, 8) };
        let mut trainer = Trainer::new(&model, config).unwrap();
        let before = trainer.parameters();
        trainer.train(&corners(8, 4), 1, 1, &mut go).unwrap();
        let step: Vec<f32> = trainer.parameters().iter().zip(&before).map(|(a, b)| a - b).collect();
        let length = step.iter().map(|d| d * d).sum::<f32>().sqrt();
        (step, length)
    };
    let (free, length) = moved(None);
    assert_eq!(moved(Some(2.0 * length)).0, free);
    let (clipped, short) = moved(Some(0.25 * length));
    assert!((short / (0.25 * length) - 1.0).abs() < 1e-4, "{short} {length}");
    assert!(free.iter().zip(&clipped).all(|(f, c)| (0.25 * f - c).abs() < 1e-5));
}

#[test]
fn the_learning_rate_follows_its_schedule() {
    let model = zoo::mlp(2, &[5], 4, 3);
    let trained = |schedule, lr| {
        let mut trainer = Trainer::new(&model, TrainConfig { schedule, ..plain(lr, 8) }).unwrap();
        trainer.train(&corners(8, 4), 1, 1, &mut go).unwrap();
        trainer.parameters()
    };
    // One step of one: the warmup takes half of the rate.
    let warm = Schedule { shape: Shape::Cosine, warmup: 1.0 };
    assert_eq!(trained(warm, 0.5), trained(Schedule::default(), 0.25));
}

/// Weighted, the rare class wins where it lost; ignored, its examples move nothing.
#[test]
fn labels_count_as_they_are_told_to() {
    let model = zoo::mlp(1, &[], 2, 1);
    let x = Tensor::f32([10, 1], vec![1.0; 10]).unwrap();
    let data = Dataset { x: x.into(), y: Targets::Classes((0..10).map(|i| i64::from(i < 3)).collect()) };
    let answered = |labels| {
        let mut trainer = Trainer::new(&model, TrainConfig { labels, ..plain(0.5, 10) }).unwrap();
        trainer.train(&data, 60, 1, &mut go).unwrap();
        trainer.evaluate(&data).unwrap()
    };
    assert_eq!(answered(Labels::default()).correct, Some(7));
    assert_eq!(answered(Labels { weights: vec![1.0, 9.0], ..Labels::default() }).correct, Some(3));
    let ignored = answered(Labels { ignore: Some(0), ..Labels::default() });
    assert_eq!((ignored.correct, ignored.examples), (Some(3), 3));
    let three = TrainConfig { labels: Labels { weights: vec![1.0; 3], ..Labels::default() }, ..plain(0.5, 10) };
    assert!(Trainer::new(&model, three).err().unwrap().to_string().contains("2 classes"));
}

#[test]
fn parameters_keep_the_order_and_layout_of_the_file() {
    let flat: Vec<f32> = (0..12).map(|i| i as f32 * 0.1).collect();
    let mut trainer = Trainer::new(&linear(vec![], "y"), plain(0.1, 4)).unwrap();
    assert_eq!(trainer.length(), 12);
    assert_eq!(trainer.layout().parameters()[0].name, "w");
    trainer.set_parameters(&flat).unwrap();
    assert_eq!(trainer.parameters(), flat);
    let (_, exported) = crate::parameters(&trainer.export(), &[]).unwrap();
    assert_eq!(exported, flat);
    assert_eq!(trainer.set_parameters(&flat[1..]), Err(ModelError::Length { expected: 12, got: 11 }));
    let mut bad = flat;
    bad[9] = f32::NAN;
    assert!(matches!(trainer.set_parameters(&bad), Err(ModelError::NotFinite { index: 9, .. })));
}

#[test]
fn a_last_softmax_belongs_to_the_loss() {
    let train = |model: &Model| {
        let mut trainer = Trainer::new(model, plain(0.1, 4)).unwrap();
        trainer.train(&corners(16, 1), 2, 1, &mut go).unwrap();
        trainer.parameters()
    };
    let logits = train(&linear(vec![], "y"));
    for op in ["Softmax", "LogSoftmax"] {
        assert_eq!(train(&linear(vec![node(op, "s", &["z"], &["y"], vec![])], "z")), logits, "{op}");
    }
}

#[test]
fn a_last_sigmoid_belongs_to_the_binary_loss() {
    let data = Dataset { y: Targets::Classes((0..16).map(|i| i % 2).collect()), ..corners(16, 1) };
    let train = |nodes| {
        let model = graph(2, nodes, &[("w", &[2, 1], &[0.1, 0.2]), ("b", &[1], &[0.0])], 1);
        let mut trainer = Trainer::new(&model, config(Loss::Bce, Optimizer::sgd(), 0.5, 4)).unwrap();
        let history = trainer.train(&data, 20, 1, &mut go).unwrap();
        assert!(history[19].accuracy.unwrap() > 0.95, "{history:?}");
        trainer.parameters()
    };
    let gemm = |to: &str| node("Gemm", "fc", &["x", "w", "b"], &[to], vec![]);
    assert_eq!(train(vec![gemm("y")]), train(vec![gemm("z"), node("Sigmoid", "s", &["z"], &["y"], vec![])]));
}

#[test]
fn frozen_parameters_stay_and_leave_the_vector() {
    let frozen = TrainConfig { freeze: vec!["w".into()], ..plain(0.1, 4) };
    let mut trainer = Trainer::new(&linear(vec![], "y"), frozen).unwrap();
    assert_eq!(trainer.length(), 4);
    trainer.train(&corners(16, 1), 1, 1, &mut go).unwrap();
    assert!(trainer.parameters().iter().all(|v| *v != 0.0));
    let (layout, flat) = crate::parameters(&trainer.export(), &[]).unwrap();
    let (_, start) = crate::parameters(&linear(vec![], "y"), &[]).unwrap();
    let w = layout.get("w").unwrap().range();
    assert_eq!(flat[w.clone()], start[w]);
}

#[test]
fn dropout_draws_from_the_seed_alone() {
    let drop = vec![node("Dropout", "d", &["z", "ratio"], &["y"], vec![])];
    let model = linear(drop, "z");
    let train = |seed| {
        let mut trainer = Trainer::new(&model, plain(0.1, 16)).unwrap();
        // One batch, so that the order of the examples hardly matters.
        trainer.train(&corners(16, 1), 1, seed, &mut go).unwrap();
        trainer.parameters()
    };
    assert_eq!(train(1), train(1));
    let undropped = {
        let mut trainer = Trainer::new(&linear(vec![], "y"), plain(0.1, 16)).unwrap();
        trainer.train(&corners(16, 1), 1, 1, &mut go).unwrap();
        trainer.parameters()
    };
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-4);
    assert!(apart(&train(1), &train(2)), "masks depend on the seed");
    assert!(apart(&train(1), &undropped), "masks are applied in training");
    // Evaluation drops nothing.
    let trainer = Trainer::new(&model, plain(0.1, 16)).unwrap();
    let clean = Trainer::new(&linear(vec![], "y"), plain(0.1, 16)).unwrap();
    assert_eq!(trainer.evaluate(&corners(16, 1)).unwrap(), clean.evaluate(&corners(16, 1)).unwrap());
}

fn normalized() -> Model {
    let ones = [1.0, 1.0];
    let zeros = [0.0, 0.0];
    graph(
        2,
        vec![
            node("BatchNormalization", "bn", &["x", "scale", "bias", "mean", "var"], &["n"], vec![]),
            node("Gemm", "fc", &["n", "w"], &["y"], vec![]),
        ],
        &[
            ("scale", &[2], &ones),
            ("bias", &[2], &zeros),
            ("mean", &[2], &zeros),
            ("var", &[2], &ones),
            ("w", &[2, 4], &[0.1, 0.2, 0.3, 0.4, -0.1, -0.2, -0.3, -0.4]),
        ],
        4,
    )
}

#[test]
fn running_statistics_move_by_the_momentum_and_the_unbiased_variance() {
    // Column means 2 and 10; squared deviations 1 + 0 + 1 and 100 + 0 + 100.
    let x = Tensor::f32([3, 2], vec![1.0, 0.0, 2.0, 10.0, 3.0, 20.0]).unwrap();
    let data = Dataset { x: x.into(), y: Targets::Classes(vec![0, 1, 2]) };
    let mut trainer = Trainer::new(&normalized(), plain(0.1, 3)).unwrap();
    trainer.train(&data, 1, 1, &mut go).unwrap();
    let layout = trainer.layout().clone();
    let flat = trainer.parameters();
    let of = |name: &str| flat[layout.get(name).unwrap().range()].to_vec();
    let near = |got: Vec<f32>, want: [f32; 2]| got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-5 * (1.0 + w));
    assert!(near(of("mean"), [0.1 * 2.0, 0.1 * 10.0]), "{:?}", of("mean"));
    assert!(near(of("var"), [0.9 + 0.1 * 1.0, 0.9 + 0.1 * 100.0]), "{:?}", of("var"));
    assert!(of("scale") != [1.0, 1.0]);
}

#[test]
fn frozen_statistics_normalize_and_stay() {
    let frozen = TrainConfig { freeze: vec!["mean".into(), "var".into()], ..plain(0.1, 4) };
    let mut trainer = Trainer::new(&normalized(), frozen).unwrap();
    trainer.train(&corners(16, 1), 1, 1, &mut go).unwrap();
    let (layout, flat) = crate::parameters(&trainer.export(), &[]).unwrap();
    assert_eq!(flat[layout.get("mean").unwrap().range()], [0.0, 0.0]);
    assert_eq!(flat[layout.get("var").unwrap().range()], [1.0, 1.0]);
}

#[test]
fn a_batch_of_one_does_not_break_the_statistics() {
    let mut trainer = Trainer::new(&normalized(), plain(0.1, 4)).unwrap();
    trainer.train(&corners(5, 1), 2, 1, &mut go).unwrap();
    assert!(trainer.parameters().iter().all(|v| v.is_finite()));
}

#[test]
fn divergence_stops_and_names_the_tensor() {
    let mut trainer = Trainer::new(&zoo::mlp(2, &[8], 4, 1), plain(1e30, 4)).unwrap();
    let before = trainer.parameters();
    let stopped = trainer.train(&corners(32, 1), 3, 1, &mut go).unwrap_err();
    let TrainError::Diverged { epoch: 0, tensor, .. } = &stopped else { panic!("{stopped}") };
    assert!(!tensor.is_empty());
    assert!(stopped.to_string().contains(tensor.as_str()));
    assert_eq!(trainer.parameters(), before);
}

#[test]
fn a_loss_that_is_no_number_stops_at_its_step_and_names_the_first_tensor() {
    // Row 13 is so large that its exponential is not finite; what is computed before it is.
    let x = (0..64).map(|i| if i / 2 == 13 { 1e4 } else { (i as f32).sin() }).collect();
    let data = Dataset { x: Tensor::f32([32, 2], x).unwrap().into(), y: corners(32, 1).y };
    let grown = linear(vec![node("Exp", "grown", &["h"], &["y"], vec![])], "h");
    for seed in 0..5 {
        let mut steps = 0;
        let mut watch = |_: &Progress| {
            steps += 1;
            ControlFlow::Continue(())
        };
        let stopped = Trainer::new(&grown, plain(1e-3, 4)).unwrap().train(&data, 3, seed, &mut watch).unwrap_err();
        assert_eq!(stopped, TrainError::Diverged { epoch: 0, step: steps, tensor: "y".into() });
        assert!(stopped.to_string().contains(&format!("epoch 0, step {steps}: `y`")), "{stopped}");
    }
}

#[test]
fn the_watcher_sees_every_step_and_can_stop() {
    let mut trainer = Trainer::new(&linear(vec![], "y"), plain(0.1, 4)).unwrap();
    let mut seen = Vec::new();
    let mut watch = |p: &Progress| {
        seen.push((p.epoch, p.step, p.steps, p.examples));
        if seen.len() == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert_eq!(trainer.train(&corners(10, 1), 2, 1, &mut watch), Err(TrainError::Stopped));
    assert_eq!(seen, [(0, 1, 3, 4), (0, 2, 3, 4), (0, 3, 3, 2), (1, 1, 3, 4)]);
}

#[test]
fn data_that_does_not_fit_is_refused_before_anything_changes() {
    let mut trainer = Trainer::new(&linear(vec![], "y"), plain(0.1, 4)).unwrap();
    let before = trainer.parameters();
    let wide = Dataset { x: Tensor::f32([1, 3], vec![0.0; 3]).unwrap().into(), y: Targets::Classes(vec![0]) };
    assert!(matches!(trainer.train(&wide, 1, 1, &mut go), Err(TrainError::Data(DataFault::Shape { .. }))));
    let label = Dataset { y: Targets::Classes(vec![4]), ..corners(1, 1) };
    assert!(matches!(trainer.train(&label, 1, 1, &mut go), Err(TrainError::Data(DataFault::Label { row: 0, .. }))));
    let values = Dataset { y: Targets::Values(Tensor::f32([1, 4], vec![0.0; 4]).unwrap()), ..corners(1, 1) };
    assert!(matches!(trainer.evaluate(&values), Err(TrainError::Data(DataFault::Targets { .. }))));
    assert_eq!(trainer.parameters(), before);
}

#[test]
fn what_cannot_be_trained_is_named() {
    let refuse = |model: &Model, config| Trainer::new(model, config).err().unwrap();
    let unknown = refuse(&linear(vec![node("Einsum", "odd", &["z"], &["y"], vec![])], "z"), plain(0.1, 4));
    assert!(matches!(&unknown, ModelError::Unsupported { node, op, .. } if op == "Einsum" && node.contains("odd")), "{unknown}");
    // A graph that is tied to one size of batch.
    let tied = refuse(&linear(vec![node("Reshape", "r", &["z", "shape"], &["y"], vec![])], "z"), plain(0.1, 4));
    assert!(matches!(&tied, ModelError::Shape { op, .. } if op == "Reshape"), "{tied}");
    assert!(matches!(refuse(&linear(vec![], "y"), plain(0.0, 4)), ModelError::Setting { name: "lr", .. }));
    assert!(matches!(refuse(&linear(vec![], "y"), plain(0.1, 0)), ModelError::Setting { name: "batch", .. }));
    let sum = linear(vec![node("ReduceSum", "s", &["z"], &["y"], vec![])], "z");
    assert!(matches!(refuse(&sum, plain(0.1, 4)), ModelError::Shape { .. }));
}

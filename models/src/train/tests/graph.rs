//! Losses that their users wrote.

use super::*;

/// From `output` `[batch, classes]` and `target` to `loss`, through nodes.
fn loss(target: &ValueInfo, nodes: Vec<pb::NodeProto>) -> Model {
    let named = |name: &str, shape: Vec<Dim>| ValueInfo { name: name.to_owned(), element: Element::F32, shape };
    let batch = || Dim::Symbol("batch".into());
    let graph = pb::GraphProto {
        name: Some("loss".into()),
        node: nodes,
        input: vec![value(&named("output", vec![batch(), Dim::Symbol("classes".into())])), value(target)],
        output: vec![value(&named("loss", vec![batch()]))],
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

fn labels() -> ValueInfo {
    ValueInfo { name: "target".into(), element: Element::I64, shape: vec![Dim::Symbol("batch".into())] }
}

fn reals(width: usize) -> ValueInfo {
    batched("target", &[width])
}

fn axis(at: i64) -> pb::NodeProto {
    node("Constant", "axis", &[], &["axis"], vec![ints("value_ints", &[at])])
}

fn squared() -> Model {
    loss(
        &reals(4),
        vec![
            node("Sub", "difference", &["output", "target"], &["d"], vec![]),
            node("Mul", "square", &["d", "d"], &["s"], vec![]),
            node("ReduceMean", "mean", &["s"], &["loss"], vec![ints("axes", &[1]), int("keepdims", 0)]),
        ],
    )
}

fn by(graph: Model, config: TrainConfig) -> TrainConfig {
    TrainConfig { loss_graph: Some(graph), ..config }
}

/// Every step as the built-in loss takes it, and the same gradient for each example alone.
#[test]
fn a_loss_that_is_spelled_out_trains_as_the_built_in_one() {
    let values = Targets::Values(Tensor::f32([24, 4], (0..96).map(|i| (i as f32 * 0.3).sin()).collect()).unwrap());
    let cases =
        [(Loss::CrossEntropy, zoo::cross_entropy(), corners(24, 2)), (Loss::Mse, squared(), Dataset { y: values, ..corners(24, 2) })];
    for (built_in, graph, data) in cases {
        let named = config(built_in, Optimizer::adam(), 0.05, 8);
        let model = zoo::mlp(2, &[16], 4, 1);
        let run = |config: TrainConfig| {
            let mut trainer = Trainer::new(&model, config).unwrap();
            trainer.check_units().unwrap();
            let (mut steps, mut gradients) = (Vec::new(), Vec::new());
            let rows = [[0], [5]];
            let each = &mut |unit: UnitGradient<'_>| {
                gradients.extend(unit.gradient.to_vec());
                ControlFlow::Continue(())
            };
            trainer.unit_gradients(&data, rows.iter().map(|row| &row[..]), 1, each).unwrap();
            let mut see = |step: &Progress| {
                steps.push(step.loss);
                ControlFlow::Continue(())
            };
            let epochs = trainer.train(&data, 5, 3, &mut see).unwrap();
            (steps, gradients, epochs, trainer.parameters(), trainer.evaluate(&data).unwrap())
        };
        let (ours, theirs) = (run(by(graph, named.clone())), run(named));
        assert_eq!(ours.0.len(), 15);
        for (step, (a, b)) in ours.0.iter().zip(&theirs.0).enumerate() {
            assert!((a - b).abs() < 1e-5 * b.abs().max(0.1), "{built_in:?}, step {step}: {a} for {b}");
        }
        assert!(ours.0[14] < 0.7 * ours.0[0], "{built_in:?} learned nothing: {:?}", ours.0);
        let near = |a: &[f32], b: &[f32], far: f32| a.iter().zip(b).all(|(a, b)| (a - b).abs() < far);
        assert!(near(&ours.1, &theirs.1, 1e-6), "{built_in:?}: gradients of examples");
        assert!(near(&ours.3, &theirs.3, 1e-3), "{built_in:?}: parameters");
        assert_eq!(ours.4.correct, theirs.4.correct, "{built_in:?}: answers that are right");
        assert_eq!(ours.2.last().unwrap().examples, theirs.2.last().unwrap().examples);
    }
}

#[test]
fn what_is_no_loss_is_refused_by_what_is_wrong() {
    let mean = |keep| node("ReduceMean", "mean", &["output"], &["m"], vec![ints("axes", &[1]), int("keepdims", keep)]);
    let plain_mean = || node("ReduceMean", "mean", &["output"], &["loss"], vec![ints("axes", &[1]), int("keepdims", 0)]);
    let cases: Vec<(&str, &str, Model)> = vec![
        (
            "the batch is normalized",
            "reduces over the examples",
            loss(
                &labels(),
                vec![
                    mean(0),
                    node("ReduceMean", "all", &["m"], &["all"], vec![ints("axes", &[0]), int("keepdims", 1)]),
                    node("Sub", "centred", &["m", "all"], &["loss"], vec![]),
                ],
            ),
        ),
        (
            "one value for all",
            "reduces over the examples",
            loss(&labels(), vec![node("ReduceMean", "all", &["output"], &["loss"], vec![int("keepdims", 0)])]),
        ),
        (
            "no gradient",
            "nothing would be learned",
            loss(
                &labels(),
                vec![
                    axis(1),
                    node("Floor", "floor", &["output"], &["f"], vec![]),
                    node("ReduceSum", "sum", &["f", "axis"], &["loss"], vec![int("keepdims", 0)]),
                ],
            ),
        ),
        (
            "no number",
            "its value is NaN",
            loss(&labels(), vec![mean(0), node("Neg", "minus", &["m"], &["n"], vec![]), node("Log", "log", &["n"], &["loss"], vec![])]),
        ),
        ("targets of the wrong type", "target", loss(&ValueInfo { element: Element::I32, ..labels() }, vec![plain_mean()])),
        ("another input", "reads `output` and `target`", loss(&ValueInfo { name: "label".into(), ..labels() }, vec![plain_mean()])),
    ];
    for (what, word, graph) in cases {
        let Err(ModelError::LossGraph(refused)) = Trainer::new(&zoo::mlp(2, &[], 4, 1), by(graph, plain(0.1, 4))).map(|_| ()) else {
            panic!("{what}")
        };
        assert!(refused.to_string().contains(word), "{what}: {refused}");
    }
    let weighted = TrainConfig { labels: Labels { smoothing: 0.1, ..Labels::default() }, ..by(zoo::cross_entropy(), plain(0.1, 4)) };
    assert!(matches!(Trainer::new(&zoo::mlp(2, &[], 4, 1), weighted), Err(ModelError::Setting { name: "labels", .. })));
    let wide = Trainer::new(&zoo::mlp(2, &[], 3, 1), by(squared(), plain(0.1, 4))).map(|_| ());
    assert!(matches!(wide, Err(ModelError::LossGraph(_))), "{wide:?}");
}

#[test]
fn targets_that_a_loss_does_not_read_are_refused() {
    let mut trainer = Trainer::new(&zoo::mlp(2, &[], 4, 1), by(squared(), plain(0.1, 4))).unwrap();
    let refused = trainer.train(&corners(8, 1), 1, 0, &mut go);
    assert!(matches!(refused, Err(TrainError::Data(DataFault::Targets { found: "class labels", .. }))), "{refused:?}");
    let narrow = Dataset { y: Targets::Values(Tensor::f32([8, 3], vec![0.0; 24]).unwrap()), ..corners(8, 1) };
    assert_eq!(trainer.train(&narrow, 1, 0, &mut go), Err(TrainError::Targets { expected: 4, found: 3 }));
    let mut trainer = Trainer::new(&zoo::mlp(2, &[], 4, 1), by(zoo::cross_entropy(), plain(0.1, 4))).unwrap();
    let refused = trainer.train(&narrow, 1, 0, &mut go);
    assert!(matches!(refused, Err(TrainError::Data(DataFault::Targets { found: "values", .. }))), "{refused:?}");
}

/// What another runtime answered is measured as training measures it.
#[test]
fn answers_are_scored_by_a_graph() {
    let data = corners(300, 3);
    let trainer = Trainer::new(&zoo::mlp(2, &[8], 4, 1), by(zoo::cross_entropy(), plain(0.1, 4))).unwrap();
    let answers = Forward::new(&zoo::mlp(2, &[8], 4, 1)).unwrap().answer(&data.x).unwrap();
    let config = by(zoo::cross_entropy(), plain(0.1, 4));
    let found = crate::train::score(&config, &answers, &data.y).unwrap();
    let own = trainer.evaluate(&data).unwrap();
    assert!((found.loss - own.loss).abs() < 1e-6 && found.correct == own.correct && found.examples == 300, "{found:?} {own:?}");
}

/// A counter for hits and one for the examples of class 0, and precision-like figures of their sums.
fn hits(most: f32) -> Model {
    let named = |name: &str, element, shape| ValueInfo { name: name.to_owned(), element, shape };
    let batch = || Dim::Symbol("batch".into());
    let graph = pb::GraphProto {
        name: Some("hits".into()),
        node: vec![
            axis(1),
            node("ArgMax", "best", &["output"], &["best"], vec![int("axis", 1), int("keepdims", 0)]),
            node("Equal", "hit", &["best", "target"], &["hit"], vec![]),
            node("Constant", "none", &[], &["none"], vec![int("value_int", 0)]),
            node("Equal", "first", &["target", "none"], &["first"], vec![]),
            node("Cast", "as float", &["hit"], &["one"], vec![int("to", 1)]),
            node("Cast", "as float too", &["first"], &["two"], vec![int("to", 1)]),
            node("Unsqueeze", "column", &["one", "axis"], &["a"], vec![]),
            node("Unsqueeze", "column too", &["two", "axis"], &["b"], vec![]),
            node("Concat", "both", &["a", "b"], &["both"], vec![int("axis", 1)]),
            node("Mul", "scaled", &["both", "most"], &["counters"], vec![]),
        ],
        initializer: vec![write_tensor("most", &Tensor::scalar(most))],
        input: vec![
            value(&named("target", Element::I64, vec![batch()])),
            value(&named("output", Element::F32, vec![batch(), Dim::Fixed(4)])),
        ],
        output: vec![value(&named("counters", Element::F32, vec![batch(), Dim::Fixed(2)]))],
        ..Default::default()
    };
    let opset_import = vec![pb::OperatorSetIdProto { domain: None, version: Some(17) }];
    Model::new(pb::ModelProto { ir_version: Some(8), graph: Some(graph), opset_import, ..Default::default() }).unwrap()
}

#[test]
fn a_metric_is_made_of_the_sums_of_counters() {
    let data = corners(300, 3);
    let model = zoo::mlp(2, &[8], 4, 1);
    let answers = Forward::new(&model).unwrap().answer(&data.x).unwrap();
    let own = Trainer::new(&model, plain(0.1, 4)).unwrap().evaluate(&data).unwrap();
    let means = Metric::new(&hits(1.0), None).unwrap().measure(&answers, &data.y).unwrap();
    assert_eq!(means, [own.accuracy.unwrap() as f32, 0.25]);
    let named = |name: &str, shape: Vec<Dim>| ValueInfo { name: name.to_owned(), element: Element::F32, shape };
    let last = pb::GraphProto {
        name: Some("last".into()),
        node: vec![node("Sub", "missed", &["examples", "sums"], &["figures"], vec![])],
        input: vec![value(&named("sums", vec![Dim::Fixed(2)])), value(&named("examples", vec![]))],
        output: vec![value(&named("figures", vec![Dim::Fixed(2)]))],
        ..Default::default()
    };
    let opset_import = vec![pb::OperatorSetIdProto { domain: None, version: Some(17) }];
    let last = Model::new(pb::ModelProto { ir_version: Some(8), graph: Some(last), opset_import, ..Default::default() }).unwrap();
    let figures = Metric::new(&hits(1.0), Some(&last)).unwrap().measure(&answers, &data.y).unwrap();
    assert_eq!(figures, [(300 - own.correct.unwrap()) as f32, 225.0]);

    let beyond = Metric::new(&hits(2.0), None).unwrap().measure(&answers, &data.y).unwrap_err();
    assert!(matches!(&beyond, TrainError::Model(ModelError::Shape { reason, .. }) if reason.contains("not from -1 to 1")), "{beyond}");
    assert!(Metric::new(&zoo::cross_entropy(), None).is_err(), "a loss has no counters");
    assert!(matches!(Metric::new(&hits(1.0), Some(&hits(1.0))), Err(ModelError::Input { reason, .. }) if reason.contains("`sums`")));
    let mut mixing = hits(1.0).into_proto();
    let graph = mixing.graph.as_mut().unwrap();
    graph.node[1].input[0] = "soft".into();
    graph.node.insert(1, node("Softmax", "soft", &["output"], &["soft"], vec![int("axis", 0)]));
    let mixed = Metric::new(&Model::new(mixing).unwrap(), None).unwrap().measure(&answers, &data.y);
    assert!(matches!(mixed, Err(TrainError::Model(ModelError::Mixes { node, .. })) if node.contains("soft")));
}

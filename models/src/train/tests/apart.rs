//! Which graphs keep the examples of a batch apart, and which do not.

use super::*;

/// `x` `[batch, 4]` through `nodes` to `h`, and a layer from there to `y` `[batch, 2]`.
fn through(nodes: Vec<pb::NodeProto>) -> Model {
    let mut all = nodes;
    all.push(node("MatMul", "head", &["h", "head.weight"], &["y"], vec![]));
    let square: Vec<f32> = (0..16).map(|i| (i as f32 * 0.7).sin()).collect();
    let weights: [(&str, &[usize], &[f32]); 6] = [
        ("head.weight", &[4, 2], &[0.3, -0.2, 0.5, 0.1, -0.4, 0.6, 0.2, -0.1]),
        ("square", &[4, 4], &square),
        ("kernel", &[4, 4, 3], &[0.1; 48]),
        ("lstm.w", &[1, 16, 4], &[0.1; 64]),
        ("lstm.r", &[1, 16, 4], &[0.2; 64]),
        ("ones", &[4], &[1.0; 4]),
    ];
    let read: Vec<&str> = all.iter().flat_map(|n| n.input.iter().map(String::as_str)).collect();
    let used: Vec<_> = weights.into_iter().filter(|(name, ..)| read.contains(name)).collect();
    graph(4, all.clone(), &used, 2)
}

fn numbers(name: &str, values: &[i64]) -> pb::NodeProto {
    node("Constant", name, &[], &[name], vec![ints("value_ints", values)])
}

fn number(name: &str, value: i64) -> pb::NodeProto {
    node("Constant", name, &[], &[name], vec![int("value_int", value)])
}

/// The number of examples, as a scalar `n`.
fn examples() -> Vec<pb::NodeProto> {
    vec![
        node("Shape", "shape", &["x"], &["shape"], vec![]),
        number("0", 0),
        node("Gather", "n", &["shape", "0"], &["n"], vec![int("axis", 0)]),
    ]
}

fn with(mut first: Vec<pb::NodeProto>, then: Vec<pb::NodeProto>) -> Vec<pb::NodeProto> {
    first.extend(then);
    first
}

/// What mixes the examples of a batch: its name, the node to blame, a word of the reason, and the graph.
fn hostile() -> Vec<(&'static str, &'static str, &'static str, Vec<pb::NodeProto>)> {
    let transposed = |from: &str, to: &str| node("Transpose", to, &[from], &[to], vec![ints("perm", &[1, 0])]);
    vec![
        (
            "the mean of a batch is taken off",
            "mean",
            "reduces over the examples",
            vec![
                node("ReduceMean", "mean", &["x"], &["mean"], vec![ints("axes", &[0])]),
                node("Sub", "centred", &["x", "mean"], &["h"], vec![]),
            ],
        ),
        (
            "a softmax over the batch",
            "soft",
            "softmax over the examples",
            vec![node("Softmax", "soft", &["x"], &["h"], vec![int("axis", 0)])],
        ),
        (
            "a reshape where a transpose was meant",
            "reshape",
            "cuts examples apart",
            vec![numbers("turned", &[4, -1]), node("Reshape", "reshape", &["x", "turned"], &["t"], vec![]), transposed("t", "h")],
        ),
        (
            "the first example is added to all",
            "first",
            "picks examples of a batch by their place",
            vec![
                number("0", 0),
                node("Gather", "first", &["x", "0"], &["first"], vec![]),
                node("Add", "add", &["x", "first"], &["h"], vec![]),
            ],
        ),
        (
            "the batch is turned around",
            "flip",
            "takes some of the examples",
            vec![
                numbers("from", &[-1]),
                numbers("to", &[i64::MIN]),
                numbers("0", &[0]),
                numbers("-1", &[-1]),
                node("Slice", "flip", &["x", "from", "to", "0", "-1"], &["h"], vec![]),
            ],
        ),
        ("sums along the batch", "sums", "adds up along", vec![number("0", 0), node("CumSum", "sums", &["x", "0"], &["h"], vec![])]),
        (
            "attention between examples",
            "scores",
            "multiplies examples with one another",
            vec![
                transposed("x", "t"),
                node("MatMul", "scores", &["x", "t"], &["scores"], vec![]),
                node("MatMul", "mixed", &["scores", "x"], &["h"], vec![]),
            ],
        ),
        (
            "a matrix of all examples",
            "gram",
            "sums over the examples",
            vec![
                transposed("x", "t"),
                node("MatMul", "gram", &["t", "x"], &["gram"], vec![]),
                node("MatMul", "mixed", &["x", "gram"], &["h"], vec![]),
            ],
        ),
        (
            "an LSTM that takes the batch for the steps",
            "lstm",
            "runs through the examples",
            vec![
                numbers("1", &[1]),
                numbers("1 2", &[1, 2]),
                node("Unsqueeze", "steps", &["x", "1"], &["steps"], vec![]),
                node("LSTM", "lstm", &["steps", "lstm.w", "lstm.r"], &["every"], vec![int("hidden_size", 4)]),
                node("Squeeze", "flat", &["every", "1 2"], &["h"], vec![]),
            ],
        ),
        (
            "the largest of the batch",
            "top",
            "takes the largest of",
            vec![
                numbers("1", &[1]),
                node("TopK", "top", &["x", "1"], &["top", ""], vec![int("axis", 0)]),
                node("Sub", "below", &["x", "top"], &["h"], vec![]),
            ],
        ),
        (
            "answers divided by the number of examples",
            "float",
            "computes with the number of examples",
            with(
                examples(),
                vec![node("Cast", "float", &["n"], &["float"], vec![int("to", 1)]), node("Div", "share", &["x", "float"], &["h"], vec![])],
            ),
        ),
        (
            "answers that depend on an example's place",
            "places",
            "numbers the examples",
            with(
                examples(),
                vec![
                    number("one", 1),
                    numbers("1", &[1]),
                    node("Range", "places", &["0", "n", "one"], &["places"], vec![]),
                    node("Cast", "float", &["places"], &["float"], vec![int("to", 1)]),
                    node("Unsqueeze", "column", &["float", "1"], &["column"], vec![]),
                    node("Add", "add", &["x", "column"], &["h"], vec![]),
                ],
            ),
        ),
        (
            "something happens when there are few examples",
            "few",
            "computes with the number of examples",
            with(
                examples(),
                vec![
                    number("many", 100),
                    numbers("zero", &[0]),
                    node("Min", "few", &["n", "many"], &["few"], vec![]),
                    node("Unsqueeze", "end", &["few", "zero"], &["end"], vec![]),
                    node("Slice", "some", &["x", "zero", "end", "zero"], &["h"], vec![]),
                ],
            ),
        ),
        (
            "something happens for one number of examples",
            "when",
            "computes with the number of examples",
            with(
                examples(),
                vec![
                    number("five", 5),
                    node("Sub", "off", &["n", "five"], &["off"], vec![]),
                    node("Cast", "when", &["off"], &["when"], vec![int("to", 9)]),
                    node("Constant", "none", &[], &["none"], vec![floats("value_floats", &[0.0])]),
                    node("Where", "choice", &["when", "x", "none"], &["h"], vec![]),
                ],
            ),
        ),
        (
            "axes of extent 1 are taken out",
            "squeeze",
            "with one example also the batch's",
            vec![
                numbers("1", &[1]),
                node("Unsqueeze", "wide", &["x", "1"], &["wide"], vec![]),
                node("Squeeze", "squeeze", &["wide"], &["narrow"], vec![]),
                numbers("rows", &[-1, 4]),
                node("Reshape", "again", &["narrow", "rows"], &["h"], vec![]),
            ],
        ),
        (
            "a convolution along the batch",
            "conv",
            "slides over the examples",
            vec![
                numbers("0", &[0]),
                transposed("x", "t"),
                node("Unsqueeze", "line", &["t", "0"], &["line"], vec![]),
                node("Conv", "conv", &["line", "kernel"], &["conv"], vec![ints("pads", &[1, 1])]),
                node("Squeeze", "plane", &["conv", "0"], &["plane"], vec![]),
                transposed("plane", "h"),
            ],
        ),
        (
            "examples that choose other examples",
            "choose",
            "picks examples by what",
            vec![
                node("ArgMin", "least", &["x"], &["least"], vec![int("axis", 1), int("keepdims", 0)]),
                number("2", 2),
                node("Mod", "known", &["least", "2"], &["known"], vec![]),
                number("0", 0),
                node("Mul", "none", &["known", "0"], &["none"], vec![]),
                node("Gather", "choose", &["x", "none"], &["h"], vec![int("axis", 0)]),
            ],
        ),
        (
            "sums of as many copies as there are examples",
            "copies",
            "is not proportional",
            with(
                examples(),
                vec![
                    numbers("1", &[1]),
                    numbers("zero", &[0]),
                    numbers("4", &[4]),
                    node("Unsqueeze", "count", &["n", "zero"], &["count"], vec![]),
                    node("Concat", "square", &["count", "count", "4"], &["copied"], vec![int("axis", 0)]),
                    node("Unsqueeze", "pairs", &["x", "1"], &["pairs"], vec![]),
                    node("Expand", "copies", &["pairs", "copied"], &["copies"], vec![]),
                    node("ReduceMean", "sum", &["copies"], &["h"], vec![ints("axes", &[1]), int("keepdims", 0)]),
                ],
            ),
        ),
        (
            "examples behind one another",
            "twice",
            "lines up examples",
            vec![
                node("Concat", "twice", &["x", "x"], &["twice"], vec![int("axis", 0)]),
                numbers("shape", &[2, -1, 4]),
                node("Reshape", "pairs", &["twice", "shape"], &["pairs"], vec![]),
                node("ReduceMean", "mean", &["pairs"], &["h"], vec![ints("axes", &[0]), int("keepdims", 0)]),
            ],
        ),
    ]
}

/// What keeps examples apart, though it moves the batch about.
fn harmless() -> Vec<(&'static str, Vec<pb::NodeProto>)> {
    vec![
        (
            "other axes are joined with the batch and taken apart again",
            vec![
                numbers("halves", &[-1, 2]),
                numbers("whole", &[-1, 4]),
                node("Reshape", "join", &["x", "halves"], &["joined"], vec![]),
                node("Softmax", "soft", &["joined"], &["soft"], vec![int("axis", 1)]),
                node("Reshape", "part", &["soft", "whole"], &["h"], vec![]),
            ],
        ),
        (
            "all examples are sliced out, as exporters write it",
            vec![numbers("0", &[0]), numbers("end", &[i64::MAX]), node("Slice", "all", &["x", "0", "end", "0"], &["h"], vec![])],
        ),
        (
            "a learned row for each example",
            with(
                examples(),
                vec![
                    numbers("at", &[0]),
                    numbers("4", &[4]),
                    node("Unsqueeze", "count", &["n", "at"], &["count"], vec![]),
                    node("Concat", "rows", &["count", "4"], &["rows"], vec![int("axis", 0)]),
                    node("Expand", "copies", &["ones", "rows"], &["copies"], vec![]),
                    node("Add", "add", &["x", "copies"], &["h"], vec![]),
                ],
            ),
        ),
        (
            "an LSTM over the features, from a state of zeros for each example",
            with(
                examples(),
                vec![
                    numbers("at", &[0]),
                    numbers("1", &[1]),
                    numbers("4", &[4]),
                    node("Unsqueeze", "count", &["n", "at"], &["count"], vec![]),
                    node("Concat", "state", &["1", "count", "4"], &["state"], vec![int("axis", 0)]),
                    node("ConstantOfShape", "zeros", &["state"], &["zeros"], vec![]),
                    node("Unsqueeze", "steps", &["x", "at"], &["steps"], vec![]),
                    node(
                        "LSTM",
                        "lstm",
                        &["steps", "lstm.w", "lstm.r", "", "", "zeros", "zeros"],
                        &["", "last"],
                        vec![int("hidden_size", 4)],
                    ),
                    node("Squeeze", "flat", &["last", "at"], &["h"], vec![]),
                ],
            ),
        ),
        (
            "an example's own scale",
            vec![
                node("ReduceMax", "most", &["x"], &["most"], vec![ints("axes", &[-1])]),
                node("Div", "scaled", &["x", "most"], &["h"], vec![]),
            ],
        ),
    ]
}

#[test]
fn what_mixes_examples_is_refused_by_node_and_reason() {
    for (what, culprit, word, nodes) in hostile() {
        let trainer = Trainer::new(&through(nodes), plain(0.1, 4)).unwrap_or_else(|error| panic!("{what}: {error}"));
        match trainer.check_units() {
            Err(ModelError::Mixes { node, reason, .. }) => {
                assert!(node.contains(culprit) && reason.contains(word), "{what}: {node}: {reason}");
            }
            other => panic!("{what}: {other:?}"),
        }
        let refused = trainer.unit_gradients(&features(), [&[0][..]], 0, &mut |_| panic!("{what}: a gradient"));
        assert!(matches!(refused, Err(TrainError::Model(ModelError::Mixes { .. }))), "{what}: {refused:?}");
    }
}

fn features() -> Dataset {
    let x = (0..12).map(|i| (i as f32 * 0.9).cos()).collect();
    Dataset { x: Tensor::f32([3, 4], x).unwrap().into(), y: Targets::Classes(vec![0, 1, 0]) }
}

#[test]
fn what_only_moves_the_batch_about_passes() {
    for (what, nodes) in harmless() {
        let trainer = Trainer::new(&through(nodes), plain(0.1, 4)).unwrap_or_else(|error| panic!("{what}: {error}"));
        trainer.check_units().unwrap_or_else(|error| panic!("{what}: {error}"));
        let together = trainer.evaluate(&features()).unwrap().loss;
        let mut alone = 0.0;
        let rows = [[0], [1], [2]];
        let each = &mut |unit: UnitGradient<'_>| {
            alone += unit.loss / 3.0;
            ControlFlow::Continue(())
        };
        trainer.unit_gradients(&features(), rows.iter().map(|row| &row[..]), 0, each).unwrap();
        assert!((together - alone).abs() < 1e-6, "{what}: {together} together, {alone} alone");
    }
}

/// The trial on numbers finds by itself what the rules refuse, where numbers can show it.
#[test]
fn a_trial_shows_that_examples_reach_each_other() {
    let shown = ["mean", "soft", "reshape", "first", "flip", "sums", "scores", "gram", "lstm", "top", "conv"];
    for (what, culprit, _, nodes) in hostile() {
        let tried = Trainer::new(&through(nodes.clone()), plain(0.1, 4)).map(|trainer| trainer.try_apart());
        if shown.contains(&culprit) {
            assert!(matches!(tried, Ok(Err(ModelError::Mixes { .. }))), "{what}: {tried:?}");
        }
    }
    for (what, nodes) in harmless() {
        Trainer::new(&through(nodes), plain(0.1, 4)).unwrap().try_apart().unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

/// Tokens are integers, which have no gradient: another example's tokens must leave the answer as it is.
#[test]
fn tokens_of_another_example_are_tried_too() {
    let trainer = |mix: bool| {
        let mut proto = text(Element::I64).into_proto();
        let graph = proto.graph.as_mut().unwrap();
        if mix {
            graph.node[1].output[0] = "own".into();
            graph.node.insert(2, node("ReduceMean", "all", &["own"], &["all"], vec![ints("axes", &[0])]));
            graph.node.insert(3, node("Add", "both", &["own", "all"], &["e"], vec![]));
        }
        let table: Vec<f32> = (0..18).map(|i| (i as f32).sin()).collect();
        graph.initializer[0] = write_tensor("table", &Tensor::f32([6, 3], table).unwrap());
        Trainer::new(&Model::new(proto).unwrap(), plain(0.1, 4)).unwrap()
    };
    assert_eq!(trainer(false).check_units(), Ok(()));
    assert_eq!(trainer(false).try_apart(), Ok(()));
    assert!(matches!(trainer(true).try_apart(), Err(ModelError::Mixes { .. })));
    assert!(matches!(trainer(true).check_units(), Err(ModelError::Mixes { node, .. }) if node.contains("all")));
}

/// All may train under a budget once their running statistics stay.
#[test]
fn models_of_the_zoo_pass() {
    let transformer = zoo::Transformer { length: 6, vocabulary: 9, width: 8, heads: 2, layers: 2 };
    let models = [
        ("mlp", zoo::mlp(6, &[8], 3, 0), &[][..]),
        ("cnn", zoo::cnn([1, 8, 8], 3, 0), &[]),
        ("lenet", zoo::lenet(10, 0), &[]),
        ("mobilenet", zoo::mobilenet([3, 16, 16], 3, 0), &["*.norm.mean", "*.norm.variance"]),
        ("lstm", zoo::lstm([7, 3], 8, 2, 0), &[]),
        ("lstm with lengths", zoo::lstm_with_lengths([7, 3], 8, 2, 0), &[]),
        ("transformer", transformer.build(2, 0).unwrap(), &[]),
    ];
    for (what, model, freeze) in models {
        let freeze = freeze.iter().map(|p| (*p).to_owned()).collect();
        let trainer = Trainer::new(&model, TrainConfig { freeze, ..plain(0.1, 4) }).unwrap_or_else(|error| panic!("{what}: {error}"));
        trainer.check_units().unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

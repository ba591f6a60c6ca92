use crate::ModelError;
use crate::layout::{Role, parameters, trains_when_run, uses, write_back};
use crate::onnx::{Model, constant, make, pb, read_tensor, write_tensor};
use crate::tensor::{Tensor, TensorData};

fn f(name: &str, shape: &[usize]) -> pb::TensorProto {
    let count = shape.iter().product::<usize>();
    let values = (0..count).map(|i| 0.5 + i as f32).collect();
    write_tensor(name, &Tensor::f32(shape, values).unwrap())
}

fn ints(name: &str, values: &[i64]) -> pb::TensorProto {
    write_tensor(name, &Tensor::i64([values.len()], values.to_vec()).unwrap())
}

fn constant_node(name: &str, tensor: pb::TensorProto) -> pb::NodeProto {
    let mut value = pb::AttributeProto { name: Some("value".into()), t: Some(tensor), ..Default::default() };
    value.set_type(pb::attribute_proto::AttributeType::Tensor);
    make::node("Constant", name, &[], &[name], vec![value])
}

fn model(nodes: Vec<pb::NodeProto>, initializers: Vec<pb::TensorProto>) -> Model {
    let last = nodes.last().unwrap().output[0].clone();
    let graph = pb::GraphProto {
        name: Some("g".into()),
        node: nodes,
        initializer: initializers,
        input: vec![make::value(&make::batched("x", &[4]))],
        output: vec![make::value(&make::batched(&last, &[4]))],
        ..Default::default()
    };
    let import = pb::OperatorSetIdProto { domain: None, version: Some(17) };
    Model::new(pb::ModelProto { ir_version: Some(8), graph: Some(graph), opset_import: vec![import], ..Default::default() }).unwrap()
}

fn n(op: &str, inputs: &[&str], output: &str) -> pb::NodeProto {
    make::node(op, "", inputs, &[output], vec![])
}

fn named(model: &Model) -> Vec<(String, Role)> {
    let (layout, _) = parameters(model, &[]).unwrap();
    layout.parameters().iter().map(|p| (p.name.clone(), p.role)).collect()
}

fn norm() -> Model {
    let mut bn = n("BatchNormalization", &["x", "s", "b", "m", "v"], "y");
    bn.output.extend(["rm".into(), "rv".into()]);
    bn.attribute.push(make::int("training_mode", 1));
    let mut drop = n("Dropout", &["y", "ratio", "training"], "z");
    drop.output.push("mask".into());
    let training = Tensor { shape: vec![], data: TensorData::Bool(vec![true]) };
    model(
        vec![bn, drop],
        vec![
            f("v", &[4]),
            f("m", &[4]),
            f("b", &[4]),
            f("s", &[4]),
            write_tensor("ratio", &Tensor::scalar(0.25)),
            write_tensor("training", &training),
        ],
    )
}

#[test]
fn clip_bounds_scalars_and_shapes_are_no_parameters() {
    let found = named(&model(
        vec![
            n("MatMul", &["x", "w"], "a"),
            n("Mul", &["a", "half"], "b"),
            n("Div", &["b", "root2"], "c"),
            n("Clip", &["c", "low", "high"], "d"),
            n("Reshape", &["d", "shape"], "e"),
            n("Add", &["e", "bias"], "f"),
        ],
        vec![
            write_tensor("half", &Tensor::scalar(0.5)),
            write_tensor("root2", &Tensor::scalar(2f32.sqrt())),
            write_tensor("low", &Tensor::scalar(0.0)),
            write_tensor("high", &Tensor::scalar(6.0)),
            ints("shape", &[-1, 4]),
            f("w", &[4, 4]),
            f("bias", &[4]),
        ],
    ));
    assert_eq!(found, [("w".into(), Role::Weight), ("bias".into(), Role::Bias)]);
}

#[test]
fn weights_are_found_behind_transposes_and_in_constant_nodes_after_the_initializers() {
    let found = named(&model(
        vec![
            constant_node("c", f("", &[4])),
            n("Transpose", &["w"], "wt"),
            n("Identity", &["wt"], "wi"),
            n("MatMul", &["x", "wi"], "a"),
            n("Add", &["c", "a"], "b"),
            n("PRelu", &["b", "slope"], "d"),
        ],
        vec![f("slope", &[4]), f("w", &[4, 4])],
    ));
    let want = [("slope", Role::Slope), ("w", Role::Weight), ("c", Role::Bias)];
    assert_eq!(found, want.map(|(name, role)| (name.to_owned(), role)));
}

#[test]
fn masks_and_constants_off_the_data_path_stay() {
    let mask = Tensor::f32([4], vec![0.0, f32::NEG_INFINITY, 0.0, 0.0]).unwrap();
    let found = named(&model(
        vec![n("Add", &["k1", "k2"], "k"), n("Add", &["x", "mask"], "a"), n("Mul", &["a", "k"], "b"), n("MatMul", &["lhs", "b"], "c")],
        vec![write_tensor("mask", &mask), f("k1", &[4]), f("k2", &[4]), f("lhs", &[4, 4])],
    ));
    assert_eq!(found, [("lhs".into(), Role::Weight)]);
}

#[test]
fn a_shared_weight_stands_once_and_its_slots_are_counted() {
    let model = model(vec![n("MatMul", &["x", "w"], "a"), n("MatMul", &["a", "w"], "b")], vec![f("w", &[4, 4])]);
    assert_eq!(named(&model).len(), 1);
    assert_eq!(uses(model.graph()).unwrap()["w"].slots, 2);
}

#[test]
fn running_statistics_are_carried_but_not_trained() {
    let (layout, flat) = parameters(&norm(), &[]).unwrap();
    let roles: Vec<_> = layout.parameters().iter().map(|p| (p.name.as_str(), p.role)).collect();
    assert_eq!(roles, [("v", Role::Statistic), ("m", Role::Statistic), ("b", Role::Bias), ("s", Role::Scale)]);
    assert_eq!((layout.length(), flat.len()), (16, 16));
    assert_eq!(layout.get("b").unwrap().range(), 8..12);
}

#[test]
fn freezing_takes_names_out_and_refuses_what_matches_nothing() {
    let all = norm();
    let frozen = |patterns: &[&str]| {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        parameters(&all, &patterns)
    };
    let (layout, _) = frozen(&["v", "m"]).unwrap();
    assert_eq!(layout.length(), 8);
    assert!(matches!(frozen(&["w*"]), Err(ModelError::Freeze { .. })));
    assert_eq!(frozen(&["*"]).unwrap_err(), ModelError::NothingToTrain);
    assert_eq!(frozen(&["s", "b"]).unwrap_err(), ModelError::NothingToTrain);
}

#[test]
fn writing_back_changes_the_values_and_nothing_else() {
    let before = model(
        vec![constant_node("c", f("", &[4])), n("MatMul", &["x", "w"], "a"), n("Add", &["a", "c"], "b")],
        vec![pb::TensorProto { raw_data: None, float_data: vec![9.0; 16], ..f("w", &[4, 4]) }],
    );
    let (layout, flat) = parameters(&before, &[]).unwrap();
    let changed: Vec<f32> = flat.iter().map(|v| v + 1.0).collect();
    let after = write_back(&before, &layout, &changed).unwrap();
    let w = &after.graph().initializer[0];
    assert!(w.float_data.is_empty(), "typed values are cleared");
    assert_eq!(read_tensor(w).unwrap().as_f32().unwrap(), [10.0; 16]);
    let c = constant(&after.graph().node[0]).unwrap().unwrap();
    assert_eq!(c.as_f32().unwrap(), [1.5, 2.5, 3.5, 4.5]);
    assert_eq!(parameters(&after, &[]).unwrap(), (layout.clone(), changed));
    assert_eq!(write_back(&after, &layout, &flat).unwrap().graph().node, before.graph().node);
}

#[test]
fn writing_back_gives_the_inference_form() {
    let model = norm();
    let (layout, flat) = parameters(&model, &[]).unwrap();
    let out = write_back(&model, &layout, &flat).unwrap();
    let [bn, drop] = &out.graph().node[..] else { panic!("two nodes") };
    assert_eq!((bn.output.len(), bn.attribute.len()), (1, 0));
    assert_eq!((drop.output.len(), drop.input.len()), (1, 2));
    let held = |model: &Model, name: &str| model.graph().initializer.iter().any(|t| t.name() == name);
    assert!(held(&out, "ratio") && held(&model, "training") && !held(&out, "training"));
    assert_eq!((trains_when_run(&model).len(), trains_when_run(&out).len()), (2, 0));
    let mut drops_nothing = model.clone().into_proto();
    let initializers = &mut drops_nothing.graph.as_mut().unwrap().initializer;
    *initializers.iter_mut().find(|t| t.name() == "ratio").unwrap() = write_tensor("ratio", &Tensor::scalar(0.0));
    assert_eq!(trains_when_run(&Model::new(drops_nothing).unwrap()).len(), 1);

    let mut reads_mask = model.into_proto();
    let graph = reads_mask.graph.as_mut().unwrap();
    graph.node.push(n("Not", &["mask"], "nm"));
    let refused = write_back(&Model::new(reads_mask).unwrap(), &layout, &flat).unwrap_err();
    assert!(matches!(refused, ModelError::Unsupported { .. }), "{refused}");
}

#[test]
fn bad_vectors_and_foreign_layouts_are_refused() {
    let model = norm();
    let (layout, mut flat) = parameters(&model, &[]).unwrap();
    assert_eq!(write_back(&model, &layout, &flat[1..]).unwrap_err(), ModelError::Length { expected: 16, got: 15 });
    flat[9] = f32::NAN;
    let refused = write_back(&model, &layout, &flat).unwrap_err();
    assert_eq!(refused, ModelError::NotFinite { tensor: "b".into(), index: 9 });
    let other = crate::zoo::mlp(4, &[], 4, 0);
    let (foreign, flat) = parameters(&other, &[]).unwrap();
    assert!(matches!(write_back(&model, &foreign, &flat), Err(ModelError::Layout { .. })));
}

/// Exporters cut the weights of recurrent layers apart and put them together again.
#[test]
fn weights_are_found_behind_slices_and_joins() {
    let join = |inputs: &[&str], output| make::node("Concat", "", inputs, &[output], vec![make::int("axis", 0)]);
    let nodes = vec![
        n("Slice", &["w", "zero", "two"], "upper"),
        n("Slice", &["w", "two", "four"], "lower"),
        join(&["lower", "upper"], "turned"),
        n("MatMul", &["x", "turned"], "h"),
        join(&["b", "c"], "bias"),
        n("Add", &["h", "bias"], "z"),
        join(&["mask", "c"], "masked"),
        n("Add", &["z", "masked"], "y"),
    ];
    let mask = write_tensor("mask", &Tensor::f32([2], vec![0.0, f32::NEG_INFINITY]).unwrap());
    let limits = [("zero", 0), ("two", 2), ("four", 4)].map(|(name, value)| ints(name, &[value]));
    let model = model(nodes, [vec![f("w", &[4, 4]), f("b", &[2]), f("c", &[2]), mask], limits.to_vec()].concat());
    let mut found = named(&model);
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found, [("b".into(), Role::Bias), ("c".into(), Role::Bias), ("w".into(), Role::Weight)]);
    assert_eq!(uses(model.graph()).unwrap()["w"].slots, 1, "one reader, by two ways");
}

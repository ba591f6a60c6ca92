//! `If`, of which the compiler keeps the branch that a constant chooses.

use crate::onnx::make::{node, value};
use crate::onnx::{Element, Model, ValueInfo, pb, write_tensor};
use crate::{Forward, ModelError, Tensor, TensorData};

fn branch(name: &str, op: &str, with: f32) -> pb::AttributeProto {
    pb::AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(pb::attribute_proto::AttributeType::Graph as i32),
        g: Some(pb::GraphProto {
            name: Some(name.to_owned()),
            initializer: vec![write_tensor("inner", &Tensor::f32([1], vec![with]).unwrap())],
            node: vec![node(op, "inside", &["hidden", "inner"], &["made"], Vec::new())],
            output: vec![declared("made")],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn declared(name: &str) -> pb::ValueInfoProto {
    value(&ValueInfo { name: name.to_owned(), element: Element::F32, shape: Vec::new() })
}

/// -x, then + 1 or · 3 as the first of `which` says, and once more as the second says. Inner names are the same everywhere.
fn two_choices(which: [bool; 2]) -> pb::GraphProto {
    let condition = |name: &str, is: bool| write_tensor(name, &Tensor { shape: vec![], data: TensorData::Bool(vec![is]) });
    let branches = || vec![branch("then_branch", "Add", 1.0), branch("else_branch", "Mul", 3.0)];
    pb::GraphProto {
        name: Some("choices".into()),
        initializer: vec![condition("first", which[0]), condition("second", which[1])],
        node: vec![
            // Read by the branches alone.
            node("Neg", "negated", &["x"], &["hidden"], Vec::new()),
            node("If", "one", &["first"], &["a"], branches()),
            node("If", "other", &["second"], &["b"], branches()),
            node("Sub", "both", &["a", "b"], &["y"], Vec::new()),
        ],
        input: vec![declared("x")],
        output: vec![declared("y"), declared("b")],
        ..Default::default()
    }
}

fn forward(graph: pb::GraphProto) -> Result<Forward, ModelError> {
    let opset_import = vec![pb::OperatorSetIdProto { domain: None, version: Some(17) }];
    Forward::new(&Model::new(pb::ModelProto { ir_version: Some(8), graph: Some(graph), opset_import, ..Default::default() }).unwrap())
}

#[test]
fn the_branch_that_a_constant_chooses_is_computed() {
    for (which, a, b) in [([true, false], -1.0, -6.0), ([false, true], -6.0, -1.0), ([true, true], -1.0, -1.0)] {
        let x = Tensor { shape: vec![], data: TensorData::F32(vec![2.0]) };
        let results = forward(two_choices(which)).unwrap().run(&[("x", x)]).unwrap();
        let values: Vec<f32> = results.iter().map(|(_, tensor)| tensor.as_f32().unwrap()[0]).collect();
        assert_eq!(values, [a - b, b], "{which:?}");
    }
}

#[test]
fn a_condition_that_is_computed_is_refused_by_name() {
    let mut graph = two_choices([true, true]);
    graph.initializer.remove(0);
    graph.input.push(value(&ValueInfo { name: "first".into(), element: Element::Bool, shape: Vec::new() }));
    let refused = forward(graph).err().unwrap();
    assert!(matches!(&refused, ModelError::Unsupported { op, .. } if op == "If") && refused.to_string().contains("`one`"), "{refused}");

    let mut graph = two_choices([true, true]);
    graph.node[1].attribute.truncate(1);
    graph.initializer[0] = write_tensor("first", &Tensor { shape: vec![], data: TensorData::Bool(vec![false]) });
    let refused = forward(graph).err().unwrap();
    assert!(matches!(&refused, ModelError::BadNode { reason, .. } if reason.contains("else_branch")), "{refused}");
}

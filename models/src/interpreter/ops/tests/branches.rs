//! `If`: the compiler keeps the branch that a constant chooses, else a run does.

use burn_backend::AutodiffBackend as _;
use burn_backend::ops::FloatTensorOps as _;
use burn_flex::Flex;

use super::Tape;
use crate::interpreter::Mode;
use crate::interpreter::plan::Plan;
use crate::interpreter::value::{Value, floats, read};
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

fn model(graph: pb::GraphProto) -> Model {
    let opset_import = vec![pb::OperatorSetIdProto { domain: None, version: Some(17) }];
    Model::new(pb::ModelProto { ir_version: Some(8), graph: Some(graph), opset_import, ..Default::default() }).unwrap()
}

fn forward(graph: pb::GraphProto) -> Result<Forward, ModelError> {
    Forward::new(&model(graph))
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

/// The first choice is left to whoever runs it.
fn chosen_late(second: bool) -> pb::GraphProto {
    let mut graph = two_choices([true, second]);
    graph.initializer.remove(0);
    graph.input.push(value(&ValueInfo { name: "first".into(), element: Element::Bool, shape: Vec::new() }));
    graph
}

fn truth(values: &[bool]) -> Tensor {
    Tensor { shape: if values.len() == 1 { vec![] } else { vec![values.len()] }, data: TensorData::Bool(values.to_vec()) }
}

#[test]
fn the_branch_that_a_run_chooses_is_computed() {
    let forward = forward(chosen_late(false)).unwrap();
    let run = |first: &[bool]| forward.run(&[("x", Tensor::scalar(2.0)), ("first", truth(first))]);
    for (first, a) in [(true, -1.0), (false, -6.0)] {
        let results = run(&[first]).unwrap();
        let values: Vec<f32> = results.iter().map(|(_, tensor)| tensor.as_f32().unwrap()[0]).collect();
        assert_eq!(values, [a + 6.0, -6.0], "{first}");
    }
    let refused = run(&[true, false]).unwrap_err();
    assert!(matches!(&refused, ModelError::BadNode { node, .. } if node.contains("`one`")), "{refused}");
}

#[test]
fn a_gradient_flows_through_the_branch_that_ran() {
    let model = model(chosen_late(true));
    let plan = Plan::<Tape>::compile(&model, &[], &["a".into()]).unwrap();
    for (first, slope) in [(true, -1.0), (false, -3.0)] {
        let x = Tape::float_set_require_grad(floats::<Tape>(vec![2.0], &[1]), true);
        let inputs = vec![Value::Float(x.clone()), Value::from_tensor(truth(&[first])).unwrap()];
        let outcome = plan.run(inputs, &[], Mode::Inference, &mut |_, _| ()).unwrap();
        let Some(Value::Float(y)) = outcome.outputs.into_iter().next() else { panic!("an integer") };
        let gradient = Tape::grad_remove(&x, &mut Tape::backward(y)).unwrap();
        assert_eq!(read::<Flex>(gradient).unwrap(), [slope]);
    }
}

#[test]
fn what_a_branch_cannot_do_is_named_within_it() {
    // The inner node is named, both where it is refused and where it fails.
    let mut graph = chosen_late(true);
    let attribute = graph.node[1].attribute[0].g.as_mut().unwrap();
    attribute.node[0].op_type = Some("Einsum".into());
    let refused = forward(graph).err().unwrap();
    assert!(matches!(&refused, ModelError::Unsupported { node, op, .. } if op == "Einsum" && node.contains("`inside`")), "{refused}");

    let mut graph = chosen_late(true);
    let attribute = graph.node[1].attribute[0].g.as_mut().unwrap();
    attribute.initializer[0] = write_tensor("inner", &Tensor::f32([3], vec![1.0; 3]).unwrap());
    let x = Tensor::f32([2], vec![1.0; 2]).unwrap();
    let failed = forward(graph).unwrap().run(&[("x", x), ("first", truth(&[true]))]).unwrap_err();
    assert!(matches!(&failed, ModelError::Shape { node, .. } if node.contains("`inside`")), "{failed}");

    let mut graph = two_choices([true, true]);
    graph.node[1].attribute.truncate(1);
    let refused = forward(graph).err().unwrap();
    assert!(matches!(&refused, ModelError::BadNode { reason, .. } if reason.contains("else_branch")), "{refused}");
}

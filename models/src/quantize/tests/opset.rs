//! Graphs of opset 11 and 12.

use super::*;

fn old(nodes: Vec<pb::NodeProto>, opset: i64) -> Model {
    let mut proto = model(&[2, 4], nodes, &[("w", &[4, 4])], "y").into_proto();
    proto.opset_import[0].version = Some(opset);
    Model::new(proto).unwrap()
}

#[test]
fn old_graphs_are_raised_and_compute_the_same() {
    let nodes = || {
        vec![
            n("Unsqueeze", &["input"], "u", vec![make::ints("axes", &[1])]),
            n("Squeeze", &["u"], "s", vec![make::ints("axes", &[1])]),
            n("MatMul", &["s", "w"], "m", vec![]),
            n("Softmax", &["m"], "p", vec![make::int("axis", -1)]),
            n("ReduceSum", &["p"], "y", vec![make::ints("axes", &[2]), make::int("keepdims", 0)]),
        ]
    };
    let x = noise(&[3, 2, 4], 5);
    for opset in [11, 12] {
        let model = old(nodes(), opset);
        let raised = prepare(&model).unwrap();
        assert_eq!((raised.opset(), run(&raised, &x)), (13, run(&model, &x)));
        let ranges = ranges(&model, &x.clone().into(), Calibrator::MinMax).unwrap();
        assert!(quantize(&model, &ranges, Target::X86_64).unwrap().quantized_nodes > 0);
    }
    let model = old(nodes(), 13).into_proto();
    assert!(Model::new(model).is_ok_and(|model| prepare(&model).unwrap().opset() == 13));
}

#[test]
fn what_would_mean_something_else_stays_and_is_refused() {
    let refused = |op: &str, attributes: Vec<pb::AttributeProto>, opset: i64| {
        let model = old(vec![n("MatMul", &["input", "w"], "m", vec![]), n(op, &["m"], "y", attributes)], opset);
        assert_eq!(prepare(&model).unwrap().opset(), opset, "{op}");
        let ranges = ranges(&model, &noise(&[3, 2, 4], 5).into(), Calibrator::MinMax).unwrap();
        let refused = quantize(&model, &ranges, Target::X86_64).unwrap_err();
        assert!(matches!(refused, ModelError::Opset { found, oldest: 13, .. } if found == opset), "{op}: {refused}");
    };
    // The last two axes together.
    refused("Softmax", vec![make::int("axis", 1)], 11);
    refused("LogSoftmax", vec![], 12);
    refused("Relu", vec![], 10);
}

use std::fs;

use super::*;
use crate::onnx::{make, write_tensor};

/// Numbers from `first` on.
fn counted(name: &str, shape: &[usize], first: usize) -> pb::TensorProto {
    let count: usize = shape.iter().product();
    write_tensor(name, &Tensor::f32(shape, (first..first + count).map(|v| v as f32).collect()).unwrap())
}

fn graph(node: Vec<pb::NodeProto>, initializer: Vec<pb::TensorProto>, shape: &[usize]) -> Model {
    let mut output = make::value(&make::batched(node.last().unwrap().output.last().unwrap(), &[]));
    output.r#type = None;
    let graph = pb::GraphProto {
        name: Some("g".into()),
        node,
        initializer,
        input: vec![make::value(&make::batched("x", shape))],
        output: vec![output],
        ..Default::default()
    };
    let import = pb::OperatorSetIdProto { domain: None, version: Some(17) };
    Model::new(pb::ModelProto { ir_version: Some(8), graph: Some(graph), opset_import: vec![import], ..Default::default() }).unwrap()
}

fn node(op: &str, name: &str, inputs: &[&str], output: &str) -> pb::NodeProto {
    make::node(op, name, inputs, &[output], vec![])
}

fn names(found: &StateDict) -> Vec<&str> {
    found.tensors.keys().map(String::as_str).collect()
}

/// What was exported to be trained has all its names: nothing is renamed, and no value moves.
#[test]
fn training_exports_keep_their_names() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/torch");
    for name in ["mlp", "cnn", "lstm", "gru", "transformer", "text"] {
        for exporter in ["legacy", "dynamo"] {
            let model = Model::decode(&fs::read(folder.join(format!("{name}-{exporter}.onnx"))).unwrap()).unwrap();
            let found = state_dict(&model).unwrap();
            let stored: BTreeMap<String, Tensor> =
                model.graph().initializer.iter().map(|t| (t.name().to_owned(), read_tensor(t).unwrap())).collect();
            assert_eq!(found.tensors, stored, "{name}-{exporter}");
            assert_eq!(found, StateDict { tensors: stored, ..StateDict::default() }, "{name}-{exporter}");
        }
    }
}

/// An encoder as the exporters write it for inference: linear layers without names and transposed, and one tensor for two that were equal.
#[test]
fn linear_layers_and_merged_tensors_get_their_names_back() {
    let nodes = vec![
        node("MatMul", "/enc/attn/MatMul", &["x", "onnx::MatMul_7"], "a"),
        node("Add", "/enc/attn/Add", &["enc.attn.in_proj_bias", "a"], "b"),
        node("LayerNormalization", "/enc/norms/norms.0/LayerNormalization", &["b", "enc.norms.0.weight", "enc.norms.0.bias"], "c"),
        node("MatMul", "/enc/lin/MatMul", &["c", "onnx::MatMul_8"], "d"),
        node("LayerNormalization", "/enc/norms/norms.1/LayerNormalization", &["d", "enc.norms.0.weight", "enc.norms.0.bias"], "e"),
        node("Gemm", "/enc/out/Gemm", &["e", "enc.out.proj.weight", "enc.norms.0.bias"], "y"),
    ];
    let held = vec![
        counted("onnx::MatMul_7", &[2, 3], 0),
        counted("enc.attn.in_proj_bias", &[3], 10),
        counted("enc.norms.0.weight", &[3], 20),
        counted("enc.norms.0.bias", &[3], 30),
        counted("onnx::MatMul_8", &[3, 3], 40),
        counted("enc.out.proj.weight", &[3, 3], 50),
    ];
    let found = state_dict(&graph(nodes, held, &[2])).unwrap();
    assert_eq!(
        names(&found),
        [
            "enc.attn.in_proj_bias",
            "enc.attn.in_proj_weight",
            "enc.lin.weight",
            "enc.norms.0.bias",
            "enc.norms.0.weight",
            "enc.norms.1.bias",
            "enc.norms.1.weight",
            "enc.out.proj.bias",
            "enc.out.proj.weight",
        ]
    );
    let weight = &found.tensors["enc.attn.in_proj_weight"];
    assert_eq!((weight.shape.clone(), weight.as_f32().unwrap().to_vec()), (vec![3, 2], vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0]));
    assert_eq!(found.tensors["enc.norms.1.bias"], found.tensors["enc.norms.0.bias"]);
    assert_eq!((found.renamed.len(), found.unnamed.len(), found.warnings.len()), (5, 0, 0), "{found:?}");
}

#[test]
fn recurrent_layers_are_counted_by_module() {
    let lstm = |name: &str, x: &str, at: usize, y: &str| {
        let held = ["W", "R", "B"].map(|what| format!("onnx::LSTM_{at}{what}"));
        let attributes = vec![make::int("hidden_size", 2)];
        make::node("LSTM", name, &[x, &held[0], &held[1], &held[2]], &["", y], attributes)
    };
    let held = |at: usize| {
        [("W", &[1, 8, 2][..]), ("R", &[1, 8, 2]), ("B", &[1, 16])]
            .map(|(what, shape)| counted(&format!("onnx::LSTM_{at}{what}"), shape, 100 * at))
    };
    let nodes = vec![
        node("Transpose", "t", &["x"], "x0"),
        lstm("/a/LSTM", "x0", 1, "h0"),
        lstm("/a/LSTM_1", "h0", 2, "h1"),
        lstm("/b/LSTM", "h1", 3, "h2"),
    ];
    let found = state_dict(&graph(nodes, (1..4).flat_map(held).collect(), &[3, 2])).unwrap();
    let layers: BTreeSet<&str> =
        names(&found).into_iter().filter_map(|name| name.strip_prefix("a.weight_ih").or(name.strip_prefix("b.weight_ih"))).collect();
    assert_eq!((found.tensors.len(), layers.into_iter().collect::<Vec<_>>()), (12, vec!["_l0", "_l1"]));
    // Gate 1 of PyTorch, forget, is gate 2 of ONNX: rows 4 and 5 of two values.
    assert_eq!(found.tensors["a.weight_ih_l1"].as_f32().unwrap()[4..8], [208.0, 209.0, 210.0, 211.0]);
    assert!(found.tensors.contains_key("b.bias_hh_l0") && found.unnamed.is_empty(), "{found:?}");
}

fn convolution(norm: bool, bias: &[f32]) -> Model {
    let mut nodes = vec![node("Conv", "conv", &["x", "0.weight", "val_5"], "c")];
    let mut held = vec![counted("0.weight", &[2, 1, 1, 1], 1), write_tensor("val_5", &Tensor::f32([2], bias.to_vec()).unwrap())];
    if norm {
        let names = ["1.weight", "1.bias", "1.running_mean", "1.running_var"];
        nodes.push(node("BatchNormalization", "norm", &[&["c"][..], &names].concat(), "y"));
        held.extend(names.map(|name| counted(name, &[2], 3)));
    }
    graph(nodes, held, &[1, 1, 1])
}

/// The newer exporter gives a convolution without bias one of zeros, and it trains.
#[test]
fn a_bias_that_pytorch_does_not_have_moves_into_the_mean() {
    let found = state_dict(&convolution(true, &[0.5, -2.0])).unwrap();
    assert_eq!(names(&found), ["0.weight", "1.bias", "1.running_mean", "1.running_var", "1.weight"]);
    assert_eq!(found.tensors["1.running_mean"].as_f32().unwrap(), [2.5, 6.0]);
    assert_eq!(found.tensors["1.running_var"].as_f32().unwrap(), [3.0, 4.0]);
    // Nothing was learned.
    assert_eq!(names(&state_dict(&convolution(false, &[0.0, 0.0])).unwrap()), ["0.weight"]);
    // Nowhere to go: it stays in sight, and strict loading refuses it.
    let kept = state_dict(&convolution(false, &[0.5, 0.0])).unwrap();
    assert_eq!((names(&kept), kept.unnamed.len(), kept.warnings.len()), (vec!["0.weight", "val_5"], 1, 1));
}

/// Weights that are not the network's own any more never get its names.
#[test]
fn folded_and_quantized_weights_are_not_passed_off() {
    let folded = graph(
        vec![node("Conv", "/0/0.0/Conv", &["x", "onnx::Conv_9", "onnx::Conv_10"], "y")],
        vec![counted("onnx::Conv_9", &[2, 1, 1, 1], 0), counted("onnx::Conv_10", &[2], 0)],
        &[1, 1, 1],
    );
    let found = state_dict(&folded).unwrap();
    assert_eq!((names(&found), found.warnings.len()), (vec!["onnx::Conv_10", "onnx::Conv_9"], 2));
    let nodes = vec![node("DequantizeLinear", "d", &["q", "scale"], "w"), node("MatMul", "m", &["x", "w"], "y")];
    let q = write_tensor("q", &Tensor::new([2, 2], TensorData::I8(vec![0; 4])).unwrap());
    let refused = state_dict(&graph(nodes, vec![q, write_tensor("scale", &Tensor::scalar(1.0))], &[2]));
    assert!(matches!(refused, Err(ModelError::Unsupported { .. })), "{refused:?}");
}

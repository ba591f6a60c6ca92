//! Another last layer: what a trained network is fine-tuned for has other classes than what it was trained on.

use std::collections::HashMap;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::ModelError;
use crate::onnx::{Attributes, Model, edit, is_standard, label, make, pb, read_tensor, write_tensor};
use crate::tensor::{Tensor, numel};
use crate::{Dim, TensorData};

/// A layer that [`replace`] has put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The node, as [`crate::onnx::label`] prints it.
    pub node: String,
    /// Name of its matrix.
    pub weight: String,
    /// Name of what it adds.
    pub bias: Option<String>,
    /// Features that it reads.
    pub inputs: usize,
    /// Answers that it gave before.
    pub was: usize,
}

impl Head {
    /// Patterns for `freeze` with which the head alone is trained.
    pub fn freeze(&self) -> Vec<String> {
        let names = std::iter::once(&self.weight).chain(&self.bias);
        std::iter::once("*".to_owned()).chain(names.map(|name| format!("!{name}"))).collect()
    }
}

/// Where the last layer keeps its constants.
struct Found {
    /// Index of the product.
    product: usize,
    /// Slot of the matrix in it.
    slot: usize,
    weight: Constant,
    /// `[outputs, inputs]`.
    turned: bool,
    /// Node and slot of the bias.
    bias: Option<(usize, usize, Constant)>,
}

/// An initializer, and the node that turns it before it is read.
#[derive(Clone)]
struct Constant {
    name: String,
    shape: Vec<usize>,
    turn: Option<usize>,
}

/// The model with `classes` answers: the `Gemm` or `MatMul` (and `Add`) before its first output, behind which stand at most Softmax,
/// LogSoftmax, Sigmoid, Identity, Cast or Dropout, gets a new matrix and a new bias, drawn as PyTorch draws a linear layer: uniformly
/// from `±1 / sqrt(inputs)` (Kaiming uniform with `a = sqrt(5)`, He et al. 2015). Constants that other nodes read, too, stay for these.
///
/// # Errors
/// [`ModelError::Setting`] for no class; [`ModelError::Unsupported`] naming the node that ends the model, if it is no such layer.
pub fn replace(model: &Model, classes: usize, seed: u64) -> Result<(Model, Head), ModelError> {
    if classes == 0 || u32::try_from(classes).is_err() {
        let reason = "it must be at least 1, and no more than a model can answer".to_owned();
        return Err(ModelError::Setting { name: "head", value: classes.to_string(), reason });
    }
    let output = model.outputs().into_iter().next().ok_or(ModelError::MissingGraph)?;
    let mut proto = model.proto().clone();
    let graph = proto.graph.as_mut().ok_or(ModelError::MissingGraph)?;
    let (found, behind) = find(graph, &output.name)?;
    let (rows, columns) = (found.weight.shape[0], found.weight.shape[1]);
    let (inputs, was) = if found.turned { (columns, rows) } else { (rows, columns) };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let bound = 1.0 / (inputs.max(1) as f64).sqrt();
    let mut drawn = |shape: Vec<usize>| {
        let unit = |word: u64| (word >> 11) as f64 / (1u64 << 53) as f64;
        let count = numel(&shape).filter(|n| *n <= 1 << 28).ok_or_else(|| ModelError::Setting {
            name: "head",
            value: classes.to_string(),
            reason: format!("a matrix of {shape:?} is too large"),
        })?;
        let values = (0..count).map(|_| (bound * (2.0 * unit(rng.next_u64()) - 1.0)) as f32).collect();
        Tensor::f32(shape, values)
    };
    let shape = if found.turned { vec![classes, inputs] } else { vec![inputs, classes] };
    let weight = put(graph, found.product, found.slot, &found.weight, &drawn(shape)?);
    let bias = match &found.bias {
        Some((node, slot, constant)) => {
            let mut shape = constant.shape.clone();
            if let Some(last) = shape.last_mut() {
                *last = classes;
            }
            Some(put(graph, *node, *slot, constant, &drawn(shape)?))
        }
        None => None,
    };
    let head = Head { node: label(&graph.node[found.product]), weight, bias, inputs, was };
    edit::sweep(graph);
    // What was said of the values behind the head holds no longer.
    graph.value_info.retain(|value| !behind.iter().any(|name| name == value.name()));
    let mut declared = output;
    if let Some(last) = declared.shape.last_mut() {
        *last = Dim::Fixed(classes);
    }
    for value in graph.output.iter_mut().filter(|value| behind.iter().any(|name| name == value.name())) {
        let name = value.name().to_owned();
        *value = make::value(&crate::ValueInfo { name, ..declared.clone() });
    }
    Ok((Model::new(proto)?, head))
}

/// The last layer, and the values behind its product.
fn find(graph: &pb::GraphProto, output: &str) -> Result<(Found, Vec<String>), ModelError> {
    let makers: HashMap<&str, usize> =
        graph.node.iter().enumerate().flat_map(|(i, n)| n.output.iter().map(move |o| (o.as_str(), i))).collect();
    let constant = |name: &str| constant(graph, &makers, name);
    let (mut value, mut behind) = (output, Vec::new());
    let mut bias = None;
    loop {
        behind.push(value.to_owned());
        let Some(index) = makers.get(value).copied() else {
            let reason = "no node makes it; the model has no last layer".to_owned();
            return Err(ModelError::Unsupported { node: format!("output `{output}`"), op: "output".to_owned(), reason });
        };
        let node = &graph.node[index];
        let refuse = |reason: String| ModelError::Unsupported { node: label(node), op: node.op_type().to_owned(), reason };
        let input = |i: usize| node.input.get(i).map_or("", String::as_str);
        let standard = is_standard(node.domain());
        match node.op_type() {
            "Softmax" | "LogSoftmax" | "Sigmoid" | "Identity" | "Cast" | "Dropout" if standard && bias.is_none() => value = input(0),
            "Add" if standard && bias.is_none() => {
                let slot = usize::from(constant(input(0)).is_none());
                let found = constant(input(slot)).filter(|c| c.turn.is_none() && numel(&c.shape) == c.shape.last().copied());
                let found = found.ok_or_else(|| refuse("it adds no constant with a value for each answer, so it is no head".to_owned()))?;
                bias = Some((index, slot, found));
                value = input(1 - slot);
            }
            "MatMul" | "Gemm" if standard => {
                let attributes = Attributes::of(node);
                let is_gemm = node.op_type() == "Gemm";
                let matrix = constant(input(1)).filter(|c| c.shape.len() == 2);
                let weight = matrix.ok_or_else(|| refuse("its second operand is no matrix of floats in the file".to_owned()))?;
                let turned = (is_gemm && attributes.int("transB", 0)? != 0) != weight.turn.is_some();
                if is_gemm && !input(2).is_empty() {
                    let found = constant(input(2)).filter(|c| c.turn.is_none() && numel(&c.shape) == c.shape.last().copied());
                    let found = found.ok_or_else(|| refuse("what it adds is no constant with a value for each answer".to_owned()))?;
                    if bias.is_some() {
                        return Err(refuse("two biases follow it; merge them".to_owned()));
                    }
                    bias = Some((index, 2, found));
                }
                return Ok((Found { product: index, slot: 1, weight, turned, bias }, behind));
            }
            _ => {
                let reason =
                    "the model ends in it and not in Gemm or MatMul (with Add), so it is not known where its head is; replace the \
                              last layer before the export"
                        .to_owned();
                return Err(refuse(reason));
            }
        }
    }
}

/// The float initializer that `name` is, or that a node turns into it.
fn constant(graph: &pb::GraphProto, makers: &HashMap<&str, usize>, name: &str) -> Option<Constant> {
    let turn = makers.get(name).copied();
    let origin = match turn {
        Some(index) => {
            let node = &graph.node[index];
            let swaps = node.op_type() == "Transpose" && Attributes::of(node).ints("perm").ok()?.is_none_or(|perm| perm == [1, 0]);
            node.input.first().filter(|_| swaps)?.as_str()
        }
        None => name,
    };
    let tensor = graph.initializer.iter().find(|t| t.name() == origin).and_then(|t| read_tensor(t).ok())?;
    let is_float = matches!(tensor.data, TensorData::F32(_));
    is_float.then(|| Constant { name: origin.to_owned(), shape: tensor.shape, turn })
}

/// Puts a tensor in the place of a constant that a node reads. If others read the constant, too, the new one has a name of its own,
/// and so has what turns it.
fn put(graph: &mut pb::GraphProto, node: usize, slot: usize, constant: &Constant, tensor: &Tensor) -> String {
    let readers = edit::readers(graph);
    let read = |name: &str| readers.get(name).copied().unwrap_or(0);
    let shared = read(&constant.name) > 1 || constant.turn.is_some_and(|turn| graph.node[turn].output.iter().any(|o| read(o) > 1));
    if !shared {
        if let Some(old) = graph.initializer.iter_mut().find(|t| t.name() == constant.name) {
            *old = write_tensor(&constant.name, tensor);
        }
        return constant.name.clone();
    }
    let mut taken = edit::names(graph);
    let name = edit::fresh(format!("head.{}", constant.name), &mut taken);
    graph.initializer.push(write_tensor(&name, tensor));
    match constant.turn {
        Some(turn) => {
            let turned = edit::fresh(format!("{name}/turned"), &mut taken);
            let mut copy = graph.node[turn].clone();
            copy.name = Some(turned.clone());
            copy.input[0].clone_from(&name);
            copy.output[0].clone_from(&turned);
            graph.node[node].input[slot] = turned;
            graph.node.insert(node, copy);
        }
        None => graph.node[node].input[slot].clone_from(&name),
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{Optimizer, TrainConfig, Trainer};
    use crate::{Dataset, Features, Forward, Targets, parameters, zoo};

    fn export(name: &str) -> Model {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/torch");
        Model::decode(&std::fs::read(folder.join(name)).unwrap()).unwrap()
    }

    fn corners(n: usize) -> Features {
        Tensor::f32([n, 6], (0..n * 6).map(|i| (i as f32 * 0.7).sin()).collect()).unwrap().into()
    }

    #[test]
    fn every_way_that_a_head_is_written_gets_the_classes() {
        let mut models: Vec<(String, Model)> = vec![("zoo".into(), zoo::mlp(6, &[5], 3, 1)), ("cnn".into(), zoo::cnn([1, 8, 8], 10, 1))];
        for name in ["mlp", "cnn", "lstm", "gru", "transformer", "text"] {
            for exporter in ["legacy", "dynamo"] {
                models.push((format!("{name}-{exporter}"), export(&format!("{name}-{exporter}.onnx"))));
            }
        }
        for (name, model) in models {
            let (changed, head) = replace(&model, 17, 4).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(changed.outputs()[0].shape.last(), Some(&Dim::Fixed(17)), "{name}");
            let (before, after) = (parameters(&model, &[]).unwrap().0, parameters(&changed, &[]).unwrap().0);
            let bias = head.bias.as_ref().map_or(0, |_| 1);
            assert_eq!(after.length() as i64 - before.length() as i64, (17 - head.was as i64) * (head.inputs + bias) as i64, "{name}");
            // Only the head has changed, and it alone is trained with the patterns that are given.
            let trainer = Trainer::new(&changed, TrainConfig { freeze: head.freeze(), ..TrainConfig::default() });
            let trainer = trainer.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(trainer.answers(), 17, "{name}");
            assert_eq!(trainer.length(), 17 * (head.inputs + bias), "{name}");
            assert_eq!(Model::decode(&changed.encode()).unwrap(), changed, "{name}");
        }
    }

    #[test]
    fn it_is_drawn_from_the_seed_within_its_bound_and_learns() {
        let model = zoo::mlp(6, &[64], 3, 1);
        let (a, head) = replace(&model, 2, 4).unwrap();
        assert_eq!(head, Head { node: head.node.clone(), weight: "fc2.weight".into(), bias: Some("fc2.bias".into()), inputs: 64, was: 3 });
        assert_eq!(head.freeze(), ["*", "!fc2.weight", "!fc2.bias"]);
        assert_eq!(a, replace(&model, 2, 4).unwrap().0);
        assert_ne!(a, replace(&model, 2, 5).unwrap().0);
        let config = TrainConfig { freeze: head.freeze(), optimizer: Optimizer::adam(), lr: 0.05, batch: 20, ..TrainConfig::default() };
        let mut trainer = Trainer::new(&a, config).unwrap();
        let drawn = trainer.parameters();
        assert!(drawn.iter().all(|v| v.abs() <= 0.125) && drawn.iter().any(|v| v.abs() > 0.11) && drawn.iter().any(|v| v.abs() < 0.01));
        let x = corners(40);
        let labels = x.only().unwrap().as_f32().unwrap().chunks(6).map(|row| i64::from(row[0] > 0.0)).collect();
        let history =
            trainer.train(&Dataset { x, y: Targets::Classes(labels) }, 40, 1, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
        assert!(history[39].loss < 0.5 * history[0].loss, "{history:?}");
    }

    /// A matrix that is also an embedding stays what it was there.
    #[test]
    fn a_tied_matrix_is_not_taken_from_its_other_readers() {
        let mut proto = zoo::mlp(6, &[6], 6, 1).into_proto();
        let graph = proto.graph.as_mut().unwrap();
        let last = graph.node.len() - 1;
        graph.node[last].input[1] = graph.node[0].input[1].clone();
        edit::sweep(graph);
        let model = Model::new(proto).unwrap();
        let (changed, head) = replace(&model, 2, 0).unwrap();
        assert_eq!(head.weight, "head.fc1.weight");
        let old = |model: &Model| model.graph().initializer.iter().find(|t| t.name() == "fc1.weight").cloned();
        assert_eq!(old(&changed), old(&model));
        assert_eq!(Forward::new(&changed).unwrap().answer(&corners(3)).unwrap().shape, [3, 2]);
    }

    #[test]
    fn a_model_that_ends_otherwise_is_refused_by_node() {
        let refused = |edit: &dyn Fn(&mut pb::GraphProto)| {
            let mut proto = zoo::mlp(6, &[5], 3, 1).into_proto();
            edit(proto.graph.as_mut().unwrap());
            replace(&Model::new(proto).unwrap(), 4, 0).unwrap_err().to_string()
        };
        let behind = |op: &'static str, graph: &mut pb::GraphProto, inputs: &[&str]| {
            let last = graph.node.len() - 1;
            graph.node[last].output[0] = "raw".into();
            graph.node.push(make::node(op, "tail", inputs, &["logits"], vec![]));
        };
        let relu = refused(&|graph| behind("Relu", graph, &["raw"]));
        assert!(relu.contains("tail") && relu.contains("Relu") && relu.contains("not known where its head is"), "{relu}");
        let product = refused(&|graph| behind("MatMul", graph, &["raw", "raw"]));
        assert!(product.contains("no matrix of floats"), "{product}");
        let sum = refused(&|graph| behind("Add", graph, &["raw", "raw"]));
        assert!(sum.contains("no constant with a value for each answer"), "{sum}");
        assert!(replace(&zoo::mlp(6, &[5], 3, 1), 0, 0).unwrap_err().to_string().contains("at least 1"));
    }
}

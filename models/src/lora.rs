//! Low-rank adapters: beside a product with a matrix `W`, `x A B` with few columns in between (Hu et al. 2021, section 4.1).
//!
//! [`attach`] adds them to a graph, which then answers as before, because every B begins at zero; [`merge`] adds what they have become
//! to the matrices and takes them out. What is trained is chosen as always: `freeze = ["*", "!*.lora_b"]` trains every B alone, and
//! then the mean of several nodes' updates is the update of their mean, which it is not where A moves, too.

use std::collections::{BTreeMap, HashMap};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::ModelError;
use crate::layout::matches;
use crate::onnx::{Attributes, Model, is_standard, make, pb, read_tensor, write_tensor};
use crate::tensor::Tensor;

/// Every node that [`attach`] adds is called so.
const PREFIX: &str = "lora/";

/// Which matrices get adapters, and of which size.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    /// Columns of A and rows of B, at least 1.
    pub rank: usize,
    /// `alpha / rank` scales the start of A.
    pub alpha: f32,
    /// Names of matrices; `*` stands for any run of characters.
    pub targets: Vec<String>,
}

/// A matrix constant as one product reads it.
struct Product {
    weight: String,
    inputs: usize,
    outputs: usize,
    /// The constant is `[outputs, inputs]`.
    turned: bool,
}

/// The model with adapters `NAME.lora_a` `[inputs, rank]` and `NAME.lora_b` `[rank, outputs]` for each matrix `NAME` that `MatMul` or
/// `Gemm` multiplies features with.
///
/// # Errors
/// [`ModelError::Setting`] for a rank of 0, an alpha that is no number above 0, or targets that no such matrix is called by.
pub fn attach(model: &Model, lora: &Lora, seed: u64) -> Result<Model, ModelError> {
    let bad = |name, value: String, reason: &str| Err(ModelError::Setting { name, value, reason: reason.to_owned() });
    if lora.rank == 0 {
        return bad("rank", "0".to_owned(), "it must be at least 1");
    }
    if !(lora.alpha.is_finite() && lora.alpha > 0.0) {
        return bad("alpha", lora.alpha.to_string(), "it must be above 0");
    }
    let mut proto = model.proto().clone();
    let graph = proto.graph.as_mut().ok_or(ModelError::MissingGraph)?;
    let products = products(graph)?;
    let wanted = |name: &str| lora.targets.iter().any(|pattern| matches(pattern, name));
    if let Some(lost) = lora.targets.iter().find(|pattern| !products.values().any(|p| matches(pattern, &p.weight))) {
        let known: Vec<&str> = products.values().map(|p| p.weight.as_str()).collect();
        return bad("targets", lost.clone(), &format!("no matrix of a product is called so; there are {}", known.join(", ")));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut made = BTreeMap::new();
    let mut nodes = Vec::with_capacity(graph.node.len());
    for (index, mut node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
        let Some(product) = products.get(&index).filter(|p| wanted(&p.weight)) else {
            nodes.push(node);
            continue;
        };
        let (a, b) = (format!("{}.lora_a", product.weight), format!("{}.lora_b", product.weight));
        made.entry(a.clone()).or_insert_with(|| {
            // As PyTorch draws a linear layer, so that x A is about as large as x.
            let bound = (1.0 / product.inputs as f64).sqrt() * f64::from(lora.alpha) / lora.rank as f64;
            let unit = |word: u64| (word >> 11) as f64 / (1u64 << 53) as f64;
            let drawn = (0..product.inputs * lora.rank).map(|_| (bound * (2.0 * unit(rng.next_u64()) - 1.0)) as f32).collect();
            (drawn, [product.inputs, lora.rank])
        });
        made.entry(b.clone()).or_insert_with(|| (vec![0.0; lora.rank * product.outputs], [lora.rank, product.outputs]));
        let answer = std::mem::take(&mut node.output[0]);
        let [base, down, up] = ["base", "down", "up"].map(|part| format!("{PREFIX}{index}/{part}"));
        let x = node.input[0].clone();
        node.output[0].clone_from(&base);
        nodes.push(node);
        nodes.push(make::node("MatMul", &down, &[&x, &a], &[&down], vec![]));
        nodes.push(make::node("MatMul", &up, &[&down, &b], &[&up], vec![]));
        nodes.push(make::node("Add", &format!("{PREFIX}{index}/add"), &[&base, &up], &[&answer], vec![]));
    }
    graph.node = nodes;
    for (name, (values, shape)) in made {
        graph.initializer.push(write_tensor(&name, &Tensor::f32(shape, values)?));
    }
    Model::new(proto)
}

/// The model with its adapters added to the matrices; as it is, if it has none.
///
/// # Errors
/// [`ModelError::BadTensor`] for adapters that do not fit their matrix.
pub fn merge(model: &Model) -> Result<Model, ModelError> {
    let mut proto = model.proto().clone();
    let graph = proto.graph.as_mut().ok_or(ModelError::MissingGraph)?;
    let mut products: HashMap<String, Product> = products(graph)?.into_values().map(|p| (p.weight.clone(), p)).collect();
    let find = |graph: &pb::GraphProto, name: &str| graph.initializer.iter().position(|t| t.name() == name);
    let names: Vec<String> = graph.initializer.iter().filter_map(|t| t.name().strip_suffix(".lora_b").map(str::to_owned)).collect();
    for name in names {
        let places = (find(graph, &name), find(graph, &format!("{name}.lora_a")), find(graph, &format!("{name}.lora_b")));
        let ((Some(w), Some(a), Some(b)), Some(product)) = (places, products.remove(&name)) else { continue };
        let [w_tensor, a_tensor, b_tensor] = [w, a, b].map(|at| read_tensor(&graph.initializer[at]));
        let merged = product.merged(w_tensor?, &a_tensor?, &b_tensor?)?;
        graph.initializer[w] = write_tensor(&name, &merged);
    }
    // What follows the products is called again as it was.
    let sums = graph.node.iter().filter(|n| n.name().starts_with(PREFIX) && n.op_type() == "Add");
    let answers: HashMap<String, String> = sums.map(|n| (n.input[0].clone(), n.output[0].clone())).collect();
    graph.node.retain(|n| !n.name().starts_with(PREFIX));
    for output in graph.node.iter_mut().flat_map(|n| &mut n.output) {
        if let Some(answer) = answers.get(output) {
            output.clone_from(answer);
        }
    }
    graph.initializer.retain(|t| !t.name().ends_with(".lora_a") && !t.name().ends_with(".lora_b"));
    Model::new(proto)
}

impl Product {
    fn merged(&self, mut weight: Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor, ModelError> {
        let rank = a.row_len();
        let fits = a.shape == [self.inputs, rank] && b.shape == [rank, self.outputs];
        let (Some(a), Some(b), true) = (a.as_f32(), b.as_f32(), fits) else {
            let reason = format!("its adapters {:?} and {:?} do not fit {:?}", a.shape, b.shape, weight.shape);
            return Err(ModelError::BadTensor { tensor: self.weight.clone(), reason });
        };
        let crate::TensorData::F32(values) = &mut weight.data else { return Ok(weight) };
        for i in 0..self.inputs {
            for o in 0..self.outputs {
                let delta: f32 = (0..rank).map(|k| a[i * rank + k] * b[k * self.outputs + o]).sum();
                values[if self.turned { o * self.inputs + i } else { i * self.outputs + o }] += delta;
            }
        }
        Ok(weight)
    }
}

/// The products of features with a constant matrix, by the index of their node.
fn products(graph: &pb::GraphProto) -> Result<BTreeMap<usize, Product>, ModelError> {
    let shapes: HashMap<&str, &[i64]> = graph.initializer.iter().map(|t| (t.name(), &t.dims[..])).collect();
    // Some exporters turn a matrix before they multiply.
    let turns = graph.node.iter().filter(|n| n.op_type() == "Transpose" && n.input.len() == 1);
    let turned: HashMap<&str, &str> = turns.map(|n| (n.output[0].as_str(), n.input[0].as_str())).collect();
    let mut found = BTreeMap::new();
    for (index, node) in graph.node.iter().enumerate().filter(|(_, n)| is_standard(n.domain()) && n.input.len() >= 2) {
        let attributes = Attributes::of(node);
        let flipped = match node.op_type() {
            "MatMul" => false,
            "Gemm" if attributes.int("transA", 0)? == 0 && attributes.float("alpha", 1.0)? == 1.0 => attributes.int("transB", 0)? != 0,
            _ => continue,
        };
        let read = node.input[1].as_str();
        let (weight, flipped) = turned.get(read).map_or((read, flipped), |behind| (*behind, !flipped));
        let Some([rows, columns]) = shapes.get(weight).copied() else { continue };
        let (Ok(rows), Ok(columns)) = (usize::try_from(*rows), usize::try_from(*columns)) else { continue };
        let (inputs, outputs) = if flipped { (columns, rows) } else { (rows, columns) };
        let adapter = weight.ends_with(".lora_a") || weight.ends_with(".lora_b");
        if !adapter && !shapes.contains_key(node.input[0].as_str()) {
            found.insert(index, Product { weight: weight.to_owned(), inputs, outputs, turned: flipped });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::train::{Optimizer, TrainConfig, Trainer};
    use crate::{Dataset, Features, Forward, Targets, parameters, zoo};

    fn lora(targets: &[&str]) -> Lora {
        Lora { rank: 2, alpha: 2.0, targets: targets.iter().map(|t| (*t).to_owned()).collect() }
    }

    fn export(name: &str) -> Model {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/torch");
        Model::decode(&std::fs::read(folder.join(name)).unwrap()).unwrap()
    }

    /// Labels that the first feature tells.
    fn data(shape: &[usize]) -> Dataset {
        let width: usize = shape.iter().product();
        let value = |k: usize| if k.is_multiple_of(width) { (k / width % 2) as f32 * 2.0 - 1.0 } else { (k * 7919 % 100) as f32 / 100.0 };
        let x = Tensor::f32([&[40], shape].concat(), (0..40 * width).map(value).collect()).unwrap();
        Dataset { x: x.into(), y: Targets::Classes((0..40).map(|i| i % 2).collect()) }
    }

    fn near(a: &Model, b: &Model, x: &Features) -> bool {
        let [a, b] = [a, b].map(|model| Forward::new(model).unwrap().answer(x).unwrap());
        a.as_f32().unwrap().iter().zip(b.as_f32().unwrap()).all(|(a, b)| (a - b).abs() < 1e-4)
    }

    /// Gemm either way around, and matrices that the graph turns first.
    #[test]
    fn adapters_begin_as_nothing_learn_alone_and_merge_into_their_matrices() {
        let cases = [
            (zoo::mlp(20, &[16], 5, 1), vec![20]),
            (export("mlp-legacy.onnx"), vec![20]),
            (export("mlp-dynamo.onnx"), vec![20]),
            (export("transformer-legacy.onnx"), vec![6, 16]),
            (export("transformer-dynamo.onnx"), vec![6, 16]),
        ];
        for (model, shape) in cases {
            let data = data(&shape);
            let adapted = attach(&model, &lora(&["*"]), 1).unwrap();
            assert!(near(&model, &adapted, &data.x));
            let freeze = vec!["*".to_owned(), "!*.lora_b".to_owned()];
            let (layout, _) = parameters(&adapted, &freeze).unwrap();
            assert!(layout.parameters().iter().all(|p| p.name.ends_with(".lora_b") && p.shape[0] == 2), "{layout:?}");
            let config = TrainConfig { optimizer: Optimizer::adam(), lr: 0.05, batch: 40, freeze, ..TrainConfig::default() };
            let mut trainer = Trainer::new(&adapted, config).unwrap();
            let before = trainer.evaluate(&data).unwrap().loss;
            trainer.train(&data, 150, 1, &mut |_| ControlFlow::Continue(())).unwrap();
            let after = trainer.evaluate(&data).unwrap().loss;
            assert!(after < 0.7 * before, "{before} {after}");
            let trained = trainer.export();
            let merged = merge(&trained).unwrap();
            assert!(near(&trained, &merged, &data.x) && !near(&model, &merged, &data.x));
            let names = |model: &Model| model.graph().initializer.iter().map(|t| t.name().to_owned()).collect::<Vec<_>>();
            assert_eq!(names(&merged), names(&model));
            assert!(merged.graph().node.iter().all(|n| !n.name().starts_with(PREFIX)));
        }
    }

    #[test]
    fn a_model_without_adapters_stays_as_it_is() {
        let model = zoo::cnn([1, 8, 8], 10, 1);
        assert_eq!(merge(&model).unwrap(), model);
    }

    #[test]
    fn settings_that_say_nothing_are_refused() {
        let model = zoo::mlp(4, &[3], 2, 1);
        let refused = |lora: Lora| attach(&model, &lora, 1).unwrap_err().to_string();
        assert!(refused(Lora { rank: 0, ..lora(&["*"]) }).contains("rank"));
        assert!(refused(Lora { alpha: f32::NAN, ..lora(&["*"]) }).contains("alpha"));
        let typo = refused(lora(&["fc1.weigth"]));
        assert!(typo.contains("fc1.weigth") && typo.contains("fc1.weight"), "{typo}");
    }
}

//! The weights of an exported network under the names that it has in PyTorch, for `load_state_dict`.
//!
//! Files that were exported to be trained (`training=TrainingMode.TRAINING, do_constant_folding=False`, or `optimize=False`) keep all
//! names. Others have the weights of recurrent layers in one tensor with the gates in ONNX's order ([`gates`]), those of linear layers
//! transposed and without a name, and one tensor for all that were equal; where a node was in the network ([`names`]), and the name of
//! the bias beside a weight, tell what they were.

mod gates;
mod names;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::ModelError;
use crate::layout::candidates;
use crate::onnx::edit::readers;
use crate::onnx::{Attributes, Element, Model, label, pb, read_tensor};
use crate::tensor::{Tensor, TensorData};
use names::{is_anonymous, module};

/// The report of [`state_dict`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StateDict {
    /// By PyTorch's names, in alphabetical order.
    pub tensors: BTreeMap<String, Tensor>,
    /// What was called otherwise in the file, or is several tensors now: its name there, and the new one.
    pub renamed: Vec<(String, String)>,
    /// Trained tensors whose PyTorch name is not known; they stand under their names in the file.
    pub unnamed: Vec<String>,
    /// Other constants, which do not look like a part of the network's state.
    pub left_out: Vec<String>,
    /// What will not load, or not mean the same.
    pub warnings: Vec<String>,
}

/// The tensors of a network as PyTorch's `state_dict` has them.
///
/// # Errors
/// [`ModelError::Unsupported`] for a quantized model; [`ModelError`] for tensors that cannot be read.
pub fn state_dict(model: &Model) -> Result<StateDict, ModelError> {
    let graph = model.graph();
    if let Some(node) = graph.node.iter().find(|n| matches!(n.op_type(), "DequantizeLinear" | "DynamicQuantizeLinear")) {
        let reason = "the model is quantized; take the one that it was made from".to_owned();
        return Err(ModelError::Unsupported { node: label(node), op: node.op_type().to_owned(), reason });
    }
    let mut work = Work::new(model)?;
    let mut layers: HashMap<String, usize> = HashMap::new();
    for node in &graph.node {
        match node.op_type() {
            "LSTM" | "GRU" | "RNN" => work.recurrent(node, &mut layers),
            "Conv"
            | "ConvTranspose"
            | "Gemm"
            | "MatMul"
            | "BatchNormalization"
            | "LayerNormalization"
            | "InstanceNormalization"
            | "GroupNormalization"
            | "RMSNormalization"
            | "PRelu"
            | "Gather" => work.layer(graph, node)?,
            _ => {}
        }
    }
    Ok(work.finish())
}

struct Work {
    stored: BTreeMap<String, Tensor>,
    parameters: BTreeSet<String>,
    /// Tensors that stand in the answer under other names.
    used: BTreeSet<String>,
    readers: HashMap<String, usize>,
    found: StateDict,
}

/// A parameter in one slot of a node.
struct Slot<'g> {
    name: &'g str,
    /// What PyTorch calls it within its module.
    suffix: &'static str,
}

impl Work {
    fn new(model: &Model) -> Result<Self, ModelError> {
        let mut stored = BTreeMap::new();
        for proto in &model.graph().initializer {
            // Strings are no state.
            if !matches!(Element::from_onnx(proto.data_type()), Element::Other(_)) {
                stored.insert(proto.name().to_owned(), read_tensor(proto)?);
            }
        }
        let parameters = candidates(model)?.into_iter().map(|(name, _, tensor)| {
            stored.insert(name.clone(), tensor);
            name
        });
        let parameters = parameters.collect();
        Ok(Self { stored, parameters, used: BTreeSet::new(), readers: readers(model.graph()), found: StateDict::default() })
    }

    /// Weights in one piece; those that come in slices have their names.
    fn recurrent(&mut self, node: &pb::NodeProto, layers: &mut HashMap<String, usize>) {
        let module = module(node);
        let layer = layers.entry(module.clone().unwrap_or_default()).or_default();
        *layer += 1;
        let tensor = |at: usize| node.input.get(at).and_then(|name| self.stored.get(name));
        let (Some(w), Some(r)) = (tensor(1), tensor(2)) else { return };
        let parts = gates::unpack(node.op_type(), *layer - 1, w, r, tensor(3));
        let (Some(module), Some(parts)) = (module, parts) else { return };
        if node.op_type() == "GRU" && !Attributes::of(node).int("linear_before_reset", 0).is_ok_and(|flag| flag != 0) {
            self.found
                .warnings
                .push(format!("{} applies its reset gate before the product with the state; PyTorch's GRU cannot", label(node)));
        }
        for (name, tensor) in parts {
            let from = if name.starts_with("weight_ih") {
                1
            } else if name.starts_with("weight_hh") {
                2
            } else {
                3
            };
            self.give(&node.input[from], join(&module, &name), tensor);
        }
    }

    /// Tensors that the node reads as they are stored.
    fn layer(&mut self, graph: &pb::GraphProto, node: &pb::NodeProto) -> Result<(), ModelError> {
        let slots = self.slots(graph, node);
        let module = module(node);
        let Some(stem) = stem(&slots, module.as_deref()) else { return Ok(()) };
        let named = slots.iter().any(|slot| slot.suffix == "weight" && !is_anonymous(slot.name));
        for Slot { name, suffix } in &slots {
            let Some(tensor) = self.stored.get(*name).cloned() else { continue };
            let wanted = format!("{stem}{suffix}");
            if !is_anonymous(name) {
                // Where tensors were equal, the file has one for all: the node tells what else it was.
                let merged = module.as_deref().is_some_and(|module| !module.is_empty() && !inside(name, module));
                let alike = name.rsplit('.').next() == Some(suffix);
                if merged && alike && !self.stored.contains_key(&wanted) && wanted != *name {
                    self.found.tensors.insert(wanted.clone(), tensor);
                    self.found.renamed.push(((*name).to_owned(), wanted));
                }
            } else if *suffix == "bias" && named && node.op_type() != "MatMul" {
                self.extra_bias(graph, node, name, &tensor);
            } else if node.op_type() == "Conv" {
                self.found.warnings.push(format!(
                    "{}: `{name}` has another name than in PyTorch, as where the exporter folds a BatchNorm into a convolution; export for training instead",
                    label(node)
                ));
            } else {
                let flat = tensor.shape.len() == 2;
                let transposed = match node.op_type() {
                    "MatMul" => *suffix == "weight",
                    "Gemm" => *suffix == "weight" && Attributes::of(node).int("transB", 0)? == 0,
                    _ => false,
                };
                if self.stored.contains_key(&wanted) {
                    // The exporter made a layer of two: the constant is a factor of 1, or a term of 0.
                    let neutral = if *suffix == "weight" { 1.0 } else { 0.0 };
                    if tensor.as_f32().is_some_and(|values| values.iter().all(|v| *v == neutral)) {
                        self.used.insert((*name).to_owned());
                    }
                    continue;
                }
                let tensor = if transposed && flat { transpose(&tensor) } else { Some(tensor) };
                if let Some(tensor) = tensor {
                    self.give(name, wanted, tensor);
                }
            }
        }
        Ok(())
    }

    fn slots<'g>(&self, graph: &'g pb::GraphProto, node: &'g pb::NodeProto) -> Vec<Slot<'g>> {
        let held = |node: &'g pb::NodeProto, at: usize, suffix: &'static str| {
            let name = node.input.get(at).filter(|name| self.stored.contains_key(*name) && self.parameters.contains(*name))?;
            Some(Slot { name, suffix })
        };
        let listed = |suffixes: &[&'static str]| (1..).zip(suffixes).filter_map(|(at, suffix)| held(node, at, suffix)).collect();
        match node.op_type() {
            "Gather" => held(node, 0, "weight").into_iter().collect(),
            "BatchNormalization" => listed(&["weight", "bias", "running_mean", "running_var"]),
            "MatMul" => {
                let mut slots: Vec<Slot<'g>> = held(node, 1, "weight").into_iter().collect();
                // A linear layer's bias is added by the node behind.
                let behind = graph.node.iter().find(|n| n.op_type() == "Add" && n.input.iter().any(|i| node.output.first() == Some(i)));
                if let Some(add) = behind.filter(|_| !slots.is_empty()) {
                    slots.extend((0..2).filter_map(|at| held(add, at, "bias")));
                }
                slots
            }
            _ => listed(&["weight", "bias"]),
        }
    }

    /// A bias that PyTorch's layer does not have: the newer exporter gives every convolution one, of zeros, which trains. Behind it a
    /// BatchNorm takes it in: what is added before the mean is subtracted changes the mean.
    fn extra_bias(&mut self, graph: &pb::GraphProto, node: &pb::NodeProto, name: &str, bias: &Tensor) {
        let Some(values) = bias.as_f32() else { return };
        self.used.insert(name.to_owned());
        if values.iter().all(|v| *v == 0.0) {
            return;
        }
        let output = node.output.first();
        let alone = output.is_some_and(|output| self.readers.get(output) == Some(&1));
        let norm = graph.node.iter().find(|n| n.op_type() == "BatchNormalization" && n.input.first() == output).filter(|_| alone);
        let mean = norm.and_then(|norm| norm.input.get(3)).filter(|mean| self.readers.get(*mean) == Some(&1));
        if let Some(Tensor { data: TensorData::F32(mean), .. }) = mean.and_then(|mean| self.stored.get_mut(mean))
            && mean.len() == values.len()
        {
            mean.iter_mut().zip(values).for_each(|(mean, bias)| *mean -= bias);
            return;
        }
        self.used.remove(name);
        self.found.warnings.push(format!("{} has learned a bias, `{name}`, that the layer does not have in PyTorch", label(node)));
    }

    fn give(&mut self, from: &str, to: String, tensor: Tensor) {
        self.used.insert(from.to_owned());
        self.found.renamed.push((from.to_owned(), to.clone()));
        self.found.tensors.insert(to, tensor);
    }

    fn finish(mut self) -> StateDict {
        for (name, tensor) in self.stored {
            if self.used.contains(&name) {
                continue;
            }
            let parameter = self.parameters.contains(&name);
            if name.ends_with(".weight_bias") {
                let reason = "is of a BatchNorm that the exporter folded into a convolution; export for training instead";
                self.found.warnings.push(format!("`{name}` {reason}"));
            }
            match (is_anonymous(&name), parameter) {
                (true, true) => self.found.unnamed.push(name.clone()),
                (false, _) if parameter || name.contains('.') => {}
                (anonymous, _) => {
                    if !anonymous {
                        self.found.left_out.push(name);
                    }
                    continue;
                }
            }
            self.found.tensors.insert(name, tensor);
        }
        self.found
    }
}

/// What stands before `weight` and `bias`: of the name that one of them has, if it is of this module, else the module.
fn stem(slots: &[Slot<'_>], module: Option<&str>) -> Option<String> {
    let own = slots.iter().filter(|slot| !is_anonymous(slot.name)).find_map(|slot| {
        let stem = slot.name.strip_suffix(slot.suffix)?;
        module.is_none_or(|module| inside(slot.name, module)).then(|| stem.to_owned())
    });
    own.or_else(|| module.map(|module| join(module, "")))
}

/// Whether a tensor belongs to a module.
fn inside(name: &str, module: &str) -> bool {
    module.is_empty() || name.strip_prefix(module).is_some_and(|rest| rest.starts_with('.'))
}

fn join(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}.{name}") }
}

fn transpose(tensor: &Tensor) -> Option<Tensor> {
    let (values, &[rows, columns]) = (tensor.as_f32()?, tensor.shape.as_slice()) else { return None };
    let turned = (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect();
    Tensor::f32([columns, rows], turned).ok()
}

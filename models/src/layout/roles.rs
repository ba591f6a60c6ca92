//! Which constants are parameters: decided by the slot in which a node reads them.

use std::collections::{HashMap, HashSet};

use super::Role;
use crate::ModelError;
use crate::onnx::{Attributes, Element, constant, is_standard, pb, read_tensor};

/// How the graph reads one constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Use {
    /// The first trained role found, else [`Role::Statistic`].
    pub(crate) role: Role,
    /// Number of slots that read it as a parameter; above 1 the weight is tied.
    pub(crate) slots: usize,
}

/// Larger magnitudes mark masks (`-inf`, `torch.finfo.min`), which must stay what they are.
const MASK: f32 = 1e30;

/// The float constants that have a role, by name.
pub(crate) fn uses(graph: &pb::GraphProto) -> Result<HashMap<String, Use>, ModelError> {
    let mut found: HashMap<String, Use> = HashMap::new();
    for (name, role) in by_node(graph)?.into_iter().flatten() {
        let entry = found.entry(name).or_insert(Use { role, slots: 0 });
        entry.slots += 1;
        if !entry.role.is_trained() {
            entry.role = role;
        }
    }
    Ok(found)
}

/// For each node, the float constants that it reads as parameters, once for each slot.
pub(crate) fn by_node(graph: &pb::GraphProto) -> Result<Vec<Vec<(String, Role)>>, ModelError> {
    let constants = Constants::of(graph)?;
    let live = data_path(graph);
    let mut all = Vec::with_capacity(graph.node.len());
    for node in &graph.node {
        let mut read = Vec::new();
        for (slot, role) in slots(node, &constants, &live)? {
            let Some(name) = node.input.get(slot).filter(|name| !name.is_empty()) else { continue };
            read.extend(constants.origins(name).into_iter().map(|name| (name.to_owned(), role)));
        }
        all.push(read);
    }
    Ok(all)
}

/// The slots of a node that hold parameters, if constants feed them.
fn slots(node: &pb::NodeProto, constants: &Constants<'_>, live: &HashSet<&str>) -> Result<Vec<(usize, Role)>, ModelError> {
    if !is_standard(node.domain()) {
        return Ok(Vec::new());
    }
    let is_live = |slot: usize| node.input.get(slot).is_some_and(|n| live.contains(n.as_str()));
    Ok(match node.op_type() {
        "Conv" | "ConvTranspose" | "Gemm" => vec![(1, Role::Weight), (2, Role::Bias)],
        "MatMul" if is_live(0) => vec![(1, Role::Weight)],
        "MatMul" if is_live(1) => vec![(0, Role::Weight)],
        "BatchNormalization" => vec![(1, Role::Scale), (2, Role::Bias), (3, Role::Statistic), (4, Role::Statistic)],
        "LayerNormalization" | "InstanceNormalization" | "GroupNormalization" => {
            vec![(1, Role::Scale), (2, Role::Bias)]
        }
        "RMSNormalization" => vec![(1, Role::Scale)],
        "LSTM" | "GRU" | "RNN" => vec![(1, Role::Weight), (2, Role::Weight), (3, Role::Bias)],
        "PRelu" => vec![(1, Role::Slope)],
        "Gather" if Attributes::of(node).int("axis", 0)? == 0 => {
            let table = node.input.first().is_some_and(|n| constants.rank(n) >= 2);
            if table { vec![(0, Role::Embedding)] } else { Vec::new() }
        }
        op @ ("Add" | "Mul") => {
            let role = if op == "Add" { Role::Bias } else { Role::Scale };
            let slot = if is_live(0) { 1 } else { 0 };
            let other = 1 - slot;
            let tensor = node.input.get(slot).is_some_and(|n| constants.is_bias_like(n));
            if is_live(other) && tensor { vec![(slot, role)] } else { Vec::new() }
        }
        _ => Vec::new(),
    })
}

/// Values that depend on a graph input (one that is no initializer).
fn data_path(graph: &pb::GraphProto) -> HashSet<&str> {
    let initialized: HashSet<&str> = graph.initializer.iter().map(|t| t.name()).collect();
    let mut live: HashSet<&str> = graph.input.iter().map(|v| v.name()).filter(|n| !initialized.contains(n)).collect();
    for node in &graph.node {
        // Shapes are numbers about the data, not the data.
        if matches!(node.op_type(), "Shape" | "Size") {
            continue;
        }
        if node.input.iter().any(|i| live.contains(i.as_str())) {
            live.extend(node.output.iter().filter(|o| !o.is_empty()).map(String::as_str));
        }
    }
    live
}

/// Float constants of the graph, and the nodes between them and their readers that only move elements: exporters cut the weights of
/// recurrent layers apart and put them together again.
struct Constants<'g> {
    facts: HashMap<&'g str, Fact>,
    /// Output of such a node to what its elements come from.
    behind: HashMap<&'g str, &'g [String]>,
}

struct Fact {
    rank: usize,
    numel: usize,
    mask: bool,
}

impl<'g> Constants<'g> {
    fn of(graph: &'g pb::GraphProto) -> Result<Self, ModelError> {
        let mut facts = HashMap::new();
        let float = Element::F32.to_onnx();
        for proto in graph.initializer.iter().filter(|t| t.data_type() == float) {
            facts.insert(proto.name(), Fact::of(&read_tensor(proto)?));
        }
        let mut behind = HashMap::new();
        for node in &graph.node {
            let Some(output) = node.output.first() else { continue };
            if is_float_constant(node) {
                if let Some(tensor) = constant(node)? {
                    facts.insert(output.as_str(), Fact::of(&tensor));
                }
                continue;
            }
            let moved = match node.op_type() {
                "Concat" => &node.input[..],
                "Transpose" | "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Slice" | "Split" => {
                    node.input.get(..1).unwrap_or_default()
                }
                _ => continue,
            };
            behind.extend(node.output.iter().map(|output| (output.as_str(), moved)));
        }
        Ok(Self { facts, behind })
    }

    /// The constants that `name` is or comes from, each once.
    fn origins(&self, name: &'g str) -> Vec<&'g str> {
        let (mut found, mut seen, mut open) = (Vec::new(), HashSet::from([name]), vec![name]);
        while let Some(name) = open.pop() {
            if self.facts.contains_key(name) {
                found.push(name);
            }
            let behind = self.behind.get(name).into_iter().flat_map(|names| names.iter().map(String::as_str));
            open.extend(behind.filter(|name| seen.insert(*name)));
        }
        found
    }

    fn rank(&self, name: &'g str) -> usize {
        self.origins(name).iter().map(|origin| self.facts[origin].rank).max().unwrap_or(0)
    }

    fn is_bias_like(&self, name: &'g str) -> bool {
        let origins = self.origins(name);
        !origins.is_empty() && origins.iter().all(|origin| self.facts[origin].numel > 1 && !self.facts[origin].mask)
    }
}

impl Fact {
    fn of(tensor: &crate::Tensor) -> Self {
        let mask = tensor.as_f32().is_some_and(|v| v.iter().any(|v| v.is_nan() || v.abs() >= MASK));
        Self { rank: tensor.shape.len(), numel: tensor.numel(), mask }
    }
}

/// Whether a `Constant` node holds f32 values (not f64, which are read as f32).
fn is_float_constant(node: &pb::NodeProto) -> bool {
    node.op_type() == "Constant"
        && node.attribute.iter().any(|a| match a.name() {
            "value" => a.t.as_ref().is_some_and(|t| t.data_type() == Element::F32.to_onnx()),
            "value_floats" => true,
            _ => false,
        })
}

//! Writes the quantized graph: constants ([`super::constants`]) and their `DequantizeLinear`
//! first, then the nodes in order, each quantized value followed by its Q/DQ pair.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Target;
use super::arithmetic::{Affine, around_zero, asymmetric};
use super::mark::{Mark, Marks};
use crate::ModelError;
use crate::onnx::edit::{fresh, names, sweep};
use crate::onnx::{Model, make, pb, write_tensor};
use crate::tensor::{Tensor, TensorData};

pub(super) fn emit(marks: Marks, target: Target) -> Result<Model, ModelError> {
    let Marks { mut model, values, biases, ranges, .. } = marks;
    let graph = model.graph.take().ok_or(ModelError::MissingGraph)?;
    let mut emitter = Emitter::new(graph, ranges, target);
    emitter.activations(&values)?;
    emitter.operands(&values)?;
    emitter.pairs(&values);
    emitter.weights(&values, &biases)?;
    emitter.biases(&biases)?;
    model.graph = Some(emitter.finish());
    Model::new(model)
}

/// Names of the initializers with a value's scale and zero point.
#[derive(Clone)]
pub(super) struct Parameters {
    pub(super) scale: String,
    pub(super) zero: String,
}

pub(super) struct Emitter {
    pub(super) graph: pb::GraphProto,
    ranges: BTreeMap<String, (f32, f32)>,
    pub(super) target: Target,
    pub(super) taken: HashSet<String>,
    initializers: Vec<pb::TensorProto>,
    /// `DequantizeLinear` of constants.
    pub(super) head: Vec<pb::NodeProto>,
    /// Quantized values that nodes or the caller make.
    pairs: BTreeMap<String, Parameters>,
    /// What readers read instead of a value.
    pub(super) instead: HashMap<String, String>,
    /// Parameters that belong to one value, and that others may share.
    pub(super) parameters: HashMap<String, Parameters>,
    /// One scale, or one for each channel, of each value.
    pub(super) scales: HashMap<String, Vec<f32>>,
}

impl Emitter {
    fn new(graph: pb::GraphProto, ranges: BTreeMap<String, (f32, f32)>, target: Target) -> Self {
        Self {
            taken: names(&graph),
            graph,
            ranges,
            target,
            initializers: Vec::new(),
            head: Vec::new(),
            pairs: BTreeMap::new(),
            instead: HashMap::new(),
            parameters: HashMap::new(),
            scales: HashMap::new(),
        }
    }

    pub(super) fn add(&mut self, name: String, shape: Vec<usize>, data: TensorData) -> String {
        let name = fresh(name, &mut self.taken);
        self.initializers.push(write_tensor(&name, &Tensor { shape, data }));
        name
    }

    /// Parameters of the values that are computed and have a range of their own.
    fn activations(&mut self, values: &BTreeMap<String, Mark>) -> Result<(), ModelError> {
        let constant: HashSet<String> = self.graph.initializer.iter().map(|t| t.name().to_owned()).collect();
        for name in values.keys().filter(|name| !constant.contains(*name)) {
            let source = provider(name, values);
            if constant.contains(source) {
                continue;
            }
            let affine = self.affine(source)?;
            if !self.parameters.contains_key(source) {
                let parameters = self.parameters(source, affine);
                self.parameters.insert(source.to_owned(), parameters);
                self.scales.insert(source.to_owned(), vec![affine.scale]);
            }
        }
        Ok(())
    }

    /// Which parameters each computed value uses; those of a constant are known by now.
    fn pairs(&mut self, values: &BTreeMap<String, Mark>) {
        let constant: HashSet<String> = self.graph.initializer.iter().map(|t| t.name().to_owned()).collect();
        for name in values.keys().filter(|name| !constant.contains(*name)) {
            let source = provider(name, values);
            if let (Some(parameters), Some(scales)) = (self.parameters.get(source), self.scales.get(source)) {
                self.pairs.insert(name.clone(), parameters.clone());
                self.scales.insert(name.clone(), scales.clone());
            }
        }
    }

    /// Adds a scale and a zero point for 8-bit activations.
    pub(super) fn parameters(&mut self, name: &str, affine: Affine) -> Parameters {
        let zero = if self.target.symmetric() { TensorData::I8(vec![0]) } else { TensorData::U8(vec![affine.zero as u8]) };
        Parameters {
            scale: self.add(format!("{name}_scale"), vec![], TensorData::F32(vec![affine.scale])),
            zero: self.add(format!("{name}_zero_point"), vec![], zero),
        }
    }

    fn affine(&self, name: &str) -> Result<Affine, ModelError> {
        let Some((min, max)) = self.ranges.get(name) else {
            return Err(ModelError::Calibration {
                tensor: name.to_owned(),
                reason: "it has no finite range; calibrate this very model".into(),
            });
        };
        Ok(if self.target.symmetric() { around_zero(*min, *max, 127) } else { asymmetric(*min, *max, 255) })
    }

    /// The nodes of the new graph.
    fn finish(mut self) -> pb::GraphProto {
        let outputs: HashSet<String> = self.graph.output.iter().map(|o| o.name().to_owned()).collect();
        let inputs: HashSet<String> = self.graph.input.iter().map(|i| i.name().to_owned()).collect();
        // Values that the caller reads keep their name behind the pair, others before it.
        let mut before: HashMap<String, String> = HashMap::new();
        let names: Vec<String> = self.pairs.keys().cloned().collect();
        for name in names {
            if outputs.contains(&name) && !inputs.contains(&name) {
                let moved = fresh(format!("{name}_QuantizeLinear_Input"), &mut self.taken);
                before.insert(name, moved);
            } else {
                let read = fresh(format!("{name}_DequantizeLinear_Output"), &mut self.taken);
                self.instead.insert(name, read);
            }
        }
        let mut nodes = std::mem::take(&mut self.head);
        let fed: Vec<String> = self.graph.input.iter().map(|i| i.name().to_owned()).collect();
        for name in fed {
            self.pair(&name, &before, &mut nodes);
        }
        for mut node in std::mem::take(&mut self.graph.node) {
            let made = node.output.clone();
            for input in &mut node.input {
                if let Some(new) = self.instead.get(input.as_str()) {
                    input.clone_from(new);
                }
            }
            for output in &mut node.output {
                if let Some(new) = before.get(output.as_str()) {
                    output.clone_from(new);
                }
            }
            nodes.push(node);
            for name in made {
                self.pair(&name, &before, &mut nodes);
            }
        }
        let mut graph = self.graph;
        graph.node = nodes;
        graph.initializer.extend(self.initializers);
        sweep(&mut graph);
        graph
    }

    /// `QuantizeLinear` and `DequantizeLinear` behind a value, if it is to be quantized.
    fn pair(&mut self, name: &str, before: &HashMap<String, String>, nodes: &mut Vec<pb::NodeProto>) {
        let Some(parameters) = self.pairs.get(name).cloned() else { return };
        let source = before.get(name).map_or(name, String::as_str);
        let target = self.instead.get(name).map_or(name, String::as_str);
        let quantized = fresh(format!("{name}_QuantizeLinear_Output"), &mut self.taken);
        let (scale, zero) = (parameters.scale.as_str(), parameters.zero.as_str());
        nodes.push(make::node("QuantizeLinear", &format!("{name}_QuantizeLinear"), &[source, scale, zero], &[&quantized], vec![]));
        nodes.push(make::node("DequantizeLinear", &format!("{name}_DequantizeLinear"), &[&quantized, scale, zero], &[target], vec![]));
    }
}

/// The value whose parameters `name` uses. Weights share none: most have a scale for each channel.
fn provider<'v>(name: &'v str, values: &'v BTreeMap<String, Mark>) -> &'v str {
    let mut source = name;
    // Each step goes to an earlier value of an acyclic graph, so this ends.
    while let Some(Mark::Like(other)) = values.get(source) {
        match values.get(other) {
            None | Some(Mark::Weight { .. }) => break,
            Some(_) => source = other,
        }
    }
    source
}

//! Writes the quantized graph: constants and their `DequantizeLinear` first, then the
//! nodes in order, each quantized value followed by its Q/DQ pair.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Target;
use super::arithmetic::{Affine, asymmetric, symmetric, to_i8, to_i32, to_u8, widen_for_bias};
use super::mark::{Bias, Mark, Marks};
use crate::ModelError;
use crate::onnx::edit::{fresh, names, sweep};
use crate::onnx::{Model, make, pb, read_tensor, write_tensor};
use crate::tensor::{Tensor, TensorData};

pub(super) fn emit(marks: Marks, target: Target) -> Result<Model, ModelError> {
    let Marks { mut model, values, biases, ranges, .. } = marks;
    let graph = model.graph.take().ok_or(ModelError::MissingGraph)?;
    let mut emitter = Emitter::new(graph, ranges, target);
    emitter.activations(&values)?;
    emitter.constants(&values, &biases)?;
    emitter.biases(&biases)?;
    model.graph = Some(emitter.finish());
    Model::new(model)
}

/// Names of the initializers with a value's scale and zero point.
#[derive(Clone)]
struct Parameters {
    scale: String,
    zero: String,
}

struct Emitter {
    graph: pb::GraphProto,
    ranges: BTreeMap<String, (f32, f32)>,
    target: Target,
    taken: HashSet<String>,
    initializers: Vec<pb::TensorProto>,
    /// `DequantizeLinear` of constants.
    head: Vec<pb::NodeProto>,
    /// Quantized values that nodes or the caller make.
    pairs: BTreeMap<String, Parameters>,
    /// What readers read instead of a value.
    instead: HashMap<String, String>,
    input_scales: HashMap<String, f32>,
    weight_scales: HashMap<String, Vec<f32>>,
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
            input_scales: HashMap::new(),
            weight_scales: HashMap::new(),
        }
    }

    fn constant(&self, name: &str) -> Result<Option<Tensor>, ModelError> {
        let found = self.graph.initializer.iter().find(|t| t.name() == name);
        let Some(tensor) = found.map(read_tensor).transpose()? else { return Ok(None) };
        let finite = tensor.as_f32().is_some_and(|v| v.iter().all(|v| v.is_finite()));
        if !finite {
            return Err(ModelError::BadTensor { tensor: name.to_owned(), reason: "it is not finite, so it cannot be quantized".into() });
        }
        Ok(Some(tensor))
    }

    fn add(&mut self, name: String, shape: Vec<usize>, data: TensorData) -> String {
        let name = fresh(name, &mut self.taken);
        self.initializers.push(write_tensor(&name, &Tensor { shape, data }));
        name
    }

    /// Scales of the values that are computed; those with parameters of their own first.
    fn activations(&mut self, values: &BTreeMap<String, Mark>) -> Result<(), ModelError> {
        let constant: HashSet<String> = self.graph.initializer.iter().map(|t| t.name().to_owned()).collect();
        let computed = |name: &&String| !constant.contains(*name);
        let mut own: HashMap<String, Parameters> = HashMap::new();
        for name in values.keys().filter(computed) {
            let source = provider(name, values, &constant);
            let parameters = match own.get(source) {
                Some(parameters) => parameters.clone(),
                None => {
                    let affine = self.affine(source)?;
                    let scale = TensorData::F32(vec![affine.scale]);
                    let zero = TensorData::U8(vec![affine.zero as u8]);
                    let parameters = Parameters {
                        scale: self.add(format!("{source}_scale"), vec![], scale),
                        zero: self.add(format!("{source}_zero_point"), vec![], zero),
                    };
                    own.insert(source.to_owned(), parameters.clone());
                    parameters
                }
            };
            self.input_scales.insert(name.clone(), self.affine(source)?.scale);
            self.pairs.insert(name.clone(), parameters);
        }
        Ok(())
    }

    fn affine(&self, name: &str) -> Result<Affine, ModelError> {
        let Some((min, max)) = self.ranges.get(name) else {
            return Err(ModelError::Calibration { tensor: name.to_owned(), reason: "it has no range; calibrate this very model".into() });
        };
        Ok(asymmetric(*min, *max, 255))
    }

    /// Quantizes weights and the constants of elementwise operators.
    fn constants(&mut self, values: &BTreeMap<String, Mark>, biases: &BTreeMap<String, Bias>) -> Result<(), ModelError> {
        for (name, mark) in values {
            let Some(tensor) = self.constant(name)? else { continue };
            match mark {
                Mark::Weight { axis } => self.weight(name, &tensor, *axis, biases)?,
                Mark::Activation | Mark::Like(_) => self.operand(name, &tensor),
            }
        }
        Ok(())
    }

    fn weight(&mut self, name: &str, tensor: &Tensor, axis: Option<usize>, biases: &BTreeMap<String, Bias>) -> Result<(), ModelError> {
        let values = tensor.as_f32().unwrap_or_default();
        let bound = if self.target.reduce_range() { 64 } else { 127 };
        let channels = axis.map_or(1, |axis| tensor.shape[axis]);
        let inner: usize = axis.map_or(values.len(), |axis| tensor.shape[axis + 1..].iter().product());
        let channel = |index: usize| index / inner.max(1) % channels.max(1);
        let mut largest = vec![0f32; channels];
        for (index, value) in values.iter().enumerate() {
            let channel = &mut largest[channel(index)];
            *channel = channel.max(value.abs());
        }
        let mut scales: Vec<f32> = largest.into_iter().map(|v| symmetric(std::iter::once(v), bound)).collect();
        for (bias_name, bias) in biases.iter().filter(|(_, b)| b.weight == name) {
            self.widen(&mut scales, bias_name, bias)?;
        }
        let quantized = values.iter().enumerate().map(|(i, v)| to_i8(*v, scales[channel(i)])).collect();
        let shape = axis.map_or_else(Vec::new, |_| vec![channels]);
        let data = self.add(format!("{name}_quantized"), tensor.shape.clone(), TensorData::I8(quantized));
        let zeros = TensorData::I8(vec![0; channels]);
        let parameters = Parameters {
            scale: self.add(format!("{name}_scale"), shape.clone(), TensorData::F32(scales.clone())),
            zero: self.add(format!("{name}_zero_point"), shape, zeros),
        };
        self.weight_scales.insert(name.to_owned(), scales);
        let output = fresh(format!("{name}_DequantizeLinear_Output"), &mut self.taken);
        self.dequantize_constant(name, &data, &parameters, &output, axis);
        self.instead.insert(name.to_owned(), output);
        Ok(())
    }

    fn widen(&self, scales: &mut [f32], bias_name: &str, bias: &Bias) -> Result<(), ModelError> {
        let Some(tensor) = self.constant(bias_name)? else { return Ok(()) };
        let Some(input) = self.input_scales.get(&bias.input) else { return Ok(()) };
        for (scale, value) in scales.iter_mut().zip(tensor.as_f32().unwrap_or_default()) {
            *scale = widen_for_bias(*scale, *input * bias.alpha, *value * bias.beta);
        }
        Ok(())
    }

    /// A constant operand of `Add` or `Mul`: U8 like the activations it meets.
    fn operand(&mut self, name: &str, tensor: &Tensor) {
        let values = tensor.as_f32().unwrap_or_default();
        let min = values.iter().copied().fold(f32::INFINITY, f32::min).min(0.0);
        let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max).max(0.0);
        let affine = asymmetric(min, max, if self.target.reduce_range() { 127 } else { 255 });
        let quantized = values.iter().map(|v| to_u8(*v, affine)).collect();
        let data = self.add(format!("{name}_quantized"), tensor.shape.clone(), TensorData::U8(quantized));
        let parameters = Parameters {
            scale: self.add(format!("{name}_scale"), vec![], TensorData::F32(vec![affine.scale])),
            zero: self.add(format!("{name}_zero_point"), vec![], TensorData::U8(vec![affine.zero as u8])),
        };
        let output = fresh(format!("{name}_DequantizeLinear_Output"), &mut self.taken);
        self.dequantize_constant(name, &data, &parameters, &output, None);
        self.instead.insert(name.to_owned(), output);
    }

    /// Biases: INT32 with the scale of the products they are added to.
    fn biases(&mut self, biases: &BTreeMap<String, Bias>) -> Result<(), ModelError> {
        for (name, bias) in biases {
            let (Some(tensor), Some(input), Some(weights)) =
                (self.constant(name)?, self.input_scales.get(&bias.input).copied(), self.weight_scales.get(&bias.weight).cloned())
            else {
                continue;
            };
            let scales: Vec<f32> = weights.iter().map(|w| input * w * bias.alpha).collect();
            let values = tensor.as_f32().unwrap_or_default();
            let quantized = values.iter().zip(&scales).map(|(v, s)| to_i32(v * bias.beta, *s)).collect();
            let channels = vec![scales.len()];
            let zeros = TensorData::I32(vec![0; scales.len()]);
            let data = self.add(format!("{name}_quantized"), channels.clone(), TensorData::I32(quantized));
            let parameters = Parameters {
                scale: self.add(format!("{name}_quantized_scale"), channels.clone(), TensorData::F32(scales)),
                zero: self.add(format!("{name}_quantized_zero_point"), channels, zeros),
            };
            // The float tensor goes, so its name is free for the dequantized one.
            self.graph.initializer.retain(|t| t.name() != name);
            self.dequantize_constant(name, &data, &parameters, name, Some(0));
        }
        Ok(())
    }

    fn dequantize_constant(&mut self, name: &str, data: &str, parameters: &Parameters, output: &str, axis: Option<usize>) {
        let attributes = axis.map(|axis| make::int("axis", axis as i64)).into_iter().collect();
        let inputs = [data, &parameters.scale, &parameters.zero];
        let node = format!("{name}_DequantizeLinear");
        self.head.push(make::node("DequantizeLinear", &node, &inputs, &[output], attributes));
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

/// The value whose parameters `name` uses.
fn provider<'v>(name: &'v str, values: &'v BTreeMap<String, Mark>, constant: &HashSet<String>) -> &'v str {
    let mut source = name;
    // Each step goes to an earlier value of an acyclic graph, so this ends.
    while let Some(Mark::Like(other)) = values.get(source) {
        if !values.contains_key(other) || constant.contains(other) {
            break;
        }
        source = other;
    }
    source
}

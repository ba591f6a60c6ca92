//! Dynamic quantization: weights are INT8 in the file, activations become U8 as they come.
//!
//! It needs no calibration, and suits matrix products whose activations have no range that
//! holds for all inputs: transformers and LSTMs. The operators are those that ONNX Runtime's
//! `quantize_dynamic` writes (`operators/matmul.py`, `lstm.py`, `gather.py`), with a scale
//! for each output channel; `DynamicQuantizeLSTM` is ONNX Runtime's own (domain
//! `com.microsoft`). There is none for GRU, which stays in float, as convolutions do: their
//! dynamic form is slower than float on CPUs.

use std::collections::{HashMap, HashSet};

use super::arithmetic::{asymmetric, symmetric, to_i8, to_u8};
use super::{Quantized, Target, passes};
use crate::ModelError;
use crate::onnx::edit::{fresh, names, sweep};
use crate::onnx::{Attributes, Element, Model, is_standard, label, make, pb, read_tensor, write_tensor};
use crate::tensor::{Tensor, TensorData};

/// Oldest opset with `DynamicQuantizeLinear`.
const OLDEST_OPSET: i64 = 11;
/// The domain of ONNX Runtime's own operators.
const MICROSOFT: &str = "com.microsoft";

/// Quantizes the constant weights of `MatMul`, `Gemm`, `LSTM` and `Gather`.
///
/// The result is for ONNX Runtime; [`crate::Forward`] computes no integer products.
///
/// # Errors
/// [`ModelError::Opset`] below opset 11, [`ModelError::BadTensor`] for weights that are not finite.
pub fn dynamic(model: &Model, target: Target) -> Result<Quantized, ModelError> {
    if model.opset() < OLDEST_OPSET {
        return Err(ModelError::Opset { found: model.opset(), oldest: OLDEST_OPSET, newest: crate::onnx::NEWEST_OPSET });
    }
    let mut proto = passes::prepare(model)?.into_proto();
    let mut graph = proto.graph.take().ok_or(ModelError::MissingGraph)?;
    let nodes = std::mem::take(&mut graph.node);
    let mut rewriter = Rewriter::new(graph, target);
    let (mut quantized_nodes, mut float_nodes) = (0, Vec::new());
    for node in nodes {
        if rewriter.rewrite(&node)? {
            quantized_nodes += 1;
        } else {
            float_nodes.push(label(&node));
            rewriter.nodes.push(node);
        }
    }
    let mut graph = rewriter.graph;
    graph.node = rewriter.nodes;
    graph.initializer.extend(rewriter.initializers);
    sweep(&mut graph);
    let own = graph.node.iter().any(|n| n.domain() == MICROSOFT);
    if own && proto.opset_import.iter().all(|o| o.domain() != MICROSOFT) {
        proto.opset_import.push(pb::OperatorSetIdProto { domain: Some(MICROSOFT.into()), version: Some(1) });
    }
    proto.graph = Some(graph);
    Ok(Quantized { model: Model::new(proto)?, quantized_nodes, float_nodes })
}

/// A quantized tensor: the names of its integers, its scale and its zero point.
#[derive(Clone)]
struct Parts {
    data: String,
    scale: String,
    zero: String,
}

struct Rewriter {
    /// Without its nodes.
    graph: pb::GraphProto,
    target: Target,
    nodes: Vec<pb::NodeProto>,
    initializers: Vec<pb::TensorProto>,
    taken: HashSet<String>,
    /// Activations that are quantized already.
    activations: HashMap<String, Parts>,
    /// Matrices that are quantized already, and whether they were transposed.
    weights: HashMap<(String, bool), Parts>,
}

impl Rewriter {
    fn new(graph: pb::GraphProto, target: Target) -> Self {
        let taken = names(&graph);
        let (nodes, initializers) = (Vec::new(), Vec::new());
        Self { graph, target, nodes, initializers, taken, activations: HashMap::new(), weights: HashMap::new() }
    }

    /// Adds what stands for a node; false if the node stays as it is.
    fn rewrite(&mut self, node: &pb::NodeProto) -> Result<bool, ModelError> {
        if !is_standard(node.domain()) {
            return Ok(false);
        }
        match node.op_type() {
            "MatMul" => self.product(node, false),
            "Gemm" => {
                let attributes = Attributes::of(node);
                let plain = attributes.float("alpha", 1.0)? == 1.0 && attributes.float("beta", 1.0)? == 1.0;
                let upright = attributes.int("transA", 0)? == 0;
                Ok(plain && upright && self.product(node, attributes.int("transB", 0)? == 1)?)
            }
            "LSTM" => self.lstm(node),
            "Gather" => self.gather(node),
            _ => Ok(false),
        }
    }

    /// `MatMulInteger`, then the product of both scales, then the bias of a `Gemm`.
    fn product(&mut self, node: &pb::NodeProto, transposed: bool) -> Result<bool, ModelError> {
        let [input, weight, ..] = &node.input[..] else { return Ok(false) };
        let Some(matrix) = self.constant(weight)?.filter(|t| t.shape.len() == 2) else { return Ok(false) };
        if self.is_constant(input) {
            return Ok(false);
        }
        let w = match self.weights.get(&(weight.clone(), transposed)) {
            Some(parts) => parts.clone(),
            None => {
                let matrix = if transposed { transpose(&matrix) } else { matrix };
                let parts = self.columns(weight, &matrix);
                self.weights.insert((weight.clone(), transposed), parts.clone());
                parts
            }
        };
        let x = self.activation(input);
        let output = &node.output[0];
        let bias = node.input.get(2).filter(|b| !b.is_empty());
        let [integers, cast, scale] = ["output_quantized", "output_quantized_cast_output", "scales_mul"].map(|s| format!("{output}_{s}"));
        let [integers, cast, scale] = [integers, cast, scale].map(|name| fresh(name, &mut self.taken));
        let product = match bias {
            Some(_) => fresh(format!("{output}_MatMul"), &mut self.taken),
            None => output.clone(),
        };
        let float = make::int("to", i64::from(Element::F32.to_onnx()));
        self.push("MatMulInteger", &[&x.data, &w.data, &x.zero, &w.zero], &integers, vec![]);
        self.push("Cast", &[&integers], &cast, vec![float]);
        self.push("Mul", &[&x.scale, &w.scale], &scale, vec![]);
        self.push("Mul", &[&cast, &scale], &product, vec![]);
        if let Some(bias) = bias {
            self.push("Add", &[&product, bias], output, vec![]);
        }
        Ok(true)
    }

    fn lstm(&mut self, node: &pb::NodeProto) -> Result<bool, ModelError> {
        let [_, w, r, ..] = &node.input[..] else { return Ok(false) };
        let (Some(input), Some(recurrent)) = (self.constant(w)?, self.constant(r)?) else { return Ok(false) };
        // ONNX Runtime's operator has no batch-first layout.
        if Attributes::of(node).int("layout", 0)? != 0 || input.shape.len() != 3 || recurrent.shape.len() != 3 {
            return Ok(false);
        }
        let (w, r) = (self.gates(w, &input), self.gates(r, &recurrent));
        let mut quantized = node.clone();
        quantized.input.resize(8, String::new());
        quantized.input[1] = w.data;
        quantized.input[2] = r.data;
        quantized.input.extend([w.scale, w.zero, r.scale, r.zero]);
        quantized.op_type = Some("DynamicQuantizeLSTM".into());
        quantized.domain = Some(MICROSOFT.into());
        quantized.attribute.retain(|a| a.name() != "layout");
        self.nodes.push(quantized);
        Ok(true)
    }

    /// A table of embeddings in U8; what is looked up is dequantized.
    fn gather(&mut self, node: &pb::NodeProto) -> Result<bool, ModelError> {
        let [table, indices] = &node.input[..] else { return Ok(false) };
        let Some(tensor) = self.constant(table)? else { return Ok(false) };
        if self.is_constant(indices) {
            return Ok(false);
        }
        let values = tensor.as_f32().unwrap_or_default();
        let (min, max) = values.iter().fold((0f32, 0f32), |(min, max), v| (min.min(*v), max.max(*v)));
        let affine = asymmetric(min, max, if self.target.reduce_range() { 127 } else { 255 });
        let data = TensorData::U8(values.iter().map(|v| to_u8(*v, affine)).collect());
        let table = self.parts(table, tensor.shape.clone(), data, vec![], vec![affine.scale], TensorData::U8(vec![affine.zero as u8]));
        let mut quantized = node.clone();
        let found = fresh(format!("{}_quantized", node.output[0]), &mut self.taken);
        quantized.input[0] = table.data;
        quantized.output[0].clone_from(&found);
        self.nodes.push(quantized);
        self.push("DequantizeLinear", &[&found, &table.scale, &table.zero], &node.output[0], vec![]);
        Ok(true)
    }

    /// A float constant with values.
    fn constant(&self, name: &str) -> Result<Option<Tensor>, ModelError> {
        let found = self.graph.initializer.iter().find(|t| t.name() == name && t.data_type() == Element::F32.to_onnx());
        let Some(tensor) = found.map(read_tensor).transpose()? else { return Ok(None) };
        if tensor.as_f32().is_some_and(|v| v.iter().all(|v| v.is_finite())) {
            return Ok(Some(tensor).filter(|t| t.numel() > 0));
        }
        Err(ModelError::BadTensor { tensor: name.to_owned(), reason: "it is not finite, so it cannot be quantized".into() })
    }

    fn is_constant(&self, name: &str) -> bool {
        self.graph.initializer.iter().any(|t| t.name() == name)
    }

    fn activation(&mut self, name: &str) -> Parts {
        if let Some(parts) = self.activations.get(name) {
            return parts.clone();
        }
        let [data, scale, zero] = ["quantized", "scale", "zero_point"].map(|part| format!("{name}_{part}"));
        let [data, scale, zero] = [data, scale, zero].map(|part| fresh(part, &mut self.taken));
        let node = format!("{name}_QuantizeLinear");
        self.nodes.push(make::node("DynamicQuantizeLinear", &node, &[name], &[&data, &scale, &zero], vec![]));
        let parts = Parts { data, scale, zero };
        self.activations.insert(name.to_owned(), parts.clone());
        parts
    }

    /// S8 with a scale for each column of `[read, written]`.
    fn columns(&mut self, name: &str, matrix: &Tensor) -> Parts {
        let width = matrix.shape[1];
        let (data, scales) = self.symmetric(matrix, width, |index| index % width);
        self.parts(name, matrix.shape.clone(), data, vec![width], scales, TensorData::I8(vec![0; width]))
    }

    /// S8 with a scale for each row of `[directions, 4 * hidden, read]`, each direction transposed.
    fn gates(&mut self, name: &str, tensor: &Tensor) -> Parts {
        let [directions, rows, read] = [tensor.shape[0], tensor.shape[1], tensor.shape[2]];
        let upright: Vec<f32> = tensor
            .as_f32()
            .unwrap_or_default()
            .chunks(rows * read)
            .flat_map(|matrix| (0..rows * read).map(move |i| matrix[i % rows * read + i / rows]))
            .collect();
        let upright = Tensor { shape: vec![directions, read, rows], data: TensorData::F32(upright) };
        let (data, scales) = self.symmetric(&upright, directions * rows, |index| index / (rows * read) * rows + index % rows);
        let zeros = TensorData::I8(vec![0; directions * rows]);
        self.parts(name, upright.shape, data, vec![directions, rows], scales, zeros)
    }

    fn symmetric(&self, tensor: &Tensor, channels: usize, channel: impl Fn(usize) -> usize) -> (TensorData, Vec<f32>) {
        let values = tensor.as_f32().unwrap_or_default();
        let bound = if self.target.reduce_range() { 64 } else { 127 };
        let mut largest = vec![0f32; channels];
        for (index, value) in values.iter().enumerate() {
            let most = &mut largest[channel(index)];
            *most = most.max(value.abs());
        }
        let scales: Vec<f32> = largest.into_iter().map(|most| symmetric(std::iter::once(most), bound)).collect();
        let quantized = values.iter().enumerate().map(|(index, value)| to_i8(*value, scales[channel(index)])).collect();
        (TensorData::I8(quantized), scales)
    }

    fn parts(&mut self, name: &str, dims: Vec<usize>, data: TensorData, shape: Vec<usize>, scales: Vec<f32>, zeros: TensorData) -> Parts {
        let mut add = |part: &str, shape: Vec<usize>, data: TensorData| {
            let name = fresh(format!("{name}_{part}"), &mut self.taken);
            self.initializers.push(write_tensor(&name, &Tensor { shape, data }));
            name
        };
        Parts {
            data: add("quantized", dims, data),
            scale: add("scale", shape.clone(), TensorData::F32(scales)),
            zero: add("zero_point", shape, zeros),
        }
    }

    fn push(&mut self, op: &str, inputs: &[&str], output: &str, attributes: Vec<pb::AttributeProto>) {
        self.nodes.push(make::node(op, &format!("{output}_{op}"), inputs, &[output], attributes));
    }
}

fn transpose(matrix: &Tensor) -> Tensor {
    let (rows, columns) = (matrix.shape[0], matrix.shape[1]);
    let values = matrix.as_f32().unwrap_or_default();
    let turned = (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect();
    Tensor { shape: vec![columns, rows], data: TensorData::F32(turned) }
}

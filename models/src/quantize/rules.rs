//! Which values each operator asks to be 8 bits.
//!
//! The rules are those of ONNX Runtime's QDQ quantizer (`onnxruntime/quantization/registry.py`, and the classes `QDQ*` in
//! `operators/*.py`) for all operators that `quantize_static` takes unless told otherwise.

use super::mark::Walk;
use crate::ModelError;
use crate::onnx::{Attributes, is_standard, pb, read_tensor};

impl Walk {
    /// Marks what node `index` reads and makes; false if the operator stays in float.
    pub(super) fn node(&mut self, index: usize) -> Result<bool, ModelError> {
        let node = self.graph.node[index].clone();
        let (Some(input), Some(output)) = (node.input.first(), node.output.first()) else { return Ok(false) };
        if !is_standard(node.domain()) {
            return Ok(false);
        }
        match node.op_type() {
            "Conv" => self.weighted(index, &node, 0),
            "ConvTranspose" => self.weighted(index, &node, 1),
            "Gemm" => {
                let axis = usize::from(Attributes::of(&node).int("transB", 0)? == 0);
                self.weighted(index, &node, axis)
            }
            "MatMul" => self.matmul(&node),
            "LayerNormalization" | "InstanceNormalization" | "BatchNormalization" => self.normalization(index, &node),
            "Add" | "Mul" | "Concat" | "GlobalAveragePool" | "LeakyRelu" | "Sigmoid" | "Softmax" | "ArgMax" | "CumSum" => {
                Ok(self.elementwise(&node))
            }
            "Relu" | "Clip" => Ok(self.clipping(index, input, output)),
            "MaxPool" | "AveragePool" | "Flatten" | "Reshape" | "Transpose" | "Squeeze" | "Unsqueeze" | "Slice" | "Resize" | "TopK" => {
                Ok(self.pass_through(input, output))
            }
            "Gather" | "GatherElements" => Ok(self.gather(input, output)),
            "Split" => Ok(self.split(&node)),
            "Pad" => self.pad(&node),
            "Where" => Ok(self.choice(&node)),
            _ => Ok(false),
        }
    }

    /// Whether Q/DQ pairs go behind what an operator makes, too.
    fn outputs(&mut self, node: &pb::NodeProto) {
        if self.target.quantizes_output(node.op_type()) {
            node.output.iter().for_each(|name| self.activate(name));
        }
    }

    /// `Conv` and `Gemm`: INT8 weights by channel and an INT32 bias.
    fn weighted(&mut self, index: usize, node: &pb::NodeProto, axis: usize) -> Result<bool, ModelError> {
        let (input, Some(weight)) = (&node.input[0], node.input.get(1)) else { return Ok(false) };
        self.need(&[input, &node.output[0]])?;
        self.activate(input);
        self.outputs(node);
        self.weight(weight, axis);
        self.bias(index, axis)?;
        Ok(true)
    }

    fn matmul(&mut self, node: &pb::NodeProto) -> Result<bool, ModelError> {
        self.need(&[&node.output[0]])?;
        for name in &node.input {
            self.need(&[name])?;
            self.weight(name, 1);
        }
        self.outputs(node);
        Ok(true)
    }

    /// One scale for all factors, and an INT32 bias.
    fn normalization(&mut self, index: usize, node: &pb::NodeProto) -> Result<bool, ModelError> {
        let (input, Some(factor)) = (&node.input[0], node.input.get(1)) else { return Ok(false) };
        self.need(&[input, &node.output[0]])?;
        self.activate(input);
        self.weight(factor, 1);
        self.bias(index, 0)?;
        self.outputs(node);
        Ok(true)
    }

    fn elementwise(&mut self, node: &pb::NodeProto) -> bool {
        // Arithmetic on shapes has no float values and stays as it is.
        if !node.input.iter().any(|name| self.is_float(name)) {
            return false;
        }
        node.input.iter().for_each(|name| self.activate(name));
        self.outputs(node);
        true
    }

    /// `Relu` and `Clip` vanish where the producer can write their output: a zero point that is no middle clips there.
    fn clipping(&mut self, index: usize, input: &str, output: &str) -> bool {
        if !self.is_marked(input) {
            return false;
        }
        if self.target.symmetric() || !self.absorb(index, input, output) {
            self.activate(input);
        }
        self.activate(output);
        true
    }

    /// Operators that only move values, or average them, keep their input's parameters.
    fn pass_through(&mut self, input: &str, output: &str) -> bool {
        if !self.is_marked(input) || !self.is_float(output) {
            return false;
        }
        self.activate_like(output, input);
        true
    }

    fn gather(&mut self, input: &str, output: &str) -> bool {
        if self.is_constant(input) {
            self.activate(input);
        }
        self.pass_through(input, output)
    }

    fn split(&mut self, node: &pb::NodeProto) -> bool {
        let input = &node.input[0];
        if !self.is_float(input) {
            return false;
        }
        self.activate(input);
        node.output.iter().for_each(|output| self.activate_like(output, input));
        true
    }

    /// Padding with 0 or with values of the input, needs no parameters of its own: every range holds 0.
    fn pad(&mut self, node: &pb::NodeProto) -> Result<bool, ModelError> {
        let (input, output) = (&node.input[0], &node.output[0]);
        if !self.is_float(input) {
            return Ok(false);
        }
        node.input.iter().for_each(|name| self.activate(name));
        let mode = Attributes::of(node).string("mode", "constant")?;
        let zero = match node.input.get(2).filter(|name| !name.is_empty()) {
            None => true,
            Some(name) => match self.graph.initializer.iter().find(|t| t.name() == name) {
                Some(tensor) => read_tensor(tensor)?.as_f32().is_some_and(|v| v.iter().all(|v| *v == 0.0)),
                None => false,
            },
        };
        if mode != "constant" || zero {
            self.activate_like(output, input);
        } else {
            self.activate(output);
        }
        Ok(true)
    }

    fn choice(&mut self, node: &pb::NodeProto) -> bool {
        let both = node.input.len() == 3 && node.input[1..].iter().all(|name| self.is_marked(name));
        if both {
            self.outputs(node);
        }
        both
    }
}

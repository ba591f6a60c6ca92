//! Weights, biases and other constants in integers.

use std::collections::BTreeMap;

use super::arithmetic::{around_zero, asymmetric, symmetric, to_i8, to_i32, to_u8, widen_for_bias};
use super::emit::{Emitter, Parameters};
use super::mark::{Bias, Mark};
use crate::ModelError;
use crate::onnx::{edit::fresh, make, read_tensor};
use crate::tensor::{Tensor, TensorData};

impl Emitter {
    fn constant(&self, name: &str) -> Result<Option<Tensor>, ModelError> {
        let found = self.graph.initializer.iter().find(|t| t.name() == name);
        let Some(tensor) = found.map(read_tensor).transpose()? else { return Ok(None) };
        let finite = tensor.as_f32().is_some_and(|v| v.iter().all(|v| v.is_finite()));
        if !finite {
            return Err(ModelError::BadTensor { tensor: name.to_owned(), reason: "it is not finite, so it cannot be quantized".into() });
        }
        Ok(Some(tensor))
    }

    /// Quantizes constants that are no weights.
    pub(super) fn operands(&mut self, values: &BTreeMap<String, Mark>) -> Result<(), ModelError> {
        for (name, _) in values.iter().filter(|(_, mark)| !matches!(mark, Mark::Weight { .. })) {
            if let Some(tensor) = self.constant(name)? {
                self.operand(name, &tensor);
            }
        }
        Ok(())
    }

    /// Quantizes weights, so that the biases added to their products fit.
    pub(super) fn weights(&mut self, values: &BTreeMap<String, Mark>, biases: &BTreeMap<String, Bias>) -> Result<(), ModelError> {
        for (name, mark) in values {
            let Mark::Weight { axis } = mark else { continue };
            if let Some(tensor) = self.constant(name)? {
                self.weight(name, &tensor, *axis, biases)?;
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
        self.scales.insert(name.to_owned(), scales);
        self.dequantize_constant(name, &data, &parameters, axis);
        Ok(())
    }

    fn widen(&self, scales: &mut [f32], bias_name: &str, bias: &Bias) -> Result<(), ModelError> {
        let Some(tensor) = self.constant(bias_name)? else { return Ok(()) };
        let Some(&[input]) = self.scales.get(&bias.input).map(Vec::as_slice) else { return Ok(()) };
        let channels = scales.len();
        for (index, value) in tensor.as_f32().unwrap_or_default().iter().enumerate() {
            let scale = &mut scales[index % channels];
            *scale = widen_for_bias(*scale, input * bias.alpha, *value * bias.beta);
        }
        Ok(())
    }

    /// A constant operand of `Add` or `Mul`, or what `Gather` reads: like the activations it meets.
    fn operand(&mut self, name: &str, tensor: &Tensor) {
        let values = tensor.as_f32().unwrap_or_default();
        let min = values.iter().copied().fold(f32::INFINITY, f32::min).min(0.0);
        let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max).max(0.0);
        let (affine, quantized) = if self.target.symmetric() {
            let affine = around_zero(min, max, 127);
            (affine, TensorData::I8(values.iter().map(|v| to_i8(*v, affine.scale)).collect()))
        } else {
            let affine = asymmetric(min, max, if self.target.reduce_range() { 127 } else { 255 });
            (affine, TensorData::U8(values.iter().map(|v| to_u8(*v, affine)).collect()))
        };
        let data = self.add(format!("{name}_quantized"), tensor.shape.clone(), quantized);
        let parameters = self.parameters(name, affine);
        self.dequantize_constant(name, &data, &parameters, None);
        self.parameters.insert(name.to_owned(), parameters);
        self.scales.insert(name.to_owned(), vec![affine.scale]);
    }

    /// Biases: INT32 with the scale of the products they are added to.
    pub(super) fn biases(&mut self, biases: &BTreeMap<String, Bias>) -> Result<(), ModelError> {
        for (name, bias) in biases {
            let (Some(tensor), Some(&[input]), Some(weights)) =
                (self.constant(name)?, self.scales.get(&bias.input).map(Vec::as_slice), self.scales.get(&bias.weight))
            else {
                continue;
            };
            let scales: Vec<f32> = weights.iter().map(|w| input * w * bias.alpha).collect();
            let values = tensor.as_f32().unwrap_or_default();
            let quantized = values.iter().enumerate().map(|(i, v)| to_i32(v * bias.beta, scales[i % scales.len()])).collect();
            let (axis, channels) = if scales.len() > 1 { (Some(0), vec![scales.len()]) } else { (None, vec![]) };
            let zeros = TensorData::I32(vec![0; scales.len()]);
            let data = self.add(format!("{name}_quantized"), tensor.shape.clone(), TensorData::I32(quantized));
            let parameters = Parameters {
                scale: self.add(format!("{name}_quantized_scale"), channels.clone(), TensorData::F32(scales)),
                zero: self.add(format!("{name}_quantized_zero_point"), channels, zeros),
            };
            // The float tensor goes, so its name is free for the dequantized one.
            self.graph.initializer.retain(|t| t.name() != name);
            self.dequantize(name, &data, &parameters, name, axis);
        }
        Ok(())
    }

    /// A `DequantizeLinear` of a constant, which its readers read instead.
    fn dequantize_constant(&mut self, name: &str, data: &str, parameters: &Parameters, axis: Option<usize>) {
        let output = fresh(format!("{name}_DequantizeLinear_Output"), &mut self.taken);
        self.dequantize(name, data, parameters, &output, axis);
        self.instead.insert(name.to_owned(), output);
    }

    fn dequantize(&mut self, name: &str, data: &str, parameters: &Parameters, output: &str, axis: Option<usize>) {
        let attributes = axis.map(|axis| make::int("axis", axis as i64)).into_iter().collect();
        let inputs = [data, &parameters.scale, &parameters.zero];
        let node = format!("{name}_DequantizeLinear");
        self.head.push(make::node("DequantizeLinear", &node, &inputs, &[output], attributes));
    }
}

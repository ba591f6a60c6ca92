//! Weights in 16-bit floats, each behind a `Cast` to f32.
//!
//! Computing stays in f32, so every runtime and operator takes the graph, inputs and outputs
//! keep their types, and no sum overflows; the file is half as large. A graph that computes
//! in f16 would be no faster on CPUs, whose runtimes cast around each operator, and engines
//! for GPUs choose f16 by themselves when they are told to.

use super::{Quantized, passes};
use crate::ModelError;
use crate::onnx::edit::{fresh, names};
use crate::onnx::{Element, Model, label, make, pb, read_tensor};

/// Tensors with fewer values save less than their `Cast` costs.
const SMALLEST: usize = 64;

/// Largest finite f16.
const LARGEST: f32 = 65_504.0;

/// Stores the f32 constants as f16. Those with a value beyond 65,504 stay as they are.
///
/// # Errors
/// [`ModelError::BadTensor`] for a constant that cannot be read.
pub fn half(model: &Model) -> Result<Quantized, ModelError> {
    let mut proto = passes::prepare(model)?.into_proto();
    let graph = proto.graph.as_mut().ok_or(ModelError::MissingGraph)?;
    let mut taken = names(graph);
    let float_nodes = graph.node.iter().map(label).collect();
    let mut casts = Vec::new();
    for proto in graph.initializer.iter_mut().filter(|t| t.data_type() == Element::F32.to_onnx()) {
        let tensor = read_tensor(proto)?;
        let values = tensor.as_f32().unwrap_or_default();
        if values.len() < SMALLEST || values.iter().any(|v| v.is_nan() || v.abs() > LARGEST) {
            continue;
        }
        let name = proto.name().to_owned();
        let stored = fresh(format!("{name}_half"), &mut taken);
        *proto = pb::TensorProto {
            name: Some(stored.clone()),
            dims: proto.dims.clone(),
            data_type: Some(Element::F16.to_onnx()),
            raw_data: Some(values.iter().flat_map(|v| to_half(*v).to_le_bytes()).collect()),
            ..Default::default()
        };
        let float = make::int("to", i64::from(Element::F32.to_onnx()));
        casts.push(make::node("Cast", &format!("{name}_Cast"), &[&stored], &[&name], vec![float]));
    }
    casts.append(&mut graph.node);
    graph.node = casts;
    Ok(Quantized { model: Model::new(proto)?, quantized_nodes: 0, float_nodes })
}

/// The nearest f16, half to even, as bits.
fn to_half(value: f32) -> u16 {
    let sign = (value.to_bits() >> 16) as u16 & 0x8000;
    let size = value.abs();
    if size < 2f32.powi(-14) {
        // Steps of 2^-24; 1024 of them are the first normal number's bits, too.
        return sign | (size * 2f32.powi(24)).round_ties_even() as u16;
    }
    let bits = size.to_bits();
    let kept = bits >> 13;
    let (rest, tie) = (bits & 0x1fff, 0x1000);
    let up = u32::from(rest > tie || (rest == tie && kept & 1 == 1));
    // The exponent's bias goes from 127 to 15; a carry raises it, as it should.
    sign | (kept + up - (112 << 10)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Forward, Tensor, TensorData, zoo};

    #[test]
    fn every_half_comes_back_and_others_go_to_the_nearest() {
        let back = |bits: u16| {
            let proto = pb::TensorProto {
                name: Some("h".into()),
                data_type: Some(Element::F16.to_onnx()),
                raw_data: Some(bits.to_le_bytes().to_vec()),
                ..Default::default()
            };
            read_tensor(&proto).unwrap().as_f32().unwrap()[0]
        };
        for bits in (0..0x7c00u16).chain(0x8000..0xfc00) {
            assert_eq!(to_half(back(bits)), bits, "{}", back(bits));
        }
        for bits in 0..0x7bffu16 {
            let (low, high) = (back(bits), back(bits + 1));
            let middle = low + (high - low) / 2.0;
            assert_eq!(to_half(middle), bits + (bits & 1), "a tie between {low} and {high}");
            assert_eq!(to_half(f32::from_bits(middle.to_bits() - 1)), bits);
            assert_eq!(to_half(f32::from_bits(middle.to_bits() + 1)), bits + 1);
        }
    }

    #[test]
    fn the_file_is_half_as_large_and_answers_nearly_the_same() {
        let model = zoo::mlp(64, &[64], 10, 3);
        let halved = half(&model).unwrap().model;
        assert!(halved.encode().len() * 100 < model.encode().len() * 56, "{} of {}", halved.encode().len(), model.encode().len());
        assert_eq!((halved.inputs(), halved.outputs()), (model.inputs(), model.outputs()));
        let x = Tensor { shape: vec![4, 64], data: TensorData::F32((0..256).map(|i| (i as f32 * 0.3).sin()).collect()) };
        let run = |model: &Model| Forward::new(model).unwrap().run(&[("input", x.clone())]).unwrap()[0].1.as_f32().unwrap().to_vec();
        for (a, b) in run(&halved).iter().zip(run(&model)) {
            assert!((a - b).abs() < 2e-3, "{a} {b}");
        }
    }
}

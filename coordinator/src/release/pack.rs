//! The parts of a bundle. They depend on the run alone, not on a clock: built again, they have the same bytes.

use std::collections::BTreeMap;

use sapwood_models::{Dim, Element, ModelError, Tensor, TensorData, ValueInfo};
use sapwood_protocol::{
    release::{
        Parts, RuntimeVersion, bundle,
        documents::{self, Config, Field, Postprocess, Schema},
        golden::{self, Array},
    },
    spec::Spec,
};

use super::{ReleaseError, candidate::BUILDER, export::Exported, score::Pipeline};

/// Largest difference of an output on another processor, as a share of the largest output: integer kernels round
/// differently, by a few steps of 1/255.
const GOLDEN_TOLERANCE: f64 = 0.02;

/// The first examples of the calibration data, and the answers that the release gives to them.
pub(super) struct Golden {
    /// In the order in which the graph has them.
    pub(super) inputs: Vec<Array>,
    pub(super) outputs: Array,
    pub(super) tolerance: f64,
}

impl Golden {
    pub(super) fn of(pipeline: &mut Pipeline, exported: &Exported, wanted: u32) -> Result<Self, ReleaseError> {
        let rows: Vec<usize> = (0..exported.calibration.len().min(wanted.max(1) as usize)).collect();
        let x = exported.calibration.x.take_rows(&rows);
        let outputs = array(pipeline.answers(&x)?)?;
        let largest = outputs.values().iter().fold(0.0_f64, |most, value| most.max(f64::from(value.abs())));
        let inputs = x.feed(exported.inputs.iter().map(|input| (input.name.as_str(), Element::F32))).map_err(ModelError::from)?;
        let inputs = inputs.into_iter().map(|(_, tensor)| array(tensor)).collect::<Result<_, _>>()?;
        Ok(Self { inputs, outputs, tolerance: GOLDEN_TOLERANCE * largest.max(1e-3) })
    }

    /// Outputs for one example.
    fn width(&self) -> usize {
        self.outputs.shape().last().copied().unwrap_or(1)
    }

    pub(super) fn examples(&self) -> usize {
        self.outputs.shape().first().copied().unwrap_or(0)
    }
}

fn array(tensor: Tensor) -> Result<Array, ReleaseError> {
    let Tensor { shape, data: TensorData::F32(values) } = tensor else {
        return Err(ReleaseError::setting("release.golden", "inputs and outputs must be of type float"));
    };
    Ok(Array::new(shape, values)?)
}

/// Everything that goes into the bundle.
pub(super) fn parts(
    spec: &Spec,
    exported: &Exported,
    golden: &Golden,
    card: String,
    min_onnxruntime: RuntimeVersion,
    measured_onnxruntime: &str,
) -> Result<Parts, ReleaseError> {
    let schema = Schema {
        schema: "sapwood/schema/v1".into(),
        inputs: exported.inputs.iter().map(field).collect(),
        outputs: exported.model().outputs().iter().map(field).collect(),
        features: exported.features.clone(),
    };
    let config = Config {
        schema: "sapwood/config/v1".into(),
        postprocess: Postprocess::of(&spec.release.postprocess, &spec.model.loss, golden.width())?,
        thresholds: BTreeMap::new(),
        golden_tolerance: golden.tolerance,
    };
    let settings = documents::Runtime {
        schema: "sapwood/runtime/v1".into(),
        min_onnxruntime,
        measured_onnxruntime: measured_onnxruntime.to_owned(),
        opset: exported.model().opset(),
        execution_providers: vec!["cpu".into()],
        threads: 1,
        exporter: BUILDER.into(),
        quantizer: exported.quantizer().cloned(),
    };
    let mut parts = Parts::new();
    parts.insert(bundle::MODEL, exported.model_bytes().to_vec())?;
    if let Some(bytes) = exported.preprocess_bytes() {
        parts.insert(bundle::PREPROCESS, bytes.to_vec())?;
    }
    parts.insert(documents::SCHEMA, documents::to_bytes(&schema))?;
    parts.insert(documents::CONFIG, documents::to_bytes(&config))?;
    parts.insert(documents::RUNTIME, documents::to_bytes(&settings))?;
    parts.insert(documents::CARD, card.into_bytes())?;
    for (index, array) in golden.inputs.iter().enumerate() {
        parts.insert(&golden::input(index, golden.inputs.len()), array.to_npy())?;
    }
    parts.insert(golden::OUTPUTS, golden.outputs.to_npy())?;
    Ok(parts)
}

/// A graph's input or output in the words of the Open Inference Protocol.
fn field(info: &ValueInfo) -> Field {
    let datatype = match info.element {
        Element::F32 => "FP32",
        Element::F64 => "FP64",
        Element::F16 => "FP16",
        Element::I8 => "INT8",
        Element::U8 => "UINT8",
        Element::I32 => "INT32",
        Element::I64 => "INT64",
        Element::Bool => "BOOL",
        _ => "BYTES",
    };
    let axis = |dim: &Dim| match dim {
        Dim::Fixed(extent) => i64::try_from(*extent).unwrap_or(-1),
        Dim::Symbol(_) => -1,
    };
    Field { name: info.name.clone(), datatype: datatype.into(), shape: info.shape.iter().map(axis).collect() }
}

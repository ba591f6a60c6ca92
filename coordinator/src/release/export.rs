//! The model's two forms: float, with the run's parameters in it, and integer, for one class of devices. One of them is shipped.

use sapwood_data::Schema;
use sapwood_models::{
    Dataset, Model, ValueInfo, compose, lora, parameters,
    quantize::{self, Calibrator, Quantized, Ranges, Shift, Target},
    write_back,
};
use sapwood_protocol::{
    DeviceClass, Digest,
    release::documents::{FeatureSchema, Quantizer},
    spec::Spec,
};

use super::{BuildJob, ReleaseError, evaluate::floats, sources};
use crate::objects::Objects;

/// Examples on which each operator's loss is taken; every value of theirs is kept in memory.
const SENSITIVITY_EXAMPLES: usize = 32;
/// Examples of the evaluation data that are compared with the calibration data.
const COMPARED: usize = 256;

/// Graphs as files, and what was learned while they were made.
pub(super) struct Exported {
    /// In front of the model, if there is one.
    pub(super) preprocess: Option<(Model, Vec<u8>)>,
    pub(super) fp32: Vec<u8>,
    pub(super) int8: Vec<u8>,
    /// The float form is shipped, because the integer form gains nothing.
    pub(super) keeps_float: bool,
    /// Both forms, as they were written.
    float: Model,
    integer: Model,
    ranges: Ranges,
    target: Target,
    quantizer: Quantizer,
    /// What the graph in front and the model read together: all but what the one makes for the other.
    pub(super) inputs: Vec<ValueInfo>,
    /// What the run's data had to be.
    pub(super) schema: Option<Schema>,
    /// The same, as it is shipped.
    pub(super) features: Option<FeatureSchema>,
    /// The public data that calibrated it.
    pub(super) calibration: Dataset,
    /// Where the evaluation data are spread otherwise.
    pub(super) shifts: Vec<Shift>,
}

impl Exported {
    pub(super) fn of(job: &BuildJob<'_>, class: &DeviceClass) -> Result<Self, ReleaseError> {
        let (model, preprocess) = graphs(job.objects, job.model, job.preprocess)?;
        let params = floats(&job.objects.read(job.params)?)?;
        let (layout, _) = parameters(&model, &job.spec.model.freeze)?;
        let fp32 = lora::merge(&write_back(&model, &layout, &params)?)?;
        let schema = sources::schema(job.schema, job.objects)?;
        let calibration = calibration_data(job.spec, schema.as_ref(), job.objects)?;
        let x = sources::prepared(preprocess.as_ref(), &calibration.x)?;
        let target = target(class)?;
        let ranges = quantize::ranges(&fp32, &x, Calibrator::MinMax)?;
        let int8 = quantize::quantize(&fp32, &ranges, target)?;
        let shifts = match job.spec.evaluate.data {
            None => Vec::new(),
            Some(_) => {
                let seen = evaluation_data(job.spec, schema.as_ref(), job.objects)?.x;
                let seen = seen.take_rows(&(0..seen.rows().min(COMPARED)).collect::<Vec<_>>());
                quantize::shifts(&fp32, &x, &ranges, &sources::prepared(preprocess.as_ref(), &seen)?)?
            }
        };
        let quantizer = Quantizer {
            format: "QDQ".into(),
            activations: if target == Target::JetsonTensorRt { "int8 per tensor, symmetric" } else { "uint8 per tensor, asymmetric" }
                .into(),
            weights: "int8 per channel, symmetric".into(),
            calibration: "min-max".into(),
            calibration_examples: calibration.len(),
            target: class.to_string(),
            quantized_nodes: int8.quantized_nodes,
            float_nodes: int8.float_nodes,
        };
        let inputs = read(&fp32, preprocess.as_ref())?;
        sources::fits(schema.as_ref(), &inputs)?;
        Ok(Self {
            inputs,
            features: sources::document(job.schema, schema.as_ref()),
            schema,
            preprocess: preprocess.map(|graph| {
                let bytes = graph.encode();
                (graph, bytes)
            }),
            fp32: fp32.encode(),
            int8: int8.model.encode(),
            keeps_float: false,
            float: fp32,
            integer: int8.model,
            ranges,
            target,
            quantizer,
            calibration,
            shifts,
        })
    }

    /// Leaves in float, one more at a time, the operators whose 8 bits cost most, until `holds` says yes to the graph in
    /// front and the integer form, as files. Where it never does, nothing changes.
    pub(super) fn mix(&mut self, mut holds: impl FnMut(Option<&[u8]>, &[u8]) -> Result<bool, ReleaseError>) -> Result<bool, ReleaseError> {
        let rows: Vec<usize> = (0..self.calibration.len().min(SENSITIVITY_EXAMPLES)).collect();
        let x = sources::prepared(self.preprocess.as_ref().map(|(graph, _)| graph), &self.calibration.x.take_rows(&rows))?;
        let found = quantize::sensitivity(&self.float, &self.ranges, self.target, &x)?;
        let order: Vec<String> = found.nodes.into_iter().map(|node| node.node).collect();
        let mixed = quantize::mixed(&self.float, &self.ranges, self.target, &order, |int8| holds(self.preprocess_bytes(), &int8.encode()))?;
        let Some(Quantized { model, quantized_nodes, float_nodes }) = mixed else { return Ok(false) };
        self.int8 = model.encode();
        self.integer = model;
        self.quantizer = Quantizer { quantized_nodes, float_nodes, ..self.quantizer.clone() };
        Ok(true)
    }

    /// The file of the graph in front.
    pub(super) fn preprocess_bytes(&self) -> Option<&[u8]> {
        self.preprocess.as_ref().map(|(_, bytes)| bytes.as_slice())
    }

    /// The graph that is shipped.
    pub(super) fn model(&self) -> &Model {
        if self.keeps_float { &self.float } else { &self.integer }
    }

    /// Its file.
    pub(super) fn model_bytes(&self) -> &[u8] {
        if self.keeps_float { &self.fp32 } else { &self.int8 }
    }

    /// How it was quantized, if it was.
    pub(super) fn quantizer(&self) -> Option<&Quantizer> {
        Some(&self.quantizer).filter(|_| !self.keeps_float)
    }
}

/// What both read together, as nodes join them.
pub(super) fn read(model: &Model, preprocess: Option<&Model>) -> Result<Vec<ValueInfo>, ReleaseError> {
    Ok(match preprocess {
        None => model.inputs(),
        Some(graph) => compose(graph, model)?.inputs(),
    })
}

/// The run's model, and the graph in front of it.
pub(super) fn graphs(objects: &Objects, model: Digest, preprocess: Option<Digest>) -> Result<(Model, Option<Model>), ReleaseError> {
    let read = |digest| Ok::<_, ReleaseError>(Model::decode(&objects.read(digest)?)?);
    Ok((read(model)?, preprocess.map(read).transpose()?))
}

/// What releases are judged on.
pub(super) fn evaluation_data(spec: &Spec, schema: Option<&Schema>, objects: &Objects) -> Result<Dataset, ReleaseError> {
    const KEY: &str = "evaluate.data";
    let missing = || ReleaseError::setting(KEY, "missing; name the data that releases are judged on");
    sources::declared(KEY, spec.evaluate.data.as_deref().ok_or_else(missing)?, schema, objects)
}

/// What calibrates the quantizer.
pub(super) fn calibration_data(spec: &Spec, schema: Option<&Schema>, objects: &Objects) -> Result<Dataset, ReleaseError> {
    const KEY: &str = "release.calibration";
    let missing = || ReleaseError::setting(KEY, "missing; name public data that calibrates the quantizer");
    sources::declared(KEY, spec.release.calibration.as_deref().ok_or_else(missing)?, schema, objects)
}

/// The quantizer's target for a class of devices.
pub(super) fn target(class: &DeviceClass) -> Result<Target, ReleaseError> {
    let found = Target::ALL.into_iter().find(|target| target.name() == class.as_str());
    found.ok_or_else(|| {
        let names = Target::ALL.map(Target::name).join(", ");
        ReleaseError::setting("device class", format_args!("{class} has no quantizer; known are {names}"))
    })
}

//! The model's two forms: float, with the run's parameters in it, and integer, for one class of devices.

use sapwood_models::{
    Dataset, Model, parameters,
    quantize::{self, Target},
    write_back,
};
use sapwood_protocol::{DeviceClass, Digest, release::documents::Quantizer, spec::Spec};

use super::{BuildJob, ReleaseError, evaluate::floats, sources};
use crate::objects::Objects;

/// Graphs as files, and what was learned while they were made.
pub(super) struct Exported {
    /// In front of the model, if there is one.
    pub(super) preprocess: Option<(Model, Vec<u8>)>,
    pub(super) fp32: Vec<u8>,
    pub(super) int8: Vec<u8>,
    /// The integer form, as it was written.
    pub(super) model: Model,
    pub(super) quantizer: Quantizer,
    /// The public data that calibrated it.
    pub(super) calibration: Dataset,
}

impl Exported {
    pub(super) fn of(job: &BuildJob<'_>, class: &DeviceClass) -> Result<Self, ReleaseError> {
        let (model, preprocess) = graphs(job.objects, job.model, job.preprocess)?;
        let params = floats(&job.objects.read(job.params)?)?;
        let (layout, _) = parameters(&model, &job.spec.model.freeze)?;
        let fp32 = write_back(&model, &layout, &params)?;
        let calibration = calibration_data(job.spec, job.objects)?;
        let x = sources::prepared(preprocess.as_ref(), &calibration.x)?;
        let int8 = quantize::quantize(&fp32, &quantize::ranges(&fp32, &x, quantize::Calibrator::MinMax)?, target(class)?)?;
        let quantizer = Quantizer {
            format: "QDQ".into(),
            activations: "uint8 per tensor, asymmetric".into(),
            weights: "int8 per channel, symmetric".into(),
            calibration: "min-max".into(),
            calibration_examples: calibration.len(),
            target: class.to_string(),
            quantized_nodes: int8.quantized_nodes,
            float_nodes: int8.float_nodes,
        };
        Ok(Self {
            preprocess: preprocess.map(|graph| {
                let bytes = graph.encode();
                (graph, bytes)
            }),
            fp32: fp32.encode(),
            int8: int8.model.encode(),
            model: int8.model,
            quantizer,
            calibration,
        })
    }

    /// The file of the graph in front.
    pub(super) fn preprocess_bytes(&self) -> Option<&[u8]> {
        self.preprocess.as_ref().map(|(_, bytes)| bytes.as_slice())
    }

    /// The graph that reads raw features.
    pub(super) fn entrance(&self) -> &Model {
        self.preprocess.as_ref().map_or(&self.model, |(graph, _)| graph)
    }
}

/// The run's model, and the graph in front of it.
pub(super) fn graphs(objects: &Objects, model: Digest, preprocess: Option<Digest>) -> Result<(Model, Option<Model>), ReleaseError> {
    let read = |digest| Ok::<_, ReleaseError>(Model::decode(&objects.read(digest)?)?);
    Ok((read(model)?, preprocess.map(read).transpose()?))
}

/// What releases are judged on.
pub(super) fn evaluation_data(spec: &Spec, objects: &Objects) -> Result<Dataset, ReleaseError> {
    const KEY: &str = "evaluate.data";
    let missing = || ReleaseError::setting(KEY, "missing; name the data that releases are judged on");
    sources::declared(KEY, spec.evaluate.data.as_deref().ok_or_else(missing)?, objects)
}

/// What calibrates the quantizer.
pub(super) fn calibration_data(spec: &Spec, objects: &Objects) -> Result<Dataset, ReleaseError> {
    const KEY: &str = "release.calibration";
    let missing = || ReleaseError::setting(KEY, "missing; name public data that calibrates the quantizer");
    sources::declared(KEY, spec.release.calibration.as_deref().ok_or_else(missing)?, objects)
}

/// The quantizer's target for a class of devices.
pub(super) fn target(class: &DeviceClass) -> Result<Target, ReleaseError> {
    let known = [Target::X86_64Vnni, Target::X86_64, Target::Aarch64];
    let found = known.into_iter().find(|target| target.name() == class.as_str());
    found.ok_or_else(|| {
        let names = known.map(Target::name).join(", ");
        ReleaseError::setting("device class", format_args!("{class} has no quantizer; known are {names}"))
    })
}

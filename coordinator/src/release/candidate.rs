//! The steps from parameters to a signed release, in order.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ring::rand::SystemRandom;
use sapwood_models::{
    Dataset, Dim, Element, Model, Tensor, TensorData, ValueInfo, parameters,
    quantize::{self, Target},
    write_back,
};
use sapwood_protocol::{
    DeviceClass, Digest, ModelName, ReleaseId, Version,
    release::{
        Limits, Manifest, Measured, Parts, ReleaseRef, RuntimeVersion, Signatures, SigningKey, bundle,
        documents::{self, Config, Field, Postprocess, Quantizer, Schema},
        golden::{self, Array},
        manifest::{GoldenTerms, PrivacyStatement, Provenance, Retention, RolloutPolicy, RuntimeNeeds, SCHEMA, Strategy},
        verify::{ReleaseTrust, verify_release},
    },
    run::EvaluationRecord,
    spec::{Loss, Spec},
};
use sapwood_runtime::Runtime;

use super::{
    BuildJob, Built, CheckJob, EvaluateJob, Evaluator, Probe, Release, ReleaseError, Work, WorkError,
    card::Card,
    evaluate::floats,
    score::{Pipeline, Score},
    sources,
};
use crate::objects::Objects;

/// What runs every graph that we export; the oldest ONNX Runtime that this build loads.
const MIN_ONNXRUNTIME: &str = "1.24.0";
/// What a manifest says until a run's file can say it.
const TELEMETRY_RETENTION: Duration = Duration::from_secs(30 * 86_400);
/// Warm inferences that are timed.
const LATENCY_RUNS: usize = 300;
/// Fresh processes that are timed (R9).
const COLD_STARTS: usize = 20;
/// Evaluators that are kept between rounds.
const EVALUATORS: usize = 8;
/// Largest difference of an output on another processor, as a share of the largest output: integer kernels round
/// differently, by a few steps of 1/255.
const GOLDEN_TOLERANCE: f64 = 0.02;

/// What builds releases here.
pub struct CandidatesOptions {
    /// Signs what passes.
    pub key: SigningKey,
    /// Measures cold starts.
    pub probe: Probe,
    /// Which devices releases are for.
    pub class: DeviceClass,
    /// ONNX Runtime's library; none: where it usually lies.
    pub library: Option<PathBuf>,
}

/// Scores parameters and builds releases, with the real models, data and runtime.
pub struct Candidates {
    options: CandidatesOptions,
    evaluators: Mutex<HashMap<Digest, Evaluator>>,
}

impl Candidates {
    /// Ready for work; the runtime is loaded when it is first needed.
    pub fn new(options: CandidatesOptions) -> Self {
        Self { options, evaluators: Mutex::default() }
    }

    fn evaluator(&self, job: &EvaluateJob<'_>) -> Result<Evaluator, ReleaseError> {
        let (model, preprocess) = graphs(job.objects, job.model, job.preprocess)?;
        let data = evaluation_data(job.spec, job.objects)?;
        Evaluator::new(&model, preprocess.as_ref(), &job.spec.model, &data)
    }

    fn score(&self, job: &EvaluateJob<'_>) -> Result<EvaluationRecord, ReleaseError> {
        let params = floats(&job.objects.read(job.params)?)?;
        let key = evaluator_key(job);
        // An evaluator that fails is not put back.
        let kept = self.evaluators.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        let mut evaluator = match kept {
            Some(evaluator) => evaluator,
            None => self.evaluator(job)?,
        };
        let record = evaluator.evaluate(&params)?;
        let mut evaluators = self.evaluators.lock().unwrap_or_else(PoisonError::into_inner);
        if evaluators.len() >= EVALUATORS {
            evaluators.clear();
        }
        evaluators.insert(key, evaluator);
        Ok(record)
    }

    /// Everything that can be known to fail before a round is run.
    fn inspect(&self, job: &CheckJob<'_>) -> Result<(), ReleaseError> {
        let spec = job.spec;
        let (model, preprocess) = graphs(job.objects, job.model, job.preprocess)?;
        sources::only_input("model", &model)?;
        if spec.evaluate.data.is_some() {
            Evaluator::new(&model, preprocess.as_ref(), &spec.model, &evaluation_data(spec, job.objects)?)?;
        }
        if spec.release.auto {
            let calibration = calibration_data(spec, job.objects)?;
            let x = sources::prepared(preprocess.as_ref(), &calibration.x)?;
            let ranges = quantize::ranges(&model, &x.take_rows(&[0]))?;
            quantize::quantize(&model, &ranges, target(&self.options.class)?)?;
            evaluation_data(spec, job.objects)?;
            rings(spec)?;
            Runtime::load(self.options.library.as_deref())?;
        }
        Ok(())
    }

    fn candidate(&self, job: &BuildJob<'_>) -> Result<Built, ReleaseError> {
        let spec = job.spec;
        let name = Name::of(job)?;
        let (model, preprocess) = graphs(job.objects, job.model, job.preprocess)?;
        let preprocess_bytes = preprocess.as_ref().map(Model::encode);

        // The float model, and its integer form.
        let params = floats(&job.objects.read(job.params)?)?;
        let (layout, _) = parameters(&model, &spec.model.freeze)?;
        layout.check(&params)?;
        let fp32 = write_back(&model, &layout, &params)?;
        let calibration = calibration_data(spec, job.objects)?;
        let x = sources::prepared(preprocess.as_ref(), &calibration.x)?;
        let ranges = quantize::ranges(&fp32, &x)?;
        let int8 = quantize::quantize(&fp32, &ranges, target(&self.options.class)?)?;
        let (fp32_bytes, int8_bytes) = (fp32.encode(), int8.model.encode());

        // How both do, where they will run.
        let runtime = Runtime::load(self.options.library.as_deref())?;
        let evaluation = evaluation_data(spec, job.objects)?;
        let fp32_score = Pipeline::new(runtime, preprocess_bytes.as_deref(), &fp32_bytes)?.score(&evaluation)?;
        let mut pipeline = Pipeline::new(runtime, preprocess_bytes.as_deref(), &int8_bytes)?;
        let int8_score = pipeline.score(&evaluation)?;
        let latency = pipeline.time(&evaluation.x, LATENCY_RUNS)?;

        // The bundle.
        let quantizer = Quantizer {
            format: "QDQ".into(),
            activations: "uint8 per tensor, asymmetric".into(),
            weights: "int8 per channel, symmetric".into(),
            calibration: "min-max".into(),
            calibration_examples: calibration.len(),
            target: self.options.class.to_string(),
            quantized_nodes: int8.quantized_nodes,
            float_nodes: int8.float_nodes.clone(),
        };
        let card = Card {
            title: name.release.to_string(),
            run: job.run.to_string(),
            rounds: job.rounds,
            nodes: job.nodes.len(),
            spec,
            fp32: fp32_score,
            int8: int8_score,
            fp32_bytes: fp32_bytes.len(),
            int8_bytes: int8_bytes.len(),
            quantizer: &quantizer,
            bundle_name: format!("{}-{}.tar.gz", name.release, self.options.class),
        };
        let card = card.text();
        let golden = Golden::of(&mut pipeline, &calibration, spec.release.golden)?;
        let graph = preprocess.as_ref().unwrap_or(&model);
        let outputs = int8.model.outputs();
        let schema = Schema {
            schema: "sapwood/schema/v1".into(),
            inputs: graph.inputs().iter().map(field).collect(),
            outputs: outputs.iter().map(field).collect(),
        };
        let config = Config {
            schema: "sapwood/config/v1".into(),
            postprocess: postprocess(spec.model.loss, &golden.outputs),
            thresholds: BTreeMap::new(),
            golden_tolerance: golden.tolerance,
        };
        let min_onnxruntime: RuntimeVersion = MIN_ONNXRUNTIME.parse()?;
        let settings = documents::Runtime {
            schema: "sapwood/runtime/v1".into(),
            min_onnxruntime,
            measured_onnxruntime: runtime.version().to_owned(),
            opset: int8.model.opset(),
            execution_providers: vec!["cpu".into()],
            threads: 1,
            exporter: BUILDER.into(),
            quantizer: Some(quantizer),
        };
        let mut parts = Parts::new();
        parts.insert(bundle::MODEL, int8_bytes.clone())?;
        if let Some(bytes) = preprocess_bytes {
            parts.insert(bundle::PREPROCESS, bytes)?;
        }
        parts.insert(documents::SCHEMA, documents::to_bytes(&schema))?;
        parts.insert(documents::CONFIG, documents::to_bytes(&config))?;
        parts.insert(documents::RUNTIME, documents::to_bytes(&settings))?;
        parts.insert(documents::CARD, card.into_bytes())?;
        parts.insert(golden::INPUTS, golden.inputs.to_npy())?;
        parts.insert(golden::OUTPUTS, golden.outputs.to_npy())?;
        let packed = bundle::write(&parts)?;

        // The verdict.
        let cold = self.options.probe.run(&parts, COLD_STARTS)?;
        let measured = Measured {
            fp32_accuracy: fp32_score.map(Score::accuracy),
            accuracy: int8_score.map(Score::accuracy),
            bytes: Some(int8_bytes.len() as u64),
            p99_us: latency.percentile(99.0),
            cold_start_us: cold.percentile(95.0),
            examples: int8_score.map(|score| score.examples),
            fp32_correct: fp32_score.map(|score| score.correct),
            correct: int8_score.map(|score| score.correct),
            fp32_bytes: Some(fp32_bytes.len() as u64),
            p50_us: latency.percentile(50.0),
        };
        let report = spec.release.gates.judge(&measured);
        if !report.pass() {
            return Ok(Built::Refused(report));
        }

        // The signatures.
        let manifest = Manifest {
            schema: SCHEMA.into(),
            model_name: name.model,
            version: name.version,
            checksum: packed.digest,
            target_devices: vec![self.options.class.clone()],
            components: parts.components(),
            use_case: spec.release.use_case.clone(),
            golden: Some(GoldenTerms { examples: golden.inputs.shape()[0], tolerance: golden.tolerance }),
            rollout: RolloutPolicy {
                strategy: Strategy::Rings,
                rings: rings(spec)?,
                soak: spec.release.soak,
                health_timeout: spec.release.health_timeout,
            },
            provenance: Provenance {
                run: job.run.clone(),
                rounds: job.rounds,
                nodes: job.nodes.to_vec(),
                data_sources: vec![spec.data.source.clone().unwrap_or_else(|| "each node's own data".into())],
                source_model: job.model,
                preprocess: job.preprocess,
                params: job.params,
                builder: BUILDER.into(),
            },
            measured,
            gates: report,
            privacy: PrivacyStatement {
                secure_aggregation: spec.secure_aggregation.mode.word().into(),
                unit: spec.privacy.unit.word().into(),
                statement: spec.privacy_line().into(),
            },
            runtime: RuntimeNeeds { min_onnxruntime, opset: settings.opset },
            created: job.finished,
            retention: Retention { telemetry: TELEMETRY_RETENTION },
        };
        let manifest_bytes = manifest.to_bytes()?;
        let random = SystemRandom::new();
        let key = &self.options.key;
        let signatures =
            Signatures { bundle: vec![key.sign(&packed.bytes, &random)?], manifest: vec![key.sign(&manifest_bytes, &random)?] };
        // Nothing leaves that a node would refuse.
        let trust = ReleaseTrust { keys: vec![key.verifying_key()], threshold: 1 };
        verify_release(&packed.bytes, &manifest_bytes, &signatures, &trust, &Limits::default())?;
        let bundle = job.objects.put(&packed.bytes)?;
        let stored = job.objects.put(&manifest_bytes)?;
        let reference = ReleaseRef {
            release: name.release,
            bundle,
            bundle_bytes: packed.bytes.len() as u64,
            unpacked_bytes: manifest.unpacked_bytes(),
            manifest: stored,
            manifest_bytes: manifest_bytes.len() as u64,
            signatures,
            class: self.options.class.clone(),
            min_runtime: min_onnxruntime,
        };
        Ok(Built::Released(Box::new(Release { reference, manifest })))
    }
}

impl Work for Candidates {
    fn check(&self, job: &CheckJob<'_>) -> Result<(), WorkError> {
        Ok(self.inspect(job)?)
    }
    fn evaluate(&self, job: &EvaluateJob<'_>) -> Result<EvaluationRecord, WorkError> {
        Ok(self.score(job)?)
    }
    fn build(&self, job: &BuildJob<'_>) -> Result<Built, WorkError> {
        Ok(self.candidate(job)?)
    }
}

const BUILDER: &str = concat!("sapwood ", env!("CARGO_PKG_VERSION"));

/// `NAME-DATE-XXXXXXXX`: the run's name, when training finished, and which run and parameters it was.
struct Name {
    model: ModelName,
    version: Version,
    release: ReleaseId,
}

impl Name {
    fn of(job: &BuildJob<'_>) -> Result<Self, ReleaseError> {
        let time = job.finished.to_string();
        let date = time.split('T').next().unwrap_or_default();
        let origin = Digest::of(format!("{}\n{}", job.run, job.params).as_bytes()).hex();
        let model: ModelName = job.spec.name.parse()?;
        let version: Version = format!("{date}-{}", &origin[..8]).parse()?;
        let release = format!("{model}-{version}").parse()?;
        Ok(Self { model, version, release })
    }
}

/// The first examples of the calibration data, and the answers that the release gives to them.
struct Golden {
    inputs: Array,
    outputs: Array,
    tolerance: f64,
}

impl Golden {
    fn of(pipeline: &mut Pipeline, calibration: &Dataset, wanted: u32) -> Result<Self, ReleaseError> {
        let rows: Vec<usize> = (0..calibration.len().min(wanted.max(1) as usize)).collect();
        let inputs = calibration.x.take_rows(&rows);
        let outputs = array(pipeline.answers(&inputs)?)?;
        let largest = outputs.values().iter().fold(0.0_f64, |most, value| most.max(f64::from(value.abs())));
        Ok(Self { inputs: array(inputs)?, outputs, tolerance: GOLDEN_TOLERANCE * largest.max(1e-3) })
    }
}

fn array(tensor: Tensor) -> Result<Array, ReleaseError> {
    let Tensor { shape, data: TensorData::F32(values) } = tensor else {
        return Err(ReleaseError::setting("release.golden", "inputs and outputs must be of type float"));
    };
    Ok(Array::new(shape, values)?)
}

fn evaluator_key(job: &EvaluateJob<'_>) -> Digest {
    let spec = job.spec;
    let words = (job.model, job.preprocess, &spec.model, &spec.evaluate.data);
    Digest::of(&serde_json::to_vec(&words).expect("a spec has string keys"))
}

fn graphs(objects: &Objects, model: Digest, preprocess: Option<Digest>) -> Result<(Model, Option<Model>), ReleaseError> {
    let read = |digest| Ok::<_, ReleaseError>(Model::decode(&objects.read(digest)?)?);
    Ok((read(model)?, preprocess.map(read).transpose()?))
}

fn evaluation_data(spec: &Spec, objects: &Objects) -> Result<Dataset, ReleaseError> {
    const KEY: &str = "evaluate.data";
    let text = spec.evaluate.data.as_deref();
    sources::declared(KEY, text.ok_or_else(|| ReleaseError::setting(KEY, "missing; name the data that releases are judged on"))?, objects)
}

fn calibration_data(spec: &Spec, objects: &Objects) -> Result<Dataset, ReleaseError> {
    const KEY: &str = "release.calibration";
    let text = spec.release.calibration.as_deref();
    sources::declared(
        KEY,
        text.ok_or_else(|| ReleaseError::setting(KEY, "missing; name public data that calibrates the quantizer"))?,
        objects,
    )
}

fn rings(spec: &Spec) -> Result<Vec<sapwood_protocol::RingId>, ReleaseError> {
    Ok(spec.release.rings.iter().map(|ring| ring.parse()).collect::<Result<_, _>>()?)
}

fn target(class: &DeviceClass) -> Result<Target, ReleaseError> {
    match class.as_str() {
        "x86_64-vnni" => Ok(Target::X86_64Vnni),
        "x86_64" => Ok(Target::X86_64),
        "aarch64" => Ok(Target::Aarch64),
        other => Err(ReleaseError::setting(
            "device class",
            format_args!("{other:?} has no quantizer; known are x86_64-vnni, x86_64 and aarch64"),
        )),
    }
}

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

fn postprocess(loss: Loss, outputs: &Array) -> Postprocess {
    match loss {
        Loss::CrossEntropy => Postprocess::Argmax { classes: outputs.shape().last().copied().unwrap_or(1) },
        Loss::Mse | Loss::Bce => Postprocess::None {},
    }
}

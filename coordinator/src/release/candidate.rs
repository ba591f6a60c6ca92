//! The steps from parameters to a signed release, in order.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ring::rand::SystemRandom;
use sapwood_models::{
    Features,
    quantize::{self, Calibrator},
};
use sapwood_protocol::{
    DeviceClass, Digest, ModelName, ReleaseId, RingId, Version,
    release::{
        Limits, Manifest, Measured, ReleaseRef, RuntimeVersion, Signatures, SigningKey,
        bundle::{self, Packed},
        manifest::{GoldenTerms, PrivacyStatement, Provenance, Retention, RolloutPolicy, RuntimeNeeds, SCHEMA, SpentBudget, Strategy},
        verify::{ReleaseTrust, verify_release},
    },
    run::EvaluationRecord,
    spec::Spec,
};
use sapwood_runtime::Runtime;

use super::{
    BuildJob, Built, CheckJob, EvaluateJob, Evaluator, Probe, Release, ReleaseError, Timings, Work, WorkError,
    card::Card,
    evaluate::{floats, measuring},
    export::{Exported, calibration_data, evaluation_data, graphs, read, target},
    pack::{self, Golden},
    score::{Pipeline, Score},
    skew, sources,
};

/// What a manifest says has built it.
pub(super) const BUILDER: &str = concat!("sapwood ", env!("CARGO_PKG_VERSION"));
/// What runs every graph that we export; the oldest ONNX Runtime that this build loads.
const MIN_ONNXRUNTIME: &str = "1.24.0";
/// What a manifest says until a run's file can say it.
const TELEMETRY_RETENTION: Duration = Duration::from_secs(30 * 86_400);
/// Warm inferences that are timed.
const LATENCY_RUNS: usize = 300;
/// How often both forms are timed in turns, where size does not decide between them.
const TURNS: usize = 5;
/// A file or a time of so much of the float model's is a gain.
const WORTH_IT: f64 = 0.95;
/// Fresh processes that are timed (R9).
const COLD_STARTS: usize = 20;
/// Evaluators that are kept between rounds.
const EVALUATORS: usize = 8;

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

impl Candidates {
    /// Ready for work; the runtime is loaded when it is first needed.
    pub fn new(options: CandidatesOptions) -> Self {
        Self { options, evaluators: Mutex::default() }
    }

    /// Everything that can be known to fail before a round is run.
    fn inspect(&self, job: &CheckJob<'_>) -> Result<(), ReleaseError> {
        let spec = job.spec;
        let (model, preprocess) = graphs(job.objects, job.model, job.preprocess)?;
        let schema = sources::schema(job.schema, job.objects)?;
        if schema.is_some() || spec.release.auto {
            sources::fits(schema.as_ref(), &read(&model, preprocess.as_ref())?)?;
        }
        let schema = schema.as_ref();
        if spec.evaluate.data.is_some() {
            let data = evaluation_data(spec, schema, job.objects)?;
            Evaluator::new(&model, preprocess.as_ref(), measuring(&spec.model, job.objects)?, &data)?;
        }
        if spec.release.auto {
            let calibration = calibration_data(spec, schema, job.objects)?;
            let x = sources::prepared(preprocess.as_ref(), &calibration.x.take_rows(&[0]))?;
            quantize::quantize(&model, &quantize::ranges(&model, &x, Calibrator::MinMax)?, target(&self.options.class)?)?;
            evaluation_data(spec, schema, job.objects)?;
            rings(spec)?;
            Runtime::load(self.options.library.as_deref())?;
        }
        Ok(())
    }

    fn score(&self, job: &EvaluateJob<'_>) -> Result<EvaluationRecord, ReleaseError> {
        let params = floats(&job.objects.read(job.params)?)?;
        let words = (job.model, job.preprocess, job.schema, &job.spec.model, &job.spec.evaluate.data);
        let key = Digest::of(&serde_json::to_vec(&words).expect("a spec has string keys"));
        // Taken out while it works: one that fails is not put back.
        let kept = self.evaluators.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        let mut evaluator = match kept {
            Some(evaluator) => evaluator,
            None => {
                let (model, preprocess) = graphs(job.objects, job.model, job.preprocess)?;
                let data = evaluation_data(job.spec, sources::schema(job.schema, job.objects)?.as_ref(), job.objects)?;
                Evaluator::new(&model, preprocess.as_ref(), measuring(&job.spec.model, job.objects)?, &data)?
            }
        };
        let record = evaluator.evaluate(&params)?;
        let mut evaluators = self.evaluators.lock().unwrap_or_else(PoisonError::into_inner);
        if evaluators.len() >= EVALUATORS {
            evaluators.clear();
        }
        evaluators.insert(key, evaluator);
        Ok(record)
    }

    fn candidate(&self, job: &BuildJob<'_>) -> Result<Built, ReleaseError> {
        let spec = job.spec;
        let name = Name::of(job)?;
        let mut exported = Exported::of(job, &self.options.class)?;

        // How both forms do, where they will run.
        let runtime = Runtime::load(self.options.library.as_deref())?;
        if let Some((graph, _)) = &exported.preprocess {
            skew::check(graph, runtime, &exported.calibration.x)?;
        }
        let evaluation = evaluation_data(spec, exported.schema.as_ref(), job.objects)?;
        let mut float = Pipeline::new(runtime, exported.preprocess_bytes(), &exported.fp32)?;
        let mut integer = Pipeline::new(runtime, exported.preprocess_bytes(), &exported.int8)?;
        let (fp32, mut int8) = (float.score(&evaluation)?, integer.score(&evaluation)?);
        if let Some(most) = spec.release.gates.max_int8_drop
            && loses(fp32, int8, most)
        {
            let holds =
                |before: Option<&[u8]>, int8: &[u8]| Ok(!loses(fp32, Pipeline::new(runtime, before, int8)?.score(&evaluation)?, most));
            if exported.mix(holds)? {
                integer = Pipeline::new(runtime, exported.preprocess_bytes(), &exported.int8)?;
                int8 = integer.score(&evaluation)?;
            }
        }
        exported.keeps_float = !(smaller(&exported) || faster(&mut integer, &mut float, &evaluation.x)?);
        let (mut pipeline, shipped) = if exported.keeps_float { (float, fp32) } else { (integer, int8) };
        let latency = pipeline.time(&evaluation.x, LATENCY_RUNS)?;

        let golden = Golden::of(&mut pipeline, &exported, spec.release.golden)?;
        let bundle_name = format!("{}-{}.tar.gz", name.release, self.options.class);
        let card = Card { job, exported: &exported, title: name.release.as_str(), fp32, int8, bundle_name: &bundle_name }.text();
        let needs = RuntimeNeeds { min_onnxruntime: MIN_ONNXRUNTIME.parse::<RuntimeVersion>()?, opset: exported.model().opset() };
        let parts = pack::parts(spec, &exported, &golden, card, needs.min_onnxruntime, runtime.version())?;
        let packed = bundle::write(&parts)?;

        let cold = self.options.probe.run(&parts, COLD_STARTS, &runtime.found().path)?;
        let measured = measured(&exported, fp32, shipped, &latency, &cold);
        let gates = spec.release.gates.judge(&measured);
        if !gates.pass() {
            return Ok(Built::Refused(gates));
        }
        let manifest = Manifest {
            schema: SCHEMA.into(),
            model_name: name.model,
            version: name.version,
            checksum: packed.digest,
            target_devices: vec![self.options.class.clone()],
            components: parts.components(),
            feature_schema: exported.features.as_ref().map(|schema| schema.id),
            use_case: spec.release.use_case.clone(),
            golden: Some(GoldenTerms { examples: golden.examples(), tolerance: golden.tolerance }),
            rollout: RolloutPolicy {
                strategy: Strategy::Rings,
                rings: rings(spec)?,
                soak: spec.release.soak,
                health_timeout: spec.release.health_timeout,
            },
            provenance: provenance(job),
            measured,
            gates,
            privacy: PrivacyStatement {
                secure_aggregation: spec.secure_aggregation.mode.word().into(),
                unit: spec.privacy.unit.word().into(),
                statement: spec.privacy_line(),
                budget: job.statement.map(|statement| SpentBudget::of(statement, job.run, job.spec.privacy.entity_key.as_deref())),
            },
            runtime: needs,
            // What is signed has whole seconds, as every foreign reader of RFC 3339 expects.
            created: job.finished.whole_seconds(),
            retention: Retention { telemetry: TELEMETRY_RETENTION },
        };
        self.publish(job, name.release, &packed, manifest)
    }

    /// Signs bundle and manifest, and keeps both.
    fn publish(&self, job: &BuildJob<'_>, release: ReleaseId, packed: &Packed, manifest: Manifest) -> Result<Built, ReleaseError> {
        let bytes = manifest.to_bytes()?;
        let (key, random) = (&self.options.key, SystemRandom::new());
        let signatures = Signatures { bundle: vec![key.sign(&packed.bytes, &random)?], manifest: vec![key.sign(&bytes, &random)?] };
        // Nothing leaves that a node would refuse.
        let trust = ReleaseTrust { keys: vec![key.verifying_key()], threshold: 1 };
        verify_release(&packed.bytes, &bytes, &signatures, &trust, &Limits::default())?;
        let reference = ReleaseRef {
            release,
            bundle: job.objects.put(&packed.bytes)?,
            bundle_bytes: packed.bytes.len() as u64,
            unpacked_bytes: manifest.unpacked_bytes(),
            manifest: job.objects.put(&bytes)?,
            manifest_bytes: bytes.len() as u64,
            signatures,
            class: self.options.class.clone(),
            min_runtime: manifest.runtime.min_onnxruntime,
        };
        Ok(Built::Released(Box::new(Release { reference, manifest })))
    }
}

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

/// Whether INT8 costs more of the accuracy than the gate allows.
fn loses(fp32: Option<Score>, int8: Option<Score>, most: f64) -> bool {
    fp32.zip(int8).is_some_and(|(fp32, int8)| fp32.accuracy() - int8.accuracy() > most)
}

/// Whether INT8 makes a file that is worth it.
fn smaller(exported: &Exported) -> bool {
    exported.int8.len() as f64 <= WORTH_IT * exported.fp32.len() as f64
}

/// Whether INT8 answers so much sooner that it is worth it. Asked only where it gains no size: a clock decides here, and a bundle
/// that is built again should have the same bytes.
fn faster(integer: &mut Pipeline, float: &mut Pipeline, x: &Features) -> Result<bool, ReleaseError> {
    let (mut int8, mut fp32) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        int8.extend(integer.time(x, LATENCY_RUNS)?.percentile(50.0));
        fp32.extend(float.time(x, LATENCY_RUNS)?.percentile(50.0));
    }
    let (int8, fp32) = (Timings::new(int8).percentile(50.0), Timings::new(fp32).percentile(50.0));
    Ok(int8.zip(fp32).is_some_and(|(int8, fp32)| int8 <= WORTH_IT * fp32))
}

fn measured(exported: &Exported, fp32: Option<Score>, shipped: Option<Score>, latency: &Timings, cold: &Timings) -> Measured {
    Measured {
        fp32_accuracy: fp32.map(Score::accuracy),
        accuracy: shipped.map(Score::accuracy),
        bytes: Some(exported.model_bytes().len() as u64),
        p99_us: latency.percentile(99.0),
        cold_start_us: cold.percentile(95.0),
        examples: shipped.map(|score| score.examples),
        fp32_correct: fp32.map(|score| score.correct),
        correct: shipped.map(|score| score.correct),
        fp32_bytes: Some(exported.fp32.len() as u64),
        left_out_int8_bytes: Some(exported.int8.len() as u64).filter(|_| exported.keeps_float),
        p50_us: latency.percentile(50.0),
    }
    .rounded()
}

fn provenance(job: &BuildJob<'_>) -> Provenance {
    Provenance {
        run: job.run.clone(),
        rounds: job.rounds,
        nodes: job.nodes.to_vec(),
        data_sources: vec![job.spec.data.source.clone().unwrap_or_else(|| "each node's own data".into())],
        source_model: job.model,
        preprocess: job.preprocess,
        params: job.params,
        builder: BUILDER.into(),
    }
}

fn rings(spec: &Spec) -> Result<Vec<RingId>, ReleaseError> {
    Ok(spec.release.rings.iter().map(|ring| ring.parse()).collect::<Result<_, _>>()?)
}

//! From a quickly trained model to a signed release, with the real interpreter, quantizer, runtime and processes.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use ring::rand::SystemRandom;
use sapwood_models::{
    Features, Model, Tensor, TensorData,
    train::{Optimizer, TrainConfig, Trainer},
    zoo,
};
use sapwood_protocol::{
    Digest, NodeId, RunId, Timestamp,
    release::{
        Limits, Manifest, SigningKey, VerifyingKey, bundle,
        documents::{self, Config, Postprocess, Schema},
        verify::{ReleaseTrust, verify_release},
    },
    spec::{Gates, Spec},
};
use sapwood_runtime::{InstallOptions, Runtime, SessionOptions};
use tempfile::TempDir;

use super::*;
use crate::objects::Objects;

const SPEC: &str = r#"
    name = "digits"
    seed = 7
    [model]
    file = "mlp.onnx"
    loss = "cross_entropy"
    preprocess = "scale.onnx"
    [train]
    rounds = 1
    [secure_aggregation]
    mode = "off"
    [privacy]
    unit = "none"
    clip = 10.0
    [cohort]
    size = 2
    [evaluate]
    data = "digits:12-14"
    [release]
    use_case = "reads digits"
    calibration = "digits:11"
    golden = 4
    [release.gates]
    min_accuracy = 0.8
    max_int8_drop = 0.02
    max_bytes = 100000
    max_p99 = "2s"
    max_cold_start = "60s"
"#;

/// A model that was trained once for all tests, its preprocessing, and the parameters.
struct Trained {
    model: Vec<u8>,
    preprocess: Vec<u8>,
    params: Vec<f32>,
}

fn trained() -> &'static Trained {
    static TRAINED: OnceLock<Trained> = OnceLock::new();
    TRAINED.get_or_init(|| {
        sapwood_runtime::disable_telemetry();
        sapwood_runtime::install(InstallOptions::default(), &mut |_| ()).unwrap();
        let model = zoo::mlp(64, &[32], 10, 1);
        // Digits are 8×8 images; the network reads rows of 64 numbers from 0 to 1.
        let preprocess = preprocess();
        let mut data = sapwood_data::digits::blocks(1..=4);
        data.x = sources::prepared(Some(&preprocess), &data.x).unwrap();
        let config = TrainConfig {
            optimizer: Optimizer::Sgd { momentum: 0.9, weight_decay: 0.0, nesterov: false },
            lr: 0.05,
            batch: 32,
            ..TrainConfig::default()
        };
        let mut trainer = Trainer::new(&model, config).unwrap();
        trainer.train(&data, 15, 3, &mut |_| ControlFlow::Continue(())).unwrap();
        Trained { model: model.encode(), preprocess: preprocess.encode(), params: trainer.parameters() }
    })
}

/// Scales to 0..1, then makes a row of each image.
fn preprocess() -> Model {
    use sapwood_models::onnx::pb;
    let scale = zoo::scale(&[1, 8, 8], 1.0 / 16.0);
    let mut proto = scale.proto().clone();
    let graph = proto.graph.as_mut().unwrap();
    let output = graph.output[0].name.clone();
    let flat = "flat".to_owned();
    graph.node.push(pb::NodeProto {
        op_type: Some("Flatten".into()),
        name: Some("rows".into()),
        input: vec![output.unwrap_or_default()],
        output: vec![flat.clone()],
        ..Default::default()
    });
    graph.output = zoo::mlp(64, &[], 10, 1).graph().input.clone();
    graph.output[0].name = Some(flat);
    Model::decode(&prost::Message::encode_to_vec(&proto)).unwrap()
}

/// A place to build in: objects, and what was put there.
struct Bench {
    _folder: TempDir,
    objects: Objects,
    model: Digest,
    preprocess: Digest,
    schema: Option<Digest>,
    params: Digest,
}

impl Bench {
    fn new() -> Self {
        let trained = trained();
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path()).unwrap();
        let model = objects.put(&trained.model).unwrap();
        let preprocess = objects.put(&trained.preprocess).unwrap();
        let params = put_params(&objects, &trained.params);
        Self { _folder: folder, objects, model, preprocess, schema: None, params }
    }

    fn build(&self, candidates: &Candidates, spec: &Spec) -> Result<Built, WorkError> {
        let (run, nodes): (RunId, Vec<NodeId>) = ("digits-1".parse().unwrap(), vec!["a".parse().unwrap(), "b".parse().unwrap()]);
        candidates.build(&BuildJob {
            statement: None,
            run: &run,
            spec,
            objects: &self.objects,
            model: self.model,
            preprocess: Some(self.preprocess),
            schema: self.schema,
            params: self.params,
            rounds: 1,
            nodes: &nodes,
            finished: Timestamp::from_millis(1_795_000_000_000),
        })
    }

    fn evaluate(&self, candidates: &Candidates, spec: &Spec) -> Result<sapwood_protocol::run::EvaluationRecord, WorkError> {
        let (objects, model, preprocess, params) = (&self.objects, self.model, Some(self.preprocess), self.params);
        candidates.evaluate(&EvaluateJob { spec, objects, model, preprocess, schema: self.schema, params })
    }

    /// How many objects there are.
    fn stored(&self) -> usize {
        let folders = std::fs::read_dir(self._folder.path().join("objects")).unwrap();
        folders.map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap().count()).sum()
    }
}

fn put_params(objects: &Objects, params: &[f32]) -> Digest {
    let bytes: Vec<u8> = params.iter().flat_map(|value| value.to_le_bytes()).collect();
    objects.put(&bytes).unwrap()
}

fn key() -> Vec<u8> {
    SigningKey::generate(&SystemRandom::new()).unwrap().to_vec()
}

fn candidates(key: &[u8], probe: Probe) -> Candidates {
    let key = SigningKey::from_pkcs8(key, &SystemRandom::new()).unwrap();
    Candidates::new(CandidatesOptions { key, probe, class: sapwood_runtime::host_class().parse().unwrap(), library: None })
}

/// This test program, told to run [`probe_child`] alone: a fresh process with the real runtime.
fn real_probe() -> Probe {
    let program = std::env::current_exe().unwrap();
    let script = format!("PROBE_FOLDER=\"$0\" exec '{}' --exact release::tests::probe_child --nocapture", program.display());
    Probe::new(["sh".to_owned(), "-c".to_owned(), script]).unwrap()
}

fn instant_probe() -> Probe {
    Probe::new(["sh", "-c", "echo '{\"total_ms\": 1}'"]).unwrap()
}

/// Not a test by itself: what [`real_probe`] starts.
#[test]
fn probe_child() {
    let Some(folder) = std::env::var_os("PROBE_FOLDER") else { return };
    let folder = std::path::PathBuf::from(folder);
    let start = Instant::now();
    sapwood_runtime::disable_telemetry();
    let runtime = Runtime::load(None).unwrap();
    let x = sapwood_data::digits::block(11).x.take_rows(&[0]);
    let preprocess = std::fs::read(folder.join(bundle::PREPROCESS)).unwrap();
    let model = std::fs::read(folder.join(bundle::MODEL)).unwrap();
    score::Pipeline::new(runtime, Some(&preprocess), &model).unwrap().run(&x).unwrap();
    let line = format!("\n{{\"data\":{{\"total_ms\":{}}}}}\n", start.elapsed().as_secs_f64() * 1e3);
    std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes()).unwrap();
}

#[test]
fn a_round_is_scored_and_bad_parameters_are_not() {
    let (bench, spec) = (Bench::new(), Spec::parse(SPEC).unwrap());
    let candidates = candidates(&key(), instant_probe());
    let record = bench.evaluate(&candidates, &spec).unwrap();
    assert_eq!(record.examples, sapwood_data::digits::blocks(12..=14).len() as u64);
    assert!(record.accuracy.unwrap() > 0.8, "{record:?}");
    assert_eq!(bench.evaluate(&candidates, &spec).unwrap(), record, "the kept evaluator gives the same");

    let zeros = Bench { params: put_params(&bench.objects, &vec![0.0; trained().params.len()]), ..Bench::new() };
    let zeros = Bench { objects: bench.objects.clone(), ..zeros };
    assert!(zeros.evaluate(&candidates, &spec).unwrap().accuracy.unwrap() < 0.2);
    for bad in [vec![0.0; 3], vec![f32::NAN; trained().params.len()]] {
        let bad = Bench { params: put_params(&bench.objects, &bad), objects: bench.objects.clone(), ..Bench::new() };
        assert!(matches!(bad.evaluate(&candidates, &spec), Err(WorkError::Failed(_))));
    }
    assert_eq!(bench.evaluate(&candidates, &spec).unwrap(), record, "a failure leaves nothing behind");
}

/// R9, R42–R48, R53, R68–R70: measured in fresh processes, packed reproducibly, signed so that foreign tools verify it.
#[test]
fn a_good_model_becomes_a_signed_release() {
    let (bench, spec, key) = (Bench::new(), Spec::parse(SPEC).unwrap(), key());
    let candidates = candidates(&key, real_probe());
    candidates
        .check(&CheckJob {
            spec: &spec,
            objects: &bench.objects,
            model: bench.model,
            preprocess: Some(bench.preprocess),
            schema: bench.schema,
        })
        .unwrap();
    let before = bench.stored();
    let Built::Released(release) = bench.build(&candidates, &spec).unwrap() else { panic!("refused") };
    assert_eq!(bench.stored(), before + 2, "the bundle and the manifest");
    let Release { reference, manifest } = *release;
    assert!(reference.release.as_str().starts_with("digits-2026-11-18-"), "{}", reference.release);

    let (packed, signed) = (bench.objects.read(reference.bundle).unwrap(), bench.objects.read(reference.manifest).unwrap());
    assert_eq!(Manifest::parse(&signed).unwrap(), manifest);
    let public: VerifyingKey = SigningKey::from_pkcs8(&key, &SystemRandom::new()).unwrap().verifying_key();
    let trust = ReleaseTrust { keys: vec![public.clone()], threshold: 1 };
    let verified = verify_release(&packed, &signed, &reference.signatures, &trust, &Limits::default()).unwrap();

    // Counts are exact, and those of another look at the same files.
    let measured = manifest.measured;
    assert_eq!(measured.examples, Some(sapwood_data::digits::blocks(12..=14).len() as u64));
    let share = measured.correct.unwrap() as f64 / measured.examples.unwrap() as f64;
    assert!((measured.accuracy.unwrap() - share).abs() < 1e-5, "the share is rounded, the counts are not");
    let parts = &verified.parts;
    let runtime = Runtime::load(None).unwrap();
    let mut pipeline = score::Pipeline::new(runtime, parts.get(bundle::PREPROCESS), parts.get(bundle::MODEL).unwrap()).unwrap();
    let score = pipeline.score(&sapwood_data::digits::blocks(12..=14)).unwrap().unwrap();
    assert_eq!(Some(score.correct), measured.correct);
    assert!(measured.bytes < measured.fp32_bytes && measured.left_out_int8_bytes.is_none(), "{measured:?}");
    assert!(measured.p50_us <= measured.p99_us && measured.cold_start_us.unwrap() > measured.p50_us.unwrap());

    // Golden examples answer as they should, and not just anything does.
    let (inputs, outputs) = parts.golden().unwrap().unwrap();
    let [images] = &inputs[..] else { panic!("one input") };
    assert_eq!(images.shape(), [4, 1, 8, 8]);
    let x = Features::from(Tensor::f32(images.shape().to_vec(), images.values().to_vec()).unwrap());
    let again = array(pipeline.answers(&x).unwrap());
    assert!(outputs.distance(&again).unwrap() <= manifest.golden.unwrap().tolerance);
    let other = array(pipeline.answers(&x.take_rows(&[1, 0, 3, 2])).unwrap());
    assert!(outputs.distance(&other).unwrap() > manifest.golden.unwrap().tolerance);

    let schema: Schema = documents::from_bytes(documents::SCHEMA, parts.get(documents::SCHEMA).unwrap()).unwrap();
    assert_eq!((schema.inputs[0].datatype.as_str(), &schema.inputs[0].shape[1..]), ("FP32", &[1, 8, 8][..]));
    let config: Config = documents::from_bytes(documents::CONFIG, parts.get(documents::CONFIG).unwrap()).unwrap();
    assert_eq!(config.postprocess, Postprocess::Argmax { classes: 10 });
    let card = String::from_utf8(parts.get(documents::CARD).unwrap().to_vec()).unwrap();
    assert!(card.contains(spec.privacy_line().trim_start_matches('s')) && card.contains("openssl dgst -sha256 -verify"), "{card}");

    // The same job again: the same bundle. Another session of ONNX Runtime gives the quantized model's answers.
    let Built::Released(again) = bench.build(&candidates, &spec).unwrap() else { panic!("refused") };
    assert_eq!(again.reference.bundle, reference.bundle);
    assert_eq!(again.reference.release, reference.release);
    runtime.session(parts.get(bundle::MODEL).unwrap(), SessionOptions { threads: 2 }).unwrap();

    let files: BTreeMap<&str, &[u8]> = BTreeMap::from([
        ("bundle", packed.as_slice()),
        ("bundle.sig", reference.signatures.bundle[0].as_der()),
        ("manifest", signed.as_slice()),
        ("manifest.sig", reference.signatures.manifest[0].as_der()),
    ]);
    openssl_accepts_and_refuses(&public, &files);
}

/// The pairs around two small products are more than the weights that they save.
#[test]
fn where_int8_gains_nothing_the_float_model_is_shipped() {
    let bench = Bench::new();
    let tiny = zoo::mlp(64, &[1], 10, 1);
    let (_, params) = sapwood_models::parameters(&tiny, &[]).unwrap();
    let bench = Bench { model: bench.objects.put(&tiny.encode()).unwrap(), params: put_params(&bench.objects, &params), ..bench };
    let mut spec = Spec::parse(SPEC).unwrap();
    spec.release.gates = Gates::default();
    let Built::Released(release) = bench.build(&candidates(&key(), instant_probe()), &spec).unwrap() else { panic!("refused") };
    let measured = release.manifest.measured;
    assert!(measured.left_out_int8_bytes.unwrap() * 20 > measured.fp32_bytes.unwrap() * 19, "{measured:?}");
    assert_eq!((measured.bytes, measured.accuracy), (measured.fp32_bytes, measured.fp32_accuracy));

    let packed = bench.objects.read(release.reference.bundle).unwrap();
    let parts = bundle::read(packed.as_slice(), &Limits::default()).unwrap();
    let shipped = Model::decode(parts.get(bundle::MODEL).unwrap()).unwrap();
    assert!(shipped.graph().node.iter().all(|node| node.op_type() != "QuantizeLinear"));
    let settings: documents::Runtime = documents::from_bytes(documents::RUNTIME, parts.get(documents::RUNTIME).unwrap()).unwrap();
    assert_eq!(settings.quantizer, None);
    let card = String::from_utf8(parts.get(documents::CARD).unwrap().to_vec()).unwrap();
    assert!(card.contains("float, which is shipped") && card.contains("INT8 gains neither size nor speed"), "{card}");
}

/// A unit that nothing reads gives one layer a range in which 8 bits tell nothing else apart: what reads it stays in float, and no more.
#[test]
fn what_loses_most_stays_in_float_until_the_gate_holds() {
    let bench = Bench::new();
    let model = zoo::mlp(64, &[12, 256], 10, 1);
    let mut data = sapwood_data::digits::blocks(1..=4);
    data.x = sources::prepared(Some(&preprocess()), &data.x).unwrap();
    let config = TrainConfig { optimizer: Optimizer::adam(), lr: 0.005, ..TrainConfig::default() };
    let mut trainer = Trainer::new(&model, config).unwrap();
    trainer.train(&data, 12, 3, &mut |_| ControlFlow::Continue(())).unwrap();
    let mut params = trainer.parameters();
    let (layout, _) = sapwood_models::parameters(&model, &[]).unwrap();
    let at = |name: &str| layout.get(name).unwrap().offset;
    // Weights are `[in, out]`.
    for pixel in 0..64 {
        params[at("fc1.weight") + 12 * pixel] = 0.0;
    }
    params[at("fc1.bias")] = 1e4;
    params[at("fc2.weight")..][..256].fill(0.0);
    let bench = Bench { model: bench.objects.put(&model.encode()).unwrap(), params: put_params(&bench.objects, &params), ..bench };
    let mut spec = Spec::parse(SPEC).unwrap();
    let mut build = |gates| {
        spec.release.gates = gates;
        match bench.build(&candidates(&key(), instant_probe()), &spec).unwrap() {
            Built::Released(release) => release,
            Built::Refused(gates) => panic!("{gates}"),
        }
    };
    let ungated = build(Gates::default()).manifest.measured;
    assert!(ungated.accuracy.unwrap() < 0.5 * ungated.fp32_accuracy.unwrap(), "{ungated:?}");

    let release = build(Gates { max_int8_drop: Some(0.02), ..Gates::default() });
    let measured = release.manifest.measured;
    assert!(measured.accuracy.unwrap() >= measured.fp32_accuracy.unwrap() - 0.02 && measured.bytes < measured.fp32_bytes, "{measured:?}");
    let packed = bench.objects.read(release.reference.bundle).unwrap();
    let parts = bundle::read(packed.as_slice(), &Limits::default()).unwrap();
    let settings: documents::Runtime = documents::from_bytes(documents::RUNTIME, parts.get(documents::RUNTIME).unwrap()).unwrap();
    let quantizer = settings.quantizer.unwrap();
    assert!(quantizer.quantized_nodes > 0 && !quantizer.float_nodes.is_empty(), "{quantizer:?}");
}

/// R68: `openssl dgst` accepts both signatures, and refuses each file after one flipped byte.
fn openssl_accepts_and_refuses(public: &VerifyingKey, files: &BTreeMap<&str, &[u8]>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pub.pem"), public.to_pem()).unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let verify = |name: &str| {
        let mut command = Command::new("openssl");
        command.args(["dgst", "-sha256", "-verify", "pub.pem", "-signature", &format!("{name}.sig"), name]);
        command.current_dir(folder.path()).output().expect("openssl is installed").status.success()
    };
    for name in ["bundle", "manifest"] {
        assert!(verify(name), "{name}");
        let mut flipped = files[name].to_vec();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        std::fs::write(folder.path().join(name), flipped).unwrap();
        assert!(!verify(name), "{name}, flipped");
    }
}

fn array(tensor: Tensor) -> sapwood_protocol::release::golden::Array {
    let TensorData::F32(values) = tensor.data else { panic!("not float") };
    sapwood_protocol::release::golden::Array::new(tensor.shape, values).unwrap()
}

/// R2, R9, R91: each gate alone stops the release, by name, and then nothing is stored.
#[test]
fn each_gate_stops_the_release() {
    let (bench, key) = (Bench::new(), key());
    let candidates = candidates(&key, instant_probe());
    type Tighten = fn(&mut Gates);
    let red: [(&str, Tighten); 5] = [
        ("min_accuracy", |gates| gates.min_accuracy = Some(0.9999)),
        ("max_int8_drop", |gates| gates.max_int8_drop = Some(-0.5)),
        ("max_bytes", |gates| gates.max_bytes = Some(100)),
        ("max_p99", |gates| gates.max_p99 = Some(Duration::from_nanos(1))),
        ("max_cold_start", |gates| gates.max_cold_start = Some(Duration::from_micros(999))),
    ];
    let before = bench.stored();
    for (gate, turn) in red {
        let mut spec = Spec::parse(SPEC).unwrap();
        turn(&mut spec.release.gates);
        let built = bench.build(&candidates, &spec).unwrap();
        let Built::Refused(report) = &built else { panic!("{gate} let it pass") };
        let failed: Vec<&str> = report.failed().map(|line| line.gate.as_str()).collect();
        assert_eq!(failed, [gate]);
        let sapwood_protocol::run::CandidateOutcome::Refused(refused) = built.outcome() else { panic!("{gate}") };
        assert!(refused.gates[0].contains(gate), "{:?}", refused.gates);
        assert_eq!(bench.stored(), before, "{gate}");
    }
}

#[test]
fn what_cannot_be_built_is_refused_before_the_first_round() {
    let bench = Bench::new();
    let candidates = candidates(&key(), instant_probe());
    let check = |change: &dyn Fn(&mut Spec)| {
        let mut spec = Spec::parse(SPEC).unwrap();
        change(&mut spec);
        let job =
            CheckJob { spec: &spec, objects: &bench.objects, model: bench.model, preprocess: Some(bench.preprocess), schema: bench.schema };
        candidates.check(&job).unwrap_err().to_string()
    };
    assert!(check(&|spec| spec.release.calibration = None).contains("release.calibration"));
    assert!(check(&|spec| spec.evaluate.data = None).contains("evaluate.data"));
    // A caller must not choose what is read from the coordinator's disk.
    assert!(check(&|spec| spec.evaluate.data = Some("/etc/passwd".into())).contains("evaluate.data"));
    assert!(check(&|spec| spec.evaluate.data = Some(Digest::of(b"nowhere").to_string())).contains("no object"));
    assert!(check(&|spec| spec.evaluate.data = Some("digits:99".into())).contains("99"));

    let job =
        CheckJob { spec: &Spec::parse(SPEC).unwrap(), objects: &bench.objects, model: bench.model, preprocess: None, schema: bench.schema };
    assert!(candidates.check(&job).is_err(), "images do not fit a network that reads rows");
}

const SCHEMA: &str = "version = 4\n[input]\nshape = [1, 8, 8]\nrange = [0, 16]\nunit = \"grey level\"\n[targets]\nclasses = 10\n";

/// R43: the schema travels in the bundle, and manifest and bundle name its version and digest.
#[test]
fn the_feature_schema_is_versioned_with_the_model() {
    let mut bench = Bench::new();
    let candidates = candidates(&key(), instant_probe());
    let mut spec = Spec::parse(SPEC).unwrap();
    spec.release.gates = Gates::default();
    let mut build = |schema: Option<&str>| {
        bench.schema = schema.map(|text| bench.objects.put(text.as_bytes()).unwrap());
        let Built::Released(release) = bench.build(&candidates, &spec).unwrap() else { panic!("refused") };
        let packed = bench.objects.read(release.reference.bundle).unwrap();
        let parts = bundle::read(packed.as_slice(), &Limits::default()).unwrap();
        let document: Schema = documents::from_bytes(documents::SCHEMA, parts.get(documents::SCHEMA).unwrap()).unwrap();
        (release.manifest, document)
    };
    let (without, document) = build(None);
    assert_eq!((without.feature_schema, document.features), (None, None));
    let (first, document) = build(Some(SCHEMA));
    let features = document.features.unwrap();
    assert_eq!(first.feature_schema, Some(features.id));
    assert_eq!((features.id.version, features.id.digest), (4, Digest::of(SCHEMA.as_bytes())));
    assert_eq!(sapwood_data::Schema::parse(&features.schema.to_string()).unwrap(), sapwood_data::Schema::parse(SCHEMA).unwrap());
    // A schema that changes alone makes another release of the same model.
    let (second, _) = build(Some(&SCHEMA.replace("version = 4", "version = 5").replace("16]", "17]")));
    assert_eq!(second.feature_schema.unwrap().version, 5);
    assert_ne!(first.checksum, second.checksum);
    let component = |manifest: &Manifest, name: &str| manifest.components[name];
    assert_eq!(component(&first, bundle::MODEL), component(&second, bundle::MODEL));
    assert_ne!(component(&first, documents::SCHEMA), component(&second, documents::SCHEMA));
}

/// R45: another threshold is another release of the same model.
#[test]
fn thresholds_change_with_the_model_as_it_was() {
    let bench = Bench::new();
    let candidates = candidates(&key(), instant_probe());
    let build = |keys: &str| {
        let spec = Spec::parse(&SPEC.replace("[release.gates]", &format!("[release.postprocess]\n{keys}\n[release.gates]"))).unwrap();
        let Built::Released(release) = bench.build(&candidates, &spec).unwrap() else { panic!("refused") };
        let packed = bench.objects.read(release.reference.bundle).unwrap();
        let parts = bundle::read(packed.as_slice(), &Limits::default()).unwrap();
        (release.manifest, documents::from_bytes::<Config>(documents::CONFIG, parts.get(documents::CONFIG).unwrap()).unwrap())
    };
    let (first, config) = build("threshold = 0.6\nbelow = \"unknown\"");
    assert_eq!(config.postprocess, Postprocess::Softmax { labels: vec![], threshold: 0.6, below: Some("unknown".into()) });
    let (second, config) = build("threshold = 0.9\nbelow = \"unknown\"");
    assert!(matches!(config.postprocess, Postprocess::Softmax { threshold: 0.9, .. }));
    let others: Vec<&str> =
        first.components.iter().filter(|(name, part)| second.components[*name] != **part).map(|(name, _)| name.as_str()).collect();
    assert_eq!(others, [documents::CONFIG]);
    assert_ne!(first.checksum, second.checksum);
    let spec = Spec::parse(&SPEC.replace("[release.gates]", "[release.postprocess]\nlabels = [\"a\", \"b\"]\n[release.gates]")).unwrap();
    let refused = bench.build(&candidates, &spec).unwrap_err().to_string();
    assert!(refused.contains("release.postprocess.labels: 2 of them, and the model has 10 classes"), "{refused}");
}

/// R83: what the model would not read, or the run's own data breaks, is told before the first round.
#[test]
fn a_schema_that_model_or_data_do_not_meet_is_refused_by_name() {
    let mut bench = Bench::new();
    let candidates = candidates(&key(), instant_probe());
    let spec = Spec::parse(SPEC).unwrap();
    let mut check = |schema: &str| {
        bench.schema = Some(bench.objects.put(schema.as_bytes()).unwrap());
        candidates.check(&CheckJob {
            spec: &spec,
            objects: &bench.objects,
            model: bench.model,
            preprocess: Some(bench.preprocess),
            schema: bench.schema,
        })
    };
    check(SCHEMA).unwrap();
    for (from, to, reason) in [
        (
            "[1, 8, 8]",
            "[64]",
            "data.schema: the schema is not usable: input `input`: the schema's examples have shape [64], the model reads [1, 8, 8]",
        ),
        ("16]", "15]", "evaluate.data: digits:12-14: row 0, column 4: 16 is outside 0..=15 grey level, the range in the schema"),
        ("classes = 10", "classes = 9", "label 9 is not one of the 9 classes"),
        ("range", "rang", "unknown field `rang`"),
    ] {
        let refused = check(&SCHEMA.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(refused.contains(reason), "{to}: {refused}");
    }
}

/// An uploaded data set is named by its digest.
#[test]
fn uploaded_data_is_found_by_digest() {
    let bench = Bench::new();
    let data = sapwood_data::digits::block(12);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.npz");
    let sapwood_models::Targets::Classes(labels) = &data.y else { panic!("digits have labels") };
    let y = Tensor::i64([labels.len()], labels.clone()).unwrap();
    sapwood_data::save_npz(&path, data.x.iter().chain([("y", &y)])).unwrap();
    let digest = bench.objects.put(&std::fs::read(&path).unwrap()).unwrap();
    let mut spec = Spec::parse(SPEC).unwrap();
    spec.evaluate.data = Some(digest.to_string());
    let candidates = candidates(&key(), instant_probe());
    assert_eq!(bench.evaluate(&candidates, &spec).unwrap().examples, data.len() as u64);
}

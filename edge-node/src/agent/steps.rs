//! The steps of an installation that compute: verify, stage, try, load. They run on blocking threads.

use std::{fs, path::Path, sync::Arc, time::Duration};

use sapwood_data::Schema;
use sapwood_models::{Model, Tensor, compose};
use sapwood_protocol::{
    Digest,
    release::{
        ReleaseRef, RuntimeVersion,
        bundle::{Limits, Parts},
        documents::{
            self, CONFIG, Config as ServingConfig, MODEL, PREPROCESS, RUNTIME, Runtime as RuntimeDocument, SCHEMA, Schema as SchemaDocument,
        },
        golden::Array,
        verify::{verify_manifest, verify_release},
    },
    trust::TrustFile,
};
use sapwood_runtime::{Input, IoInfo, Runtime, View};

use super::disk::{Disk, MANIFEST};
use crate::{
    config::{self, Config},
    serve::{Model as ServeModel, Served},
};

/// Why a step failed; becomes a report to the coordinator, so it says what and where.
pub(super) type Why = String;

/// What the steps need.
#[derive(Clone)]
pub(crate) struct Workbench {
    runtime: Option<&'static Runtime>,
    trust: Arc<TrustFile>,
    sessions: usize,
}

/// A release that was loaded from its slot and has answered its golden inputs.
pub(super) struct Loaded {
    pub(super) served: Served,
    pub(super) golden: Golden,
}

/// The inputs with known outputs that came with a release; they are its health probe, too.
#[derive(Clone)]
pub(super) struct Golden {
    /// In the order in which the model reads them.
    inputs: Vec<Array>,
    outputs: Array,
    tolerance: f64,
}

impl Workbench {
    pub(crate) fn new(config: &Config, trust: Arc<TrustFile>) -> Self {
        let config::Runtime { library } = &config.runtime;
        let runtime = match Runtime::load(library.as_deref()) {
            Ok(runtime) => Some(runtime),
            Err(error) => {
                tracing::warn!(%error, "this node cannot serve: there is no ONNX Runtime; run `sapwood runtime install`");
                None
            }
        };
        Self { runtime, trust, sessions: config.serve.sessions.get() }
    }

    pub(crate) fn runtime_version(&self) -> Option<String> {
        self.runtime.map(|runtime| runtime.version().to_owned())
    }

    pub(super) fn parsed_version(&self) -> Option<RuntimeVersion> {
        self.runtime.and_then(|runtime| runtime.version().parse().ok())
    }

    /// ONNX Runtime, or what to do about it.
    pub(super) fn runtime(&self) -> Result<&'static Runtime, Why> {
        self.runtime.ok_or_else(|| "there is no ONNX Runtime on this node; run `sapwood runtime install`".to_owned())
    }

    /// Signatures, checksum and parts of what was downloaded.
    pub(super) fn verify(&self, disk: &Disk, release: &ReleaseRef) -> Result<(), Why> {
        self.downloaded(disk, release).map(|_| ())
    }

    /// From the download into a slot; verified again, so that nothing unverified is ever unpacked.
    pub(super) fn stage(&self, disk: &Disk, release: &ReleaseRef) -> Result<Result<(), Why>, super::disk::DiskError> {
        if disk.slot(release.bundle).exists() {
            return Ok(Ok(()));
        }
        match self.downloaded(disk, release) {
            Ok((parts, manifest)) => disk.stage(release.bundle, &parts, &manifest).map(Ok),
            Err(why) => Ok(Err(why)),
        }
    }

    fn downloaded(&self, disk: &Disk, release: &ReleaseRef) -> Result<(Parts, Vec<u8>), Why> {
        if let Some(held) = self.held(disk, release) {
            return held;
        }
        let manifest = read(&disk.download(release.manifest))?;
        let bundle = read(&disk.download(release.bundle))?;
        if Digest::of(&manifest) != release.manifest {
            return Err(format!("the manifest is not the one that was assigned ({})", release.manifest));
        }
        let verified = verify_release(&bundle, &manifest, &release.signatures, &self.trust.release, &Limits::default());
        let verified = verified.map_err(|fault| fault.to_string())?;
        release.check(&verified.manifest).map_err(|fault| fault.to_string())?;
        Ok((verified.parts, manifest))
    }

    /// A release whose slot is still there needs no download.
    fn held(&self, disk: &Disk, release: &ReleaseRef) -> Option<Result<(Parts, Vec<u8>), Why>> {
        let slot = disk.slot(release.bundle);
        slot.exists().then(|| self.slot(&slot, release))
    }

    /// R102: what lies in a slot is checked each time it is loaded: manifest by digest and signature, parts by the manifest.
    fn slot(&self, slot: &Path, release: &ReleaseRef) -> Result<(Parts, Vec<u8>), Why> {
        let bytes = read(&slot.join(MANIFEST))?;
        if Digest::of(&bytes) != release.manifest {
            return Err(format!("{} was changed on the disk", slot.join(MANIFEST).display()));
        }
        let manifest = verify_manifest(&bytes, &release.signatures.manifest, &self.trust.release).map_err(|fault| fault.to_string())?;
        let mut parts = Parts::new();
        for (name, component) in &manifest.components {
            let part = read(&slot.join(name))?;
            if Digest::of(&part) != component.digest {
                return Err(format!("{} was changed on the disk", slot.join(name).display()));
            }
            parts.insert(name, part).map_err(|fault| fault.to_string())?;
        }
        Ok((parts, bytes))
    }

    /// Loads a slot, warms it up and compares its golden answers.
    pub(super) fn load(&self, disk: &Disk, release: &ReleaseRef) -> Result<Loaded, Why> {
        let (parts, manifest) = self.slot(&disk.slot(release.bundle), release)?;
        let manifest = verify_manifest(&manifest, &release.signatures.manifest, &self.trust.release).map_err(|fault| fault.to_string())?;
        load(self.runtime()?, &parts, manifest.model_name.as_str(), manifest.version.as_str(), release.bundle, self.sessions)
    }
}

/// A served model from a bundle's parts; shared with the cold-start probe.
pub(super) fn load(runtime: &Runtime, parts: &Parts, name: &str, version: &str, digest: Digest, sessions: usize) -> Result<Loaded, Why> {
    let part = |name: &str| parts.get(name).ok_or_else(|| format!("the bundle has no {name}"));
    let graph = |name: &str, bytes: &[u8]| Model::decode(bytes).map_err(|e| format!("{name}: {e}"));
    let settings: RuntimeDocument = documents::from_bytes(RUNTIME, part(RUNTIME)?).map_err(|fault| fault.to_string())?;
    let serving: ServingConfig = documents::from_bytes(CONFIG, part(CONFIG)?).map_err(|fault| fault.to_string())?;
    let onnx = match parts.get(PREPROCESS) {
        None => part(MODEL)?.to_vec(),
        Some(prefix) => {
            compose(&graph(PREPROCESS, prefix)?, &graph(MODEL, part(MODEL)?)?).map_err(|e| format!("preprocessing: {e}"))?.encode()
        }
    };
    let (inputs, outputs) = parts.golden().map_err(|fault| fault.to_string())?.ok_or("the bundle has no golden examples")?;
    let golden = Golden { inputs, outputs, tolerance: serving.golden_tolerance };
    let model = ServeModel { name: name.to_owned(), version: version.to_owned(), digest, onnx, threads: settings.threads, sessions };
    let mut served = Served::load(runtime, model).map_err(|e| e.to_string())?;
    let described: Option<SchemaDocument> =
        parts.get(SCHEMA).map(|bytes| documents::from_bytes(SCHEMA, bytes)).transpose().map_err(|fault| fault.to_string())?;
    if let Some(features) = described.and_then(|document| document.features) {
        let schema = Schema::from_json(&features.schema.to_string()).map_err(|e| format!("{SCHEMA}: {e}"))?;
        served.guard(&schema, features.id).map_err(|e| format!("{SCHEMA}: {e}"))?;
    }
    served.postprocess(serving.postprocess).map_err(|fault| format!("{CONFIG}: {fault}"))?;
    golden.warm(&mut served)?;
    golden.check(&served)?;
    Ok(Loaded { served, golden })
}

impl Golden {
    /// One example through the model, so that the first real request is not the slow one.
    fn warm(&self, served: &mut Served) -> Result<Duration, Why> {
        let question = self.question(served, Some(1))?;
        let inputs: Vec<Input<'_>> = question.iter().map(|(name, tensor)| Input::new(name, tensor)).collect();
        served.warm(&inputs).map_err(|e| e.to_string())
    }

    /// All examples at once; the outputs must be the known ones.
    pub(super) fn check(&self, served: &Served) -> Result<(), Why> {
        let question = self.question(served, None)?;
        let inputs: Vec<Input<'_>> = question.iter().map(|(name, tensor)| Input::new(name, tensor)).collect();
        served.check(&inputs).map_err(|e| format!("the golden inputs: {e}"))?;
        let answer = served.run(&inputs, |outputs| match outputs.first() {
            Some(output) => match output.data {
                View::F32(values) => Array::new(output.shape.clone(), values.to_vec()).map_err(|fault| fault.to_string()),
                _ => Err("the model's first output is not float32".to_owned()),
            },
            None => Err("the model has no output".to_owned()),
        });
        let distance = answer.map_err(|e| e.to_string())??.distance(&self.outputs).map_err(|fault| fault.to_string())?;
        if distance > self.tolerance {
            return Err(format!("the golden outputs differ by {distance:.3e}, more than {:.3e}", self.tolerance));
        }
        Ok(())
    }

    /// The first examples, or all, as the model reads them: its inputs by name.
    fn question(&self, served: &Served, first: Option<usize>) -> Result<Vec<(String, Tensor)>, Why> {
        if self.inputs.len() != served.inputs().len() {
            return Err(format!("the bundle has {} golden inputs, the model reads {}", self.inputs.len(), served.inputs().len()));
        }
        let tensor = |(array, input): (&Array, &IoInfo)| {
            let tensor = Tensor::f32(array.shape(), array.values().to_vec()).map_err(|e| e.to_string())?;
            let rows = tensor.shape.first().copied().filter(|rows| *rows > 0).ok_or("the bundle has no golden example")?;
            let taken: Vec<usize> = (0..first.unwrap_or(rows).min(rows)).collect();
            let tensor = tensor.take_rows(&taken).read_as(input.element);
            let bad = |at| format!("golden value {at} is no {:?}, which the model reads as `{}`", input.element, input.name);
            Ok((input.name.clone(), tensor.map_err(bad)?))
        };
        self.inputs.iter().zip(served.inputs()).map(tensor).collect()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Why> {
    fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

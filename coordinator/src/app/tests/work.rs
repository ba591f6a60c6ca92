//! Scores and releases that are quick to make, and the same however often they are made.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use sapwood_protocol::release::{
    Manifest, ReleaseRef, bundle,
    gates::Measured,
    manifest::{Component, Provenance, Retention, RuntimeNeeds, SCHEMA},
};

use super::{rollout::document, *};
use crate::release::{BuildJob, Built, EvaluateJob, Release, WorkError};

/// Scores parameters by their mean: enough to see that each round's own were scored. Has no room for that at first, so many
/// times. Every model that it releases is right half the time.
pub(super) struct Means(pub(super) AtomicU32);

impl Work for Means {
    fn evaluate(&self, job: &EvaluateJob<'_>) -> Result<EvaluationRecord, WorkError> {
        if self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |times| times.checked_sub(1)).is_ok() {
            return Err(WorkError::Later("there is no room".into()));
        }
        let bytes = job.objects.read(job.params).map_err(|error| WorkError::Failed(error.to_string()))?;
        let floats = bytes.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes)));
        Ok(EvaluationRecord { loss: Some(floats.sum::<f64>() / bytes.len() as f64), accuracy: None, examples: 1 })
    }

    fn build(&self, job: &BuildJob<'_>) -> Result<Built, WorkError> {
        let measured = Measured { accuracy: Some(0.5), ..Measured::default() };
        let gates = job.spec.release.gates.judge(&measured);
        if !gates.pass() {
            return Ok(Built::Refused(gates));
        }
        let keep = |bytes: Vec<u8>| {
            job.objects.put(&bytes).map_err(|error| match error {
                ObjectError::Killed(killed) => WorkError::Killed(killed),
                other => WorkError::Failed(other.to_string()),
            })
        };
        // The bundle's digest tells of the parameters' bits, and of nothing else.
        let kept = keep(format!("{} of {}", job.params, job.run).into_bytes())?;
        let ReleaseDocument { view, reference, policy } = document(job.run.as_str());
        let (model_name, version) = job.run.as_str().split_once('-').expect("runs have numbers");
        let manifest = Manifest {
            schema: SCHEMA.into(),
            model_name: model_name.parse().expect("a name of a model"),
            version: version.parse().expect("a version"),
            checksum: kept,
            target_devices: vec![reference.class.clone()],
            feature_schema: None,
            components: BTreeMap::from([(bundle::MODEL.into(), Component { digest: kept, bytes: 1 })]),
            use_case: "a toy".into(),
            golden: None,
            rollout: policy,
            provenance: Provenance {
                run: job.run.clone(),
                rounds: job.rounds,
                nodes: job.nodes.to_vec(),
                data_sources: vec!["numbers".into()],
                source_model: job.model,
                preprocess: None,
                params: job.params,
                builder: "a test".into(),
            },
            measured,
            gates,
            privacy: view.privacy,
            runtime: RuntimeNeeds { min_onnxruntime: reference.min_runtime, opset: 17 },
            // Written to the second.
            created: Timestamp::from_millis(job.finished.millis() / 1000 * 1000),
            retention: Retention { telemetry: Duration::from_secs(1) },
        };
        let bytes = manifest.to_bytes().map_err(|fault| WorkError::Failed(fault.to_string()))?;
        let manifest_bytes = bytes.len() as u64;
        let reference = ReleaseRef { bundle: kept, manifest: keep(bytes)?, manifest_bytes, ..document(job.run.as_str()).reference };
        Ok(Built::Released(Box::new(Release { reference, manifest })))
    }
}

//! Cold start: from the start of a fresh process to a bundle's first answer (R9).

use std::{fs, path::Path, time::Instant};

use sapwood_protocol::{Digest, release::bundle::Parts};
use sapwood_runtime::Runtime;
use serde::{Deserialize, Serialize};

use crate::agent;

/// Milliseconds, each from the end of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColdStart {
    /// Finding, loading and initialising ONNX Runtime.
    pub runtime_ms: f64,
    /// Reading the bundle's parts, composing and loading the graph, the golden inputs answered.
    pub load_ms: f64,
    /// All of it: the gate's figure.
    pub total_ms: f64,
}

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A file of the bundle cannot be read.
    #[error("{path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// ONNX Runtime.
    #[error(transparent)]
    Runtime(#[from] sapwood_runtime::RuntimeError),
    /// The bundle does not answer as it should.
    #[error("the bundle cannot be served: {0}")]
    Bundle(String),
}

/// Loads an unpacked bundle in this process, which should be fresh, and gets its first answers.
///
/// # Errors
/// If the folder is no bundle, or does not answer its golden inputs.
pub fn cold_start(folder: &Path, library: Option<&Path>) -> Result<ColdStart, ProbeError> {
    let started = Instant::now();
    let runtime = Runtime::load(library)?;
    let runtime_ms = millis(started);
    let parts = read(folder)?;
    agent::first_answer(runtime, &parts, Digest::of(b"probe")).map_err(ProbeError::Bundle)?;
    let total_ms = millis(started);
    Ok(ColdStart { runtime_ms, load_ms: total_ms - runtime_ms, total_ms })
}

fn read(folder: &Path) -> Result<Parts, ProbeError> {
    let mut parts = Parts::new();
    for prefix in ["", "golden/"] {
        let below = folder.join(prefix);
        let fail = |source| ProbeError::File { path: below.display().to_string(), source };
        for entry in fs::read_dir(&below).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let Some(name) = path.file_name().and_then(|n| n.to_str()).filter(|_| path.is_file()) else { continue };
            let bytes = fs::read(&path).map_err(|source| ProbeError::File { path: path.display().to_string(), source })?;
            // A slot holds its manifest, too, which is no part of the bundle.
            let _ = parts.insert(&format!("{prefix}{name}"), bytes);
        }
    }
    Ok(parts)
}

fn millis(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}

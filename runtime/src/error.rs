//! What can go wrong with ONNX Runtime, and what to do about it.

use std::{fmt, io, path::PathBuf};

/// A place where the library was looked for, and why it was not taken from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What makes it a place to look, such as `ORT_DYLIB_PATH`.
    pub what: &'static str,
    /// The file or folder, if the place is one on this machine.
    pub path: Option<PathBuf>,
    /// Why the library was not there.
    pub reason: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{} ({}): {}", self.what, path.display(), self.reason),
            None => write!(f, "{}: {}", self.what, self.reason),
        }
    }
}

fn list(places: &[Place]) -> String {
    places.iter().map(|p| format!("\n  {p}")).collect()
}

/// A failure to provision, load or use ONNX Runtime.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// No library in any place.
    #[error("ONNX Runtime 1.24 or newer not found. Looked in:{}\nRun `sapwood runtime install`, or set ORT_DYLIB_PATH", list(places))]
    NotFound {
        /// Every place, in order.
        places: Vec<Place>,
    },
    /// A library that exists and cannot be used. Later places are not tried, so that a broken
    /// installation does not hide behind another one.
    #[error("ONNX Runtime at {} cannot be used: {reason}. Replace it, or run `sapwood runtime install`", path.display())]
    BadLibrary {
        /// The file.
        path: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// One process holds one library.
    #[error(
        "this process has already loaded ONNX Runtime from {}, not from {}; load one library per process",
        loaded.display(), asked.display()
    )]
    AlreadyLoaded {
        /// The library in use.
        loaded: PathBuf,
        /// The library asked for.
        asked: PathBuf,
    },
    /// Examples that the model does not read.
    #[error("the data does not fit the model")]
    Data(#[from] sapwood_models::DataFault),
    /// The library could report to its vendor.
    #[error(
        "ONNX Runtime at {} ({version}) may send telemetry: set ORT_DISABLE_TELEMETRY=1, or call disable_telemetry() first in main",
        path.display()
    )]
    TelemetryOn {
        /// The library.
        path: PathBuf,
        /// Its version as far as known.
        version: String,
    },
    /// No pinned library for this target.
    #[error("no ONNX Runtime is pinned for {triple}; the targets are {}. Set ORT_DYLIB_PATH to a library of your own", known.join(", "))]
    UnknownTarget {
        /// The target asked for.
        triple: String,
        /// The targets of the lock file.
        known: Vec<String>,
    },
    /// No fetcher worked.
    #[error(
        "the wheel {wheel} could not be fetched:{}\nFetch it from a Python package index by hand and run `sapwood runtime install --wheel FILE`, \
         or put {library} into {} yourself",
        list(attempts), folder.display()
    )]
    Fetch {
        /// Its file name.
        wheel: String,
        /// The library in it.
        library: String,
        /// Where the library belongs.
        folder: PathBuf,
        /// Every fetcher and what it said.
        attempts: Vec<Place>,
    },
    /// A wheel or library other than the pinned one.
    #[error("{} is not the pinned file: its SHA-256 is {found}, expected {expected}. Delete it and fetch it again; do not use it", path.display())]
    WrongDigest {
        /// The file.
        path: PathBuf,
        /// SHA-256 in the lock file, hex.
        expected: String,
        /// SHA-256 of the file, hex.
        found: String,
    },
    /// A wheel that does not hold what the lock file says.
    #[error("{} is not a usable wheel: {reason}. Fetch it again", path.display())]
    BadWheel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Neither `XDG_CACHE_HOME` nor `HOME` says where a cache may be.
    #[error("no folder for the cache: set XDG_CACHE_HOME or HOME, or name a cache folder")]
    NoCache,
    /// ONNX Runtime refused the model.
    #[error("ONNX Runtime refused the model: {reason}. Check it with `sapwood model inspect`")]
    BadModel {
        /// What it said.
        reason: String,
    },
    /// Inputs that do not fit the model.
    #[error("input `{name}`: {reason}")]
    BadInput {
        /// Name of the input.
        name: String,
        /// What is wrong, and what the model reads.
        reason: String,
    },
    /// An output that Sapwood's tensors cannot hold.
    #[error("output `{name}` is {found}; cast it to f32, i64, i32, u8, i8 or bool in the model")]
    BadOutput {
        /// Name of the output.
        name: String,
        /// Its type.
        found: String,
    },
    /// ONNX Runtime failed while it ran the model.
    #[error("ONNX Runtime failed while running the model: {reason}")]
    Run {
        /// What it said.
        reason: String,
    },
    /// ONNX Runtime failed for another reason.
    #[error("ONNX Runtime failed to {action}: {reason}")]
    Internal {
        /// What was tried, as a verb.
        action: &'static str,
        /// What it said.
        reason: String,
    },
}

impl RuntimeError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

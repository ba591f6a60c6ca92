use sapwood_data::DataError;
use sapwood_models::{ModelError, train::TrainError};
use sapwood_protocol::Fault;
use sapwood_runtime::RuntimeError;
use thiserror::Error;

use super::WorkError;
use crate::objects::ObjectError;

/// Why parameters could not be scored, or a candidate not built.
#[derive(Debug, Error)]
pub enum ReleaseError {
    /// A key of the run's file.
    #[error("{key}: {why}")]
    Setting {
        /// The key's full path.
        key: &'static str,
        /// What is wrong and what would be right.
        why: String,
    },
    /// A declared data set, or the schema.
    #[error("{key}: {error}")]
    Data {
        /// The key that names it.
        key: &'static str,
        /// What is wrong with it.
        error: Box<DataError>,
    },
    /// The model or its preprocessing.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Scoring in the interpreter.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// ONNX Runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The store of objects.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// Packing or signing.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The fresh process that measures cold starts.
    #[error("the probe of cold starts: {why}")]
    Probe {
        /// What happened.
        why: String,
    },
    /// A temporary folder.
    #[error("a temporary folder could not be used: {0}")]
    Temporary(#[source] std::io::Error),
}

impl ReleaseError {
    pub(super) fn data(key: &'static str) -> impl Fn(DataError) -> Self + Copy {
        move |error| Self::Data { key, error: error.into() }
    }

    pub(super) fn setting(key: &'static str, why: impl ToString) -> Self {
        Self::Setting { key, why: why.to_string() }
    }
}

impl From<ReleaseError> for WorkError {
    fn from(error: ReleaseError) -> Self {
        match error {
            ReleaseError::Object(ObjectError::Killed(killed)) => Self::Killed(killed),
            // Somebody can make room; what was trained must not be lost for want of it.
            ReleaseError::Object(error @ (ObjectError::DiskFull | ObjectError::Io(_))) => Self::Later(error.to_string()),
            ReleaseError::Temporary(_) => Self::Later(error.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

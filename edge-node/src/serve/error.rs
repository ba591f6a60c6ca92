//! What a client did wrong, or what is missing here.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use sapwood_runtime::RuntimeError;
use serde_json::json;

/// Why there is no answer. Clients of the protocol expect `{"error": "…"}`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The request cannot be understood.
    #[error("{0}")]
    Request(String),
    /// No such model, or no such version of it.
    #[error("this node does not serve {0}")]
    UnknownModel(String),
    /// Nothing was released to this node yet, or its model is being exchanged for the first time.
    #[error("this node serves no model yet")]
    NotReady,
    /// No such address.
    #[error("{0} is no address of this server")]
    Address(String),
    /// Compressed bodies are not read.
    #[error("content-encoding {0:?} is not supported: send the body as it is")]
    Encoding(String),
    /// The library failed on a request that looked right.
    #[error("inference failed")]
    Runtime(#[source] RuntimeError),
    /// A bug.
    #[error("the server failed: {0}")]
    Internal(&'static str),
}

impl From<RuntimeError> for ServeError {
    fn from(error: RuntimeError) -> Self {
        match error {
            // What does not fit the model's inputs is the client's doing, and says what would.
            RuntimeError::BadInput { .. } => Self::Request(error.to_string()),
            other => Self::Runtime(other),
        }
    }
}

impl ServeError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Request(_) => StatusCode::BAD_REQUEST,
            Self::UnknownModel(_) | Self::Address(_) => StatusCode::NOT_FOUND,
            Self::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            Self::Encoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Runtime(_) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for ServeError {
    fn into_response(self) -> Response {
        if let Self::Runtime(source) = &self {
            tracing::warn!(error = %source, "inference failed");
        }
        (self.status(), Json(json!({"error": self.to_string()}))).into_response()
    }
}

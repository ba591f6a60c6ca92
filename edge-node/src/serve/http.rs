//! The protocol's addresses.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use sapwood_models::onnx::Dim;
use sapwood_runtime::{Input, IoInfo};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Engine, ServeError, Served,
    request::Request,
    response::{Encoded, HEADER_LENGTH, datatype, encode},
};

/// Larger requests are refused before they are read.
const MAX_BODY: usize = 64 << 20;
/// Larger requests are read and answered on a thread of their own, so that nobody waits for them.
const INLINE: usize = 64 << 10;

/// The Open Inference Protocol, version 2, with the binary tensor extension.
pub fn router(engine: Arc<Engine>) -> Router {
    Router::new()
        .route("/v2", get(server))
        .route("/v2/health/live", get(async || StatusCode::OK))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{model}", get(metadata))
        .route("/v2/models/{model}/ready", get(model_ready))
        .route("/v2/models/{model}/infer", post(infer))
        .route("/v2/models/{model}/versions/{version}", get(metadata))
        .route("/v2/models/{model}/versions/{version}/ready", get(model_ready))
        .route("/v2/models/{model}/versions/{version}/infer", post(infer))
        .fallback(async |uri: Uri| ServeError::Address(uri.path().to_owned()))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(engine)
}

/// Which model a path means.
#[derive(Deserialize)]
struct Which {
    model: String,
    version: Option<String>,
}

impl Which {
    fn find(&self, engine: &Engine) -> Result<Arc<Served>, ServeError> {
        let served = engine.current().ok_or(ServeError::NotReady)?;
        let right = served.name == self.model && self.version.as_ref().is_none_or(|v| *v == served.version);
        let asked = || self.version.as_ref().map_or_else(|| self.model.clone(), |v| format!("{} version {v}", self.model));
        if right { Ok(served) } else { Err(ServeError::UnknownModel(asked())) }
    }
}

async fn server() -> Json<Value> {
    Json(json!({"name": "sapwood", "version": env!("CARGO_PKG_VERSION"), "extensions": ["binary_tensor_data"]}))
}

async fn ready(State(engine): State<Arc<Engine>>) -> Result<StatusCode, ServeError> {
    engine.current().map(|_| StatusCode::OK).ok_or(ServeError::NotReady)
}

async fn model_ready(State(engine): State<Arc<Engine>>, Path(which): Path<Which>) -> Result<StatusCode, ServeError> {
    which.find(&engine).map(|_| StatusCode::OK)
}

async fn metadata(State(engine): State<Arc<Engine>>, Path(which): Path<Which>) -> Result<Json<Value>, ServeError> {
    let served = which.find(&engine)?;
    Ok(Json(json!({
        "name": served.name,
        "versions": [served.version],
        "platform": "onnxruntime_onnx",
        "inputs": served.inputs().iter().map(tensor).collect::<Vec<_>>(),
        "outputs": served.outputs().iter().map(tensor).collect::<Vec<_>>(),
        "parameters": {"digest": served.digest, "postprocess": served.answers(), "schema": served.schema()},
    })))
}

fn tensor(info: &IoInfo) -> Value {
    let shape: Vec<i64> = info.shape.iter().map(|dim| if let Dim::Fixed(n) = dim { i64::try_from(*n).unwrap_or(-1) } else { -1 }).collect();
    json!({"name": info.name, "datatype": datatype(info.element), "shape": shape})
}

async fn infer(
    State(engine): State<Arc<Engine>>,
    Path(which): Path<Which>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Response, ServeError> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING).filter(|e| *e != "identity") {
        return Err(ServeError::Encoding(String::from_utf8_lossy(encoding.as_bytes()).into_owned()));
    }
    let served = which.find(&engine)?;
    let body = body.map_err(|e| ServeError::Request(e.to_string()))?;
    let length = headers.get(HEADER_LENGTH).map(|v| v.to_str().ok().and_then(|v| v.parse().ok()));
    let length = match length {
        Some(None) => return Err(ServeError::Request("inference-header-content-length is no number".to_owned())),
        Some(length) => length,
        None => None,
    };
    let encoded = if body.len() <= INLINE && served.is_quick() {
        answer(&served, &body, length)?
    } else {
        let work = tokio::task::spawn_blocking(move || answer(&served, &body, length));
        work.await.map_err(|_| ServeError::Internal("an inference panicked"))??
    };
    Ok(encoded.into_response())
}

fn answer(served: &Served, body: &Bytes, length: Option<usize>) -> Result<Encoded, ServeError> {
    let request = &Request::parse(body, length)?;
    let inputs: Vec<Input<'_>> = request.tensors.iter().map(|t| Input { name: &t.name, shape: &t.shape, data: t.view() }).collect();
    if let Some(asked) = &request.schema {
        check_schema(asked, served)?;
    }
    served.check(&inputs)?;
    served.run(&inputs, |outputs| encode(served, request, outputs))?
}

/// R43: a client that made its tensors for another schema is told so, however well they fit.
fn check_schema(asked: &str, served: &Served) -> Result<(), ServeError> {
    match served.schema() {
        Some(id) if id.digest.to_string() == asked => Ok(()),
        Some(id) => {
            Err(ServeError::Request(format!("the request is of schema {asked}, this model reads version {}, {}", id.version, id.digest)))
        }
        None => Err(ServeError::Request(format!("the request is of schema {asked}, this model was released without one"))),
    }
}

impl IntoResponse for Encoded {
    fn into_response(self) -> Response {
        Self::into_response(self)
    }
}

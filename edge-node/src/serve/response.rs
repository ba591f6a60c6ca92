//! Writing an inference response.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, header},
    response::Response,
};
use sapwood_models::onnx::Element;
use sapwood_runtime::{Output, View};
use serde::{Serialize, Serializer};

use super::{ServeError, request::Request};

/// Where the JSON ends and the tensors begin.
pub(super) const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

#[derive(Serialize)]
struct Reply<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<OutputReply<'a>>,
}

#[derive(Serialize)]
struct OutputReply<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Numbers<'a>>,
}

#[derive(Serialize)]
struct Parameters {
    binary_data_size: usize,
}

struct Numbers<'a>(View<'a>);

impl Serialize for Numbers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            View::F32(v) => v.serialize(serializer),
            View::I64(v) => v.serialize(serializer),
            View::I32(v) => v.serialize(serializer),
            View::U8(v) | View::Raw(_, v) => v.serialize(serializer),
            View::I8(v) => v.serialize(serializer),
            View::Bool(v) => v.serialize(serializer),
        }
    }
}

/// The whole body, and the length of its JSON part if tensors stand behind it.
pub(super) struct Encoded {
    body: Vec<u8>,
    header_length: Option<usize>,
}

/// Encodes the outputs that were asked for.
pub(super) fn encode(name: &str, version: &str, request: &Request, outputs: &[Output<'_>]) -> Result<Encoded, ServeError> {
    let mut chosen: Vec<(&Output<'_>, bool)> = Vec::with_capacity(outputs.len());
    if request.outputs.is_empty() {
        chosen.extend(outputs.iter().map(|o| (o, request.binary)));
    }
    for (wanted, binary) in &request.outputs {
        let found = outputs.iter().find(|o| o.name == *wanted);
        chosen.push((found.ok_or_else(|| ServeError::Request(format!("the model has no output {wanted:?}")))?, *binary));
    }
    let replies = chosen.iter().map(|(output, binary)| {
        let bytes = output.data.bytes();
        OutputReply {
            name: output.name,
            datatype: datatype(output.data.element()),
            shape: &output.shape,
            parameters: binary.then_some(Parameters { binary_data_size: bytes.len() }),
            data: (!binary).then_some(Numbers(output.data)),
        }
    });
    let reply = Reply { model_name: name, model_version: version, id: request.id.as_deref(), outputs: replies.collect() };
    let mut body = serde_json::to_vec(&reply).map_err(|_| ServeError::Internal("an output has no JSON form"))?;
    let header_length = chosen.iter().any(|(_, binary)| *binary).then_some(body.len());
    for (output, _) in chosen.iter().filter(|(_, binary)| *binary) {
        body.extend_from_slice(output.data.bytes());
    }
    Ok(Encoded { body, header_length })
}

impl Encoded {
    pub(super) fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        let kind = if self.header_length.is_some() { "application/octet-stream" } else { "application/json" };
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(length) = self.header_length {
            response.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(length));
        }
        response
    }
}

/// The protocol's name of a type.
pub(super) fn datatype(element: Element) -> &'static str {
    match element {
        Element::F32 => "FP32",
        Element::F64 => "FP64",
        Element::F16 => "FP16",
        Element::I64 => "INT64",
        Element::I32 => "INT32",
        Element::U8 => "UINT8",
        Element::I8 => "INT8",
        Element::Bool => "BOOL",
        Element::Other(_) => "BYTES",
    }
}

//! Writing an inference response.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, header},
    response::Response,
};
use sapwood_models::onnx::Element;
use sapwood_protocol::release::Answer;
use sapwood_runtime::{Output, View};
use serde::{Serialize, Serializer};

use super::{ServeError, Served, request::Request};

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
    shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Numbers<'a>>,
}

#[derive(Serialize)]
struct Parameters {
    binary_data_size: usize,
}

/// The values of an output in JSON.
enum Numbers<'a> {
    Of(View<'a>),
    Labels(Vec<String>),
    Scores(Vec<Option<f64>>),
    Accepted(Vec<bool>),
}

impl Serialize for Numbers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Of(View::F32(v)) => v.serialize(serializer),
            Self::Of(View::I64(v)) => v.serialize(serializer),
            Self::Of(View::I32(v)) => v.serialize(serializer),
            Self::Of(View::U8(v) | View::Raw(_, v)) => v.serialize(serializer),
            Self::Of(View::I8(v)) => v.serialize(serializer),
            Self::Of(View::Bool(v)) => v.serialize(serializer),
            Self::Accepted(v) => v.serialize(serializer),
            Self::Labels(v) => v.serialize(serializer),
            Self::Scores(v) => v.serialize(serializer),
        }
    }
}

/// The whole body, and the length of its JSON part if tensors stand behind it.
pub(super) struct Encoded {
    body: Vec<u8>,
    header_length: Option<usize>,
}

/// Encodes the outputs that were asked for: the model's, and by name what the release's configuration makes of the first one.
pub(super) fn encode(served: &Served, request: &Request, outputs: &[Output<'_>]) -> Result<Encoded, ServeError> {
    let mut replies = Vec::with_capacity(outputs.len());
    let mut behind: Vec<&[u8]> = Vec::new();
    let all = outputs.iter().map(|output| (output.name, request.binary));
    let wanted = request.outputs.iter().map(|(name, binary)| (name.as_str(), *binary));
    let wanted: Vec<(&str, bool)> = if request.outputs.is_empty() { all.collect() } else { wanted.collect() };
    let mut answers = None;
    for (name, binary) in wanted {
        let Some(output) = outputs.iter().find(|output| output.name == name) else {
            let answers = match &mut answers {
                Some(answers) => answers,
                none => none.insert(answered(served, outputs)?),
            };
            replies.push(derived(name, answers).ok_or_else(|| ServeError::Request(format!("the model has no output {name:?}")))?);
            continue;
        };
        let bytes = output.data.bytes();
        replies.push(OutputReply {
            name: output.name,
            datatype: datatype(output.data.element()),
            shape: output.shape.clone(),
            parameters: binary.then_some(Parameters { binary_data_size: bytes.len() }),
            data: (!binary).then_some(Numbers::Of(output.data)),
        });
        behind.extend(binary.then_some(bytes));
    }
    let (model_name, model_version) = (served.name.as_str(), served.version.as_str());
    let reply = Reply { model_name, model_version, id: request.id.as_deref(), outputs: replies };
    let mut body = serde_json::to_vec(&reply).map_err(|_| ServeError::Internal("an output has no JSON form"))?;
    let header_length = (!behind.is_empty()).then_some(body.len());
    behind.into_iter().for_each(|bytes| body.extend_from_slice(bytes));
    Ok(Encoded { body, header_length })
}

/// The answer to each example; none where the outputs are the answer.
fn answered(served: &Served, outputs: &[Output<'_>]) -> Result<Vec<Answer>, ServeError> {
    let Some(Output { shape, data: View::F32(values), .. }) = outputs.first() else { return Ok(Vec::new()) };
    let width = shape.iter().skip(1).product::<usize>().max(1);
    served.answers().fits("postprocess", width).map_err(|fault| ServeError::Request(fault.to_string()))?;
    Ok(values.chunks_exact(width).filter_map(|row| served.answers().answer(row)).collect())
}

/// What a release's configuration makes of the outputs, by name; always JSON.
fn derived<'a>(name: &str, answers: &[Answer]) -> Option<OutputReply<'a>> {
    let (name, datatype, data) = match name {
        "label" => ("label", "BYTES", Numbers::Labels(answers.iter().map(|answer| answer.label.clone()).collect())),
        "score" => ("score", "FP64", Numbers::Scores(answers.iter().map(|answer| answer.score).collect())),
        "accepted" => ("accepted", "BOOL", Numbers::Accepted(answers.iter().map(|answer| answer.accepted).collect())),
        _ => return None,
    };
    (!answers.is_empty()).then(|| OutputReply { name, datatype, shape: vec![answers.len()], parameters: None, data: Some(data) })
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

//! Reading an inference request: a JSON header, and tensors in it or behind it.

use std::fmt;

use bytes::Bytes;
use sapwood_models::onnx::Element;
use sapwood_runtime::View;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, DeserializeSeed, Error as _, SeqAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

use super::ServeError;

/// The JSON part, as the protocol has it. Unknown members are allowed: the protocol's extensions add some.
#[derive(Deserialize)]
struct Header {
    id: Option<String>,
    #[serde(default)]
    parameters: Map<String, Value>,
    inputs: Vec<InputHeader>,
    #[serde(default)]
    outputs: Vec<OutputHeader>,
}

#[derive(Deserialize)]
struct InputHeader {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    #[serde(default)]
    parameters: Map<String, Value>,
    data: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct OutputHeader {
    name: String,
    #[serde(default)]
    parameters: Map<String, Value>,
}

/// One inference, understood.
pub(super) struct Request {
    /// Echoed.
    pub(super) id: Option<String>,
    /// The digest of the schema by which the client made its tensors, if it says.
    pub(super) schema: Option<String>,
    pub(super) tensors: Vec<Tensor>,
    /// Which outputs, and whether each is wanted as bytes; empty: all of them.
    pub(super) outputs: Vec<(String, bool)>,
    /// Whether outputs are wanted as bytes where it is not said one by one.
    pub(super) binary: bool,
}

/// One input tensor: little-endian bytes from the body, or numbers from the JSON.
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    data: Data,
}

enum Data {
    Raw(Element, Bytes),
    F32(Vec<f32>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    U8(Vec<u8>),
    I8(Vec<i8>),
    Bool(Vec<bool>),
}

impl Tensor {
    pub(super) fn view(&self) -> View<'_> {
        match &self.data {
            Data::Raw(element, bytes) => View::Raw(*element, bytes),
            Data::F32(v) => View::F32(v),
            Data::I64(v) => View::I64(v),
            Data::I32(v) => View::I32(v),
            Data::U8(v) => View::U8(v),
            Data::I8(v) => View::I8(v),
            Data::Bool(v) => View::Bool(v),
        }
    }
}

impl Request {
    /// `header_length` is the request's `Inference-Header-Content-Length`; without it the whole body is JSON.
    pub(super) fn parse(body: &Bytes, header_length: Option<usize>) -> Result<Self, ServeError> {
        let split = header_length.unwrap_or(body.len());
        if split > body.len() {
            return Err(bad(format!("inference-header-content-length is {split}, the body has {} bytes", body.len())));
        }
        let header: Header = serde_json::from_slice(&body[..split]).map_err(|e| bad(format!("the request's JSON: {e}")))?;
        let mut rest = body.slice(split..);
        let mut tensors = Vec::with_capacity(header.inputs.len());
        for input in header.inputs {
            tensors.push(tensor(input, &mut rest)?);
        }
        if !rest.is_empty() {
            return Err(bad(format!("{} bytes stand behind the last input", rest.len())));
        }
        let binary = flag(&header.parameters, "binary_data_output");
        let outputs = header.outputs.iter().map(|o| {
            let wanted = if o.parameters.contains_key("binary_data") { flag(&o.parameters, "binary_data") } else { binary };
            (o.name.clone(), wanted)
        });
        let schema = match header.parameters.get("schema") {
            None => None,
            Some(Value::String(digest)) => Some(digest.clone()),
            Some(_) => return Err(bad("the parameter `schema` is a digest, such as \"sha256:…\"".to_owned())),
        };
        Ok(Self { id: header.id, schema, tensors, outputs: outputs.collect(), binary })
    }
}

fn tensor(input: InputHeader, rest: &mut Bytes) -> Result<Tensor, ServeError> {
    let InputHeader { name, shape, datatype, parameters, data } = input;
    let element = element(&datatype).ok_or_else(|| bad(format!("input {name:?}: datatype {datatype:?} is not served")))?;
    let data = match (parameters.get("binary_data_size"), data) {
        (Some(size), None) => {
            let size = size.as_u64().and_then(|s| usize::try_from(s).ok()).filter(|s| *s <= rest.len());
            let size = size.ok_or_else(|| bad(format!("input {name:?}: binary_data_size is more than the body holds")))?;
            Data::Raw(element, rest.split_to(size))
        }
        (None, Some(json)) => numbers(element, &json).map_err(|e| bad(format!("input {name:?}: {e}")))?,
        (Some(_), Some(_)) => return Err(bad(format!("input {name:?} has both data and binary_data_size"))),
        (None, None) => return Err(bad(format!("input {name:?} has neither data nor binary_data_size"))),
    };
    Ok(Tensor { name, shape, data })
}

fn numbers(element: Element, json: &RawValue) -> Result<Data, serde_json::Error> {
    Ok(match element {
        Element::F32 => Data::F32(flat(json)?),
        Element::I64 => Data::I64(flat(json)?),
        Element::I32 => Data::I32(flat(json)?),
        Element::U8 => Data::U8(flat(json)?),
        Element::I8 => Data::I8(flat(json)?),
        Element::Bool => Data::Bool(flat(json)?),
        other => return Err(serde_json::Error::custom(format!("{other:?} has no JSON form here"))),
    })
}

/// The protocol's data types that are served.
pub(super) fn element(datatype: &str) -> Option<Element> {
    Some(match datatype {
        "FP32" => Element::F32,
        "INT64" => Element::I64,
        "INT32" => Element::I32,
        "UINT8" => Element::U8,
        "INT8" => Element::I8,
        "BOOL" => Element::Bool,
        _ => return None,
    })
}

fn flag(parameters: &Map<String, Value>, name: &str) -> bool {
    parameters.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn bad(why: String) -> ServeError {
    ServeError::Request(why)
}

/// Numbers from an array that is flat or nested, in row-major order. The parser bounds the depth.
fn flat<T: DeserializeOwned>(json: &RawValue) -> Result<Vec<T>, serde_json::Error> {
    let mut values = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(json.get());
    Flat(&mut values).deserialize(&mut deserializer)?;
    Ok(values)
}

struct Flat<'a, T>(&'a mut Vec<T>);

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for Flat<'_, T> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Flat<'_, T> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers in arrays")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while array.next_element_seed(Flat(&mut *self.0))?.is_some() {}
        Ok(())
    }
    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<(), E> {
        self.push(serde::de::value::F64Deserializer::new(v))
    }
    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<(), E> {
        self.push(serde::de::value::U64Deserializer::new(v))
    }
    fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<(), E> {
        self.push(serde::de::value::I64Deserializer::new(v))
    }
    fn visit_bool<E: serde::de::Error>(self, v: bool) -> Result<(), E> {
        self.push(serde::de::value::BoolDeserializer::new(v))
    }
}

impl<T: DeserializeOwned> Flat<'_, T> {
    fn push<'de, D: Deserializer<'de>>(self, number: D) -> Result<(), D::Error> {
        self.0.push(T::deserialize(number)?);
        Ok(())
    }
}

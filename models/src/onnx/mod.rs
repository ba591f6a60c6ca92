//! ONNX files: bounded decoding, checking, typed access, encoding.
//!
//! [`Model::decode`] first walks the bytes without allocating ([`wire`]), so that counts
//! and nesting are bounded before prost builds anything, and then checks the graph
//! ([`check`]): single assignment, topological order, tensors whose dims and payload
//! agree, nothing outside the file. A [`Model`] is the proof that all of it holds.
//!
//! The protobuf is kept as it was, so decoding and encoding gives the same bytes back
//! for files in prost's canonical order (those of Python's `onnx` are).

mod attributes;
mod check;
pub(crate) mod edit;
pub(crate) mod make;
mod values;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use prost::Message as _;

use crate::ModelError;

pub use attributes::{Attributes, constant};
pub(crate) use values::replace_f32;
pub use values::{read_tensor, write_tensor};

/// Types generated from the vendored `onnx.proto`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
#[allow(clippy::use_self, clippy::semicolon_if_nothing_returned)]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

/// Oldest `ai.onnx` opset that is read.
pub const OLDEST_OPSET: i64 = 7;
/// Newest `ai.onnx` opset that is read.
pub const NEWEST_OPSET: i64 = 24;

/// Bounds of decoding. The defaults admit models of up to 1 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest file, in bytes.
    pub bytes: usize,
    /// Most protobuf messages of any kind in the file; bounds memory against files of
    /// many tiny messages.
    pub messages: usize,
    /// Most nodes, over all graphs and functions.
    pub nodes: usize,
    /// Most initializers, over all graphs.
    pub initializers: usize,
    /// Most attributes of one node.
    pub attributes: usize,
    /// Deepest nesting of graphs in attributes; the main graph is at depth 1.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1 << 30, messages: 2_000_000, nodes: 100_000, initializers: 100_000, attributes: 256, depth: 8 }
    }
}

/// An ONNX model that passed every check of [`Model::decode`].
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Shared by clones: weights can be large, and a model is never edited in place.
    proto: Arc<pb::ModelProto>,
}

/// Name, type and shape of a graph input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueInfo {
    /// Name of the value.
    pub name: String,
    /// Element type.
    pub element: Element,
    /// Shape; empty for scalars and where the file does not say.
    pub shape: Vec<Dim>,
}

/// One extent of a declared shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A known extent.
    Fixed(usize),
    /// An extent known only at run time; the name may be empty.
    Symbol(String),
}

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 16-bit float.
    F16,
    /// Signed byte.
    I8,
    /// Byte.
    U8,
    /// 32-bit signed integer.
    I32,
    /// 64-bit signed integer.
    I64,
    /// Truth value.
    Bool,
    /// Any other ONNX type, by its number in `TensorProto.DataType`.
    Other(i32),
}

impl Element {
    /// The element type of a `TensorProto.DataType` number.
    pub fn from_onnx(code: i32) -> Self {
        use pb::tensor_proto::DataType;
        match DataType::try_from(code) {
            Ok(DataType::Float) => Self::F32,
            Ok(DataType::Double) => Self::F64,
            Ok(DataType::Float16) => Self::F16,
            Ok(DataType::Int8) => Self::I8,
            Ok(DataType::Uint8) => Self::U8,
            Ok(DataType::Int32) => Self::I32,
            Ok(DataType::Int64) => Self::I64,
            Ok(DataType::Bool) => Self::Bool,
            _ => Self::Other(code),
        }
    }

    /// The `TensorProto.DataType` number.
    pub fn to_onnx(self) -> i32 {
        use pb::tensor_proto::DataType;
        let kind = match self {
            Self::F32 => DataType::Float,
            Self::F64 => DataType::Double,
            Self::F16 => DataType::Float16,
            Self::I8 => DataType::Int8,
            Self::U8 => DataType::Uint8,
            Self::I32 => DataType::Int32,
            Self::I64 => DataType::Int64,
            Self::Bool => DataType::Bool,
            Self::Other(code) => return code,
        };
        kind as i32
    }
}

impl Model {
    /// Reads and checks a model with the default [`Limits`].
    ///
    /// # Errors
    /// The first reason to refuse the file; see [`ModelError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ModelError> {
        Self::decode_within(bytes, &Limits::default())
    }

    /// Reads and checks a model within the given limits.
    ///
    /// # Errors
    /// As [`Model::decode`].
    pub fn decode_within(bytes: &[u8], limits: &Limits) -> Result<Self, ModelError> {
        if bytes.len() > limits.bytes {
            return Err(ModelError::TooLarge { bytes: bytes.len(), limit: limits.bytes });
        }
        wire::scan(bytes, limits)?;
        let proto = pb::ModelProto::decode(bytes).map_err(|fault| ModelError::Malformed { reason: fault.to_string() })?;
        Self::new(proto)
    }

    /// Checks a model that was built in memory.
    ///
    /// # Errors
    /// As [`Model::decode`], but for the limits on bytes and counts.
    pub fn new(proto: pb::ModelProto) -> Result<Self, ModelError> {
        check::model(&proto)?;
        Ok(Self { proto: Arc::new(proto) })
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        self.proto.encode_to_vec()
    }

    /// The protobuf message.
    pub fn proto(&self) -> &pb::ModelProto {
        &self.proto
    }

    /// Gives the message away, to edit it and come back through [`Model::new`].
    pub fn into_proto(self) -> pb::ModelProto {
        Arc::unwrap_or_clone(self.proto)
    }

    /// The main graph.
    pub fn graph(&self) -> &pb::GraphProto {
        self.proto.graph.as_ref().expect("`new` refuses models without a graph")
    }

    /// Version of the `ai.onnx` operator set.
    pub fn opset(&self) -> i64 {
        opset_of(&self.proto).expect("`new` refuses models without an ai.onnx opset")
    }

    /// Graph inputs that the caller must give: those that are no initializers.
    pub fn inputs(&self) -> Vec<ValueInfo> {
        let graph = self.graph();
        let given: std::collections::HashSet<&str> = graph.initializer.iter().map(pb::TensorProto::name).collect();
        graph.input.iter().filter(|v| !given.contains(v.name())).map(value_info).collect()
    }

    /// Graph outputs.
    pub fn outputs(&self) -> Vec<ValueInfo> {
        self.graph().output.iter().map(value_info).collect()
    }
}

/// How errors and reports name a node: its own name, else what it makes.
pub fn label(node: &pb::NodeProto) -> String {
    if !node.name().is_empty() {
        return format!("node `{}`", node.name());
    }
    match node.output.iter().find(|o| !o.is_empty()) {
        Some(output) => format!("the {} node that makes `{output}`", node.op_type()),
        None => format!("a {} node without name and output", node.op_type()),
    }
}

/// Whether a domain is the standard one, which has two spellings.
pub fn is_standard(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

fn opset_of(proto: &pb::ModelProto) -> Option<i64> {
    proto.opset_import.iter().find(|o| is_standard(o.domain())).map(|o| o.version())
}

pub(crate) fn value_info(value: &pb::ValueInfoProto) -> ValueInfo {
    use pb::tensor_shape_proto::dimension::Value;
    let tensor = match value.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(pb::type_proto::Value::TensorType(tensor)) => Some(tensor),
        _ => None,
    };
    let dims = tensor.and_then(|t| t.shape.as_ref()).map_or(&[][..], |s| &s.dim);
    let shape = dims
        .iter()
        .map(|dim| match &dim.value {
            // Negative extents are written by some exporters for "unknown".
            Some(Value::DimValue(n)) => usize::try_from(*n).map_or_else(|_| Dim::Symbol(String::new()), Dim::Fixed),
            Some(Value::DimParam(name)) => Dim::Symbol(name.clone()),
            None => Dim::Symbol(String::new()),
        })
        .collect();
    ValueInfo { name: value.name().to_owned(), element: Element::from_onnx(tensor.map_or(0, |t| t.elem_type())), shape }
}

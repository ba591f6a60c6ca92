//! What can be wrong with a model, and what to do about it.

use crate::dataset::DataFault;

/// A refusal of a model, of a value for it, or of an operation on it.
///
/// Every variant names the node or value at fault, because graphs are long.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file is larger than the limit.
    #[error("the model has {bytes} bytes, more than the limit of {limit}; use a smaller model or raise the limit")]
    TooLarge {
        /// Size of the file.
        bytes: usize,
        /// Largest accepted size.
        limit: usize,
    },
    /// The bytes are no ONNX protobuf message.
    #[error("the file is not an ONNX model: {reason}; export it again")]
    Malformed {
        /// What the parser met.
        reason: String,
    },
    /// A count (nodes, initializers, attributes, ...) passes its limit.
    #[error("the model has {count} {what}, more than the limit of {limit}")]
    TooMany {
        /// What was counted, in the plural.
        what: &'static str,
        /// How many there are (counting stops at the first above the limit).
        count: usize,
        /// Largest accepted count.
        limit: usize,
    },
    /// Graphs nested in attributes deeper than the limit.
    #[error("graphs are nested more than {limit} deep; unroll the control flow before export")]
    TooDeep {
        /// Largest accepted depth.
        limit: usize,
    },
    /// `ModelProto.graph` is absent or empty.
    #[error("the model has no graph; export it again")]
    MissingGraph,
    /// No `ai.onnx` entry in `opset_import`.
    #[error("the model does not say which ai.onnx opset it uses; export it with one from {oldest} to {newest}")]
    MissingOpset {
        /// Oldest accepted opset.
        oldest: i64,
        /// Newest accepted opset.
        newest: i64,
    },
    /// An `ai.onnx` opset outside the accepted range.
    #[error("the model uses ai.onnx opset {found}; export it with one from {oldest} to {newest}")]
    Opset {
        /// The opset of the file.
        found: i64,
        /// Oldest accepted opset.
        oldest: i64,
        /// Newest accepted opset.
        newest: i64,
    },
    /// A node or function of a domain that `opset_import` does not name.
    #[error("{item} is of domain `{domain}`, which the model does not import; export it with ai.onnx operators only")]
    UnknownDomain {
        /// The node or function.
        item: String,
        /// Its domain.
        domain: String,
    },
    /// A tensor whose values lie outside the file.
    #[error("tensor `{tensor}` keeps its values in `{location}`, outside the model{}; export with external_data=False", if *traversal { " and outside its folder" } else { "" })]
    ExternalData {
        /// Name of the tensor.
        tensor: String,
        /// The file it points to, as written.
        location: String,
        /// Whether the location is absolute or climbs out of the model's folder.
        traversal: bool,
    },
    /// A tensor whose declared dims, type and payload disagree, or of a type that cannot be read.
    #[error("tensor `{tensor}` is broken: {reason}; export the model again")]
    BadTensor {
        /// Name of the tensor.
        tensor: String,
        /// What disagrees.
        reason: String,
    },
    /// A value name that two producers define.
    #[error("value `{value}` is defined twice, the second time by {by}; names must be unique")]
    DuplicateValue {
        /// The name.
        value: String,
        /// The second producer.
        by: String,
    },
    /// A value that a node or output reads and nothing defines.
    #[error("{reader} reads `{value}`, which nothing defines; export the model again")]
    UndefinedValue {
        /// The name.
        value: String,
        /// The node or output that reads it.
        reader: String,
    },
    /// A value that a node reads before a later node makes it.
    #[error("{node} reads `{value}` before it is made; the graph is cyclic or not in topological order")]
    Unordered {
        /// The reading node.
        node: String,
        /// The value.
        value: String,
    },
    /// A node whose attributes, arity or operands break the operator's specification.
    #[error("{node}: {reason}")]
    BadNode {
        /// The node, as [`crate::onnx::label`] prints it.
        node: String,
        /// What is wrong.
        reason: String,
    },
    /// A node that the interpreter, the trainer or an export cannot handle.
    #[error("{node} ({op}) is not supported: {reason}")]
    Unsupported {
        /// The node, as [`crate::onnx::label`] prints it.
        node: String,
        /// Its operator.
        op: String,
        /// What exactly is not supported, and where there is one the way out.
        reason: String,
    },
    /// A node that mixes the examples of a batch, or cannot be shown to keep them apart.
    #[error("{node} ({op}) is not shown to keep the examples of a batch apart: {reason}")]
    Mixes {
        /// The node, as [`crate::onnx::label`] prints it.
        node: String,
        /// Its operator.
        op: String,
        /// What it does with them, and what to do.
        reason: String,
    },
    /// Operands of shapes that do not fit the operator.
    #[error("{node} ({op}) got shapes that do not fit: {reason}")]
    Shape {
        /// The node, as [`crate::onnx::label`] prints it.
        node: String,
        /// Its operator.
        op: String,
        /// Which shapes.
        reason: String,
    },
    /// A graph input given by the caller is missing, unknown, or of the wrong type or shape.
    #[error("input `{name}`: {reason}")]
    Input {
        /// Name of the graph input.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A vector of parameters of the wrong length.
    #[error("the vector has {got} parameters, the model {expected}")]
    Length {
        /// Length of the layout.
        expected: usize,
        /// Length of the vector.
        got: usize,
    },
    /// A parameter that is NaN or infinite.
    #[error("parameter {index} of the vector (in `{tensor}`) is not finite")]
    NotFinite {
        /// Tensor that holds it.
        tensor: String,
        /// Index into the flat vector.
        index: usize,
    },
    /// A layout that belongs to another model.
    #[error("the layout does not belong to this model: {reason}")]
    Layout {
        /// The first difference.
        reason: String,
    },
    /// A `freeze` pattern that matches no parameter.
    #[error("freeze pattern `{pattern}` matches no parameter; the nearest is `{nearest}`")]
    Freeze {
        /// The pattern.
        pattern: String,
        /// A parameter with a name close to it, or an empty string.
        nearest: String,
    },
    /// A model with nothing to train.
    #[error("the model has no trainable parameter; check `freeze` and the report of `model inspect`")]
    NothingToTrain,
    /// Two graphs that cannot be joined.
    #[error("the graphs cannot be joined: {reason}")]
    Compose {
        /// Why not.
        reason: String,
    },
    /// Calibration that gave no usable range.
    #[error("calibration failed for `{tensor}`: {reason}")]
    Calibration {
        /// The tensor without a range.
        tensor: String,
        /// Why there is none.
        reason: String,
    },
    /// A configuration value outside its domain.
    #[error("{name} = {value} is not allowed: {reason}")]
    Setting {
        /// The key.
        name: &'static str,
        /// The value as given.
        value: String,
        /// What is allowed.
        reason: String,
    },
    /// A graph that is no loss.
    #[error("the loss graph cannot be used")]
    LossGraph(#[source] Box<Self>),
    /// Examples that do not fit the model.
    #[error("the data does not fit the model")]
    Data(#[from] DataFault),
    /// The numeric backend refused an operation that the checks let through.
    #[error("{node}: the numeric backend failed: {reason}")]
    Backend {
        /// The node being computed.
        node: String,
        /// The backend's message.
        reason: String,
    },
}

//! The trained parameters of a graph as one flat vector.
//!
//! Not every float initializer is a weight: bounds of `Clip`, 0.5 or sqrt(2) are
//! initializers too. A tensor is a parameter by the role in which a node reads it
//! ([`roles`]), found also behind `Transpose`, `Identity` and `Reshape`.
//!
//! The order of the vector is the file's: `graph.initializer` first, then `Constant`
//! nodes, each row-major in the file's own layout. A tensor that several nodes share
//! stands once.

mod freeze;
mod inference;
mod roles;
#[cfg(test)]
mod tests;

use crate::ModelError;
use crate::onnx::{Model, constant, pb, read_tensor};
use crate::tensor::Tensor;

pub(crate) use freeze::matches;
pub use inference::trains_when_run;
pub(crate) use roles::{by_node, uses};

/// What a parameter does in the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Multiplies activations: kernels, matrices.
    Weight,
    /// Is added to activations.
    Bias,
    /// Scale of a normalization, or a `Mul` constant.
    Scale,
    /// Slope of `PRelu`.
    Slope,
    /// Table of an embedding (`Gather` axis 0).
    Embedding,
    /// Running mean or variance of a `BatchNormalization`: carried in the vector, set by
    /// forward passes in training, never by gradients.
    Statistic,
}

impl Role {
    /// Whether gradients change the parameter.
    pub fn is_trained(self) -> bool {
        self != Self::Statistic
    }
}

/// One tensor of the flat vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Name of the initializer, or of the output of the `Constant` node.
    pub name: String,
    /// Shape in the file.
    pub shape: Vec<usize>,
    /// Index of its first value in the flat vector.
    pub offset: usize,
    /// What it does.
    pub role: Role,
}

impl Parameter {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its place in the flat vector.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// The parameters of a model in the order of the flat vector.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    parameters: Vec<Parameter>,
    length: usize,
}

impl Layout {
    /// The parameters in order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Length D of the flat vector.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The parameter of that name.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|p| p.name == name)
    }

    /// Checks a flat vector: as long as the layout, every value finite.
    ///
    /// # Errors
    /// [`ModelError::Length`], or [`ModelError::NotFinite`] naming the tensor.
    pub fn check(&self, flat: &[f32]) -> Result<(), ModelError> {
        if flat.len() != self.length {
            return Err(ModelError::Length { expected: self.length, got: flat.len() });
        }
        let Some(index) = flat.iter().position(|v| !v.is_finite()) else { return Ok(()) };
        let tensor = self.parameters.iter().find(|p| p.range().contains(&index));
        Err(ModelError::NotFinite { tensor: tensor.map_or_else(String::new, |p| p.name.clone()), index })
    }

    fn push(&mut self, name: &str, shape: &[usize], role: Role) {
        let parameter = Parameter { name: name.to_owned(), shape: shape.to_vec(), offset: self.length, role };
        self.length += parameter.len();
        self.parameters.push(parameter);
    }
}

/// The trainable tensors of a model (plus running statistics) and their values, without
/// those that `freeze` takes out: `*` in a pattern stands for any run of characters, the last pattern that matches decides, and one
/// with `!` in front takes in again, as in `["*", "!head.*"]`.
///
/// # Errors
/// [`ModelError::Freeze`] if a pattern matches nothing, [`ModelError::NotFinite`] if the
/// file holds NaN or infinity, [`ModelError::NothingToTrain`] if nothing is left to train.
pub fn parameters(model: &Model, freeze: &[String]) -> Result<(Layout, Vec<f32>), ModelError> {
    let found = candidates(model)?;
    let frozen = freeze::Frozen::new(freeze, &found)?;
    let mut layout = Layout::default();
    let mut flat = Vec::new();
    for (name, role, tensor) in &found {
        if frozen.holds(name) {
            continue;
        }
        let Some(values) = tensor.as_f32() else { continue };
        layout.push(name, &tensor.shape, *role);
        flat.extend_from_slice(values);
    }
    if !layout.parameters.iter().any(|p| p.role.is_trained() && !p.is_empty()) {
        return Err(ModelError::NothingToTrain);
    }
    layout.check(&flat)?;
    Ok((layout, flat))
}

/// Every tensor with a role, in graph order, frozen or not.
pub(crate) fn candidates(model: &Model) -> Result<Vec<(String, Role, Tensor)>, ModelError> {
    let graph = model.graph();
    let roles = uses(graph)?;
    let mut found = Vec::new();
    for proto in &graph.initializer {
        if let Some(used) = roles.get(proto.name()) {
            found.push((proto.name().to_owned(), used.role, read_tensor(proto)?));
        }
    }
    for node in &graph.node {
        let Some(output) = node.output.first() else { continue };
        if let Some(used) = roles.get(output.as_str())
            && let Some(tensor) = constant(node)?
        {
            found.push((output.clone(), used.role, tensor));
        }
    }
    Ok(found)
}

/// The model with the vector's values in place of its parameters, in inference form:
/// `BatchNormalization` has one output and no `training_mode`, `Dropout` one input for
/// the ratio at most and no mask.
///
/// # Errors
/// [`ModelError::Length`] or [`ModelError::NotFinite`] for a bad vector,
/// [`ModelError::Layout`] if the layout is another model's, [`ModelError::Unsupported`]
/// if another node reads a training-only output.
pub fn write_back(model: &Model, layout: &Layout, flat: &[f32]) -> Result<Model, ModelError> {
    layout.check(flat)?;
    let mut proto = model.proto().clone();
    let graph = proto.graph.as_mut().ok_or(ModelError::MissingGraph)?;
    let mut written = 0;
    for tensor in &mut graph.initializer {
        if let Some(parameter) = layout.get(tensor.name()) {
            replace(tensor, parameter, &flat[parameter.range()])?;
            written += 1;
        }
    }
    for node in graph.node.iter_mut().filter(|n| n.op_type() == "Constant") {
        let Some(parameter) = node.output.first().and_then(|o| layout.get(o)) else { continue };
        replace_constant(node, parameter, &flat[parameter.range()])?;
        written += 1;
    }
    if written != layout.parameters.len() {
        let reason = format!("{written} of {} tensors are in the model", layout.parameters.len());
        return Err(ModelError::Layout { reason });
    }
    inference::to_inference(graph)?;
    Model::new(proto)
}

fn replace(tensor: &mut pb::TensorProto, parameter: &Parameter, values: &[f32]) -> Result<(), ModelError> {
    let float = tensor.data_type() == crate::onnx::Element::F32.to_onnx();
    let same = tensor.dims.iter().map(|d| usize::try_from(*d)).eq(parameter.shape.iter().map(|d| Ok(*d)));
    if !float || !same {
        let reason = format!("tensor `{}` is not f32 {:?}", parameter.name, parameter.shape);
        return Err(ModelError::Layout { reason });
    }
    crate::onnx::replace_f32(tensor, values);
    Ok(())
}

fn replace_constant(node: &mut pb::NodeProto, parameter: &Parameter, values: &[f32]) -> Result<(), ModelError> {
    for attribute in &mut node.attribute {
        if attribute.name() == "value"
            && let Some(tensor) = attribute.t.as_mut()
        {
            return replace(tensor, parameter, values);
        }
        if attribute.name() == "value_floats" && attribute.floats.len() == values.len() {
            attribute.floats = values.to_vec();
            return Ok(());
        }
    }
    let reason = format!("constant `{}` is not f32 {:?}", parameter.name, parameter.shape);
    Err(ModelError::Layout { reason })
}

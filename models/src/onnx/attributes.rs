//! Typed access to a node's attributes.

use super::pb::{self, attribute_proto::AttributeType};
use super::{label, read_tensor};
use crate::ModelError;
use crate::tensor::{Tensor, TensorData};

/// The attributes of one node. An absent attribute gives the default, one of another
/// type is an error that names the node.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'n> {
    node: &'n pb::NodeProto,
}

impl<'n> Attributes<'n> {
    /// The attributes of `node`.
    pub fn of(node: &'n pb::NodeProto) -> Self {
        Self { node }
    }

    /// The attribute of that name, of any type.
    pub fn get(&self, name: &str) -> Option<&'n pb::AttributeProto> {
        self.node.attribute.iter().find(|a| a.name() == name)
    }

    fn typed(&self, name: &str, kind: AttributeType) -> Result<Option<&'n pb::AttributeProto>, ModelError> {
        let Some(attribute) = self.get(name) else { return Ok(None) };
        if attribute.r#type() != kind {
            return Err(ModelError::BadNode {
                node: label(self.node),
                reason: format!("attribute `{name}` is {}, it must be {}", attribute.r#type().as_str_name(), kind.as_str_name()),
            });
        }
        Ok(Some(attribute))
    }

    /// An integer.
    ///
    /// # Errors
    /// [`ModelError::BadNode`] if the attribute has another type; so for all accessors.
    pub fn int(&self, name: &str, default: i64) -> Result<i64, ModelError> {
        Ok(self.typed(name, AttributeType::Int)?.map_or(default, pb::AttributeProto::i))
    }

    /// A float.
    ///
    /// # Errors
    /// As [`Attributes::int`].
    pub fn float(&self, name: &str, default: f32) -> Result<f32, ModelError> {
        Ok(self.typed(name, AttributeType::Float)?.map_or(default, pb::AttributeProto::f))
    }

    /// A list of integers, if it is there.
    ///
    /// # Errors
    /// As [`Attributes::int`].
    pub fn ints(&self, name: &str) -> Result<Option<&'n [i64]>, ModelError> {
        Ok(self.typed(name, AttributeType::Ints)?.map(|a| a.ints.as_slice()))
    }

    /// A list of floats, if it is there.
    ///
    /// # Errors
    /// As [`Attributes::int`].
    pub fn floats(&self, name: &str) -> Result<Option<&'n [f32]>, ModelError> {
        Ok(self.typed(name, AttributeType::Floats)?.map(|a| a.floats.as_slice()))
    }

    /// A string.
    ///
    /// # Errors
    /// As [`Attributes::int`], and if the bytes are not UTF-8.
    pub fn string(&self, name: &str, default: &'n str) -> Result<&'n str, ModelError> {
        let Some(attribute) = self.typed(name, AttributeType::String)? else { return Ok(default) };
        std::str::from_utf8(attribute.s())
            .map_err(|_| ModelError::BadNode { node: label(self.node), reason: format!("attribute `{name}` is not UTF-8 text") })
    }

    /// A tensor, if it is there.
    ///
    /// # Errors
    /// As [`Attributes::int`], and what [`read_tensor`] refuses.
    pub fn tensor(&self, name: &str) -> Result<Option<Tensor>, ModelError> {
        match self.typed(name, AttributeType::Tensor)?.and_then(|a| a.t.as_ref()) {
            Some(proto) => read_tensor(proto).map(Some),
            None => Ok(None),
        }
    }
}

/// The value of a `Constant` node; `None` for other operators.
///
/// # Errors
/// [`ModelError::BadNode`] if it has no value, or one of a form that has no tensor
/// (strings, sparse).
pub fn constant(node: &pb::NodeProto) -> Result<Option<Tensor>, ModelError> {
    if node.op_type() != "Constant" || !super::is_standard(node.domain()) {
        return Ok(None);
    }
    let attributes = Attributes::of(node);
    if let Some(tensor) = attributes.tensor("value")? {
        return Ok(Some(tensor));
    }
    if attributes.get("value_float").is_some() {
        return Ok(Some(Tensor::scalar(attributes.float("value_float", 0.0)?)));
    }
    if attributes.get("value_int").is_some() {
        let value = attributes.int("value_int", 0)?;
        return Ok(Some(Tensor { shape: Vec::new(), data: TensorData::I64(vec![value]) }));
    }
    if let Some(values) = attributes.floats("value_floats")? {
        return Tensor::f32([values.len()], values.to_vec()).map(Some);
    }
    if let Some(values) = attributes.ints("value_ints")? {
        return Tensor::i64([values.len()], values.to_vec()).map(Some);
    }
    Err(ModelError::BadNode { node: label(node), reason: "a Constant must hold a dense tensor or numbers".into() })
}

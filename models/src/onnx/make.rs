//! Small constructors for nodes, attributes and value infos, for code that builds graphs.

use super::pb::{self, attribute_proto::AttributeType};
use super::{Dim, Element, ValueInfo};

/// A node of the standard domain, named `name`.
pub(crate) fn node(op: &str, name: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<pb::AttributeProto>) -> pb::NodeProto {
    pb::NodeProto {
        input: inputs.iter().map(|s| (*s).to_owned()).collect(),
        output: outputs.iter().map(|s| (*s).to_owned()).collect(),
        name: Some(name.to_owned()),
        op_type: Some(op.to_owned()),
        attribute,
        ..Default::default()
    }
}

/// An integer attribute.
pub(crate) fn int(name: &str, value: i64) -> pb::AttributeProto {
    pb::AttributeProto { name: Some(name.to_owned()), r#type: Some(AttributeType::Int as i32), i: Some(value), ..Default::default() }
}

/// An attribute that is text.
pub(crate) fn text(name: &str, value: &str) -> pb::AttributeProto {
    pb::AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::String as i32),
        s: Some(value.as_bytes().to_vec()),
        ..Default::default()
    }
}

/// A float attribute.
pub(crate) fn float(name: &str, value: f32) -> pb::AttributeProto {
    pb::AttributeProto { name: Some(name.to_owned()), r#type: Some(AttributeType::Float as i32), f: Some(value), ..Default::default() }
}

/// An attribute that is a list of integers.
pub(crate) fn ints(name: &str, values: &[i64]) -> pb::AttributeProto {
    pb::AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Ints as i32),
        ints: values.to_vec(),
        ..Default::default()
    }
}

/// A declared value.
pub(crate) fn value(info: &ValueInfo) -> pb::ValueInfoProto {
    use pb::tensor_shape_proto::{Dimension, dimension::Value};
    let dim = info
        .shape
        .iter()
        .map(|dim| Dimension {
            value: match dim {
                Dim::Fixed(n) => Some(Value::DimValue(*n as i64)),
                Dim::Symbol(name) if name.is_empty() => None,
                Dim::Symbol(name) => Some(Value::DimParam(name.clone())),
            },
            denotation: None,
        })
        .collect();
    let tensor = pb::type_proto::Tensor { elem_type: Some(info.element.to_onnx()), shape: Some(pb::TensorShapeProto { dim }) };
    pb::ValueInfoProto {
        name: Some(info.name.clone()),
        r#type: Some(pb::TypeProto { value: Some(pb::type_proto::Value::TensorType(tensor)), denotation: None }),
        ..Default::default()
    }
}

/// A declared float value `[batch, ...shape]`.
pub(crate) fn batched(name: &str, shape: &[usize]) -> ValueInfo {
    let batch = std::iter::once(Dim::Symbol("batch".into()));
    ValueInfo { name: name.to_owned(), element: Element::F32, shape: batch.chain(shape.iter().map(|d| Dim::Fixed(*d))).collect() }
}

//! Requests are held to the schema that the model's training data was held to.

use std::borrow::Cow;

use sapwood_data::{DataError, Schema};
use sapwood_models::{Element, ValueInfo};
use sapwood_protocol::release::documents::SchemaId;
use sapwood_runtime::{Input, IoInfo, View};

use super::ServeError;

/// The schema's rule for each input of a model.
pub(super) struct Guard {
    pub(super) id: SchemaId,
    rules: Vec<(String, sapwood_data::Input)>,
}

impl Guard {
    pub(super) fn new(schema: &Schema, id: SchemaId, inputs: &[IoInfo]) -> Result<Self, DataError> {
        let info = |input: &IoInfo| ValueInfo { name: input.name.clone(), element: input.element, shape: input.shape.clone() };
        let infos: Vec<ValueInfo> = inputs.iter().map(info).collect();
        let rules = schema.fits(&infos)?;
        let rules = infos.iter().zip(rules).map(|(info, rule)| (info.name.clone(), rule.clone())).collect();
        Ok(Self { id, rules })
    }

    /// Names and shapes are for the runtime, which refuses what does not fit the graph.
    pub(super) fn check(&self, inputs: &[Input<'_>]) -> Result<(), ServeError> {
        for (name, rule) in &self.rules {
            let given = inputs.iter().filter(|input| input.name == name);
            for values in given.filter_map(|input| numbers(input.data)) {
                let broken = |violation| ServeError::Request(format!("{violation}"));
                rule.check(&values, Some(name)).map_err(broken)?;
            }
        }
        Ok(())
    }
}

/// The values as data sets have them; none of a type that the schema says nothing of.
fn numbers(data: View<'_>) -> Option<Cow<'_, [f32]>> {
    let whole = |values: &mut dyn Iterator<Item = i64>| Some(Cow::Owned(values.map(|value| value as f32).collect()));
    match data {
        View::F32(values) => Some(Cow::Borrowed(values)),
        View::I64(values) => whole(&mut values.iter().copied()),
        View::I32(values) => whole(&mut values.iter().map(|value| i64::from(*value))),
        View::U8(values) | View::Raw(Element::U8, values) => whole(&mut values.iter().map(|value| i64::from(*value))),
        View::I8(values) => whole(&mut values.iter().map(|value| i64::from(*value))),
        View::Bool(values) => whole(&mut values.iter().map(|value| i64::from(*value))),
        View::Raw(Element::F32, bytes) => Some(Cow::Owned(bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect())),
        View::Raw(Element::I64, bytes) => whole(&mut bytes.as_chunks().0.iter().map(|word| i64::from_le_bytes(*word))),
        View::Raw(Element::I32, bytes) => whole(&mut bytes.as_chunks().0.iter().map(|word| i64::from(i32::from_le_bytes(*word)))),
        View::Raw(Element::I8, bytes) => whole(&mut bytes.iter().map(|byte| i64::from(byte.cast_signed()))),
        View::Raw(Element::Bool, bytes) => whole(&mut bytes.iter().map(|byte| i64::from(*byte))),
        View::Raw(_, _) => None,
    }
}

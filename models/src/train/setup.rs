//! What a configuration must be, and what a graph must have, before anything is compiled.

use super::TrainConfig;
use super::criterion::Criterion;
use crate::onnx::{Dim, Model, ValueInfo, pb};
use crate::{ModelError, Tensor};

pub(super) fn check_lr(lr: f32) -> Result<(), ModelError> {
    let fits = lr.is_finite() && lr > 0.0;
    let bad = || ModelError::Setting { name: "lr", value: lr.to_string(), reason: "it must be above 0".to_owned() };
    if fits { Ok(()) } else { Err(bad()) }
}

pub(super) fn check(config: &TrainConfig) -> Result<(), ModelError> {
    check_lr(config.lr)?;
    if config.batch == 0 {
        return Err(ModelError::Setting { name: "batch", value: "0".to_owned(), reason: "it must be at least 1".to_owned() });
    }
    if config.accumulate == 0 {
        return Err(ModelError::Setting { name: "accumulate", value: "0".to_owned(), reason: "it must be at least 1".to_owned() });
    }
    if let Some(clip) = config.gradient_clip.filter(|clip| !(clip.is_finite() && *clip > 0.0)) {
        return Err(ModelError::Setting { name: "gradient clip", value: clip.to_string(), reason: "it must be above 0".to_owned() });
    }
    config.schedule.check()?;
    config.optimizer.check()
}

/// What the model reads, if that is something that examples can have.
pub(super) fn inputs(model: &Model) -> Result<Vec<ValueInfo>, ModelError> {
    let inputs = model.inputs();
    let zero = Tensor::scalar(0.0);
    match inputs.iter().find(|input| zero.clone().read_as(input.element).is_err()) {
        None => Ok(inputs),
        Some(ValueInfo { name, element, .. }) => {
            let reason = format!("features are floats, integers or booleans, not {element:?}");
            Err(ModelError::Input { name: name.clone(), reason })
        }
    }
}

/// The extents of one example.
pub(super) fn example(input: &ValueInfo) -> Result<Vec<usize>, ModelError> {
    let bad = |reason: &str| ModelError::Input { name: input.name.clone(), reason: reason.to_owned() };
    let extents = input.shape.get(1..).ok_or_else(|| bad("its shape is not declared; export it with one"))?;
    let fixed = |dim: &Dim| match dim {
        Dim::Fixed(n) if *n > 0 => Ok(*n),
        _ => Err(bad("only the batch may be of unknown extent; export the model with the others fixed")),
    };
    extents.iter().map(fixed).collect()
}

/// The value that the loss reads: the model's first output, or what goes into its last node
/// if that belongs to the loss.
pub(super) fn answer(model: &Model, criterion: &Criterion) -> Result<String, ModelError> {
    let output = model.outputs().into_iter().next().ok_or(ModelError::MissingGraph)?.name;
    let last = model.graph().node.iter().find(|n| n.output.contains(&output));
    let absorbed = last.filter(|n| criterion.absorbs(n.op_type()) && along_last_axis(n));
    Ok(absorbed.and_then(|n| n.input.first().cloned()).unwrap_or(output))
}

/// Whether a softmax over `[batch, classes]` runs over the classes.
fn along_last_axis(node: &pb::NodeProto) -> bool {
    node.attribute.iter().find(|a| a.name() == "axis").is_none_or(|a| matches!(a.i(), 1 | -1))
}

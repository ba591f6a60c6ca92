//! Rewrites before quantization, each leaving the graph's function as it is.

mod batch_norm;
mod common;
mod constants;
mod exports;
mod noops;
mod opset;
#[cfg(test)]
mod tests;

use crate::ModelError;
use crate::onnx::{Model, edit, pb};

/// A named rewrite of a graph.
#[derive(Clone, Copy)]
pub struct Pass {
    /// What it is called in reports.
    pub name: &'static str,
    run: fn(&mut pb::ModelProto) -> Result<(), ModelError>,
}

impl Pass {
    /// The rewritten model; the same model always gives the same one.
    ///
    /// # Errors
    /// [`ModelError::BadTensor`] for a constant that cannot be read, [`ModelError::BadNode`] for
    /// attributes against the specification.
    pub fn apply(&self, model: Model) -> Result<Model, ModelError> {
        let mut proto = model.into_proto();
        (self.run)(&mut proto)?;
        Model::new(proto)
    }
}

/// What the quantizer does to a graph before it looks for ranges, in this order. Names of
/// values that remain are kept.
pub const PASSES: [Pass; 12] = [
    Pass { name: "exporter's notes", run: exports::drop_notes },
    Pass { name: "constants to initializers", run: constants::to_initializers },
    Pass { name: "types of casts", run: exports::name_types },
    Pass { name: "no-ops", run: noops::remove },
    Pass { name: "opset", run: opset::raise },
    Pass { name: "constant folding", run: constants::fold },
    Pass { name: "equal constants", run: common::share_constants },
    Pass { name: "equal operators", run: common::share_operators },
    Pass { name: "batch normalization folding", run: batch_norm::fold },
    Pass { name: "hard swish", run: exports::expand_hard_swish },
    Pass { name: "unread operators", run: exports::drop_unread },
    Pass { name: "unread initializers", run: sweep },
];

/// The model after all of [`PASSES`].
///
/// # Errors
/// As [`Pass::apply`].
pub fn prepare(model: &Model) -> Result<Model, ModelError> {
    PASSES.iter().try_fold(model.clone(), |model, pass| pass.apply(model))
}

fn sweep(proto: &mut pb::ModelProto) -> Result<(), ModelError> {
    edit::sweep(graph(proto)?);
    Ok(())
}

fn graph(proto: &mut pb::ModelProto) -> Result<&mut pb::GraphProto, ModelError> {
    proto.graph.as_mut().ok_or(ModelError::MissingGraph)
}

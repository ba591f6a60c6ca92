//! Why an operator refuses, before the node's name is known.

use crate::ModelError;

/// A refusal of one operator; [`Fault::at`] adds which node it was.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// The interpreter has no such operator, attribute or combination.
    Unsupported(String),
    /// Operands whose shapes do not fit.
    Shape(String),
    /// A node that breaks the specification of its operator.
    Broken(String),
    /// A node inside this one, which the error names already.
    Within(Box<ModelError>),
}

impl Fault {
    pub(crate) fn unsupported(reason: impl Into<String>) -> Self {
        Self::Unsupported(reason.into())
    }

    pub(crate) fn shape(reason: impl Into<String>) -> Self {
        Self::Shape(reason.into())
    }

    pub(crate) fn broken(reason: impl Into<String>) -> Self {
        Self::Broken(reason.into())
    }

    pub(crate) fn at(self, node: &str, op: &str) -> ModelError {
        let (node, op) = (node.to_owned(), op.to_owned());
        match self {
            Self::Unsupported(reason) => ModelError::Unsupported { node, op, reason },
            Self::Shape(reason) => ModelError::Shape { node, op, reason },
            Self::Broken(reason) => ModelError::BadNode { node, reason },
            Self::Within(error) => *error,
        }
    }
}

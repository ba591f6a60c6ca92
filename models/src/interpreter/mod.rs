//! Runs an ONNX graph, forwards and, on a backend with a tape, backwards.
//!
//! A graph is compiled once ([`compile`]) into a [`plan::Plan`]: nodes in order with their
//! attributes parsed ([`operator::Operator`]), constants as tensors, constant subgraphs
//! computed, an `If` replaced by the branch that a constant chooses (or compiled into a plan
//! for each, [`branch`]), and for every operand whether it is read for the last time. The plan
//! then runs any number of times. Burn's rank-less backend primitives do the arithmetic on floats; integers
//! (shapes, axes, indices) stay on the host ([`value::Value`]).
//!
//! What an operator is stands in [`ops`], one file per family; nothing outside it knows
//! an operator by name, but for the rules of [`batch`], which shows that examples stay apart. What cannot be computed is refused when the plan is compiled,
//! with the node, its operator and the reason.

pub(crate) mod batch;
mod branch;
mod compile;
pub(crate) mod engine;
mod fault;
mod operator;
mod ops;
pub(crate) mod plan;
mod spec;
pub(crate) mod survey;
pub(crate) mod value;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(crate) use operator::Mode;
pub use plan::{Unsupported, unsupported};

use crate::ModelError;
use crate::onnx::is_standard;

/// Whether the interpreter has this operator. That a node of it can be computed depends
/// on its attributes too; [`unsupported`] tells for a whole model.
pub fn supports(op_type: &str, domain: &str) -> bool {
    is_standard(domain) && ops::find::<burn_flex::Flex>(op_type).is_some()
}

/// Runs `f` and turns a panic of the numeric backend into an error. Operators check shapes
/// before they call the backend; this is the net under what they miss.
pub(crate) fn guard<T>(what: &str, f: impl FnOnce() -> Result<T, ModelError>) -> Result<T, ModelError> {
    catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|panic| Err(ModelError::Backend { node: what.to_owned(), reason: message(panic.as_ref()) }))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked without a message").to_owned()
}

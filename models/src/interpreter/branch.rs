//! An `If` whose condition is known only when it runs.
//!
//! <https://onnx.ai/onnx/operators/onnx__If.html>, alike in all opsets.
//!
//! Each branch is a plan of its own. What it reads from the graphs around it are its inputs; of these, constants are its own.
//! Gradients flow through the branch that ran. Running statistics inside a branch are read, but never updated, and nobody
//! observes the values that it computes.

use std::collections::HashSet;

use super::engine::Engine;
use super::fault::Fault;
use super::operator::{Context, Inputs, Mode, Operator};
use super::plan::Plan;
use super::value::Value;
use crate::onnx::pb;

pub(super) struct Conditional<B: Engine> {
    /// As the condition counts them: else, then.
    pub(super) plans: Vec<Plan<B>>,
}

impl<B: Engine> Operator<B> for Conditional<B> {
    fn run(&self, mut inputs: Inputs<B>, cx: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let condition = inputs.host(0)?;
        let which = match condition.data[..] {
            [value] => usize::from(value != 0),
            _ => return Err(Fault::broken("its condition is not one boolean")),
        };
        let captured = (1..inputs.len()).map(|i| inputs.any(i)).collect::<Result<Vec<_>, _>>()?;
        let mode = match &mut cx.mode {
            Mode::Inference => Mode::Inference,
            Mode::Training(random) => Mode::Training(random),
        };
        let outcome = self.plans[which].run(captured, &[], mode, &mut |_, _| ());
        Ok(outcome.map_err(|error| Fault::Within(Box::new(error)))?.outputs)
    }
}

/// Names that a graph reads and does not define.
pub(super) fn free(graph: &pb::GraphProto) -> Vec<&str> {
    let own = graph.initializer.iter().map(pb::TensorProto::name).chain(graph.input.iter().map(pb::ValueInfoProto::name));
    let own: HashSet<&str> = own.chain(graph.node.iter().flat_map(|node| &node.output).map(String::as_str)).collect();
    let mut found = Vec::new();
    for node in &graph.node {
        found.extend(node.input.iter().map(String::as_str));
        found.extend(node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)).flat_map(free));
    }
    found.extend(graph.output.iter().map(pb::ValueInfoProto::name));
    found.retain(|name| !name.is_empty() && !own.contains(name));
    found
}

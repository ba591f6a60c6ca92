//! Follows the batch through a graph, to show that no example's output depends on another's.
//!
//! Clipping example by example protects an example only if its gradient is its own (Abadi et al. 2016), and an answer that depends on
//! who else is asked cannot be tested alone. So the axis of the examples is followed from the inputs through every node ([`rules`]),
//! also where a reshape has put it between others. What mixes examples is refused, and so is every node through which the axis cannot
//! be followed: an operator without a rule, a size that is not proportional to the number of examples ([`count`]).
//!
//! Extents come from two runs on made-up examples, two of them and three. They decide nothing alone: whatever depends on how many
//! examples there are is linear in it, by the rules, and two points determine a line.

mod count;
mod rules;

use burn_backend::tensor::FloatTensor;
use burn_flex::Flex;

use super::Mode;
use super::plan::{Plan, Step};
use super::value::Value;
use crate::ModelError;

/// How many examples the two runs have.
pub(crate) const SIZES: [usize; 2] = [2, 3];

/// Where the examples lie in a value: index `(i * examples + example) * after + j` of axis `at`, for `i` below `before` and `j` below
/// `after`. Both are 1 unless a reshape has joined axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Axis {
    at: usize,
    before: usize,
    after: usize,
}

impl Axis {
    fn whole(at: usize) -> Self {
        Self { at, before: 1, after: 1 }
    }

    fn moved(self, at: usize) -> Self {
        Self { at, ..self }
    }
}

/// What a value depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// On no example, nor on how many there are.
    Fixed,
    /// Whole numbers, each linear in the number of examples.
    Count,
    /// Each part on its example alone.
    Each(Axis),
}

/// What is known of a value.
#[derive(Debug, Clone)]
struct Fact {
    held: Held,
    /// At both sizes.
    shape: [Vec<usize>; 2],
    /// Integers at both sizes.
    ints: Option<[Vec<i64>; 2]>,
}

/// A value of one run.
struct Seen {
    shape: Vec<usize>,
    ints: Option<Vec<i64>>,
}

impl Seen {
    fn of(value: &Value<Flex>) -> Self {
        let ints = if let Value::Host(host) = value { Some(host.data.clone()) } else { None };
        Self { shape: value.shape(), ints }
    }

    fn pair([two, three]: [Self; 2], held: Held) -> Fact {
        Fact { held, shape: [two.shape, three.shape], ints: two.ints.zip(three.ints).map(|(a, b)| [a, b]) }
    }
}

/// Why examples are not shown to stay apart.
struct Reason(String);

/// It mixes them.
fn mixes(what: impl Into<String>) -> Reason {
    Reason(what.into())
}

/// There is no way to tell.
fn unknown(what: &str) -> Reason {
    Reason(format!("{what}; the examples cannot be followed through it"))
}

/// Shows that each output of the plan has a row for each example, which depends on that example alone. `examples` makes inputs for a
/// number of examples; `parameters` are in the order of the layout.
///
/// # Errors
/// [`ModelError::Mixes`] with the first node that cannot be shown to keep examples apart; what a run fails with.
pub(crate) fn check(
    plan: &Plan<Flex>,
    parameters: &[FloatTensor<Flex>],
    examples: &dyn Fn(usize) -> Result<Vec<Value<Flex>>, ModelError>,
) -> Result<(), ModelError> {
    let mut facts: Vec<Option<Fact>> = vec![None; plan.names.len()];
    for (slot, constant) in &plan.constants {
        facts[*slot] = Some(Seen::pair([Seen::of(constant), Seen::of(constant)], Held::Fixed));
    }
    for (bound, tensor) in plan.parameters.iter().zip(parameters) {
        let value = Value::Float(tensor.clone());
        facts[bound.slot] = Some(Seen::pair([Seen::of(&value), Seen::of(&value)], Held::Fixed));
    }
    let [two, three] = SIZES.map(examples);
    let inputs = [two?, three?];
    for ((slot, two), three) in plan.inputs.iter().zip(&inputs[0]).zip(&inputs[1]) {
        facts[*slot] = Some(Seen::pair([Seen::of(two), Seen::of(three)], Held::Each(Axis::whole(0))));
    }
    let [mut two, mut three] = [Vec::new(), Vec::new()];
    for (inputs, seen) in inputs.into_iter().zip([&mut two, &mut three]) {
        plan.run(inputs, parameters, Mode::Inference, &mut |_, value| seen.push(Seen::of(value)))?;
    }
    // Both runs saw the same nodes in the same order.
    let mut seen = two.into_iter().zip(three).map(|(two, three)| [two, three]);
    for step in &plan.steps {
        let refuse = |Reason(reason)| ModelError::Mixes { node: step.label.clone(), op: step.node.op_type().to_owned(), reason };
        let made: Vec<Option<Fact>> = step.outputs.iter().map(|o| o.and_then(|_| Some(Seen::pair(seen.next()?, Held::Fixed)))).collect();
        let held = rules::follow(&view(plan, step, &facts, &made)).map_err(refuse)?;
        for (i, (slot, fact)) in step.outputs.iter().zip(made).enumerate() {
            let (Some(slot), Some(mut fact)) = (slot, fact) else { continue };
            let held = held.get(i).copied().ok_or_else(|| refuse(unknown("its rule knows fewer outputs")))?;
            // Two points determine a line: numbers that are alike for both are alike for all.
            let same = fact.ints.as_ref().is_some_and(|[two, three]| two == three) && fact.shape[0] == fact.shape[1];
            fact.held = if held == Held::Count && same { Held::Fixed } else { held };
            fact.check().map_err(refuse)?;
            facts[*slot] = Some(fact);
        }
    }
    for slot in &plan.outputs {
        if facts[*slot].as_ref().is_none_or(|fact| fact.held != Held::Each(Axis::whole(0))) {
            let reason = "its first axis is not that of the examples; export the model with the batch in front".to_owned();
            return Err(ModelError::Mixes { node: format!("output `{}`", plan.names[*slot]), op: "output".to_owned(), reason });
        }
    }
    Ok(())
}

fn view<'a>(plan: &'a Plan<Flex>, step: &'a Step<Flex>, facts: &'a [Option<Fact>], made: &'a [Option<Fact>]) -> rules::Node<'a> {
    let statistics = step.operator.statistics();
    let parameter = |i: &usize| step.inputs.get(*i).copied().flatten().is_some_and(|o| o.parameter.is_some());
    rules::Node {
        proto: &step.node,
        opset: plan.opset,
        inputs: step.inputs.iter().map(|o| o.and_then(|o| facts[o.slot].as_ref())).collect(),
        made,
        moves_statistics: !statistics.is_empty() && statistics.iter().all(parameter),
    }
}

impl Fact {
    /// Whether the extents are those that the rule must give: the net under the rules.
    fn check(&self) -> Result<(), Reason> {
        let [two, three] = &self.shape;
        if self.held == Held::Count && self.ints.is_none() {
            return Err(unknown("it makes a value of how many examples there are"));
        }
        let fits = match self.held {
            Held::Fixed | Held::Count => two == three,
            Held::Each(axis) => {
                let extent = |n: usize| axis.before * n * axis.after;
                two.len() == three.len()
                    && axis.at < two.len()
                    && (0..two.len()).all(|i| if i == axis.at { [two[i], three[i]] == SIZES.map(extent) } else { two[i] == three[i] })
            }
        };
        if fits { Ok(()) } else { Err(unknown(&format!("two examples give {two:?}, and three {three:?}"))) }
    }

    fn rank(&self) -> usize {
        self.shape[0].len()
    }
}

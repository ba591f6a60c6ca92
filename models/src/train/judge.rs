//! What reads answers and targets: the inputs of a loss or a metric that its user wrote as a graph.

use burn_flex::Flex;

use super::TrainError;
use crate::dataset::{DataFault, Targets};
use crate::interpreter::engine::Engine;
use crate::interpreter::plan::Plan;
use crate::interpreter::value::Value;
use crate::interpreter::{batch, guard};
use crate::onnx::{Dim, Element, Model, ValueInfo};
use crate::{ModelError, Tensor};

/// The model's first output, f32 `[batch, ...]`.
pub(super) const OUTPUT: &str = "output";
/// What it should be: int64 `[batch]` (classes) or f32 `[batch, ...]`.
pub(super) const TARGET: &str = "target";

/// A graph from `output` and `target` to values for each example.
pub(super) struct Judge {
    pub(super) plan: Plan<Flex>,
    output: ValueInfo,
    target: ValueInfo,
    /// Whether `output` comes before `target`.
    output_first: bool,
}

impl Judge {
    /// Checks types and declared shapes, and compiles. The graph gives one f32 output of `rank` axes, the batch and what there is of each
    /// example.
    pub(super) fn new(model: &Model, rank: usize) -> Result<Self, ModelError> {
        let bad = |name: &str, reason: String| Err(ModelError::Input { name: name.to_owned(), reason });
        let inputs = model.inputs();
        let find = |name: &str| inputs.iter().find(|input| input.name == name).cloned();
        let (Some(output), Some(target), 2) = (find(OUTPUT), find(TARGET), inputs.len()) else {
            let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
            return bad(&names.join("`, `"), format!("the graph reads `{OUTPUT}` and `{TARGET}`, and nothing else"));
        };
        if output.element != Element::F32 || output.shape.is_empty() {
            return bad(OUTPUT, format!("it is {:?} {:?}, not F32 [batch, ...]", output.element, output.shape));
        }
        match (target.element, target.shape.len()) {
            (Element::I64, 1) | (Element::F32, 1..) => {}
            (element, _) => return bad(TARGET, format!("it is {element:?} {:?}, not I64 [batch] or F32 [batch, ...]", target.shape)),
        }
        let outputs = model.outputs();
        match &outputs[..] {
            [ValueInfo { element: Element::F32, shape, .. }] if shape.len() == rank => {}
            _ => {
                let found: Vec<_> = outputs.iter().map(|o| (o.element, &o.shape)).collect();
                return bad(
                    "the graph",
                    format!("its outputs are {found:?}; there must be one, F32 with {rank} axes, the first the batch"),
                );
            }
        }
        let plan = guard("compiling", || Plan::compile(model, &[], &Self::wanted(model)))?;
        let output_first = inputs.first().is_some_and(|input| input.name == OUTPUT);
        Ok(Self { plan, output, target, output_first })
    }

    pub(super) fn wanted(model: &Model) -> Vec<String> {
        model.outputs().into_iter().map(|output| output.name).collect()
    }

    /// Whether the targets are labels of classes.
    pub(super) fn is_of_classes(&self) -> bool {
        self.target.element == Element::I64
    }

    /// Whether the largest of a row of answers is a class.
    pub(super) fn has_accuracy(&self, answer: &[usize]) -> bool {
        self.is_of_classes() && matches!(answer, [(2..)])
    }

    /// Refuses answers of a shape that the graph does not read, and a graph that does not keep examples apart.
    pub(super) fn check(&self, answer: &[usize]) -> Result<(), ModelError> {
        let dims = &self.output.shape;
        let fits = dims.len() == answer.len() + 1 && dims[1..].iter().zip(answer).all(|(dim, n)| !matches!(dim, Dim::Fixed(d) if d != n));
        if !fits {
            let reason = format!("it reads {dims:?}, the model answers {answer:?} for each example");
            return Err(ModelError::Input { name: OUTPUT.to_owned(), reason });
        }
        let width: usize = answer.iter().product();
        guard("following the batch", || {
            batch::check(&self.plan, &[], &|n| {
                let answers = Tensor::f32([&[n], answer].concat(), made_up(n * width))?;
                let answers = Value::from_tensor(answers).map_err(|fault| fault.at(OUTPUT, "input"))?;
                Ok(self.ordered(answers, self.made_up_targets(n, width)?))
            })
        })
    }

    /// Refuses targets that the graph does not read, for `width` answers of each example.
    pub(super) fn check_targets(&self, targets: &Targets, width: usize) -> Result<(), TrainError> {
        let wrong = |found, needed| Err(TrainError::Data(DataFault::Targets { found, needed }));
        match targets {
            Targets::Classes(_) if self.is_of_classes() => Ok(()),
            Targets::Classes(_) => wrong("class labels", "f32 values"),
            Targets::Values(_) if self.is_of_classes() => wrong("values", "class labels"),
            Targets::Values(values) => {
                let (expected, found) = (self.values(width), values.row_len());
                if found == expected { Ok(()) } else { Err(TrainError::Targets { expected, found }) }
            }
        }
    }

    /// Values of one target: as declared, and as many as the model answers where an extent is open.
    pub(super) fn values(&self, width: usize) -> usize {
        self.extents().map_or(width, |fixed| fixed.iter().product())
    }

    /// The declared extents of one target, if all are.
    fn extents(&self) -> Option<Vec<usize>> {
        self.target.shape[1..].iter().map(|dim| if let Dim::Fixed(n) = dim { Some(*n) } else { None }).collect()
    }

    /// What the graph reads, in its order.
    pub(super) fn ordered<B: Engine>(&self, output: Value<B>, target: Value<B>) -> Vec<Value<B>> {
        if self.output_first { vec![output, target] } else { vec![target, output] }
    }

    /// The targets of some examples, which have passed [`Judge::check_targets`].
    pub(super) fn target<B: Engine>(&self, targets: &Targets, rows: &[usize], width: usize) -> Result<Value<B>, ModelError> {
        let tensor = match targets {
            Targets::Classes(labels) => Tensor::i64([rows.len()], rows.iter().map(|row| labels[*row]).collect())?,
            Targets::Values(values) => self.shaped(values.take_rows(rows), width)?,
        };
        Value::from_tensor(tensor).map_err(|fault| fault.at(TARGET, "input"))
    }

    /// Values in the shape that the graph declares.
    fn shaped(&self, mut values: Tensor, width: usize) -> Result<Tensor, ModelError> {
        let rows = values.rows();
        values.shape = match self.extents() {
            Some(fixed) => [vec![rows], fixed].concat(),
            None if self.target.shape.len() == 2 => vec![rows, self.values(width)],
            None => values.shape,
        };
        values.check()?;
        Ok(values)
    }

    /// Targets for `n` examples, each class in turn.
    pub(super) fn made_up_targets<B: Engine>(&self, n: usize, width: usize) -> Result<Value<B>, ModelError> {
        let rows: Vec<usize> = (0..n).collect();
        let targets = if self.is_of_classes() {
            Targets::Classes(rows.iter().map(|i| (i % width.max(1)) as i64).collect())
        } else {
            let values = self.values(width);
            Targets::Values(Tensor::f32([n, values], made_up(n * values).iter().map(|v| 1.0 - v).collect())?)
        };
        self.target(&targets, &rows, width)
    }
}

/// Numbers between 0 and 1 without a pattern, which may be probabilities as well as logits.
pub(super) fn made_up(count: usize) -> Vec<f32> {
    (0..count).map(|k| (k * 7919 % 997) as f32 / 1246.0 + 0.1).collect()
}

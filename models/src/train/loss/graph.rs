//! A loss that its user wrote as a graph, with one value for each example; training minimizes the mean, and the gradient is the
//! interpreter's. No example's value may depend on another example, or nothing could be clipped by example.

use burn_autodiff::Autodiff;
use burn_backend::ops::FloatTensorOps as _;
use burn_backend::{AutodiffBackend as _, Scalar};
use burn_flex::{Flex, FlexTensor};

use super::Measured;
use crate::ModelError;
use crate::dataset::Targets;
use crate::interpreter::plan::Plan;
use crate::interpreter::value::{Value, dims, floats, read};
use crate::interpreter::{Mode, guard};
use crate::metrics::argmax;
use crate::onnx::Model;
use crate::train::judge::{Judge, OUTPUT, made_up};

type Tape = Autodiff<Flex>;

/// Examples of the trial at registration.
const TRIED: usize = 3;

/// A compiled loss.
pub(in crate::train) struct LossGraph {
    pub(in crate::train) judge: Judge,
    learn: Plan<Tape>,
}

impl LossGraph {
    /// Checks types and declared shapes, and compiles.
    ///
    /// # Errors
    /// [`ModelError::LossGraph`].
    pub(in crate::train) fn new(model: &Model) -> Result<Self, ModelError> {
        let judge = Judge::new(model, 1).map_err(of_loss)?;
        let learn = guard("compiling", || Plan::compile(model, &[], &Judge::wanted(model))).map_err(of_loss)?;
        Ok(Self { judge, learn })
    }

    /// Shows that examples stay apart, and tries three with answers of this shape: values and gradient must be finite, and there must be
    /// a gradient.
    ///
    /// # Errors
    /// [`ModelError::LossGraph`].
    pub(in crate::train) fn check(&self, answer: &[usize]) -> Result<(), ModelError> {
        self.judge.check(answer).and_then(|()| self.try_out(answer)).map_err(of_loss)
    }

    fn try_out(&self, answer: &[usize]) -> Result<(), ModelError> {
        let width: usize = answer.iter().product();
        let target = self.judge.made_up_targets::<Tape>(TRIED, width)?;
        let (losses, gradient) = guard("a first loss", || self.slope(&made_up(TRIED * width), answer, target))?;
        let whole = |what: &str, values: &[f32]| match values.iter().find(|v| !v.is_finite()) {
            Some(value) => Err(trial(format!("{what} is {value} for answers between 0 and 1"))),
            None => Ok(()),
        };
        whole("its value", &losses)?;
        whole("its gradient", &gradient)?;
        if gradient.iter().all(|g| *g == 0.0) {
            return Err(trial("no gradient flows to the answers, so nothing would be learned".to_owned()));
        }
        Ok(())
    }

    /// Measures answers `[rows, answer...]`, row-major.
    ///
    /// # Errors
    /// What the graph refuses.
    pub(in crate::train) fn measure(
        &self,
        answers: &[f32],
        answer: &[usize],
        targets: &Targets,
        rows: &[usize],
    ) -> Result<Measured, ModelError> {
        let width = answer.iter().product::<usize>().max(1);
        let measured = guard("the loss graph", || self.slope(answers, answer, self.judge.target(targets, rows, width)?));
        let (losses, gradient) = measured.map_err(of_loss)?;
        let correct = match targets {
            Targets::Classes(labels) if self.judge.has_accuracy(answer) => {
                let right = |(row, i): (&[f32], &usize)| usize::from(argmax(row).is_some_and(|class| class as i64 == labels[*i]));
                Some(answers.chunks(width).zip(rows).map(right).sum())
            }
            _ => None,
        };
        let examples = rows.len();
        let loss = losses.iter().map(|v| f64::from(*v)).sum::<f64>() / examples.max(1) as f64;
        Ok(Measured { loss, weight: examples as f64, examples, correct, gradient })
    }

    /// The value of each example, and the gradient of their mean with respect to the answers.
    fn slope(&self, answers: &[f32], answer: &[usize], target: Value<Tape>) -> Result<(Vec<f32>, Vec<f32>), ModelError> {
        let rows = answers.len() / answer.iter().product::<usize>().max(1);
        let leaf = Tape::float_set_require_grad(floats::<Tape>(answers.to_vec(), &[&[rows], answer].concat()), true);
        let inputs = self.judge.ordered(Value::Float(leaf.clone()), target);
        let outcome = self.learn.run(inputs, &[], Mode::Inference, &mut |_, _| ())?;
        let Some(Value::Float(losses)) = outcome.outputs.into_iter().next() else {
            return Err(trial("its output is not F32".to_owned()));
        };
        let shape = dims::<Tape>(&losses);
        if shape != [rows] {
            return Err(trial(format!("{rows} examples gave {shape:?}; it must give one value for each")));
        }
        let values = read::<Tape>(Tape::float_detach(losses.clone())).map_err(|fault| fault.at("the loss", "output"))?;
        let mean = Tape::float_mul_scalar(Tape::float_sum(losses), Scalar::from(1.0 / rows.max(1) as f32));
        let mut gradients = Tape::backward(mean);
        let gradient = match Tape::grad_remove(&leaf, &mut gradients) {
            Some(gradient) => read::<Flex>(FlexTensor::to_contiguous(&gradient)).map_err(|fault| fault.at(OUTPUT, "gradient"))?,
            None => vec![0.0; answers.len()],
        };
        Ok((values, gradient))
    }
}

fn trial(reason: String) -> ModelError {
    ModelError::Shape { node: "the loss graph's output".to_owned(), op: "output".to_owned(), reason }
}

fn of_loss(error: ModelError) -> ModelError {
    ModelError::LossGraph(Box::new(error))
}

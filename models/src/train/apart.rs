//! Whether the examples of a batch stay apart: shown on the graph, and tried on numbers.

use burn_autodiff::Autodiff;
use burn_backend::AutodiffBackend as _;
use burn_backend::ops::FloatTensorOps as _;
use burn_backend::tensor::FloatTensor;
use burn_flex::{Flex, FlexTensor};

use super::Trainer;
use super::order::{Purpose, generator};
use crate::dataset::Dataset;
use crate::interpreter::value::{Value, dims, floats};
use crate::interpreter::{Mode, batch, guard};
use crate::onnx::Element;
use crate::{Features, ModelError, Targets, Tensor};

type Tape = Autodiff<Flex>;

/// The examples of a trial.
const TRIED: [usize; 3] = [0, 1, 2];

/// What some examples gave, of which one counts nothing.
struct Trial {
    answers: Vec<f32>,
    /// Of each parameter, where one flows.
    gradients: Vec<Option<FlexTensor>>,
    /// Of each input of floats.
    inputs: Vec<Option<FlexTensor>>,
}

impl Trainer {
    /// Whether a unit can have a gradient of its own: no example's answer may depend on another example of the batch, nor on how many
    /// there are. The graph is followed node by node ([`crate::interpreter`]'s rules), and the gradient of some examples is tried: it
    /// must not reach another one, and must not change with it. This looks at the model alone, once.
    ///
    /// # Errors
    /// [`ModelError::Mixes`] naming the first node that mixes the examples of a batch, such as `BatchNormalization` unless its running
    /// statistics are frozen, or that cannot be shown not to.
    pub fn check_units(&self) -> Result<(), ModelError> {
        self.apart.get_or_init(|| self.examine()).clone()
    }

    fn examine(&self) -> Result<(), ModelError> {
        if let Some(node) = self.learn.mixing() {
            let names = node.statistics.join("` and `");
            let reason = format!(
                "in training it mixes the rows of a batch and moves `{names}` without noise, so no example has a gradient of its own; \
                 freeze `{names}`, with which it then normalizes, or let `model convert --norm group` put GroupNormalization in its place"
            );
            return Err(ModelError::Mixes { node: node.label.to_owned(), op: node.op.to_owned(), reason });
        }
        guard("following the batch", || {
            batch::check(&self.infer, &self.weights, &|n| {
                let rows: Vec<usize> = (0..n).collect();
                self.batch::<Flex>(&self.made_up(n, 0.0, None)?, &rows)
            })
        })?;
        guard("trying examples apart", || self.try_apart())
    }

    /// Changes each of three examples in turn: what the others give must stay, and their gradient must not reach it.
    pub(super) fn try_apart(&self) -> Result<(), ModelError> {
        // A token of 0 is often padding, and one of 1 is not in every table.
        let whole = if self.trial(&self.made_up(TRIED.len(), 1.0, None)?, 0).is_ok() { 1.0 } else { 0.0 };
        TRIED.into_iter().try_for_each(|changed| self.try_changing(changed, whole))
    }

    fn try_changing(&self, changed: usize, whole: f32) -> Result<(), ModelError> {
        let first = self.trial(&self.made_up(TRIED.len(), whole, None)?, changed)?;
        let reaches = |gradient: &FlexTensor| {
            let gradient = gradient.to_contiguous();
            let values = gradient.as_slice::<f32>().unwrap_or_default();
            let row = values.len() / TRIED.len();
            values[changed * row..(changed + 1) * row].iter().any(|g| *g != 0.0 && g.is_finite())
        };
        if first.inputs.iter().flatten().any(reaches) {
            return Err(mixed("the gradient of an example's loss reaches another example of its batch"));
        }
        // What the graph refuses to read says nothing about the others.
        let Ok(second) = self.trial(&self.made_up(TRIED.len(), whole, Some(changed))?, changed) else { return Ok(()) };
        let differ = |(a, b): (&f32, &f32)| a != b && a.is_finite() && b.is_finite();
        let others = |answers: &[f32]| {
            let kept = answers.chunks_exact(self.width.max(1)).enumerate().filter(|(i, _)| *i != changed);
            kept.flat_map(|(_, row)| row.to_vec()).collect::<Vec<f32>>()
        };
        if others(&first.answers).iter().zip(&others(&second.answers)).any(differ) {
            return Err(mixed("the answer to an example changes with another example of its batch"));
        }
        let moved = |(a, b): (&Option<FlexTensor>, &Option<FlexTensor>)| {
            let (Some(a), Some(b)) = (a, b) else { return a.is_some() != b.is_some() };
            let (a, b) = (a.to_contiguous(), b.to_contiguous());
            a.as_slice::<f32>().unwrap_or_default().iter().zip(b.as_slice::<f32>().unwrap_or_default()).any(differ)
        };
        match first.gradients.iter().zip(&second.gradients).position(moved) {
            Some(at) => {
                let name = &self.layout.parameters()[at].name;
                Err(mixed(&format!("the gradient of an example's loss in `{name}` changes with another example of its batch")))
            }
            None => Ok(()),
        }
    }

    /// Runs three examples forwards and backwards; the answers to `silent` are not looked at.
    fn trial(&self, data: &Dataset, silent: usize) -> Result<Trial, ModelError> {
        let tracked = |tensor: FloatTensor<Tape>, wanted| Tape::float_set_require_grad(tensor, wanted);
        let mut inputs = Vec::new();
        let mut batch = self.batch::<Tape>(data, &TRIED)?;
        for value in &mut batch {
            inputs.push(if let Value::Float(tensor) = value {
                *tensor = tracked(tensor.clone(), true);
                Some(tensor.clone())
            } else {
                None
            });
        }
        let weights = self.weights.iter().zip(self.layout.parameters());
        let leaves: Vec<_> = weights.map(|(w, p)| tracked(Tape::from_inner(w.clone()), p.role.is_trained())).collect();
        let mut masks = generator(0, 0, Purpose::Masks);
        let outcome = self.learn.run(batch, &leaves, Mode::Training(&mut masks), &mut |_, _| ())?;
        let answers = super::trainer::float(outcome.outputs)?;
        let values = self.values::<Tape>(answers.clone(), TRIED.len())?;
        let slope = (0..values.len()).map(|k| if k / self.width.max(1) == silent { 0.0 } else { made_up(k + 1) }).collect();
        let slope = floats::<Tape>(slope, &dims::<Tape>(&answers));
        let mut found = Tape::backward(Tape::float_sum(Tape::float_mul(answers, slope)));
        let gradients = leaves.iter().map(|leaf| Tape::grad_remove(leaf, &mut found)).collect();
        let inputs = inputs.iter().map(|leaf| leaf.as_ref().and_then(|leaf| Tape::grad_remove(leaf, &mut found))).collect();
        Ok(Trial { answers: values, gradients, inputs })
    }

    /// Made-up examples: floats between 0 and 1, and `whole` where the model reads integers. One of them may be changed.
    fn made_up(&self, n: usize, whole: f32, changed: Option<usize>) -> Result<Dataset, ModelError> {
        let tensor = |input: &crate::ValueInfo| {
            let shape = [vec![n], super::setup::example(input)?].concat();
            let count = crate::interpreter::value::bounded(&shape).map_err(|fault| fault.at(&input.name, "input"))?;
            let row = count / n;
            let value = |k: usize| match (input.element, Some(k / row.max(1)) == changed) {
                (Element::F32 | Element::F64, true) => made_up(k + 4217),
                (Element::F32 | Element::F64, false) => made_up(k),
                (_, true) => 1.0 - whole,
                (_, false) => whole,
            };
            Ok((input.name.clone(), Tensor::f32(shape, (0..count).map(value).collect())?))
        };
        let x = self.inputs.iter().map(tensor).collect::<Result<Features, ModelError>>()?;
        Ok(Dataset { x, y: Targets::Classes(vec![0; n]) })
    }
}

/// Numbers between 0 and 1 without a pattern.
fn made_up(k: usize) -> f32 {
    (k * 7919 % 997) as f32 / 1246.0 + 0.1
}

fn mixed(what: &str) -> ModelError {
    let reason = format!("{what}, although its nodes look as if it could not; report this model");
    ModelError::Mixes { node: "the graph".to_owned(), op: "trial".to_owned(), reason }
}

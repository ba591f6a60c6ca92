//! The trainer: parameters in, epochs of minibatches, parameters out.

use std::ops::ControlFlow;
use std::sync::OnceLock;

use burn_autodiff::Autodiff;
use burn_backend::ops::FloatTensorOps as _;
use burn_backend::{AutodiffBackend as _, tensor::FloatTensor};
use burn_flex::{Flex, FlexTensor};
use rand_chacha::ChaCha8Rng;

use super::criterion::Criterion;
use super::gradients::{Gradients, values};
use super::loss::Measured;
use super::optimizer::Descent;
use super::order::{Purpose, generator, shuffled};
use super::setup::{answer, check, check_lr, example, inputs};
use super::{EVALUATED_AT_ONCE, Epoch, Evaluation, Progress, Tally, TrainConfig, TrainError};
use crate::dataset::Dataset;
use crate::interpreter::engine::Engine;
use crate::interpreter::plan::Plan;
use crate::interpreter::value::{Value, bounded, dims, floats, read};
use crate::interpreter::{Mode, guard};
use crate::layout::{Layout, Parameter, parameters, write_back};
use crate::onnx::{Model, ValueInfo};
use crate::{Features, ModelError, Tensor};

/// Flex with a tape.
type Tape = Autodiff<Flex>;

/// A model compiled for training. It is compiled once and trains many times.
pub struct Trainer {
    model: Model,
    pub(super) config: TrainConfig,
    pub(super) layout: Layout,
    pub(super) inputs: Vec<ValueInfo>,
    /// Answers (logits) per example.
    pub(super) width: usize,
    /// Their shape.
    pub(super) answer: Vec<usize>,
    pub(super) criterion: Criterion,
    pub(super) learn: Plan<Tape>,
    pub(super) infer: Plan<Flex>,
    /// The parameters in layout order, matrices of linear layers as `[in, out]`.
    pub(super) weights: Vec<FlexTensor>,
    /// What [`Trainer::check_units`] found.
    pub(super) apart: OnceLock<Result<(), ModelError>>,
}

/// What a way forwards and backwards gives.
pub(super) struct Pass {
    pub(super) measured: Measured,
    /// Of the mean loss, for each parameter in layout order, shaped as `weights`; `None`
    /// where no gradient flows.
    pub(super) gradients: Vec<Option<FlexTensor>>,
    /// New values of running statistics, by index.
    statistics: Vec<(usize, FlexTensor)>,
}

impl Trainer {
    /// Compiles the model and runs one step and one evaluation on examples of zeros, so that what
    /// cannot be trained is found here and not on the nodes.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] with node, operator and reason;
    /// [`ModelError::Setting`] for a bad configuration; [`ModelError::Input`] for an input
    /// whose extents are not fixed but for the batch;
    /// [`ModelError::Shape`] if its answers do not fit the loss.
    pub fn new(model: &Model, config: TrainConfig) -> Result<Self, ModelError> {
        check(&config)?;
        let inputs = inputs(model)?;
        let criterion = Criterion::new(&config)?;
        let wanted = [answer(model, &criterion)?];
        let (layout, flat) = parameters(model, &config.freeze)?;
        // What cannot be exported later is refused now.
        write_back(model, &layout, &flat)?;
        let (learn, infer) = guard("compiling", || {
            Ok((Plan::compile(model, layout.parameters(), &wanted)?, Plan::compile(model, layout.parameters(), &wanted)?))
        })?;
        let mut trainer = Self {
            model: model.clone(),
            config,
            layout,
            inputs,
            width: 0,
            answer: Vec::new(),
            criterion,
            learn,
            infer,
            weights: Vec::new(),
            apart: OnceLock::new(),
        };
        trainer.load(&flat);
        // The rehearsal needs room for gradients, and moves the weights in place: they are read from the file again.
        drop(flat);
        trainer.rehearse()?;
        trainer.weights.clear();
        trainer.load(&parameters(model, &trainer.config.freeze)?.1);
        Ok(trainer)
    }

    /// Length D of the parameter vector: trained floats and running statistics.
    pub fn length(&self) -> usize {
        self.layout.length()
    }

    /// Names, shapes and offsets of the parameter vector, in graph order.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Answers per example: classes for [`super::Loss::CrossEntropy`].
    pub fn answers(&self) -> usize {
        self.width
    }

    /// The parameter vector, `[D]`, each tensor row-major as the file has it.
    pub fn parameters(&self) -> Vec<f32> {
        let mut flat = Vec::with_capacity(self.length());
        for (i, (weight, parameter)) in self.weights.iter().zip(self.layout.parameters()).enumerate() {
            let values = weight.as_slice::<f32>().expect("weights are made contiguous f32 by `load` and `step`");
            match (self.learn.is_transposed(i), &parameter.shape[..]) {
                (true, [rows, columns]) => flat.extend(transposed(values, *columns, *rows)),
                _ => flat.extend_from_slice(values),
            }
        }
        flat
    }

    /// Sets the parameter vector.
    ///
    /// # Errors
    /// [`ModelError::Length`] or [`ModelError::NotFinite`]; nothing has changed then.
    pub fn set_parameters(&mut self, flat: &[f32]) -> Result<(), ModelError> {
        self.layout.check(flat)?;
        self.load(flat);
        Ok(())
    }

    /// Sets the learning rate of the trainings to come; what is compiled does not depend on it.
    ///
    /// # Errors
    /// [`ModelError::Setting`] unless it is a number above 0; nothing has changed then.
    pub fn set_lr(&mut self, lr: f32) -> Result<(), ModelError> {
        check_lr(lr)?;
        self.config.lr = lr;
        Ok(())
    }

    fn load(&mut self, flat: &[f32]) {
        let tensor = |(i, parameter): (usize, &Parameter)| {
            let values = &flat[parameter.range()];
            match (self.learn.is_transposed(i), &parameter.shape[..]) {
                (true, [rows, columns]) => floats::<Flex>(transposed(values, *rows, *columns), &[*columns, *rows]),
                _ => floats::<Flex>(values.to_vec(), &parameter.shape),
            }
        };
        self.weights = self.layout.parameters().iter().enumerate().map(tensor).collect();
    }

    /// Trains for `epochs` over all examples, each epoch in an order drawn from `seed`. The
    /// same seed, data and parameters give the same bits, whatever the number of threads.
    /// The optimizer's state starts fresh. `watch` is called after each step and may stop
    /// the training. On an error the parameters are those of before the call.
    ///
    /// # Errors
    /// [`TrainError::Data`] and [`TrainError::Targets`] before anything has changed;
    /// [`TrainError::Diverged`] if the loss or a parameter stops being finite;
    /// [`TrainError::Stopped`] if `watch` said so.
    pub fn train(
        &mut self,
        data: &Dataset,
        epochs: usize,
        seed: u64,
        watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Epoch>, TrainError> {
        self.fit(data, epochs, seed, &mut Steps(watch))
    }

    /// As [`Trainer::train`], with a watcher that also sees the end of each epoch, and may end the training there.
    ///
    /// # Errors
    /// As [`Trainer::train`]; what the watcher fails with.
    pub fn fit(&mut self, data: &Dataset, epochs: usize, seed: u64, watch: &mut dyn Watch) -> Result<Vec<Epoch>, TrainError> {
        self.check(data)?;
        let before = self.weights.clone();
        let history = self.descend(data, epochs, seed, watch);
        if history.is_err() {
            self.weights = before;
        }
        history
    }

    fn descend(&mut self, data: &Dataset, epochs: usize, seed: u64, watch: &mut dyn Watch) -> Result<Vec<Epoch>, TrainError> {
        let mut descent = Descent::new(self.config.optimizer, self.config.lr, self.weights.len());
        let (batch, schedule) = (self.config.batch, self.config.schedule);
        let together = batch.saturating_mul(self.config.accumulate);
        let steps = data.len().div_ceil(together);
        let mut history = Vec::with_capacity(epochs);
        for epoch in 0..epochs {
            let order = shuffled(data.len(), &mut generator(seed, epoch, Purpose::Order));
            let mut masks = generator(seed, epoch, Purpose::Masks);
            let mut tally = Tally::default();
            for (step, rows) in order.chunks(together).enumerate() {
                let share = schedule.factor(epoch * steps + step, epochs * steps);
                let mut loss = Tally::default();
                let batches: Vec<&[usize]> = rows.chunks(batch).collect();
                let broken = guard("a training step", || self.step(data, &batches, share, &mut descent, &mut masks, &mut loss))?;
                if let Some(rows) = broken {
                    return Err(TrainError::Diverged { epoch, step, tensor: self.not_finite(data, rows) });
                }
                tally.join(&loss);
                let progress = Progress { epoch, epochs, step: step + 1, steps, examples: rows.len(), loss: loss.epoch().loss };
                if watch.step(&progress).is_break() {
                    return Err(TrainError::Stopped);
                }
            }
            if let Some(tensor) = self.broken_parameter() {
                return Err(TrainError::Diverged { epoch, step: steps - 1, tensor });
            }
            history.push(tally.epoch());
            if watch.epoch(self, epoch, &tally.epoch())?.is_break() {
                break;
            }
        }
        Ok(history)
    }

    /// Measures the parameters on a data set, in inference mode.
    ///
    /// # Errors
    /// [`TrainError::Data`], [`TrainError::Targets`] or [`TrainError::Model`].
    pub fn evaluate(&self, data: &Dataset) -> Result<Evaluation, TrainError> {
        self.check(data)?;
        let mut tally = Tally::default();
        let rows: Vec<usize> = (0..data.len()).collect();
        for rows in rows.chunks(EVALUATED_AT_ONCE) {
            let answers = guard("an evaluation", || self.answer(data, rows, &mut |_, _| ()))?;
            tally.add(&self.criterion.measure(&answers, &self.answer, data, rows)?);
        }
        Ok(tally.evaluation())
    }

    /// The model with the parameters written back, in inference form.
    pub fn export(&self) -> Model {
        write_back(&self.model, &self.layout, &self.parameters())
            .expect("`new` has written this layout back once, and parameters stay finite")
    }

    pub(super) fn check(&self, data: &Dataset) -> Result<(), TrainError> {
        data.check(Some(self.criterion.known(self.width)))?;
        data.x.check_for(&self.inputs)?;
        self.criterion.check_targets(&data.y, self.width)
    }

    /// The features of some rows, as the model reads them.
    pub(super) fn batch<B: Engine>(&self, data: &Dataset, rows: &[usize]) -> Result<Vec<Value<B>>, ModelError> {
        let fed = data.x.take_rows(rows).feed(self.inputs.iter().map(|input| (input.name.as_str(), input.element)))?;
        let value = |(name, tensor): (&str, Tensor)| {
            let value = bounded(&tensor.shape).and_then(|_| Value::from_tensor(tensor));
            value.map_err(|fault| fault.at(name, "input"))
        };
        fed.into_iter().map(value).collect()
    }

    /// One step along the mean gradient of some batches, at this share of the learning rate. A batch whose loss is not finite
    /// comes back, and no step is made.
    fn step<'r>(
        &mut self,
        data: &Dataset,
        batches: &[&'r [usize]],
        share: f32,
        descent: &mut Descent,
        masks: &mut ChaCha8Rng,
        tally: &mut Tally,
    ) -> Result<Option<&'r [usize]>, ModelError> {
        let mut sum = Gradients::default();
        for rows in batches {
            let Pass { measured, gradients, statistics } = self.pass(data, rows, masks)?;
            if !measured.loss.is_finite() {
                return Ok(Some(rows));
            }
            tally.add(&measured);
            sum.add(gradients, measured.weight);
            for (i, value) in statistics {
                self.weights[i] = value.to_contiguous();
            }
        }
        let Some(gradients) = sum.mean(self.config.gradient_clip) else { return Ok(None) };
        descent.begin(share);
        for (i, gradient) in gradients.iter().enumerate() {
            if let Some(gradient) = gradient {
                // Nobody else holds the weight, and it is changed in place.
                descent.update(i, self.weights[i].storage_mut::<f32>(), values(gradient));
            }
        }
        Ok(None)
    }

    /// Runs some rows forwards and backwards in training mode. The parameters stay.
    pub(super) fn pass(&self, data: &Dataset, rows: &[usize], masks: &mut ChaCha8Rng) -> Result<Pass, ModelError> {
        let batch = self.batch::<Tape>(data, rows)?;
        let leaves: Vec<FloatTensor<Tape>> = self
            .weights
            .iter()
            .zip(self.layout.parameters())
            .map(|(weight, parameter)| Tape::float_set_require_grad(Tape::from_inner(weight.clone()), parameter.role.is_trained()))
            .collect();
        let outcome = self.learn.run(batch, &leaves, Mode::Training(masks), &mut |_, _| ())?;
        let answers = float(outcome.outputs)?;
        let values = self.values::<Tape>(answers.clone(), rows.len())?;
        let mut measured = self.criterion.measure(&values, &self.answer, data, rows)?;
        // The sum of answers times the loss's gradient has that gradient.
        let shape = dims::<Tape>(&answers);
        let slope = floats::<Tape>(std::mem::take(&mut measured.gradient), &shape);
        let mut gradients = Tape::backward(Tape::float_sum(Tape::float_mul(answers, slope)));
        let gradients = leaves.iter().map(|leaf| Tape::grad_remove(leaf, &mut gradients)).collect();
        Ok(Pass { measured, gradients, statistics: outcome.statistics })
    }

    /// Answers for some rows in inference mode.
    fn answer(&self, data: &Dataset, rows: &[usize], observe: &mut dyn FnMut(&str, &Value<Flex>)) -> Result<Vec<f32>, ModelError> {
        let batch = self.batch::<Flex>(data, rows)?;
        let outcome = self.infer.run(batch, &self.weights, Mode::Inference, observe)?;
        self.values::<Flex>(float(outcome.outputs)?, rows.len())
    }

    /// The answers of a batch, checked to be `width` for each of its rows.
    pub(super) fn values<B: Engine>(&self, answers: FloatTensor<B>, rows: usize) -> Result<Vec<f32>, ModelError> {
        let shape = dims::<B>(&answers);
        if shape.first() != Some(&rows) || shape[1..].iter().product::<usize>() != self.width {
            return Err(output_shape(format!("{rows} examples gave answers {shape:?}, not {} for each", self.width)));
        }
        read::<B>(B::float_detach(answers)).map_err(|fault| fault.at("the graph's output", "output"))
    }

    /// The dry run of [`Trainer::new`]. The weights are worth nothing afterwards.
    fn rehearse(&mut self) -> Result<(), ModelError> {
        let shape = guard("a first run", || {
            let batch = self.batch::<Flex>(&self.zeros()?, &[0, 1])?;
            let outcome = self.infer.run(batch, &self.weights, Mode::Inference, &mut |_, _| ())?;
            Ok(dims::<Flex>(&float(outcome.outputs)?))
        })?;
        let [2, answer @ ..] = &shape[..] else {
            return Err(output_shape(format!("2 examples gave {shape:?}; the first axis must be the batch")));
        };
        self.criterion.check_answer(answer)?;
        (self.width, self.answer) = (answer.iter().product(), answer.to_vec());
        let data = self.zeros()?;
        let mut descent = Descent::new(self.config.optimizer, self.config.lr, self.weights.len());
        let mut masks = generator(0, 0, Purpose::Masks);
        guard("a first training step", || {
            // A last batch may hold one example only.
            for rows in [&[0, 1][..], &[0]] {
                self.step(&data, &[rows], 1.0, &mut descent, &mut masks, &mut Tally::default())?;
                self.answer(&data, rows, &mut |_, _| ())?;
            }
            Ok(())
        })
    }

    /// Two examples of zeros.
    fn zeros(&self) -> Result<Dataset, ModelError> {
        let zeros = |input: &ValueInfo| {
            let shape = [vec![2], example(input)?].concat();
            let count = bounded(&shape).map_err(|fault| fault.at(&input.name, "input"))?;
            Ok((input.name.clone(), Tensor::f32(shape, vec![0.0; count])?))
        };
        let x = self.inputs.iter().map(zeros).collect::<Result<Features, ModelError>>()?;
        Ok(Dataset { x, y: self.criterion.some_targets(2, self.width)? })
    }

    /// The first tensor that is not finite when these rows pass: a parameter, else a value
    /// of the graph, else the loss.
    fn not_finite(&self, data: &Dataset, rows: &[usize]) -> String {
        if let Some(name) = self.broken_parameter() {
            return name;
        }
        let mut found = None;
        let mut observe = |name: &str, value: &Value<Flex>| {
            if found.is_none()
                && let Value::Float(tensor) = value
                && read::<Flex>(tensor.clone()).is_ok_and(|v| v.iter().any(|v| !v.is_finite()))
            {
                found = Some(name.to_owned());
            }
        };
        // The error that matters is the divergence; a failure here only loses its place.
        let _ = guard("looking for the tensor", || self.answer(data, rows, &mut observe));
        found.unwrap_or_else(|| "loss".to_owned())
    }

    fn broken_parameter(&self) -> Option<String> {
        let broken = |weight: &FlexTensor| weight.as_slice::<f32>().is_none_or(|v| v.iter().any(|v| !v.is_finite()));
        let found = self.weights.iter().position(broken)?;
        Some(self.layout.parameters()[found].name.clone())
    }
}

/// What is told of a training while it goes on.
pub trait Watch {
    /// After each step; a break stops the training, and the parameters are those of before it.
    fn step(&mut self, _progress: &Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// After each epoch, from 0; a break ends the training with the parameters of this moment.
    ///
    /// # Errors
    /// What it fails with stops the training.
    fn epoch(&mut self, _trainer: &Trainer, _epoch: usize, _measured: &Epoch) -> Result<ControlFlow<()>, TrainError> {
        Ok(ControlFlow::Continue(()))
    }
}

/// A function that sees the steps.
struct Steps<'w>(&'w mut dyn FnMut(&Progress) -> ControlFlow<()>);

impl Watch for Steps<'_> {
    fn step(&mut self, progress: &Progress) -> ControlFlow<()> {
        self.0(progress)
    }
}

pub(super) fn float<B: Engine>(mut outputs: Vec<Value<B>>) -> Result<FloatTensor<B>, ModelError> {
    match outputs.pop() {
        Some(Value::Float(tensor)) => Ok(tensor),
        _ => Err(output_shape("the model's first output is not f32".to_owned())),
    }
}

pub(super) fn output_shape(reason: String) -> ModelError {
    ModelError::Shape { node: "the graph's output".to_owned(), op: "output".to_owned(), reason }
}

/// A row-major matrix with its axes swapped.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| values[r * columns + c])).collect()
}

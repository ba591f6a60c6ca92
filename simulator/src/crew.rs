//! Trainers side by side: each thread has one, compiled once.

use std::{ops::ControlFlow, sync::Arc, thread};

use sapwood_models::{
    onnx::Model,
    train::{TrainConfig, TrainError, Trainer},
};
use sapwood_privacy::{
    Contribution,
    dp::{Mechanism, UnitSum},
};
use sapwood_protocol::round::{Decline, NoiseTerms};

use crate::{NodeData, SimulationError};

/// One node's training.
pub(crate) struct Job {
    pub(crate) node: usize,
    pub(crate) params: Arc<Vec<f32>>,
    pub(crate) epochs: usize,
    /// Learning rate of the round.
    pub(crate) lr: f32,
    pub(crate) seed: u64,
    /// Under a privacy budget within nodes: what clips each unit.
    pub(crate) units: Option<Arc<(NoiseTerms, Mechanism)>>,
}

/// What a node has after training: its update, and what it says about it.
pub(crate) enum Trained {
    /// How far the parameters moved.
    Vector(Vec<f32>, Contribution),
    /// The exact sum of its units' clipped steps.
    Units(UnitSum),
}

pub(crate) struct Crew(Vec<Trainer>);

impl Crew {
    pub(crate) fn new(model: &Model, config: &TrainConfig, threads: usize) -> Result<Self, SimulationError> {
        let trainers: Result<_, _> = (0..threads).map(|_| Trainer::new(model, config.clone())).collect();
        Ok(Self(trainers?))
    }

    /// How many jobs run at a time.
    pub(crate) fn threads(&self) -> usize {
        self.0.len()
    }

    /// Any of the trainers, for scoring and export.
    pub(crate) fn first(&mut self) -> &mut Trainer {
        self.0.first_mut().expect("there is at least one thread")
    }

    /// Trains at most [`Crew::threads`] nodes; answers in the order of the jobs.
    pub(crate) fn train(&mut self, jobs: &[Job], nodes: &[NodeData]) -> Vec<Result<Trained, Decline>> {
        debug_assert!(jobs.len() <= self.0.len());
        thread::scope(|scope| {
            let started: Vec<_> =
                self.0.iter_mut().zip(jobs).map(|(trainer, job)| scope.spawn(move || train(trainer, job, &nodes[job.node]))).collect();
            let crashed = |_| Err(Decline::Resources { why: "the training thread panicked".into() });
            started.into_iter().map(|thread| thread.join().unwrap_or_else(crashed)).collect()
        })
    }
}

fn train(trainer: &mut Trainer, job: &Job, node: &NodeData) -> Result<Trained, Decline> {
    let model = |error: sapwood_models::ModelError| Decline::Model { why: error.to_string() };
    trainer.set_parameters(&job.params).map_err(model)?;
    trainer.set_lr(job.lr).map_err(model)?;
    if let Some(units) = &job.units {
        return clipped(trainer, job, &units.0, &units.1, node);
    }
    let data = &node.data;
    let epochs = trainer.train(data, job.epochs, job.seed, &mut |_| ControlFlow::Continue(())).map_err(decline)?;
    let last = epochs.last().ok_or_else(|| Decline::NoData { why: "no epoch was trained".into() })?;
    let examples = last.examples as u64;
    let correct = last.accuracy.map(|share| (share * last.examples as f64).round() as u64);
    let mut update = trainer.parameters();
    for (new, old) in update.iter_mut().zip(job.params.iter()) {
        *new -= old;
    }
    Ok(Trained::Vector(update, Contribution { examples, correct, loss: last.loss }))
}

/// One step on clipped units, as a node takes it.
fn clipped(trainer: &Trainer, job: &Job, noise: &NoiseTerms, mechanism: &Mechanism, node: &NodeData) -> Result<Trained, Decline> {
    let data = &node.data;
    let units = noise.units(data.len(), node.entities.as_deref())?;
    let (mut sum, mut step, mut refused) = (mechanism.unit_sum(), Vec::new(), None);
    let done = trainer.unit_gradients(data, units.iter().map(Vec::as_slice), job.seed, &mut |unit| {
        step.clear();
        step.extend(unit.gradient.iter().map(|g| -g));
        let right = f64::from(unit.correct.unwrap_or(0)) / unit.rows as f64;
        match mechanism.add_unit(&mut sum, &step, &noise.reported(unit.loss, right)) {
            Ok(_) => ControlFlow::Continue(()),
            Err(fault) => {
                refused = Some(fault.to_string());
                ControlFlow::Break(())
            }
        }
    });
    match refused {
        Some(why) => Err(Decline::Model { why }),
        None => done.map(|()| Trained::Units(sum)).map_err(decline),
    }
}

fn decline(error: TrainError) -> Decline {
    match error {
        TrainError::Diverged { .. } => Decline::Diverged { why: error.to_string() },
        TrainError::Data(fault) => Decline::BadData { why: fault.to_string() },
        TrainError::Targets { .. } => Decline::BadData { why: error.to_string() },
        other => Decline::Model { why: other.to_string() },
    }
}

//! One training, on a thread of the pool.

use std::ops::ControlFlow;

use sapwood_models::{
    DataFault, Model,
    train::{Epoch, Labels, Loss, Optimizer, TrainConfig, TrainError, Trainer},
};
use sapwood_privacy::Contribution;
use sapwood_protocol::{
    Digest,
    round::{Decline, NoiseTerms, Terms, TrainTerms},
    spec,
};

use super::{Cache, Failure, Inner, Job, Objects, Trained, Update, budget::Need, chain, data::Prepared, random, units};
use crate::{config::Trainer as Kind, points::TRAINING};

/// A model compiled for one way of training.
pub(super) struct Compiled {
    model: Digest,
    /// The graph of its loss.
    loss: Option<Digest>,
    /// How it trains, but for that graph.
    config: TrainConfig,
    /// Bytes and nodes of the graph, for the budget.
    size: (u64, u64),
    trainer: Trainer,
}

impl Compiled {
    /// Whether it was compiled for this. The learning rate moves from round to round.
    fn suits(&self, terms: &Terms, config: &TrainConfig) -> bool {
        let graphs = self.model == terms.model && self.loss == terms.train.loss.digest();
        graphs && self.config == TrainConfig { lr: self.config.lr, ..config.clone() }
    }

    pub(super) fn is_for(&self, terms: &Terms) -> bool {
        config(&terms.train).is_ok_and(|config| self.suits(terms, &config))
    }
}

impl Inner {
    pub(super) fn work(&self, cache: &mut Cache, job: Job) -> Result<Trained, Failure> {
        let trained = self.trained(cache, &job);
        match trained {
            Err(Failure::Decline(reason)) if job.terms.noise.is_some() => Err(discreet(reason).into()),
            trained => trained,
        }
    }

    fn trained(&self, cache: &mut Cache, job: &Job) -> Result<Trained, Failure> {
        let (update, contribution) = match self.kind {
            Kind::Random => random::update(&job.terms, &job.node),
            Kind::Model => self.train(cache, job)?,
        };
        let encoded = Trained::new(update, contribution, &job.terms);
        // The trainer has looked for values that are not finite; what is left is that the terms make no sense here.
        Ok(encoded.map_err(|fault| Decline::Diverged { why: fault.to_string() })?)
    }

    fn train(&self, cache: &mut Cache, job: &Job) -> Result<(Update, Contribution), Failure> {
        let Job { terms, objects, .. } = job;
        let no_data = |why: &str| Decline::NoData { why: why.to_owned() };
        let set = self.data.as_ref().ok_or_else(|| no_data("this node's configuration names none"))?;
        if let Some(asked) = &terms.train.source
            && set.name.as_ref() != Some(asked)
        {
            return Err(no_data(&format!("this node's configuration names no data set {asked:?}")).into());
        }
        let model_bytes = objects.model.as_ref().map_or(0, |model| model.len() as u64);
        self.budget.check(Need { model: model_bytes, ..Need::default() }, terms)?;

        let schema = objects.schema.as_deref().map(run_schema).transpose()?;
        let key = terms.noise.as_ref().and_then(|noise| noise.entity_key.as_deref());
        cache.data.load(set, schema.as_ref(), key, self.budget.memory)?;
        let compiled = compile(&mut cache.compiled, terms, objects)?;
        let alone = terms.noise.as_ref().is_some_and(NoiseTerms::is_per_unit);
        let data = cache.data.prepared(terms.preprocess, alone, objects.preprocess.as_deref())?.data;
        let example = data.x.row_len() as u64 * 4;
        let examples = data.len();
        let need = Need { model: compiled.size.0, nodes: compiled.size.1, data: cache.data.bytes(), example };
        self.budget.check(need, terms)?;
        // Borrowed anew: the budget looked at the whole cache.
        let Prepared { data, entities } = cache.data.prepared(terms.preprocess, alone, None)?;

        let trainer = &mut compiled.trainer;
        if trainer.length() as u64 != terms.length {
            let why = format!("the terms announce {} parameters, the model has {}", terms.length, trainer.length());
            return Err(Decline::Model { why }.into());
        }
        trainer.set_parameters(&job.params).map_err(|e| Decline::Model { why: chain(&e) })?;
        trainer.set_lr(terms.train.lr as f32).map_err(|e| Decline::Model { why: chain(&e) })?;
        if let Some(noise) = terms.noise.as_ref().filter(|noise| noise.is_per_unit()) {
            let units = noise.units(data.len(), entities)?;
            return units::step(trainer, data, &units, noise, job, &set.source.to_string());
        }
        let mut killed = None;
        let started = std::time::Instant::now();
        let epochs = terms.train.local_epochs as usize;
        let trained = trainer.train(data, epochs, terms.training_seed(&job.node), &mut |progress| {
            if let Err(death) = TRAINING.reached() {
                killed = Some(death);
                return ControlFlow::Break(());
            }
            if progress.step == progress.steps && terms.noise.is_none() {
                tracing::debug!(run = %terms.run, round = terms.round, epoch = progress.epoch + 1, of = epochs, loss = progress.loss, "trained an epoch");
            }
            if job.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Some(death) = killed {
            return Err(death.into());
        }
        let history = trained.map_err(|error| failure(error, &set.source.to_string()))?;
        let contribution = contribution(history.last(), examples)?;
        let took = started.elapsed();
        match terms.noise {
            None => tracing::info!(run = %terms.run, round = terms.round, examples, epochs, loss = contribution.loss, ?took, "trained"),
            // What a budget protects is in no log.
            Some(_) => tracing::info!(run = %terms.run, round = terms.round, epochs, ?took, "trained"),
        }
        let mut update = trainer.parameters();
        for (new, old) in update.iter_mut().zip(&job.params) {
            *new -= old;
        }
        Ok((Update::Vector(update), contribution))
    }
}

/// Under a budget what is wrong with the data stays here: the words would quote it.
fn discreet(reason: Decline) -> Decline {
    let why = || "this node's own log says what".to_owned();
    let said = match &reason {
        Decline::BadData { .. } => Decline::BadData { why: why() },
        Decline::Diverged { .. } => Decline::Diverged { why: why() },
        _ => return reason,
    };
    tracing::warn!(%reason, "this cannot be told under a privacy budget");
    said
}

fn run_schema(bytes: &[u8]) -> Result<sapwood_data::Schema, Decline> {
    let fault = |why: String| Decline::Model { why: format!("the run's schema: {why}") };
    let text = std::str::from_utf8(bytes).map_err(|e| fault(e.to_string()))?;
    sapwood_data::Schema::parse(text).map_err(|e| fault(chain(&e)))
}

/// The compiled model from the last round, if it is for the same way of training.
fn compile<'a>(slot: &'a mut Option<Compiled>, terms: &Terms, objects: &Objects) -> Result<&'a mut Compiled, Decline> {
    let config = config(&terms.train)?;
    if slot.as_ref().is_none_or(|compiled| !compiled.suits(terms, &config)) {
        // Dropped first, so that there are never two in memory.
        *slot = None;
        let fault = |e: sapwood_models::ModelError| Decline::Model { why: chain(&e) };
        let bytes = objects.model.as_deref().ok_or_else(|| Decline::Model { why: "its file did not come with the task".to_owned() })?;
        let model = Model::decode(bytes).map_err(fault)?;
        let size = (bytes.len() as u64, model.graph().node.len() as u64);
        let loss = terms.train.loss.digest();
        let loss_graph = match (loss, objects.loss.as_deref()) {
            (None, _) => None,
            (Some(_), Some(bytes)) => Some(Model::decode(bytes).map_err(fault)?),
            (Some(_), None) => return Err(Decline::Model { why: "its loss graph did not come with the task".to_owned() }),
        };
        let trainer = Trainer::new(&model, TrainConfig { loss_graph, ..config.clone() }).map_err(fault)?;
        *slot = Some(Compiled { model: terms.model, loss, config, size, trainer });
    }
    Ok(slot.as_mut().expect("compiled above or before"))
}

fn config(terms: &TrainTerms) -> Result<TrainConfig, Decline> {
    let o = &terms.optimizer;
    // The spec's numbers are f64; training is in f32.
    let [momentum, weight_decay, beta1, beta2, epsilon] = [o.momentum, o.weight_decay, o.beta1, o.beta2, o.epsilon].map(|v| v as f32);
    let optimizer = match o.kind {
        spec::OptimizerKind::Sgd => Optimizer::Sgd { momentum, weight_decay, nesterov: o.nesterov },
        spec::OptimizerKind::Adam => Optimizer::Adam { beta1, beta2, epsilon, weight_decay },
        spec::OptimizerKind::AdamW => Optimizer::AdamW { beta1, beta2, epsilon, weight_decay },
    };
    // A graph stands in the place of the name.
    let loss = match terms.loss.digest() {
        Some(_) => Loss::CrossEntropy,
        None => terms.loss.to_string().parse().map_err(|e| Decline::Model { why: chain(&e) })?,
    };
    let weights = terms.labels.weights.iter().map(|w| *w as f32).collect();
    let labels = Labels { weights, smoothing: terms.labels.smoothing as f32, ignore: terms.labels.ignore };
    let (lr, batch, freeze) = (terms.lr as f32, terms.batch as usize, terms.freeze.clone());
    Ok(TrainConfig { loss, labels, optimizer, lr, batch, freeze, ..TrainConfig::default() })
}

/// What the last epoch says about the data; nothing was trained if there was none.
fn contribution(last: Option<&Epoch>, examples: usize) -> Result<Contribution, Decline> {
    // Examples whose label the run ignores weigh nothing.
    let counted = last.map_or(examples, |epoch| epoch.examples);
    if counted == 0 {
        return Err(Decline::NoData { why: "the run ignores the label of every example".to_owned() });
    }
    // A share of a count: rounding gives the count back.
    let correct = last.and_then(|epoch| epoch.accuracy).map(|share| (share * counted as f64).round() as u64);
    Ok(Contribution { examples: counted as u64, correct, loss: last.map_or(0.0, |epoch| epoch.loss) })
}

pub(super) fn failure(error: TrainError, source: &str) -> Failure {
    match error {
        TrainError::Stopped => Failure::Cancelled,
        TrainError::Diverged { .. } => Decline::Diverged { why: error.to_string() }.into(),
        TrainError::Data(fault) => bad_data(source, &fault).into(),
        TrainError::Targets { .. } => Decline::BadData { why: format!("{source}: {error}") }.into(),
        error => Decline::Model { why: chain(&error) }.into(),
    }
}

fn bad_data(source: &str, fault: &DataFault) -> Decline {
    Decline::BadData { why: format!("{source}: {fault}") }
}

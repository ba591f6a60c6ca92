//! Training on the node's own data, within the budget that its operator set.
//!
//! A [`Workshop`] owns a small pool of threads, which yields to everything else on the machine, and what may be kept from
//! one round to the next: the compiled model, the data as it was last read and checked, and the data after preprocessing.
//! It does one [`Job`] at a time. Whatever goes wrong in a job (bad data, a model that cannot be trained here, a panic deep
//! in a kernel) becomes a [`Decline`], which costs the node the round and nothing else.

mod budget;
mod data;
mod job;
mod random;
#[cfg(test)]
pub(crate) mod tests;
mod units;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use rayon::{ThreadPool, ThreadPoolBuilder};
use ring::rand::{SecureRandom as _, SystemRandom};
use sapwood_failpoint::{self as failpoint, Killed};
use sapwood_privacy::{
    Contribution, Encoding,
    dp::{Mechanism, NoiseSeed, Share, UnitSum},
    wire,
};
use sapwood_protocol::{
    Digest, Fault, NodeId,
    round::{Codec, Decline, EncodingTerms, Terms},
};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use zeroize::Zeroizing;

use self::job::Compiled;
pub use self::{budget::Budget, data::DataSet};
use crate::config::Trainer as Kind;

/// Protobuf allows no more.
const MOST_GRAPH: u64 = 2 << 30;

/// Why there is no update.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// To be told to the coordinator.
    #[error(transparent)]
    Decline(#[from] Decline),
    /// Nobody wants the update any more.
    #[error("training was cancelled")]
    Cancelled,
    /// In a simulation only.
    #[error(transparent)]
    Killed(#[from] Killed),
}

/// A flag that ends a training at its next step.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Nobody wants the update any more.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    /// Whether that was said.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one training needs.
#[derive(Debug)]
pub struct Job {
    /// What was asked for.
    pub terms: Terms,
    /// Who trains: part of the seed.
    pub node: NodeId,
    /// The global parameters, `[terms.length]`.
    pub params: Vec<f32>,
    /// Bytes of the objects that the terms name; [`Bench::missing`] says which are wanted.
    pub objects: Objects,
    /// Ends it early.
    pub cancel: Cancel,
}

/// The objects that a training reads beside the parameters.
#[derive(Debug, Default)]
pub struct Objects {
    /// `terms.model`.
    pub model: Option<Vec<u8>>,
    /// `terms.preprocess`.
    pub preprocess: Option<Vec<u8>>,
    /// `terms.schema`.
    pub schema: Option<Vec<u8>>,
    /// The graph that `terms.train.loss` names.
    pub loss: Option<Vec<u8>>,
}

/// What was trained: a vector, or the exact sum of clipped units.
pub(crate) enum Update {
    /// How far the parameters moved, `[D]`.
    Vector(Vec<f32>),
    /// Each unit's step, clipped by itself.
    Units(UnitSum),
}

/// A trained update, with its first encoding if that is the same for every attempt.
pub struct Trained {
    update: Update,
    contribution: Contribution,
    digest: Digest,
    encoded: Option<(EncodingTerms, Encoded)>,
}

/// An update as it travels in clear.
#[derive(Clone)]
pub struct Encoded {
    /// The packed vector.
    pub bytes: Bytes,
    /// Its SHA-256.
    pub digest: Digest,
}

impl Trained {
    fn new(update: Update, contribution: Contribution, terms: &Terms) -> Result<Self, Fault> {
        let mut trained = Self { update, contribution, digest: terms.work(), encoded: None };
        if terms.noise.is_none() && terms.secure.is_none() {
            let encoded = trained.encoded(terms)?;
            trained.digest = encoded.digest;
            trained.encoded = Some((terms.encoding, encoded));
        }
        Ok(trained)
    }

    /// The encoding in clear. Attempts at one round nearly always share it; then this is free.
    ///
    /// # Errors
    /// The terms' own fault.
    pub fn encoded(&self, terms: &Terms) -> Result<Encoded, Fault> {
        if let Some((known, encoded)) = &self.encoded
            && *known == terms.encoding
            && terms.noise.is_none()
        {
            return Ok(encoded.clone());
        }
        let bytes = match terms.codec()? {
            Codec::Exact(encoding) => self.packed(&encoding)?,
            Codec::Noised(mechanism) => self.share(&mechanism, terms)?.pack(),
        };
        Ok(Encoded { digest: Digest::of(&bytes), bytes: bytes.into() })
    }

    /// The elements of Z_2^b that masks are added to. Noise is drawn anew at each call.
    ///
    /// # Errors
    /// The terms' own fault.
    pub(crate) fn lanes(&self, terms: &Terms) -> Result<Zeroizing<Vec<u32>>, Fault> {
        Ok(Zeroizing::new(match terms.codec()? {
            Codec::Exact(encoding) => {
                let packed = Zeroizing::new(self.packed(&encoding)?);
                wire::unpack(&packed, encoding.elements(terms.dimension()), encoding.bits()).map_err(refused)?
            }
            Codec::Noised(mechanism) => self.share(&mechanism, terms)?.lanes().to_vec(),
        }))
    }

    fn packed(&self, encoding: &Encoding) -> Result<Vec<u8>, Fault> {
        match &self.update {
            Update::Vector(update) => Ok(encoding.encode(update, &self.contribution).map_err(refused)?.bytes),
            Update::Units(_) => Err(refused("it is a sum of units, which only a noised round takes")),
        }
    }

    fn share(&self, mechanism: &Mechanism, terms: &Terms) -> Result<Share, Fault> {
        let random = SystemRandom::new();
        let seed = NoiseSeed::draw(|seed| random.fill(seed)).map_err(|_| refused("the system has no random bytes"))?;
        let share = match &self.update {
            Update::Vector(update) => {
                mechanism.encode_node(update, &[], self.contribution.examples, terms.rotation(), seed).map(|(share, _)| share)
            }
            Update::Units(sum) => mechanism.encode_units(sum, terms.rotation(), seed),
        };
        share.map_err(refused)
    }

    /// Names the update.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What is known of the data. Under a privacy budget it stays here.
    pub fn contribution(&self) -> &Contribution {
        &self.contribution
    }
}

fn refused(why: impl std::fmt::Display) -> Fault {
    Fault::Misuse(sapwood_protocol::fault::Misuse::State { what: "encoding the update".into(), why: why.to_string() })
}

/// What is kept between jobs.
#[derive(Default)]
struct Cache {
    compiled: Option<Compiled>,
    data: data::Cache,
}

/// Where a node trains.
#[derive(Clone)]
pub struct Workshop {
    inner: Arc<Inner>,
    cache: Arc<Mutex<Cache>>,
}

struct Inner {
    pool: ThreadPool,
    budget: Budget,
    kind: Kind,
    data: Option<DataSet>,
}

/// The one place in the [`Workshop`], taken for one job.
pub struct Bench {
    inner: Arc<Inner>,
    cache: OwnedMutexGuard<Cache>,
}

impl Workshop {
    /// A workshop within `budget`. Its threads sleep while there is nothing to train.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn new(budget: Budget, kind: Kind, data: Option<DataSet>) -> Result<Self, rayon::ThreadPoolBuildError> {
        let nice = budget.nice;
        let pool = ThreadPoolBuilder::new()
            .num_threads(budget.threads)
            .thread_name(|n| format!("train-{n}"))
            .start_handler(move |_| budget::yield_to_others(nice))
            .build()?;
        Ok(Self { inner: Arc::new(Inner { pool, budget, kind, data }), cache: Arc::default() })
    }

    /// Waits until no other job is under way.
    pub async fn bench(&self) -> Bench {
        Bench { inner: self.inner.clone(), cache: self.cache.clone().lock_owned().await }
    }
}

/// Which objects a job needs that the workshop does not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// [`Objects::model`].
    pub model: bool,
    /// [`Objects::preprocess`].
    pub preprocess: bool,
    /// [`Objects::schema`].
    pub schema: bool,
    /// [`Objects::loss`].
    pub loss: bool,
}

impl Bench {
    /// What a job under `terms` needs beside the parameters.
    pub fn missing(&self, terms: &Terms) -> Missing {
        if self.inner.kind == Kind::Random {
            return Missing::default();
        }
        let compiled = self.cache.compiled.as_ref().is_some_and(|compiled| compiled.is_for(terms));
        // The data may turn out to have changed, so what looks at it is always wanted; it is small.
        let loss = !compiled && terms.train.loss.digest().is_some();
        Missing { model: !compiled, preprocess: terms.preprocess.is_some(), schema: terms.schema.is_some(), loss }
    }

    /// Refuses terms whose vectors alone would not fit, before anything is fetched.
    ///
    /// # Errors
    /// [`Decline::Resources`].
    pub fn check(&self, terms: &Terms) -> Result<(), Decline> {
        self.inner.budget.check(budget::Need::default(), terms)
    }

    /// Most bytes that a fetched graph may have.
    pub fn largest_graph(&self) -> u64 {
        self.inner.budget.memory.min(MOST_GRAPH)
    }

    /// Trains on the pool's threads; this task only waits. If it is dropped meanwhile, the job goes on until its next step
    /// and keeps the bench until then: cancel it as well.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn train(self, job: Job) -> Result<Trained, Failure> {
        let Self { inner, mut cache } = self;
        let hook = failpoint::current();
        let (answer, answered) = oneshot::channel();
        let shared = inner.clone();
        inner.pool.spawn(move || {
            let _hook = hook.as_ref().map(failpoint::Hook::install);
            // The cache may be half changed after a panic, so it is thrown away.
            let result = catch_unwind(AssertUnwindSafe(|| shared.work(&mut cache, job))).unwrap_or_else(|panic| {
                *cache = Cache::default();
                let why = format!("the trainer stopped in the middle: {}", message(&*panic));
                Err(Decline::Model { why }.into())
            });
            drop(cache);
            // Nobody waits any more if the job was cancelled.
            let _ = answer.send(result);
        });
        answered.await.unwrap_or(Err(Failure::Cancelled))
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

//! What every member of a cohort is told, and what it signs together with its keys.

use std::{num::NonZeroU32, time::Duration};

use sapwood_privacy::{accountant::Observer, dp::RotationSeed, ledger::Rho, secagg};
use serde::{Deserialize, Serialize};

use super::{Codec, NoiseTerms, SecureTerms, protection::setting};
use crate::{
    canonical::Canonical,
    digest::Digest,
    fault::Fault,
    ids::{NodeId, RunId, SessionId},
    run::Cost,
    spec::{LabelSpec, Loss, OptimizerKind, Spec, Weights},
    time::Timestamp,
};

/// The terms of one attempt at one round. Both ends derive everything else from them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Which run.
    pub run: RunId,
    /// Which round, from 1.
    pub round: u32,
    /// Which attempt at it, from 1.
    pub attempt: u32,
    /// Names this attempt alone.
    pub session: SessionId,
    /// Who takes part, in ascending order.
    pub cohort: Vec<NodeId>,
    /// So many updates close the collection; later ones are refused.
    pub size: u32,
    /// Fewer updates than this are never aggregated.
    pub minimum: u32,
    /// The initial ONNX model: the graph, and the layout of the parameters.
    pub model: Digest,
    /// The ONNX graph in front of it.
    pub preprocess: Option<Digest>,
    /// The schema that a node's data must meet.
    pub schema: Option<Digest>,
    /// The global parameters to start from: `length` little-endian `f32`.
    pub params: Digest,
    /// D: trained floats.
    pub length: u64,
    /// How an update is written on the wire if no noise is asked for.
    pub encoding: EncodingTerms,
    /// How the coordinator is kept from seeing single updates; none: it sees them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure: Option<SecureTerms>,
    /// Which noise is added; none: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<NoiseTerms>,
    /// How a node trains.
    pub train: TrainTerms,
    /// When the attempt began.
    pub opened: Timestamp,
    /// When those who have not answered are dropped.
    pub deadline: Timestamp,
}

/// How an update becomes elements of Z_2^b.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodingTerms {
    /// Largest L2 norm of an update.
    pub clip: f64,
    /// b, 8 to 32.
    pub bits: u8,
    /// Most updates that may be summed without wrapping.
    pub nodes: u32,
    /// How updates are weighted.
    pub weights: Weights,
    /// More examples than this weigh no more.
    pub example_cap: u32,
}

/// How a node trains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainTerms {
    /// The run's seed.
    pub seed: u64,
    /// Which of the node's data sets; none: its first.
    pub source: Option<String>,
    /// What training makes small; a graph goes by its digest.
    pub loss: Loss,
    /// How labels count.
    pub labels: LabelSpec,
    /// Initializers that are not trained.
    pub freeze: Vec<String>,
    /// Passes over the node's examples.
    pub local_epochs: u32,
    /// Examples in a minibatch.
    pub batch: u32,
    /// The optimizer with its settings.
    pub optimizer: OptimizerTerms,
    /// Learning rate of this round.
    pub lr: f64,
}

/// The optimizer with its settings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerTerms {
    /// Which rule.
    pub kind: OptimizerKind,
    /// SGD.
    pub momentum: f64,
    /// SGD.
    pub nesterov: bool,
    /// L2 penalty, or decoupled decay for AdamW.
    pub weight_decay: f64,
    /// Adam.
    pub beta1: f64,
    /// Adam.
    pub beta2: f64,
    /// Adam.
    pub epsilon: f64,
}

/// What the outbox carries to one node: join this attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The terms.
    pub terms: Terms,
}

/// What the outbox carries to one node: the attempt is over for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withdrawal {
    /// Which run.
    pub run: RunId,
    /// Which attempt.
    pub session: SessionId,
    /// The same work will be asked for again: keep the trained update.
    pub keep: bool,
}

impl EncodingTerms {
    /// The grid of a run: room for `cohort.size` updates.
    pub fn of(spec: &Spec) -> Self {
        Self {
            clip: spec.privacy.clip,
            bits: spec.secure_aggregation.bits.unwrap_or(32),
            nodes: spec.cohort.size,
            weights: spec.strategy.weights,
            example_cap: spec.strategy.example_cap,
        }
    }

    /// The codec that both ends use.
    ///
    /// # Errors
    /// [`crate::fault::Misuse::Setting`] if the grid would be too coarse, with what makes it feasible.
    pub fn encoding(&self) -> Result<sapwood_privacy::Encoding, Fault> {
        use sapwood_privacy::{Bits, Encoding, Weighting};
        let setting = |key: &str, fault: sapwood_privacy::Fault| crate::fault::Misuse::Setting { key: key.into(), why: fault.to_string() };
        let bits = Bits::new(self.bits).map_err(|fault| setting("secure_aggregation.bits", fault))?;
        let weighting = match self.weights {
            Weights::Uniform => Weighting::Uniform,
            Weights::Examples => Weighting::Examples { cap: self.example_cap },
        };
        Ok(Encoding::new(self.clip, bits, self.nodes, weighting).map_err(|fault| setting("secure_aggregation.bits", fault))?)
    }

    fn write(&self, to: Canonical) -> Canonical {
        to.f64(self.clip).u64(u64::from(self.bits)).u64(u64::from(self.nodes)).str(self.weights.word()).u64(u64::from(self.example_cap))
    }
}

impl TrainTerms {
    /// How the nodes of a run train in a round, from 1.
    pub fn of(spec: &Spec, round: u32) -> Self {
        let train = &spec.train;
        Self {
            seed: spec.seed,
            source: spec.data.source.clone(),
            loss: spec.model.loss.clone(),
            labels: spec.model.labels.clone(),
            freeze: spec.model.freeze.clone(),
            local_epochs: train.local_epochs,
            batch: train.batch,
            optimizer: OptimizerTerms {
                kind: train.optimizer,
                momentum: train.momentum,
                nesterov: train.nesterov,
                weight_decay: train.weight_decay,
                beta1: train.beta1,
                beta2: train.beta2,
                epsilon: train.epsilon,
            },
            lr: train.lr_of(round),
        }
    }

    fn write(&self, to: Canonical) -> Canonical {
        let o = &self.optimizer;
        to.u64(self.seed)
            .option(self.source.as_deref(), Canonical::str)
            .str(&self.loss.to_string())
            .list(self.labels.weights.iter(), |to, weight| to.f64(*weight))
            .f64(self.labels.smoothing)
            .option(self.labels.ignore, |to, label| to.str(&label.to_string()))
            .list(self.freeze.iter(), |to, name| to.str(name))
            .u64(u64::from(self.local_epochs))
            .u64(u64::from(self.batch))
            .str(o.kind.word())
            .f64(o.momentum)
            .u64(u64::from(o.nesterov))
            .f64(o.weight_decay)
            .f64(o.beta1)
            .f64(o.beta2)
            .f64(o.epsilon)
            .f64(self.lr)
    }
}

impl Terms {
    /// The one way to write these terms down.
    pub fn canonical(&self) -> Vec<u8> {
        let to = Canonical::new("sapwood/round/terms/v1")
            .u64(u64::from(self.attempt))
            .bytes(self.session.as_bytes())
            .list(self.cohort.iter(), |to, node| to.str(node.as_str()))
            .u64(u64::from(self.size))
            .u64(u64::from(self.minimum))
            .u64(self.opened.millis())
            .u64(self.deadline.millis());
        let to = to.option(self.secure.as_ref(), |to, secure| secure.write(to));
        self.encoding.write(self.write_work(to)).finish()
    }

    /// SHA-256 of the canonical bytes: `params_hash` of the secure aggregation protocol.
    pub fn hash(&self) -> Digest {
        Digest::of(&self.canonical())
    }

    /// Names what a node computes. Two attempts with the same work ask for the same trained update, bit for bit, so a node
    /// that has it need not train again.
    pub fn work(&self) -> Digest {
        self.write_work(Canonical::new("sapwood/round/work/v1")).digest()
    }

    fn write_work(&self, to: Canonical) -> Canonical {
        let digest = |to: Canonical, digest: Digest| to.bytes(digest.as_bytes());
        let to = digest(to.str(self.run.as_str()).u64(u64::from(self.round)), self.model);
        let to = to.option(self.preprocess, digest).option(self.schema, digest);
        // Under a privacy budget the trainer clips, and what it trains depends on whom it protects.
        let to = to.option(self.noise.as_ref(), |to, noise| noise.write(to));
        self.train.write(digest(to, self.params).u64(self.length))
    }

    /// Seeds a node's training: H(run's seed, round, node). The order of examples is all that it decides.
    pub fn training_seed(&self, node: &NodeId) -> u64 {
        let digest =
            Canonical::new("sapwood/round/training-seed/v1").u64(self.train.seed).u64(u64::from(self.round)).str(node.as_str()).digest();
        let (head, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
        u64::from_le_bytes(*head)
    }

    /// How vectors become elements of Z_2^b, and sums become updates again.
    ///
    /// # Errors
    /// Terms that make no sense.
    pub fn codec(&self) -> Result<Codec, Fault> {
        Ok(match &self.noise {
            None => Codec::Exact(self.encoding.encoding()?),
            Some(noise) => {
                let mechanism = noise.mechanism()?;
                let p = mechanism.parameters();
                if p.dimension as u64 != self.length || p.minimum != self.minimum || p.nodes != self.size {
                    return Err(setting("privacy", "the noise is made for another round"));
                }
                Codec::Noised(mechanism)
            }
        })
    }

    /// Bytes of an update on the wire.
    ///
    /// # Errors
    /// As [`Terms::codec`].
    pub fn update_bytes(&self) -> Result<usize, Fault> {
        Ok(self.codec()?.packed_len(self.dimension()))
    }

    /// What a sum of so many costs; nothing without noise.
    ///
    /// # Errors
    /// Fewer than the noise was made for.
    pub fn cost(&self, survivors: usize) -> Result<Option<Cost>, Fault> {
        let Codec::Noised(mechanism) = self.codec()? else { return Ok(None) };
        let survivors = u32::try_from(survivors).unwrap_or(u32::MAX);
        let of = |observer| {
            let rho = mechanism.parameters().rho(observer, survivors).map_err(|fault| setting("privacy", &fault.to_string()))?;
            let cost = Rho::cost(rho).map_err(|fault| setting("privacy", &fault.to_string()))?;
            Ok::<_, Fault>(cost.trillionths())
        };
        Ok(Some(Cost { coordinator: of(Observer::Coordinator)?, outsider: of(Observer::Outsider)? }))
    }

    /// The public seed of the round's rotation: fixed by the session.
    pub fn rotation(&self) -> RotationSeed {
        RotationSeed::new(*Canonical::new("sapwood/round/rotation/v1").bytes(self.session.as_bytes()).digest().as_bytes())
    }

    /// The terms of the secure sum; its context is the hash of all terms. None if updates go in clear.
    ///
    /// # Errors
    /// Terms that make no sense.
    pub fn aggregation(&self) -> Result<Option<secagg::Terms>, Fault> {
        let Some(secure) = &self.secure else { return Ok(None) };
        let codec = self.codec()?;
        let length = u32::try_from(codec.elements(self.dimension())).ok().and_then(NonZeroU32::new);
        Ok(Some(secagg::Terms {
            session: secagg::Session(*self.session.as_bytes()),
            round: u64::from(self.round),
            minimum: self.minimum,
            dropout: secure.rate("secure_aggregation.dropout", secure.dropout_ppm)?,
            corruption: secure.rate("secure_aggregation.corruption", secure.corruption_ppm)?,
            profile: secure.profile(),
            bits: codec.bits(),
            length: length.ok_or_else(|| setting("model.file", "it has more parameters than a secure sum holds"))?,
            suite: secure.suite(),
            context: *self.hash().as_bytes(),
        }))
    }

    /// How long a step of the secure sum behind key advertisement may take.
    pub fn exchange(&self) -> Duration {
        self.secure.map_or(Duration::ZERO, |secure| secure.exchange)
    }

    /// How long masked inputs may take: a step's time, and the vector's at a slow line's rate.
    pub fn upload_within(&self) -> Duration {
        const BYTES_A_SECOND: usize = 500_000;
        let bytes = self.update_bytes().unwrap_or(0);
        self.exchange() + Duration::from_secs((bytes / BYTES_A_SECOND) as u64)
    }

    /// D as an index.
    pub fn dimension(&self) -> usize {
        usize::try_from(self.length).unwrap_or(usize::MAX)
    }

    /// Whether `node` takes part.
    pub fn has(&self, node: &NodeId) -> bool {
        self.cohort.binary_search(node).is_ok()
    }
}

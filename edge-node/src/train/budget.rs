//! How much of the machine training may take.

use sapwood_protocol::round::{Decline, Terms};

use crate::config::{Bytes, Train};

/// The part of the machine that training may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Threads of the pool.
    pub threads: usize,
    /// Bytes.
    pub memory: u64,
    /// 0 to 19.
    pub nice: u8,
}

impl Budget {
    /// As configured; without a limit on memory, half of the machine's.
    pub fn new(train: &Train) -> Self {
        let memory = train.memory.map(|bytes| bytes.0);
        let memory = memory.or_else(|| crate::profile::memory_bytes().map(|bytes| bytes / 2)).unwrap_or(u64::MAX);
        Self { threads: train.threads.get(), memory, nice: train.nice }
    }

    /// Refuses a job that would not fit, before any of the memory is taken. `data` is the examples' bytes, of which one
    /// minibatch passes the graph's `nodes`.
    ///
    /// The estimate is on the safe side for graphs whose intermediate values are no wider than their inputs; for wider
    /// ones the limit on the process (a cgroup) is what holds.
    pub(super) fn check(&self, need: Need, terms: &Terms) -> Result<(), Decline> {
        let bytes = need.bytes(terms);
        if bytes <= self.memory {
            return Ok(());
        }
        let (needs, has) = (Bytes(bytes), Bytes(self.memory));
        let why =
            format!("training {} parameters on {} of data needs about {needs}, train.memory allows {has}", terms.length, Bytes(need.data));
        Err(Decline::Resources { why })
    }
}

/// What the memory of a job depends on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Need {
    /// Bytes of the ONNX file.
    pub(super) model: u64,
    /// Nodes of its graph.
    pub(super) nodes: u64,
    /// Bytes of the examples, as they are and after preprocessing.
    pub(super) data: u64,
    /// Bytes of one example.
    pub(super) example: u64,
}

impl Need {
    /// The parameters are there as they came, in the trainer, as gradients, as the optimizer's state, as the update and,
    /// encoded, in at most as many bytes again. Each intermediate value of a minibatch is there once forward, once backward.
    fn bytes(self, terms: &Terms) -> u64 {
        use sapwood_protocol::spec::OptimizerKind;
        let state = match terms.train.optimizer.kind {
            OptimizerKind::Sgd if terms.train.optimizer.momentum == 0.0 => 0,
            OptimizerKind::Sgd => 1,
            OptimizerKind::Adam | OptimizerKind::AdamW => 2,
        };
        let vectors = terms.length.saturating_mul(4).saturating_mul(5 + state);
        // Exact sums of units in 8 bytes a number, once more padded for the rotation; and the elements that masks are added to, twice.
        let padded = if terms.noise.is_some() {
            terms.length.saturating_add(16).checked_next_power_of_two().unwrap_or(u64::MAX)
        } else {
            terms.length
        };
        let noised = if terms.noise.is_some() { terms.length.saturating_add(padded).saturating_mul(16) } else { 0 };
        let masked = if terms.secure.is_some() { padded.saturating_mul(8) } else { 0 };
        let vectors = vectors.saturating_add(noised).saturating_add(masked);
        let passes = u64::from(terms.train.batch).saturating_mul(self.example).saturating_mul(self.nodes).saturating_mul(2);
        vectors.saturating_add(self.model.saturating_mul(3)).saturating_add(self.data).saturating_add(passes)
    }
}

/// Makes the calling thread yield. (On Linux a nice value belongs to a thread.)
pub(super) fn yield_to_others(nice: u8) {
    if nice == 0 {
        return;
    }
    if let Err(error) = rustix::process::setpriority_process(None, i32::from(nice)) {
        tracing::warn!(%error, nice, "training runs at the priority of everything else");
    }
}

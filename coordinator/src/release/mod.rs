//! From a run's parameters to a signed release.
//!
//! ```text
//! params ─ write back ─▶ fp32.onnx ─ calibrate, quantize ─▶ model.onnx ─ golden, documents ─▶ bundle
//!                           │                                  │                               │
//!                           └──── both scored by ONNX Runtime ─┴─ latency ───── cold start ────┤
//!                                                                                            gates ─▶ manifest ─▶ signatures
//! ```
//!
//! The bundle depends on the run alone: built again, it has the same bytes. What a clock measured stands in the manifest. Where
//! INT8 makes the file no smaller and the model no faster, `fp32.onnx` is shipped as it is; only there a clock has a say.
//! Rounds are scored by the interpreter, which starts at once; a release is judged by what will run it, ONNX Runtime.

mod candidate;
mod card;
mod error;
mod evaluate;
mod export;
mod measure;
mod pack;
mod score;
mod skew;
mod sources;
mod work;

#[cfg(test)]
mod tests;

pub use candidate::{Candidates, CandidatesOptions};
pub use error::ReleaseError;
pub use evaluate::Evaluator;
pub(crate) use evaluate::measuring;
pub use measure::{Probe, Timings};
pub use work::{BuildJob, Built, CheckJob, EvaluateJob, Release, Work, WorkError};

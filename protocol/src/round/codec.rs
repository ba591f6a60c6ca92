//! How vectors become elements of Z_2^b, and sums become updates again: exactly, or noised.

use sapwood_privacy::{
    Accumulator, Bits, Encoding,
    dp::{Mechanism, NoiseSeed, Trust},
};

use super::{NoiseTerms, Report, Terms, Totals};
use crate::fault::{Fault, Misuse};

/// What both ends of a round compute with.
#[derive(Clone, Debug, PartialEq)]
pub enum Codec {
    /// Fixed point; the sum is exact.
    Exact(Encoding),
    /// Rotated, rounded and noised; statistics travel with the update.
    Noised(Mechanism),
}

impl Codec {
    /// b.
    pub fn bits(&self) -> Bits {
        match self {
            Self::Exact(encoding) => encoding.bits(),
            Self::Noised(mechanism) => mechanism.parameters().bits,
        }
    }
    /// Elements on the wire of an update of `dimension` floats.
    pub fn elements(&self, dimension: usize) -> usize {
        match self {
            Self::Exact(encoding) => encoding.elements(dimension),
            Self::Noised(mechanism) => mechanism.parameters().padded(),
        }
    }
    /// Bytes on the wire of an update of `dimension` floats.
    pub fn packed_len(&self, dimension: usize) -> usize {
        match self {
            Self::Exact(encoding) => encoding.packed_len(dimension),
            Self::Noised(mechanism) => mechanism.packed_len(),
        }
    }
    /// The empty sum.
    pub fn accumulator(&self, dimension: usize) -> Accumulator {
        match self {
            Self::Exact(encoding) => encoding.accumulator(dimension),
            Self::Noised(mechanism) => mechanism.accumulator(),
        }
    }

    /// Adds what a sum says to `parameters`, `server_lr` times, and tells what its cohort said about itself. Under a unit within
    /// a node, the step is `train.lr` times that.
    ///
    /// # Errors
    /// A sum that is not of these terms, or that gives a model that is not finite: `parameters` are spoiled then.
    pub fn add_to(
        &self,
        terms: &Terms,
        sum: &Accumulator,
        parameters: &mut [f32],
        server_lr: f64,
        noise: impl FnOnce() -> NoiseSeed,
    ) -> Result<Totals, Fault> {
        let refuse = |why: String| Fault::from(Misuse::State { what: "the sum".into(), why });
        match self {
            Self::Exact(encoding) => {
                let mean = encoding.decode(sum, terms.dimension()).map_err(|fault| refuse(fault.to_string()))?;
                mean.add_to(parameters, server_lr).map_err(|fault| refuse(fault.to_string()))?;
                Ok(Totals::from(&mean.totals))
            }
            Self::Noised(mechanism) => {
                let release = match mechanism.parameters().trust {
                    Trust::Distributed => mechanism.decode(sum, terms.rotation()),
                    Trust::Central => mechanism.decode_central(sum, terms.rotation(), noise()),
                };
                let release = release.map_err(|fault| refuse(fault.to_string()))?;
                let asked = terms.noise.as_ref();
                let rate = if asked.is_some_and(NoiseTerms::is_per_unit) { server_lr * terms.train.lr } else { server_lr };
                for (parameter, step) in parameters.iter_mut().zip(&release.update) {
                    *parameter = (f64::from(*parameter) + rate * f64::from(*step)) as f32;
                    if !parameter.is_finite() {
                        return Err(refuse("a parameter is not finite any more".into()));
                    }
                }
                Ok(Totals::noised(release.survivors, asked, &release.statistics))
            }
        }
    }
}

impl Totals {
    /// What a noised sum tells: estimates, and nothing exact but the number of nodes.
    fn noised(nodes: u32, terms: Option<&NoiseTerms>, statistics: &[f64]) -> Self {
        let reports = terms.map_or(&[][..], |noise| &noise.reports);
        let of = |wanted: Report| reports.iter().position(|report| *report == wanted).and_then(|at| statistics.get(at)).copied();
        // Behind the reports, in the order in which the mechanism was made.
        let within_clip = terms.and_then(|noise| noise.clip_quantile).and_then(|_| statistics.get(reports.len())).copied();
        // The last one, where nodes are weighted.
        let weighted = terms.and_then(|noise| noise.example_cap).and_then(|_| statistics.last()).copied();
        let weight = weighted.unwrap_or(f64::from(nodes));
        Self { nodes, weight, examples: None, loss: of(Report::Loss), accuracy: of(Report::Accuracy), within_clip, clipped: None }
    }
}

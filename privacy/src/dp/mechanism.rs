//! A noised round at both ends: Kairouz, Liu, Steinke 2021, "The Distributed Discrete Gaussian Mechanism for Federated Learning with
//! Secure Aggregation", Algorithms 1 and 2, on integers throughout.
//!
//! **Node**: clip to whole fine units ([`clip`](super::AdaptiveClip)), put the statistics behind, pad to D = 2^k, rotate exactly
//! ([`hadamard`]), round at random to the grid, add N_Z(0, σ²) to each coordinate, reduce modulo 2^b. What comes out is ready for masks.
//! Under the units `entity` and `example` every unit is clipped by itself and a node's units are summed before rotation.
//!
//! **Coordinator**: centre the sum, rotate back, scale, cut, divide. That is post-processing of a noised sum: no budget.
//!
//! There is no way to encode without noise under [`Trust::Distributed`], and no counter beside the noised vector: how many
//! examples, which loss, what was clipped are statistics of the same sum or are not known.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{
    Clipped, DiscreteGaussian, Fault, NoiseSeed, Parameters, RotationSeed, Statistic, Trust, Unit, clip::clip_into, flip_signs, hadamard,
    rounding, seed::Purpose,
};
use crate::{Accumulator, Weighting, accountant::Observer, wire};

/// The mechanism of one round.
#[derive(Clone, Debug, PartialEq)]
pub struct Mechanism {
    parameters: Parameters,
    clip: f64,
    /// σ of what a node adds and of what the coordinator adds; none where that is nothing.
    node_noise: Option<DiscreteGaussian>,
    central_noise: Option<DiscreteGaussian>,
}

/// One node's lanes, in [0, 2^b): noised, not yet masked. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Share {
    lanes: Vec<u32>,
    #[zeroize(skip)]
    bits: crate::Bits,
}

impl Share {
    /// The lanes, for masks to be added to.
    pub fn lanes(&self) -> &[u32] {
        &self.lanes
    }
    /// The packed vector; lanes are reduced modulo 2^b.
    pub fn pack(&self) -> Vec<u8> {
        let mut packer = wire::Packer::new(self.lanes.len(), self.bits);
        let mut block = [0u32; 1024];
        for lanes in self.lanes.chunks(block.len()) {
            for (reduced, lane) in block.iter_mut().zip(lanes) {
                *reduced = lane & self.bits.mask();
            }
            packer.extend(&block[..lanes.len()]);
        }
        packer.finish()
    }
}

/// The sum of one node's clipped units, in fine units. Exact: the order does not matter, and one unit more or less changes it by that
/// unit and nothing else. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct UnitSum {
    fine: Vec<i64>,
    scratch: Vec<i64>,
    units: u32,
}

impl UnitSum {
    /// Units so far. Private: stays on the node.
    pub fn units(&self) -> u32 {
        self.units
    }
}

/// What a round's noised sum says.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// Nodes in the sum.
    pub survivors: u32,
    /// Mean update: over survivors, over their noised weight, or over the public divisor.
    pub update: Vec<f32>,
    /// Mean of each statistic in its own unit, in the order of the terms; [`Statistic::Weight`] is the noised sum of weights.
    pub statistics: Vec<f64>,
    /// ρ that this release costs against the coordinator.
    pub rho_coordinator: f64,
    /// ρ that it costs against those who see nothing else.
    pub rho_outsider: f64,
}

impl Mechanism {
    /// `clip` is c, the largest L2 norm of one unit's update.
    ///
    /// # Errors
    /// Whatever of `parameters` cannot hold, by name.
    pub fn new(parameters: Parameters, clip: f64) -> Result<Self, Fault> {
        parameters.check()?;
        if !(1e-30..=1e30).contains(&clip) {
            return Err(Fault::Range { what: "a clip norm", value: clip, range: "from 1e-30 to 1e30" });
        }
        let noise = DiscreteGaussian::new(parameters.sigma)?;
        let (node_noise, central_noise) = match parameters.trust {
            Trust::Distributed => (Some(noise), None),
            Trust::Central => (None, Some(noise)),
        };
        Ok(Self { parameters, clip, node_noise, central_noise })
    }

    /// What both ends agreed on.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }
    /// c.
    pub fn clip(&self) -> f64 {
        self.clip
    }
    /// The empty sum of shares.
    pub fn accumulator(&self) -> Accumulator {
        Accumulator::new(self.parameters.padded(), self.parameters.bits, self.parameters.nodes)
    }
    /// Bytes of a packed share.
    pub fn packed_len(&self) -> usize {
        wire::packed_len(self.parameters.padded(), self.parameters.bits)
    }
    /// The empty sum of a node's units.
    pub fn unit_sum(&self) -> UnitSum {
        UnitSum {
            fine: vec![0; self.parameters.dimension + self.parameters.coordinates.len()],
            scratch: vec![0; self.parameters.dimension],
            units: 0,
        }
    }

    /// Clips one unit's update and adds it to `sum`. `reported` holds the reported statistics, in order.
    ///
    /// # Errors
    /// [`Fault::Length`], [`Fault::TooManyUnits`]. `sum` is as it was then.
    pub fn add_unit(&self, sum: &mut UnitSum, update: &[f32], reported: &[f64]) -> Result<Clipped, Fault> {
        self.add_weighted(sum, update, reported, 1.0)
    }

    /// One node's share under the unit `node`. `examples` decide its weight in a weighted round.
    ///
    /// # Errors
    /// [`Fault::Length`]; [`Fault::Conflict`] under another unit.
    pub fn encode_node(
        &self,
        update: &[f32],
        reported: &[f64],
        examples: u64,
        rotation: RotationSeed,
        seed: NoiseSeed,
    ) -> Result<(Share, Clipped), Fault> {
        if self.parameters.unit != Unit::Node {
            return Err(Fault::Conflict { what: "the unit is not the node: clip each unit and add it to a unit sum" });
        }
        let weight = match self.parameters.weighting {
            Weighting::Uniform => 1.0,
            Weighting::Examples { cap } => examples.min(u64::from(cap)) as f64 / f64::from(cap),
        };
        let mut sum = self.unit_sum();
        let clipped = self.add_weighted(&mut sum, update, reported, weight)?;
        Ok((self.share(&sum, rotation, &seed), clipped))
    }

    /// One node's share under the units `entity` and `example`; a node without units sends noise alone.
    ///
    /// # Errors
    /// [`Fault::Conflict`] under the unit `node`, [`Fault::Length`] for a sum of another mechanism.
    pub fn encode_units(&self, sum: &UnitSum, rotation: RotationSeed, seed: NoiseSeed) -> Result<Share, Fault> {
        if self.parameters.unit == Unit::Node {
            return Err(Fault::Conflict { what: "the unit is the node: encode its one update" });
        }
        self.length("coordinates of a unit sum", sum.fine.len(), self.parameters.dimension + self.parameters.coordinates.len())?;
        Ok(self.share(sum, rotation, &seed))
    }

    /// Reads the sum of the survivors' shares, unmasked.
    ///
    /// # Errors
    /// [`Fault::Mismatch`], [`Fault::TooFewSurvivors`], [`Fault::WeightLost`]; [`Fault::Conflict`] under [`Trust::Central`].
    pub fn decode(&self, sum: &Accumulator, rotation: RotationSeed) -> Result<Release, Fault> {
        if self.central_noise.is_some() {
            return Err(Fault::Conflict { what: "under central DP the coordinator adds the noise: release the sum with a noise seed" });
        }
        self.release(sum, rotation, None)
    }

    /// Under [`Trust::Central`]: adds the coordinator's noise to the exact sum, then reads it.
    ///
    /// # Errors
    /// As [`Mechanism::decode`]; [`Fault::Conflict`] under [`Trust::Distributed`].
    pub fn decode_central(&self, sum: &Accumulator, rotation: RotationSeed, seed: NoiseSeed) -> Result<Release, Fault> {
        if self.central_noise.is_none() {
            return Err(Fault::Conflict {
                what: "under distributed DP the nodes add the noise; a coordinator that tops it up proves nothing",
            });
        }
        self.release(sum, rotation, Some(&seed))
    }

    fn length(&self, what: &'static str, actual: usize, expected: usize) -> Result<(), Fault> {
        if actual == expected { Ok(()) } else { Err(Fault::Length { what, expected, actual }) }
    }

    fn add_weighted(&self, sum: &mut UnitSum, update: &[f32], reported: &[f64], weight: f64) -> Result<Clipped, Fault> {
        let p = &self.parameters;
        self.length("floats of an update", update.len(), p.dimension)?;
        let reports = p.coordinates.iter().filter(|c| matches!(c.statistic, Statistic::Reported { .. })).count();
        self.length("reported statistics", reported.len(), reports)?;
        self.length("coordinates of a unit sum", sum.fine.len(), p.dimension + p.coordinates.len())?;
        if sum.units >= p.units_per_node {
            return Err(Fault::TooManyUnits { most: p.units_per_node });
        }
        let clipped = clip_into(update, self.clip, weight, p.fraction(), &mut sum.scratch);
        let (head, tail) = sum.fine.split_at_mut(p.dimension);
        for (sum, x) in head.iter_mut().zip(&sum.scratch) {
            *sum += x;
        }
        let mut reported = reported.iter();
        for (sum, coordinate) in tail.iter_mut().zip(&p.coordinates) {
            let value = match coordinate.statistic {
                Statistic::Reported { .. } => reported.next().copied().unwrap_or_default(),
                Statistic::WithinClip { quantile } => f64::from(u8::from(!clipped.clipped)) - quantile,
                Statistic::Weight => weight,
            };
            // What is no number counts as zero, like an update that holds one.
            let part = if value.is_nan() { 0.0 } else { (value / coordinate.statistic.bound()).clamp(-1.0, 1.0) };
            // |part| ≤ 1, and the cast truncates: never above the scale.
            *sum += (part * p.scale(coordinate) as f64) as i64;
        }
        sum.units += 1;
        Ok(clipped)
    }

    /// Pads, rotates, rounds, noises and reduces.
    fn share(&self, sum: &UnitSum, rotation: RotationSeed, seed: &NoiseSeed) -> Share {
        let p = &self.parameters;
        // It never grows: that would leave a copy behind.
        let mut fine = Vec::with_capacity(p.padded());
        fine.extend_from_slice(&sum.fine);
        fine.resize(p.padded(), 0);
        flip_signs(&mut fine, rotation);
        hadamard(&mut fine);
        let mut lanes = vec![0; fine.len()];
        let mut random = seed.stream(Purpose::Rounding);
        match p.unit {
            Unit::Node => {
                rounding::conditional(&fine, p.step, p.sensitivity_squared(), &mut random, &mut lanes);
            }
            Unit::Entity | Unit::Example => {
                rounding::dither(&fine, p.step, &mut random, &mut lanes);
            }
        }
        fine.zeroize();
        if let Some(noise) = self.node_noise {
            noise.add_to(&mut seed.stream(Purpose::Noise), &mut lanes);
        }
        for lane in &mut lanes {
            *lane &= p.bits.mask();
        }
        Share { lanes, bits: p.bits }
    }

    fn release(&self, sum: &Accumulator, rotation: RotationSeed, central: Option<&NoiseSeed>) -> Result<Release, Fault> {
        let p = &self.parameters;
        let survivors = sum.added();
        if sum.len() != p.padded() || sum.bits() != p.bits || survivors > p.nodes {
            return Err(Fault::Mismatch);
        }
        let rho = |observer| p.rho(observer, survivors);
        let (rho_coordinator, rho_outsider) = (rho(Observer::Coordinator)?, rho(Observer::Outsider)?);
        let mut values: Vec<f32> = match (self.central_noise, central) {
            (Some(noise), Some(seed)) => {
                let mut lanes: Vec<u32> = sum.residues().collect();
                noise.add_to(&mut seed.stream(Purpose::Noise), &mut lanes);
                let values = lanes.iter().map(|lane| p.bits.centre(*lane) as f32).collect();
                lanes.zeroize();
                values
            }
            _ => sum.centred().map(|value| value as f32).collect(),
        };
        hadamard(&mut values);
        flip_signs(&mut values, rotation);

        // A grid unit is γ; H without its factor left √D in.
        let unit = p.grid() / (p.padded() as f64).sqrt();
        let mut divisor = if p.unit == Unit::Node { f64::from(survivors) } else { p.divisor };
        let behind = &values[p.dimension..p.dimension + p.coordinates.len()];
        let totals: Vec<f64> =
            p.coordinates.iter().zip(behind).map(|(c, value)| f64::from(*value) * unit * c.statistic.bound() / c.share).collect();
        if let Some(weight) = p.coordinates.iter().position(|c| c.statistic == Statistic::Weight) {
            divisor = totals[weight];
            // Below this, the quotient is noise, and may be infinite.
            if divisor < 0.01 * f64::from(survivors) {
                return Err(Fault::WeightLost);
            }
        }
        let statistics = p
            .coordinates
            .iter()
            .zip(totals)
            // Statistics are not weighted.
            .map(|(c, total)| match c.statistic {
                Statistic::Weight => total,
                _ if p.unit == Unit::Node => total / f64::from(survivors),
                _ => total / p.divisor,
            })
            .collect();
        let scale = unit * self.clip / divisor;
        values.truncate(p.dimension);
        for value in &mut values {
            *value = (f64::from(*value) * scale) as f32;
        }
        Ok(Release { survivors, update: values, statistics, rho_coordinator, rho_outsider })
    }

    /// The same with another amount of noise, which is not the one that is accounted: for tests that must notice.
    #[cfg(test)]
    pub(crate) fn with_noise(mut self, sigma: u32) -> Self {
        self.node_noise = DiscreteGaussian::new(sigma).ok();
        self
    }
}

#[cfg(test)]
#[path = "mechanism_tests.rs"]
mod tests;

//! Fixed point: real updates on a grid of Z_2^b, so that their sum is exact.
//!
//! A node's vector on the wire is `[D grid values][counters]`. Its update x is clipped to the L2 norm c, multiplied by its
//! weight w in (0, 1], and rounded half-even to multiples of the step s = c/m, where m = ⌊(2^(b-1) - 1)/n⌋ and n is the most
//! updates that may be summed. A clipped, weighted coordinate is at most c, so a grid value is at most m, so the sum of n
//! of them never leaves [-2^(b-1), 2^(b-1)): **it cannot wrap**.
//!
//! **Error.** Rounding moves each coordinate by at most s/2, so the decoded mean Σ wᵢxᵢ / Σ wᵢ over k updates is off by at
//! most k·s / (2·Σ wᵢ) per coordinate, and by the rounding of the answer to `f32`: [`Encoding::error_bound`].
//!
//! **Counters** (weights, examples, right answers, loss, how many were clipped) travel behind the update and are summed with
//! it. Each is cut into limbs that are small enough for n of them to fit b bits, so counters are exact in any ring.
//!
//! Rounding at random, rotation and noise belong between clipping and packing; they come with the privacy budget.

use crate::{
    Accumulator, Bits, Fault,
    wire::{self, Packer},
};

/// Grid steps from zero to the clip norm: fewer would spoil training.
const LEAST_STEPS: u32 = 1 << 12;
/// Counters behind the update.
const COUNTERS: usize = 7;
/// Each counter counts to 2^48 - 1 and stays there.
const COUNTER_BITS: u32 = 48;
const COUNTER_MAX: u64 = (1 << COUNTER_BITS) - 1;
/// The loss counter's unit: 2^-16 for one example.
const LOSS_UNIT: f64 = 65_536.0;

/// How much an update counts, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weighting {
    /// All updates count 1.
    Uniform,
    /// An update counts min(examples, cap) / cap.
    Examples {
        /// Examples from which on an update counts 1.
        cap: u32,
    },
}

impl Weighting {
    /// The weight of `examples` as a fraction.
    fn of(self, examples: u64) -> (u32, u32) {
        match self {
            Self::Uniform => (1, 1),
            Self::Examples { cap } => (u32::try_from(examples).unwrap_or(cap).min(cap), cap),
        }
    }
    fn denominator(self) -> u32 {
        match self {
            Self::Uniform => 1,
            Self::Examples { cap } => cap,
        }
    }
}

/// The grid that the nodes of a round share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Encoding {
    clip: f64,
    bits: Bits,
    nodes: u32,
    weighting: Weighting,
    /// m: the largest grid value of one update.
    most: u32,
    /// Bits of a counter in one element.
    limb: u32,
}

/// What a node says beside its update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contribution {
    /// Examples that it trained on.
    pub examples: u64,
    /// How many of them the local model got right; none for regression.
    pub correct: Option<u64>,
    /// Mean loss per example; kept to 2^-16, and clamped to [0, 2^32 / examples].
    pub loss: f64,
}

/// An update, ready to be sent.
#[derive(Clone, PartialEq)]
pub struct Encoded {
    /// The packed vector.
    pub bytes: Vec<u8>,
    /// L2 norm of the update before clipping.
    pub norm: f64,
    /// Whether it was above the clip norm.
    pub clipped: bool,
}

/// Counters, summed over the nodes of a sum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Totals {
    /// Updates.
    pub nodes: u32,
    /// Sum of the weights.
    pub weight: f64,
    /// Examples.
    pub examples: u64,
    /// Examples of nodes that counted right answers.
    pub scored: u64,
    /// Right answers.
    pub correct: u64,
    /// Mean loss per example.
    pub loss_mean: f64,
    /// Updates that were clipped.
    pub clipped: u32,
}

impl Totals {
    /// Share of right answers; none if nobody counted any.
    pub fn accuracy(&self) -> Option<f64> {
        (self.scored > 0).then(|| self.correct as f64 / self.scored as f64)
    }
}

/// A decoded sum.
pub struct Mean<'a> {
    /// The counters.
    pub totals: Totals,
    grid: &'a [u32],
    bits: Bits,
    /// From a grid value of the sum to the weighted mean.
    scale: f64,
}

impl Encoding {
    /// # Errors
    /// [`Fault::Clip`], [`Fault::NoNodes`], [`Fault::NoCap`]; [`Fault::TooCoarse`] if the step would be above clip·2^-12, with the
    /// bits or nodes that would do.
    pub fn new(clip: f64, bits: Bits, nodes: u32, weighting: Weighting) -> Result<Self, Fault> {
        if !(1e-30..=1e30).contains(&clip) {
            return Err(Fault::Clip { clip });
        }
        if nodes == 0 {
            return Err(Fault::NoNodes);
        }
        if weighting.denominator() == 0 {
            return Err(Fault::NoCap);
        }
        let half = bits.mask() >> 1;
        let most = half / nodes;
        if most < LEAST_STEPS {
            let needed = u64::BITS - (u64::from(nodes) * u64::from(LEAST_STEPS)).leading_zeros() + 1;
            return Err(Fault::TooCoarse { bits: bits.get(), nodes, needed, most: half / LEAST_STEPS });
        }
        // n·(2^limb - 1) fits b bits. At least 12, because m is.
        let limb = (u64::from(bits.mask()) / u64::from(nodes) + 1).ilog2();
        Ok(Self { clip, bits, nodes, weighting, most, limb })
    }

    /// Largest L2 norm of an update.
    pub fn clip(&self) -> f64 {
        self.clip
    }
    /// Width of the ring.
    pub fn bits(&self) -> Bits {
        self.bits
    }
    /// Most updates in a sum.
    pub fn nodes(&self) -> u32 {
        self.nodes
    }
    /// s, the distance of two grid points.
    pub fn step(&self) -> f64 {
        self.clip / f64::from(self.most)
    }
    /// Elements on the wire of an update of `dimension` floats.
    pub fn elements(&self, dimension: usize) -> usize {
        dimension.saturating_add(COUNTERS * self.limbs())
    }
    /// Bytes on the wire of an update of `dimension` floats.
    pub fn packed_len(&self, dimension: usize) -> usize {
        wire::packed_len(self.elements(dimension), self.bits)
    }
    /// The empty sum of updates of `dimension` floats.
    pub fn accumulator(&self, dimension: usize) -> Accumulator {
        Accumulator::new(self.elements(dimension), self.bits, self.nodes)
    }
    /// Most that a coordinate of a decoded mean differs from the weighted mean of the clipped updates.
    pub fn error_bound(&self, totals: &Totals) -> f64 {
        // The mean is at most c; f32 rounds it by 2^-24 of that. The last term covers the f64 arithmetic.
        let rounding = 0.5 * self.step() * f64::from(totals.nodes) / totals.weight;
        rounding + self.clip * (f64::from(f32::EPSILON) / 2.0 + 64.0 * f64::EPSILON)
    }

    /// Clips, weighs, rounds and packs.
    ///
    /// # Errors
    /// [`Fault::NonFinite`] with the first index, [`Fault::NoExamples`], [`Fault::Correct`], [`Fault::Loss`].
    pub fn encode(&self, update: &[f32], contribution: &Contribution) -> Result<Encoded, Fault> {
        contribution.check()?;
        let norm = norm(update)?;
        let clipped = norm > self.clip;
        let (weight, of) = self.weighting.of(contribution.examples);
        let shrink = if clipped { self.clip / norm } else { 1.0 };
        let factor = shrink * f64::from(weight) / f64::from(of) / self.step();

        let mut packer = Packer::new(self.elements(update.len()), self.bits);
        let (most, mask) = (f64::from(self.most), self.bits.mask());
        // A block that stays in the nearest cache between rounding and packing.
        let mut block = [0u32; 1024];
        for values in update.chunks(block.len()) {
            let lanes = &mut block[..values.len()];
            for (lane, x) in lanes.iter_mut().zip(values) {
                *lane = round_half_even((f64::from(*x) * factor).clamp(-most, most)) & mask;
            }
            packer.extend(lanes);
        }
        for counter in contribution.counters(weight, clipped) {
            for limb in 0..self.limbs() as u32 {
                let low = counter.min(COUNTER_MAX) >> (limb * self.limb);
                packer.extend(&[(low & ((1 << self.limb) - 1)) as u32]);
            }
        }
        Ok(Encoded { bytes: packer.finish(), norm, clipped })
    }

    /// Reads a sum of updates of `dimension` floats.
    ///
    /// # Errors
    /// [`Fault::Mismatch`] if the sum is not of this encoding, [`Fault::Totals`] if its counters contradict each other.
    pub fn decode<'a>(&self, sum: &'a Accumulator, dimension: usize) -> Result<Mean<'a>, Fault> {
        if sum.len() != self.elements(dimension) || sum.bits() != self.bits || sum.added() > self.nodes {
            return Err(Fault::Mismatch);
        }
        let (grid, limbs) = sum.lanes().split_at(dimension);
        let totals = self.totals(self.counters(limbs), sum.added())?;
        Ok(Mean { totals, grid, bits: self.bits, scale: self.step() / totals.weight })
    }

    /// Looks at one packed update alone, in the clear: whether a node that follows the rules could have sent it.
    ///
    /// # Errors
    /// [`Fault::Length`], [`Fault::Padding`], [`Fault::Totals`]; [`Fault::BeyondClip`] if its norm is above the clip norm by
    /// more than rounding explains.
    pub fn check(&self, bytes: &[u8], dimension: usize) -> Result<(), Fault> {
        const BLOCK: usize = 1024;
        let elements = self.elements(dimension);
        wire::check(&[bytes], elements, self.bits)?;
        let (mut lanes, mut counters, mut squares) = ([0; BLOCK], Vec::with_capacity(elements - dimension), 0f64);
        for (first, packed) in (0..).step_by(BLOCK).zip(bytes.chunks(wire::packed_len(BLOCK, self.bits))) {
            let lanes = &mut lanes[..BLOCK.min(elements - first)];
            lanes.fill(0);
            wire::add(&[packed], lanes, self.bits);
            let (grid, limbs) = lanes.split_at(lanes.len().min(dimension.saturating_sub(first)));
            squares += grid.iter().map(|lane| f64::from(self.bits.centre(*lane)).powi(2)).sum::<f64>();
            counters.extend_from_slice(limbs);
        }
        self.totals(self.counters(&counters), 1)?;
        // Rounding moves each coordinate by half a step at most.
        let (norm, most) = (squares.sqrt(), f64::from(self.most) + 0.5 * (dimension as f64).sqrt() + 1.0);
        if norm > most { Err(Fault::BeyondClip { norm: norm * self.step(), clip: self.clip }) } else { Ok(()) }
    }

    fn counters(&self, limbs: &[u32]) -> [u64; COUNTERS] {
        let mut counters = [0; COUNTERS];
        for (counter, limbs) in counters.iter_mut().zip(limbs.chunks_exact(self.limbs())) {
            for (i, limb) in (0u32..).zip(limbs) {
                *counter += u64::from(limb & self.bits.mask()) << (i * self.limb);
            }
        }
        counters
    }

    fn limbs(&self) -> usize {
        COUNTER_BITS.div_ceil(self.limb) as usize
    }

    fn totals(&self, counters: [u64; COUNTERS], added: u32) -> Result<Totals, Fault> {
        let [nodes, weight, examples, scored, correct, loss, clipped] = counters;
        let refuse = |why| Err(Fault::Totals { why });
        if nodes != u64::from(added) || added == 0 {
            return refuse("it does not count the updates that were added");
        }
        if weight == 0 || weight > nodes * u64::from(self.weighting.denominator()) {
            return refuse("the weight is not between 0 and the number of updates");
        }
        if clipped > nodes || scored > examples || correct > scored {
            return refuse("a part is larger than its whole");
        }
        let Ok(clipped) = u32::try_from(clipped) else { return refuse("a part is larger than its whole") };
        let weight = weight as f64 / f64::from(self.weighting.denominator());
        let loss_mean = loss as f64 / LOSS_UNIT / examples.max(1) as f64;
        Ok(Totals { nodes: added, weight, examples, scored, correct, loss_mean, clipped })
    }
}

impl Contribution {
    fn check(&self) -> Result<(), Fault> {
        if self.examples == 0 {
            return Err(Fault::NoExamples);
        }
        if !self.loss.is_finite() {
            return Err(Fault::Loss { loss: self.loss });
        }
        match self.correct {
            Some(correct) if correct > self.examples => Err(Fault::Correct { correct, examples: self.examples }),
            _ => Ok(()),
        }
    }

    fn counters(&self, weight: u32, clipped: bool) -> [u64; COUNTERS] {
        let scored = if self.correct.is_some() { self.examples } else { 0 };
        // A cast from float saturates.
        let loss = (self.loss.max(0.0) * self.examples as f64 * LOSS_UNIT).round_ties_even() as u64;
        [1, u64::from(weight), self.examples, scored, self.correct.unwrap_or(0), loss, u64::from(clipped)]
    }
}

impl Mean<'_> {
    /// The weighted mean of the updates.
    pub fn update(&self) -> impl ExactSizeIterator<Item = f32> + '_ {
        self.grid.iter().map(|lane| (f64::from(self.bits.centre(*lane)) * self.scale) as f32)
    }

    /// Adds `rate` times the mean to `parameters`.
    ///
    /// # Errors
    /// [`Fault::Length`] in floats; [`Fault::Overflow`] if a parameter leaves the finite numbers: `parameters` are spoiled then.
    pub fn add_to(&self, parameters: &mut [f32], rate: f64) -> Result<(), Fault> {
        if parameters.len() != self.grid.len() {
            return Err(Fault::Length { what: "parameters", expected: self.grid.len(), actual: parameters.len() });
        }
        let scale = self.scale * rate;
        let mut spoiled = false;
        for (parameter, lane) in parameters.iter_mut().zip(self.grid) {
            *parameter = (f64::from(*parameter) + f64::from(self.bits.centre(*lane)) * scale) as f32;
            spoiled |= !parameter.is_finite();
        }
        match spoiled.then(|| parameters.iter().position(|p| !p.is_finite())).flatten() {
            Some(index) => Err(Fault::Overflow { index }),
            None => Ok(()),
        }
    }
}

/// L2 norm in `f64`, always summed in the same order. The squares of `f32` cannot overflow it.
fn norm(update: &[f32]) -> Result<f64, Fault> {
    let mut partial = [0f64; 16];
    let (rows, rest) = update.as_chunks::<16>();
    for row in rows {
        for (sum, x) in partial.iter_mut().zip(row) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    for (sum, x) in partial.iter_mut().zip(rest) {
        *sum += f64::from(*x) * f64::from(*x);
    }
    let norm = partial.iter().sum::<f64>().sqrt();
    if norm.is_finite() {
        return Ok(norm);
    }
    let index = update.iter().position(|x| !x.is_finite()).unwrap_or_default();
    Err(Fault::NonFinite { index, value: update[index] })
}

/// Rounds |v| < 2^51 half-even and gives the low 32 bits of the two's complement. Adding 1.5·2^52 leaves no room in the
/// mantissa for a fraction, so the processor rounds, a vector at a time and without a call.
fn round_half_even(v: f64) -> u32 {
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    (v + SHIFT).to_bits() as u32
}

#[cfg(test)]
#[path = "fixed_tests.rs"]
mod tests;

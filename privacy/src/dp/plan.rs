//! From what is wanted (ε, δ, rounds) and what is there (cohort, dropout, corruption, dimension) to the parameters of a run, or to a
//! refusal that says what would do.
//!
//! 1. ρ of the run from (ε, δ) ([`zcdp::rho`]), shared equally by its rounds: ρ_r.
//! 2. Noise that counts: n_min = ⌈(1 - dropout)·n⌉ survivors at worst, of whom max(1, ⌊corruption·n⌋) tell their noise:
//!    n_eff = n_min - max(1, ⌊corruption·n⌋).
//! 3. σ(γ) = Δ₂(γ)/√(2·ρ_r·n_eff) on a grid γ; Δ₂ grows with γ because rounding does.
//! 4. The smallest γ for which the sum fits: 2^(b-1)·γ ≥ K·√(S²/D + n·(γ²/4 + σ²)), S the largest norm of the sum; K = [`ROOM`]
//!    deviations, and a rotated sum is sub-Gaussian. σ/γ is rounded up to a whole number, at least 4.
//! 5. Refused if that σ is more than twice what noise without a grid would be. Without chosen bits: the fewest for which it is within
//!    one percent.

use super::{
    Coordinate, Fault, Mechanism, Parameters, Statistic, Trust, Unit, conditional_sensitivity_squared, dither_sensitivity_squared,
    parameters,
};
use crate::{
    Bits, Weighting,
    accountant::{Observer, discrete::LEAST_SIGMA, zcdp},
};

/// Standard deviations of the noised sum that fit the ring: a coordinate wraps with probability at most 2·e^(-49/2) = 5e-11.
pub const ROOM: f64 = 7.0;
/// How much the grid may add to the noise.
const MOST_OVERHEAD: f64 = 2.0;
/// How much it may add where the bits are not given.
const FINE_OVERHEAD: f64 = 1.01;

/// What is wanted and what is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Whom to protect.
    pub unit: Unit,
    /// Who adds the noise.
    pub trust: Trust,
    /// ε of the whole run against the coordinator.
    pub epsilon: f64,
    /// δ of the whole run.
    pub delta: f64,
    /// Releases.
    pub rounds: u32,
    /// n: nodes asked in a round.
    pub cohort: u32,
    /// Share of the cohort that may drop out.
    pub dropout: f64,
    /// Share of the cohort that may collude with the coordinator; at least one node is assumed to.
    pub corruption: f64,
    /// Floats of an update.
    pub dimension: usize,
    /// c, the L2 norm that one unit is clipped to.
    pub clip: f64,
    /// Width of the ring; the fewest that do if none.
    pub bits: Option<Bits>,
    /// What travels behind the update.
    pub coordinates: Vec<Coordinate>,
    /// How much a node counts.
    pub weighting: Weighting,
    /// Most units of one node in a round; 1 for the unit `node`.
    pub units_per_node: u32,
    /// Units that a sum is divided by; for the unit `node` the survivors take its place.
    pub divisor: f64,
}

/// Parameters that keep a promise, and what they cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What both ends use.
    pub parameters: Parameters,
    /// c.
    pub clip: f64,
    /// Releases.
    pub rounds: u32,
    /// δ.
    pub delta: f64,
    /// ε of the run against a coordinator that colludes as planned, with as few survivors as planned in every round. Under central DP:
    /// against those who see the releases.
    pub epsilon_coordinator: f64,
    /// ε of the run against someone who sees only what is released. No sampling is credited.
    pub epsilon_outsider: f64,
    /// ρ of a round at worst.
    pub rho_round: f64,
    /// ρ of the run at worst: what is reserved, for one attempt a round.
    pub rho_run: f64,
    /// Standard deviation of the honest noise in the sum over its L2 sensitivity, at worst.
    pub noise_multiplier: f64,
    /// What the noise does to learning.
    pub forecast: Forecast,
}

/// What the noise does to learning, with as few survivors as planned.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// Standard deviation of the noise on one float of the mean update, in the unit of the update.
    pub noise_per_coordinate: f64,
    /// Expected L2 norm of the noise on the mean update.
    pub noise_norm: f64,
    /// That over the clip norm, which the norm of the mean update cannot exceed. Above 1 a round's update is mostly noise.
    pub noise_to_clip: f64,
    /// Clip norm over noise norm, for one round: the most that can be hoped for.
    pub signal_to_noise_round: f64,
    /// The same for the whole run, if all rounds pull the same way: √rounds times as much.
    pub signal_to_noise_run: f64,
    /// Standard deviation of the noise on each statistic's mean, in its own unit; on the sum of the weights for that one.
    pub noise_per_statistic: Vec<f64>,
    /// Coordinates that are expected to wrap around in a round, at most.
    pub wraps_per_round: f64,
    /// Noise over what it would be without a grid: 1.01 is one percent more.
    pub grid_overhead: f64,
}

impl Plan {
    /// Solves for γ, b and σ.
    ///
    /// # Errors
    /// [`Fault::TooFewHonest`], [`Fault::TooFewBits`], each with what would do; [`Fault::Range`], [`Fault::Conflict`],
    /// [`Fault::Account`] for settings that cannot be.
    pub fn solve(request: &Request) -> Result<Self, Fault> {
        let (minimum, colluders) = survivors(request)?;
        if request.rounds == 0 {
            return Err(Fault::Range { what: "a number of rounds", value: 0.0, range: "at least 1" });
        }
        let rho_run = zcdp::rho(request.epsilon, request.delta)?;
        let mut parameters = Parameters {
            unit: request.unit,
            trust: request.trust,
            dimension: request.dimension,
            coordinates: request.coordinates.clone(),
            weighting: request.weighting,
            bits: request.bits.unwrap_or(Bits::FULL),
            nodes: request.cohort,
            minimum,
            colluders,
            units_per_node: request.units_per_node,
            divisor: request.divisor,
            step: 1,
            sigma: LEAST_SIGMA,
        };
        // Everything but the grid, which is about to be found.
        parameters.check()?;
        let goal = Goal::new(&parameters, rho_run / f64::from(request.rounds));
        let (bits, grid) = goal.choose(request.bits)?;
        parameters.bits = bits;
        (parameters.step, parameters.sigma) = (grid.step, grid.sigma);
        // Whole numbers on the way may have cost a last digit.
        while parameters.worst_case_rho(Observer::Coordinator) > goal.rho {
            parameters.sigma += 1;
        }
        // Both ends parse the same parameters; the clip norm is checked here, too.
        Self::of(&Mechanism::new(parameters, request.clip)?, request.rounds, request.delta)
    }

    /// What given parameters cost and do: for a node that was handed them.
    ///
    /// # Errors
    /// [`Fault::Account`] for a δ that is none.
    pub fn of(mechanism: &Mechanism, rounds: u32, delta: f64) -> Result<Self, Fault> {
        let (parameters, clip) = (mechanism.parameters().clone(), mechanism.clip());
        let rho_round = parameters.worst_case_rho(Observer::Coordinator);
        let rho_run = rho_round * f64::from(rounds);
        let honest = f64::from(parameters.honest(Observer::Coordinator, parameters.minimum));
        let noise_multiplier = f64::from(parameters.sigma) * honest.sqrt() / (parameters.sensitivity_squared() as f64).sqrt();
        Ok(Self {
            epsilon_coordinator: zcdp::epsilon(rho_run, delta)?,
            epsilon_outsider: zcdp::epsilon(parameters.worst_case_rho(Observer::Outsider) * f64::from(rounds), delta)?,
            forecast: Forecast::of(&parameters, clip, rounds),
            parameters,
            clip,
            rounds,
            delta,
            rho_round,
            rho_run,
            noise_multiplier,
        })
    }

    /// The mechanism of a round with the planned clip norm.
    ///
    /// # Errors
    /// Those of [`Mechanism::new`].
    pub fn mechanism(&self) -> Result<Mechanism, Fault> {
        Mechanism::new(self.parameters.clone(), self.clip)
    }
}

impl Forecast {
    fn of(p: &Parameters, clip: f64, rounds: u32) -> Self {
        let shares = if p.trust == Trust::Distributed { f64::from(p.minimum) } else { 1.0 };
        let divisor = if p.unit == Unit::Node { f64::from(p.minimum) } else { p.divisor };
        let sigma = f64::from(p.sigma) * p.grid();
        let noise_per_coordinate = sigma * shares.sqrt() / divisor * clip;
        let noise_norm = noise_per_coordinate * (p.dimension as f64).sqrt();
        let signal_to_noise_round = clip / noise_norm;
        let goal = Goal::new(p, p.worst_case_rho(Observer::Coordinator));
        let deviations = goal.deviations(p.bits, p.grid(), sigma);
        let relative = sigma * shares.sqrt();
        let noise_per_statistic = p.coordinates.iter().map(|c| {
            let scale = c.statistic.bound() / c.share;
            relative * scale / if c.statistic == Statistic::Weight { 1.0 } else { divisor }
        });
        Self {
            noise_per_statistic: noise_per_statistic.collect(),
            noise_per_coordinate,
            noise_norm,
            noise_to_clip: noise_norm / clip,
            signal_to_noise_round,
            signal_to_noise_run: signal_to_noise_round * f64::from(rounds).sqrt(),
            wraps_per_round: (p.padded() as f64 * 2.0 * (-deviations * deviations / 2.0).exp()).min(p.padded() as f64),
            grid_overhead: sigma / goal.without_grid(),
        }
    }
}

/// n_min and colluders.
fn survivors(request: &Request) -> Result<(u32, u32), Fault> {
    for (what, value) in [("a dropout", request.dropout), ("a corruption", request.corruption)] {
        if !(0.0..1.0).contains(&value) {
            return Err(Fault::Range { what, value, range: "from 0 to below 1" });
        }
    }
    if request.cohort == 0 || request.cohort > 1_000_000 {
        return Err(Fault::Range { what: "a cohort", value: request.cohort.into(), range: "from 1 to 1,000,000 nodes" });
    }
    // The last digits of 0.7·10 must not decide.
    let of = |cohort: u32| {
        let n = f64::from(cohort);
        let minimum = ((1.0 - request.dropout) * n - 1e-6).ceil().max(1.0) as u32;
        (minimum, ((request.corruption * n + 1e-6).floor() as u32).max(1))
    };
    let (minimum, colluders) = of(request.cohort);
    if request.trust == Trust::Distributed && colluders >= minimum {
        let needed = (request.cohort + 1..=1_000_000).find(|cohort| {
            let (minimum, colluders) = of(*cohort);
            minimum > colluders
        });
        return Err(Fault::TooFewHonest { cohort: request.cohort, minimum, colluders, needed });
    }
    Ok((minimum, colluders))
}

/// What the grid must achieve. Lengths are in clip norms.
struct Goal {
    unit: Unit,
    /// ρ of one round.
    rho: f64,
    honest: f64,
    /// Shares of noise in a sum, at most; and vectors that were rounded.
    shares: f64,
    nodes: f64,
    padded: usize,
    fraction: u32,
    /// C: largest norm of a unit; S: of the sum.
    norm: f64,
    sum_norm: f64,
    cohort: u32,
}

/// A grid that achieves it.
#[derive(Clone, Copy)]
struct Grid {
    step: u64,
    sigma: u32,
    overhead: f64,
}

impl Goal {
    fn new(p: &Parameters, rho: f64) -> Self {
        let update = if p.dimension > 0 { 1.0 } else { 0.0 };
        let norm = (p.coordinates.iter().map(|c| c.share * c.share).sum::<f64>() + update).sqrt();
        let nodes = f64::from(p.nodes);
        let padded = p.padded();
        Self {
            unit: p.unit,
            rho,
            honest: f64::from(p.honest(Observer::Coordinator, p.minimum)),
            shares: if p.trust == Trust::Distributed { nodes } else { 1.0 },
            nodes,
            padded,
            fraction: parameters::fraction(padded, p.units_per_node),
            norm,
            sum_norm: nodes * f64::from(p.units_per_node) * norm,
            cohort: p.nodes,
        }
    }

    fn choose(&self, bits: Option<Bits>) -> Result<(Bits, Grid), Fault> {
        let from = |least: u8, overhead: f64| {
            (least..=32)
                .filter_map(|b| Bits::new(b).ok())
                .find_map(|bits| self.grid(bits).filter(|grid| grid.overhead <= overhead).map(|grid| (bits, grid)))
        };
        match bits {
            Some(bits) => match self.grid(bits).filter(|grid| grid.overhead <= MOST_OVERHEAD) {
                Some(grid) => Ok((bits, grid)),
                None => Err(Fault::TooFewBits {
                    bits: bits.get(),
                    cohort: self.cohort,
                    needed: from(bits.get(), MOST_OVERHEAD).map(|(bits, _)| bits.get()),
                }),
            },
            None => from(8, FINE_OVERHEAD).or_else(|| from(8, MOST_OVERHEAD)).ok_or(Fault::TooFewBits {
                bits: 32,
                cohort: self.cohort,
                needed: None,
            }),
        }
    }

    /// σ of a share without a grid.
    fn without_grid(&self) -> f64 {
        self.norm / (2.0 * self.rho * self.honest).sqrt()
    }

    /// σ of a share on the grid γ.
    fn sigma(&self, gamma: f64) -> f64 {
        let norm = self.norm / gamma;
        let squared = if self.unit == Unit::Node {
            conditional_sensitivity_squared(norm, self.padded)
        } else {
            dither_sensitivity_squared(norm, self.padded)
        };
        gamma * (squared / (2.0 * self.rho * self.honest)).sqrt().max(LEAST_SIGMA.into())
    }

    /// Half the ring, in standard deviations of a coordinate of the sum.
    fn deviations(&self, bits: Bits, gamma: f64, sigma: f64) -> f64 {
        let variance = self.sum_norm * self.sum_norm / self.padded as f64 + self.nodes * gamma * gamma / 4.0 + self.shares * sigma * sigma;
        f64::from(bits.get() - 1).exp2() * gamma / variance.sqrt()
    }

    fn grid(&self, bits: Bits) -> Option<Grid> {
        self.grid_with(bits, ROOM)
    }

    /// The smallest step for which `room` deviations fit; none if no step does. The steps that do are an interval, because the room grows
    /// linearly and what it must hold is convex.
    fn grid_with(&self, bits: Bits, room: f64) -> Option<Grid> {
        let fine = 1.0 / (1u64 << self.fraction) as f64 / (self.padded as f64).sqrt();
        let fits = |step: u64| {
            let gamma = step as f64 * fine;
            self.deviations(bits, gamma, self.sigma(gamma)) >= room
        };
        // By eighths of a power of two: an interval of useful steps is wider than that.
        let mut high = (0..=61 * 8).map(|e| (f64::from(e) / 8.0).exp2() as u64).find(|step| fits(*step))?;
        // The step before it, or a smaller one.
        let mut low = (high as f64 / 1.1) as u64;
        while high - low > 1 {
            let middle = low.midpoint(high);
            if fits(middle) { high = middle } else { low = middle }
        }
        let gamma = high as f64 * fine;
        let sigma = (self.sigma(gamma) / gamma).ceil();
        let sigma = (sigma <= f64::from(super::DiscreteGaussian::MOST)).then_some(sigma as u32)?;
        Some(Grid { step: high, sigma, overhead: f64::from(sigma) * gamma / self.without_grid() })
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

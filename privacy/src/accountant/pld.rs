//! Privacy loss distributions of the Poisson-sampled Gaussian: the tightest of the accountants.
//!
//! For neighbours that give outputs P and Q, the loss is L = ln(P(x)/Q(x)) with x ~ P, and δ(ε) = E\[max(0, 1 - e^(ε-L))\]. Losses of
//! independent releases add up, so their distributions convolve (Sommer, Meiser, Mohammadi 2019; Koskela, Jälkö, Honkela 2020).
//!
//! - **Discretization**: connect the dots (Doroshenko, Ghazi, Kamath, Kumar, Manurangsi 2022). The mass of a grid interval goes to its two
//!   ends so that the masses under both P and Q stay what they are. Then δ is exact at grid points and, between them, on the chord
//!   above the true convex curve in e^ε: **never too small**.
//! - **Composition**: one FFT, a power, one FFT back. The window comes from Chernoff bounds; the mass that may lie above it, and
//!   whatever negative mass rounding errors leave, is added to the infinite loss.
//! - Both directions (a unit removed, a unit added) are kept, and the worse one answers.

use realfft::RealFftPlanner;

use super::{
    Fault, Gaussian, check_delta,
    special::{log_add, normal_between},
};

/// Finest grid of losses.
pub const INTERVAL: f64 = 1e-4;
/// Elements of a window, at most: about 50 MB.
const MOST: usize = 1 << 21;
/// Standard deviations of the noise within which outputs are looked at; beyond lies 8e-24.
const TAIL: f64 = 10.0;
/// Mass that a composition may leave above its window.
const LEFT_OUT: f64 = 1e-15;

/// ε of `gaussian` at `delta`.
///
/// # Errors
/// [`Fault::Delta`], [`Fault::DeltaTooSmall`].
pub fn epsilon(gaussian: &Gaussian, delta: f64) -> Result<f64, Fault> {
    check_delta(delta)?;
    Pld::of(gaussian).epsilon(delta)
}

/// The privacy loss distribution of one or more releases, in both directions.
#[derive(Clone, Debug, PartialEq)]
pub struct Pld {
    remove: Losses,
    /// None if it is the same.
    add: Option<Losses>,
}

impl Pld {
    /// All rounds of `gaussian`, on the finest grid that fits.
    pub fn of(gaussian: &Gaussian) -> Self {
        let mut interval = INTERVAL;
        loop {
            match Self::on_grid(gaussian, interval) {
                Ok(pld) => return pld,
                Err(TooFine { by }) => interval *= by,
            }
        }
    }

    /// As [`Pld::of`], on a given grid; none if the window would be too large. Only equal grids compose.
    pub fn with_interval(gaussian: &Gaussian, interval: f64) -> Option<Self> {
        Self::on_grid(gaussian, interval).ok()
    }

    fn on_grid(gaussian: &Gaussian, interval: f64) -> Result<Self, TooFine> {
        let rounds = gaussian.rounds() as u32; // at most 1e8
        let composed = |direction| Losses::sampled_gaussian(gaussian, direction, interval)?.repeat(rounds);
        let add = if gaussian.sampling_rate() < 1.0 { Some(composed(Direction::Add)?) } else { None };
        Ok(Self { remove: composed(Direction::Remove)?, add })
    }

    /// This, and then `other`.
    ///
    /// # Errors
    /// [`Fault::Grids`].
    pub fn compose(&self, other: &Self) -> Result<Self, Fault> {
        let add = match (&self.add, &other.add) {
            (None, None) => None,
            (mine, theirs) => Some(mine.as_ref().unwrap_or(&self.remove).convolve(theirs.as_ref().unwrap_or(&other.remove))?),
        };
        Ok(Self { remove: self.remove.convolve(&other.remove)?, add })
    }

    /// δ at `epsilon` ≥ 0.
    pub fn delta(&self, epsilon: f64) -> f64 {
        self.directions().map(|losses| losses.delta(epsilon)).fold(0.0, f64::max)
    }

    /// ε at `delta`.
    ///
    /// # Errors
    /// [`Fault::Delta`]; [`Fault::DeltaTooSmall`] below the mass that is accounted as lost.
    pub fn epsilon(&self, delta: f64) -> Result<f64, Fault> {
        check_delta(delta)?;
        self.directions().map(|losses| losses.epsilon(delta)).try_fold(0.0, |worst: f64, epsilon| Ok(worst.max(epsilon?)))
    }

    fn directions(&self) -> impl Iterator<Item = &Losses> {
        std::iter::once(&self.remove).chain(&self.add)
    }
}

/// A window of more than [`MOST`] elements.
struct TooFine {
    /// A power of two, at least 2.
    by: f64,
}

/// `elements` from 0 on as a length, if they fit.
fn window(elements: f64) -> Result<usize, TooFine> {
    let len = elements.max(0.0) + 1.0;
    if len <= MOST as f64 { Ok(len as usize) } else { Err(TooFine { by: (len / MOST as f64).log2().ceil().max(1.0).exp2() }) }
}

/// Which neighbour is P.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// P = (1-q)·N(0, z²) + q·N(1, z²), Q = N(0, z²).
    Remove,
    /// The other way round.
    Add,
}

/// Masses under P at losses (first + i)·interval, and at infinity.
#[derive(Clone, Debug, PartialEq)]
struct Losses {
    interval: f64,
    first: i64,
    mass: Vec<f64>,
    infinite: f64,
}

impl Losses {
    fn sampled_gaussian(gaussian: &Gaussian, direction: Direction, interval: f64) -> Result<Self, TooFine> {
        let (z, q) = (gaussian.noise_multiplier(), gaussian.sampling_rate());
        // L of Remove at output x, and its inverse; L of Add is its negative.
        let loss = |x: f64| log_add((-q).ln_1p(), q.ln() + (2.0 * x - 1.0) / (2.0 * z * z));
        let output = |loss: f64| {
            let grown = loss.exp_m1() / q;
            if grown <= -1.0 { f64::NEG_INFINITY } else { z * z * grown.ln_1p() + 0.5 }
        };
        let (least, most) = (loss(-TAIL * z), loss(1.0 + TAIL * z));
        let (least, most) = if direction == Direction::Add { (-most, -least) } else { (least, most) };
        let (first, last) = ((least / interval).floor() as i64, (most / interval).ceil() as i64);
        let len = window((last - first) as f64)?;

        // P and Q of the outputs between a and b.
        let masses = |a: f64, b: f64| {
            let noise = normal_between(a / z, b / z);
            let mixed = (1.0 - q) * noise + q * normal_between((a - 1.0) / z, (b - 1.0) / z);
            if direction == Direction::Remove { (mixed, noise) } else { (noise, mixed) }
        };
        // The output where the loss is grid point i; outputs rise with the loss of Remove and fall with that of Add.
        let edge = |i: i64| output(if direction == Direction::Remove { 1.0 } else { -1.0 } * i as f64 * interval);
        let (below, above) = (edge(first), edge(last));
        let (low_tail, infinite) = match direction {
            Direction::Remove => (masses(f64::NEG_INFINITY, below).0, masses(above, f64::INFINITY).0),
            Direction::Add => (masses(below, f64::INFINITY).0, masses(f64::NEG_INFINITY, above).0),
        };
        let mut mass = vec![0.0; len];
        // Losses below the grid count as its first point.
        mass[0] = low_tail;
        let mut left = below;
        for i in 0..len - 1 {
            let right = edge(first + i as i64 + 1);
            let (p, q) = if left <= right { masses(left, right) } else { masses(right, left) };
            left = right;
            // a + b = p and a·e^-ε(i) + b·e^-ε(i+1) = q.
            let next = (first + i as i64 + 1) as f64 * interval;
            let a = ((q * next.exp() - p) / interval.exp_m1()).clamp(0.0, p);
            mass[i] += a;
            mass[i + 1] += p - a;
        }
        Ok(Self { interval, first, mass, infinite })
    }

    /// The sum of `times` independent losses.
    fn repeat(self, times: u32) -> Result<Self, TooFine> {
        if times == 1 {
            return Ok(self);
        }
        let (low, high) = (-self.bound(times, -1.0), self.bound(times, 1.0));
        let first = (low / self.interval).floor().max(self.first as f64 * f64::from(times)) as i64;
        let last = (high / self.interval).ceil() as i64;
        // At most MOST again: that is a power of two.
        let size = window((last - first) as f64)?.next_power_of_two();
        let powered = self.spectrum(size).into_iter().map(|c| c.powu(times)).collect();
        let infinite = -(f64::from(times) * (-self.infinite).ln_1p()).exp_m1();
        // The spectrum knows positions modulo the size; the sums start at `times` first positions.
        Ok(Self::from_spectrum(powered, size, self.first * i64::from(times), first, infinite, self.interval))
    }

    fn convolve(&self, other: &Self) -> Result<Self, Fault> {
        if self.interval != other.interval {
            return Err(Fault::Grids { left: self.interval, right: other.interval });
        }
        // Nothing is cut: the window holds every sum.
        let size = (self.mass.len() + other.mass.len()).next_power_of_two();
        let product = self.spectrum(size).into_iter().zip(other.spectrum(size)).map(|(a, b)| a * b).collect();
        let first = self.first + other.first;
        let infinite = self.infinite + other.infinite - self.infinite * other.infinite;
        let mut sum = Self::from_spectrum(product, size, first, first, infinite, self.interval);
        sum.mass.truncate(self.mass.len() + other.mass.len() - 1);
        Ok(sum)
    }

    fn spectrum(&self, size: usize) -> Vec<realfft::num_complex::Complex<f64>> {
        let transform = RealFftPlanner::new().plan_fft_forward(size);
        let mut folded = transform.make_input_vec();
        for (i, mass) in self.mass.iter().enumerate() {
            folded[i % size] += mass;
        }
        let mut spectrum = transform.make_output_vec();
        transform.process(&mut folded, &mut spectrum).expect("the planner made both buffers");
        spectrum
    }

    /// `origin` is the position of element 0; the window starts at `first`.
    fn from_spectrum(
        mut spectrum: Vec<realfft::num_complex::Complex<f64>>,
        size: usize,
        origin: i64,
        first: i64,
        infinite: f64,
        interval: f64,
    ) -> Self {
        let transform = RealFftPlanner::new().plan_fft_inverse(size);
        let mut folded = transform.make_output_vec();
        // Real at both ends, up to rounding, which the transform insists on.
        spectrum[0].im = 0.0;
        if let Some(last) = spectrum.last_mut() {
            last.im = 0.0;
        }
        transform.process(&mut spectrum, &mut folded).expect("the planner made both buffers");
        folded.rotate_left((first - origin).rem_euclid(size as i64) as usize);
        let mut lost = 0.0;
        for mass in &mut folded {
            *mass /= size as f64;
            if *mass < 0.0 {
                lost -= *mass;
                *mass = 0.0;
            }
        }
        Self { interval, first, mass: folded, infinite: (infinite + LEFT_OUT + lost).min(1.0) }
    }

    /// What `sign` times the sum of `times` losses exceeds with probability at most [`LEFT_OUT`]: Chernoff's bound, minimized over its
    /// parameter.
    fn bound(&self, times: u32, sign: f64) -> f64 {
        let at = |log_lambda: f64| {
            let lambda = log_lambda.exp();
            // ln E[e^(λ·sign·loss)] by Horner's rule, toward the end where the exponent is largest; that end is taken out as a factor.
            let decay = (-lambda * self.interval).exp();
            let horner = |sum: f64, mass: &f64| sum * decay + mass;
            let (sum, largest) = if sign > 0.0 {
                (self.mass.iter().fold(0.0, horner), self.at(self.mass.len() - 1))
            } else {
                (self.mass.iter().rev().fold(0.0, horner), -self.at(0))
            };
            let log_moment = sum.ln() + lambda * largest;
            (f64::from(times) * log_moment - LEFT_OUT.ln()) / lambda
        };
        let (mut low, mut high) = ((1e-6f64).ln(), (1e4f64).ln());
        for _ in 0..20 {
            let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
            if at(a) <= at(b) {
                high = b;
            } else {
                low = a;
            }
        }
        at(f64::midpoint(low, high))
    }

    fn delta(&self, epsilon: f64) -> f64 {
        let above = self.mass.iter().enumerate().rev().map(|(i, mass)| (self.at(i), mass)).take_while(|(loss, _)| *loss > epsilon);
        self.infinite + above.map(|(loss, mass)| -mass * (epsilon - loss).exp_m1()).sum::<f64>()
    }

    fn epsilon(&self, delta: f64) -> Result<f64, Fault> {
        if delta <= self.infinite {
            return Err(Fault::DeltaTooSmall { delta, floor: self.infinite });
        }
        // With S the mass from point i on and R the sum of mass·e^(loss(i) - loss), δ(ε) = infinite + S - e^(ε - loss(i))·R between
        // points i - 1 and i.
        let (mut mass, mut weighed) = (self.infinite, 0.0);
        let decay = (-self.interval).exp();
        for (i, more) in self.mass.iter().enumerate().rev() {
            if self.at(i) <= 0.0 {
                break;
            }
            mass += more;
            weighed = weighed * decay + more;
            if mass > delta {
                let epsilon = self.at(i) + ((mass - delta) / weighed).ln();
                if epsilon >= self.at(i) - self.interval {
                    return Ok(epsilon.max(0.0));
                }
            }
        }
        Ok(0.0)
    }

    fn at(&self, i: usize) -> f64 {
        (self.first + i as i64) as f64 * self.interval
    }
}

#[cfg(test)]
#[path = "pld_tests.rs"]
mod tests;

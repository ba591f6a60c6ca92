//! How many neighbours, and how many of their shares open a secret: (k, t) from (n, δ, γ).
//!
//! Bell et al. 2020 (ePrint 2020/704, §3.3 and lemmas 3.7 to 3.9) with the constants of the graph finder in Google's Federated
//! Compute: the probability that any honest input is exposed is at most 2^-σ, that a round with the planned dropouts
//! cannot be opened at most 2^-η. With A colluders, S = ⌈(1-δ)n⌉ survivors and B = A + ⌊δn⌋, the smallest even k so that
//!
//! 1. *connected*: honest survivors form one connected graph, so that only their common sum can be told;
//! 2. *secret*: nobody has more than t - 1 colluding neighbours (under [`Profile::SemiMalicious`]: 2t > k + those, so that a
//!    server that tells two stories cannot collect t shares of both secrets of one node);
//! 3. *recoverable*: everybody has at least t surviving neighbours.
//!
//! Two things are stricter than the formulas: one colluder is always assumed, even where ⌊γn⌋ = 0, and t is raised to
//! ⌈k/2⌉ + 1, at least 3, where the third condition allows it. Below [`SMALL`] participants, or where no sparse graph will do,
//! everybody is everybody's neighbour, and the three conditions are exact instead of probable.
//!
//! Both ends compute the plan for themselves: the server cannot lower it.

use thiserror::Error;

/// Most participants of a session. Beyond it sums are taken in shards.
pub const MAX_PARTICIPANTS: u32 = 1 << 14;
/// Below this the graph is complete: a sparse one would save nothing.
pub const SMALL: u32 = 30;
/// Statistical security, in bits.
const SIGMA: i32 = 40;
/// A round with the planned dropouts fails with probability 2^-η at most.
const ETA: i32 = 20;

/// What the server may do beside looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// It follows the protocol and looks at all it gets.
    Curious,
    /// It may say anything once the keys are fixed.
    SemiMalicious,
}

impl Profile {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Curious => 1,
            Self::SemiMalicious => 2,
        }
    }
    pub(super) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Curious),
            2 => Some(Self::SemiMalicious),
            _ => None,
        }
    }
}

/// A share of the participants, in millionths: both ends must get the same whole numbers from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u32);

impl Rate {
    /// Nobody.
    pub const ZERO: Self = Self(0);

    /// Below one million, or nothing.
    pub const fn from_ppm(ppm: u32) -> Option<Self> {
        if ppm < 1_000_000 { Some(Self(ppm)) } else { None }
    }
    /// The nearest millionth to a share in [0, 1), or nothing.
    pub fn from_share(share: f64) -> Option<Self> {
        if !(0.0..1.0).contains(&share) {
            return None;
        }
        Self::from_ppm((share * 1e6).round() as u32)
    }
    /// In millionths.
    pub const fn ppm(self) -> u32 {
        self.0
    }
    /// ⌊rate·n⌋.
    pub const fn floor_of(self, n: u32) -> u32 {
        (self.0 as u64 * n as u64 / 1_000_000) as u32
    }
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Infeasible {
    /// More than a session holds.
    #[error("{n} participants; a session holds at most {most}: sum in shards")]
    TooMany {
        /// As given.
        n: u32,
        /// [`MAX_PARTICIPANTS`].
        most: u32,
    },
    /// A sum of this few would tell an honest input to the colluders.
    #[error(
        "a sum may have as few as {survivors} vectors and {colluders} of {n} participants are assumed to collude: two honest vectors at least must hide each other; enlarge the cohort or its minimum"
    )]
    TooFew {
        /// As given.
        n: u32,
        /// Fewest vectors in the sum.
        survivors: u32,
        /// A.
        colluders: u32,
    },
    /// The minimum is more than there are.
    #[error("{n} participants are fewer than the minimum of {minimum}")]
    BelowMinimum {
        /// As given.
        n: u32,
        /// As given.
        minimum: u32,
    },
    /// γ + δ (curious) or γ + 2δ (semi-malicious) is beyond what any graph can bear.
    #[error(
        "no threshold is both private and reliable with {n} participants, {dropped} of them leaving and {colluders} colluding; lower the dropout or the corruption rate, or enlarge the cohort"
    )]
    NoThreshold {
        /// As given.
        n: u32,
        /// ⌊δn⌋.
        dropped: u32,
        /// A.
        colluders: u32,
    },
}

/// The numbers that a session runs by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    n: u32,
    degree: u32,
    threshold: u32,
    survivors: u32,
    colluders: u32,
    clustered: u32,
}

impl Plan {
    /// For `n` participants of whom a share `dropout` may leave and a share `corruption` may collude with the server, and
    /// never fewer than `minimum` vectors in the sum.
    ///
    /// # Errors
    /// [`Infeasible`], by name.
    pub fn new(n: u32, dropout: Rate, corruption: Rate, profile: Profile, minimum: u32) -> Result<Self, Infeasible> {
        if n > MAX_PARTICIPANTS {
            return Err(Infeasible::TooMany { n, most: MAX_PARTICIPANTS });
        }
        if n < minimum {
            return Err(Infeasible::BelowMinimum { n, minimum });
        }
        let colluders = corruption.floor_of(n).max(1);
        let dropped = dropout.floor_of(n);
        let survivors = (n - dropped).max(minimum);
        if survivors < colluders + 2 {
            return Err(Infeasible::TooFew { n, survivors, colluders });
        }
        let graph = if n < SMALL {
            complete(n, colluders, dropped, profile)
        } else {
            sparse(n, colluders, dropped, profile).or_else(|| complete(n, colluders, dropped, profile))
        };
        let Some(Degrees { degree, least, most, clustered }) = graph else {
            return Err(Infeasible::NoThreshold { n, dropped, colluders });
        };
        let floor = (degree.div_ceil(2) + 1).max(3);
        Ok(Self { n, degree, threshold: least.max(floor.min(most)), survivors, colluders, clustered })
    }
    /// n, participants with keys.
    pub const fn participants(&self) -> u32 {
        self.n
    }
    /// k, neighbours of each.
    pub const fn degree(&self) -> u32 {
        self.degree
    }
    /// t, shares that open a secret.
    pub const fn threshold(&self) -> u32 {
        self.threshold
    }
    /// Fewest vectors in the sum.
    pub const fn survivors(&self) -> u32 {
        self.survivors
    }
    /// A, participants assumed to tell the server all they know; at least 1.
    pub const fn colluders(&self) -> u32 {
        self.colluders
    }
    /// Most colluders that stand within k/2 places of the ring, except with probability 2^-σ: a server that chooses who leaves
    /// can cut the ring there if nobody else is left. 0 under [`Profile::Curious`], where nobody chooses.
    pub const fn clustered(&self) -> u32 {
        self.clustered
    }
    /// Whether everybody is everybody's neighbour.
    pub const fn is_complete(&self) -> bool {
        self.degree + 1 == self.n
    }
}

/// A degree, with the range of thresholds that serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Degrees {
    pub(super) degree: u32,
    /// Fewer would expose somebody.
    pub(super) least: u32,
    /// More could fail to open.
    pub(super) most: u32,
    /// [`Plan::clustered`].
    pub(super) clustered: u32,
}

/// Everybody holds a share of everybody else's secrets. Exact: colluders are A of the others, a survivor has S - 1 surviving
/// neighbours.
fn complete(n: u32, colluders: u32, dropped: u32, profile: Profile) -> Option<Degrees> {
    let degree = n - 1;
    let least = match profile {
        Profile::Curious => colluders + 1,
        Profile::SemiMalicious => (degree + colluders) / 2 + 1,
    };
    // One share is the secret itself.
    let least = least.max(2);
    let most = (n - dropped).saturating_sub(1);
    (least <= most).then_some(Degrees { degree, least, most, clustered: 0 })
}

/// The smallest even degree below n - 1 of a ring graph (see [`super::graph`]) that meets the three conditions.
pub(super) fn sparse(n: u32, colluders: u32, dropped: u32, profile: Profile) -> Option<Degrees> {
    let load = match profile {
        Profile::Curious => colluders + dropped,
        Profile::SemiMalicious => colluders + 2 * dropped,
    };
    if u64::from(load) * 10 > u64::from(n) * 9 {
        return None;
    }
    let odds = Odds::new(n);
    let survivors = n - dropped;
    (2..n).step_by(2).find_map(|degree| {
        if !odds.connected(degree, colluders + dropped) {
            return None;
        }
        let exposed = odds.most_colluders(degree, colluders);
        let (exposed, clustered) = match profile {
            Profile::Curious => (exposed, 0),
            Profile::SemiMalicious => ((exposed + degree) / 2, odds.most_colluders(degree / 2, colluders)),
        };
        let most = odds.least_survivors(degree, survivors);
        (exposed < most).then(|| Degrees { degree, least: (exposed + 1).max(2), most, clustered })
    })
}

/// Probabilities among n participants in a random order.
struct Odds {
    n: u32,
    /// ln 0! to ln n!.
    ln_factorial: Vec<f64>,
}

impl Odds {
    fn new(n: u32) -> Self {
        let mut ln_factorial = vec![0.0; n as usize + 1];
        for i in 1..=n as usize {
            ln_factorial[i] = ln_factorial[i - 1] + (i as f64).ln();
        }
        Self { n, ln_factorial }
    }
    fn ln_fact(&self, i: u32) -> f64 {
        self.ln_factorial[i as usize]
    }
    fn ln_choose(&self, n: u32, k: u32) -> f64 {
        self.ln_fact(n) - self.ln_fact(k) - self.ln_fact(n - k)
    }
    /// P[x of k neighbours are among `marked` participants]: hypergeometric.
    fn neighbours(&self, k: u32, marked: u32, x: u32) -> f64 {
        if x > marked || k - x > self.n - marked {
            return 0.0;
        }
        (self.ln_choose(marked, x) + self.ln_choose(self.n - marked, k - x) - self.ln_choose(self.n, k)).exp()
    }
    /// Two cuts of the ring, each k/2 consecutive bad nodes, with probability below 2^-(σ+1) only.
    fn connected(&self, k: u32, bad: u32) -> bool {
        if k > bad {
            return true;
        }
        let places = f64::from(self.n) * f64::from(self.n - k - 1) / 2.0;
        let all_bad = self.ln_fact(bad) + self.ln_fact(self.n - k) - self.ln_fact(self.n) - self.ln_fact(bad - k);
        places * all_bad.exp() < 2f64.powi(-SIGMA - 1)
    }
    /// The smallest x so that more than x colluding neighbours have probability 2^-(σ+1)/n at most.
    fn most_colluders(&self, k: u32, colluders: u32) -> u32 {
        let bound = 2f64.powi(-SIGMA - 1) / f64::from(self.n);
        let mut tail = 0.0;
        let mut x = k.min(colluders);
        while x > 0 {
            tail += self.neighbours(k, colluders, x);
            if tail > bound {
                break;
            }
            x -= 1;
        }
        x
    }
    /// The smallest x so that x surviving neighbours or fewer have probability 2^-η/n at least.
    fn least_survivors(&self, k: u32, survivors: u32) -> u32 {
        let bound = 2f64.powi(-ETA) / f64::from(self.n);
        let mut below = 0.0;
        (0..k)
            .find(|x| {
                below += self.neighbours(k, survivors, *x);
                below >= bound
            })
            .unwrap_or(k)
    }
}

#[cfg(test)]
#[path = "tests/plan.rs"]
mod tests;

//! The privacy statement that goes with a model: what is promised, to whom, under which assumptions, and what is not.

use std::fmt;

use super::{Fault, Plan, Statistic, Trust, Unit};
use crate::accountant::zcdp;

/// What no budget of this crate covers, for every unit.
const NOT_COVERED: [&str; 4] = [
    "that a node takes part, and when",
    "what a node sends outside the secure sum, and what its operator publishes",
    "side channels of a node's machine, among them how long it takes to draw its noise",
    "nodes that send wrong updates: noise hides them, it does not stop them",
];

/// One promise, in words and numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// Whom it protects.
    pub unit: Unit,
    /// Which data sets are neighbours.
    pub adjacency: &'static str,
    /// Who adds which noise, and what it is accounted with.
    pub mechanism: String,
    /// Against the coordinator, colluding as assumed; none under central DP, where it is trusted.
    pub epsilon_coordinator: Option<f64>,
    /// Against everyone else.
    pub epsilon_outsider: f64,
    /// For both.
    pub delta: f64,
    /// What must hold.
    pub assumptions: String,
    /// What is not promised.
    pub not_covered: Vec<&'static str>,
}

impl Plan {
    /// The statement before a run: its worst case.
    pub fn statement(&self) -> Statement {
        self.state(self.epsilon_coordinator, self.epsilon_outsider, self.rounds)
    }

    /// The statement after a run, or after several under one budget: what they were charged, for so many sums.
    ///
    /// # Errors
    /// [`Fault::Account`] for a ρ that is none.
    pub fn statement_of(&self, rho_coordinator: f64, rho_outsider: f64, sums: u32) -> Result<Statement, Fault> {
        Ok(self.state(zcdp::epsilon(rho_coordinator, self.delta)?, zcdp::epsilon(rho_outsider, self.delta)?, sums))
    }

    fn state(&self, epsilon_coordinator: f64, epsilon_outsider: f64, sums: u32) -> Statement {
        let p = &self.parameters;
        let adapts = p.coordinates.iter().any(|c| matches!(c.statistic, Statistic::WithinClip { .. }));
        let mechanism = format!(
            "{}; discrete Gaussian of standard deviation {} grid units a share, L2 clip norm {}{}, {} sums; accounted as zCDP (Canonne, Kamath, Steinke 2020), no amplification by sampling",
            p.trust.label(),
            p.sigma,
            self.clip,
            if adapts { " at first, then by a private quantile of the norms" } else { "" },
            sums,
        );
        let (epsilon_coordinator, assumptions) = match p.trust {
            Trust::Distributed => (
                Some(epsilon_coordinator),
                format!(
                    "at least {} of {} nodes are in each sum, at most {} of them tell the coordinator their noise, and the secure sum reveals nothing but the sum",
                    p.minimum, p.nodes, p.colluders
                ),
            ),
            Trust::Central => (None, "the coordinator keeps the exact sums to itself and adds the noise".to_owned()),
        };
        let mut not_covered = NOT_COVERED.to_vec();
        match p.unit {
            Unit::Node => {}
            Unit::Entity => not_covered.push("the same key at several nodes: each of them counts"),
            Unit::Example => not_covered.push("a customer with several rows: each of them counts"),
        }
        Statement {
            unit: p.unit,
            adjacency: p.unit.adjacency(),
            mechanism,
            epsilon_coordinator,
            epsilon_outsider,
            delta: self.delta,
            assumptions,
            not_covered,
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.epsilon_coordinator {
            Some(epsilon) => write!(f, "epsilon = {epsilon:.3} against the coordinator, {:.3} against others", self.epsilon_outsider)?,
            None => write!(f, "epsilon = {:.3} against everyone but the coordinator", self.epsilon_outsider)?,
        }
        writeln!(f, ", delta = {:e}, unit = {}", self.delta, self.unit.word())?;
        writeln!(f, "neighbours: {}", self.adjacency)?;
        writeln!(f, "mechanism: {}", self.mechanism)?;
        writeln!(f, "provided that {}", self.assumptions)?;
        write!(f, "not covered: {}", self.not_covered.join("; "))
    }
}

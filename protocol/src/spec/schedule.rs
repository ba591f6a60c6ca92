//! The learning rate of each round: `"constant"`, `"linear"`, `"cosine"`, `"step:EVERY:FACTOR"`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::TrainSpec;

/// How the learning rate falls behind the warmup, from round to round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Schedule {
    /// Not at all.
    #[default]
    Constant,
    /// Along a line that would reach 0 one round after the last.
    Linear,
    /// Along half a cosine (Loshchilov and Hutter 2017, without restarts).
    Cosine,
    /// By a factor each time that so many rounds are over.
    Step {
        /// Rounds, at least 1.
        every: u32,
        /// From above 0 to 1.
        factor: f64,
    },
}

impl TrainSpec {
    /// The learning rate of a round, which counts from 1: what each member of its cohort is told.
    pub fn lr_of(&self, round: u32) -> f64 {
        let (at, warmup) = (round.saturating_sub(1), self.warmup);
        if at < warmup {
            return self.lr * (f64::from(at) + 1.0) / (f64::from(warmup) + 1.0);
        }
        let behind = f64::from(at - warmup);
        let done = (behind / f64::from(self.rounds.saturating_sub(warmup).max(1))).min(1.0);
        self.lr
            * match self.schedule {
                Schedule::Constant => 1.0,
                Schedule::Linear => 1.0 - done,
                Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
                Schedule::Step { every, factor } => factor.powf((behind / f64::from(every.max(1))).floor()),
            }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant => f.write_str("constant"),
            Self::Linear => f.write_str("linear"),
            Self::Cosine => f.write_str("cosine"),
            Self::Step { every, factor } => write!(f, "step:{every}:{factor}"),
        }
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> Self {
        schedule.to_string()
    }
}

impl TryFrom<String> for Schedule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "constant" => return Ok(Self::Constant),
            "linear" => return Ok(Self::Linear),
            "cosine" => return Ok(Self::Cosine),
            _ => {}
        }
        let refuse = || format!("{text:?} is no schedule; use constant, linear, cosine or step:EVERY:FACTOR, such as step:10:0.5");
        let (every, factor) = text.strip_prefix("step:").and_then(|rest| rest.split_once(':')).ok_or_else(refuse)?;
        let every = every.parse::<u32>().ok().filter(|every| *every >= 1);
        let factor = factor.parse::<f64>().ok().filter(|factor| *factor > 0.0 && *factor <= 1.0);
        every
            .zip(factor)
            .map(|(every, factor)| Self::Step { every, factor })
            .ok_or_else(|| format!("{text:?}: a step comes every so many rounds, at least 1, and its factor lies above 0 and is at most 1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: &str, warmup: u32, rounds: u32) -> Vec<f64> {
        let train = TrainSpec { rounds, lr: 2.0, schedule: schedule.parse().unwrap(), warmup, ..TrainSpec::default() };
        (1..=rounds).map(|round| train.lr_of(round)).collect()
    }

    #[test]
    fn rates_by_hand() {
        assert_eq!(rates("constant", 0, 3), [2.0, 2.0, 2.0]);
        assert_eq!(rates("linear", 0, 4), [2.0, 1.5, 1.0, 0.5]);
        assert_eq!(rates("cosine", 0, 2), [2.0, 1.0]);
        assert_eq!(rates("step:2:0.5", 0, 5), [2.0, 2.0, 1.0, 1.0, 0.5]);
        // One round rises, half of the way, and the steps are counted behind it.
        assert_eq!(rates("step:2:0.5", 1, 4), [1.0, 2.0, 2.0, 1.0]);
        assert_eq!(rates("linear", 2, 4), [2.0 / 3.0, 4.0 / 3.0, 2.0, 1.0]);
    }

    #[test]
    fn no_round_has_no_rate_and_none_is_above_the_top() {
        for schedule in ["constant", "linear", "cosine", "step:3:0.5"] {
            for warmup in [0, 1, 7] {
                for rounds in [7, 8, 500] {
                    let all = rates(schedule, warmup, rounds);
                    assert!(all.iter().all(|lr| *lr > 0.0 && *lr <= 2.0), "{schedule} {warmup} {rounds}: {all:?}");
                }
            }
        }
    }

    #[test]
    fn a_schedule_is_read_as_it_is_written() {
        for text in ["constant", "linear", "cosine", "step:10:0.5"] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
        }
        for text in ["", "cosinus", "step", "step:0:0.5", "step:5", "step:5:0", "step:5:1.5", "step:5:nan", "step:-1:0.5", "Linear"] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }
}

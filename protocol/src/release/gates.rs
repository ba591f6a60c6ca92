//! Gates: the numbers that a candidate must reach before it is packed and signed.
//!
//! They fail closed: a gate whose number was not measured fails (R91). The report keeps every number used (R122).

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::time::span;

/// The thresholds, as `[release.gates]` of a run's file writes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gates {
    /// Lowest accuracy of the model that is shipped, on the evaluation data: 0 to 1.
    pub min_accuracy: f64,
    /// Most accuracy that quantization may cost, absolute: 0.02 is two points.
    pub max_int8_drop: f64,
    /// Most bytes of the model file that is shipped.
    pub max_bytes: u64,
    /// Slowest 99th percentile of one inference.
    #[serde(with = "span")]
    pub max_p99: Duration,
    /// Slowest first inference of a fresh session (95th percentile of the trials).
    #[serde(with = "span")]
    pub max_cold_start: Duration,
}

impl Default for Gates {
    /// The article's platform limits (R2, R9) and no claim about quality beyond chance: a run's file says what it needs.
    fn default() -> Self {
        Self { min_accuracy: 0.5, max_int8_drop: 0.02, max_bytes: 256 << 20, max_p99: Duration::from_millis(50), max_cold_start: Duration::from_millis(40) }
    }
}

/// What was measured. `None` is "not measured", never zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Of the float model on the evaluation data.
    pub fp32_accuracy: Option<f64>,
    /// Of the model that is shipped (quantized, or float where INT8 gains nothing), on the same data.
    pub accuracy: Option<f64>,
    /// Of the model file that is shipped.
    pub bytes: Option<u64>,
    /// 99th percentile of one inference, microseconds.
    pub p99_us: Option<f64>,
    /// First inference of a fresh session, 95th percentile, microseconds.
    pub cold_start_us: Option<f64>,
}

/// One gate's verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateLine {
    /// Its key in the run's file.
    pub gate: String,
    /// Measured, in `unit`; `None` if it was not.
    pub value: Option<f64>,
    /// The threshold, in `unit`.
    pub limit: f64,
    /// Of value and limit: `fraction`, `bytes`, `us`.
    pub unit: String,
    /// Whether the value may not be below (`true`) or not above (`false`) the limit.
    pub at_least: bool,
    /// The verdict.
    pub pass: bool,
}

/// All verdicts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateReport {
    /// In the order of [`Gates`].
    pub gates: Vec<GateLine>,
}

impl Gates {
    /// Judges a candidate.
    pub fn judge(&self, measured: &Measured) -> GateReport {
        let drop = measured.fp32_accuracy.zip(measured.accuracy).map(|(float, shipped)| float - shipped);
        GateReport {
            gates: vec![
                line("min_accuracy", "fraction", true, self.min_accuracy, measured.accuracy),
                line("max_int8_drop", "fraction", false, self.max_int8_drop, drop),
                line("max_bytes", "bytes", false, self.max_bytes as f64, measured.bytes.map(|bytes| bytes as f64)),
                line("max_p99", "us", false, self.max_p99.as_secs_f64() * 1e6, measured.p99_us),
                line("max_cold_start", "us", false, self.max_cold_start.as_secs_f64() * 1e6, measured.cold_start_us),
            ],
        }
    }
}

fn line(gate: &str, unit: &str, at_least: bool, limit: f64, value: Option<f64>) -> GateLine {
    // Every comparison with NaN is false: a number that is none fails, as a limit that is none does.
    let pass = value.is_some_and(|value| if at_least { value >= limit } else { value <= limit });
    GateLine { gate: gate.into(), value: value.filter(|value| value.is_finite()), limit, unit: unit.into(), at_least, pass }
}

impl GateReport {
    /// Whether every gate passed. A report without gates has not.
    pub fn pass(&self) -> bool {
        !self.gates.is_empty() && self.gates.iter().all(|line| line.pass)
    }
    /// The gates that did not pass.
    pub fn failed(&self) -> impl Iterator<Item = &GateLine> {
        self.gates.iter().filter(|line| !line.pass)
    }
}

impl fmt::Display for GateLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.pass { "pass" } else { "FAIL" };
        let relation = if self.at_least { "at least" } else { "at most" };
        let value = self.value.map_or_else(|| "not measured".to_owned(), |value| quantity(value, &self.unit));
        write!(f, "{verdict}  {}: {value}, {relation} {}", self.gate, quantity(self.limit, &self.unit))
    }
}

impl fmt::Display for GateReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.gates.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{line}")?;
        }
        Ok(())
    }
}

fn quantity(value: f64, unit: &str) -> String {
    match unit {
        "fraction" => format!("{value:.4}"),
        "bytes" => format!("{value:.0} bytes"),
        "us" => format!("{:.3} ms", value / 1e3),
        other => format!("{value} {other}"),
    }
}

//! Gates: the numbers that a candidate must reach before it is packed and signed.
//!
//! They fail closed: a gate whose number was not measured fails (R91). The report keeps every number used (R122).

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

pub use crate::spec::Gates;

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
    /// Examples of the evaluation data.
    pub examples: Option<u64>,
    /// Of which the float model answered so many right.
    pub fp32_correct: Option<u64>,
    /// Of which the model that is shipped answered so many right.
    pub correct: Option<u64>,
    /// Of the float model's file.
    pub fp32_bytes: Option<u64>,
    /// Of the INT8 form, where it gains neither size nor speed and the float model is shipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out_int8_bytes: Option<u64>,
    /// Median of one inference, microseconds.
    pub p50_us: Option<f64>,
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

/// Six decimals are enough for any gate and any reader.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

impl Measured {
    /// All numbers to six decimals, as they are judged, signed and printed.
    #[must_use]
    pub fn rounded(self) -> Self {
        Self {
            fp32_accuracy: self.fp32_accuracy.map(rounded),
            accuracy: self.accuracy.map(rounded),
            p99_us: self.p99_us.map(rounded),
            cold_start_us: self.cold_start_us.map(rounded),
            p50_us: self.p50_us.map(rounded),
            ..self
        }
    }
}

impl Gates {
    /// Judges a candidate. A gate that is left out is not checked; a number that is missing fails its gate.
    pub fn judge(&self, measured: &Measured) -> GateReport {
        let drop = measured.fp32_accuracy.zip(measured.accuracy).map(|(float, shipped)| rounded(float - shipped));
        let bytes = |bytes: u64| bytes as f64;
        let micros = |span: Duration| span.as_secs_f64() * 1e6;
        let gates = [
            line("min_accuracy", "fraction", true, self.min_accuracy, measured.accuracy),
            line("max_int8_drop", "fraction", false, self.max_int8_drop, drop),
            line("max_bytes", "bytes", false, self.max_bytes.map(bytes), measured.bytes.map(bytes)),
            line("max_p99", "us", false, self.max_p99.map(micros), measured.p99_us),
            line("max_cold_start", "us", false, self.max_cold_start.map(micros), measured.cold_start_us),
        ];
        GateReport { gates: gates.into_iter().flatten().collect() }
    }
}

fn line(gate: &str, unit: &str, at_least: bool, limit: Option<f64>, value: Option<f64>) -> Option<GateLine> {
    let limit = limit?;
    // Every comparison with NaN is false, so a number that is none fails.
    let pass = value.is_some_and(|value| if at_least { value >= limit } else { value <= limit });
    Some(GateLine { gate: gate.into(), value: value.filter(|value| value.is_finite()), limit, unit: unit.into(), at_least, pass })
}

impl GateReport {
    /// Whether every gate that was asked for passed.
    pub fn pass(&self) -> bool {
        self.gates.iter().all(|line| line.pass)
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
        if self.gates.is_empty() {
            return f.write_str("no gate was asked for");
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn gates() -> Gates {
        Gates {
            min_accuracy: Some(0.9),
            max_int8_drop: Some(0.02),
            max_bytes: Some(1000),
            max_p99: Some(Duration::from_millis(50)),
            max_cold_start: Some(Duration::from_millis(40)),
        }
    }
    fn good() -> Measured {
        Measured {
            fp32_accuracy: Some(0.93),
            accuracy: Some(0.92),
            bytes: Some(1000),
            p99_us: Some(50_000.0),
            cold_start_us: Some(39_999.0),
            ..Measured::default()
        }
    }

    /// Found by review: without serde_json's `float_roundtrip` one tolerance in ten came back another number, which voids what
    /// is signed over it, and ended the run at its last step.
    #[test]
    fn numbers_survive_json() {
        let known = [0.02 * f64::from(10.626_545_f32), 1_002.000_000_000_000_1];
        let more = (0..2000_u32).map(|n| f64::from(n) / 382.0 + f64::from(n) * 17.37);
        for value in known.into_iter().chain(more) {
            let text = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<f64>(&text).unwrap(), value, "{text}");
        }
    }

    /// R91: each gate broken in turn, then each number taken away in turn: one line fails and the report with it.
    #[test]
    fn every_gate_stops_a_release() {
        assert!(gates().judge(&good()).pass());
        let broken = [
            ("min_accuracy", Measured { fp32_accuracy: Some(0.9), accuracy: Some(0.89), ..good() }),
            ("max_int8_drop", Measured { fp32_accuracy: Some(0.95), ..good() }),
            ("max_int8_drop", Measured { fp32_accuracy: None, ..good() }),
            ("max_bytes", Measured { bytes: Some(1001), ..good() }),
            ("max_bytes", Measured { bytes: None, ..good() }),
            ("max_p99", Measured { p99_us: Some(50_001.0), ..good() }),
            ("max_p99", Measured { p99_us: None, ..good() }),
            ("max_p99", Measured { p99_us: Some(f64::NAN), ..good() }),
            ("max_cold_start", Measured { cold_start_us: Some(40_001.0), ..good() }),
            ("max_cold_start", Measured { cold_start_us: None, ..good() }),
        ];
        for (gate, measured) in broken {
            let report = gates().judge(&measured);
            assert!(!report.pass(), "{report}");
            assert_eq!(report.failed().map(|line| line.gate.as_str()).collect::<Vec<_>>(), [gate], "{report}");
        }
        let silent = gates().judge(&Measured::default());
        assert_eq!(silent.failed().count(), 5);
        assert!(silent.to_string().contains("not measured"), "{silent}");
    }

    #[test]
    fn a_report_reads_like_a_sentence() {
        let report = gates().judge(&good());
        assert_eq!(report.gates[0].to_string(), "pass  min_accuracy: 0.9200, at least 0.9000");
        assert_eq!(report.gates[3].to_string(), "pass  max_p99: 50.000 ms, at most 50.000 ms");
        assert_eq!(Gates::default().judge(&good()).to_string(), "no gate was asked for");
    }
}

//! What the benches share: a deployment of real processes, a small HTTP client, a cohort that sums in secret, a sweep over
//! held-out blocks, and what the kernel counted.
//!
//! The benches themselves are in `benches/`, one program each. `README.md` says how to repeat them.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod cohort;
pub mod fleet;
pub mod http;
pub mod proc;
pub mod sweep;

/// The words after the bench's name, without the flag that Cargo adds.
pub fn arguments() -> Vec<String> {
    std::env::args().skip(1).filter(|word| word != "--bench").collect()
}

/// The middle of `values`; the mean of the two middle ones if their number is even, NaN if there are none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// `value` of `limit`, as a word: the ratio and whether it holds. Smaller is better.
pub fn verdict(value: f64, limit: f64) -> String {
    format!("{:.2} x the bar, {}", value / limit, if value <= limit { "met" } else { "MISSED" })
}

/// `value` of `limit`, as [`verdict`], where larger is better.
pub fn at_least(value: f64, limit: f64) -> String {
    format!("{:.2} x the bar, {}", value / limit, if value >= limit { "met" } else { "MISSED" })
}

/// What else the machine is doing: its cores and its load averages.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZeroUsize::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    format!("{cores} cores, load averages {load}")
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}

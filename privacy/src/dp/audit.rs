//! An audit of the mechanism: does what the coordinator sees betray more than ε allows?
//!
//! One round, one canary: the victim sends either an update as long as the clip norm allows, or nothing; everybody else sends nothing,
//! which is the worst case. The coordinator knows the canary and the colluders' noise, takes both away and asks how much canary is left.
//! (ε, δ)-DP bounds every such test: P\[yes | canary\] ≤ e^ε·P\[yes | nothing\] + δ, and the same for "no". From counts, with
//! Clopper–Pearson bounds, follows a lower bound on ε that must not exceed the claim (Jagielski, Ullman, Oprea 2020).
//!
//! **An audit that cannot fail shows nothing**, so the setting is one where it has power: ε = 2 at δ = 0.01, 10,000 trials with and
//! 10,000 without the canary. With half the noise, or none, it must and does report a violation; the power is computed and printed.
//!
//! False alarms: 32 bounds at 1e-4/32 each, so a right mechanism fails with probability below 1e-4; the seeds are fixed.

use super::*;
use crate::accountant::{Observer, zcdp};

const TRIALS: u32 = 10_000;
const EPSILON: f64 = 2.0;
const DELTA: f64 = 0.01;
const DIMENSION: usize = 60;
const ALARM: f64 = 1e-4;

fn plan(unit: Unit) -> Plan {
    Plan::solve(&Request {
        unit,
        trust: Trust::Distributed,
        epsilon: EPSILON,
        delta: DELTA,
        rounds: 1,
        cohort: 5,
        dropout: 0.2,
        corruption: 0.0,
        dimension: DIMENSION,
        clip: 1.0,
        bits: None,
        coordinates: Vec::new(),
        weighting: crate::Weighting::Uniform,
        units_per_node: if unit == Unit::Node { 1 } else { 10 },
        divisor: 10.0,
    })
    .unwrap()
}

/// How much canary is left in what the coordinator sees, in standard deviations of the noise that is claimed.
fn scores(claimed: &Plan, real: &Mechanism, canary: bool, trials: u32) -> Vec<f64> {
    let p = &claimed.parameters;
    let direction: Vec<f32> = (0..DIMENSION).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 } / (DIMENSION as f32).sqrt()).collect();
    let update = if canary { direction.iter().map(|x| x * 1000.0).collect() } else { vec![0.0; DIMENSION] };
    let honest = p.honest(Observer::Coordinator, p.minimum);
    let deviation = f64::from(p.sigma) * f64::from(honest).sqrt();
    (0..trials)
        .map(|trial| {
            let rotation = RotationSeed::new([trial as u8; 32]);
            let mut sum = vec![0i64; p.padded()];
            for node in 0..honest {
                let seed = seed(u64::from(trial) << 8 | u64::from(node) << 1 | u64::from(canary));
                let mine: &[f32] = if node == 0 { &update } else { &[0.0; DIMENSION] };
                let share = match p.unit {
                    Unit::Node => real.encode_node(mine, &[], 1, rotation, seed).unwrap().0,
                    _ => {
                        let mut units = real.unit_sum();
                        real.add_unit(&mut units, mine, &[]).unwrap();
                        real.encode_units(&units, rotation, seed).unwrap()
                    }
                };
                for (sum, lane) in sum.iter_mut().zip(share.lanes()) {
                    *sum += i64::from(p.bits.centre(*lane));
                }
            }
            hadamard(&mut sum);
            flip_signs(&mut sum, rotation);
            let along: f64 = sum.iter().zip(&direction).map(|(s, d)| *s as f64 * f64::from(*d)).sum();
            along / (p.padded() as f64).sqrt() / deviation
        })
        .collect()
}

/// The largest ε that the counts prove, over eight thresholds fixed beforehand.
fn proven(with: &[f64], without: &[f64]) -> f64 {
    let each = ALARM / 32.0;
    let mut best: f64 = 0.0;
    for threshold in [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5] {
        let above = |scores: &[f64]| scores.iter().filter(|s| **s > threshold).count() as u32;
        best = best.max(bound(above(with), above(without), each)).max(bound(TRIALS - above(without), TRIALS - above(with), each));
    }
    best
}

fn bound(hits: u32, false_hits: u32, alpha: f64) -> f64 {
    let (least, most) = (1.0 - at_most(TRIALS - hits, alpha), at_most(false_hits, alpha));
    if least <= DELTA { 0.0 } else { ((least - DELTA) / most).ln().max(0.0) }
}

/// Clopper–Pearson: the probability for which `count` of [`TRIALS`] or fewer has probability `alpha`.
fn at_most(count: u32, alpha: f64) -> f64 {
    let (n, k) = (f64::from(TRIALS), f64::from(count));
    let cumulative = |p: f64| {
        // From the last term down, until nothing is added.
        let mut term =
            (libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0) + k * p.ln() + (n - k) * (-p).ln_1p()).exp();
        let (mut sum, mut i) = (0.0, k);
        loop {
            sum += term;
            if i == 0.0 || term < sum * 1e-12 {
                return sum;
            }
            term *= i / (n - i + 1.0) * (1.0 - p) / p;
            i -= 1.0;
        }
    };
    if count == TRIALS {
        return 1.0;
    }
    let (mut low, mut high) = (k / n, 1.0 - 1e-12);
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        if cumulative(middle) > alpha { low = middle } else { high = middle }
    }
    high
}

/// The share of 25 audits that would flag noise of `factor` times the claimed deviation, from the normal distribution alone.
fn power(plan: &Plan, factor: f64) -> f64 {
    let shift = 1.0 / plan.noise_multiplier;
    let mut random = seed(u64::MAX).stream(seed::Purpose::Noise);
    let noise = DiscreteGaussian::new(1 << 20).unwrap();
    let mut draw =
        |mean: f64| -> Vec<f64> { (0..TRIALS).map(|_| mean + factor * noise.sample(&mut random) as f64 / f64::from(1 << 20)).collect() };
    f64::from((0..25u8).filter(|_| proven(&draw(shift), &draw(0.0)) > EPSILON).count() as u8) / 25.0
}

#[test]
#[expect(clippy::print_stdout, reason = "the power of an audit belongs into its record")]
fn the_audit_passes_and_would_not_with_half_the_noise_or_none() {
    for unit in [Unit::Node, Unit::Example] {
        let plan = plan(unit);
        assert!(plan.epsilon_coordinator <= EPSILON && plan.epsilon_coordinator > 1.95);
        let audit = |sigma| {
            let real = plan.mechanism().unwrap().with_noise(sigma);
            proven(&scores(&plan, &real, true, TRIALS), &scores(&plan, &real, false, TRIALS))
        };
        let sigma = plan.parameters.sigma;
        let (whole, half, none) = (audit(sigma), audit(sigma / 2), audit(0));
        let (false_alarms, power) = (power(&plan, 1.0), power(&plan, 0.5));
        println!(
            "audit, unit {}: claimed {:.3} at delta {DELTA}; proven {whole:.3} with the noise, {half:.3} with half of it, {none:.3} without; power against half the noise {power:.2}, false alarms {false_alarms:.2}",
            unit.word(),
            plan.epsilon_coordinator,
        );
        assert!(whole <= plan.epsilon_coordinator, "the mechanism breaks its promise");
        assert!(whole > 0.3, "an audit that finds nothing at all is not looking");
        assert!(half > EPSILON && none > EPSILON, "the audit has lost its power");
        assert!(power > 0.95 && false_alarms == 0.0);
    }
}

#[test]
fn clopper_pearson_is_right_where_it_is_known() {
    // No success in n: 1 - α^(1/n).
    assert!((at_most(0, 0.05) - (1.0 - 0.05f64.powf(1e-4))).abs() < 1e-9);
    // Many: near the normal approximation.
    let (p, deviation) = (0.3, (0.21f64 / 10_000.0).sqrt());
    assert!((at_most(3000, 0.022_75) - (p + 2.0 * deviation)).abs() < 0.1 * deviation);
    assert_eq!(at_most(TRIALS, 0.5), 1.0);
}

/// The conversion is not what lets the audit pass: at the same ρ a smaller claim would be refuted.
#[test]
fn a_claim_that_is_too_small_is_refuted() {
    let plan = plan(Unit::Node);
    let real = plan.mechanism().unwrap();
    let proven = proven(&scores(&plan, &real, true, TRIALS), &scores(&plan, &real, false, TRIALS));
    let claim = zcdp::epsilon(plan.rho_run / 16.0, DELTA).unwrap();
    assert!(proven > claim, "{proven} and {claim}");
}

fn seed(number: u64) -> NoiseSeed {
    NoiseSeed::draw(|bytes| {
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Ok::<(), ()>(())
    })
    .unwrap()
}

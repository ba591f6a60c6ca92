//! Every row of the public vectors, and what any accountant must obey.

use proptest::prelude::*;
use serde_json::Value;

use super::{discrete, pld::Pld, rdp::Rdp, *};

/// Reference values by dp-accounting 0.6.0 and by exact convolution, with their tolerances.
const VECTORS: &str = include_str!("../../testdata/dp_public.json");

fn vectors() -> Value {
    serde_json::from_str(VECTORS).unwrap()
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("{key} in {row}"))
}

fn gaussians() -> Vec<(Gaussian, f64, Value)> {
    let rows = vectors()["gaussian"].as_array().unwrap().clone();
    rows.into_iter()
        .map(|row| {
            let gaussian = Gaussian::new(number(&row, "noise_multiplier"), number(&row, "q"), row["steps"].as_u64().unwrap()).unwrap();
            (gaussian, number(&row, "delta"), row)
        })
        .collect()
}

#[test]
fn rdp_agrees_with_the_vectors() {
    for (gaussian, delta, row) in gaussians() {
        let epsilon = epsilon(Accountant::Rdp, &gaussian, delta).unwrap();
        // At q = 0.1 the reference is 4e-5 above the integral itself, which this agrees with to 1e-11.
        assert!((epsilon / number(&row, "eps_rdp") - 1.0).abs() < 1e-4, "{epsilon} for {row}");
        assert!(epsilon >= number(&row, "eps_pld") * 0.995);
    }
}

/// D_α of the sampled Gaussian by quadrature.
fn integral_at(z: f64, q: f64, alpha: f64) -> f64 {
    let (low, high, n) = (-14.0 * z, 1.0 + alpha + 14.0 * z, 100_000);
    let step = (high - low) / f64::from(n);
    let at = |x: f64| {
        let ratio = 1.0 - q + q * ((2.0 * x - 1.0) / (2.0 * z * z)).exp();
        (-x * x / (2.0 * z * z)).exp() / (z * std::f64::consts::TAU.sqrt()) * ratio.powf(alpha)
    };
    ((0..=n).map(|i| at(low + f64::from(i) * step)).sum::<f64>() * step).ln() / (alpha - 1.0)
}

#[test]
fn rdp_is_the_integral_at_whole_and_fractional_orders() {
    let mut converged = 0;
    for (z, q) in [(2.0, 0.1), (1.1, 0.01), (0.8, 0.001), (4.0, 0.5), (1.0, 0.9)] {
        for alpha in [1.1, 1.5, 2.0, 2.3, 4.4, 7.0, 9.6] {
            let (series, integral) = (rdp::sampled_gaussian(z, q, alpha), integral_at(z, q, alpha));
            let next = integral_at(z, q, alpha.ceil());
            assert!(
                (series - integral).abs() < 1e-6 * integral || (series - next).abs() < 1e-6 * next,
                "z {z}, q {q}, alpha {alpha}: {series} and {integral}"
            );
            converged += u32::from((series - integral).abs() < 1e-6 * integral);
        }
    }
    // The others are answered by the next whole order.
    assert!(converged > 25, "{converged}");
}

#[test]
fn pld_agrees_with_the_vectors() {
    for (gaussian, delta, row) in gaussians() {
        let epsilon = epsilon(Accountant::Pld, &gaussian, delta).unwrap();
        let ratio = epsilon / number(&row, "eps_pld");
        assert!((0.9999..=1.0005).contains(&ratio), "{epsilon} is {ratio} of {row}");
    }
}

#[test]
fn zcdp_agrees_with_the_vectors_and_with_opendp() {
    for row in vectors()["zcdp_to_approx_dp"].as_array().unwrap() {
        let (rho, delta) = (number(row, "rho"), number(row, "delta"));
        assert!((zcdp::epsilon(rho, delta).unwrap() - number(row, "eps_cks20")).abs() < 1e-6);
        assert!((zcdp::epsilon_by_formula(rho, delta).unwrap() - number(row, "eps_cks20")).abs() < 1e-6);
        assert!((zcdp::epsilon_bun_steinke(rho, delta).unwrap() - number(row, "eps_bs16")).abs() < 1e-6);
    }
    for rho in [1e-4, 0.003, 0.05, 0.5, 1.0, 4.0, 20.0, 5000.0] {
        for delta in [1e-3, 1e-5, 1e-9, 1e-12] {
            let (opendp, formula) = (zcdp::epsilon(rho, delta).unwrap(), zcdp::epsilon_by_formula(rho, delta).unwrap());
            assert!((opendp - formula).abs() < 1e-7 * formula.max(1.0), "{rho}, {delta}: {opendp} and {formula}");
            let back = zcdp::rho(opendp, delta).unwrap();
            assert!(back <= rho * (1.0 + 1e-9) && back > rho * (1.0 - 1e-6), "{rho}: {back}");
        }
    }
    // A δ so large that ρ is above ε.
    let rho = zcdp::rho(0.5, 0.9).unwrap();
    assert!(rho > 1.0 && zcdp::delta(rho, 0.5).unwrap() <= 0.9 && zcdp::delta(rho * 1.001, 0.5).unwrap() > 0.9, "{rho}");
}

/// The σ at which δ(ε) of one Gaussian release is δ, by Balle and Wang 2018.
fn analytic_gaussian(epsilon: f64, delta: f64) -> f64 {
    let delta_at = |sigma: f64| {
        let (half, rest) = (0.5 / sigma, epsilon * sigma);
        special::normal_cdf(half - rest) - epsilon.exp() * special::normal_cdf(-half - rest)
    };
    let (mut low, mut high) = (1e-3, 1e6);
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if delta_at(middle) > delta { low = middle } else { high = middle }
    }
    high
}

#[test]
fn one_gaussian_agrees_with_the_analytic_one() {
    for row in vectors()["analytic_gaussian"].as_array().unwrap() {
        let (epsilon, delta) = (number(row, "eps"), number(row, "delta"));
        let sigma = analytic_gaussian(epsilon, delta);
        assert!((sigma - number(row, "sigma")).abs() < 1e-6, "{sigma}");
        let pld = Pld::of(&Gaussian::new(sigma, 1.0, 1).unwrap());
        assert!((pld.epsilon(delta).unwrap() - epsilon).abs() < 1e-3);
        assert!((pld.delta(epsilon) / delta - 1.0).abs() < 1e-3 && pld.delta(epsilon) >= delta * (1.0 - 1e-9));
    }
    // T releases with multiplier z are one with z/√T.
    let (many, one) = (Gaussian::new(6.0, 1.0, 36).unwrap(), Gaussian::new(1.0, 1.0, 1).unwrap());
    let (many, one) = (pld::epsilon(&many, 1e-6).unwrap(), pld::epsilon(&one, 1e-6).unwrap());
    assert!((many / one - 1.0).abs() < 1e-4, "{many} and {one}");
}

/// D_α between the sum of n discrete Gaussians and the same shifted by `shift`, by convolution.
fn exact_renyi(nodes: u32, sigma_squared: f64, shift: usize, alpha: f64) -> f64 {
    const REACH: i64 = 60;
    let mut one: Vec<f64> = (-REACH..=REACH).map(|x| (-(x * x) as f64 / (2.0 * sigma_squared)).exp()).collect();
    let total: f64 = one.iter().sum();
    one.iter_mut().for_each(|p| *p /= total);
    let mut sum = one.clone();
    for _ in 1..nodes {
        let mut next = vec![0.0; sum.len() + one.len() - 1];
        for (i, p) in sum.iter().enumerate() {
            for (j, q) in one.iter().enumerate() {
                next[i + j] += p * q;
            }
        }
        sum = next;
    }
    // Σ P^α·Q^(1-α); where Q underflows so does P.
    let terms = sum
        .iter()
        .zip(&sum[shift..])
        .filter(|(q, p)| **p > 1e-290 && **q > 1e-290)
        .map(|(q, p)| (alpha * p.ln() + (1.0 - alpha) * q.ln()).exp());
    terms.sum::<f64>().ln() / (alpha - 1.0)
}

#[test]
fn sums_of_discrete_gaussians_agree_with_the_vectors() {
    for row in vectors()["sum_discrete_gaussian_exact_1d"].as_array().unwrap() {
        let (nodes, sigma_squared) = (row["n"].as_u64().unwrap() as u32, number(row, "sigma2"));
        let delta = number(row, "delta");
        let tau = discrete::tau(nodes, sigma_squared);
        assert!((tau / number(row, "tau") - 1.0).abs() < 1e-6);
        let gaussian = delta * delta / (f64::from(nodes) * sigma_squared);
        assert!((gaussian / 2.0 - number(row, "rho_gauss")).abs() < 1e-6);
        let rho = discrete::rho(delta * delta, nodes, sigma_squared, 1);
        assert!((rho - number(row, "rho_thm1")).abs() < 1e-6);
        assert!((0.5 * (gaussian.sqrt() + tau).powi(2) - number(row, "rho_prop14_term3")).abs() < 1e-6);
        let mut largest: f64 = 0.0;
        for (alpha, expected) in row["renyi_exact"].as_object().unwrap() {
            let alpha: f64 = alpha.parse().unwrap();
            let exact = exact_renyi(nodes, sigma_squared, delta as usize, alpha);
            assert!((exact - expected.as_f64().unwrap()).abs() < 1e-6, "n = {nodes}, alpha = {alpha}: {exact}");
            assert!(exact <= alpha * rho + 1e-12, "the theorem is above the truth");
            largest = largest.max(exact / alpha);
        }
        assert!((largest - number(row, "rho_exact_grid")).abs() < 1e-6);
    }
    for row in vectors()["distributed_discrete_gaussian_formula"].as_array().unwrap() {
        let (nodes, gamma) = (row["n"].as_u64().unwrap() as u32, number(row, "gamma"));
        let (dimension, sigma) = (row["dim"].as_u64().unwrap() as usize, number(row, "sigma") / gamma);
        let squared = crate::dp::conditional_sensitivity_squared(number(row, "clip") / gamma, dimension);
        assert!((squared / number(row, "delta2_sq") - 1.0).abs() < 1e-6);
        assert!((discrete::tau(nodes, sigma * sigma) / number(row, "tau") - 1.0).abs() < 1e-6);
        let rho = discrete::rho(squared, nodes, sigma * sigma, dimension);
        assert!((rho / number(row, "rho_thm1") - 1.0).abs() < 1e-6);
        assert!((rho / number(row, "rho_conservative") - 1.0).abs() < 1e-6);
    }
    for row in vectors()["tree_aggregation"].as_array().unwrap() {
        let rho = zcdp::tree(number(row, "noise_multiplier"), row["steps"].as_u64().unwrap() as u32);
        assert!((rho - number(row, "rho_single_participation")).abs() < 1e-6);
    }
    assert_eq!(zcdp::tree(2.0, 1000), 10.0 / 8.0);
}

#[test]
fn from_four_grid_units_on_a_sum_is_as_good_as_gaussian() {
    // The worst that the terms allow: many nodes, many coordinates, the smallest share.
    let tau = discrete::tau(1_000_000, f64::from(discrete::LEAST_SIGMA.pow(2)));
    assert!(tau * 2f64.powi(28) < 1e-50, "{tau}");
}

/// Where shares are small, so that both terms of the theorem and all of τ count; computed in Python by the formulas of the paper.
#[test]
fn small_shares_cost_what_the_theorem_says() {
    for (nodes, variance, dimension, squared, tau, rho) in [
        (3, 0.7, 10_000, 0.001, 0.010_989_037_093_724_115, 0.628_012_821_377_493_3),
        (3, 0.25, 16, 1.0, 1.220_637_347_186_550_4, 5.549_216_055_412_868),
        (4, 0.2, 9, 40.0, 2.626_264_397_285_269_5, 30.909_094_893_891_854),
    ] {
        assert!((discrete::tau(nodes, variance) / tau - 1.0).abs() < 1e-12);
        assert!((discrete::rho(squared, nodes, variance, dimension) / rho - 1.0).abs() < 1e-12);
    }
    // What is beyond the terms that are added up one by one is bounded, not left out, and hardly more.
    let (all, bound) = (10.485_988_944_655_954, discrete::tau(20_000, 0.5));
    assert!(bound >= all && bound < all * 1.001, "{bound}");
    assert_eq!(discrete::tau(1, 0.5), 0.0, "one share is a discrete Gaussian");
}

#[test]
fn zcdp_of_a_sample_is_refused_by_name() {
    let sampled = Gaussian::new(1.0, 0.5, 10).unwrap();
    assert_eq!(epsilon(Accountant::Zcdp, &sampled, 1e-5), Err(Fault::NotAmplified { rate: 0.5 }));
    let refusal = Fault::NotAmplified { rate: 0.5 }.to_string();
    assert!(refusal.contains("use rdp or pld"), "{refusal}");
    // Against the coordinator the rate is 1, so it can be answered.
    let seen = sampled.seen_by(Observer::Coordinator);
    let zcdp = epsilon(Accountant::Zcdp, &seen, 1e-5).unwrap();
    assert!(zcdp > epsilon(Accountant::Rdp, &sampled.seen_by(Observer::Outsider), 1e-5).unwrap());
    assert!((zcdp / epsilon(Accountant::Rdp, &seen, 1e-5).unwrap() - 1.0).abs() < 1e-3, "the same curve, one by a grid of orders");
}

#[test]
fn questions_without_an_answer_are_refused() {
    assert!(matches!(Gaussian::new(0.0, 1.0, 1), Err(Fault::NoiseMultiplier { .. })));
    assert!(matches!(Gaussian::new(f64::NAN, 1.0, 1), Err(Fault::NoiseMultiplier { .. })));
    assert!(matches!(Gaussian::new(1.0, 0.0, 1), Err(Fault::SamplingRate { .. })));
    assert!(matches!(Gaussian::new(1.0, 1.1, 1), Err(Fault::SamplingRate { .. })));
    assert!(matches!(Gaussian::new(1.0, 1.0, 0), Err(Fault::Rounds { .. })));
    let gaussian = Gaussian::new(1.0, 1.0, 1).unwrap();
    for accountant in [Accountant::Rdp, Accountant::Pld, Accountant::Zcdp] {
        for delta in [0.0, 1.0, -1.0, f64::NAN] {
            assert!(matches!(epsilon(accountant, &gaussian, delta), Err(Fault::Delta { .. })), "{accountant:?} {delta}");
        }
    }
    assert!(matches!(epsilon(Accountant::Pld, &gaussian, 1e-30), Err(Fault::DeltaTooSmall { .. })));
    assert!(matches!(zcdp::epsilon(-1.0, 1e-5), Err(Fault::Rho { .. })));
    assert!(matches!(zcdp::delta(0.1, 0.0), Err(Fault::Epsilon { .. })));
    assert!(matches!(zcdp::rho(f64::INFINITY, 1e-5), Err(Fault::Epsilon { .. })));
    let (a, b) = (Pld::with_interval(&gaussian, 1e-3).unwrap(), Pld::with_interval(&gaussian, 2e-3).unwrap());
    assert!(matches!(a.compose(&b), Err(Fault::Grids { .. })));
}

#[test]
fn runs_of_several_kinds_compose() {
    let of = |z, q, t| Gaussian::new(z, q, t).unwrap();
    let (a, b, both) = (of(2.0, 0.1, 20), of(2.0, 0.1, 30), of(2.0, 0.1, 50));
    let composed = Rdp::of(&a).compose(&Rdp::of(&b)).epsilon(1e-5).unwrap();
    assert!((composed / Rdp::of(&both).epsilon(1e-5).unwrap() - 1.0).abs() < 1e-12);
    let composed = Pld::of(&a).compose(&Pld::of(&b)).unwrap().epsilon(1e-5).unwrap();
    assert!((composed / Pld::of(&both).epsilon(1e-5).unwrap() - 1.0).abs() < 1e-6);
    // One with sampling and one without: the sum is worse than either, and better than the sum of both.
    let full = of(5.0, 1.0, 1);
    let mixed = Pld::of(&a).compose(&Pld::of(&full)).unwrap().epsilon(1e-5).unwrap();
    let (alone, other) = (Pld::of(&a).epsilon(1e-5).unwrap(), Pld::of(&full).epsilon(1e-5).unwrap());
    assert!(mixed > alone.max(other) && mixed < alone + other);
}

#[test]
fn extreme_settings_get_an_answer() {
    for (z, q, t) in
        [(0.05, 1.0, 1), (0.3, 0.5, 100), (1.0, 1e-6, 1_000_000), (1000.0, 0.5, 10_000_000), (20.0, 1.0, 100_000), (0.5, 0.9999, 3)]
    {
        let gaussian = Gaussian::new(z, q, t).unwrap();
        let (rdp, pld) = (epsilon(Accountant::Rdp, &gaussian, 1e-6).unwrap(), epsilon(Accountant::Pld, &gaussian, 1e-6).unwrap());
        assert!(rdp.is_finite() && pld.is_finite() && pld <= rdp * 1.0001 + 1e-3, "{gaussian:?}: rdp {rdp}, pld {pld}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn more_noise_fewer_rounds_less_sampling_and_a_larger_delta_never_cost_more(
        z in 0.8f64..20.0, q in 0.001f64..1.0, t in 1u64..1000, log_delta in -16.0f64..-3.0, more in 1.05f64..3.0
    ) {
        let delta = log_delta.exp();
        for accountant in [Accountant::Rdp, Accountant::Pld] {
            let at = |z, q, t, delta| epsilon(accountant, &Gaussian::new(z, q, t).unwrap(), delta).unwrap();
            let base = at(z, q, t, delta);
            // The grid of orders and of losses lets ε wobble in its last digits.
            let bound = base * (1.0 + 1e-6) + 1e-4;
            prop_assert!(at(z * more, q, t, delta) <= bound);
            prop_assert!(at(z, q / more, t, delta) <= bound);
            prop_assert!(at(z, q, (t as f64 / more).ceil() as u64, delta) <= bound);
            prop_assert!(at(z, q, t, (delta * more).min(0.5)) <= bound);
        }
    }

    #[test]
    fn the_classic_bound_is_never_below_the_tight_one(z in 0.6f64..20.0, q in 0.001f64..1.0, t in 1u64..3000, log_delta in -16.0f64..-3.0) {
        let gaussian = Gaussian::new(z, q, t).unwrap();
        let (rdp, pld) = (epsilon(Accountant::Rdp, &gaussian, log_delta.exp()).unwrap(), epsilon(Accountant::Pld, &gaussian, log_delta.exp()).unwrap());
        prop_assert!(rdp >= pld * 0.995 - 1e-3, "rdp {rdp}, pld {pld}");
    }

    #[test]
    fn zcdp_is_monotone_and_adds_up(rho in 1e-4f64..5.0, log_delta in -25.0f64..-2.0, more in 1.001f64..3.0) {
        let delta = log_delta.exp();
        let base = zcdp::epsilon(rho, delta).unwrap();
        // A δ above the whole distance of the two distributions leaves no ε to pay, and more of nothing is nothing.
        let grows = |epsilon: f64| epsilon > base || base == 0.0;
        prop_assert!(grows(zcdp::epsilon(rho * more, delta).unwrap()));
        prop_assert!(grows(zcdp::epsilon(rho, delta / more).unwrap()));
        prop_assert!(zcdp::epsilon_bun_steinke(rho, delta).unwrap() >= base);
    }
}

//! The worked examples, the promises, and each refusal with its way out.

use proptest::prelude::*;

use super::*;

fn request() -> Request {
    Request {
        unit: Unit::Node,
        trust: Trust::Distributed,
        epsilon: 8.0,
        delta: 1e-6,
        rounds: 100,
        cohort: 100,
        dropout: 0.3,
        corruption: 0.05,
        dimension: 1_000_000,
        clip: 1.0,
        bits: None,
        coordinates: Vec::new(),
        weighting: Weighting::Uniform,
        units_per_node: 1,
        divisor: 1.0,
    }
}

fn bits(b: u8) -> Bits {
    Bits::new(b).unwrap()
}

/// The table of worked examples, computed independently with K = 4 and ρ given: γ, σ in grid units, σ of a share.
#[test]
fn the_worked_examples_come_out() {
    for (cohort, dropout, rho, b, gamma, sigma_grid, sigma) in [
        (100, 0.3, 0.010_52, 16, 1.24e-3, 819.0, 1.01),
        (100, 0.3, 0.010_52, 20, 6.5e-5, 13_106.0, 0.856),
        (1000, 0.3, 0.005_26, 16, 2.3e-3, 259.0, 0.586),
        (1000, 0.3, 0.005_26, 20, 9.3e-5, 4131.0, 0.383),
        (10_000, 0.1, 0.000_53, 20, 2.7e-4, 1258.0, 0.336),
    ] {
        let (minimum, colluders) = survivors(&Request { cohort, dropout, ..request() }).unwrap();
        let plan = Plan::solve(&request()).unwrap();
        let goal = Goal::new(&Parameters { nodes: cohort, minimum, colluders, ..plan.parameters }, rho);
        let grid = goal.grid_with(bits(b), 4.0).unwrap();
        let found = grid.step as f64 / (1u64 << goal.fraction) as f64 / 1024.0;
        for (found, expected) in [(found, gamma), (f64::from(grid.sigma), sigma_grid), (found * f64::from(grid.sigma), sigma)] {
            assert!((found / expected - 1.0).abs() < 0.03, "{cohort} nodes, {b} bits: {found} for {expected}");
        }
    }
    // 16 bits are not enough for ten thousand nodes.
    let goal = |b| Plan::solve(&Request { cohort: 10_000, dropout: 0.1, rounds: 500, epsilon: 4.0, bits: b, ..request() });
    let Err(Fault::TooFewBits { bits: 16, cohort: 10_000, needed: Some(needed) }) = goal(Some(bits(16))) else { panic!("16 bits") };
    assert!(goal(Some(bits(needed))).is_ok());
    assert!(goal(Some(bits(needed - 1))).is_err());
}

#[test]
fn the_promise_is_kept_and_nearly_used_up() {
    for unit in [Unit::Node, Unit::Entity, Unit::Example] {
        for trust in [Trust::Distributed, Trust::Central] {
            let units_per_node = if unit == Unit::Node { 1 } else { 500 };
            let plan = Plan::solve(&Request { unit, trust, dimension: 3000, units_per_node, divisor: 20_000.0, ..request() }).unwrap();
            assert!(plan.epsilon_coordinator <= 8.0 && plan.epsilon_coordinator > 7.8, "{unit:?} {trust:?}: {}", plan.epsilon_coordinator);
            assert!(plan.epsilon_outsider <= plan.epsilon_coordinator);
            assert!(plan.forecast.grid_overhead <= 1.011, "{}", plan.forecast.grid_overhead);
            assert!(plan.forecast.wraps_per_round < 1e-6);
            assert!((plan.noise_multiplier - (0.5 / plan.rho_round).sqrt()).abs() < 1e-6 * plan.noise_multiplier);
            assert!((plan.forecast.signal_to_noise_run / plan.forecast.signal_to_noise_round - 10.0).abs() < 1e-9);
            assert_eq!(plan.parameters.padded(), 4096);
            // What either end computes from the parameters alone is the same.
            assert_eq!(Plan::of(&plan.mechanism().unwrap(), 100, 1e-6).unwrap(), plan);
        }
    }
}

/// Where vectors are a few grid units long, whole numbers cost much: the noise makes up for it.
#[test]
fn coarse_grids_keep_the_promise() {
    let mut made_up = 0;
    for (dimension, tenths) in (1..=2).flat_map(|d| (4..=60).step_by(2).map(move |e| (d, e))) {
        let (epsilon, b) = (f64::from(tenths) / 10.0, bits(8));
        let coarse = Request { unit: Unit::Example, epsilon, cohort: 4, dimension, bits: Some(b), rounds: 1, dropout: 0.25, ..request() };
        let Ok(plan) = Plan::solve(&coarse) else { continue };
        let rho = zcdp::rho(epsilon, coarse.delta).unwrap();
        assert!(plan.parameters.worst_case_rho(Observer::Coordinator) <= rho, "{coarse:?}");
        made_up += u32::from(Goal::new(&plan.parameters, rho).grid(b).unwrap().sigma < plan.parameters.sigma);
    }
    assert!(made_up > 0);
}

#[test]
fn one_colluder_is_always_assumed_and_dropouts_are_paid_for() {
    let with = |dropout, corruption| Plan::solve(&Request { dropout, corruption, dimension: 1000, ..request() }).unwrap().parameters;
    assert_eq!((with(0.0, 0.0).minimum, with(0.0, 0.0).colluders), (100, 1));
    assert_eq!((with(0.3, 0.05).minimum, with(0.3, 0.05).colluders), (70, 5));
    assert_eq!((with(0.29, 0.059).minimum, with(0.29, 0.059).colluders), (71, 5));
    // Fewer survivors leave more ρ; more than planned, less.
    let p = with(0.3, 0.05);
    let rho = |survivors| p.rho(Observer::Coordinator, survivors).unwrap();
    assert!(rho(70) > rho(71) && rho(70) == p.worst_case_rho(Observer::Coordinator));
    assert_eq!(p.rho(Observer::Coordinator, 69), Err(Fault::TooFewSurvivors { survivors: 69, minimum: 70 }));
    assert!((rho(100) / rho(70) - 65.0 / 95.0).abs() < 1e-12);
    assert!((p.worst_case_rho(Observer::Outsider) / rho(70) - 65.0 / 70.0).abs() < 1e-12);
}

#[test]
fn too_few_honest_nodes_are_refused_with_a_cohort_that_would_do() {
    let tiny = Request { cohort: 2, dropout: 0.5, corruption: 0.0, dimension: 100, ..request() };
    let refusal = Plan::solve(&tiny).unwrap_err();
    let Fault::TooFewHonest { cohort: 2, minimum: 1, colluders: 1, needed: Some(needed) } = refusal else { panic!("{refusal}") };
    assert!(refusal.to_string().contains(&format!("at least {needed}")));
    assert!(Plan::solve(&Request { cohort: needed, ..tiny.clone() }).is_ok());
    let hopeless = Plan::solve(&Request { cohort: 10, dropout: 0.6, corruption: 0.6, ..tiny.clone() }).unwrap_err();
    assert!(matches!(hopeless, Fault::TooFewHonest { needed: None, .. }) && hopeless.to_string().contains("lower the dropout"));
    // The smallest one: of two, one may drop out, and the other collude.
    let needed = |cohort, corruption| survivors(&Request { cohort, corruption, ..tiny.clone() });
    assert!(matches!(needed(1, 0.5), Err(Fault::TooFewHonest { needed: Some(3), .. })));
    // Three would do, too, but four are there.
    assert!(matches!(needed(4, 0.5), Err(Fault::TooFewHonest { needed: Some(5), .. })));
    assert_eq!((needed(3, 0.5), needed(1_000_000, 0.1)), (Ok((2, 1)), Ok((500_000, 100_000))));
    assert!(matches!(needed(1_000_001, 0.1), Err(Fault::Range { what: "a cohort", .. })));
    // A trusted coordinator needs nobody's noise.
    assert!(Plan::solve(&Request { trust: Trust::Central, ..tiny }).is_ok());
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    let base = Request { dimension: 1000, ..request() };
    for (bad, part) in [
        (Request { dropout: 1.0, ..base.clone() }, "a dropout"),
        (Request { corruption: -0.1, ..base.clone() }, "a corruption"),
        (Request { cohort: 0, ..base.clone() }, "a cohort"),
        (Request { rounds: 0, ..base.clone() }, "rounds"),
        (Request { dimension: 0, ..base.clone() }, "a dimension"),
        (Request { dimension: (1 << 28) + 1, ..base.clone() }, "a dimension"),
        (Request { clip: 0.0, ..base.clone() }, "a clip norm"),
        (Request { clip: f64::NAN, ..base.clone() }, "a clip norm"),
        (Request { epsilon: 0.0, ..base.clone() }, "epsilon"),
        (Request { delta: 0.0, ..base.clone() }, "delta"),
        (Request { units_per_node: 2, ..base.clone() }, "one unit"),
        (Request { unit: Unit::Example, divisor: 0.0, ..base.clone() }, "a divisor"),
        (Request { unit: Unit::Example, weighting: Weighting::Examples { cap: 5 }, ..base.clone() }, "weighted only"),
        (Request { weighting: Weighting::Examples { cap: 5 }, ..base.clone() }, "exactly one"),
        (Request { coordinates: vec![Coordinate { statistic: Statistic::Weight, share: 0.1 }], ..base.clone() }, "exactly one"),
        (
            Request { coordinates: vec![Coordinate { statistic: Statistic::WithinClip { quantile: 1.0 }, share: 0.1 }], ..base.clone() },
            "a quantile",
        ),
        (
            Request { coordinates: vec![Coordinate { statistic: Statistic::WithinClip { quantile: 0.5 }, share: 0.0 }], ..base.clone() },
            "share",
        ),
        (
            Request {
                coordinates: vec![Coordinate { statistic: Statistic::Reported { name: "loss".into(), bound: 0.0 }, share: 0.1 }],
                ..base
            },
            "bound",
        ),
    ] {
        let refusal = Plan::solve(&bad).unwrap_err().to_string();
        assert!(refusal.contains(part), "{refusal:?} does not say {part:?}");
    }
}

/// Every figure by hand, on a grid so coarse and a ring so small that all of them count.
#[test]
fn the_forecast_is_what_the_formulas_say() {
    let parameters = |unit, trust| Parameters {
        unit,
        trust,
        dimension: 3,
        coordinates: vec![Coordinate { statistic: Statistic::Reported { name: "loss".into(), bound: 6.0 }, share: 0.5 }],
        weighting: Weighting::Uniform,
        bits: bits(8),
        nodes: 10,
        minimum: 8,
        colluders: 3,
        units_per_node: 1,
        divisor: 40.0,
        // A grid unit of a quarter fine unit, over √4: γ = 1/8.
        step: 1 << 38,
        sigma: 4,
    };
    let near = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-9, "{found} for {expected}");
    for (unit, divisor) in [(Unit::Node, 8.0), (Unit::Example, 40.0)] {
        for (trust, shares, honest, most) in [(Trust::Distributed, 8.0f64, 5.0f64, 10.0), (Trust::Central, 1.0, 1.0, 1.0)] {
            let parameters = parameters(unit, trust);
            let plan = Plan::of(&Mechanism::new(parameters.clone(), 3.0).unwrap(), 9, 1e-5).unwrap();
            let (forecast, sigma, rho) = (&plan.forecast, 0.5, parameters.worst_case_rho(Observer::Coordinator));
            // In clip norms of 3; a statistic of share 1/2 and bound 6 has a noise 12 times as large.
            near(forecast.noise_per_coordinate, 3.0 * sigma * shares.sqrt() / divisor);
            near(forecast.noise_per_statistic[0], 12.0 * sigma * shares.sqrt() / divisor);
            near(forecast.noise_norm, forecast.noise_per_coordinate * 3f64.sqrt());
            near(forecast.noise_to_clip, forecast.noise_norm / 3.0);
            near(forecast.signal_to_noise_round, 3.0 / forecast.noise_norm);
            near(forecast.signal_to_noise_run, 9.0 / forecast.noise_norm);
            // The sum of ten vectors of norm √1.25, the rounding of ten, and the noise, over four coordinates; 2^7 units are half the ring.
            let variance = 100.0 * 1.25 / 4.0 + 10.0 / 64.0 / 4.0 + most * sigma * sigma;
            near(forecast.wraps_per_round, 8.0 * (-(16.0 * 16.0 / variance) / 2.0).exp());
            near(forecast.grid_overhead, sigma / (1.25 / (2.0 * rho * honest)).sqrt());
            near(plan.noise_multiplier, 4.0 * honest.sqrt() / (parameters.sensitivity_squared() as f64).sqrt());
            near(plan.rho_run, 9.0 * plan.rho_round);
            near(plan.epsilon_outsider, zcdp::epsilon(9.0 * parameters.worst_case_rho(Observer::Outsider), 1e-5).unwrap());
            near(plan.epsilon_coordinator, zcdp::epsilon(9.0 * rho, 1e-5).unwrap());
        }
    }
    // No more coordinates can wrap than there are.
    let tiny = Parameters { nodes: 1000, minimum: 900, ..parameters(Unit::Node, Trust::Distributed) };
    assert_eq!(Plan::of(&Mechanism::new(tiny, 3.0).unwrap(), 9, 1e-5).unwrap().forecast.wraps_per_round, 4.0);
}

/// A cohort of a thousand nodes protects a million floats badly, and the forecast says so before anything runs.
#[test]
fn the_forecast_is_honest_about_large_models() {
    let large = Plan::solve(&Request { cohort: 1000, rounds: 200, ..request() }).unwrap();
    assert!((14.0..15.5).contains(&large.forecast.noise_to_clip), "{}", large.forecast.noise_to_clip);
    assert!(large.forecast.signal_to_noise_run < 1.0);
    let small = Plan::solve(&Request { cohort: 1000, rounds: 50, dimension: 2000, ..request() }).unwrap();
    assert!(small.forecast.signal_to_noise_run > 10.0);
}

#[test]
fn statistics_are_paid_for() {
    let plain = Plan::solve(&Request { dimension: 1000, ..request() }).unwrap();
    let coordinates = vec![Coordinate { statistic: Statistic::WithinClip { quantile: 0.5 }, share: 0.3 }];
    let more = Plan::solve(&Request { dimension: 1000, coordinates, ..request() }).unwrap();
    let ratio = more.forecast.noise_per_coordinate / plain.forecast.noise_per_coordinate;
    assert!((ratio - 1.09f64.sqrt()).abs() < 0.01, "{ratio}");
}

/// An evaluation asks for statistics alone; all of the budget is theirs.
#[test]
fn a_round_may_ask_for_statistics_alone() {
    let coordinates = vec![Coordinate { statistic: Statistic::Reported { name: "correct".into(), bound: 1.0 }, share: 1.0 }];
    let evaluation =
        Request { unit: Unit::Example, dimension: 0, coordinates, rounds: 10, units_per_node: 200, divisor: 2000.0, ..request() };
    let plan = Plan::solve(&evaluation).unwrap();
    assert!(plan.epsilon_coordinator <= 8.0 && plan.epsilon_coordinator > 7.8);
    // One noise multiplier of examples, from 70 shares of which 65 count.
    let expected = plan.noise_multiplier * (70.0f64 / 65.0).sqrt() / 2000.0;
    assert!((plan.forecast.noise_per_statistic[0] / expected - 1.0).abs() < 0.02, "{:?} for {expected}", plan.forecast);
    assert!(matches!(Plan::solve(&Request { coordinates: Vec::new(), ..evaluation }), Err(Fault::Range { what: "a dimension", .. })));
}

#[test]
fn the_statement_names_unit_neighbours_and_assumptions() {
    let plan = Plan::solve(&Request { unit: Unit::Example, dimension: 1000, units_per_node: 50, divisor: 5000.0, ..request() }).unwrap();
    let words = plan.statement().to_string();
    for part in [
        "unit = example",
        "one row is not one customer",
        "at least 70 of 100",
        "at most 5",
        "no amplification",
        "not covered",
        "against the coordinator",
    ] {
        assert!(words.contains(part), "{words}");
    }
    let central = Plan::solve(&Request { trust: Trust::Central, dimension: 1000, ..request() }).unwrap().statement();
    assert_eq!(central.epsilon_coordinator, None);
    assert!(central.to_string().contains("central DP") && central.to_string().contains("everyone but the coordinator"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

    /// Whatever is asked: a refusal, or parameters that keep the promise and that both ends accept.
    #[test]
    fn a_plan_keeps_its_promise(
        (unit, central) in (0..3u8, any::<bool>()), epsilon in 0.1f64..20.0, log_delta in -25.0f64..-5.0, rounds in 1u32..2000,
        cohort in 1u32..5000, dropout in 0.0f64..0.6, corruption in 0.0f64..0.5, dimension in 1usize..3_000_000, b in prop::option::of(8u8..=32), units in 1u32..10_000
    ) {
        let unit = [Unit::Node, Unit::Entity, Unit::Example][usize::from(unit)];
        let request = Request {
            unit, epsilon, rounds, cohort, dropout, corruption, dimension,
            trust: if central { Trust::Central } else { Trust::Distributed },
            delta: log_delta.exp(),
            bits: b.map(bits),
            units_per_node: if unit == Unit::Node { 1 } else { units },
            divisor: f64::from(units) * f64::from(cohort),
            ..request()
        };
        match Plan::solve(&request) {
            Ok(plan) => {
                prop_assert!(plan.epsilon_coordinator <= epsilon * (1.0 + 1e-9));
                prop_assert!(plan.parameters.sigma >= 4 && plan.forecast.grid_overhead <= 2.05);
                // Rounding σ up may push the range a little.
                prop_assert!(plan.forecast.wraps_per_round <= 1e-3 || plan.parameters.sigma < 40);
                prop_assert!(plan.mechanism().is_ok());
            }
            Err(Fault::TooFewBits { .. } | Fault::TooFewHonest { .. } | Fault::Conflict { .. }) => {}
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}

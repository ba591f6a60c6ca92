//! What parameters are refused, right beside what is not; sensitivities by hand.

use super::*;

fn parameters(unit: Unit) -> Parameters {
    Parameters {
        unit,
        trust: Trust::Distributed,
        dimension: 4,
        coordinates: Vec::new(),
        weighting: Weighting::Uniform,
        bits: Bits::FULL,
        nodes: 10,
        minimum: 8,
        colluders: 1,
        units_per_node: 1,
        divisor: 1.0,
        step: 1 << 30,
        sigma: 4,
    }
}

fn coordinate(statistic: Statistic) -> Coordinate {
    Coordinate { statistic, share: 1.0 }
}

fn reported(bound: f64) -> Statistic {
    Statistic::Reported { name: "loss".into(), bound }
}

/// With 2^40 fine units in a clip norm and 2^30 in a grid unit: C is 2,048 for four coordinates, 1,024 for one, and √2 times as much
/// with a statistic of share 1.
#[test]
fn sensitivities_are_those_of_the_formulas() {
    let of = |unit, dimension, coordinates: &[Coordinate]| {
        Parameters { dimension, coordinates: coordinates.to_vec(), ..parameters(unit) }.sensitivity_squared()
    };
    let one = [coordinate(reported(1.0))];
    // C² + D/4 + C + √D/2.
    assert_eq!(of(Unit::Node, 4, &[]), (1 << 22) + 1 + (1 << 11) + 1);
    assert_eq!(of(Unit::Node, 3, &one), (1 << 23) + 1 + 2896 + 1);
    assert_eq!(of(Unit::Node, 0, &one), (1 << 20) + 1024, "a whole number is enforced");
    // (C + √D)², and up to the next whole number whatever a float lost.
    for unit in [Unit::Entity, Unit::Example] {
        assert_eq!(of(unit, 4, &[]), 2050 * 2050 + 1);
        assert_eq!(of(unit, 3, &one), (1 << 23) + 11_585 + 4 + 1);
    }
    assert_eq!(Statistic::WithinClip { quantile: 0.25 }.bound(), 0.75);
    assert_eq!(Statistic::WithinClip { quantile: 0.75 }.bound(), 0.75);
}

#[test]
fn limits_are_allowed_and_what_lies_behind_them_is_refused() {
    let check = |change: &dyn Fn(&mut Parameters), unit| {
        let mut parameters = parameters(unit);
        change(&mut parameters);
        parameters.check()
    };
    let node = |allowed: &dyn Fn(&mut Parameters), refused: &dyn Fn(&mut Parameters)| {
        assert_eq!(check(allowed, Unit::Node), Ok(()));
        check(refused, Unit::Node).unwrap_err()
    };
    let conflict = |fault: Fault, words: &str| assert!(fault.to_string().contains(words), "{fault}");
    let many = |n| vec![coordinate(reported(1.0)); n];
    let of = |statistic| vec![coordinate(statistic)];

    assert!(matches!(node(&|p| p.dimension = 1 << 28, &|p| p.dimension = (1 << 28) + 1), Fault::Range { what: "a dimension", .. }));
    assert!(matches!(check(&|p| p.dimension = 0, Unit::Node), Err(Fault::Range { what: "a dimension", .. })));
    conflict(node(&|p| p.coordinates = many(16), &|p| p.coordinates = many(17)), "16 statistics");
    for share in [1e-6, 1.0] {
        let with = |share: f64| move |p: &mut Parameters| p.coordinates = vec![Coordinate { statistic: reported(1.0), share }];
        let outside = if share < 1.0 { share * 0.99 } else { share * 1.01 };
        assert!(matches!(node(&with(share), &with(outside)), Fault::Range { what: "a statistic's share", .. }));
    }
    for (bound, outside) in [(1e-30, 0.9e-30), (1e30, 1.1e30), (1.0, f64::NAN)] {
        let fault = node(&|p| p.coordinates = of(reported(bound)), &|p| p.coordinates = of(reported(outside)));
        assert!(matches!(fault, Fault::Range { what: "a statistic's bound", .. }));
    }
    for outside in [0.0, 1.0, f64::NAN] {
        let within = |quantile| move |p: &mut Parameters| p.coordinates = of(Statistic::WithinClip { quantile });
        assert!(matches!(node(&within(0.5), &within(outside)), Fault::Range { what: "a quantile", .. }));
    }
    let weighted = |cap, n: usize| {
        move |p: &mut Parameters| (p.weighting, p.coordinates) = (Weighting::Examples { cap }, vec![coordinate(Statistic::Weight); n])
    };
    conflict(node(&weighted(1, 1), &weighted(0, 1)), "an example cap of 0");
    conflict(node(&weighted(1, 1), &weighted(1, 2)), "exactly one statistic");
    conflict(node(&weighted(1, 1), &weighted(1, 0)), "exactly one statistic");
    conflict(node(&weighted(1, 1), &|p| p.coordinates = of(Statistic::Weight)), "an unweighted one carries none");
    for n in [0, 1] {
        conflict(check(&weighted(1, n), Unit::Example).unwrap_err(), "only when the unit is the node");
    }
    conflict(node(&|p| p.units_per_node = 1, &|p| p.units_per_node = 2), "one unit");
    assert_eq!(check(&|p| p.units_per_node = 2, Unit::Example), Ok(()));
    conflict(check(&|p| p.units_per_node = 0, Unit::Example).unwrap_err(), "one unit");
    for (divisor, outside) in [(1.0, 0.99), (1e15, 1.01e15), (2.0, f64::NAN)] {
        assert_eq!(check(&|p| p.divisor = divisor, Unit::Example), Ok(()));
        assert!(matches!(check(&|p| p.divisor = outside, Unit::Example), Err(Fault::Range { what: "a divisor", .. })));
        assert_eq!(check(&|p| p.divisor = outside, Unit::Node), Ok(()), "not used there");
    }
    conflict(node(&|p| p.minimum = 10, &|p| p.minimum = 11), "the fewest nodes");
    conflict(check(&|p| p.minimum = 0, Unit::Node).unwrap_err(), "the fewest nodes");
    conflict(node(&|p| p.colluders = 7, &|p| p.colluders = 8), "assumed to collude");
    conflict(node(&|p| p.colluders = 1, &|p| p.colluders = 0), "assumed to collude");
    assert_eq!(check(&|p| (p.trust, p.colluders) = (Trust::Central, 0), Unit::Node), Ok(()));
    // The largest sum that there is still has a fraction.
    assert_eq!(check(&|p| (p.dimension, p.units_per_node) = (1 << 28, u32::MAX), Unit::Example), Ok(()));
    assert_eq!((fraction(1 << 28, u32::MAX), fraction(1, 1)), (13, 40));
    assert!(matches!(node(&|p| p.step = 1 << 61, &|p| p.step = (1 << 61) + 1), Fault::Range { what: "a grid step", .. }));
    assert!(matches!(node(&|p| p.step = 1, &|p| p.step = 0), Fault::Range { what: "a grid step", .. }));
    assert!(matches!(node(&|p| p.sigma = 4, &|p| p.sigma = 3), Fault::Sigma { sigma: 3, least: 4 }));
    assert!(matches!(node(&|p| p.sigma = 1 << 31, &|p| p.sigma = (1 << 31) + 1), Fault::Sigma { .. }));
}

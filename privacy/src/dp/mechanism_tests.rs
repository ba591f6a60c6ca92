//! Both ends together: what comes out, how much noise is in it, what a repeated seed gives away, and what is refused.
//! Seeds are fixed; each statistical test states how often a right mechanism would fail it with fresh ones.

use proptest::prelude::*;

use super::{super::*, *};
use crate::Bits;

const ROTATION: RotationSeed = RotationSeed::new([9; 32]);

fn seed(number: u64) -> NoiseSeed {
    NoiseSeed::draw(|bytes| {
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Ok::<(), ()>(())
    })
    .unwrap()
}

fn request(unit: Unit) -> Request {
    Request {
        unit,
        trust: Trust::Distributed,
        epsilon: 8.0,
        delta: 1e-5,
        rounds: 1,
        cohort: 10,
        dropout: 0.2,
        corruption: 0.0,
        dimension: 100,
        clip: 2.0,
        bits: None,
        coordinates: Vec::new(),
        weighting: Weighting::Uniform,
        units_per_node: if unit == Unit::Node { 1 } else { 40 },
        divisor: 200.0,
    }
}

fn reported(name: &str, bound: f64, share: f64) -> Coordinate {
    Coordinate { statistic: Statistic::Reported { name: name.into(), bound }, share }
}

/// Hardly any noise, so that what is left is the codec: an ε that nobody should promise.
fn loud(unit: Unit) -> Request {
    Request { epsilon: 5e5, bits: Some(Bits::FULL), ..request(unit) }
}

fn update(node: u64, dimension: usize, norm: f64) -> Vec<f32> {
    let raw: Vec<f64> = (0..dimension).map(|i| ((i as f64 + 1.3) * (node as f64 + 0.7)).sin()).collect();
    let length = raw.iter().map(|x| x * x).sum::<f64>().sqrt();
    raw.iter().map(|x| (x / length * norm) as f32).collect()
}

fn distance(a: &[f32], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn the_mean_of_clipped_updates_comes_out_with_its_statistics() {
    let coordinates = vec![reported("loss", 8.0, 0.2), Coordinate { statistic: Statistic::WithinClip { quantile: 0.5 }, share: 0.1 }];
    let plan = Plan::solve(&Request { coordinates, ..loud(Unit::Node) }).unwrap();
    let mechanism = plan.mechanism().unwrap();
    let mut sum = mechanism.accumulator();
    let (mut expected, mut clipped) = (vec![0.0; 100], 0);
    for node in 0..10u64 {
        // Norms 0.5, 1.0, … 5.0: the first four lie within the clip norm of 2.
        let (norm, loss) = (0.5 * (node + 1) as f64, node as f64);
        let x = update(node, 100, norm);
        let (share, outcome) = mechanism.encode_node(&x, &[loss], 1, ROTATION, seed(node)).unwrap();
        clipped += u32::from(outcome.clipped);
        assert!((outcome.norm - norm).abs() < 1e-5);
        for (sum, x) in expected.iter_mut().zip(&x) {
            *sum += f64::from(*x) * (2.0 / norm).min(1.0) / 10.0;
        }
        assert_eq!(share.lanes().len(), 128);
        assert_eq!(share.pack().len(), mechanism.packed_len());
        sum.add_packed(&share.pack()).unwrap();
    }
    let release = mechanism.decode(&sum, ROTATION).unwrap();
    let noise = plan.forecast.noise_norm;
    assert!(distance(&release.update, &expected) < 2.0 * noise + 1e-6, "{} with noise {noise}", distance(&release.update, &expected));
    assert!(noise < 0.05, "{noise}");
    assert!(clipped == 6 || clipped == 7, "a norm of 2.0 may fall on either side");
    assert!((release.statistics[0] - 4.5).abs() < 0.3, "{:?}", release.statistics);
    let within = f64::from(10 - clipped) / 10.0 - 0.5;
    assert!((release.statistics[1] - within).abs() < 0.1, "{:?}", release.statistics);
    assert_eq!(release.survivors, 10);
    assert_eq!(release.rho_coordinator, plan.parameters.rho(Observer::Coordinator, 10).unwrap());
    assert_eq!(release.rho_outsider, plan.parameters.rho(Observer::Outsider, 10).unwrap());
}

#[test]
fn weights_count_inside_the_sum() {
    let weighting = Weighting::Examples { cap: 100 };
    let coordinates = vec![Coordinate { statistic: Statistic::Weight, share: 0.5 }];
    let mechanism = Plan::solve(&Request { weighting, coordinates, ..loud(Unit::Node) }).unwrap().mechanism().unwrap();
    let mut sum = mechanism.accumulator();
    for (node, examples) in [(0u64, 25u64), (1, 50), (2, 100), (3, 1000), (4, 0), (5, 0), (6, 0), (7, 0)] {
        let (share, _) = mechanism.encode_node(&update(node, 100, 1.0), &[], examples, ROTATION, seed(node)).unwrap();
        sum.add_packed(&share.pack()).unwrap();
    }
    let release = mechanism.decode(&sum, ROTATION).unwrap();
    let mut expected = vec![0.0; 100];
    for (node, weight) in [(0, 0.25), (1, 0.5), (2, 1.0), (3, 1.0)] {
        for (sum, x) in expected.iter_mut().zip(update(node, 100, 1.0)) {
            *sum += f64::from(x) * weight / 2.75;
        }
    }
    assert!((release.statistics[0] - 2.75).abs() < 0.1, "{:?}", release.statistics);
    assert!(distance(&release.update, &expected) < 0.1);
    // Of ten nodes, one counts for a twentieth: less than a hundredth each, where the quotient would be noise.
    let silent = mechanism.clone().with_noise(0);
    for (examples, lost) in [(0, true), (5, true), (20, false)] {
        let mut sum = mechanism.accumulator();
        for node in 0..10 {
            let examples = if node == 0 { examples } else { 0 };
            let (share, _) = silent.encode_node(&update(node, 100, 1.0), &[], examples, ROTATION, seed(node)).unwrap();
            sum.add_packed(&share.pack()).unwrap();
        }
        assert_eq!(mechanism.decode(&sum, ROTATION) == Err(Fault::WeightLost), lost, "{examples}");
    }
}

#[test]
fn units_are_clipped_one_by_one_and_divided_by_the_public_constant() {
    for unit in [Unit::Example, Unit::Entity] {
        let plan = Plan::solve(&Request { coordinates: vec![reported("correct", 1.0, 0.3)], ..loud(unit) }).unwrap();
        let mechanism = plan.mechanism().unwrap();
        let (mut sum, mut expected) = (mechanism.accumulator(), vec![0.0; 100]);
        for node in 0..8u64 {
            let mut units = mechanism.unit_sum();
            for example in 0..20 {
                let norm = if example % 2 == 0 { 0.5 } else { 50.0 };
                let x = update(node * 100 + example, 100, norm);
                mechanism.add_unit(&mut units, &x, &[f64::from(u8::from(example < 5))]).unwrap();
                for (sum, x) in expected.iter_mut().zip(&x) {
                    *sum += f64::from(*x) * (2.0 / norm).min(1.0) / 200.0;
                }
            }
            assert_eq!(units.units(), 20);
            sum.add_packed(&mechanism.encode_units(&units, ROTATION, seed(node)).unwrap().pack()).unwrap();
        }
        let release = mechanism.decode(&sum, ROTATION).unwrap();
        assert!(distance(&release.update, &expected) < 2.0 * plan.forecast.noise_norm + 1e-6);
        assert!((release.statistics[0] - 40.0 / 200.0).abs() < 0.02, "{:?}", release.statistics);
    }
}

/// The order of units cannot matter, and one more unit changes the sum by that unit alone: integers.
#[test]
fn sums_of_units_are_exact() {
    let mechanism = Plan::solve(&request(Unit::Example)).unwrap().mechanism().unwrap();
    let of = |order: &[u64]| {
        let mut sum = mechanism.unit_sum();
        for example in order {
            mechanism.add_unit(&mut sum, &update(*example, 100, 1e-3 * (*example as f64).exp()), &[]).unwrap();
        }
        sum.fine.clone()
    };
    assert_eq!(of(&[1, 2, 3, 9, 20]), of(&[20, 3, 9, 1, 2]));
    let difference: Vec<i64> = of(&[1, 2, 3]).iter().zip(of(&[1, 3])).map(|(a, b)| a - b).collect();
    assert_eq!(difference, of(&[2]));
}

/// Each coordinate of the sum over S survivors carries variance S·σ²: χ² over 2^16 coordinates and S in {10, 9, 8} within 5 deviations,
/// 6e-7 each.
#[test]
fn the_sum_carries_one_share_of_noise_for_each_survivor() {
    for unit in [Unit::Node, Unit::Example] {
        let plan = Plan::solve(&Request { dimension: 1 << 16, ..request(unit) }).unwrap();
        let mechanism = plan.mechanism().unwrap();
        for survivors in [10, 9, 8] {
            let deviate = noise_deviate(&mechanism, &mechanism, survivors);
            assert!(deviate.abs() < 5.0, "{unit:?}, {survivors} survivors: {deviate} deviations");
        }
        // The same measurement notices a missing share and half the noise.
        assert!(noise_deviate(&mechanism, &mechanism.clone().with_noise(plan.parameters.sigma / 2), 10) < -50.0);
        assert!(noise_deviate(&mechanism, &mechanism.clone().with_noise(0), 10) < -50.0);
    }
}

/// By how many standard deviations Σ noise² differs from what `claimed` says, in a sum that `real` encoded.
fn noise_deviate(claimed: &Mechanism, real: &Mechanism, survivors: u64) -> f64 {
    let mut sum = claimed.accumulator();
    for node in 0..survivors {
        let share = match claimed.parameters().unit {
            Unit::Node => real.encode_node(&vec![0.0; 1 << 16], &[], 1, ROTATION, seed(100 + node)).unwrap().0,
            _ => real.encode_units(&real.unit_sum(), ROTATION, seed(100 + node)).unwrap(),
        };
        sum.add_packed(&share.pack()).unwrap();
    }
    let variance = f64::from(claimed.parameters().sigma).powi(2) * survivors as f64;
    let statistic: f64 = sum.centred().map(|x| f64::from(x).powi(2) / variance).sum();
    let n = sum.len() as f64;
    (statistic - n) / (2.0 * n).sqrt()
}

/// What is forecast is what is measured: noise norm within 3 %, 4 deviations of it at d = 10,000 (6e-5).
#[test]
fn the_forecast_is_what_happens() {
    for unit in [Unit::Node, Unit::Example] {
        let plan = Plan::solve(&Request { dimension: 10_000, ..request(unit) }).unwrap();
        let mechanism = plan.mechanism().unwrap();
        let mut sum = mechanism.accumulator();
        for node in 0..8 {
            let share = match unit {
                Unit::Node => mechanism.encode_node(&vec![0.0; 10_000], &[], 1, ROTATION, seed(node)).unwrap().0,
                _ => mechanism.encode_units(&mechanism.unit_sum(), ROTATION, seed(node)).unwrap(),
            };
            sum.add_packed(&share.pack()).unwrap();
        }
        let release = mechanism.decode(&sum, ROTATION).unwrap();
        let measured = distance(&release.update, &vec![0.0; 10_000]);
        assert!((measured / plan.forecast.noise_norm - 1.0).abs() < 0.03, "{measured} for {}", plan.forecast.noise_norm);
    }
}

/// With the room that the plan leaves nothing wraps; with less room it does, about as often as the normal tail says. The true sum is
/// known, so every wrap is counted: 40 rounds of 4,096 coordinates.
#[test]
fn wrapping_around_is_counted() {
    let plan = Plan::solve(&Request { dimension: 4096, ..request(Unit::Node) }).unwrap();
    let wraps = |parameters: &Parameters| {
        let mechanism = Mechanism::new(parameters.clone(), 2.0).unwrap();
        let wide = Mechanism::new(Parameters { bits: Bits::FULL, ..parameters.clone() }, 2.0).unwrap();
        let mut count = 0;
        for round in 0..40u64 {
            let (mut sum, mut truth) = (mechanism.accumulator(), wide.accumulator());
            for node in 0..10 {
                // All pull the same way as far as they may: the worst sum.
                let x = update(round, 4096, 2.0);
                let number = round * 100 + node;
                sum.add_packed(&mechanism.encode_node(&x, &[], 1, ROTATION, seed(number)).unwrap().0.pack()).unwrap();
                truth.add_packed(&wide.encode_node(&x, &[], 1, ROTATION, seed(number)).unwrap().0.pack()).unwrap();
            }
            count += sum.centred().zip(truth.centred()).filter(|(a, b)| a != b).count();
        }
        count
    };
    assert_eq!(wraps(&plan.parameters), 0);
    // One bit less leaves half the room, between 3.5 and 7 deviations; two bits less, a quarter.
    let tight = Parameters { bits: Bits::new(plan.parameters.bits.get() - 2).unwrap(), ..plan.parameters };
    let deviations = Plan::of(&Mechanism::new(tight.clone(), 2.0).unwrap(), 1, 1e-5).unwrap();
    let found = wraps(&tight);
    let bound = deviations.forecast.wraps_per_round * 40.0;
    assert!(found > 0 && (found as f64) < bound, "{found} wraps; the sub-Gaussian bound says at most {bound}");
}

/// Two rounds with the same seed carry the same noise: their difference is the difference of the updates, in clear. This is what a
/// used-up [`NoiseSeed`] prevents, and how it would be caught.
#[test]
fn a_repeated_seed_shows_when_two_rounds_are_subtracted() {
    let plan = Plan::solve(&Request { dimension: 4096, ..request(Unit::Node) }).unwrap();
    let mechanism = plan.mechanism().unwrap();
    let share = |x: &[f32], number| mechanism.encode_node(x, &[], 1, ROTATION, seed(number)).unwrap().0;
    let difference = |a: &Share, b: &Share| -> f64 {
        let bits = plan.parameters.bits;
        let total: f64 = a.lanes().iter().zip(b.lanes()).map(|(a, b)| f64::from(bits.centre(a.wrapping_sub(*b))).powi(2)).sum();
        // Over two independent shares this is 1 up to 5·√(2/4096) = 0.11.
        total / (2.0 * 4096.0 * f64::from(plan.parameters.sigma).powi(2))
    };
    let (first, second) = (update(1, 4096, 1.0), update(1, 4096, 1.001));
    assert!((difference(&share(&first, 1), &share(&second, 2)) - 1.0).abs() < 0.11, "fresh seeds");
    assert!(difference(&share(&first, 1), &share(&second, 1)) < 0.01, "a repeated one");
}

#[test]
fn central_noise_is_added_once_and_only_by_the_coordinator() {
    let plan = Plan::solve(&Request { trust: Trust::Central, dimension: 10_000, ..request(Unit::Node) }).unwrap();
    let mechanism = plan.mechanism().unwrap();
    let mut sum = mechanism.accumulator();
    for node in 0..8 {
        let (share, _) = mechanism.encode_node(&vec![0.0; 10_000], &[], 1, ROTATION, seed(node)).unwrap();
        assert!(share.lanes().iter().all(|lane| *lane == 0), "no noise from nodes");
        sum.add_packed(&share.pack()).unwrap();
    }
    assert!(matches!(mechanism.decode(&sum, ROTATION), Err(Fault::Conflict { .. })));
    let release = mechanism.decode_central(&sum, ROTATION, seed(77)).unwrap();
    let measured = distance(&release.update, &vec![0.0; 10_000]);
    assert!((measured / plan.forecast.noise_norm - 1.0).abs() < 0.03, "{measured} for {}", plan.forecast.noise_norm);
    let distributed = Plan::solve(&request(Unit::Node)).unwrap().mechanism().unwrap();
    assert!(matches!(distributed.decode_central(&distributed.accumulator(), ROTATION, seed(1)), Err(Fault::Conflict { .. })));
}

#[test]
fn what_does_not_fit_is_refused() {
    let node = Plan::solve(&Request { coordinates: vec![reported("loss", 1.0, 0.1)], ..request(Unit::Node) }).unwrap().mechanism().unwrap();
    let example = Plan::solve(&request(Unit::Example)).unwrap().mechanism().unwrap();
    let encode = |update: &[f32], reported: &[f64]| node.encode_node(update, reported, 1, ROTATION, seed(1)).map(|_| ()).unwrap_err();
    assert!(matches!(encode(&[0.0; 99], &[0.0]), Fault::Length { what: "floats of an update", expected: 100, actual: 99 }));
    assert!(matches!(encode(&[0.0; 100], &[]), Fault::Length { what: "reported statistics", .. }));
    assert!(matches!(node.encode_units(&node.unit_sum(), ROTATION, seed(1)).map(|_| ()), Err(Fault::Conflict { .. })));
    assert!(matches!(example.encode_node(&[0.0; 100], &[], 1, ROTATION, seed(1)).map(|_| ()), Err(Fault::Conflict { .. })));
    assert!(matches!(example.encode_units(&node.unit_sum(), ROTATION, seed(1)).map(|_| ()), Err(Fault::Length { .. })));
    let mut units = example.unit_sum();
    for _ in 0..40 {
        example.add_unit(&mut units, &[0.0; 100], &[]).unwrap();
    }
    let before = units.fine.clone();
    assert_eq!(example.add_unit(&mut units, &[1.0; 100], &[]), Err(Fault::TooManyUnits { most: 40 }));
    assert_eq!(units.fine, before);

    let mut sum = node.accumulator();
    for number in 0..7 {
        sum.add_packed(&node.encode_node(&[0.0; 100], &[0.0], 1, ROTATION, seed(number)).unwrap().0.pack()).unwrap();
    }
    assert_eq!(node.decode(&sum, ROTATION), Err(Fault::TooFewSurvivors { survivors: 7, minimum: 8 }));
    let other = |bits: u8| Accumulator::new(node.accumulator().len(), Bits::new(bits).unwrap(), 10);
    assert_eq!(node.decode(&other(node.parameters().bits.get() - 1), ROTATION), Err(Fault::Mismatch));
    let mut crowd = Accumulator::new(node.accumulator().len(), node.parameters().bits, 11);
    for _ in 0..11 {
        crowd.add_packed(&vec![0; node.packed_len()]).unwrap();
    }
    assert_eq!(node.decode(&crowd, ROTATION), Err(Fault::Mismatch), "more than take part");
    assert_eq!(node.decode(&Accumulator::new(64, node.parameters().bits, 10), ROTATION), Err(Fault::Mismatch));
    assert!(matches!(Mechanism::new(Parameters { sigma: 3, ..node.parameters().clone() }, 1.0), Err(Fault::Sigma { sigma: 3, least: 4 })));
    assert!(Mechanism::new(Parameters { step: 0, ..node.parameters().clone() }, 1.0).is_err());
    assert!(Mechanism::new(Parameters { minimum: 11, ..node.parameters().clone() }, 1.0).is_err());
    assert!(Mechanism::new(Parameters { colluders: 0, ..node.parameters().clone() }, 1.0).is_err(), "one colluder is always assumed");
    assert!(Mechanism::new(node.parameters().clone(), f64::INFINITY).is_err());
    assert_eq!(NoiseSeed::draw(|_| Err("no entropy")).err(), Some("no entropy"));
}

/// What is not noised yet, not masked yet, or gives the noise away.
#[test]
fn secrets_wipe_themselves() {
    fn wiped<T: ZeroizeOnDrop>() {}
    wiped::<NoiseSeed>();
    wiped::<Share>();
    wiped::<UnitSum>();
    let mechanism = Plan::solve(&request(Unit::Example)).unwrap().mechanism().unwrap();
    let mut units = mechanism.unit_sum();
    mechanism.add_unit(&mut units, &update(1, 100, 1.0), &[]).unwrap();
    let mut share = mechanism.encode_units(&units, ROTATION, seed(1)).unwrap();
    units.zeroize();
    share.zeroize();
    assert!(units.fine.is_empty() && units.scratch.is_empty() && units.units == 0 && share.lanes.is_empty());
}

/// What a node might report: any bits of an f64. One in four is denormal, one is infinite, one is no number.
fn any_bits() -> impl Strategy<Value = f64> {
    const EXPONENT: u64 = 0x7ff << 52;
    (any::<u64>(), 0..4).prop_map(|(bits, kind)| {
        f64::from_bits(match kind {
            0 => bits,
            1 => bits & !EXPONENT,
            2 => bits & 1 << 63 | EXPONENT,
            _ => bits | EXPONENT | 1,
        })
    })
}

/// A statistic beyond its bound counts as the bound, and what is no number as nothing, like an update that holds one.
#[test]
fn statistics_are_bounded() {
    for unit in [Unit::Node, Unit::Example] {
        let mechanism =
            Plan::solve(&Request { coordinates: vec![reported("loss", 3.0, 0.5)], ..request(unit) }).unwrap().mechanism().unwrap();
        let lanes = |loss: f64| {
            let x = update(1, 100, 1.0);
            let share = if unit == Unit::Node {
                mechanism.encode_node(&x, &[loss], 1, ROTATION, seed(1)).unwrap().0
            } else {
                let mut units = mechanism.unit_sum();
                mechanism.add_unit(&mut units, &x, &[loss]).unwrap();
                mechanism.encode_units(&units, ROTATION, seed(1)).unwrap()
            };
            share.lanes().to_vec()
        };
        for (strange, plain) in [
            (f64::NAN, 0.0),
            (-f64::NAN, 0.0),
            (f64::from_bits(1), 0.0),
            (-f64::MIN_POSITIVE, 0.0),
            (f64::INFINITY, 3.0),
            (f64::MAX, 3.0),
            (f64::NEG_INFINITY, -3.0),
            (f64::MIN, -3.0),
        ] {
            assert!(lanes(strange) == lanes(plain), "{strange} is not {plain} under {unit:?}");
        }
        assert!(lanes(0.0) != lanes(3.0) && lanes(0.0) != lanes(-3.0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// What a node sends before noise is never longer than the sensitivity that is accounted, whatever the update holds.
    #[test]
    fn no_update_exceeds_the_sensitivity(bits in prop::collection::vec(any::<u32>(), 100), loss in any_bits(), number in any::<u64>(), scale in -20f64..20.0, coarse in 0u32..20) {
        let plan = Plan::solve(&Request { coordinates: vec![reported("loss", 3.0, 0.5)], ..request(Unit::Node) }).unwrap();
        // From the planned grid to one of a few steps below the clip norm.
        let parameters = Parameters { step: plan.parameters.step << coarse, ..plan.parameters };
        let silent = Mechanism::new(parameters, scale.exp2()).unwrap().with_noise(0);
        let update: Vec<f32> = bits.iter().map(|b| f32::from_bits(*b)).collect();
        let (share, _) = silent.encode_node(&update, &[loss], 1, ROTATION, seed(number)).unwrap();
        let bits = silent.parameters().bits;
        let square: u128 = share.lanes().iter().map(|lane| u128::from(bits.centre(*lane).unsigned_abs()).pow(2)).sum();
        prop_assert!(square <= silent.parameters().sensitivity_squared());
    }

    /// With the same rounding, one unit more moves the shares of its node by at most the sensitivity that is accounted.
    #[test]
    fn one_unit_more_moves_the_sum_by_at_most_the_sensitivity(bits in prop::collection::vec(any::<u32>(), 100), correct in any_bits(), number in any::<u64>(), coarse in 0u32..14) {
        let plan = Plan::solve(&Request { coordinates: vec![reported("correct", 1.0, 0.3)], ..request(Unit::Example) }).unwrap();
        let parameters = Parameters { step: plan.parameters.step << coarse, bits: Bits::FULL, ..plan.parameters };
        let silent = Mechanism::new(parameters, 2.0).unwrap().with_noise(0);
        let mut units = silent.unit_sum();
        for example in 0..10 {
            silent.add_unit(&mut units, &update(example, 100, 30.0), &[1.0]).unwrap();
        }
        let without = silent.encode_units(&units, ROTATION, seed(number)).unwrap();
        let update: Vec<f32> = bits.iter().map(|b| f32::from_bits(*b)).collect();
        silent.add_unit(&mut units, &update, &[correct]).unwrap();
        let with = silent.encode_units(&units, ROTATION, seed(number)).unwrap();
        let square: u128 = with.lanes().iter().zip(without.lanes()).map(|(a, b)| u128::from((a.wrapping_sub(*b) as i32).unsigned_abs()).pow(2)).sum();
        prop_assert!(square <= silent.parameters().sensitivity_squared());
    }
}

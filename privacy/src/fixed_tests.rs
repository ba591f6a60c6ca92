use proptest::prelude::*;

use super::*;

fn encoding(bits: u8, nodes: u32, weighting: Weighting) -> Encoding {
    Encoding::new(2.0, Bits::new(bits).unwrap(), nodes, weighting).unwrap()
}
fn says(examples: u64, correct: Option<u64>, loss: f64) -> Contribution {
    Contribution { examples, correct, loss }
}
fn sum(encoding: &Encoding, dimension: usize, updates: &[(Vec<f32>, Contribution)]) -> Accumulator {
    let mut sum = encoding.accumulator(dimension);
    for (update, contribution) in updates {
        sum.add_packed(&encoding.encode(update, contribution).unwrap().bytes).unwrap();
    }
    sum
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let full = Bits::FULL;
    for clip in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-40, 1e31] {
        assert!(matches!(Encoding::new(clip, full, 1, Weighting::Uniform), Err(Fault::Clip { .. })), "{clip}");
    }
    assert_eq!(Encoding::new(1.0, full, 0, Weighting::Uniform), Err(Fault::NoNodes));
    assert_eq!(Encoding::new(1.0, full, 1, Weighting::Examples { cap: 0 }), Err(Fault::NoCap));
}

/// The refusal says what would do, and it does.
#[test]
fn a_coarse_grid_names_the_way_out() {
    for bits in 8..=32u8 {
        for nodes in [1u32, 2, 3, 10, 100, 1000, 10_000, 262_143, 262_144, u32::MAX] {
            let b = Bits::new(bits).unwrap();
            let Err(fault) = Encoding::new(1.0, b, nodes, Weighting::Uniform) else { continue };
            let Fault::TooCoarse { needed, most, .. } = fault else { panic!("{fault}") };
            if let Some(bits) = u8::try_from(needed).ok().and_then(|n| Bits::new(n).ok()) {
                Encoding::new(1.0, bits, nodes, Weighting::Uniform).unwrap();
            }
            if most > 0 {
                Encoding::new(1.0, b, most, Weighting::Uniform).unwrap();
                assert!(Encoding::new(1.0, b, most + 1, Weighting::Uniform).is_err());
            }
            assert!(u32::from(bits) < needed);
        }
    }
}

#[test]
fn what_is_no_number_is_refused_with_its_place() {
    let encoding = encoding(32, 3, Weighting::Uniform);
    let ok = says(1, None, 0.5);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut update = vec![0.25; 100];
        update[37] = bad;
        update[80] = f32::NAN;
        assert!(matches!(encoding.encode(&update, &ok), Err(Fault::NonFinite { index: 37, .. })), "{bad}");
    }
    assert!(matches!(encoding.encode(&[1.0], &says(1, None, f64::NAN)), Err(Fault::Loss { .. })));
    assert_eq!(encoding.encode(&[1.0], &says(0, None, 0.0)).err(), Some(Fault::NoExamples));
    assert_eq!(encoding.encode(&[1.0], &says(3, Some(4), 0.0)).err(), Some(Fault::Correct { correct: 4, examples: 3 }));
}

/// The largest finite values are clipped like any other.
#[test]
fn huge_updates_are_clipped_to_the_norm() {
    let encoding = encoding(32, 2, Weighting::Uniform);
    let encoded = encoding.encode(&[f32::MAX; 4], &says(1, None, 0.0)).unwrap();
    assert!(encoded.clipped && encoded.norm > 6e38);
    let mut acc = encoding.accumulator(4);
    acc.add_packed(&encoded.bytes).unwrap();
    let mean = encoding.decode(&acc, 4).unwrap();
    assert_eq!(mean.totals.clipped, 1);
    assert!(mean.update().all(|x| (x - 1.0).abs() < 1e-6), "2.0 over 4 equal coordinates is 1.0 each");
}

/// Half-even against the standard library, over the whole range that a grid value can take.
#[test]
fn rounding_is_half_even() {
    for v in [-2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5, 1e9 + 0.5, -2_147_483_646.5, 2_147_483_647.0] {
        assert_eq!(round_half_even(v) as i32, v.round_ties_even() as i32, "{v}");
    }
}

/// Weights cap: 5 of 10 counts half, 50 of 10 counts one.
#[test]
fn examples_weigh_up_to_the_cap() {
    let encoding = encoding(32, 2, Weighting::Examples { cap: 10 });
    let updates = [(vec![1.0f32, 0.0], says(5, Some(4), 1.0)), (vec![0.0, 1.0], says(50, Some(30), 0.5))];
    let acc = sum(&encoding, 2, &updates);
    let mean = encoding.decode(&acc, 2).unwrap();
    let got: Vec<f32> = mean.update().collect();
    assert!((got[0] - 1.0 / 3.0).abs() < 1e-6 && (got[1] - 2.0 / 3.0).abs() < 1e-6, "{got:?}");
    let totals = mean.totals;
    assert_eq!((totals.nodes, totals.examples, totals.correct, totals.clipped), (2, 55, 34, 0));
    assert_eq!((totals.weight, totals.accuracy()), (1.5, Some(34.0 / 55.0)));
    assert!((totals.loss_mean - 30.0 / 55.0).abs() < 1e-4);
}

#[test]
fn a_sum_of_another_round_does_not_decode() {
    let grid = encoding(32, 2, Weighting::Uniform);
    let acc = sum(&grid, 3, &[(vec![0.5; 3], says(1, None, 0.0))]);
    assert_eq!(grid.decode(&acc, 2).err(), Some(Fault::Mismatch));
    assert_eq!(encoding(31, 2, Weighting::Uniform).decode(&acc, 3).err(), Some(Fault::Mismatch));
    assert!(matches!(grid.decode(&grid.accumulator(3), 3).err(), Some(Fault::Totals { .. })), "an empty sum has no mean");
}

/// Counters that contradict each other, as only a forged vector has, are refused.
#[test]
fn forged_counters_are_refused() {
    let grid = encoding(32, 2, Weighting::Uniform);
    let mut lanes = vec![0u32; grid.elements(1)];
    let mut refused = |counter: usize, value: u32| {
        lanes[1 + counter * grid.limbs()] = value;
        let mut acc = grid.accumulator(1);
        acc.add_packed(&wire::pack(&lanes, Bits::FULL).unwrap()).unwrap();
        grid.decode(&acc, 1).err()
    };
    assert!(matches!(refused(0, 2), Some(Fault::Totals { .. })), "counts two nodes");
    assert!(matches!(refused(0, 1), Some(Fault::Totals { .. })), "no weight");
    assert_eq!(refused(1, 1), None);
    assert!(matches!(refused(1, 5), Some(Fault::Totals { .. })), "too much weight");
    assert_eq!(refused(1, 1), None);
    assert!(matches!(refused(4, 1), Some(Fault::Totals { .. })), "right answers without examples");
    assert_eq!(refused(4, 0), None);
    assert!(matches!(refused(6, 2), Some(Fault::Totals { .. })), "more clipped than nodes");
}

#[test]
fn parameters_must_stay_finite() {
    let grid = encoding(32, 1, Weighting::Uniform);
    let acc = sum(&grid, 2, &[(vec![0.0, 1.0], says(1, None, 0.0))]);
    let mean = grid.decode(&acc, 2).unwrap();
    let mut parameters = [1.0, 2.0];
    mean.add_to(&mut parameters, 0.5).unwrap();
    assert_eq!(parameters[0], 1.0);
    assert!((parameters[1] - 2.5).abs() < 1e-6);
    assert_eq!(mean.add_to(&mut [0.0, f32::MAX], 1e39), Err(Fault::Overflow { index: 1 }));
    assert!(matches!(mean.add_to(&mut [0.0], 1.0), Err(Fault::Length { .. })));
}

fn updates() -> impl Strategy<Value = (u8, Weighting, Vec<(Vec<f32>, Contribution)>)> {
    let weighting = prop_oneof![Just(Weighting::Uniform), (1u32..500).prop_map(|cap| Weighting::Examples { cap })];
    (17u8..=32, weighting, 0usize..20, 1usize..10).prop_flat_map(|(bits, weighting, d, n)| {
        // Tiny, ordinary, and far beyond the clip norm, with the corners of f32.
        let value = prop_oneof![-1f32..1.0, -1e-6f32..1e-6, -1e30f32..1e30, Just(f32::MAX), Just(f32::MIN_POSITIVE), Just(0.0)];
        let contribution = (1u64..1000, any::<bool>(), 0f64..100.0).prop_map(|(n, scored, loss)| says(n, scored.then_some(n / 2), loss));
        (Just(bits), Just(weighting), prop::collection::vec((prop::collection::vec(value, d), contribution), n))
    })
}

proptest! {
    /// No feasible encoding wraps, the mean stays within the stated bound, and the counters are exact.
    #[test]
    fn the_mean_is_within_its_bound((bits, weighting, updates) in updates()) {
        let n = updates.len() as u32;
        let d = updates[0].0.len();
        let grid = encoding(bits, n, weighting);
        let acc = sum(&grid, d, &updates);
        let mean = grid.decode(&acc, d).unwrap();

        let weight = |c: &Contribution| match weighting {
            Weighting::Uniform => 1.0,
            Weighting::Examples { cap } => c.examples.min(u64::from(cap)) as f64 / f64::from(cap),
        };
        let total: f64 = updates.iter().map(|(_, c)| weight(c)).sum();
        let mut expected = vec![0f64; d];
        for (update, contribution) in &updates {
            let norm = update.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            let shrink = if norm > grid.clip() { grid.clip() / norm } else { 1.0 };
            for (mean, x) in expected.iter_mut().zip(update) {
                *mean += f64::from(*x) * shrink * weight(contribution) / total;
            }
        }
        let bound = grid.error_bound(&mean.totals);
        for (got, expected) in mean.update().zip(&expected) {
            prop_assert!((f64::from(got) - expected).abs() <= bound, "{} {} {}", got, expected, bound);
        }
        prop_assert!((mean.totals.weight - total).abs() < 1e-9);
        prop_assert_eq!(mean.totals.examples, updates.iter().map(|(_, c)| c.examples).sum::<u64>());
        prop_assert_eq!(mean.totals.correct, updates.iter().filter_map(|(_, c)| c.correct).sum::<u64>());
        let loss = updates.iter().map(|(_, c)| c.loss * c.examples as f64).sum::<f64>() / mean.totals.examples as f64;
        prop_assert!((mean.totals.loss_mean - loss).abs() < 1e-4);
    }

    /// Each grid value is at most m in absolute value, so n of them fit: the sum over the worst nodes is exact.
    #[test]
    fn the_worst_sum_does_not_wrap(bits in 17u8..=32, nodes in 1u32..15, sign in any::<bool>()) {
        let grid = encoding(bits, nodes, Weighting::Uniform);
        let x = if sign { 2.0 } else { -2.0 };
        let updates = vec![(vec![x, 0.0], says(u64::MAX, Some(u64::MAX), 1e300)); nodes as usize];
        let acc = sum(&grid, 2, &updates);
        let mean = grid.decode(&acc, 2).unwrap();
        prop_assert!((mean.update().next().unwrap() - x).abs() < 1e-6);
        prop_assert_eq!(mean.totals.examples, u64::from(nodes) * COUNTER_MAX);
    }
}

/// Found by review: clipping happens on the node, so nothing but this bounds what a hostile node sends in the clear; and a bad
/// counter showed only in the sum, where nobody can say whose it was.
#[test]
fn an_update_alone_must_be_one_that_a_node_could_have_sent() {
    for (bits, dimension) in [(32, 2000), (21, 2000), (21, 3), (32, 1024)] {
        let encoding = encoding(bits, 100, Weighting::Examples { cap: 10 });
        let update: Vec<f32> = (0..dimension).map(|i| (i as f32).sin()).collect();
        let good = encoding.encode(&update, &says(5, Some(3), 0.5)).unwrap();
        assert!(good.clipped || dimension == 3);
        encoding.check(&good.bytes, dimension).unwrap();
        let lanes = wire::unpack(&good.bytes, encoding.elements(dimension), encoding.bits()).unwrap();
        let changed = |at: usize, to: u32| {
            let mut lanes = lanes.clone();
            lanes[at] = to & encoding.bits().mask();
            encoding.check(&wire::pack(&lanes, encoding.bits()).unwrap(), dimension)
        };
        assert!(matches!(changed(1, 1 << (bits - 2)), Err(Fault::BeyondClip { .. })));
        assert!(matches!(changed(dimension - 1, u32::MAX << (bits - 2)), Err(Fault::BeyondClip { .. })));
        assert!(matches!(changed(dimension, 2), Err(Fault::Totals { .. })), "it counts two nodes");
        assert!(matches!(encoding.check(&good.bytes[1..], dimension), Err(Fault::Length { .. })));
    }
}

proptest! {
    #[test]
    fn whatever_is_encoded_passes_the_check(
        update in prop::collection::vec(prop_oneof![-1e3f32..1e3, -1e-3f32..1e-3, Just(1e30)], 0..3000),
        bits in 20u8..=32,
        examples in 1u64..100,
    ) {
        let encoding = encoding(bits, 100, Weighting::Examples { cap: 50 });
        let bytes = encoding.encode(&update, &says(examples, None, 1.0)).unwrap().bytes;
        prop_assert_eq!(encoding.check(&bytes, update.len()), Ok(()));
    }
}

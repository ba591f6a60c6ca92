//! Grids and distributions by hand; both directions against integrals.

use super::*;

fn losses(first: i64, mass: &[f64], infinite: f64) -> Losses {
    Losses { interval: 1.0, first, mass: mass.to_vec(), infinite }
}

/// The same masses at the same losses; beyond, nothing but rounding.
fn same(found: &Losses, first: i64, mass: &[f64], infinite: f64) {
    assert!((found.infinite - infinite).abs() < 1e-12, "{} for {infinite}", found.infinite);
    for (i, m) in (found.first..).zip(&found.mass) {
        let expected = usize::try_from(i - first).ok().and_then(|at| mass.get(at)).copied().unwrap_or(0.0);
        assert!((m - expected).abs() < 1e-12, "{m} for {expected} at {i}");
    }
    let total: f64 = found.mass.iter().sum();
    assert!((total - mass.iter().sum::<f64>()).abs() < 1e-12, "{total}");
}

#[test]
fn losses_of_two_releases_add_up() {
    let sum = losses(-1, &[0.5, 0.4], 0.1).convolve(&losses(3, &[0.25, 0.5, 0.2], 0.05)).unwrap();
    assert_eq!((sum.first, sum.mass.len()), (2, 4));
    same(&sum, 2, &[0.125, 0.35, 0.3, 0.08], 0.1 + 0.05 - 0.005);
    assert!(matches!(losses(0, &[1.0], 0.0).convolve(&Losses { interval: 2.0, ..losses(0, &[1.0], 0.0) }), Err(Fault::Grids { .. })));
}

#[test]
fn a_loss_repeated_is_binomial() {
    for (times, mass) in [(1, vec![0.5, 0.4]), (2, vec![0.25, 0.4, 0.16]), (3, vec![0.125, 0.3, 0.24, 0.064])] {
        let Ok(sum) = losses(-1, &[0.5, 0.4], 0.1).repeat(times) else { panic!("three elements fit") };
        same(&sum, -i64::from(times), &mass, 1.0 - 0.9f64.powi(times as i32));
        // The other way round.
        let Ok(sum) = losses(0, &[0.4, 0.5], 0.1).repeat(times) else { panic!("three elements fit") };
        same(&sum, 0, &mass.iter().rev().copied().collect::<Vec<_>>(), 1.0 - 0.9f64.powi(times as i32));
    }
}

#[test]
fn epsilon_is_the_inverse_of_delta() {
    let losses = losses(-1, &[0.25, 0.25, 0.25, 0.2], 0.05);
    for delta in [0.06, 0.1, 0.2, 0.3, 0.38] {
        let epsilon = losses.epsilon(delta).unwrap();
        assert!(epsilon > 0.0 && (losses.delta(epsilon) - delta).abs() < 1e-12, "{delta}: {epsilon}");
    }
    assert_eq!(losses.epsilon(0.9), Ok(0.0));
    assert_eq!(losses.epsilon(0.05), Err(Fault::DeltaTooSmall { delta: 0.05, floor: 0.05 }));
}

#[test]
fn negative_mass_counts_as_lost() {
    let rounded = losses(0, &[0.6, -0.1, 0.5, -0.05], 0.0);
    let found = Losses::from_spectrum(rounded.spectrum(4), 4, 0, 0, 0.25, 1.0);
    same(&found, 0, &[0.6, 0.0, 0.5], 0.4);
    assert!(Losses::from_spectrum(rounded.spectrum(4), 4, 0, 0, 0.95, 1.0).infinite == 1.0);
}

#[test]
fn a_window_that_is_too_large_says_how_much_coarser_it_must_be() {
    let most = MOST as f64;
    assert_eq!([-5.0, 0.0, 1.0, most - 1.0].map(|elements| window(elements).ok()), [Some(1), Some(1), Some(2), Some(MOST)]);
    assert_eq!(
        [most, 2.0 * most - 1.0, 2.0 * most, 5.0 * most].map(|elements| window(elements).map_err(|fine| fine.by).err()),
        [Some(2.0), Some(2.0), Some(4.0), Some(8.0)]
    );
    // Losses of up to 400 and more do not fit 2^21 elements of 1e-4.
    let pld = Pld::of(&Gaussian::new(0.05, 1.0, 1).unwrap());
    assert_eq!(pld.remove.interval, 4.0 * INTERVAL);
    assert!(Pld::with_interval(&Gaussian::new(0.05, 1.0, 1).unwrap(), 2.0 * INTERVAL).is_none());
}

/// δ = ∫ max(0, P - e^ε·Q), for a unit that is removed and one that is added. Without sampling they are the same.
#[test]
fn both_directions_are_integrals() {
    let normal = |x: f64, mean: f64, z: f64| (-(x - mean) * (x - mean) / (2.0 * z * z)).exp() / (z * std::f64::consts::TAU.sqrt());
    for (z, q) in [(1.0, 0.5), (0.8, 0.1)] {
        let pld = Pld::of(&Gaussian::new(z, q, 1).unwrap());
        let add = pld.add.as_ref().expect("sampling tells the directions apart");
        for epsilon in [0.0, 0.05, 0.3] {
            let step = 1e-4;
            let integral = |removed: bool| -> f64 {
                let excess = |i: i64| {
                    let x = i as f64 * step;
                    let (mixed, noise) = ((1.0 - q) * normal(x, 0.0, z) + q * normal(x, 1.0, z), normal(x, 0.0, z));
                    let (p, other) = if removed { (mixed, noise) } else { (noise, mixed) };
                    (p - f64::exp(epsilon) * other).max(0.0) * step
                };
                (-100_000..=100_000).map(excess).sum()
            };
            for (losses, removed) in [(&pld.remove, true), (add, false)] {
                let (found, expected) = (losses.delta(epsilon), integral(removed));
                assert!((found - expected).abs() < 1e-7, "z {z}, q {q}, epsilon {epsilon}, removed {removed}: {found} for {expected}");
            }
            assert_eq!(pld.delta(epsilon), pld.remove.delta(epsilon).max(add.delta(epsilon)));
        }
    }
    assert!(Pld::of(&Gaussian::new(1.0, 1.0, 1).unwrap()).add.is_none());
}

use super::*;

use Profile::{Curious, SemiMalicious};

fn rate(share: f64) -> Rate {
    Rate::from_share(share).unwrap()
}

/// (k, t) by the formulas alone: ⌊γn⌋ colluders, no floor.
fn formula(n: u32, gamma: f64, delta: f64, profile: Profile) -> Option<(u32, u32)> {
    sparse(n, rate(gamma).floor_of(n), rate(delta).floor_of(n), profile).map(|degrees| (degrees.degree, degrees.least))
}

/// Notes 7.2: rows of the public test table of Google's graph finder.
#[test]
fn the_finder_agrees_with_googles_table() {
    for (n, gamma, delta, profile, expected) in [
        (100, 0.45, 0.45, Curious, (92, 46)),
        (1000, 0.33, 0.33, Curious, (286, 150)),
        (100, 0.05, 0.33, Curious, (28, 6)),
        (10_000, 0.05, 0.33, Curious, (86, 29)),
        (100, 0.05, 0.33, SemiMalicious, (72, 39)),
        (1000, 0.05, 0.33, SemiMalicious, (398, 223)),
        (1000, 0.05, 0.05, SemiMalicious, (52, 37)),
        (10_000, 0.33, 0.05, SemiMalicious, (178, 146)),
        (10_000, 0.05, 0.05, Curious, (34, 20)),
        (10, 0.05, 0.05, Curious, (2, 2)),
    ] {
        assert_eq!(formula(n, gamma, delta, profile), Some(expected), "n = {n}, γ = {gamma}, δ = {delta}, {profile:?}");
    }
}

/// Notes 1.2: the whole table.
#[test]
fn the_finder_gives_the_table_of_the_notes() {
    let settings = [(0.05, 0.1), (0.05, 0.3), (0.1, 0.3), (0.2, 0.3), (0.33, 0.1)];
    type Pair = Option<(u32, u32)>;
    let some = |k, t| -> Pair { Some((k, t)) };
    let table: [(u32, [(Pair, Pair); 5]); 7] = [
        (10, [(some(2, 2), some(4, 3)), (some(4, 2), some(8, 5)), (some(6, 2), some(8, 5)), (some(6, 3), None), (some(6, 4), some(6, 5))]),
        (
            30,
            [
                (some(6, 2), some(8, 5)),
                (some(12, 2), some(20, 11)),
                (some(14, 4), some(22, 13)),
                (some(16, 7), some(26, 17)),
                (some(14, 10), some(16, 13)),
            ],
        ),
        (
            100,
            [
                (some(16, 6), some(26, 16)),
                (some(26, 6), some(66, 36)),
                (some(34, 11), some(72, 42)),
                (some(48, 21), some(82, 52)),
                (some(42, 32), some(54, 44)),
            ],
        ),
        (
            300,
            [
                (some(28, 14), some(52, 34)),
                (some(48, 16), some(152, 84)),
                (some(66, 26), some(186, 109)),
                (some(98, 47), some(236, 149)),
                (some(78, 55), some(130, 103)),
            ],
        ),
        (
            1000,
            [
                (some(36, 19), some(78, 52)),
                (some(66, 23), some(314, 179)),
                (some(88, 36), some(414, 247)),
                (some(140, 67), some(642, 409)),
                (some(102, 72), some(218, 171)),
            ],
        ),
        (
            3000,
            [
                (some(40, 21), some(86, 57)),
                (some(76, 27), some(432, 247)),
                (some(100, 41), some(624, 373)),
                (some(166, 79), some(1210, 771)),
                (some(114, 80), some(270, 211)),
            ],
        ),
        (
            10_000,
            [
                (some(42, 22), some(96, 64)),
                (some(80, 29), some(522, 299)),
                (some(108, 44), some(778, 465)),
                (some(182, 87), some(1790, 1140)),
                (some(126, 88), some(310, 242)),
            ],
        ),
    ];
    for (n, row) in table {
        for ((gamma, delta), (curious, malicious)) in settings.into_iter().zip(row) {
            assert_eq!(formula(n, gamma, delta, Curious), curious, "n = {n}, γ = {gamma}, δ = {delta}, curious");
            assert_eq!(formula(n, gamma, delta, SemiMalicious), malicious, "n = {n}, γ = {gamma}, δ = {delta}, malicious");
        }
    }
}

fn plan(n: u32, delta: f64, gamma: f64, profile: Profile, minimum: u32) -> Result<Plan, Infeasible> {
    Plan::new(n, rate(delta), rate(gamma), profile, minimum)
}

/// Issue 3, 1: at least one colluder, a floor under t, a complete graph for few.
#[test]
fn the_plan_is_stricter_than_the_formulas() {
    // The setting of the bench.
    let large = plan(100, 0.1, 0.05, SemiMalicious, 50).unwrap();
    assert_eq!((large.degree(), large.threshold(), large.survivors(), large.colluders()), (26, 16, 90, 5));
    assert!(!large.is_complete());
    // The formulas say t = 6 of 16, the floor 9; 7 is the most that survive for certain.
    let floor = plan(100, 0.1, 0.05, Curious, 50).unwrap();
    assert_eq!((floor.degree(), floor.threshold()), (16, 7));
    // Here 2 of 19 would do, and the floor holds.
    let floor = plan(20, 0.1, 0.05, Curious, 3).unwrap();
    assert_eq!((floor.degree(), floor.threshold()), (19, 11));
    // Nobody colludes by the rate; one is assumed.
    let small = plan(10, 0.1, 0.0, SemiMalicious, 3).unwrap();
    assert_eq!((small.degree(), small.threshold(), small.survivors(), small.colluders()), (9, 6, 9, 1));
    assert!(small.is_complete());
    assert!(plan(29, 0.1, 0.05, SemiMalicious, 3).unwrap().is_complete());
    assert!(!plan(30, 0.1, 0.05, SemiMalicious, 3).unwrap().is_complete());
    // The minimum may ask for more survivors than the rate.
    assert_eq!(plan(10, 0.3, 0.0, Curious, 9).unwrap().survivors(), 9);
    // The floor gives way where it could not be met: 3 of 4 neighbours survive.
    assert_eq!(plan(5, 0.2, 0.0, Curious, 3).unwrap().threshold(), 3);
    assert_eq!(plan(4, 0.25, 0.0, Curious, 3).unwrap().threshold(), 2);
}

/// Notes 7.2: what cannot be is refused by name.
#[test]
fn infeasible_settings_are_refused_by_name() {
    assert!(matches!(plan(10, 0.3, 0.3, SemiMalicious, 3), Err(Infeasible::NoThreshold { n: 10, dropped: 3, colluders: 3 })));
    assert!(matches!(plan(100, 0.5, 0.5, Curious, 3), Err(Infeasible::TooFew { survivors: 50, colluders: 50, .. })));
    assert!(matches!(plan(100, 0.5, 0.05, SemiMalicious, 3), Err(Infeasible::NoThreshold { .. })));
    // Beyond what a sparse graph bears, a complete one is exact.
    assert_eq!(formula(100, 0.45, 0.5, Curious), None);
    assert!(plan(100, 0.5, 0.45, Curious, 3).unwrap().is_complete());
    assert!(matches!(plan(2, 0.0, 0.0, Curious, 1), Err(Infeasible::TooFew { survivors: 2, colluders: 1, .. })));
    assert!(matches!(plan(0, 0.0, 0.0, Curious, 0), Err(Infeasible::TooFew { .. })));
    assert!(matches!(plan(9, 0.0, 0.0, Curious, 10), Err(Infeasible::BelowMinimum { n: 9, minimum: 10 })));
    assert!(matches!(plan(MAX_PARTICIPANTS + 1, 0.1, 0.05, Curious, 10), Err(Infeasible::TooMany { .. })));
    assert!(Rate::from_share(1.0).is_none() && Rate::from_share(f64::NAN).is_none() && Rate::from_share(-0.1).is_none());
}

/// Whatever plan there is keeps its three promises, checked here without the tails: t below what survives, above what colludes.
#[test]
fn every_plan_keeps_its_promises() {
    for n in 3..=64 {
        for (delta, gamma) in [(0.0, 0.0), (0.1, 0.05), (0.2, 0.1), (0.3, 0.05), (0.34, 0.2)] {
            for profile in [Curious, SemiMalicious] {
                let Ok(plan) = plan(n, delta, gamma, profile, 3) else { continue };
                let (k, t, a) = (plan.degree(), plan.threshold(), plan.colluders());
                assert!(k < n && t >= 2 && t <= k, "{plan:?}");
                if plan.is_complete() {
                    assert!(t > a && t < n - rate(delta).floor_of(n), "{plan:?}");
                    assert!(profile == Curious || 2 * t > k + a, "{plan:?}");
                } else {
                    assert!(k % 2 == 0 && (profile == Curious || 2 * t > k), "{plan:?}");
                }
            }
        }
    }
}

#[test]
fn rates_profiles_and_plans_say_what_they_were_made_of() {
    assert_eq!((Rate::from_ppm(999_999).map(Rate::ppm), Rate::from_ppm(1_000_000)), (Some(999_999), None));
    assert_eq!([Curious, SemiMalicious].map(Profile::code), [1, 2], "as they travel");
    assert_eq!([0, 1, 2, 3].map(Profile::from_code), [None, Some(Curious), Some(SemiMalicious), None]);
    let of = |n, profile| plan(n, 0.1, 0.05, profile, 3).unwrap();
    assert_eq!((of(6, Curious).participants(), of(100, Curious).clustered()), (6, 0));
    assert!(of(100, SemiMalicious).clustered() > 1);
    let degrees = complete(6, 1, 0, SemiMalicious).unwrap();
    assert_eq!((degrees.degree, degrees.least, degrees.most), (5, 4, 5));
    let degrees = complete(10, 6, 1, Curious).unwrap();
    assert_eq!((degrees.degree, degrees.least, degrees.most), (9, 7, 8));
}

/// What exact fractions give (Python's, over binomials): the smallest even degree whose ring falls apart with a probability below
/// 2^-41, and the most colluders within half a neighbourhood.
#[test]
fn rings_hold_together_as_exact_fractions_say() {
    for (n, bad, degree) in [(20, 2, 4), (50, 22, 24), (52, 24, 26), (53, 26, 28), (54, 30, 30)] {
        let odds = Odds::new(n);
        assert_eq!((2..n).step_by(2).find(|k| odds.connected(*k, bad)), Some(degree), "{bad} of {n}");
    }
    let large = plan(1000, 0.1, 0.05, SemiMalicious, 3).unwrap();
    assert_eq!((large.degree(), large.clustered()), (78, 18));
    // 20 + 2 · 450 are more than nine tenths, though a ring could bear them.
    assert_eq!(sparse(1000, 20, 450, SemiMalicious), None);
}

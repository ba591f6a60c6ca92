//! Cohorts of up to 200, mostly in rings, from which anybody leaves at any time: the sum is that of the survivors, or there is none.

use super::*;

/// Smallest and largest size of a cohort, its δ, and how many patterns of dropouts it sees: keys are dear, and are agreed once.
type Cohort = (u32, u32, f64, u32);
const SMALL: [Cohort; 3] = [(7, 20, 0.3, 8), (30, 60, 0.05, 10), (30, 60, 0.1, 10)];

/// Before which round everybody leaves (5: never). In every other pattern no more leave than planned, in the others more, up to half as
/// many again. They leave in the rounds from 1 to some other one.
fn pattern(world: &mut World) -> Vec<u8> {
    let mut below = |sides: u32| world.rng.next_u32() % sides;
    let n = world.keys.len() as u32;
    let planned = world.terms.dropout.floor_of(n);
    let gone = if below(2) == 0 { below(planned + 1) } else { planned + 1 + below((planned / 2).max(1)) };
    let last = 1 + below(4);
    let mut leaves = vec![5; n as usize];
    while leaves.iter().filter(|round| **round < 5).count() < gone as usize {
        leaves[below(n) as usize] = 1 + below(last) as u8;
    }
    leaves
}

/// The rest of a session whose participants have made `shares`: i leaves before round `leaves[i]`. Who is in the sum, and the sum.
fn go_on(world: &mut World, shares: &[(u32, Answer)], leaves: &[u8]) -> Result<(Vec<u32>, Sum), Fault> {
    let stays = |round: u8| move |i: u32| leaves[i as usize] > round;
    shares.iter().filter(|(i, _)| stays(1)(*i)).for_each(|(i, answer)| world.take(*i, answer));
    world.server.close()?;
    let survivors = world.server.expected().into_iter().filter(|i| stays(2)(*i)).collect();
    for round in 2..4 {
        world.exchange(stays(round));
        world.server.close()?;
    }
    world.exchange(stays(4));
    Ok((survivors, world.server.open(1)?))
}

/// How many patterns opened, and how many did not.
fn outcomes(profile: Profile, large: Cohort, seed: u64) -> [u32; 2] {
    let mut counts = [0; 2];
    let mut dice = ChaCha20Rng::seed_from_u64(seed);
    for (cohort, (least, most, dropout, patterns)) in (0u64..).zip(SMALL.into_iter().chain([large])) {
        let n = least + dice.next_u32() % (most - least + 1);
        let suite = if cohort % 2 == 0 { Suite::Aes256 } else { Suite::ChaCha20 };
        let mut world = World::new(n, Terms { suite, ..terms(profile, dropout, 3) }, seed + cohort);
        // Some never come.
        let absent = pattern(&mut world);
        world.advertise(|i| absent[i as usize] != 4).unwrap();
        assert_eq!(world.server.plan().unwrap().is_complete(), n < 30);
        let shares: Vec<(u32, Answer)> = world.server.expected().into_iter().map(|i| (i, world.answer(i))).collect();
        for _ in 0..patterns {
            let leaves = pattern(&mut world);
            let mut world = world.clone();
            match go_on(&mut world, &shares, &leaves) {
                Ok((survivors, sum)) => {
                    counts[0] += 1;
                    assert_eq!(sum.survivors, survivors, "{n}, {leaves:?}");
                    assert_eq!(sum.accumulator.residues().collect::<Vec<_>>(), world.truth(&survivors), "{n}, {leaves:?}");
                }
                Err(fault) => {
                    counts[1] += 1;
                    assert!(matches!(fault, Fault::TooFew { .. } | Fault::Disconnected | Fault::Unrecoverable { .. }), "{fault}");
                    assert!(world.server.is_over() && matches!(world.server.open(1), Err(Fault::Over)));
                    // Nobody was asked for a share, or too few answered.
                    let given = world.clients.iter().flatten().any(Client::is_done);
                    assert!(!given || matches!(fault, Fault::Unrecoverable { .. }), "{n}, {leaves:?}");
                }
            }
        }
    }
    counts
}

fn both_often([opened, failed]: [u32; 2]) {
    assert!(opened + failed == 30 && opened >= 8 && failed >= 8, "{opened} opened, {failed} did not");
}

#[test]
fn random_dropouts_are_exact_or_nothing_with_a_curious_server() {
    both_often(outcomes(Profile::Curious, (101, 200, 0.02, 2), 1));
}

#[test]
fn random_dropouts_are_exact_or_nothing_with_a_semi_malicious_server() {
    both_often(outcomes(Profile::SemiMalicious, (61, 100, 0.02, 2), 2));
}

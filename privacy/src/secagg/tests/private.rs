//! What the server sees says nothing more than the sum (notes 7.4).
//!
//! Statistics have a false alarm once in a million at most (4.9 standard deviations), and fixed seeds.

use super::*;
use crate::{
    secagg::{
        channel::{self, Secret, Which},
        mask::{Mask, Sign, apply},
        message::{Advertise, ShareKeys, Unmask},
        shamir::{Recovery, Share},
    },
    wire,
};

/// Standard deviations from uniform of the cells, by χ².
fn deviation(cells: &[u32]) -> f64 {
    let expected = f64::from(cells.iter().sum::<u32>()) / cells.len() as f64;
    let chi: f64 = cells.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
    let freedom = cells.len() as f64 - 1.0;
    (chi - freedom).abs() / (2.0 * freedom).sqrt()
}

fn cells(count: usize, of: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut cells = vec![0; count];
    of.for_each(|cell| cells[cell as usize] += 1);
    cells
}

fn setting(bits: u8) -> Terms {
    Terms { bits: Bits::new(bits).unwrap(), ..terms(Profile::SemiMalicious, 0.25, 60_000) }
}

/// The masked vectors of a cohort of 5 that would send `vectors`.
fn masked(terms: Terms, vectors: &[Vec<u32>], seed: u64) -> (World, Vec<Vec<u32>>) {
    let mut world = World::new(5, terms, seed);
    world.vectors = vectors.to_vec();
    world.advertise(|_| true).unwrap();
    world.exchange(|_| true);
    world.server.close().unwrap();
    let length = world.terms.length.get() as usize;
    let bits = world.terms.bits;
    let seen = (0..5).map(|i| match world.answer(i) {
        Answer::Vector(packed) => {
            world.take(i, &Answer::Vector(packed.clone()));
            wire::unpack(&packed, length, bits).unwrap()
        }
        Answer::Message(_) => panic!("a vector"),
    });
    let seen = seen.collect();
    (world, seen)
}

/// Each masked vector is uniform, in its high bits, its low bits and from element to element, whatever was masked.
#[test]
fn a_masked_vector_is_uniform() {
    for bits in [8, 20, 32] {
        let largest = Bits::new(bits).unwrap().mask();
        for fill in [0, 1, largest] {
            let vectors = vec![vec![fill; 60_000]; 5];
            let (_, seen) = masked(setting(bits), &vectors, u64::from(bits) + u64::from(fill));
            for vector in &seen {
                assert!(deviation(&cells(64, vector.iter().map(|lane| lane >> (bits - 6)))) < 4.9);
                assert!(deviation(&cells(64, vector.iter().map(|lane| lane & 63))) < 4.9);
                let pairs = vector.chunks_exact(2).map(|pair| pair[0] % 8 * 8 + pair[1] % 8);
                assert!(deviation(&cells(64, pairs)) < 4.9);
            }
            // The test has power: what was masked is far from uniform.
            assert!(deviation(&cells(64, vectors[0].iter().map(|lane| lane & 63))) > 1000.0);
        }
    }
}

/// Two cohorts with the same sum and nothing else in common: every single vector and every pair of vectors looks the same, and
/// only the sum of all is not uniform.
#[test]
fn inputs_of_equal_sum_look_alike() {
    let terms = setting(20);
    let mask = terms.bits.mask();
    let zeros = vec![vec![0; 60_000]; 5];
    let mut spread = zeros.clone();
    spread[0].fill(1000);
    spread[1].fill(77);
    spread[2].fill((1u32 << 20) - 1077);
    for (vectors, seed) in [(&zeros, 1), (&spread, 2)] {
        let (mut world, seen) = masked(terms.clone(), vectors, seed);
        for a in 0..5 {
            for b in 0..a {
                let joint = seen[a].iter().zip(&seen[b]).map(|(x, y)| (x >> 17) * 8 + (y >> 17));
                assert!(deviation(&cells(64, joint)) < 4.9, "{a}, {b}");
                let sums = seen[a].iter().zip(&seen[b]).map(|(x, y)| x.wrapping_add(*y) & mask & 63);
                assert!(deviation(&cells(64, sums)) < 4.9, "{a}, {b}");
            }
        }
        // Pair masks cancel in the sum of all; the own masks stay on it until they are opened.
        let sum = |i: usize| seen.iter().fold(0u32, |sum, vector| sum.wrapping_add(vector[i])) & 63;
        assert!(deviation(&cells(64, (0..60_000).map(sum))) < 4.9);
        for _ in 0..2 {
            world.server.close().unwrap();
            world.exchange(|_| true);
        }
        assert!(world.server.open(2).unwrap().accumulator.residues().all(|lane| lane == 0));
    }
}

/// A cohort of six whose vectors are all threes.
fn threes() -> World {
    let mut world = World::new(6, Terms { length: 60_000.try_into().unwrap(), ..terms(Profile::SemiMalicious, 0.2, 1) }, 1);
    world.vectors = vec![vec![3; 60_000]; 6];
    world
}

/// One phase with everybody; gives what `of` sent.
fn overhear(world: &mut World, of: u32) -> Answer {
    world.exchange(|i| i != of);
    let answer = world.answer(of);
    world.take(of, &answer);
    answer
}

/// Low and high bits look uniform.
fn hidden(lanes: &[u32]) -> bool {
    [0, 14].iter().all(|shift| deviation(&cells(64, lanes.iter().map(|lane| lane >> shift & 63))) < 4.9)
}

/// The share of `owner`'s secret in what `holder` answers at the end, and that it is of `which`, by what the owner committed to.
fn given(world: &mut World, owner: u32, holder: u32, which: Which, dealt: &ShareKeys) -> Share {
    let answer = world.answer(holder);
    world.take(holder, &answer);
    let session = &world.terms.session;
    let at = |of: u32, among: u32| (of - u32::from(of > among)) as usize;
    let share = Unmask::decode(session, answer.bytes()).unwrap().shares.swap_remove(at(owner, holder)).unwrap();
    let [of_key, of_seed] = dealt.dealt[at(holder, owner)].commitments;
    let committed = if which == Which::Key { of_key } else { of_seed };
    assert_eq!(channel::commit_share(&share, which, session, owner, holder), committed);
    share
}

/// Bonawitz et al., §4: a vector that comes when its owner has been given up is still hidden by the owner's second mask, although
/// the server can rebuild all its pair masks.
#[test]
fn a_late_vector_stays_hidden() {
    let late = 5u32;
    let mut world = threes();
    world.advertise(|_| true).unwrap();
    let dealt = overhear(&mut world, late);
    world.server.close().unwrap();
    world.exchange(|i| i != late);
    let Answer::Vector(packed) = world.answer(late) else { panic!("a vector") };
    world.server.close().unwrap();
    world.exchange(|_| true);
    world.server.close().unwrap();

    // What the server is told: five shares of the mask key of the late one, none of its seed.
    let dealt = ShareKeys::decode(&world.terms.session, dealt.bytes()).unwrap();
    let shares: Vec<Share> = (0..late).map(|i| given(&mut world, late, i, Which::Key, &dealt)).collect();
    let holders: Vec<u32> = (0..world.server.plan().unwrap().threshold()).collect();
    let key = Recovery::new(&holders).secret(&shares).unwrap();
    let advert = |i: u32| Advertise::decode(&world.terms.session, &world.first[i as usize]).unwrap();
    assert_eq!(channel::public(&key), advert(late).mask_key);

    let mut lanes = wire::unpack(&packed, 60_000, world.terms.bits).unwrap();
    let masks: Vec<Mask> = (0..late)
        .map(|peer| {
            let agreed = channel::agree(&key, &advert(peer).mask_key).unwrap();
            let seed = channel::pair_seed(&agreed, &world.terms.session, late, peer);
            Mask::new(world.terms.suite, &seed, Sign::between(late, peer).opposite())
        })
        .collect();
    apply(&mut lanes, &masks, 1);
    assert!(hidden(&lanes));
    let sum = world.server.open(1).unwrap();
    assert!(sum.accumulator.residues().all(|lane| lane == 15));
    assert_eq!(sum.survivors, [0, 1, 2, 3, 4]);
}

/// Bonawitz et al., §4, the other secret: the own mask of everybody in the sum is opened, and its vector is still hidden by the masks
/// that it shares with honest neighbours, although t - 1 others give the server theirs.
#[test]
fn an_opened_own_mask_leaves_the_vector_hidden() {
    let victim = 2u32;
    let neighbours = [0, 1, 3, 4, 5];
    let mut world = threes();
    // Mask keys are 32 bytes of 10·i + 2.
    (0..6).for_each(|i| world.begin_known(i, 10 * i as u8 + 1));
    world.advertise(|_| true).unwrap();
    let dealt = overhear(&mut world, victim);
    world.server.close().unwrap();
    let masked = overhear(&mut world, victim);
    world.server.close().unwrap();
    world.exchange(|_| true);
    world.server.close().unwrap();

    let session = world.terms.session;
    let dealt = ShareKeys::decode(&session, dealt.bytes()).unwrap();
    let shares = neighbours.map(|i| given(&mut world, victim, i, Which::Seed, &dealt));
    let threshold = world.server.plan().unwrap().threshold() as usize;
    let secret = Recovery::new(&neighbours[..threshold]).secret(&shares).unwrap();
    let mut lanes = wire::unpack(masked.bytes(), 60_000, world.terms.bits).unwrap();
    let mut off = |seed: Secret, sign| {
        apply(&mut lanes, &[Mask::new(world.terms.suite, &seed, sign)], 1);
        lanes.iter_mut().for_each(|lane| *lane &= world.terms.bits.mask());
        (hidden(&lanes), lanes.iter().all(|lane| *lane == 3))
    };
    assert_eq!(off(channel::own_seed(&secret, &session, victim), Sign::Minus), (true, false));
    let key = Advertise::decode(&session, &world.first[victim as usize]).unwrap().mask_key;
    for (told, peer) in (1..).zip(neighbours) {
        let agreed = channel::agree(&[10 * peer as u8 + 2; 32].into(), &key).unwrap();
        let seed = channel::pair_seed(&agreed, &session, peer, victim);
        // The test has power: with the masks of all neighbours off, the plain vector is there.
        let (all, sign) = (told == neighbours.len(), Sign::between(victim, peer).opposite());
        assert_eq!(off(seed, sign), (!all, all), "without the masks of {told} neighbours, t = {threshold}");
    }
    assert!(world.server.open(1).unwrap().accumulator.residues().all(|lane| lane == 18));
}

/// Seeds, keys and masks of two sessions of the same cohort have nothing in common, even if the vectors are the same.
#[test]
fn two_sessions_share_nothing() {
    let vectors = vec![vec![0; 60_000]; 5];
    let (_, first) = masked(setting(20), &vectors, 1);
    let (_, second) = masked(setting(20), &vectors, 2);
    for (a, b) in first.iter().zip(&second) {
        let differences = a.iter().zip(b).map(|(a, b)| a.wrapping_sub(*b) & 63);
        assert!(deviation(&cells(64, differences)) < 4.9);
    }
    // The test has power: with the same keys the difference is zero.
    let (_, again) = masked(setting(20), &vectors, 1);
    assert_eq!(first, again);
}

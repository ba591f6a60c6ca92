//! Attacks by a participant on the server and on the others: refused by name, the offender is known, the session goes on
//! (notes 7.6).

use super::*;
use crate::secagg::{
    channel::{self, Route, Which},
    message::{Advertise, Alive, Dealt, Introduction, ShareKeys, Unmask},
    shamir,
};

fn setting() -> Terms {
    terms(Profile::SemiMalicious, 0.2, 5)
}

/// Plays the rest of a session with everybody but `gone` and checks the sum.
fn finish(mut world: World, gone: &[u32], mut phases: u8) -> Sum {
    while phases > 0 {
        world.exchange(|i| !gone.contains(&i));
        phases -= 1;
        if phases > 0 {
            world.server.close().unwrap();
        }
    }
    let sum = world.server.open(1).unwrap();
    assert_eq!(sum.accumulator.residues().collect::<Vec<_>>(), world.truth(&sum.survivors));
    sum
}

#[test]
fn false_advertisements_are_refused() {
    let mut world = World::new(10, setting(), 1);
    let session = world.terms.session;
    let honest = |i: usize| Advertise::decode(&session, &world.first[i]).unwrap();
    let signed = |i: usize, change: &dyn Fn(&mut Advertise)| {
        let mut message = honest(i);
        change(&mut message);
        message.signature = world.keys[i].sign(&message.signed_bytes(&world.terms));
        message.encode(&session)
    };
    let mut attempts = vec![
        (2, signed(1, &|_| ()), Fault::WrongIdentity { index: 2 }),
        (1, signed(1, &|message| message.context = vec![1]), Fault::WrongIdentity { index: 1 }),
        (1, signed(1, &|message| message.terms[0] ^= 1), Fault::TermsMismatch),
        (1, signed(1, &|message| message.mask_key = [0; 32]), Fault::LowOrderKey { rank: 1 }),
        (1, signed(1, &|message| message.channel_key = [0; 32]), Fault::LowOrderKey { rank: 1 }),
        (1, signed(1, &|message| message.mask_key = message.channel_key), Fault::Duplicate { first: 1, second: 1 }),
        (1, signed(1, &|message| message.mask_key = honest(0).mask_key), Fault::Duplicate { first: 0, second: 1 }),
        (10, world.first[0].clone(), Fault::NotTakingPart { index: 10 }),
    ];
    let mut forged = honest(1);
    forged.signature[3] ^= 1;
    attempts.push((1, forged.encode(&session), Fault::Signature { rank: 1 }));
    let old = World::new(10, setting(), 2);
    attempts.push((1, old.first[1].clone(), Fault::WrongSession));
    attempts.push((1, Alive { signature: [0; 64] }.encode(&session), Fault::OutOfTurn { message: "signature of the survivors" }));

    world.take(0, &Answer::Message(world.first[0].clone()));
    for (from, bytes, fault) in attempts {
        assert_eq!(world.server.receive(from, &bytes), Err(fault));
        assert_eq!(world.server.received(), 1);
    }
    let session = world.terms.session;
    assert!(matches!(world.server.receive(1, &world.first[1][..50]), Err(Fault::Malformed(_))));
    assert_eq!(world.server.receive_vector(0, &session, &[[0u8; 13]]), Err(Fault::OutOfTurn { message: "a masked input" }));
    // The refused one may still come with right keys; the same bytes again count once, others do not.
    for i in 1..10 {
        assert_eq!(world.server.receive(i, &world.first[i as usize]), Ok(Receipt::Taken));
        assert_eq!(world.server.receive(i, &world.first[i as usize]), Ok(Receipt::Again));
    }
    let (_, second) = world.begin(3, &OPEN).unwrap();
    assert_eq!(world.server.receive(3, &second), Err(Fault::Contradiction { message: "key advertisement" }));
    world.server.close().unwrap();
    assert_eq!(world.server.receive(3, &world.first[3]), Err(Fault::OutOfTurn { message: "key advertisement" }));
    assert_eq!(finish(world, &[], 4).survivors.len(), 10);
}

#[test]
fn a_cohort_names_everybody_once() {
    let participant = |i| Participant { identity: Key::new(i).identity(), context: Vec::new() };
    let cohort = [0, 1, 2, 3, 4, 1].map(participant).to_vec();
    assert_eq!(Server::new(setting(), cohort).err(), Some(Fault::Duplicate { first: 1, second: 5 }));
    let infeasible = Server::new(Terms { minimum: 20, ..setting() }, (0..10).map(participant).collect());
    assert_eq!(infeasible.err(), Some(Infeasible::BelowMinimum { n: 10, minimum: 20 }.into()));
}

#[test]
fn false_lists_of_shares_are_refused() {
    let mut world = World::at(10, setting(), 1);
    let Answer::Message(bytes) = world.answer(2) else { panic!("shares are a message") };
    let session = world.terms.session;
    let mut short = ShareKeys::decode(&session, &bytes).unwrap();
    short.dealt.pop();
    assert_eq!(world.server.receive(2, &short.encode(&session)), Err(Fault::Count { actual: 8, expected: 9 }));
    assert_eq!(world.server.receive(2, &bytes), Ok(Receipt::Taken));
    assert_eq!(world.server.receive(2, &short.encode(&session)), Err(Fault::Contradiction { message: "list of shares" }));
    for i in (0..10).filter(|i| *i != 2) {
        let answer = world.answer(i);
        world.take(i, &answer);
    }
    world.server.close().unwrap();
    finish(world, &[], 3);
}

/// Notes 7.6: wrong length, an element that does not fit, a second upload: refused, and the sum is as it was.
#[test]
fn false_vectors_are_refused() {
    let mut world = World::at(10, setting(), 2);
    let session = world.terms.session;
    for i in 0..9 {
        let Answer::Vector(packed) = world.answer(i) else { panic!("a vector") };
        // 5 elements of 20 bits: 12.5 bytes.
        assert_eq!(packed.len(), 13);
        let mut dirty = packed.clone();
        dirty[12] |= 0x10;
        assert_eq!(world.server.receive_vector(i, &session, &[&dirty]), Err(Fault::Vector(crate::Fault::Padding)));
        for wrong in [&packed[..12], &[&packed[..], &[0]].concat(), &[]] {
            let fault = world.server.receive_vector(i, &session, &[wrong]).unwrap_err();
            assert!(matches!(fault, Fault::Vector(crate::Fault::Length { expected: 13, .. })), "{fault}");
        }
        assert_eq!(world.server.receive_vector(i, &Session([0; 32]), &[&packed]), Err(Fault::WrongSession));
        assert_eq!(world.server.receive_vector(i, &session, &[&packed]), Ok(Receipt::Taken));
        assert_eq!(world.server.receive_vector(i, &session, &[&packed]), Err(Fault::SecondInput));
        assert_eq!(world.server.receive_vector(10, &session, &[&packed]), Err(Fault::NotTakingPart { index: 10 }));
        assert_eq!(world.server.received(), i + 1);
    }
    world.server.close().unwrap();
    let sum = finish(world, &[9], 2);
    assert_eq!(sum.survivors, (0..9).collect::<Vec<_>>());
}

#[test]
fn who_left_may_not_come_back() {
    let mut world = World::at(10, setting(), 1);
    world.exchange(|i| i != 9);
    world.server.close().unwrap();
    let session = world.terms.session;
    assert_eq!(world.server.receive_vector(9, &session, &[[0u8; 13]]), Err(Fault::NotTakingPart { index: 9 }));
    assert!(world.server.message_for(9).is_none() && !world.server.expected().contains(&9));
    world.exchange(|i| i != 8);
    world.server.close().unwrap();
    for i in [8, 9] {
        let message = Alive { signature: [1; 64] }.encode(&session);
        assert_eq!(world.server.receive(i, &message), Err(Fault::NotTakingPart { index: i }));
    }
    let forged = Alive { signature: [1; 64] }.encode(&session);
    assert_eq!(world.server.receive(3, &forged), Err(Fault::Signature { rank: 3 }));
    assert_eq!(finish(world, &[], 2).survivors, (0..8).collect::<Vec<_>>());
}

/// Notes 7.6: corrupt shares are not used, they name their holder and their dealer, and the others suffice. A message of another form is
/// refused.
#[test]
fn corrupt_shares_are_left_out() {
    let mut world = World::at(10, setting(), 2);
    world.exchange(|i| i != 9);
    world.server.close().unwrap();
    world.exchange(|_| true);
    world.server.close().unwrap();
    let session = world.terms.session;
    let Answer::Message(bytes) = world.answer(0) else { panic!("shares are a message") };
    let honest = Unmask::decode(&session, &bytes).unwrap();
    let with = |change: &dyn Fn(&mut Vec<Option<shamir::Share>>)| {
        let mut message = honest.clone();
        change(&mut message.shares);
        message.encode(&session)
    };
    let other = shamir::Share::from_bytes(&[1; 40]).unwrap();
    let attempts = [
        (with(&|shares| shares.truncate(8)), Fault::Count { actual: 8, expected: 9 }),
        (with(&|shares| shares.push(None)), Fault::Count { actual: 10, expected: 9 }),
    ];
    for (bytes, fault) in attempts {
        assert_eq!(world.server.receive(0, &bytes), Err(fault));
        assert_eq!(world.server.received(), 0);
    }
    let bent = with(&|shares| {
        shares[2] = Some(other.clone());
        shares.swap(4, 5);
        shares[8] = Some(other.clone());
    });
    world.server.receive(0, &bent).unwrap();
    let sum = finish(world, &[0], 1);
    assert_eq!(sum.survivors, (0..9).collect::<Vec<_>>());
    assert_eq!(sum.complaints, [(0, 3), (0, 5), (0, 6), (0, 9)]);
}

/// A dealer of unreadable shares costs nobody else the session, and is named.
#[test]
fn unreadable_shares_are_complained_about() {
    let mut world = World::at(10, setting(), 1);
    let session = world.terms.session;
    for i in 0..10 {
        let Answer::Message(bytes) = world.answer(i) else { panic!("shares are a message") };
        let mut message = ShareKeys::decode(&session, &bytes).unwrap();
        if i == 4 {
            // For 0, 1 and 2.
            message.dealt[..3].iter_mut().for_each(|dealt| dealt.envelope[0] ^= 1);
        }
        world.take(i, &Answer::Message(message.encode(&session)));
    }
    world.server.close().unwrap();
    let sum = finish(world, &[], 3);
    assert_eq!(sum.complaints, [(0, 4), (1, 4), (2, 4)]);
}

/// Found by a test: a dealer that says it dealt other shares made the server refuse all that its neighbours sent, and blame them.
#[test]
fn a_dealer_of_false_commitments_silences_nobody() {
    let mut world = World::at(10, setting(), 1);
    let session = world.terms.session;
    for i in 0..10 {
        let Answer::Message(bytes) = world.answer(i) else { panic!("shares are a message") };
        let mut message = ShareKeys::decode(&session, &bytes).unwrap();
        if i == 4 {
            // For 0, 1 and 2.
            message.dealt[..3].iter_mut().for_each(|dealt| dealt.commitments[1][0] ^= 1);
        }
        world.take(i, &Answer::Message(message.encode(&session)));
    }
    world.server.close().unwrap();
    let sum = finish(world, &[], 3);
    assert_eq!(sum.complaints, [(0, 4), (1, 4), (2, 4)]);
}

/// A cheating dealer, by hand: it commits to one secret and deals shares of another. The session ends with its name.
#[test]
fn a_cheating_dealer_is_named() {
    for (cheats_on, leaves) in [(Which::Seed, false), (Which::Key, true), (Which::Key, false), (Which::Seed, true)] {
        let mut world = World::new(10, setting(), 3);
        let session = world.terms.session;
        let cheat = 7u32;
        world.begin_known(7, 1);
        world.advertise(|_| true).unwrap();
        world.exchange(|i| i != cheat);

        let introduction: Introduction = world.message(cheat);
        let roll = introduction.roll.digest(&world.terms);
        let holders: Vec<u32> = (0..10).filter(|rank| *rank != cheat).collect();
        let (true_key, true_seed, false_secret) = ([2; 32], [4; 32], [5; 32]);
        let mut count = 0u64;
        let mut random = |bytes: &mut [u8]| {
            count += 1;
            bytes.copy_from_slice(&count.to_le_bytes());
        };
        let key = if cheats_on == Which::Key { false_secret } else { true_key };
        let seed = if cheats_on == Which::Seed { false_secret } else { true_seed };
        let of_key = shamir::share(&key, 6, &holders, &mut random);
        let of_seed = shamir::share(&seed, 6, &holders, &mut random);
        let dealt = holders.iter().zip(&introduction.peers).enumerate().map(|(i, (to, peer))| {
            let agreed = channel::agree(&[1; 32].into(), &peer.channel_key).unwrap();
            let route = Route { session: &session, roll: &roll, from: cheat, to: *to };
            let commit = |share, which| channel::commit_share(share, which, &session, cheat, *to);
            Dealt {
                envelope: channel::seal(&route.key(&agreed), route, &of_key[i], &of_seed[i]),
                commitments: [commit(&of_key[i], Which::Key), commit(&of_seed[i], Which::Seed)],
            }
        });
        let seed_commitment = channel::commit_seed(&true_seed.into(), &session, cheat);
        let message = ShareKeys { seed_commitment, dealt: dealt.collect() };
        world.take(cheat, &Answer::Message(message.encode(&session)));
        world.server.close().unwrap();
        world.exchange(|i| i != cheat);
        if !leaves {
            world.take(cheat, &Answer::Vector(vec![0; 13]));
        }
        for _ in 0..2 {
            world.server.close().unwrap();
            world.exchange(|i| i != cheat);
        }
        let opened = world.server.open(1);
        // It matters only if the secret that it lied about is needed.
        let needed = if leaves { Which::Key } else { Which::Seed };
        match opened {
            Err(fault) => {
                assert_eq!((cheats_on, fault), (needed, Fault::BadDealer { owner: cheat }));
                assert_eq!(world.server.index_of(cheat), Some(cheat));
            }
            Ok(sum) => {
                assert_ne!(cheats_on, needed);
                assert_eq!(sum.survivors.contains(&cheat), !leaves);
            }
        }
    }
}

/// Nobody can be hurried past the server's phases.
#[test]
fn phases_close_in_order() {
    let mut world = World::at(4, terms(Profile::Curious, 0.25, 4), 1);
    assert!(matches!(world.server.open(1), Err(Fault::OutOfTurn { .. })));
    for _ in 0..3 {
        world.exchange(|_| true);
        world.server.close().unwrap();
    }
    assert_eq!(world.server.close(), Err(Fault::OutOfTurn { message: "the end of a phase" }));
    assert!(!world.server.can_open());
    world.exchange(|_| true);
    assert!(world.server.can_open());
    world.server.abort();
    assert!(matches!(world.server.open(1), Err(Fault::Over)));
    assert_eq!(world.server.close(), Err(Fault::Over));
    assert_eq!(world.server.receive(0, &world.first[0]), Err(Fault::Over));
}

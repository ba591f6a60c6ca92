//! Thousands of tiny sessions on a bad network: messages are lost, doubled, delayed and overtaken, clients crash, phases close too
//! early. After every session the invariants are checked.
//!
//! - S1 exact: the sum is that of the survivors bit for bit, or there is none.
//! - S2 one secret: for no participant has the server been given shares of both secrets.
//! - S3 one story: whoever signs, signs the same survivors.
//! - S4 same bytes: a client answers a repeated message as it did before.
//! - S5 no honest victim: an honest server and a bad network make no client give up, and no participant is accused.
//!
//! Not a failure: a session that ends for lack of participants. A failing seed is printed and replays.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::secagg::{
    channel::{self, Which},
    message::{Alive, Consistency, Introduction, ShareKeys, Survivors, Unmask},
};

enum Packet {
    ToServer(u32, Answer),
    ToClient(u32, Vec<u8>),
}

/// What an observer with all keys to the truth writes down.
#[derive(Default)]
struct Record {
    /// By dealer and holder (ranks): the commitments to both shares.
    dealt: BTreeMap<(u32, u32), [[u8; 32]; 2]>,
    /// By owner: holders of the shares of the key and of the seed that the server was given.
    given: BTreeMap<u32, [BTreeSet<u32>; 2]>,
    stories: BTreeSet<Vec<u8>>,
    answers: BTreeMap<(u32, Vec<u8>), Vec<u8>>,
}

impl Record {
    /// `neighbours` are all others: graphs are complete here. Ranks are counted over `present`.
    fn shares_dealt(&mut self, world: &World, from: u32, present: &[u32], bytes: &[u8]) {
        let Ok(message) = ShareKeys::decode(&world.terms.session, bytes) else { return };
        let holders = present.iter().filter(|i| **i != from);
        for (holder, dealt) in holders.zip(message.dealt) {
            self.dealt.insert((from, *holder), dealt.commitments);
        }
    }
    /// Which secret a share belongs to is found out, not believed.
    fn shares_given(&mut self, world: &World, from: u32, present: &[u32], bytes: &[u8]) {
        let Ok(message) = Unmask::decode(&world.terms.session, bytes) else { return };
        let rank = |i: u32| present.iter().position(|j| *j == i).unwrap() as u32;
        for share in message.shares.iter().flatten() {
            let mut found = 0;
            for ((owner, holder), commitments) in &self.dealt {
                for (at, which) in [Which::Key, Which::Seed].into_iter().enumerate() {
                    let same = *holder == from
                        && channel::commit_share(share, which, &world.terms.session, rank(*owner), rank(from)) == commitments[at];
                    if same {
                        self.given.entry(*owner).or_default()[at].insert(from);
                        found += 1;
                    }
                }
            }
            assert_eq!(found, 1, "every share belongs to one secret");
        }
    }
    fn check_one_secret(&self, seed: u64) {
        for (owner, [key, mask]) in &self.given {
            assert!(key.is_empty() || mask.is_empty(), "S2 broken for {owner} by seed {seed}: {key:?} and {mask:?}");
        }
    }
}

/// One session under `seed`. Whether it opened.
fn session(seed: u64, strays: &mut Vec<Vec<u8>>) -> bool {
    let mut dice = ChaCha20Rng::seed_from_u64(seed);
    let mut roll = move |sides: u32| dice.next_u32() % sides;
    let settings =
        [(3, Profile::SemiMalicious, 0.0), (4, Profile::Curious, 0.25), (5, Profile::SemiMalicious, 0.2), (6, Profile::Curious, 0.34)];
    let (n, profile, dropout) = settings[roll(4) as usize];
    let mut world = World::new(n, terms(profile, dropout, 2), seed);
    // How bad the network is, in percent of packets.
    let loss = [0, 2, 10][roll(3) as usize];
    let patience = [3, 12, 60][roll(3) as usize];
    let mut record = Record::default();
    let mut present = Vec::new();
    let mut packets: Vec<Packet> = (0..n).map(|i| Packet::ToServer(i, Answer::Message(world.first[i as usize].clone()))).collect();
    let mut phase = 0;
    let mut idle = 0;
    let outcome = loop {
        // Strays of older sessions are ignored by everybody.
        if !strays.is_empty() && roll(20) == 0 {
            let stray = strays[roll(strays.len() as u32) as usize].clone();
            let i = roll(n);
            assert_eq!(world.server.receive(i, &stray), Err(Fault::WrongSession), "seed {seed}");
            if world.clients[i as usize].is_some() {
                assert_eq!(world.deliver(i as usize, &stray), Err(Fault::WrongSession), "seed {seed}");
            }
        }
        if roll(100) < 1 && loss > 0 {
            world.clients[roll(n) as usize] = None;
        }
        if packets.is_empty() {
            idle += 1;
            // Ask again whoever has not answered, as a client that reconnects would.
            for i in world.server.expected() {
                if let (Some(bytes), true) = (world.server.message_for(i), roll(2) == 0) {
                    packets.push(Packet::ToClient(i, bytes));
                }
            }
        }
        let complete = world.server.received() as usize == world.server.expected().len();
        if (complete && roll(2) == 0) || roll(patience * n) == 0 || idle > 20 {
            idle = 0;
            if phase == 4 {
                break world.server.open(1);
            }
            if let Err(fault) = world.server.close() {
                break Err(fault);
            }
            if phase == 0 {
                present = world.server.expected();
            }
            phase += 1;
            for i in world.server.expected() {
                packets.push(Packet::ToClient(i, world.server.message_for(i).unwrap()));
            }
            continue;
        }
        if packets.is_empty() {
            continue;
        }
        let at = roll(packets.len() as u32) as usize;
        if roll(100) < loss {
            packets.swap_remove(at);
            continue;
        }
        let again = roll(10) == 0;
        match &packets[at] {
            Packet::ToClient(i, bytes) => {
                let (i, bytes) = (*i, bytes.clone());
                if world.clients[i as usize].is_some() {
                    let reply = world.deliver(i as usize, &bytes);
                    match reply {
                        Ok(Reply::Send(answer)) => {
                            if Survivors::decode(&world.terms.session, &bytes).is_ok() {
                                record.stories.insert(bytes.clone());
                            }
                            let first = record.answers.entry((i, bytes.clone())).or_insert_with(|| answer.clone());
                            assert_eq!(*first, answer, "S4 broken by seed {seed}");
                            packets.push(Packet::ToServer(i, Answer::Message(answer)));
                        }
                        Ok(Reply::WantsVector) => {
                            let vector = world.vectors[i as usize].clone();
                            if let Ok(packed) = world.clients[i as usize].as_mut().unwrap().mask(vector, 1) {
                                packets.push(Packet::ToServer(i, Answer::Vector(packed)));
                            }
                        }
                        Err(fault) => assert!(fault.harmless(), "S5 broken by seed {seed}: {fault}"),
                    }
                }
            }
            Packet::ToServer(i, answer) => {
                let i = *i;
                let session = world.terms.session;
                let receipt = match answer {
                    Answer::Message(bytes) => world.server.receive(i, bytes),
                    Answer::Vector(packed) => world.server.receive_vector(i, &session, &[packed]),
                };
                match receipt {
                    Ok(_) => {
                        if let Answer::Message(bytes) = answer {
                            record.shares_dealt(&world, i, &present, bytes);
                            record.shares_given(&world, i, &present, bytes);
                        }
                    }
                    Err(Fault::OutOfTurn { .. } | Fault::NotTakingPart { .. } | Fault::SecondInput) => {}
                    Err(fault) => panic!("S5 broken by seed {seed}: {fault}"),
                }
            }
        }
        if !again {
            packets.swap_remove(at);
        }
    };
    record.check_one_secret(seed);
    assert!(record.stories.len() <= 1, "S3 broken by seed {seed}");
    assert!(world.clients.iter().flatten().all(|client| !client.is_over()), "S5 broken by seed {seed}");
    if strays.len() < 50 {
        strays.extend(packets.into_iter().filter_map(|packet| match packet {
            Packet::ToServer(_, Answer::Message(bytes)) | Packet::ToClient(_, bytes) => Some(bytes),
            Packet::ToServer(_, Answer::Vector(_)) => None,
        }));
    }
    match outcome {
        Ok(sum) => {
            let right = world.truth(&sum.survivors);
            assert_eq!(sum.accumulator.residues().collect::<Vec<_>>(), right, "S1 broken by seed {seed}");
            assert!(sum.survivors.len() as u32 >= world.terms.minimum && sum.complaints.is_empty());
            true
        }
        Err(Fault::TooFew { .. } | Fault::Infeasible(_) | Fault::Unrecoverable { .. }) => {
            assert!(world.server.is_over());
            false
        }
        Err(fault) => panic!("S5 broken by seed {seed}: {fault}"),
    }
}

/// Issue 3, tests: seeded simulation with named invariants.
#[test]
fn thousands_of_sessions_on_a_bad_network_are_exact_or_nothing() {
    let mut strays = Vec::new();
    let sessions = 2000;
    let opened = (0..sessions).filter(|seed| session(*seed, &mut strays)).count() as u64;
    // Both ends are reached often, or the simulation shows nothing.
    assert!(opened > sessions / 5 && opened < sessions * 4 / 5, "{opened} of {sessions} opened");
    assert!(strays.len() > 20);
}

/// Issue 3, 1: a server that tells every client one of two stories at random, with a colluder who gives it everything: it never
/// has t shares of both secrets of an honest participant.
#[test]
fn a_server_with_two_stories_never_gets_both_secrets() {
    let mut answered = [0u32; 2];
    for profile in [Profile::SemiMalicious, Profile::Curious] {
        let n = 10;
        let mut base = World::at(n, terms(profile, 0.3, 2), 1);
        let threshold = base.server.plan().unwrap().threshold() as usize;
        let introduction = base.server.message_for(0).unwrap();
        let mut record = Record::default();
        let present: Vec<u32> = (0..n).collect();
        for i in 0..n {
            let answer = base.answer(i);
            if let Answer::Message(bytes) = &answer {
                record.shares_dealt(&base, i, &present, bytes);
            }
            base.take(i, &answer);
        }
        base.server.close().unwrap();
        base.exchange(|_| true);
        let session = base.terms.session;
        let colluder = 9;
        for seed in 0..150 {
            let mut dice = ChaCha20Rng::seed_from_u64(seed);
            let mut world = base.clone();
            // Two stories about participant 0, the victim, and others.
            let stories = [0, 1].map(|story| {
                let gone = 1 + dice.next_u32() % 8;
                RankSet::of(n, |rank| rank != gone && (rank != 0 || story == 0))
            });
            let lean = dice.next_u32() % 11;
            let told: Vec<usize> = (0..n).map(|_| usize::from(dice.next_u32() % 10 < lean)).collect();
            let mut signed: Vec<Option<[u8; 64]>> = vec![None; n as usize];
            for i in 0..n {
                let message = Survivors { survivors: stories[told[i as usize]].clone() }.encode(&session);
                if let Ok(Reply::Send(bytes)) = world.deliver(i as usize, &message) {
                    signed[i as usize] = Some(Alive::decode(&session, &bytes).unwrap().signature);
                }
            }
            // The colluder signs both.
            let roll = Introduction::decode(&session, &introduction).unwrap().roll.digest(&world.terms);
            let both = stories.clone().map(|survivors| world.keys[9].sign(&Survivors { survivors }.signed_bytes(&session, &roll)));
            let mut given = Record { dealt: record.dealt.clone(), ..Record::default() };
            for i in 0..n {
                let of = told[i as usize];
                let peers = (0..n).filter(|j| *j != i && told[*j as usize] == of && stories[of].contains(*j));
                let mut signatures: Vec<(u32, [u8; 64])> = peers.filter_map(|j| Some((j, signed[j as usize]?))).collect();
                if i != colluder && stories[of].contains(colluder) {
                    signatures.retain(|(j, _)| *j != colluder);
                    signatures.push((colluder, both[of]));
                }
                match world.deliver(i as usize, &Consistency { signatures }.encode(&session)) {
                    Ok(Reply::Send(bytes)) => {
                        answered[0] += 1;
                        given.shares_given(&world, i, &present, &bytes);
                    }
                    _ => answered[1] += 1,
                }
            }
            for (owner, [key, seed_shares]) in &given.given {
                let with_colluder =
                    |holders: &BTreeSet<u32>| holders.len() + usize::from(!holders.contains(&colluder) && *owner != colluder);
                assert!(
                    with_colluder(key) < threshold || with_colluder(seed_shares) < threshold,
                    "S2 broken for {owner} by seed {seed}, {profile:?}"
                );
            }
        }
    }
    // Some were convinced and some were not.
    assert!(answered.iter().all(|count| *count > 300), "{answered:?}");
}

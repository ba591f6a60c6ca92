//! Thousands of tiny sessions on a bad network, and a few in rings: messages are lost, doubled, delayed and overtaken, in some sessions
//! their bits flip, clients crash, phases close too early. After every session the invariants are checked.
//!
//! - S1 exact: the sum is that of the survivors bit for bit, as their vectors arrived, or there is none.
//! - S2 one secret: for no participant has the server been given shares of both secrets, in messages that it took or refused.
//! - S3 one story: whoever signs what the server said, signs the same survivors.
//! - S4 same bytes: a client answers a repeated message as it did before.
//! - S5 no honest victim: an honest server and a bad network that flips no bits make no client give up, and no participant is accused.
//!
//! Not a failure: a session that ends for lack of participants. A failing seed is printed and replays.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    secagg::{
        channel::{self, Which},
        message::{Introduction, ShareKeys, Survivors, Unmask},
    },
    wire,
};

#[derive(Clone)]
enum Packet {
    ToServer(u32, Answer),
    ToClient(u32, Vec<u8>),
}

impl Packet {
    /// The same with one or two bits flipped, often at the end, where a set of survivors is.
    fn damaged(&self, roll: &mut impl FnMut(u32) -> u32) -> Self {
        let (Self::ToServer(_, Answer::Message(bytes) | Answer::Vector(bytes)) | Self::ToClient(_, bytes)) = self;
        let mut bytes = bytes.clone();
        for _ in 0..=roll(2) {
            let within = if roll(2) == 0 { bytes.len() } else { 2 };
            let at = bytes.len() - 1 - roll(within as u32) as usize;
            bytes[at] ^= 1 << roll(8);
        }
        match self {
            Self::ToServer(i, answer) => Self::ToServer(*i, answer.with(bytes)),
            Self::ToClient(i, _) => Self::ToClient(*i, bytes),
        }
    }
}

/// What an observer with all keys to the truth writes down.
#[derive(Clone)]
pub(super) struct Record {
    session: Session,
    /// By index: the rank, and the neighbours' indices in the order of their ranks.
    places: BTreeMap<u32, (u32, Vec<u32>)>,
    /// By holder and dealer: the commitments to both shares.
    dealt: BTreeMap<u32, BTreeMap<u32, [[u8; 32]; 2]>>,
    /// By owner: holders of the shares of the key and of the seed that the server was given.
    pub(super) given: BTreeMap<u32, [BTreeSet<u32>; 2]>,
    stories: BTreeSet<Vec<u8>>,
    answers: BTreeMap<(u32, Vec<u8>), Vec<u8>>,
}

impl Record {
    /// When keys have been advertised.
    pub(super) fn new(world: &World) -> Self {
        let present = world.server.expected();
        let roll = world.message::<Introduction>(present[0]).roll.digest(&world.terms);
        let graph = Graph::new(world.server.plan().unwrap(), &roll);
        let index = |rank: u32| present[rank as usize];
        let places = (0..).zip(&present).map(|(rank, i)| (*i, (rank, graph.neighbours(rank).into_iter().map(index).collect())));
        Self {
            session: world.terms.session,
            places: places.collect(),
            dealt: BTreeMap::new(),
            given: BTreeMap::new(),
            stories: BTreeSet::new(),
            answers: BTreeMap::new(),
        }
    }
    /// Of what `from` sent, if it is that.
    pub(super) fn shares_dealt(&mut self, from: u32, bytes: &[u8]) {
        let Ok(message) = ShareKeys::decode(&self.session, bytes) else { return };
        for (holder, dealt) in self.places[&from].1.iter().zip(message.dealt) {
            self.dealt.entry(*holder).or_default().insert(from, dealt.commitments);
        }
    }
    /// Of what `from` sent, if it is that: whether every share belongs to one secret. Which one is found out, not believed.
    pub(super) fn shares_given(&mut self, from: u32, bytes: &[u8]) -> bool {
        let Ok(message) = Unmask::decode(&self.session, bytes) else { return true };
        let mut known = true;
        for share in message.shares.iter().flatten() {
            let mut found = 0;
            for (owner, commitments) in self.dealt.get(&from).into_iter().flatten() {
                for (at, which) in [Which::Key, Which::Seed].into_iter().enumerate() {
                    let (owner_rank, holder_rank) = (self.places[owner].0, self.places[&from].0);
                    if channel::commit_share(share, which, &self.session, owner_rank, holder_rank) == commitments[at] {
                        self.given.entry(*owner).or_default()[at].insert(from);
                        found += 1;
                    }
                }
            }
            known &= found == 1;
        }
        known
    }
    fn check_one_secret(&self, seed: u64) {
        for (owner, [key, mask]) in &self.given {
            assert!(key.is_empty() || mask.is_empty(), "S2 broken for {owner} by seed {seed}: {key:?} and {mask:?}");
        }
    }
}

/// Participants, profile, δ.
type Setting = (u32, Profile, f64);
const SMALL: [Setting; 4] =
    [(3, Profile::SemiMalicious, 0.0), (4, Profile::Curious, 0.25), (5, Profile::SemiMalicious, 0.2), (6, Profile::Curious, 0.34)];
/// In rings.
const LARGE: [Setting; 3] = [(30, Profile::SemiMalicious, 0.1), (36, Profile::Curious, 0.2), (40, Profile::Curious, 0.1)];

/// One session under `seed`: whether a packet was damaged, and whether it opened.
fn session(seed: u64, settings: &[Setting], strays: &mut Vec<Vec<u8>>) -> (bool, bool) {
    let mut dice = ChaCha20Rng::seed_from_u64(seed);
    let mut roll = move |sides: u32| dice.next_u32() % sides;
    let (n, profile, dropout) = settings[roll(settings.len() as u32) as usize];
    let mut world = World::new(n, terms(profile, dropout, 2), seed);
    // How bad the network is, in percent of packets.
    let loss = [0, 2, 10][roll(3) as usize];
    let damage = [0, 0, 1, 3][roll(4) as usize];
    let patience = [3, 12, 60][roll(3) as usize];
    let mut record: Option<Record> = None;
    let mut packets: Vec<Packet> = (0..n).map(|i| Packet::ToServer(i, Answer::Message(world.first[i as usize].clone()))).collect();
    let mut masked: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let (mut phase, mut idle, mut hurt) = (0, 0, false);
    let outcome = loop {
        // Strays of older sessions are ignored by everybody.
        if !strays.is_empty() && roll(20) == 0 {
            let stray = strays[roll(strays.len() as u32) as usize].clone();
            let i = roll(n);
            assert_eq!(world.server.receive(i, &stray), Err(Fault::WrongSession), "seed {seed}");
            if let Some(client) = &world.clients[i as usize] {
                let fault = if client.is_over() { Fault::Over } else { Fault::WrongSession };
                assert_eq!(world.deliver(i as usize, &stray), Err(fault), "seed {seed}");
            }
        }
        if roll(25 * n) == 0 && loss > 0 {
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
        if (complete && roll(2) == 0) || roll(patience * n * n.div_ceil(8)) == 0 || idle > 20 {
            idle = 0;
            if phase == 4 {
                break world.server.open(1);
            }
            if let Err(fault) = world.server.close() {
                break Err(fault);
            }
            record = record.or_else(|| Some(Record::new(&world)));
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
        let mut packet = if roll(10) == 0 { packets[at].clone() } else { packets.swap_remove(at) };
        let damaged = roll(100) < damage;
        if damaged {
            hurt = true;
            packet = packet.damaged(&mut roll);
        }
        match packet {
            Packet::ToClient(i, _) if world.clients[i as usize].is_none() => {}
            Packet::ToClient(i, bytes) => match world.deliver(i as usize, &bytes) {
                Ok(Reply::Send(answer)) => {
                    let record = record.as_mut().expect("who answers has been told something");
                    if !damaged && Survivors::decode(&world.terms.session, &bytes).is_ok() {
                        record.stories.insert(bytes.clone());
                    }
                    record.shares_dealt(i, &answer);
                    let first = record.answers.entry((i, bytes)).or_insert_with(|| answer.clone());
                    assert_eq!(*first, answer, "S4 broken by seed {seed}");
                    packets.push(Packet::ToServer(i, Answer::Message(answer)));
                }
                Ok(Reply::WantsVector) => {
                    let vector = world.vectors[i as usize].clone();
                    if let Ok(packed) = world.clients[i as usize].as_mut().unwrap().mask(vector, 1) {
                        masked.insert(i, packed.clone());
                        packets.push(Packet::ToServer(i, Answer::Vector(packed)));
                    }
                }
                Err(fault) => assert!(fault.harmless() || hurt, "S5 broken by seed {seed}: {fault}"),
            },
            Packet::ToServer(i, answer) => {
                // Whatever becomes of it: the server has seen it.
                let known = record.as_mut().is_none_or(|record| record.shares_given(i, answer.bytes()));
                assert!(known || damaged, "a share of nothing, by seed {seed}");
                match (world.send(i, &answer), answer) {
                    (Ok(Receipt::Taken), Answer::Vector(packed)) if damaged => {
                        let lanes = |bytes: &[u8]| wire::unpack(bytes, 2, world.terms.bits).unwrap();
                        let change = lanes(&packed).into_iter().zip(lanes(&masked[&i]));
                        for (x, (came, left)) in world.vectors[i as usize].iter_mut().zip(change) {
                            *x = x.wrapping_add(came).wrapping_sub(left);
                        }
                    }
                    (Ok(_) | Err(Fault::OutOfTurn { .. } | Fault::NotTakingPart { .. } | Fault::SecondInput), _) => {}
                    (Err(fault), _) => assert!(hurt, "S5 broken by seed {seed}: {fault}"),
                }
            }
        }
    };
    if let Some(record) = &record {
        record.check_one_secret(seed);
        assert!(record.stories.len() <= 1, "S3 broken by seed {seed}");
    }
    assert!(hurt || world.clients.iter().flatten().all(|client| !client.is_over()), "S5 broken by seed {seed}");
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
            assert!(sum.survivors.len() as u32 >= world.terms.minimum && (hurt || sum.complaints.is_empty()));
            (hurt, true)
        }
        Err(fault) => {
            let short = matches!(fault, Fault::TooFew { .. } | Fault::Infeasible(_) | Fault::Unrecoverable { .. } | Fault::Disconnected);
            assert!(short || hurt, "S5 broken by seed {seed}: {fault}");
            assert!(world.server.is_over());
            (hurt, false)
        }
    }
}

/// Of `sessions`, first those without damaged packets, then the others: how many there were, and how many opened.
fn sessions(sessions: u64, settings: &[Setting]) -> [[u64; 2]; 2] {
    let (mut counts, mut strays) = ([[0; 2]; 2], Vec::new());
    for seed in 0..sessions {
        let (hurt, opened) = session(seed, settings, &mut strays);
        let [all, open] = &mut counts[usize::from(hurt)];
        (*all, *open) = (*all + 1, *open + u64::from(opened));
    }
    assert!(strays.len() > 20);
    counts
}

/// Issue 3, tests: seeded simulation with named invariants.
#[test]
fn thousands_of_sessions_on_a_bad_network_are_exact_or_nothing() {
    let counts = sessions(2000, &SMALL);
    // Both ends are reached often, or the simulation shows nothing.
    for [all, opened] in counts {
        assert!(all > 200 && opened > all / 5 && opened < all * 4 / 5, "{counts:?}");
    }
}

/// The same where neighbours are only some of the others.
#[test]
fn rings_on_a_bad_network_are_exact_or_nothing() {
    let counts = sessions(16, &LARGE);
    let [[clean, opened], [hurt, nevertheless]] = counts;
    assert!(clean >= 4 && hurt >= 4 && (4..12).contains(&(opened + nevertheless)), "{counts:?}");
}

//! Memory that is given back holds no secret of a client: an allocator looks for them in every block.
#![allow(unsafe_code)] // an allocator

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use ring::{
    hkdf::{HKDF_SHA256, Salt},
    signature::{Ed25519KeyPair, KeyPair},
};
use sapwood_privacy::{
    Bits,
    secagg::{
        Client, IdentityKey, Participant, Policy, Profile, Random, Rate, Reply, Server, Session, Signer, Suite, Terms, client::Cx, shamir,
    },
};
use x25519_dalek::{PublicKey, StaticSecret};

/// The first 8 bytes of each secret, and whether they were found.
static SECRETS: [(AtomicU64, AtomicBool); 9] = [const { (AtomicU64::new(0), AtomicBool::new(false)) }; 9];
const NAMES: [&str; 9] = [
    "channel key",
    "mask key",
    "own-mask seed",
    "coefficient of the mask key",
    "pair seed",
    "share of 1's mask key",
    "share of 2's mask key",
    "share of 3's mask key",
    "vector",
];

struct Looking;

// SAFETY: this is the system's allocator. A block is read when it is given back, while it is still there; it began as zeros.
unsafe impl GlobalAlloc for Looking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
        for word in bytes.windows(8).filter_map(|window| window.first_chunk()).map(|word| u64::from_le_bytes(*word)) {
            SECRETS.iter().filter(|(secret, _)| word != 0 && secret.load(SeqCst) == word).for_each(|(_, found)| found.store(true, SeqCst));
        }
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Looking = Looking;

/// Those found since it was asked last.
fn found() -> Vec<&'static str> {
    NAMES.iter().zip(&SECRETS).filter_map(|(name, (_, found))| found.swap(false, SeqCst).then_some(*name)).collect()
}

struct Key(Ed25519KeyPair);

impl Signer for Key {
    fn identity(&self) -> IdentityKey {
        IdentityKey(self.0.public_key().as_ref().try_into().unwrap())
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().unwrap()
    }
}

/// Draws that can be made again: splitmix64.
#[derive(Clone)]
struct Draws(u64);

impl Random for Draws {
    fn fill(&mut self, bytes: &mut [u8]) {
        for bytes in bytes.as_chunks_mut::<8>().0 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            *bytes = (z ^ z >> 31).to_le_bytes();
        }
    }
}

const N: u32 = 4;
/// Of every vector.
const ELEMENT: u32 = 0x1234_5678;

fn terms() -> Terms {
    Terms {
        session: Session([9; 32]),
        round: 1,
        minimum: 3,
        dropout: Rate::ZERO,
        corruption: Rate::ZERO,
        profile: Profile::Curious,
        bits: Bits::FULL,
        length: 4.try_into().unwrap(),
        suite: Suite::Aes256,
        context: [0; 32],
    }
}

/// Looks for secrets of client 0, and for the shares that it holds and that nobody will ask for.
fn look(terms: &Terms, draws: &[Draws; N as usize]) -> [u8; 32] {
    let mut draws = draws.clone();
    let secrets = draws.each_mut().map(|draws| {
        // Keys for envelopes and for masks, a nonce, the own-mask seed; polynomials come behind.
        let mut secrets = [[0; 32]; 4];
        secrets.iter_mut().for_each(|secret| draws.fill(secret));
        secrets
    });
    let [channel, mask, _, own] = secrets[0];
    let mut coefficient = [0; 8];
    draws[0].clone().fill(&mut coefficient);
    coefficient[7] &= 0x1f;
    let agreed = StaticSecret::from(mask).diffie_hellman(&PublicKey::from(&StaticSecret::from(secrets[1][1])));
    let (info, mut pair) = ([&b"mask"[..], &terms.session.0, &[0; 4], &[1, 0, 0, 0]], [0; 32]);
    let key = Salt::new(HKDF_SHA256, &[]).extract(agreed.as_bytes());
    key.expand(&info, HKDF_SHA256).unwrap().fill(&mut pair).unwrap();
    let threshold = terms.plan(N).unwrap().threshold();
    let shares = [1, 2, 3].map(|dealer| {
        let holders: Vec<u32> = (0..N).filter(|holder| *holder != dealer).collect();
        *shamir::share(&secrets[dealer as usize][1], threshold, &holders, &mut draws[dealer as usize])[0].to_bytes()
    });
    let vector = (u64::from(ELEMENT) << 32 | u64::from(ELEMENT)).to_le_bytes();
    let all = [&channel[..], &mask, &own, &coefficient, &pair, &shares[0], &shares[1], &shares[2], &vector];
    for ((secret, _), bytes) in SECRETS.iter().zip(all) {
        secret.store(u64::from_le_bytes(*bytes.first_chunk().unwrap()), SeqCst);
    }
    mask
}

#[test]
fn memory_that_is_given_back_holds_no_secret() {
    let terms = terms();
    let mut draws = std::array::from_fn(|i| Draws((i as u64) << 40));
    let mask = look(&terms, &draws);
    drop(mask.to_vec());
    assert_eq!(found(), ["mask key"], "what is not wiped is found");

    let keys: Vec<Key> = (0..N).map(|i| Key(Ed25519KeyPair::from_seed_unchecked(&[i as u8 + 1; 32]).unwrap())).collect();
    let cohort = keys.iter().map(|key| Participant { identity: key.identity(), context: Vec::new() }).collect();
    let mut server = Server::new(terms.clone(), cohort).unwrap();
    let mut clients = Vec::new();
    for (i, (signer, random)) in (0..).zip(keys.iter().zip(&mut draws)) {
        let policy = Policy { minimum: 3, corruption: Rate::ZERO, profile: Profile::Curious };
        let (client, keys) = Client::begin(terms.clone(), &policy, Vec::new(), &mut Cx { signer, vouch: &|_, _| true, random }).unwrap();
        server.receive(i, &keys).unwrap();
        clients.push(client);
    }
    for round in 1..5 {
        server.close().unwrap();
        for (i, client) in (0..).zip(&mut clients) {
            let message = server.message_for(i).unwrap();
            let mut cx = Cx { signer: &keys[i as usize], vouch: &|_, _| true, random: &mut draws[i as usize] };
            let reply = client.receive(&message, &mut cx).unwrap();
            assert_eq!(found(), [""; 0], "client {i} in round {round}");
            match reply {
                Reply::Send(bytes) => server.receive(i, &bytes).unwrap(),
                Reply::WantsVector => {
                    assert!(client.mask(vec![ELEMENT; 5], 1).is_err());
                    assert_eq!(found(), [""; 0], "a refused vector");
                    let masked = client.mask(vec![ELEMENT; 4], 1).unwrap();
                    // The expanded keys of masks begin with the seed, and `ring` frees them as they are.
                    assert!(found().iter().all(|name| *name == "pair seed"));
                    server.receive_vector(i, &terms.session, &[masked]).unwrap()
                }
            };
        }
    }
    assert!(server.open(1).unwrap().accumulator.residues().all(|lane| lane == ELEMENT.wrapping_mul(N)));
    drop((clients, server));
    assert_eq!(found(), [""; 0]);
}

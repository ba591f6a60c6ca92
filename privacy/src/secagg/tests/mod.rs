//! Whole sessions: exactness, privacy, attacks, and a simulation of a bad network.

mod dropouts;
mod exact;
mod fuzz;
mod lying_peer;
mod lying_server;
mod private;
mod server;
mod simulation;
mod two_stories;

use std::rc::Rc;

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::{client::Cx, message::Message, *};
use crate::Bits;

/// An identity for tests.
pub(super) struct Key(Ed25519KeyPair);

impl Key {
    pub(super) fn new(i: u32) -> Self {
        let mut seed = [0x5a; 32];
        seed[..4].copy_from_slice(&i.to_le_bytes());
        Self(Ed25519KeyPair::from_seed_unchecked(&seed).unwrap())
    }
}

impl Signer for Key {
    fn identity(&self) -> IdentityKey {
        IdentityKey(self.0.public_key().as_ref().try_into().unwrap())
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().unwrap()
    }
}

/// What a client sends.
#[derive(Clone)]
pub(super) enum Answer {
    Message(Vec<u8>),
    Vector(Vec<u8>),
}

impl Answer {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Message(bytes) | Self::Vector(bytes) => bytes,
        }
    }
    /// The same kind of packet with other bytes.
    pub(super) fn with(&self, bytes: Vec<u8>) -> Self {
        match self {
            Self::Message(_) => Self::Message(bytes),
            Self::Vector(_) => Self::Vector(bytes),
        }
    }
}

/// Reads `bytes` as everything that there is: without a panic, and what is read has this one encoding.
pub(super) fn every_decoder(session: &Session, bytes: &[u8]) {
    use message::{Advertise, Alive, Consistency, Delivery, Introduction, ShareKeys, Survivors, Unmask, peek};
    fn one<M: Message>(session: &Session, bytes: &[u8]) {
        if let Ok(message) = M::decode(session, bytes) {
            assert_eq!(message.encode(session), bytes, "a message has one encoding");
        }
    }
    one::<Advertise>(session, bytes);
    one::<ShareKeys>(session, bytes);
    one::<Alive>(session, bytes);
    one::<Unmask>(session, bytes);
    one::<Introduction>(session, bytes);
    one::<Delivery>(session, bytes);
    one::<Survivors>(session, bytes);
    one::<Consistency>(session, bytes);
    let _ = peek(bytes);
    if let Ok(terms) = Terms::decode(bytes) {
        assert_eq!(terms.encode(), bytes);
    }
}

/// A cohort, its vectors, and a server, all in one place.
#[derive(Clone)]
pub(super) struct World {
    pub(super) terms: Terms,
    pub(super) keys: Rc<[Key]>,
    pub(super) clients: Vec<Option<Client>>,
    pub(super) first: Vec<Vec<u8>>,
    pub(super) vectors: Vec<Vec<u32>>,
    pub(super) server: Server,
    pub(super) rng: ChaCha20Rng,
}

pub(super) fn vouch(identity: &IdentityKey, context: &[u8]) -> bool {
    context == context_of(identity)
}

pub(super) fn context_of(identity: &IdentityKey) -> &[u8] {
    &identity.0[..4]
}

pub(super) fn terms(profile: Profile, dropout: f64, length: u32) -> Terms {
    Terms {
        session: Session([0; 32]),
        round: 3,
        minimum: 3,
        dropout: Rate::from_share(dropout).unwrap(),
        corruption: Rate::from_share(0.05).unwrap(),
        profile,
        bits: Bits::new(20).unwrap(),
        length: length.try_into().unwrap(),
        suite: Suite::Aes256,
        context: [9; 32],
    }
}

pub(super) const OPEN: Policy = Policy { minimum: 0, corruption: Rate::ZERO, profile: Profile::Curious };

impl World {
    pub(super) fn new(n: u32, mut terms: Terms, seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        rng.fill_bytes(&mut terms.session.0);
        let keys: Rc<[Key]> = (0..n).map(Key::new).collect();
        let cohort =
            keys.iter().map(|key| Participant { identity: key.identity(), context: context_of(&key.identity()).to_vec() }).collect();
        let server = Server::new(terms.clone(), cohort).unwrap();
        let mask = terms.bits.mask();
        let vectors = (0..n).map(|_| (0..terms.length.get()).map(|_| rng.next_u32() & mask).collect()).collect();
        let mut world = Self { terms, keys, clients: Vec::new(), first: Vec::new(), vectors, server, rng };
        for i in 0..n as usize {
            let (client, bytes) = world.begin(i, &OPEN).unwrap();
            world.clients.push(Some(client));
            world.first.push(bytes);
        }
        world
    }

    pub(super) fn begin(&mut self, i: usize, policy: &Policy) -> Result<(Client, Vec<u8>), Fault> {
        let key = &self.keys.clone()[i];
        let rng = &mut self.rng;
        let mut random = |bytes: &mut [u8]| rng.fill_bytes(bytes);
        let mut cx = Cx { signer: key, vouch: &vouch, random: &mut random };
        Client::begin(self.terms.clone(), policy, context_of(&key.identity()).to_vec(), &mut cx)
    }

    /// Client `i` begins anew with draws that the test knows: 32 bytes of `first` for its channel key, of `first + 1` for its mask
    /// key, of `first + 2` for its nonce.
    pub(super) fn begin_known(&mut self, i: usize, first: u8) {
        let key = &self.keys[i];
        let mut next = first..;
        let mut random = |bytes: &mut [u8]| bytes.fill(next.next().expect("few draws"));
        let mut cx = Cx { signer: key, vouch: &vouch, random: &mut random };
        let begun = Client::begin(self.terms.clone(), &OPEN, context_of(&key.identity()).to_vec(), &mut cx);
        let (client, bytes) = begun.unwrap();
        (self.clients[i], self.first[i]) = (Some(client), bytes);
    }

    /// Hands a message of the server to client `i`.
    pub(super) fn deliver(&mut self, i: usize, bytes: &[u8]) -> Result<Reply, Fault> {
        let rng = &mut self.rng;
        let mut random = |bytes: &mut [u8]| rng.fill_bytes(bytes);
        let mut cx = Cx { signer: &self.keys[i], vouch: &vouch, random: &mut random };
        self.clients[i].as_mut().expect("a client that is there").receive(bytes, &mut cx)
    }

    /// R0 for those who stay.
    pub(super) fn advertise(&mut self, stay: impl Fn(u32) -> bool) -> Result<(), Fault> {
        for i in 0..self.keys.len() as u32 {
            if stay(i) {
                assert_eq!(self.server.receive(i, &self.first[i as usize]), Ok(Receipt::Taken));
            }
        }
        self.server.close()
    }

    /// One phase of messages there and back, for those who stay.
    pub(super) fn exchange(&mut self, stay: impl Fn(u32) -> bool) {
        for i in self.server.expected() {
            if stay(i) {
                let answer = self.answer(i);
                self.take(i, &answer);
            }
        }
    }

    /// What client `i` sends in this phase, if it is honest.
    pub(super) fn answer(&mut self, i: u32) -> Answer {
        let message = self.server.message_for(i).unwrap();
        match self.deliver(i as usize, &message).unwrap() {
            Reply::Send(bytes) => Answer::Message(bytes),
            Reply::WantsVector => Answer::Vector(self.masked(i as usize)),
        }
    }
    /// What becomes of it at the server.
    pub(super) fn send(&mut self, i: u32, answer: &Answer) -> Result<Receipt, Fault> {
        match answer {
            Answer::Message(bytes) => self.server.receive(i, bytes),
            Answer::Vector(packed) => self.server.receive_vector(i, &self.terms.session, &[packed]),
        }
    }
    /// The server takes it.
    pub(super) fn take(&mut self, i: u32, answer: &Answer) {
        assert_eq!(self.send(i, answer), Ok(Receipt::Taken));
    }

    pub(super) fn masked(&mut self, i: usize) -> Vec<u8> {
        let vector = self.vectors[i].clone();
        self.clients[i].as_mut().unwrap().mask(vector, 1).unwrap()
    }

    /// The true sum modulo 2^b.
    pub(super) fn truth(&self, of: &[u32]) -> Vec<u32> {
        let mut sum = vec![0u32; self.terms.length.get() as usize];
        for i in of {
            sum.iter_mut().zip(&self.vectors[*i as usize]).for_each(|(sum, x)| *sum = sum.wrapping_add(*x));
        }
        sum.iter_mut().for_each(|sum| *sum &= self.terms.bits.mask());
        sum
    }

    /// Plays a session in which participant i leaves before round `leaves[i]` (5: never). The sum, or why there is none.
    pub(super) fn play(&mut self, leaves: &[u8]) -> Result<Sum, Fault> {
        let stays = |round: u8| move |i: u32| leaves[i as usize] > round;
        self.advertise(stays(0))?;
        self.exchange(stays(1));
        self.server.close()?;
        self.exchange(stays(2));
        self.server.close()?;
        self.exchange(stays(3));
        self.server.close()?;
        self.exchange(stays(4));
        self.server.open(1)
    }
}

impl World {
    /// At the phase in which the server sends message R`round` and nobody has it yet; all are honest and there.
    pub(super) fn at(n: u32, terms: Terms, round: u8) -> Self {
        let mut world = Self::new(n, terms, u64::from(round) + 100);
        world.advertise(|_| true).unwrap();
        for _ in 1..round {
            world.exchange(|_| true);
            world.server.close().unwrap();
        }
        world
    }

    /// The message for client `i`, as the server would send it.
    pub(super) fn message<M: Message>(&self, i: u32) -> M {
        M::decode(&self.terms.session, &self.server.message_for(i).unwrap()).unwrap()
    }

    /// Hands client `i` a message that it must refuse, and checks that nothing is left of it.
    pub(super) fn refused<M: Message>(&self, i: u32, message: &M) -> Fault {
        let mut world = self.clone();
        let bytes = message.encode(&world.terms.session);
        let fault = world.deliver(i as usize, &bytes).expect_err("a refusal");
        assert!(!fault.harmless(), "{fault}");
        world.assert_wiped(i);
        fault
    }

    pub(super) fn assert_wiped(&mut self, i: u32) {
        let client = self.clients[i as usize].as_mut().unwrap();
        assert!(client.is_over() && !client.is_done());
        assert!(format!("{client:?}").ends_with(", over)"));
        assert_eq!(client.mask(Vec::new(), 1), Err(Fault::Over));
        let message = self.server.message_for(i).unwrap_or_default();
        assert_eq!(self.deliver(i as usize, &message), Err(Fault::Over));
    }
}

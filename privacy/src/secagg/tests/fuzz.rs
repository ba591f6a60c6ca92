//! Real messages with bytes flipped, put in, cut out or mixed, and counts overwritten (notes 7.12). In every phase: nothing panics, a
//! client is over or as it was, a server that refuses is as it was, and the honest messages still open the right sum.

use super::*;
use crate::secagg::plan::MAX_PARTICIPANTS;

const N: u32 = 9;
/// Broken messages for the clients before and after they answer in a phase, and for the server.
const EACH: u32 = 300;
/// Where a list, a set or a context is counted in one message or another.
const COUNTS: [usize; 4] = [34, 42, 66, 194];
/// Kinds of messages that end with a list, where it is counted, and how long an entry is.
const LISTS: [(u8, usize, usize); 4] = [(2, 66, 160), (4, 34, 41), (12, 40, 96), (14, 34, 68)];

struct Dice(ChaCha20Rng);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0.next_u32() as usize % sides
    }
    fn one_of<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.roll(of.len())]
    }

    /// `message` with one thing wrong, or mixed with `other`.
    fn broken(&mut self, message: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = message.to_vec();
        let at = self.roll(bytes.len());
        let end = (at + 1 + self.roll(8)).min(bytes.len());
        match self.roll(7) {
            0 => bytes[at..end].iter_mut().for_each(|byte| *byte ^= 1 << self.roll(8)),
            1 => bytes.splice(at..at, other[self.roll(other.len())..].iter().copied().take(8)).for_each(drop),
            2 => bytes.drain(at..end).for_each(drop),
            3 => bytes.truncate(at),
            4 => bytes.splice(at.., other[at.min(other.len())..].iter().copied()).for_each(drop),
            5 => {
                // An entry too few, and nothing else wrong.
                let list = LISTS.iter().find(|(kind, ..)| bytes[0] == *kind);
                if let Some((_, count, entry)) = list
                    && let Some(low) = bytes.get_mut(*count)
                {
                    *low = low.wrapping_sub(1);
                    bytes.truncate(bytes.len().saturating_sub(*entry));
                }
            }
            _ => {
                let count = *self.one_of(&[0, 1, N - 2, N - 1, N, N + 1, MAX_PARTICIPANTS, MAX_PARTICIPANTS + 1, u32::MAX]);
                let at = *self.one_of(&COUNTS);
                bytes.iter_mut().skip(at).zip(count.to_le_bytes()).for_each(|(byte, new)| *byte = new);
            }
        }
        if bytes == message { self.broken(message, other) } else { bytes }
    }
}

/// Everything that is said in an honest session.
fn pool(mut world: World) -> Vec<Vec<u8>> {
    let mut pool = world.first.clone();
    world.advertise(|_| true).unwrap();
    for phase in 1..5 {
        pool.extend((0..N).filter_map(|i| world.server.message_for(i)));
        for i in 0..N {
            let answer = world.answer(i);
            world.take(i, &answer);
            pool.push(answer.bytes().to_vec());
        }
        if phase < 4 {
            world.server.close().unwrap();
        }
    }
    pool
}

/// What became of broken messages.
#[derive(Debug, Default)]
struct Counts {
    taken: u32,
    /// No message, late, or of another session.
    strays: u32,
    /// Read, and refused for what they say.
    refused: u32,
}

impl Counts {
    fn count<T>(&mut self, outcome: &Result<T, Fault>) {
        match outcome {
            Ok(_) => self.taken += 1,
            Err(Fault::Malformed(_) | Fault::WrongSession | Fault::OutOfTurn { .. } | Fault::Over) => self.strays += 1,
            Err(_) => self.refused += 1,
        }
    }
}

/// A client that a broken message has ended, or convinced, is put back; one that ignored it goes on as it is.
fn fuzz_clients(world: &mut World, dice: &mut Dice, pool: &[Vec<u8>], counts: &mut Counts) {
    for _ in 0..EACH {
        let i = *dice.one_of(&world.server.expected()) as usize;
        let own = world.server.message_for(i as u32).unwrap();
        let (message, other) = (if dice.roll(4) == 0 { dice.one_of(pool) } else { &own }, dice.one_of(pool));
        let bytes = dice.broken(message, other);
        every_decoder(&world.terms.session, &bytes);
        let client = world.clients[i].clone();
        let was = format!("{client:?}");
        let outcome = world.deliver(i, &bytes);
        counts.count(&outcome);
        match outcome {
            Err(fault) if fault.harmless() => assert_eq!(format!("{:?}", world.clients[i]), was, "{fault}"),
            Err(_) => {
                world.assert_wiped(i as u32);
                world.clients[i] = client;
            }
            Ok(_) => {
                assert!(!world.clients[i].as_ref().unwrap().is_over());
                world.clients[i] = client;
            }
        }
    }
}

/// A server that takes a broken message, as it must take a vector or an envelope with flipped bits, is put back; one that refuses goes
/// on as it is.
fn fuzz_server(world: &mut World, dice: &mut Dice, pool: &[Vec<u8>], answers: &[Answer], counts: &mut Counts) {
    for _ in 0..EACH {
        // One more than there are.
        let from = dice.roll(N as usize + 1);
        let own = &answers[from % answers.len()];
        let (message, other) = (if dice.roll(4) == 0 { dice.one_of(pool) } else { own.bytes() }, dice.one_of(pool));
        let bytes = dice.broken(message, other);
        every_decoder(&world.terms.session, &bytes);
        let packet = if dice.roll(8) == 0 { Answer::Vector(bytes) } else { own.with(bytes) };
        let state = |server: &Server| (server.received(), server.expected(), server.can_open(), server.is_over());
        let (server, was) = (world.server.clone(), state(&world.server));
        let outcome = world.send(from as u32, &packet);
        counts.count(&outcome);
        match outcome {
            Err(fault) => assert_eq!(state(&world.server), was, "{fault}"),
            Ok(_) => world.server = server,
        }
    }
}

/// Everybody's answers in this phase, among broken messages to everybody.
fn answers(world: &mut World, dice: &mut Dice, pool: &[Vec<u8>], counts: &mut Counts) -> Vec<Answer> {
    fuzz_clients(world, dice, pool, counts);
    let all = world.server.expected();
    for i in &all {
        let message = world.server.message_for(*i).unwrap();
        world.deliver(*i as usize, &message).unwrap();
    }
    // Now they have answered, or wait for their vectors.
    fuzz_clients(world, dice, pool, counts);
    all.into_iter().map(|i| world.answer(i)).collect()
}

#[test]
fn broken_messages_break_nothing_else() {
    for (profile, suite) in [(Profile::SemiMalicious, Suite::Aes256), (Profile::Curious, Suite::ChaCha20)] {
        let mut world = World::new(N, Terms { suite, ..terms(profile, 0.2, 5) }, 1);
        let pool = pool(world.clone());
        let mut dice = Dice(ChaCha20Rng::seed_from_u64(suite.code().into()));
        let (mut at_clients, mut at_server) = (Counts::default(), Counts::default());
        // Participants 8, 7 and 6 leave in R1, R3 and R4: of them the server gets nothing but broken messages then.
        for (phase, stay) in [9, 8, 8, 7, 6].into_iter().enumerate() {
            let answers = match phase {
                0 => world.first.iter().cloned().map(Answer::Message).collect(),
                _ => answers(&mut world, &mut dice, &pool, &mut at_clients),
            };
            let honest = (0..stay).zip(&answers);
            honest.clone().step_by(2).for_each(|(i, answer)| world.take(i, answer));
            fuzz_server(&mut world, &mut dice, &pool, &answers, &mut at_server);
            honest.skip(1).step_by(2).for_each(|(i, answer)| world.take(i, answer));
            if phase < 4 {
                world.server.close().unwrap();
                assert_eq!(world.server.expected(), (0..stay).collect::<Vec<_>>());
            }
        }
        let sum = world.server.open(1).unwrap();
        assert_eq!(sum.survivors, (0..8).collect::<Vec<_>>());
        assert_eq!(sum.accumulator.residues().collect::<Vec<_>>(), world.truth(&sum.survivors));
        assert!(sum.complaints.is_empty());
        // Each kind of outcome is reached, or the test shows nothing.
        for Counts { taken, strays, refused } in [&at_clients, &at_server] {
            assert!(*taken >= 20 && *strays >= 300 && *refused >= 300, "{at_clients:?}, {at_server:?}");
        }
    }
}

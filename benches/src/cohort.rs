//! A cohort that sums its vectors in secret, over the public interface of [`sapwood_privacy::secagg`] alone, and what each step
//! costs. Rounds are numbered as there: R0 to R4.

use anyhow::{Context, Result, ensure};
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};
use sapwood_privacy::{
    Bits,
    secagg::{
        Client, Graph, IdentityKey, Participant, Policy, Profile, Rate, Receipt, Reply, Server, Session, Signer, Suite, Sum, Terms,
        client::Cx,
        message::{Introduction, Message},
    },
};

use crate::proc::own_cpu;

/// The round in which the masked vectors are sent.
pub const VECTORS: usize = 2;

/// A cohort and what it sums. Both ends make everything else from it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// n.
    pub nodes: u32,
    /// d, elements of a vector.
    pub length: u32,
    /// How many leave once their shares are dealt, so that every vector carries masks to be taken off for them.
    pub leaving: u32,
    /// b.
    pub bits: u8,
}

impl Setting {
    /// Semi-malicious, 5 % collude, 10 % may leave, or as many as do.
    ///
    /// # Errors
    /// For a setting that makes no sense.
    pub fn terms(&self) -> Result<Terms> {
        let leaving = (u64::from(self.leaving) * 1_000_000).div_ceil(u64::from(self.nodes)).max(100_000);
        Ok(Terms {
            // The keys are drawn anew in each session.
            session: Session([7; 32]),
            round: 1,
            minimum: 3,
            dropout: Rate::from_ppm(leaving as u32).context("somebody must stay")?,
            corruption: Rate::from_share(0.05).context("a share")?,
            profile: Profile::SemiMalicious,
            bits: Bits::new(self.bits)?,
            length: self.length.try_into()?,
            suite: Suite::Aes256,
            context: [9; 32],
        })
    }
    /// Whether participant `i` leaves. Those who do are spread evenly, and the order of the ring is drawn by the session.
    pub fn leaves(&self, i: u32) -> bool {
        let before = |i: u32| u64::from(i) * u64::from(self.leaving) / u64::from(self.nodes);
        before(i) != before(i + 1)
    }
    /// A server that has invited everybody.
    ///
    /// # Errors
    /// If no plan is possible.
    pub fn server(&self) -> Result<Server> {
        let identities = (0..self.nodes).map(|i| Identity::new(i).map(|key| key.identity()));
        let cohort = identities.map(|identity| Ok(Participant { identity: identity?, context: Vec::new() }));
        Ok(Server::new(self.terms()?, cohort.collect::<Result<_>>()?)?)
    }
}

/// An Ed25519 key for the bench.
struct Identity(Ed25519KeyPair);

impl Identity {
    fn new(i: u32) -> Result<Self> {
        let mut seed = [0x5a; 32];
        seed[..4].copy_from_slice(&i.to_le_bytes());
        Ok(Self(Ed25519KeyPair::from_seed_unchecked(&seed).ok().context("a seed has 32 bytes")?))
    }
}

impl Signer for Identity {
    fn identity(&self) -> IdentityKey {
        IdentityKey(self.0.public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes"))
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

/// The clients, wherever they are.
pub trait Clients {
    /// What participant `i` sends in `round` when the server has told it `message`, which is empty in R0.
    ///
    /// # Errors
    /// If it refuses the message.
    fn answer(&mut self, round: usize, i: u32, message: &[u8]) -> Result<Vec<u8>>;
}

/// All clients of a cohort in this process, with random vectors.
pub struct Cohort {
    setting: Setting,
    identities: Vec<Identity>,
    clients: Vec<Client>,
    random: SystemRandom,
    threads: usize,
    truth: Vec<u32>,
    /// CPU seconds of all clients together in each round, without the masking.
    pub rounds: [f64; 5],
    /// CPU seconds of each masking: from the elements to the packed vector.
    pub masking: Vec<f64>,
}

impl Cohort {
    /// Nobody has said anything yet. Vectors are masked on `threads` cores.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn new(setting: Setting, threads: usize) -> Result<Self> {
        Ok(Self {
            setting,
            identities: (0..setting.nodes).map(Identity::new).collect::<Result<_>>()?,
            clients: Vec::new(),
            random: SystemRandom::new(),
            threads,
            truth: vec![0; setting.length as usize],
            rounds: [0.0; 5],
            masking: Vec::new(),
        })
    }

    /// The sum of the vectors that were masked so far, modulo 2^b.
    ///
    /// # Errors
    /// For a width that does not exist.
    pub fn truth(&self) -> Result<impl Iterator<Item = u32>> {
        let mask = Bits::new(self.setting.bits)?.mask();
        Ok(self.truth.iter().map(move |lane| lane & mask))
    }

    /// Any elements below 2^b (xorshift64), and adds them to the truth.
    fn draw(&mut self, i: u32) -> Result<Vec<u32>> {
        let mask = Bits::new(self.setting.bits)?.mask();
        let mut state = u64::from(i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let lanes = self.truth.iter_mut().map(|sum| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let lane = (state >> 32) as u32 & mask;
            *sum = sum.wrapping_add(lane);
            lane
        });
        Ok(lanes.collect())
    }
}

impl Clients for Cohort {
    fn answer(&mut self, round: usize, i: u32, message: &[u8]) -> Result<Vec<u8>> {
        let random = &self.random;
        let mut fill = |bytes: &mut [u8]| random.fill(bytes).expect("the system has random bytes");
        let mut cx = Cx { signer: &self.identities[i as usize], vouch: &|_, _| true, random: &mut fill };
        let started = own_cpu();
        if round == 0 {
            let terms = self.setting.terms()?;
            let policy = Policy { minimum: 3, corruption: terms.corruption, profile: Profile::SemiMalicious };
            let (client, first) = Client::begin(terms, &policy, Vec::new(), &mut cx)?;
            self.rounds[0] += own_cpu() - started;
            ensure!(self.clients.len() == i as usize, "clients begin in the order of their indices");
            self.clients.push(client);
            return Ok(first);
        }
        let reply = self.clients[i as usize].receive(message, &mut cx)?;
        self.rounds[round] += own_cpu() - started;
        match reply {
            Reply::Send(bytes) => Ok(bytes),
            Reply::WantsVector => {
                let lanes = self.draw(i)?;
                let started = own_cpu();
                let packed = self.clients[i as usize].mask(lanes, self.threads)?;
                self.masking.push(own_cpu() - started);
                Ok(packed)
            }
        }
    }
}

/// What a session cost the server, and what went over the line.
#[derive(Clone, Debug, Default)]
pub struct Played {
    /// Neighbours of each, and the shares that open a secret.
    pub plan: (u32, u32),
    /// CPU seconds of all messages and phases, without the two below.
    pub messages: f64,
    /// CPU seconds of adding the masked vectors to the sum.
    pub adding: f64,
    /// CPU seconds of opening: secrets are put together again, and the masks come off.
    pub opening: f64,
    /// Masks that came off.
    pub masks: u32,
    /// Bytes that a client sent and received, each the sum of its mean in each round.
    pub bytes: (f64, f64),
}

/// Plays one session. The server opens the sum on `threads` cores.
///
/// # Errors
/// If anybody refuses anything.
pub fn play(setting: &Setting, mut server: Server, clients: &mut dyn Clients, threads: usize) -> Result<(Sum, Played)> {
    let terms = setting.terms()?;
    let mut played = Played::default();
    for round in 0..5 {
        let (mut sent, mut received, mut count) = (0, 0, 0.0);
        for i in server.expected() {
            if round >= VECTORS && setting.leaves(i) {
                continue;
            }
            let started = own_cpu();
            let message = server.message_for(i).unwrap_or_default();
            played.messages += own_cpu() - started;
            if round == 1 && played.masks == 0 {
                played.masks = masks(setting, &server, &Introduction::decode(&terms.session, &message)?)?;
            }
            let answer = clients.answer(round, i, &message)?;
            let started = own_cpu();
            let receipt = if round == VECTORS { server.receive_vector(i, &terms.session, &[&answer]) } else { server.receive(i, &answer) };
            let spent = own_cpu() - started;
            *if round == VECTORS { &mut played.adding } else { &mut played.messages } += spent;
            ensure!(receipt? == Receipt::Taken, "each answer comes once");
            (sent, received, count) = (sent + answer.len(), received + message.len(), count + 1.0);
        }
        played.bytes.0 += sent as f64 / count;
        played.bytes.1 += received as f64 / count;
        if round < 4 {
            let started = own_cpu();
            server.close()?;
            played.messages += own_cpu() - started;
        }
    }
    let plan = server.plan().context("the participants are known")?;
    played.plan = (plan.degree(), plan.threshold());
    let started = own_cpu();
    let sum = server.open(threads)?;
    played.opening = own_cpu() - started;
    ensure!(sum.survivors.len() as u32 == setting.nodes - setting.leaving, "the sum is that of those who stayed");
    Ok((sum, played))
}

/// One of each survivor, and one of each pair of a survivor with one who left. All take part, so rank is index.
fn masks(setting: &Setting, server: &Server, introduction: &Introduction) -> Result<u32> {
    let plan = server.plan().context("the participants are known")?;
    let graph = Graph::new(plan, &introduction.roll.digest(&setting.terms()?));
    let pairs = (0..setting.nodes).filter(|i| setting.leaves(*i)).flat_map(|i| graph.neighbours(i));
    Ok(setting.nodes - setting.leaving + pairs.filter(|i| !setting.leaves(*i)).count() as u32)
}

/// Notes down what clients say, so that a server can hear it again.
pub struct Recorder<'a> {
    clients: &'a mut dyn Clients,
    /// By round and participant.
    said: [Vec<Vec<u8>>; 5],
}

impl<'a> Recorder<'a> {
    /// Nothing was said yet.
    pub fn new(clients: &'a mut dyn Clients) -> Self {
        Self { clients, said: Default::default() }
    }
    /// For another server of the same setting.
    pub fn replay(self) -> Replay {
        Replay(self.said)
    }
}

impl Clients for Recorder<'_> {
    fn answer(&mut self, round: usize, i: u32, message: &[u8]) -> Result<Vec<u8>> {
        let answer = self.clients.answer(round, i, message)?;
        let said = &mut self.said[round];
        if round == VECTORS {
            // One vector costs the server as much as another; all would fill the memory.
            said.truncate(0);
            said.push(answer.clone());
        } else {
            said.resize(i as usize, Vec::new());
            said.push(answer.clone());
        }
        Ok(answer)
    }
}

/// Clients that say again what was said, but all send the same vector: the sum is nonsense, what it costs is not.
pub struct Replay([Vec<Vec<u8>>; 5]);

impl Clients for Replay {
    fn answer(&mut self, round: usize, i: u32, _: &[u8]) -> Result<Vec<u8>> {
        let at = if round == VECTORS { 0 } else { i as usize };
        self.0[round].get(at).cloned().context("this was never said")
    }
}

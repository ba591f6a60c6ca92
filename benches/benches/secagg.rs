//! What secure aggregation costs: all clients and the server of a session, beside the limit that the cipher sets.
//!
//! `cargo bench --bench secagg [-- [memory] [n=100] [d=1M] [drops=10] [bits=20]]`
#![allow(clippy::print_stdout)]

use std::{
    hint::black_box,
    io::{BufReader, Read, Write, stdin, stdout},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread::available_parallelism,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    digest::{self, SHA256},
};
use sapwood_benches::{
    arguments,
    cohort::{Clients, Cohort, Recorder, Setting, VECTORS, play},
    machine, median,
    proc::{own_cpu, peak_memory},
    verdict,
};

/// The binary's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Most that a client's masking may cost, in fused passes of keystream and addition.
const MASKING_BAR: f64 = 1.15;
/// Most CPU seconds of an opening with 100 nodes, 1M elements, 10 % gone.
const OPENING_BAR: f64 = 0.35;
/// Times that a server hears the same session.
const OPENINGS: usize = 6;
/// Times that masking and its limit are measured side by side.
const PAIRS: usize = 30;

/// Nodes, elements, per cent that leave.
type Case = (u32, u32, u32);
/// The one that the bars are set for.
const BARRED: Case = (100, 1_000_000, 10);
/// The one that is played by two processes.
const MEMORY: Case = (1000, 1_000_000, 10);
const CASES: [Case; 8] = [
    (100, 1_000_000, 0),
    (100, 1_000_000, 5),
    BARRED,
    (100, 1_000_000, 30),
    (10, 1_000_000, 10),
    (32, 1_000_000, 10),
    (1000, 100_000, 10),
    (10, 10_000_000, 10),
];

/// Words with which this program starts itself.
const SERVER: &str = "the-server";
const CLIENTS: &str = "the-clients";

fn main() -> Result<()> {
    let words = arguments();
    let (mut roles, mut n, mut d, mut drops, mut bits) = (Vec::new(), None, None, None, 20);
    for word in &words {
        match word.split_once('=') {
            Some(("n", nodes)) => n = Some(nodes.parse()?),
            Some(("d", length)) => d = Some(elements(length)?),
            Some(("drops", percent)) => drops = Some(percent.parse()?),
            Some(("bits", width)) => bits = width.parse()?,
            None if ["memory", SERVER, CLIENTS].contains(&word.as_str()) => roles.push(word.as_str()),
            _ => bail!("{word:?} is none of memory, n=100, d=1M, drops=10, bits=20"),
        }
    }
    let setting = |case: Case| {
        let (nodes, length, percent) = (n.unwrap_or(case.0), d.unwrap_or(case.1), drops.unwrap_or(case.2));
        Setting { nodes, length, leaving: nodes * percent / 100, bits }
    };
    match roles.as_slice() {
        [SERVER] => return serve(&setting(MEMORY)),
        [CLIENTS] => return answer(&setting(MEMORY)),
        _ => {}
    }
    println!("secure aggregation, {bits} bits an element, CPU of one core, best of several; {}", machine());
    let mut limit = Limit::default();
    limit.report();
    let chosen = n.is_some() || d.is_some() || drops.is_some();
    match (roles.is_empty(), chosen) {
        (true, true) => report(&setting(BARRED), &mut limit)?,
        (true, false) => CASES.iter().try_for_each(|case| report(&setting(*case), &mut limit))?,
        (false, _) => {}
    }
    if !roles.is_empty() || !chosen {
        let setting = setting(MEMORY);
        println!("\n{}, in two processes; {}", title(&setting), machine());
        let mut server = start(SERVER)?.env("MIMALLOC_PURGE_DELAY", "100").spawn()?;
        ensure!(server.wait()?.success(), "the server failed");
    }
    Ok(())
}

/// A number of elements, such as 100k or 1M.
fn elements(text: &str) -> Result<u32> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k') => (&text[..text.len() - 1], 1000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        _ => (text, 1),
    };
    digits.parse::<u32>()?.checked_mul(unit).context("at most 2^32 elements")
}

fn title(setting: &Setting) -> String {
    let Setting { nodes, length, leaving, .. } = setting;
    format!("n = {nodes}, d = {}k, {leaving} leave", length / 1000)
}

/// The least that masks can cost: the same cipher over the same chunks, one mask after the other added to lanes that stay in
/// the nearest cache. No check, no packing, no buffer to ask for.
#[derive(Default)]
struct Limit {
    keys: Vec<LessSafeKey>,
    lanes: Vec<u32>,
}

const CHUNK: usize = 16 << 10;

impl Limit {
    /// CPU seconds of adding `masks` masks to `length` lanes.
    fn masks(&mut self, masks: usize, length: usize) -> f64 {
        self.keys.extend((self.keys.len()..masks).map(key));
        self.lanes.resize(length, 1);
        let mut buffer = [0u8; CHUNK];
        let started = own_cpu();
        for (chunk, lanes) in (0u32..).zip(self.lanes.chunks_mut(CHUNK / 4)) {
            let bytes = &mut buffer[..4 * lanes.len()];
            for key in &self.keys[..masks] {
                bytes.fill(0);
                keystream(key, chunk, bytes);
                for (lane, word) in lanes.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *lane = lane.wrapping_add(u32::from_le_bytes(*word));
                }
            }
        }
        let spent = own_cpu() - started;
        black_box(&self.lanes);
        spent
    }

    /// GB/s of the cipher alone, of the fused pass, and of copying memory beyond the caches.
    fn report(&mut self) {
        const BYTES: usize = 64 << 20;
        let (from, mut to) = (vec![1u8; BYTES], vec![2u8; BYTES]);
        let mut buffer = [0u8; CHUNK];
        let key = key(0);
        let mut best = [f64::INFINITY; 3];
        for _ in 0..9 {
            let started = own_cpu();
            (0..(BYTES / CHUNK) as u32).for_each(|chunk| keystream(&key, chunk, &mut buffer));
            let cipher = own_cpu() - started;
            let fused = self.masks(BYTES >> 20, (1 << 20) / 4);
            let started = own_cpu();
            to.copy_from_slice(black_box(&from));
            black_box(&mut to);
            let copied = own_cpu() - started;
            best.iter_mut().zip([cipher, fused, copied]).for_each(|(best, spent)| *best = best.min(spent));
        }
        let [cipher, fused, copied] = best.map(|spent| BYTES as f64 / spent / 1e9);
        println!("  limits: AES-256-GCM {cipher:.2} GB/s, fused with the addition {fused:.2} GB/s, memcpy {copied:.2} GB/s");
    }
}

/// Any key.
fn key(i: usize) -> LessSafeKey {
    let mut seed = [3; 32];
    seed[..8].copy_from_slice(&(i as u64).to_le_bytes());
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &seed).expect("the cipher takes 32 bytes"))
}

fn keystream(key: &LessSafeKey, chunk: u32, bytes: &mut [u8]) {
    let mut nonce = [0; 12];
    nonce[8..].copy_from_slice(&chunk.to_be_bytes());
    let tag = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), bytes);
    let _ = black_box(tag.expect("a chunk is far below the cipher's limit"));
}

/// A cohort of which some maskings have their limit measured right before them.
struct Beside<'a> {
    cohort: &'a mut Cohort,
    limit: &'a mut Limit,
    setting: Setting,
    masks: usize,
    /// CPU seconds: ours, the limit.
    pairs: Vec<(f64, f64)>,
}

impl Clients for Beside<'_> {
    fn answer(&mut self, round: usize, i: u32, message: &[u8]) -> Result<Vec<u8>> {
        if round != VECTORS || self.pairs.len() == PAIRS {
            return self.cohort.answer(round, i, message);
        }
        let limit = self.limit.masks(self.masks, self.setting.length as usize);
        let answer = self.cohort.answer(round, i, message)?;
        self.pairs.push((self.cohort.masking.last().copied().context("a vector was masked")?, limit));
        Ok(answer)
    }
}

/// Ours to the limit: of the best of both, and the median of the pairs.
fn ratios(pairs: &[(f64, f64)]) -> (f64, f64) {
    let ratios: Vec<f64> = pairs.iter().map(|(ours, limit)| ours / limit).collect();
    (least(pairs.iter().map(|pair| pair.0)) / least(pairs.iter().map(|pair| pair.1)), median(&ratios))
}

fn least(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::INFINITY, f64::min)
}

/// Plays a whole session in this process, and its server's part some times more.
fn report(setting: &Setting, limit: &mut Limit) -> Result<()> {
    println!("\n{}; {}", title(setting), machine());
    let mut cohort = Cohort::new(*setting, 1)?;
    let masks = setting.terms()?.plan(setting.nodes)?.degree() as usize + 1;
    let mut beside = Beside { cohort: &mut cohort, limit, setting: *setting, masks, pairs: Vec::new() };
    let mut recorder = Recorder::new(&mut beside);
    let (sum, played) = play(setting, setting.server()?, &mut recorder, 1)?;
    let mut replay = recorder.replay();
    let pairs = beside.pairs;
    ensure!(sum.accumulator.residues().eq(cohort.truth()?), "the sum is not that of the vectors");
    let (k, t) = played.plan;
    println!("  {k} neighbours, of whom {t} open a secret; the sum is that of the {} who stayed, bit for bit", sum.survivors.len());
    drop(sum);

    let (nodes, staying) = (f64::from(setting.nodes), f64::from(setting.nodes - setting.leaving));
    let [advertise, share, open, sign, unmask] = cohort.rounds;
    println!(
        "  client   masking {:9.2} ms, limit {:9.2} ms for {masks} masks",
        1e3 * least(pairs.iter().map(|pair| pair.0)),
        1e3 * least(pairs.iter().map(|pair| pair.1))
    );
    let (best, middle) = ratios(&pairs);
    let verdict_of = |value, bar: f64| if barred(setting) { format!("; bar {bar}: {}", verdict(value, bar)) } else { String::new() };
    println!("           {best:.3} x the limit, median of {} pairs {middle:.3}{}", pairs.len(), verdict_of(best, MASKING_BAR));
    println!(
        "           keys and shares {:.2} ms, envelopes {:.3} ms, signing and giving shares {:.2} ms",
        1e3 * (advertise + share) / nodes,
        1e3 * open / staying,
        1e3 * (sign + unmask) / staying
    );

    let mut openings = vec![(played.opening, fused(limit, played.masks, setting))];
    let mut adding = played.adding;
    for _ in 1..OPENINGS {
        let bound = fused(limit, played.masks, setting);
        let (_, again) = play(setting, setting.server()?, &mut replay, 1)?;
        openings.push((again.opening, bound));
        adding = adding.min(again.adding);
    }
    let opening = least(openings.iter().map(|pair| pair.0));
    let (best, middle) = ratios(&openings);
    println!("  server   unmasking {opening:.3} s for {} masks{}", played.masks, verdict_of(opening, OPENING_BAR));
    println!("           {best:.3} x the limit, median of {OPENINGS} pairs {middle:.3}");
    println!(
        "           adding {staying} vectors {:.3} s, {:.2} ms each; all messages {:.3} s",
        adding,
        1e3 * adding / staying,
        played.messages
    );
    line(setting, played.bytes);
    Ok(())
}

fn barred(setting: &Setting) -> bool {
    (setting.nodes, setting.length, setting.leaving) == BARRED
}

/// CPU seconds that `masks` masks take at least: of some, times the rest.
fn fused(limit: &mut Limit, masks: u32, setting: &Setting) -> f64 {
    let some = masks.min(64);
    limit.masks(some as usize, setting.length as usize) * f64::from(masks) / f64::from(some)
}

fn line(setting: &Setting, (sent, received): (f64, f64)) {
    let vector = f64::from(setting.length) * f64::from(setting.bits) / 8.0;
    println!("  bytes    a client sends {sent:.0} = {:.4} x its vector of d·b/8 = {vector:.0}, and receives {received:.0}", sent / vector);
}

/// This program again, as another process of the same setting.
fn start(role: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(role).args(arguments().into_iter().filter(|word| word.contains('=')));
    Ok(command)
}

/// Clients in another process. A question is `round ‖ who ‖ length ‖ message`, an answer `length ‖ message`.
struct Remote {
    child: Child,
    ask: ChildStdin,
    hear: BufReader<ChildStdout>,
}

/// Behind the last round of the protocol: what the sum must be, and what masking took.
const TRUTH: usize = 5;

impl Remote {
    fn start() -> Result<Self> {
        let mut child = start(CLIENTS)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let ask = child.stdin.take().context("standard input is piped")?;
        let hear = BufReader::new(child.stdout.take().context("standard output is piped")?);
        Ok(Self { child, ask, hear })
    }
    fn stop(self) -> Result<()> {
        let Self { mut child, ask, .. } = self;
        drop(ask);
        ensure!(child.wait()?.success(), "the clients failed");
        Ok(())
    }
}

impl Clients for Remote {
    fn answer(&mut self, round: usize, i: u32, message: &[u8]) -> Result<Vec<u8>> {
        let head = [round as u32, i, message.len() as u32].map(u32::to_le_bytes);
        self.ask.write_all(head.as_flattened())?;
        self.ask.write_all(message)?;
        let mut length = [0; 4];
        self.hear.read_exact(&mut length)?;
        bytes(&mut self.hear, u32::from_le_bytes(length))
    }
}

fn bytes(from: &mut impl Read, length: u32) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length as usize);
    from.take(length.into()).read_to_end(&mut bytes)?;
    ensure!(bytes.len() == length as usize, "the other process has gone");
    Ok(bytes)
}

/// The clients' process: answers until nobody asks.
fn answer(setting: &Setting) -> Result<()> {
    let mut cohort = Cohort::new(*setting, available_parallelism()?.get())?;
    let (mut asked, mut out) = (stdin().lock(), stdout().lock());
    let mut head = [[0; 4]; 3];
    while asked.read_exact(head.as_flattened_mut()).is_ok() {
        let [round, i, length] = head.map(u32::from_le_bytes);
        let message = bytes(&mut asked, length)?;
        let answer = if round as usize == TRUTH {
            let spent: f64 = cohort.masking.iter().sum();
            [fingerprint(cohort.truth()?).as_slice(), &spent.to_le_bytes()].concat()
        } else {
            cohort.answer(round as usize, i, &message)?
        };
        out.write_all(&(answer.len() as u32).to_le_bytes())?;
        out.write_all(&answer)?;
        out.flush()?;
    }
    Ok(())
}

/// The server's process: its memory is what this is about.
fn serve(setting: &Setting) -> Result<()> {
    let started = Instant::now();
    let mut clients = Remote::start()?;
    let before = peak_memory(std::process::id())? as f64;
    let (sum, played) = play(setting, setting.server()?, &mut clients, available_parallelism()?.get())?;
    let peak = peak_memory(std::process::id())? as f64;
    let told = clients.answer(TRUTH, 0, &[])?;
    clients.stop()?;
    let (truth, spent) = told.split_last_chunk::<8>().context("the clients say what they know")?;
    ensure!(fingerprint(sum.accumulator.residues()) == truth, "the sum is not that of the vectors");

    let (k, t) = played.plan;
    println!("  {k} neighbours, of whom {t} open a secret; the sum is that of the {} who stayed, bit for bit", sum.survivors.len());
    let bar = 6.0 * 4.0 * f64::from(setting.length) + f64::from(64 << 20) + f64::from(160 << 10) * f64::from(setting.nodes);
    println!("  memory   the server's peak {:.1} MB, {:.1} MB of it before the session", peak / 1e6, before / 1e6);
    println!("           bar 6 x model + 64 MiB + 160 KiB x n = {:.1} MB: {}", bar / 1e6, verdict(peak, bar));
    let staying = f64::from(setting.nodes - setting.leaving);
    println!("  client   masking {:.1} ms, mean", 1e3 * f64::from_le_bytes(*spent) / staying);
    println!(
        "  server   unmasking {:.2} s for {} masks, adding {:.2} s, messages {:.2} s",
        played.opening, played.masks, played.adding, played.messages
    );
    line(setting, played.bytes);
    println!("  wall     {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn fingerprint(lanes: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut context = digest::Context::new(&SHA256);
    lanes.for_each(|lane| context.update(&lane.to_le_bytes()));
    context.finish().as_ref().to_vec()
}

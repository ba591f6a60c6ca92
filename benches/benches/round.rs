//! What a round costs beside training: a real coordinator and ten real nodes that send random updates.
//!
//! `cargo bench -p sapwood-benches --bench round [-- [1k] [1M] [10M] [secure] [private] [repeats=N]]`: in clear unless it says
//! `secure` (1M under masks) or `private` (with noise, too).
#![allow(clippy::print_stdout)]

use std::{fs, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use sapwood_benches::{arguments, fleet::Fleet, machine, median, proc, verdict};
use sapwood_models::{Model, zoo};
use serde_json::Value;

const NODES: usize = 10;
const MIB: f64 = 1024.0 * 1024.0;

/// Rounds of the short and of the long run, whose difference is shown.
const RUNS: [u32; 2] = [1, 6];

/// A size of model, how its updates are hidden, and what to compare with.
struct Case {
    /// Asks for it.
    word: &'static str,
    /// Of the model, about.
    size: &'static str,
    model: fn() -> Model,
    protection: Protection,
    peer: Peer,
    /// Most CPU seconds a round that we allow ourselves.
    bar: Option<f64>,
    /// Whether the coordinator's memory has a bar: the program itself outweighs a small model.
    memory_bar: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Protection {
    Clear,
    Masked,
    Noised,
}

/// What Flower 1.41.0 needs for a round of the same size on the same kind of machine: 10 nodes, FedAvg, no TLS, updates that differ.
struct Peer {
    name: &'static str,
    /// CPU seconds a round: nodes + server.
    cpu: f64,
    /// Seconds a round.
    wall: Option<f64>,
    /// Peak of the server's process tree, MB.
    memory: Option<f64>,
    /// MB a round over loopback, three hops.
    bytes: Option<f64>,
}

const CASES: [Case; 5] = [
    Case {
        word: "1k",
        size: "1k",
        model: || zoo::mlp(64, &[13], 10, 1),
        protection: Protection::Clear,
        peer: Peer { name: "Flower", cpu: 16.7 + 1.8, wall: Some(19.1), memory: Some(392.0), bytes: Some(1.1) },
        bar: None,
        memory_bar: false,
    },
    Case {
        word: "1M",
        size: "1M",
        model: million,
        protection: Protection::Clear,
        peer: Peer { name: "Flower", cpu: 16.7 + 2.2, wall: Some(10.2), memory: Some(673.0), bytes: Some(197.0) },
        bar: Some(0.6),
        memory_bar: false,
    },
    Case {
        word: "10M",
        size: "10M",
        model: || zoo::mlp(784, &[12578], 10, 1),
        protection: Protection::Clear,
        peer: Peer { name: "Flower", cpu: 27.4 + 9.3, wall: Some(37.4), memory: Some(2096.0), bytes: Some(1961.0) },
        bar: None,
        memory_bar: true,
    },
    Case {
        word: "secure",
        size: "1M",
        model: million,
        protection: Protection::Masked,
        peer: Peer { name: "Flower's SecAgg+", cpu: 70.0, wall: None, memory: None, bytes: None },
        bar: Some(0.7),
        memory_bar: false,
    },
    Case {
        word: "private",
        size: "1M",
        model: million,
        protection: Protection::Noised,
        peer: Peer { name: "Flower's SecAgg+ without noise", cpu: 70.0, wall: None, memory: None, bytes: None },
        bar: Some(2.5),
        memory_bar: false,
    },
];

/// 1,000,120 parameters.
fn million() -> Model {
    zoo::mlp(784, &[1258], 10, 1)
}

impl Peer {
    /// The peer's `figure` of `what`, to stand behind ours; nothing if it was not measured.
    fn beside(&self, what: &str, figure: Option<f64>, ours: f64) -> String {
        figure.map_or_else(String::new, |figure| format!("; {}{what} {figure:.1} = {:.1} x ours", self.name, figure / ours))
    }
}

impl Protection {
    fn name(self) -> &'static str {
        match self {
            Self::Clear => "in clear",
            Self::Masked => "masked",
            Self::Noised => "masked and noised",
        }
    }

    /// What run.toml says, for a run of `rounds` rounds.
    fn settings(self, rounds: u32) -> String {
        let privacy = match self {
            Self::Clear => return "[secure_aggregation]\nmode = \"off\"\n\n[privacy]\nunit = \"none\"\n".to_owned(),
            Self::Masked => "unit = \"none\"".to_owned(),
            // Both runs share their budget among equally many rounds, so each round has the same noise in as many bits.
            Self::Noised => {
                let spare = RUNS[1] + 1 - rounds;
                format!(
                    "unit = \"node\"\nepsilon = 8.0\ndelta = 1e-5\nclip = 1.0\nspare_rounds = {spare}\n\n[strategy]\nweights = \"uniform\""
                )
            }
        };
        format!("[secure_aggregation]\nmode = \"on\"\n\n[privacy]\n{privacy}\n")
    }
}

fn main() -> Result<()> {
    let mut cases = Vec::new();
    let mut repeats = 1;
    for word in arguments() {
        match (CASES.iter().find(|case| case.word == word), word.strip_prefix("repeats=")) {
            (Some(case), _) => cases.push(case),
            (None, Some(n)) => repeats = n.parse()?,
            (None, None) => bail!("{word:?} is none of 1k, 1M, 10M, secure, private, repeats=N"),
        }
    }
    if cases.is_empty() {
        cases.extend(CASES.iter().filter(|case| case.protection == Protection::Clear));
    }
    for case in cases {
        report(case, repeats)?;
    }
    Ok(())
}

/// What a run cost, from its submission to its end.
struct Cost {
    parameters: u64,
    wall: f64,
    coordinator: f64,
    nodes: f64,
    loopback: f64,
    counted: f64,
    memory: u64,
    /// Of each round, from selection to commit.
    seconds: Vec<f64>,
}

fn report(case: &Case, repeats: usize) -> Result<()> {
    let (size, protection, peer) = (case.size, case.protection.name(), &case.peer);
    println!("\n{NODES} nodes x {size} parameters, {protection}, over mutual TLS 1.3; {}", machine());
    let pairs = (0..repeats).map(|_| Ok((run(case, RUNS[0])?, run(case, RUNS[1])?))).collect::<Result<Vec<_>>>()?;
    // What a start costs is in both.
    let more = f64::from(RUNS[1] - RUNS[0]);
    let each = |figure: fn(&Cost) -> f64| median(&pairs.iter().map(|(one, six)| (figure(six) - figure(one)) / more).collect::<Vec<_>>());
    let (coordinator, nodes) = (each(|c| c.coordinator), each(|c| c.nodes));
    let cpu = each(|c| c.coordinator + c.nodes);
    println!("  a round = (6 rounds - 1 round)/5, median of {repeats}");
    println!("  CPU        {cpu:8.3} s   nodes {nodes:.3} + coordinator {coordinator:.3}{}", peer.beside("", Some(peer.cpu), cpu));
    if let Some(bar) = case.bar {
        println!("             bar {bar} s: {}", verdict(cpu, bar));
    }
    let wall = each(|c| c.wall);
    println!("  wall       {wall:8.3} s   one round{}", peer.beside("", peer.wall, wall));
    let rounds: Vec<f64> = pairs.iter().flat_map(|(_, six)| six.seconds.clone()).collect();
    println!("             {:8.3} s   median from selection to commit, of {} rounds", median(&rounds), rounds.len());
    let sent = each(|c| c.loopback) / 1e6;
    let counted = each(|c| c.counted) / 1e6;
    println!("  loopback   {sent:8.1} MB  parameters and updates {counted:.1}{}", peer.beside(" over three hops", peer.bytes, sent));
    let parameters = pairs[0].0.parameters;
    let memory = pairs.iter().map(|(one, six)| one.memory.max(six.memory)).max().unwrap_or(0) as f64;
    println!("  memory     {:8.1} MB  the coordinator's peak{}", memory / 1e6, peer.beside("'s server tree", peer.memory, memory / 1e6));
    if case.memory_bar {
        let bar = 6.0 * 4.0 * parameters as f64 + 64.0 * MIB + 160.0 * 1024.0 * NODES as f64;
        println!("             bar 6 x model + 64 MiB + 160 KiB x nodes = {:.1} MB: {}", bar / 1e6, verdict(memory, bar));
    }
    Ok(())
}

/// A fresh deployment, one run of `rounds` rounds.
fn run(case: &Case, rounds: u32) -> Result<Cost> {
    let folder = tempfile::Builder::new().prefix("sapwood-bench-").tempdir()?;
    fs::write(folder.path().join("model.onnx"), (case.model)().encode())?;
    let spec = folder.path().join("run.toml");
    fs::write(
        &spec,
        format!(
            "name = \"round\"\n\n[model]\nfile = \"model.onnx\"\n\n[train]\nrounds = {rounds}\n\n[cohort]\nsize = {NODES}\n\n\
             {}\n[release]\nauto = false\n",
            case.protection.settings(rounds)
        ),
    )?;
    let fleet = Fleet::start(folder.path(), NODES)?;
    let used = || -> Result<(f64, f64)> {
        let nodes = fleet.nodes().map(proc::process_cpu).sum::<Result<f64>>()?;
        Ok((proc::process_cpu(fleet.coordinator())?, nodes))
    };
    let (loopback, before, started) = (proc::loopback()?, used()?, Instant::now());
    let view = fleet.operator(&["run", "submit", "--watch", spec.to_str().context("the temporary folder's name is not text")?])?;
    let wall = started.elapsed().as_secs_f64();
    let (after, loopback) = (used()?, proc::loopback()? - loopback);
    let memory = proc::peak_memory(fleet.coordinator())?;
    fleet.stop()?;

    let done = view["rounds"].as_array().context("the run has rounds")?;
    ensure!(done.len() == rounds as usize, "the run ended as {} after {} rounds: {}", view["state"], done.len(), view["detail"]);
    for round in done {
        ensure!(round["updates"] == NODES, "a round had {} updates: {}", round["updates"], round["dropped"]);
    }
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    Ok(Cost {
        parameters: view["parameters"].as_u64().context("the run has parameters")?,
        wall,
        coordinator: after.0 - before.0,
        nodes: after.1 - before.1,
        loopback: loopback as f64,
        counted: done.iter().map(|round| number(&round["bytes"])).sum(),
        memory,
        seconds: done.iter().map(|round| number(&round["seconds"])).collect(),
    })
}

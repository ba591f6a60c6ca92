//! What a round costs beside training: a real coordinator and ten real nodes that send random updates.
//!
//! `cargo bench -p sapwood-benches --bench round [-- [1k] [1M] [10M] [repeats=N]]`
#![allow(clippy::print_stdout)]

use std::{fs, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use sapwood_benches::{arguments, fleet::Fleet, machine, median, proc, verdict};
use sapwood_models::{Model, zoo};
use serde_json::Value;

const NODES: usize = 10;
const MIB: f64 = 1024.0 * 1024.0;

/// A size of model, and what Flower 1.41.0 needs for a round of it on the same kind of machine: 10 nodes, FedAvg, no TLS,
/// updates that differ.
struct Case {
    name: &'static str,
    model: fn() -> Model,
    /// CPU seconds a round: nodes, server.
    flower_cpu: (f64, f64),
    /// Seconds a round.
    flower_wall: f64,
    /// Peak of the server's process tree, MB.
    flower_memory: f64,
    /// MB a round over loopback.
    flower_bytes: f64,
    /// Most CPU seconds a round that we allow ourselves.
    bar: Option<f64>,
    /// Whether the coordinator's memory has a bar: the program itself outweighs a small model.
    memory_bar: bool,
}

const CASES: [Case; 3] = [
    Case {
        name: "1k",
        model: || zoo::mlp(64, &[13], 10, 1),
        flower_cpu: (16.7, 1.8),
        flower_wall: 19.1,
        flower_memory: 392.0,
        flower_bytes: 1.1,
        bar: None,
        memory_bar: false,
    },
    Case {
        name: "1M",
        model: || zoo::mlp(784, &[1258], 10, 1),
        flower_cpu: (16.7, 2.2),
        flower_wall: 10.2,
        flower_memory: 673.0,
        flower_bytes: 197.0,
        bar: Some(0.6),
        memory_bar: false,
    },
    Case {
        name: "10M",
        model: || zoo::mlp(784, &[12578], 10, 1),
        flower_cpu: (27.4, 9.3),
        flower_wall: 37.4,
        flower_memory: 2096.0,
        flower_bytes: 1961.0,
        bar: None,
        memory_bar: true,
    },
];

fn main() -> Result<()> {
    let mut cases = Vec::new();
    let mut repeats = 1;
    for word in arguments() {
        match (CASES.iter().find(|case| case.name == word), word.strip_prefix("repeats=")) {
            (Some(case), _) => cases.push(case),
            (None, Some(n)) => repeats = n.parse()?,
            (None, None) => bail!("{word:?} is neither 1k, 1M, 10M nor repeats=N"),
        }
    }
    if cases.is_empty() {
        cases.extend(&CASES);
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
    println!("\n{NODES} nodes x {} parameters, over mutual TLS 1.3; {}", case.name, machine());
    let pairs = (0..repeats).map(|_| Ok((run(case, 1)?, run(case, 6)?))).collect::<Result<Vec<_>>>()?;
    // What a start costs is in both.
    let each = |figure: fn(&Cost) -> f64| median(&pairs.iter().map(|(one, six)| (figure(six) - figure(one)) / 5.0).collect::<Vec<_>>());
    let (coordinator, nodes) = (each(|c| c.coordinator), each(|c| c.nodes));
    let cpu = each(|c| c.coordinator + c.nodes);
    let flower = case.flower_cpu.0 + case.flower_cpu.1;
    println!("  a round = (6 rounds - 1 round)/5, median of {repeats}");
    println!("  CPU        {cpu:8.3} s   nodes {nodes:.3} + coordinator {coordinator:.3}; Flower {flower:.1} = {:.0} x ours", flower / cpu);
    if let Some(bar) = case.bar {
        println!("             bar {bar} s: {}", verdict(cpu, bar));
    }
    let wall = each(|c| c.wall);
    println!("  wall       {wall:8.3} s   Flower {:.1} = {:.0} x ours", case.flower_wall, case.flower_wall / wall);
    let rounds: Vec<f64> = pairs.iter().flat_map(|(_, six)| six.seconds.clone()).collect();
    println!("             {:8.3} s   median from selection to commit, of {} rounds", median(&rounds), rounds.len());
    let sent = each(|c| c.loopback) / 1e6;
    let counted = each(|c| c.counted) / 1e6;
    println!(
        "  loopback   {sent:8.1} MB  parameters and updates {counted:.1}; Flower {} over three hops = {:.1} x ours",
        case.flower_bytes,
        case.flower_bytes / sent
    );
    let parameters = pairs[0].0.parameters;
    let memory = pairs.iter().map(|(one, six)| one.memory.max(six.memory)).max().unwrap_or(0) as f64;
    println!(
        "  memory     {:8.1} MB  the coordinator's peak; Flower's server tree {} = {:.1} x ours",
        memory / 1e6,
        case.flower_memory,
        case.flower_memory / (memory / 1e6)
    );
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
             [secure_aggregation]\nmode = \"off\"\n\n[privacy]\nunit = \"none\"\n\n[release]\nauto = false\n"
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

//! What the HTTP server adds to an inference: CPU of its thread for a binary request, less that of a raw session.
//!
//! `cargo bench -p sapwood-benches --bench serving [-- REQUESTS]`
#![allow(clippy::print_stdout)]

use std::{net::SocketAddr, sync::Arc, thread, time::Instant};

use anyhow::{Context, Result, ensure};
use sapwood_benches::{arguments, http, machine, median, proc, verdict};
use sapwood_edge_node::serve::{self, Engine, Served};
use sapwood_models::{Model, compose, zoo};
use sapwood_protocol::Digest;
use sapwood_runtime::{Input, InstallOptions, Runtime, SessionOptions, View};

/// The binary's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Most CPU that a request may cost over the raw session, in microseconds.
const BAR: f64 = 25.0;
/// The kernel counts CPU in steps of 10 ms, so a measurement must be long.
const REQUESTS: usize = 20_000;
const REPEATS: usize = 3;
/// The name of the server's thread, and of the one that runs the raw session.
const SERVER: &str = "serve";
const RAW: &str = "raw";

fn main() -> Result<()> {
    sapwood_runtime::disable_telemetry();
    let installed = sapwood_runtime::install(InstallOptions::default(), &mut |_| ())?;
    let runtime = Runtime::load(Some(&installed.path))?;
    let requests = arguments().first().map_or(Ok(REQUESTS), |word| word.parse())?;
    println!("serving, one thread, {requests} requests, median of {REPEATS}; ONNX Runtime {}; {}", runtime.version(), machine());
    let cnn = compose(&zoo::scale(&[1, 8, 8], 1.0 / 16.0), &zoo::cnn([1, 8, 8], 10, 1))?;
    report(runtime, "cnn 1x8x8, the demo's", &cnn, &[1, 1, 8, 8], requests)?;
    report(runtime, "mlp 784-256-10", &zoo::mlp(784, &[256], 10, 1), &[1, 784], requests)
}

fn report(runtime: &'static Runtime, name: &str, model: &Model, shape: &[usize], requests: usize) -> Result<()> {
    let onnx = model.encode();
    let x: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| ((i as f32 * 0.37).sin() + 1.0) * 8.0).collect();

    let digest = Digest::of(&onnx);
    let description = serve::Model { name: "m".into(), version: "1".into(), digest, onnx: onnx.clone(), threads: 1, sessions: 1 };
    let mut served = Served::load(runtime, description)?;
    let input = served.inputs()[0].name.clone();
    served.warm(&[Input { name: &input, shape, data: View::F32(&x) }])?;
    ensure!(served.is_quick(), "{name} is not quick on this machine now; another thread would answer");
    let engine = Arc::new(Engine::new());
    engine.exchange(Some(served));
    let server = serve::start("127.0.0.1:0".parse()?, engine)?;
    let request = http::request("m", &input, shape, &x);

    let (mut raw, mut empty, mut alone, mut together, mut latency) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        let (cpu, y) = raw_session(runtime, &onnx, &input, shape, &x, requests)?;
        raw.push(cpu);
        empty.push(over_http(server.address, &http::live(), &[], 1, requests, &mut Vec::new())?);
        alone.push(over_http(server.address, &request, &y, 1, requests, &mut latency)?);
        together.push(over_http(server.address, &request, &y, 8, requests, &mut Vec::new())?);
    }
    server.stop();

    let (raw, empty) = (median(&raw), median(&empty));
    latency.sort_by(f64::total_cmp);
    let at = |share: f64| latency[((latency.len() - 1) as f64 * share) as usize];
    println!("  {name}");
    println!("    raw session.run        {raw:6.1} us CPU");
    println!("    empty GET              {empty:6.1} us CPU of the server's thread: HTTP and the kernel alone");
    for (clients, answered) in [("1 client ", &alone), ("8 clients", &together)] {
        let answered = median(answered);
        let more = answered - raw;
        println!(
            "    inference, {clients}   {answered:6.1} us CPU, {:.2} x raw, {more:.1} us more; bar {BAR} us more: {}",
            answered / raw,
            verdict(more, BAR)
        );
        println!(
            "                             {:.0} to {:.0} x less than MLServer (530 to 580 us more, JSON), {:.0} to {:.0} than KServe (870 to 930, binary)",
            530.0 / more,
            580.0 / more,
            870.0 / more,
            930.0 / more
        );
    }
    println!("    wall, 1 client         {:6.1} us median, {:.1} us p99, the client's share included", at(0.5), at(0.99));
    Ok(())
}

/// CPU of the server's thread for one request in microseconds, with `clients` requests under way at a time. Notes what each
/// group of requests took.
fn over_http(address: SocketAddr, request: &[u8], y: &[u8], clients: usize, requests: usize, latency: &mut Vec<f64>) -> Result<f64> {
    let groups = requests / clients;
    let mut clients = (0..clients).map(|_| http::Client::connect(address)).collect::<Result<Vec<_>>>()?;
    let mut ask = |groups: usize| -> Result<()> {
        for _ in 0..groups {
            let started = Instant::now();
            for client in &mut clients {
                client.send(request)?;
            }
            for client in &mut clients {
                ensure!(client.answer(y.len())? == y, "the server's answer is not the raw session's");
            }
            latency.push(started.elapsed().as_secs_f64() * 1e6);
        }
        Ok(())
    };
    ask(groups / 10)?;
    let before = proc::thread_cpu(SERVER)?;
    ask(groups)?;
    Ok((proc::thread_cpu(SERVER)? - before) / (groups * clients.len()) as f64 * 1e6)
}

/// CPU of one `session.run` in microseconds, and its first output's bytes. On a thread of its own, so that the same kernel
/// counter measures it.
fn raw_session(runtime: &Runtime, onnx: &[u8], input: &str, shape: &[usize], x: &[f32], requests: usize) -> Result<(f64, Vec<u8>)> {
    thread::scope(|scope| {
        let work = || {
            let mut session = runtime.session(onnx, SessionOptions { threads: 1 })?;
            let inputs = [Input { name: input, shape, data: View::F32(x) }];
            for _ in 0..requests / 10 {
                session.run_view(&inputs, |_| ())?;
            }
            let before = proc::thread_cpu(RAW)?;
            for _ in 0..requests {
                session.run_view(&inputs, |_| ())?;
            }
            let used = (proc::thread_cpu(RAW)? - before) / requests as f64 * 1e6;
            let y = session.run_view(&inputs, |outputs| outputs.first().map(|y| y.data.bytes().to_vec()))?;
            Ok((used, y.context("the model has an output")?))
        };
        let thread = thread::Builder::new().name(RAW.to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| anyhow::bail!("the raw session panicked"))
    })
}

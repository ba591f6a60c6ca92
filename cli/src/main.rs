//! `sapwood`: every role and every verb in one binary.

mod allocator;
mod clock;
mod cmd;
mod demo;
mod output;
mod progress;
mod remote;

use std::{io::IsTerminal, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::output::{Answer, Failure};

/// Federated training, signed releases and rollouts in rings.
///
/// A coordinator runs rounds in which edge nodes train one ONNX model on data that never leaves them; the result is
/// quantized, gated, signed and rolled out to the same nodes, which serve it and roll back by themselves.
#[derive(Parser)]
#[command(name = "sapwood", version, after_help = EXAMPLES)]
struct Cli {
    /// Print one JSON object instead of text.
    #[arg(long, global = true)]
    json: bool,
    /// Say more (-v: info, -vv: debug) on standard error.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  sapwood demo                                   the whole story on this machine, in under a minute
  sapwood model new cnn --shape 1,8,8 --classes 10 --out cnn.onnx
  sapwood model train cnn.onnx --data digits:1-11 --epochs 10 --out trained.onnx
  sapwood run simulate run.toml --nodes 10 --partition dirichlet:0.5
  sapwood init farm && sapwood coordinator serve --config farm/coordinator.toml

Exit codes: 0 done, 1 internal, 2 usage or bad input, 3 refused by a gate or policy, 4 not found,
5 not authorized, 6 conflict, 7 timed out or not converged.";

#[derive(Subcommand)]
enum Command {
    /// The main job, end to end, with real processes on this machine.
    Demo(demo::Args),
    /// Make a deployment folder: keys, trust file and configurations.
    Init(cmd::init::Args),
    /// The coordinator.
    #[command(subcommand)]
    Coordinator(cmd::coordinator::Verb),
    /// An edge node.
    #[command(subcommand)]
    Node(cmd::node::Verb),
    /// ONNX Runtime, which serves the models.
    #[command(subcommand)]
    Runtime(cmd::runtime::Verb),
    /// Work on .onnx files without any server.
    #[command(subcommand)]
    Model(cmd::model::Verb),
    /// Federated runs.
    #[command(subcommand)]
    Run(cmd::run::Verb),
    /// Privacy budgets: accounting, planning, ledgers.
    #[command(subcommand)]
    Privacy(cmd::privacy::Verb),
    /// Released bundles.
    #[command(subcommand)]
    Release(cmd::release::Verb),
    /// Rollouts in rings.
    #[command(subcommand)]
    Rollout(cmd::rollout::Verb),
    /// The nodes.
    #[command(subcommand)]
    Fleet(cmd::fleet::Verb),
    /// What is missing on this machine, and how to get it.
    Doctor(cmd::doctor::Args),
}

fn main() -> ExitCode {
    // Before any thread: ONNX Runtime would otherwise phone home.
    sapwood_runtime::disable_telemetry();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    tracing_setup(cli.verbose, matches!(cli.command, Command::Coordinator(_) | Command::Node(_)));
    let (name, outcome) = run(cli.command, cli.json);
    output::finish(name, cli.json, outcome)
}

/// clap's own message, with our exit code; `--help` is no failure. Scripts that asked for JSON get JSON.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        output::out(error.to_string().trim_end());
        return ExitCode::SUCCESS;
    }
    let json = std::env::args().any(|a| a == "--json");
    if json {
        return output::finish("usage", true, Err(Failure::usage(error.to_string().trim())));
    }
    output::err(error.to_string().trim_end());
    ExitCode::from(output::Exit::Usage as u8)
}

fn run(command: Command, json: bool) -> (&'static str, Result<Answer, Failure>) {
    match command {
        Command::Demo(args) => ("demo", demo::run(args, json)),
        Command::Init(args) => ("init", cmd::init::run(&args)),
        Command::Coordinator(verb) => ("coordinator serve", cmd::coordinator::run(verb, json)),
        Command::Node(verb) => cmd::node::run(verb, json),
        Command::Runtime(verb) => cmd::runtime::run(verb, json),
        Command::Model(verb) => cmd::model::run(verb, json),
        Command::Run(verb) => cmd::run::run(verb, json),
        Command::Privacy(verb) => cmd::privacy::run(verb),
        Command::Release(verb) => cmd::release::run(verb),
        Command::Rollout(verb) => cmd::rollout::run(verb),
        Command::Fleet(verb) => cmd::fleet::run(verb),
        Command::Doctor(args) => ("doctor", cmd::doctor::run(&args)),
    }
}

/// Daemons say what they do; other verbs speak only when something is wrong, or when asked.
fn tracing_setup(verbose: u8, daemon: bool) {
    let level = match (verbose, daemon) {
        (0, false) => "error",
        (0, true) => "info",
        (1, _) => "info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("SAPWOOD_LOG").unwrap_or_else(|_| format!("warn,sapwood={level}").into());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).with_target(false).init();
}

//! `sapwood demo`: the main job, end to end, with real processes on loopback.
//!
//! [`stage`] prepares a deployment and the data of ten shops; [`fleet`] starts a coordinator and ten nodes; [`story`] submits
//! the run, watches rounds, release and rollout, and asks every node real questions; [`report`] judges and prints.

mod fleet;
mod http;
mod processes;
mod report;
mod stage;
mod story;

use std::{path::PathBuf, time::Instant};

use serde_json::json;

use crate::{
    output::{Answer, Exit, Failure, OrFail},
    progress,
};

/// Trains a digit recognizer on ten nodes, releases it, rolls it out, asks every node.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  sapwood demo\n  sapwood demo --rounds 10 --keep\n  sapwood demo --json")]
pub(crate) struct Args {
    /// Nodes, each with one form block of the vendored digits, 4 to 10.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(4..=10))]
    nodes: u32,
    /// Rounds of five local epochs.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only `off` in this version: secure aggregation comes with the next one.
    #[arg(long, default_value = "off", value_parser = ["off"])]
    secure_aggregation: String,
    /// Only `none` in this version: differential privacy comes with the next one.
    #[arg(long, default_value = "none", value_parser = ["none"])]
    unit: String,
    /// Keep the folder, and say how to go on.
    #[arg(long)]
    keep: bool,
    /// Skip the model that is trained on the pooled data for comparison.
    #[arg(long)]
    no_pooled: bool,
}

pub(crate) fn run(args: Args, json: bool) -> Result<Answer, Failure> {
    let spinner = progress::spinner("ONNX Runtime", json);
    let installed = sapwood_runtime::install(sapwood_runtime::InstallOptions::default(), &mut |step| spinner.set_message(step.to_string()));
    spinner.finish_and_clear();
    let library = installed.or_fail(Exit::NotFound)?.path;

    let folder = tempfile::Builder::new().prefix("sapwood-demo-").tempdir().or_fail(Exit::Internal)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().or_fail(Exit::Internal)?;
    let started = Instant::now();
    let outcome = runtime.block_on(async {
        let told = tokio::select! {
            told = tell(&args, folder.path(), &library, json) => told,
            _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::TimedOut, "interrupted; all processes were asked to go")),
        };
        told.map(|told| (told, started.elapsed().as_secs_f64()))
    });
    // Children that are still there stop when their standard input closes; give none of them a runtime to outlive.
    drop(runtime);
    let dir: Option<PathBuf> = args.keep.then(|| folder.keep());
    let (told, seconds) = outcome.map_err(|mut failure| {
        if let Some(dir) = &dir {
            failure.hint = Some(format!("logs and state are in {}", dir.display()));
        }
        failure
    })?;
    let pooled = if args.no_pooled { None } else { Some(stage::pooled(args.nodes, args.rounds, json)?) };
    report::report(&report::Figures { told, pooled, seconds, dir, rounds: args.rounds })
}

async fn tell(args: &Args, folder: &std::path::Path, library: &std::path::Path, json: bool) -> Result<story::Told, Failure> {
    let stage = stage::Stage::set(folder, args.nodes, args.rounds, library)?;
    let fleet = fleet::Fleet::start(&stage).await.map_err(|e| failed(&e))?;
    let told = story::tell(&stage, &fleet, json).await;
    // Whatever happened, nothing stays behind.
    let stopped = fleet.stop().await.map_err(|e| failed(&e));
    let told = told?;
    stopped?;
    Ok(told)
}

/// An error of the demo's own plumbing.
fn failed(error: &anyhow::Error) -> Failure {
    Failure::internal(format!("{error:#}")).hint("sapwood demo --keep leaves the logs of all processes").data(json!({}))
}

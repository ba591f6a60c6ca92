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

use sapwood_protocol::spec::PrivacyUnit;
use serde_json::json;

use crate::{
    output::{Answer, Exit, Failure, OrFail},
    progress,
};

/// Trains a digit recognizer on ten nodes, releases it, rolls it out, asks every node.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  sapwood demo\n  sapwood demo --epsilon 4\n  sapwood demo --unit node\n  \
    sapwood demo --epsilon off --secure-aggregation off\n  sapwood demo --rounds 10 --keep\n  sapwood demo --json")]
pub(crate) struct Args {
    /// Nodes, each with one form block of the vendored digits, 4 to 10.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(4..=10))]
    nodes: u32,
    /// Rounds: 60 of one step on all examples, 40 of five local epochs without a budget, 10 at node level.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Whom the privacy budget protects: one image, or all that a node contributes. `none` is the same as `--epsilon off`.
    #[arg(long, default_value = "example", value_parser = ["example", "node", "none"])]
    unit: String,
    /// The budget of the whole run at delta = 1e-4; `off` trains without noise, and promises nobody anything.
    #[arg(long, default_value = "8", value_parser = epsilon)]
    epsilon: Epsilon,
    /// `off` lets the coordinator see each node's update in clear; under a budget it is then trusted to add the noise.
    #[arg(long, default_value = "on", value_parser = ["on", "off"])]
    secure_aggregation: String,
    /// Keep the folder, and say how to go on.
    #[arg(long)]
    keep: bool,
    /// Skip the trainings for comparison: on the pooled data, and without noise.
    #[arg(long)]
    no_pooled: bool,
}

/// ε, or none.
#[derive(Clone, Copy, Debug)]
struct Epsilon(Option<f64>);

fn epsilon(text: &str) -> Result<Epsilon, String> {
    if text == "off" {
        return Ok(Epsilon(None));
    }
    match text.parse::<f64>() {
        Ok(epsilon) if epsilon > 0.0 && epsilon.is_finite() => Ok(Epsilon(Some(epsilon))),
        _ => Err("write a number above 0, or off".into()),
    }
}

impl Args {
    fn setting(&self) -> stage::Setting {
        let unit = match (&self.epsilon, &*self.unit) {
            (Epsilon(None), _) | (_, "none") => PrivacyUnit::None,
            (_, "node") => PrivacyUnit::Node,
            _ => PrivacyUnit::Example,
        };
        stage::Setting {
            nodes: self.nodes,
            rounds: self.rounds.unwrap_or_else(|| stage::Setting::default_rounds(unit)),
            unit,
            epsilon: self.epsilon.0.unwrap_or_default(),
            secure: self.secure_aggregation == "on",
        }
    }
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
    let setting = args.setting();
    let (pooled, noiseless) = if args.no_pooled { (None, None) } else { (Some(setting.pooled(json)?), setting.noiseless(json)?) };
    report::report(&report::Figures { told, setting, pooled, noiseless, seconds, dir })
}

async fn tell(args: &Args, folder: &std::path::Path, library: &std::path::Path, json: bool) -> Result<story::Told, Failure> {
    let stage = stage::Stage::set(folder, args.setting(), library)?;
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

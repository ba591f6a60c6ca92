//! `sapwood run …`: federated runs.

mod remote;
mod simulate;
mod submit;

use std::path::PathBuf;

use clap::{Args, Subcommand};

pub(crate) use submit::{privacy, submit_spec};

use crate::{
    output::{Answer, Failure},
    remote::{Operator, block_on},
};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Sends run.toml and the files it names to a coordinator. The same --token submits the same run once.
    #[command(after_help = "Example:\n  sapwood run submit run.toml --token nightly-2026-11-22 --watch")]
    Submit(SubmitArgs),
    /// The same run in one process, deterministic, without any server.
    #[command(
        after_help = "Examples:\n  sapwood run simulate run.toml --nodes 10 --partition iid\n  sapwood run simulate run.toml --nodes 100 --partition dirichlet:0.5 --out trained.onnx\n  sapwood run simulate run.toml --nodes 10 --partition column:block --data digits:1-10"
    )]
    Simulate(SimulateArgs),
    /// All runs, newest first.
    List {
        #[command(flatten)]
        operator: Operator,
    },
    /// One run: its state, its rounds, its privacy.
    Show(One),
    /// Follows a run until it ends.
    Watch(One),
    /// Ends a run after the round that is under way is thrown away.
    Stop(One),
    /// The final model of a run, as ONNX.
    Result {
        #[command(flatten)]
        one: One,
        /// Where to write it.
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct One {
    /// The run's id.
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) operator: Operator,
}

#[derive(Args)]
pub(crate) struct SubmitArgs {
    pub(crate) file: PathBuf,
    /// Your own word for this submission; a second one under the same word changes nothing.
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// Follow the run until it ends.
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) operator: Operator,
}

#[derive(Args)]
pub(crate) struct SimulateArgs {
    pub(crate) file: PathBuf,
    #[arg(long, default_value_t = 10)]
    pub(crate) nodes: usize,
    /// iid, dirichlet:A or column:K.
    #[arg(long, default_value = "iid")]
    pub(crate) partition: String,
    /// Where the examples come from; the default is the file's data.source.
    #[arg(long)]
    pub(crate) data: Option<String>,
    /// The probability that a node drops out of a round.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) drop: f64,
    /// Write the trained model here.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

pub(crate) fn run(verb: Verb, json: bool) -> (&'static str, Result<Answer, Failure>) {
    match verb {
        Verb::Submit(args) => ("run submit", block_on(submit::submit(args, json))),
        Verb::Simulate(args) => ("run simulate", simulate::simulate(&args, json)),
        Verb::List { operator } => ("run list", block_on(remote::list(operator))),
        Verb::Show(one) => ("run show", block_on(remote::show(one))),
        Verb::Watch(one) => ("run watch", block_on(remote::watch(one, json))),
        Verb::Stop(one) => ("run stop", block_on(remote::stop(one))),
        Verb::Result { one, out } => ("run result", block_on(remote::result(one, out))),
    }
}

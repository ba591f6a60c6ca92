//! `sapwood node run`

use std::path::PathBuf;

use clap::Subcommand;
use sapwood_edge_node::{Config, NodeError, identity::IdentityError, probe, store::StoreError};
use serde_json::json;

use super::daemon::asked_to_stop;
use crate::output::{Answer, Exit, Failure, OrFail, chain, out};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Runs an edge node until it is asked to stop: it enrols once, trains when asked, and serves what it was assigned.
    #[command(
        after_help = "Example:\n  sapwood node run --config node.toml\n\nThe first start needs a one-time token: [enrollment] token_file in the file, or SAPWOOD_TOKEN."
    )]
    Run {
        #[arg(long)]
        config: PathBuf,
        /// A one-time enrolment token; not needed after the first start.
        #[arg(long, env = "SAPWOOD_TOKEN", hide_env_values = true)]
        token: Option<String>,
        /// Stop when standard input closes: for programs that start a node.
        #[arg(long, hide = true)]
        until_stdin_closes: bool,
    },
    /// Measures, in this fresh process, the time from the start to a bundle's first answer.
    #[command(hide = true)]
    Probe {
        /// An unpacked bundle.
        folder: PathBuf,
        #[arg(long)]
        ort_lib: Option<PathBuf>,
    },
}

pub(crate) fn run(verb: Verb, json: bool) -> (&'static str, Result<Answer, Failure>) {
    match verb {
        Verb::Run { config, token, until_stdin_closes } => ("node run", node(&config, token, until_stdin_closes, json)),
        Verb::Probe { folder, ort_lib } => ("node probe", cold_start(&folder, ort_lib.as_deref())),
    }
}

fn node(config: &std::path::Path, token: Option<String>, until_stdin_closes: bool, json: bool) -> Result<Answer, Failure> {
    let mut config = Config::read(config).or_usage()?;
    if let Some(token) = token {
        config.set_token(token);
    }
    // One thread moves bytes; training and inference have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().or_fail(Exit::Internal)?;
    runtime.block_on(async {
        let ready = |ready: sapwood_edge_node::Ready| {
            if json {
                out(&json!({"schema": "sapwood/v1", "command": "node run", "data": {"serving": ready.serving}}).to_string());
            } else {
                out(&format!("serving on {}", ready.serving));
            }
        };
        sapwood_edge_node::run(config, ready, asked_to_stop(until_stdin_closes))
            .await
            .map_err(|error| Failure::new(exit(&error), chain(&error)))
    })?;
    Ok(Answer::new(json!({"stopped": true}), ""))
}

fn exit(error: &NodeError) -> Exit {
    match error {
        NodeError::Config(_) | NodeError::Trust { .. } | NodeError::Token { .. } | NodeError::Identity(IdentityError::NoToken) => {
            Exit::Usage
        }
        NodeError::Identity(IdentityError::Refused { .. }) => Exit::NotAuthorized,
        NodeError::Store(StoreError::Locked { .. }) | NodeError::Listen { .. } => Exit::Conflict,
        _ => Exit::Internal,
    }
}

fn cold_start(folder: &std::path::Path, ort_lib: Option<&std::path::Path>) -> Result<Answer, Failure> {
    let measured = probe::cold_start(folder, ort_lib).or_fail(Exit::Internal)?;
    Ok(Answer::new(measured, format!("{measured:?}")))
}

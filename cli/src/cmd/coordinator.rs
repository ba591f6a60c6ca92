//! `sapwood coordinator serve`

use std::path::PathBuf;

use clap::Subcommand;
use sapwood_coordinator::{Config, CoordinatorError};
use serde_json::json;

use super::daemon::asked_to_stop;
use crate::{
    allocator,
    output::{Answer, Exit, Failure, OrFail, chain, out},
};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Runs the coordinator until it is asked to stop. A second one on the same data folder is refused.
    #[command(after_help = "Examples:\n  sapwood coordinator serve --config farm/coordinator.toml\n  \
        sapwood coordinator serve --config farm/coordinator.toml --restored")]
    Serve {
        #[arg(long)]
        config: PathBuf,
        /// The data folder was restored from a backup: what the privacy ledgers had reserved counts as spent, because what was spent
        /// since the backup is not in it.
        #[arg(long)]
        restored: bool,
        /// Stop when standard input closes: for programs that start a coordinator.
        #[arg(long, hide = true)]
        until_stdin_closes: bool,
    },
}

pub(crate) fn run(verb: Verb, json: bool) -> Result<Answer, Failure> {
    let Verb::Serve { config, restored, until_stdin_closes } = verb;
    allocator::give_back_soon();
    let config = Config { restored, ..Config::read(&config).or_usage()? };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().or_fail(Exit::Internal)?;
    runtime.block_on(async {
        let ready = |address: std::net::SocketAddr| {
            if json {
                out(&json!({"schema": "sapwood/v1", "command": "coordinator serve", "data": {"listening": address}}).to_string());
            } else {
                out(&format!("listening on {address}"));
            }
        };
        sapwood_coordinator::serve(config, ready, asked_to_stop(until_stdin_closes))
            .await
            .map_err(|error| Failure::new(exit(&error), chain(&error)))
    })?;
    Ok(Answer::new(json!({"stopped": true}), ""))
}

fn exit(error: &CoordinatorError) -> Exit {
    match error {
        CoordinatorError::Pki(_) | CoordinatorError::File { .. } => Exit::Usage,
        CoordinatorError::InUse { .. } | CoordinatorError::Listen { .. } => Exit::Conflict,
        _ => Exit::Internal,
    }
}

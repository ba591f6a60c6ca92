//! `sapwood node run`

use std::path::PathBuf;

use clap::Subcommand;
use sapwood_edge_node::{Config, NodeError, identity::IdentityError, probe, store::StoreError};
use serde_json::json;

use super::daemon::asked_to_stop;
use crate::output::{Answer, Exit, Failure, OrFail, chain, out, table};

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
    /// Shows what this node has let go, by its own books, and what its operator's budgets leave; the node may be running.
    #[command(after_help = "Example:\n  sapwood node ledger --config node.toml")]
    Ledger {
        #[arg(long)]
        config: PathBuf,
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
        Verb::Ledger { config } => ("node ledger", ledger(&config)),
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

fn ledger(config: &std::path::Path) -> Result<Answer, Failure> {
    let config = Config::read(config).or_usage()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().or_fail(Exit::Internal)?;
    let account = runtime.block_on(sapwood_edge_node::account(&config.state_dir, &config.policy)).map_err(|error| {
        let exit = if matches!(error, StoreError::File { .. }) { Exit::NotFound } else { Exit::Internal };
        Failure::new(exit, chain(&error))
    })?;
    let number = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), |number| format!("{number:.3}"));
    let rows: Vec<_> = account
        .budgets
        .iter()
        .map(|spent| {
            let budget = spent.budget.as_ref();
            let delta = budget.map_or_else(|| "-".to_owned(), |budget| format!("{:e}", budget.delta));
            let unit = match budget.and_then(|budget| budget.key.as_ref()) {
                Some(key) => format!("{} by {key}", spent.unit),
                None => spent.unit.to_string(),
            };
            vec![unit, number(budget.map(|budget| budget.epsilon)), delta, number(spent.epsilon_spent), spent.sessions.to_string()]
        })
        .collect();
    let mut text = table(&["unit", "epsilon", "delta", "spent", "sessions"], &rows);
    if account.without_noise > 0 {
        text.push_str(&format!("\n{} sessions without noise, as the policy allows", account.without_noise));
    }
    Ok(Answer::new(json!(account), text))
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

//! `sapwood rollout …`: how far a release has come.

use clap::Subcommand;
use sapwood_proto::v1;
use sapwood_protocol::release::view::RolloutView;

use crate::{
    output::{Answer, Failure, table},
    remote::{Operator, block_on, refused, view},
};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Rings, nodes, and the reason of the last decision.
    Show {
        /// NAME-VERSION of the release.
        release: String,
        #[command(flatten)]
        operator: Operator,
    },
}

pub(crate) fn run(verb: Verb) -> (&'static str, Result<Answer, Failure>) {
    match verb {
        Verb::Show { release, operator } => ("rollout show", block_on(show(release, operator))),
    }
}

async fn show(release: String, operator: Operator) -> Result<Answer, Failure> {
    let mut remote = operator.connect().await?;
    let reply = remote.client.show_rollout(v1::ByName { name: release }).await.map_err(|s| refused(&s))?.into_inner();
    let rollout: RolloutView = view(&reply)?;
    let mut rows = Vec::new();
    for ring in &rollout.rings {
        rows.push(vec![ring.ring.to_string(), ring.state.clone(), String::new(), ring.why.clone()]);
        rows.extend(ring.nodes.iter().map(|(node, state)| vec![String::new(), String::new(), node.to_string(), state.clone()]));
    }
    let outcome = rollout.outcome.as_ref().map_or_else(|| "under way".to_owned(), ToString::to_string);
    let text =
        format!("{} {}: {outcome}; {}\n{}", rollout.release, rollout.digest, rollout.why, table(&["ring", "state", "node", "why"], &rows));
    Ok(Answer::new(&rollout, text))
}

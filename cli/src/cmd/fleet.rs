//! `sapwood fleet …`: the nodes, and who may join.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Subcommand;
use sapwood_coordinator::{
    grpc::application,
    pki::{Authority, PkiError, TokenTerms},
};
use sapwood_proto::{convert, v1};
use sapwood_protocol::{NodeId, release::view::NodeInfo};
use serde_json::json;

use crate::{
    clock,
    output::{Answer, Exit, Failure, OrFail, chain, table},
    remote::{Operator, block_on, refused, view},
};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// All nodes: where they are and what they run.
    List {
        #[command(flatten)]
        operator: Operator,
    },
    /// One node.
    Show {
        node: NodeId,
        #[command(flatten)]
        operator: Operator,
    },
    /// A one-time token with which one machine becomes a node. Runs where the enrolment authority's folder is; needs no coordinator.
    #[command(after_help = "Example:\n  sapwood fleet enroll-token --authority farm/authority --node store-017 --ring canary --ttl 24h")]
    EnrollToken {
        /// The authority's folder.
        #[arg(long, env = "SAPWOOD_AUTHORITY")]
        authority: PathBuf,
        /// The only name that may be enrolled with it.
        #[arg(long)]
        node: Option<NodeId>,
        /// The ring that the node will belong to.
        #[arg(long)]
        ring: Option<String>,
        /// Further labels, KEY=VALUE.
        #[arg(long, value_parser = label)]
        label: Vec<(String, String)>,
        /// How long it may be used.
        #[arg(long, default_value = "24h", value_parser = humantime::parse_duration)]
        ttl: Duration,
    },
    /// Answers the enrolment requests that wait at a coordinator, with the authority's key.
    #[command(after_help = "Example:\n  sapwood fleet authorize --authority farm/authority --coordinator coordinator:7443")]
    Authorize {
        /// The authority's folder.
        #[arg(long, env = "SAPWOOD_AUTHORITY")]
        authority: PathBuf,
        #[command(flatten)]
        operator: Operator,
    },
}

fn label(text: &str) -> Result<(String, String), String> {
    text.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).ok_or_else(|| format!("{text:?} is not KEY=VALUE"))
}

pub(crate) fn run(verb: Verb) -> (&'static str, Result<Answer, Failure>) {
    match verb {
        Verb::List { operator } => ("fleet list", block_on(list(operator))),
        Verb::Show { node, operator } => ("fleet show", block_on(show(node, operator))),
        Verb::EnrollToken { authority, node, ring, label, ttl } => {
            let mut labels: BTreeMap<String, String> = label.into_iter().collect();
            labels.extend(ring.map(|r| ("ring".to_owned(), r)));
            ("fleet enroll-token", enroll_token(&authority, &TokenTerms { node, labels, lifetime: ttl }))
        }
        Verb::Authorize { authority, operator } => ("fleet authorize", block_on(authorize(authority, operator))),
    }
}

async fn list(operator: Operator) -> Result<Answer, Failure> {
    let mut remote = operator.connect().await?;
    let reply = remote.client.list_nodes(v1::ListRequest {}).await.map_err(|s| refused(&s))?.into_inner();
    let nodes: Vec<NodeInfo> = view(&reply)?;
    let rows: Vec<_> = nodes.iter().map(row).collect();
    Ok(Answer::new(json!({"nodes": nodes}), table(&["node", "ring", "class", "connected", "running", "health"], &rows)))
}

fn row(node: &NodeInfo) -> Vec<String> {
    let health = node.health.as_ref().map_or_else(String::new, |h| h.to_string());
    vec![
        node.node.to_string(),
        node.ring.as_ref().map_or_else(String::new, ToString::to_string),
        node.class.to_string(),
        if node.connected { "yes" } else { "no" }.to_owned(),
        node.running.map_or_else(|| "nothing".to_owned(), |d| d.short()),
        health,
    ]
}

async fn show(node: NodeId, operator: Operator) -> Result<Answer, Failure> {
    let mut remote = operator.connect().await?;
    let reply = remote.client.show_node(v1::ByName { name: node.into() }).await.map_err(|s| refused(&s))?.into_inner();
    let node: NodeInfo = view(&reply)?;
    let mut rows: Vec<Vec<String>> =
        ["node", "ring", "class", "connected", "running", "health"].iter().map(|h| vec![(*h).to_owned()]).collect();
    for (line, cell) in rows.iter_mut().zip(row(&node)) {
        line.push(cell);
    }
    rows.push(vec!["seen".into(), node.seen.map_or_else(|| "never".to_owned(), |t| t.to_string())]);
    rows.extend(node.labels.iter().map(|(k, v)| vec![format!("label {k}"), v.clone()]));
    Ok(Answer::new(&node, table(&["", ""], &rows).trim_start().to_owned()))
}

fn enroll_token(authority: &Path, terms: &TokenTerms) -> Result<Answer, Failure> {
    let authority = Authority::open(authority).or_fail(Exit::NotAuthorized)?;
    let now = clock::now();
    let token = authority.mint(terms, now).or_fail(Exit::Internal)?;
    let expires = now + terms.lifetime;
    let revealed = token.reveal();
    Ok(Answer::new(
        json!({"token": *revealed, "id": token.id(), "expires": expires.to_string()}),
        format!("{}\nusable once, until {expires}; it is not shown again", *revealed),
    ))
}

async fn authorize(authority: PathBuf, operator: Operator) -> Result<Answer, Failure> {
    let authority = Authority::open(&authority).or_fail(Exit::NotAuthorized)?;
    let mut remote = operator.connect().await?;
    let mut pending = remote.client.pending_enrollments(v1::ListRequest {}).await.map_err(|s| refused(&s))?.into_inner();
    let mut answered = Vec::new();
    while let Some(request) = pending.message().await.map_err(|s| refused(&s))? {
        let node = request.node.clone();
        let verdict = match authority.authorize(&application(&request)?, clock::now()) {
            Ok(membership) => v1::authorize_request::Verdict::Membership(convert::to_json(&membership)),
            // A bad token is the applicant's affair; anything else is ours, and the request goes on waiting.
            Err(PkiError::Refused(fault)) => v1::authorize_request::Verdict::Refused(fault.to_string()),
            Err(error) => return Err(Failure::internal(chain(&error))),
        };
        let refusal = match &verdict {
            v1::authorize_request::Verdict::Refused(why) => Some(why.clone()),
            v1::authorize_request::Verdict::Membership(_) => None,
        };
        let answer = v1::AuthorizeRequest { request_id: request.request_id, verdict: Some(verdict) };
        remote.client.authorize(answer).await.map_err(|s| refused(&s))?;
        answered.push(json!({"node": node, "refused": refusal}));
    }
    let text = format!("{} requests answered", answered.len());
    Ok(Answer::new(json!({"answered": answered}), text))
}

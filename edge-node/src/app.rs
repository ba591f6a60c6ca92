//! A node from its configuration to its end.
//!
//! Serving comes first and depends on nothing but the disk: whatever happens to the coordinator, the certificates or the
//! clock, the committed model answers. Enrolment, the line and the rounds come beside it.

use std::{net::SocketAddr, path::Path, sync::Arc};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sapwood_failpoint as failpoint;
use sapwood_proto::convert;
use sapwood_protocol::{
    Fault,
    membership::Token,
    rollout::{Health, NodeStatus},
    trust::TrustFile,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use zeroize::Zeroizing;

use crate::{
    agent,
    books::Books,
    config::{Config, Enrollment},
    error::NodeError,
    identity::{self, Enrolled, Found},
    link::{Line, Link},
    objects::Objects,
    profile::profile,
    round::{Rounds, Standing},
    store::Store,
    train::{Budget, DataSet, Workshop},
};

pub use crate::link::{Assignments, Reporter};

#[cfg(test)]
mod tests;

/// Orders that wait for the rounds; more would mean that they hang.
const ORDERS: usize = 64;

/// A node that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// Where it answers inference requests.
    pub serving: SocketAddr,
}

/// Runs a node until `shutdown`. `ready` is called when the inference server listens, which is before the coordinator is
/// spoken to.
///
/// # Errors
/// What a person must mend: the configuration, the trust file, a damaged state folder, a refused enrolment. A coordinator
/// that is away, or does not want this node any more, is none.
pub async fn run(mut config: Config, ready: impl FnOnce(Ready), shutdown: impl Future<Output = ()>) -> Result<(), NodeError> {
    let trust = Arc::new(read_trust(&config.trust)?);
    let store = Store::open(&config.state_dir).await?;
    let enrollment = std::mem::take(&mut config.enrollment);
    let (current, link) = Link::new();
    let (report, status) = watch::channel(NodeStatus { assignment: 0, running: None, health: Health::Healthy });
    let (orders, assignments) = watch::channel(None);

    let mut agent = agent::start(agent::Parts {
        state_dir: config.state_dir.clone(),
        store: store.clone(),
        link: link.clone(),
        trust: trust.clone(),
        config: &config,
        report,
        assignments,
    })
    .await?;
    ready(Ready { serving: agent.serving });
    let serving = agent.serving;
    let runtime = agent.runtime.clone();

    let online = async {
        let enrolled = match enrolled(&config, &trust, enrollment).await {
            Ok(enrolled) => Arc::new(enrolled),
            Err(error) if status.borrow().running.is_some() && !matches!(error, NodeError::Killed(_)) => {
                tracing::error!(%error, "this node cannot join its fleet; it goes on serving what it has");
                std::future::pending().await
            }
            Err(error) => return error,
        };
        let data =
            config.data.as_ref().map(|data| DataSet { name: data.name.clone(), source: data.source.clone(), schema: data.schema.clone() });
        let class = sapwood_runtime::host_class().to_owned();
        let profile = profile(class, runtime.as_deref(), Some(serving), data.is_some());
        let workshop = match Workshop::new(Budget::new(&config.train), config.train.kind, data) {
            Ok(workshop) => workshop,
            Err(error) => return NodeError::Threads(error),
        };
        let (rounds, round_orders) = mpsc::channel(ORDERS);
        let objects = Objects::new(config.state_dir.join("objects"));
        let books = match Books::open(store.clone(), &config.policy).await {
            Ok(books) => books,
            Err(error) => return error.into(),
        };
        let membership = convert::to_json(enrolled.membership()).to_vec();
        let standing = Standing { signer: enrolled.clone(), membership, trust: trust.clone() };
        let driver = Rounds::new(config.name.clone(), link.clone(), standing, books, workshop, objects);
        let line = Line {
            address: config.coordinator.clone(),
            trust: trust.clone(),
            node: config.name.clone(),
            enrolled,
            store: store.clone(),
            profile,
            status: status.clone(),
            rounds,
            // This one is dropped with the line; the agent ends only when it is told to.
            assignments: orders.clone(),
            current,
            link: link.clone(),
        };
        let random = ChaCha8Rng::from_rng(&mut rand::rng());
        let mut tasks = JoinSet::new();
        tasks.spawn(failpoint::inherit(async move { Some(line.run(random).await) }));
        tasks.spawn(failpoint::inherit(async move { driver.run(round_orders).await.err() }));
        loop {
            match tasks.join_next().await {
                Some(Ok(Some(killed))) => return killed.into(),
                Some(Err(panic)) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    };
    let result = tokio::select! {
        () = shutdown => Ok(()),
        error = online => Err(error),
        ended = &mut agent.task => ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())),
    };
    agent.stop().await;
    store.close().await;
    result
}

/// A member of the fleet: from the state folder, or by enrolling now. The token is wiped when this returns.
async fn enrolled(config: &Config, trust: &TrustFile, enrollment: Enrollment) -> Result<Enrolled, NodeError> {
    match identity::open(&config.state_dir.join("identity"), &config.name, trust)? {
        Found::Enrolled(enrolled) => Ok(enrolled),
        Found::Enrolling(enrolling) => {
            let token = token(enrollment)?;
            tracing::info!(node = %config.name, population = %trust.population, "enrolling");
            let enrolled = identity::enroll(enrolling, &config.name, &config.coordinator, trust, token).await?;
            tracing::info!(until = %enrolled.membership().statement.expires, "enrolled");
            Ok(enrolled)
        }
    }
}

fn token(enrollment: Enrollment) -> Result<Option<Token>, NodeError> {
    let text = match (enrollment.token, enrollment.token_file) {
        (Some(token), _) => Zeroizing::new(token.expose().to_owned()),
        (None, Some(path)) => match std::fs::read_to_string(&path) {
            Ok(text) => Zeroizing::new(text),
            // It may have been removed after its use; an unfinished enrolment goes on without it.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(NodeError::Token { why: format!("{}: {e}", path.display()) }),
        },
        (None, None) => return Ok(None),
    };
    text.parse().map(Some).map_err(|fault: Fault| NodeError::Token { why: fault.to_string() })
}

fn read_trust(path: &Path) -> Result<TrustFile, NodeError> {
    let fault = |why: String| NodeError::Trust { path: path.to_owned(), why };
    let text = std::fs::read_to_string(path).map_err(|e| fault(e.to_string()))?;
    TrustFile::parse(&text).map_err(|e| fault(e.to_string()))
}

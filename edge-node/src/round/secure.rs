//! This node's part in one secure sum: keys, shares, masked input, consistency, unmasking, each answered when the coordinator asks.
//!
//! It begins when the update is trained, so that a node which fails to train costs the others nothing. What it knows of the session lives in
//! this task and is wiped with it: a node that dies has no part in the session any more.

use std::sync::Arc;

use bytes::Bytes;
use sapwood_privacy::secagg::{Client, Reply, Signer, client};
use sapwood_protocol::{
    Digest, RunId, Secrets as _,
    membership::Vouching,
    round::{Decline, Receipt, Stage, Terms},
    trust::TrustFile,
};

use super::SystemSecrets;
use crate::{
    books::Books,
    clock,
    link::{CallError, Heard, Link, Submission},
    points::CHARGED,
    train::Trained,
};

/// Who this node is to its neighbours in a secure sum.
#[derive(Clone)]
pub(crate) struct Standing {
    /// Signs under the enrolled identity.
    pub(crate) signer: Arc<dyn Signer + Send + Sync>,
    /// The authority's word for it, as it is shown to the coordinator, too.
    pub(crate) membership: Vec<u8>,
    /// Whose word counts.
    pub(crate) trust: Arc<TrustFile>,
}

/// What every secure sum of this node needs.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) link: Link,
    pub(super) books: Books,
    pub(super) standing: Standing,
}

/// Why this node left.
enum Left {
    /// To be told to the coordinator.
    Decline(Decline),
    Call(CallError),
}

impl From<CallError> for Left {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<Decline> for Left {
    fn from(reason: Decline) -> Self {
        Self::Decline(reason)
    }
}

impl Member {
    /// Takes part until the sum is opened, or this node has left it.
    pub(super) async fn take_part(&self, run: RunId, terms: Terms, trained: Arc<Trained>) -> Result<Receipt, CallError> {
        match self.exchange(&run, &terms, trained).await {
            Ok(receipt) => Ok(receipt),
            Err(Left::Call(error)) => Err(error),
            Err(Left::Decline(reason)) => {
                tracing::warn!(%run, round = terms.round, %reason, "this node leaves the secure sum");
                self.link.decline(&run, terms.session, &reason).await
            }
        }
    }

    async fn exchange(&self, run: &RunId, terms: &Terms, trained: Arc<Trained>) -> Result<Receipt, Left> {
        let refuse = |why: String| Decline::SecureSum { why };
        let agreed = terms.aggregation().map_err(|fault| refuse(fault.to_string()))?;
        let agreed = agreed.ok_or_else(|| refuse("the terms have none".into()))?;
        // Noise is drawn before anything is sent: how long that takes tells nobody anything.
        let lanes = {
            let terms = terms.clone();
            blocking(move || trained.lanes(&terms)).await.map_err(|fault| {
                tracing::warn!(%run, %fault, "the update cannot be encoded");
                Decline::Diverged { why: "the update cannot be encoded".into() }
            })?
        };
        let mut lanes = Some(lanes);
        let (membership, policy) = (self.standing.membership.clone(), self.books.aggregation());
        let begun = self.with(terms, |cx| Client::begin(agreed, &policy, membership, cx));
        let (mut client, keys) = begun.map_err(|fault| refuse(fault.to_string()))?;
        let (mut stage, mut message) = (Stage::Keys, Bytes::from(keys));
        loop {
            let heard = match self.link.exchange(run, terms.session, stage, message).await? {
                Heard::Receipt(receipt) => return Ok(receipt),
                Heard::Message(heard) => heard,
            };
            stage = stage.next().ok_or_else(|| refuse("the coordinator goes on behind the end".into()))?;
            let reply = self.with(terms, |cx| client.receive(&heard, cx)).map_err(|fault| refuse(fault.to_string()))?;
            message = match (reply, lanes.take_if(|_| stage == Stage::Inputs)) {
                (Reply::Send(bytes), None) => bytes.into(),
                (Reply::WantsVector, Some(mut lanes)) => {
                    self.books.charge(terms).await?;
                    CHARGED.reached().map_err(CallError::Killed)?;
                    let lanes = std::mem::take(&mut *lanes);
                    let threads = std::thread::available_parallelism().map_or(1, usize::from);
                    let (masked, next) = blocking(move || (client.mask(lanes, threads), client)).await;
                    client = next;
                    let bytes = Bytes::from(masked.map_err(|fault| refuse(fault.to_string()))?);
                    let submission = Submission { run: run.clone(), session: terms.session, digest: Digest::of(&bytes), bytes };
                    match self.link.submit(&submission).await? {
                        Receipt::Accepted => Bytes::new(),
                        other => return Ok(other),
                    }
                }
                _ => return Err(refuse("the coordinator skipped a step".into()).into()),
            };
        }
    }

    /// A step of the client, with what it may use.
    fn with<T>(&self, terms: &Terms, step: impl FnOnce(&mut client::Cx<'_>) -> T) -> T {
        let TrustFile { authority, population, .. } = &*self.standing.trust;
        let vouching = Vouching { authority: *authority, population: population.clone(), now: clock::now() };
        let mut secrets = SystemSecrets::default();
        let mut random = |bytes: &mut [u8]| secrets.fill(bytes);
        let vouch = |identity: &_, context: &[u8]| vouching.vouches(terms, identity, context);
        step(&mut client::Cx { signer: &*self.standing.signer, vouch: &vouch, random: &mut random })
    }
}

/// Runs `work` where it keeps nobody else from running.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

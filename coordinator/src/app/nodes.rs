//! What nodes ask of the coordinator.

use std::sync::Arc;

use sapwood_failpoint as failpoint;
use sapwood_privacy::wire;
use sapwood_protocol::{
    Digest, Fault, NodeId, RunId, SessionId, Ticket,
    fault::{Expiry, Lack, Misbehaviour, Misuse},
    rollout::{self, NodeStatus},
    round::{Codec, Decline, Receipt, Stage, Terms},
    run::{Input, Run},
};

use super::{Enrollment, NodeHello, Orders, RunHandle, State, lock, no_such};
use crate::{
    drive::Life,
    store::{Intent, StoreError, StreamName},
    uploads::{self, Key, Received},
};

/// How an upload begins.
#[derive(Clone, Debug)]
pub struct UploadHeader {
    /// For which run.
    pub run: RunId,
    /// In which attempt.
    pub session: SessionId,
    /// SHA-256 of the whole update.
    pub digest: Digest,
    /// Its length.
    pub total: u64,
    /// Where this transfer begins.
    pub offset: u64,
}

/// An update on its way in. Dropped unfinished, it can be gone on with.
pub struct Upload {
    inner: uploads::Upload,
    run: RunHandle,
    terms: Arc<Terms>,
}

impl Upload {
    /// The next bytes.
    ///
    /// # Errors
    /// [`Misbehaviour::Malformed`] if there are more than announced.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.inner.push(bytes)
    }

    /// Offers the whole update to its run. Once this says [`Receipt::Accepted`], it counts.
    ///
    /// # Errors
    /// Only what may be different later; everything else is in the receipt.
    pub async fn finish(self) -> Result<Receipt, Fault> {
        receipt(self.offer().await)
    }

    async fn offer(self) -> Result<(), Fault> {
        let Self { inner, run, terms } = self;
        let received = inner.whole()?;
        // Whoever hangs up now must not take the bytes from under a decision.
        let offered = tokio::spawn(failpoint::inherit(async move {
            let received = checked(received, terms).await?;
            let Key { node, session, digest } = received.key.clone();
            let bytes = received.bytes.len();
            let _holding = run.held.hold(received);
            run.address.ask(Input::Update { node, session, digest, bytes }).await
        }));
        offered.await.unwrap_or_else(|_| Err(Lack::Resource { what: "the coordinator", why: "it is shutting down".into() }.into()))
    }

    /// Comes back when the attempt is over: nobody wants the rest.
    pub async fn unwanted(&self) {
        over(&self.run, self.terms.session).await;
    }
}

/// What a node is told in a secure sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The message of the next stage.
    Message(Vec<u8>),
    /// Nothing follows.
    Receipt(Receipt),
}

fn gone() -> Fault {
    Lack::Resource { what: "the coordinator", why: "it is about to stop or to start again; try again soon".into() }.into()
}

/// Nobody else is waited for in this stage. The run hears of it even if whoever was heard last hangs up now.
async fn complete(run: &RunHandle, session: SessionId, stage: Stage) {
    let address = run.address.clone();
    let told = tokio::spawn(failpoint::inherit(async move { address.tell(Input::StageComplete { session, stage }).await }));
    let _ = told.await;
}

/// Comes back when the attempt of this session is over.
async fn over(run: &RunHandle, session: SessionId) {
    let gone = |run: &Arc<Run>| run.terms().is_none_or(|terms| terms.session != session);
    // An error means that the run has no driver any more.
    let _ = run.states.clone().wait_for(gone).await;
}

/// An update is looked at alone before it is added: in a sum, nobody could say whose fault it was.
async fn checked(received: Received, terms: Arc<Terms>) -> Result<Received, Fault> {
    let check = move || {
        let verdict = terms.codec().and_then(|codec| {
            let looked_at = match &codec {
                // Behind masks and noise nothing but the form can be checked.
                Codec::Exact(encoding) if terms.secure.is_none() => encoding.check(&received.bytes, terms.dimension()),
                _ => wire::check(&[&received.bytes], codec.elements(terms.dimension()), codec.bits()),
            };
            looked_at.map_err(|fault| {
                let why = format!("node {}: {fault}", received.key.node);
                Misbehaviour::Malformed { what: "update", why }.into()
            })
        });
        verdict.map(|()| received)
    };
    Life::block(check).await
}

/// What a node is answered: yes, too late, or no. What may be different later stays a fault.
pub fn receipt(verdict: Result<(), Fault>) -> Result<Receipt, Fault> {
    match verdict {
        Ok(()) => Ok(Receipt::Accepted),
        Err(Fault::Expired(_)) => Ok(Receipt::Expired),
        Err(fault @ Fault::Unavailable(_)) => Err(fault),
        Err(fault) => {
            tracing::warn!(%fault, "an update or a decline was refused");
            Ok(Receipt::Refused)
        }
    }
}

impl State {
    /// Opens a node's line; see [`crate::fleet::Fleet::connect`].
    ///
    /// # Errors
    /// [`Misbehaviour::ClonedIdentity`].
    pub async fn connect(&self, hello: NodeHello) -> Result<(Ticket, Orders), Fault> {
        let (node, status) = (hello.node.clone(), hello.status.clone());
        let mut secrets = (self.0.shop.cx.secrets)();
        let (ticket, orders) = self.fleet().connect(hello, &mut *secrets).await?;
        if let Some(status) = status {
            self.tell_rollouts(&node, &status).await;
        }
        Ok((ticket, orders))
    }

    /// How much of an upload is here already.
    pub fn upload_offset(&self, node: &NodeId, session: SessionId, digest: Digest) -> u64 {
        self.0.shop.uploads.offset(&Key { node: node.clone(), session, digest })
    }

    /// Begins an upload, or goes on with one: checks it against the terms, then waits until there is memory for it. Nothing of
    /// it should be read from the network before.
    ///
    /// # Errors
    /// [`Expiry::Session`], [`Misbehaviour::NotInCohort`], [`Misbehaviour::UpdateLength`]; [`receipt`] makes an answer of them.
    pub async fn upload(&self, node: &NodeId, header: UploadHeader) -> Result<Upload, Fault> {
        let UploadHeader { run, session, digest, total, offset } = header;
        let run = self.driven(&run).await?;
        let terms = run.states.borrow().terms().filter(|terms| terms.session == session).cloned();
        let terms = Arc::new(terms.ok_or(Expiry::Session)?);
        if !terms.has(node) {
            return Err(Misbehaviour::NotInCohort { node: node.clone() }.into());
        }
        let expected = terms.update_bytes()?;
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        if total != expected {
            return Err(Misbehaviour::UpdateLength { node: node.clone(), expected, actual: total }.into());
        }
        let key = Key { node: node.clone(), session, digest };
        let inner = tokio::select! {
            begun = self.0.shop.uploads.begin(key, total, offset) => begun?,
            () = over(&run, session) => return Err(Expiry::Session.into()),
        };
        Ok(Upload { inner, run, terms })
    }

    /// Takes a node's message of a stage of the secure sum, and waits for what the node is told next. An empty message only waits.
    ///
    /// # Errors
    /// Only what may be different later; everything else is in the receipt.
    pub async fn exchange(&self, node: &NodeId, run: &RunId, session: SessionId, stage: Stage, message: &[u8]) -> Result<Said, Fault> {
        match self.try_exchange(node, run, session, stage, message).await {
            Ok(said) => Ok(said),
            Err(fault) => receipt(Err(fault)).map(Said::Receipt),
        }
    }

    async fn try_exchange(&self, node: &NodeId, run: &RunId, session: SessionId, stage: Stage, message: &[u8]) -> Result<Said, Fault> {
        let run = self.driven(run).await?;
        let live = run.states.borrow().terms().is_some_and(|terms| terms.session == session);
        if !live {
            return Err(Expiry::Session.into());
        }
        // Found by a test: tasks leave before the session is made, and a fast node was told that it came too late.
        tokio::select! {
            () = run.secure.opened(session) => {}
            () = over(&run, session) => return Err(Expiry::Session.into()),
        }
        if !message.is_empty() {
            // Found by review: a stage that the node calls by another name is complete all the same, and so it is when what came is no good
            // and its sender is not waited for any more.
            let (taken, completed) = run
                .secure
                .with(session, |secure| (secure.receive(node, message), secure.is_complete().then(|| secure.stage())))
                .ok_or(Expiry::Session)?;
            if let Some(stage) = completed {
                complete(&run, session, stage).await;
            }
            taken?;
        }
        if stage == Stage::Unmasking {
            return Ok(Said::Receipt(Receipt::Accepted));
        }
        // The stage ends when that is durable, not before.
        let mut states = run.states.clone();
        let ended =
            |run: &Arc<Run>| run.terms().is_none_or(|terms| terms.session != session) || run.stage().is_none_or(|at_hand| at_hand > stage);
        let next = states.wait_for(ended).await.map_err(|_| gone())?.stage();
        let next = next.filter(|next| Some(*next) == stage.next()).ok_or(Expiry::Session)?;
        let said = run.secure.with(session, |secure| secure.message_for(node, next)).ok_or(Expiry::Session)?;
        Ok(Said::Message(said.ok_or_else(|| Expiry::Dropped { node: node.clone() })?))
    }

    /// A node cannot take part.
    ///
    /// # Errors
    /// Only what may be different later; everything else is in the receipt.
    pub async fn decline(&self, node: &NodeId, run: &RunId, session: SessionId, reason: Decline) -> Result<Receipt, Fault> {
        receipt(self.try_decline(node, run, session, reason).await)
    }

    async fn try_decline(&self, node: &NodeId, run: &RunId, session: SessionId, reason: Decline) -> Result<(), Fault> {
        let run = self.driven(run).await?;
        run.address.ask(Input::Declined { node: node.clone(), session, reason }).await
    }

    /// What a node runs, and how it is.
    pub async fn report(&self, node: &NodeId, ticket: Option<Ticket>, status: NodeStatus) -> Result<(), Fault> {
        self.fleet().report(node, ticket, status.clone()).await?;
        self.tell_rollouts(node, &status).await;
        Ok(())
    }

    async fn tell_rollouts(&self, node: &NodeId, status: &NodeStatus) {
        let rollouts: Vec<_> = lock(&self.0.rollouts).values().cloned().collect();
        for rollout in rollouts {
            rollout.address.tell(rollout::Input::Report { node: node.clone(), status: status.clone() }).await;
        }
    }

    /// The run's driver. A run that is over has none: whatever a node still has for it comes too late.
    async fn driven(&self, run: &RunId) -> Result<RunHandle, Fault> {
        if let Some(handle) = lock(&self.0.runs).get(run) {
            return Ok(handle.clone());
        }
        match self.store().stream(&StreamName::run(run)).await? {
            Some(row) if !row.live => Err(Expiry::Session.into()),
            // Restored from a backup, the coordinator may not know a run that its nodes do.
            None => Err(Expiry::Session.into()),
            Some(_) => Err(Lack::Lease { what: format!("run {run}") }.into()),
        }
    }

    /// Takes a request for enrolment in, or finds it again, with its answer if there is one. Idempotent.
    ///
    /// # Errors
    /// [`Misbehaviour::TokenReused`] if another request came under the same token.
    pub async fn enroll(&self, request: Enrollment) -> Result<Enrollment, Fault> {
        let (id, token) = (request.id, request.token.clone());
        if let Some(known) = self.store().enrollment(id).await? {
            return Ok(known);
        }
        match self.writer().write(Intent::Enroll(Box::new(request))).await {
            Err(StoreError::Conflict { .. }) => return Err(Misbehaviour::TokenReused { token: token.to_string() }.into()),
            other => other?,
        };
        self.0.enrollments.send_modify(|count| *count += 1);
        self.store().enrollment(id).await?.ok_or_else(|| no_such("enrolment request", &id))
    }

    /// Requests without an answer, oldest first.
    pub async fn pending_enrollments(&self) -> Result<Vec<Enrollment>, Fault> {
        Ok(self.store().pending_enrollments().await?)
    }

    /// Changes with each new request and each answer.
    pub fn enrollments_changed(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.enrollments.subscribe()
    }

    /// Answers a request. The first answer stands; the request as it is now comes back.
    ///
    /// # Errors
    /// [`Misuse::State`] if there is no such request.
    pub async fn answer_enrollment(&self, id: Digest, reply: Vec<u8>) -> Result<Enrollment, Fault> {
        match self.writer().write(Intent::Answer { id, reply }).await {
            Err(StoreError::Missing { .. }) => {
                return Err(Misuse::State { what: format!("enrolment request {id}"), why: "there is none".into() }.into());
            }
            other => other?,
        };
        self.0.enrollments.send_modify(|count| *count += 1);
        self.store().enrollment(id).await?.ok_or_else(|| no_such("enrolment request", &id))
    }
}

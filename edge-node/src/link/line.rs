//! Keeping the line: connect, hand out orders, come back.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rand::Rng;
use sapwood_failpoint::Killed;
use sapwood_proto::{
    convert,
    v1::{self, instruction::Kind},
};
use sapwood_protocol::{
    NodeId,
    rollout::{Assignment, NodeStatus},
    round::{Task, Withdrawal},
    trust::TrustFile,
    version::WIRE,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tonic::{Code, Status, Streaming};

use super::{
    Backoff, Client, Link, Policy, bounded, channel,
    tls::{LinkError, alert},
};
use crate::{
    clock,
    identity::{Enrolled, RenewError, renew},
    points::TICKET_STORED,
    store::Store,
};

/// A coordinator that says nothing for so long after Hello is broken.
const WELCOME_WITHIN: Duration = Duration::from_secs(30);
/// A connection that held for so long ends a run of failures.
const HELD: Duration = Duration::from_secs(10);
/// How often the status is repeated though nothing has changed, give or take a half.
const REPEAT: Duration = Duration::from_secs(300);
/// The longest sleep before the certificate's age is looked at again: wall clocks jump.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// What the node's part in rounds is told.
#[derive(Debug)]
pub enum RoundOrder {
    /// There is a new connection; what was not answered must be said again.
    Connected,
    /// Join an attempt.
    Task(Box<Task>),
    /// An attempt is over.
    Withdraw(Withdrawal),
}

/// Everything that the line needs.
pub struct Line {
    /// The coordinator.
    pub address: String,
    /// Whom we believe.
    pub trust: Arc<TrustFile>,
    /// Who we are.
    pub node: NodeId,
    /// How we show it.
    pub enrolled: Arc<Enrolled>,
    /// Keeps the ticket.
    pub store: Store,
    /// What we are, for every Hello.
    pub profile: v1::Profile,
    /// What we run; its changes are reported.
    pub status: watch::Receiver<NodeStatus>,
    /// To the rounds.
    pub rounds: mpsc::Sender<RoundOrder>,
    /// To the agent: the newest order counts.
    pub assignments: watch::Sender<Option<Assignment>>,
    /// To every [`Link`].
    pub(crate) current: watch::Sender<Option<Client>>,
    /// For our own calls.
    pub link: Link,
}

/// How a connection ended.
enum End {
    /// It may work again in a moment.
    Broken(String),
    /// The coordinator goes away in good order.
    Goodbye(String),
    /// Only a person can help; until then we ask seldom.
    Refused(String),
    /// We have a new certificate to show.
    Renewed,
    /// In a simulation only.
    Killed(Killed),
}

impl Line {
    /// Keeps the line for ever; ends only in a simulation. Dropping it closes the line and every [`Link`].
    pub async fn run(mut self, random: impl Rng) -> Killed {
        let mut backoff = Backoff::new(random);
        loop {
            let mut welcomed = None;
            let end = self.connection(&mut backoff, &mut welcomed).await;
            self.current.send_replace(None);
            if ended_well(welcomed.map(|at| at.elapsed()), &end) {
                backoff.reset();
            }
            let wait = match end {
                End::Renewed => Duration::ZERO,
                End::Broken(why) => {
                    let wait = backoff.next(Policy::RECONNECT);
                    tracing::warn!(%why, ?wait, "no line to the coordinator");
                    wait
                }
                End::Goodbye(why) => {
                    let wait = backoff.next(Policy::RECONNECT);
                    tracing::info!(%why, ?wait, "the coordinator said goodbye");
                    wait
                }
                End::Refused(why) => {
                    let wait = backoff.next(Policy::REFUSED);
                    tracing::error!(%why, ?wait, "the coordinator and this node cannot work together until somebody acts; serving goes on");
                    wait
                }
                End::Killed(killed) => return killed,
            };
            sleep(wait).await;
        }
    }

    /// One connection, from the handshake to its end; `welcomed` is when the coordinator took this node in.
    async fn connection(&mut self, backoff: &mut Backoff<impl Rng>, welcomed: &mut Option<Instant>) -> End {
        match self.welcome().await {
            Err(end) => end,
            Ok((client, ticket, stream)) => {
                *welcomed = Some(Instant::now());
                // All three live as long as the connection; whichever ends first ends it.
                tokio::select! {
                    end = listen(stream, &self.rounds, &self.assignments) => end,
                    end = report(client, ticket, self.status.clone(), backoff) => end,
                    end = keep_certificate(&self.enrolled, &self.node, &self.link) => end,
                }
            }
        }
    }

    /// Connects and says Hello; after this the ticket is stored and the line is open for everybody.
    async fn welcome(&mut self) -> Result<(Client, Bytes, Streaming<v1::Instruction>), End> {
        let ca = self.trust.coordinator_ca.as_bytes();
        let channel = channel(&self.address, ca, Some(self.enrolled.credentials())).await.map_err(|error| match error {
            LinkError::Unreachable { .. } => End::Broken(error.to_string()),
            _ => End::Refused(error.to_string()),
        })?;
        let mut client = bounded(channel);
        let ticket = self.store.ticket().await.map_err(|e| End::Refused(e.to_string()))?;
        // From here on each change of the status is reported by itself.
        let status = convert::to_json(&*self.status.borrow_and_update());
        let hello = v1::Hello {
            version: Some(v1::VersionRange { min: WIRE.min, max: WIRE.max }),
            ticket: ticket.map(|t| t.as_bytes().to_vec()).unwrap_or_default().into(),
            membership: convert::to_json(self.enrolled.membership()),
            profile: Some(self.profile.clone()),
            status,
        };
        let mut stream = client.connect(hello).await.map_err(|status| ended(&status))?.into_inner();
        let first =
            timeout(WELCOME_WITHIN, stream.message()).await.map_err(|_| End::Broken("the coordinator did not answer Hello".into()))?;
        let welcome = match first.map_err(|status| ended(&status))?.and_then(|instruction| instruction.kind) {
            Some(Kind::Welcome(welcome)) => welcome,
            Some(Kind::Goodbye(goodbye)) => return Err(End::Goodbye(goodbye.why)),
            _ => return Err(End::Broken("the coordinator's first word was not Welcome".into())),
        };
        if !(WIRE.min..=WIRE.max).contains(&welcome.version) {
            return Err(End::Refused(format!(
                "the coordinator chose wire version {}, which this node does not speak; upgrade",
                welcome.version
            )));
        }
        if let Some(ticket) = convert::ticket(&welcome.ticket).map_err(|e| End::Broken(e.to_string()))? {
            // Before anything else: a node that acts under a ticket which it may forget looks like a clone of itself.
            self.store.set_ticket(ticket).await.map_err(|e| End::Broken(format!("the ticket cannot be kept: {e}")))?;
            TICKET_STORED.reached().map_err(End::Killed)?;
        }
        tracing::info!(coordinator = %self.address, version = welcome.version, "connected");
        self.current.send_replace(Some(client.clone()));
        let _ = self.rounds.send(RoundOrder::Connected).await;
        Ok((client, welcome.ticket, stream))
    }
}

/// Whether this connection ends a run of failures: it held for a while, or the coordinator took its leave. One that breaks as
/// soon as it is open is one more failure, and so is a long wait for an answer that never came.
fn ended_well(held: Option<Duration>, end: &End) -> bool {
    held.is_some_and(|held| held >= HELD || matches!(end, End::Goodbye(_)))
}

/// Hands out orders. One that cannot be read is left out: the next version of the coordinator may send what we do not know.
async fn listen(
    mut stream: Streaming<v1::Instruction>,
    rounds: &mpsc::Sender<RoundOrder>,
    assignments: &watch::Sender<Option<Assignment>>,
) -> End {
    loop {
        let instruction = match stream.message().await {
            Ok(Some(instruction)) => instruction,
            Ok(None) => return End::Broken("the coordinator closed the line".into()),
            Err(status) => return ended(&status),
        };
        let order = match instruction.kind {
            Some(Kind::Task(json)) => convert::from_json("task", &json).map(|task| Some(RoundOrder::Task(Box::new(task)))),
            Some(Kind::Withdraw(json)) => convert::from_json("withdrawal", &json).map(|w| Some(RoundOrder::Withdraw(w))),
            Some(Kind::Assignment(json)) => convert::from_json("assignment", &json).map(|assignment| {
                assignments.send_replace(Some(assignment));
                None
            }),
            Some(Kind::Goodbye(goodbye)) => return End::Goodbye(goodbye.why),
            Some(Kind::Welcome(_)) | None => Ok(None),
        };
        match order {
            Ok(Some(order)) => {
                // The receiver is gone only when the node stops.
                let _ = rounds.send(order).await;
            }
            Ok(None) => {}
            Err(fault) => tracing::warn!(%fault, "an order was left out"),
        }
    }
}

/// Tells each change of the status, until it is acknowledged; and now and then that nothing has changed.
async fn report(mut client: Client, ticket: Bytes, mut status: watch::Receiver<NodeStatus>, backoff: &mut Backoff<impl Rng>) -> End {
    // Hello has said what the receiver had seen by then.
    let mut quiet = REPEAT / 2 + backoff.within(REPEAT);
    loop {
        if let Ok(Err(_)) = timeout(quiet, status.changed()).await {
            // The agent is gone: the node stops.
            return std::future::pending().await;
        }
        quiet = REPEAT / 2 + backoff.within(REPEAT);
        let report = v1::StatusReport { status: convert::to_json(&*status.borrow_and_update()), ticket: ticket.clone() };
        if let Err(refusal) = client.report(report).await {
            if let End::Broken(why) = ended(&refusal) {
                // The stream will break too, or has; the next Hello carries the status.
                return End::Broken(why);
            }
            tracing::warn!(why = refusal.message(), "the coordinator refused a status report");
        }
    }
}

/// Renews the certificate when two thirds of its life are over.
async fn keep_certificate(enrolled: &Enrolled, node: &NodeId, link: &Link) -> End {
    let mut backoff = Backoff::fresh();
    loop {
        let certified = enrolled.certified();
        let left = certified.renew_at().since(clock::now());
        if !left.is_zero() {
            sleep(left.min(LOOK_AGAIN)).await;
            continue;
        }
        match renew(enrolled, node, link).await {
            Ok(()) => return End::Renewed,
            Err(RenewError::Identity(crate::identity::IdentityError::Killed(killed))) => return End::Killed(killed),
            Err(error) => {
                let wait = Policy::REFUSED.first / 2 + backoff.next(Policy::REFUSED);
                tracing::warn!(%error, until = %certified.not_after(), ?wait, "the TLS certificate could not be renewed");
                sleep(wait).await;
            }
        }
    }
}

#[cfg(test)]
pub(super) fn is_refusal(status: &Status) -> bool {
    matches!(ended(status), End::Refused(_))
}

/// What a failed call says about the connection.
fn ended(status: &Status) -> End {
    // A certificate that the coordinator refuses shows itself only after the handshake, in the first answer (RFC 8446 §4.4.2).
    if let Some(alert) = alert(status) {
        return End::Refused(format!("TLS: {alert}; if the certificate has expired or was revoked, enrol again under a new token"));
    }
    let words = if status.message().is_empty() { status.code().description() } else { status.message() };
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated | Code::FailedPrecondition | Code::InvalidArgument | Code::Unimplemented => {
            End::Refused(words.to_owned())
        }
        _ => End::Broken(words.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_line_that_held_or_ended_in_good_order_ends_a_run_of_failures() {
        let (broken, goodbye) = (End::Broken("reset".into()), End::Goodbye("restart".into()));
        let moment = Some(Duration::from_millis(5));
        assert!(ended_well(Some(HELD), &broken));
        assert!(ended_well(moment, &goodbye));
        assert!(!ended_well(moment, &broken));
        // Never welcomed, however long it took to find that out, and whatever was said.
        assert!(!ended_well(None, &broken) && !ended_well(None, &goodbye));
    }
}

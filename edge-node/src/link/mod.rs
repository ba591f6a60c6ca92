//! The node's line to its coordinator.
//!
//! [`Line`] keeps it: it connects, shows who the node is, stores the new ticket, hands out orders, and after every failure
//! comes back, for ever. [`Link`] uses it: any number of tasks fetch, submit and report through clones of one handle, wait
//! while the line is down, and go on where a transfer broke off.
//!
//! Orders are levels, not edges: after each connection the coordinator says again what it wants, so nothing is lost with a
//! line, and the node needs no inbox on disk.

mod backoff;
mod fetch;
mod line;
mod submit;
#[cfg(test)]
mod tests;
mod tls;

use rand_chacha::ChaCha8Rng;
use sapwood_failpoint::Killed;
use sapwood_proto::{
    MAX_MESSAGE, convert,
    v1::{self, node_client::NodeClient},
};
use sapwood_protocol::{
    Fault, RunId, SessionId,
    rollout::{Assignment, NodeStatus},
    round::{Decline, Receipt},
};
use tokio::sync::watch;
use tonic::{Status, transport::Channel};

pub use self::{
    backoff::{Backoff, Policy},
    fetch::Size,
    line::{Line, RoundOrder},
    submit::{Heard, Submission},
    tls::{Credentials, LinkError, channel},
};

/// The newest word about what the node runs: each change goes to the coordinator, the newest with each connection.
pub type Reporter = watch::Sender<NodeStatus>;
/// The newest order for the agent, repeated by the coordinator after each connection.
pub type Assignments = watch::Receiver<Option<Assignment>>;

pub(crate) type Client = NodeClient<Channel>;

/// Why a call to the coordinator came to nothing. Broken lines are not among the reasons: those are waited for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The node stops.
    #[error("the node is stopping")]
    Closed,
    /// The coordinator says no, for good.
    #[error("the coordinator refused: {message}")]
    Refused {
        /// The kind of refusal.
        code: tonic::Code,
        /// In its words.
        message: String,
    },
    /// What came breaks the protocol.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The local disk refuses, often because it is full.
    #[error("{} cannot be written", path.display())]
    Disk {
        /// Which file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// In a simulation only.
    #[error(transparent)]
    Killed(#[from] Killed),
}

/// A failure of one try.
enum Broken {
    /// Try again: the line broke, or the coordinator is busy.
    Line(Status),
    /// Do not.
    Call(CallError),
}

impl<E: Into<CallError>> From<E> for Broken {
    fn from(error: E) -> Self {
        Self::Call(error.into())
    }
}

fn broken(status: Status) -> Broken {
    // A status with a source was made on this side of a broken line; one without came from the coordinator.
    if convert::may_retry(&status) || std::error::Error::source(&status).is_some() {
        Broken::Line(status)
    } else {
        Broken::Call(CallError::Refused { code: status.code(), message: status.message().to_owned() })
    }
}

/// A handle on the line; cheap to clone.
#[derive(Clone)]
pub struct Link {
    current: watch::Receiver<Option<Client>>,
}

impl Link {
    /// A handle, and the sender with which [`Line`] says what the current connection is.
    pub(crate) fn new() -> (watch::Sender<Option<Client>>, Self) {
        let (sender, current) = watch::channel(None);
        (sender, Self { current })
    }

    /// Says that the node cannot take part in an attempt.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn decline(&self, run: &RunId, session: SessionId, reason: &Decline) -> Result<Receipt, CallError> {
        let request =
            v1::DeclineRequest { run: run.to_string(), session: session.as_bytes().to_vec().into(), reason: convert::to_json(reason) };
        let mut tries = self.tries();
        loop {
            match tries.client().await?.decline(request.clone()).await {
                Ok(reply) => return Ok(convert::from_json("receipt", &reply.into_inner().outcome)?),
                Err(status) => tries.again(broken(status)).await?,
            }
        }
    }

    /// Asks for a certificate.
    pub(crate) async fn renew(&self, request: v1::RenewRequest) -> Result<v1::RenewReply, CallError> {
        let mut tries = self.tries();
        loop {
            match tries.client().await?.renew(request.clone()).await {
                Ok(reply) => return Ok(reply.into_inner()),
                Err(status) => tries.again(broken(status)).await?,
            }
        }
    }

    /// A call that will be tried until it works or is refused for good.
    fn tries(&self) -> Tries<'_> {
        Tries { link: self, backoff: Backoff::fresh() }
    }
}

/// The tries of one call.
struct Tries<'a> {
    link: &'a Link,
    backoff: Backoff<ChaCha8Rng>,
}

impl Tries<'_> {
    /// Waits for a connection.
    async fn client(&self) -> Result<Client, CallError> {
        let mut current = self.link.current.clone();
        let client = current.wait_for(Option::is_some).await.map_err(|_| CallError::Closed)?.clone();
        client.ok_or(CallError::Closed)
    }

    /// Waits before the next try; or hands up what no further try would mend.
    async fn again(&mut self, broken: Broken) -> Result<(), CallError> {
        match broken {
            Broken::Call(error) => Err(error),
            Broken::Line(status) => {
                tracing::debug!(code = ?status.code(), why = status.message(), "the line broke; trying again");
                tokio::time::sleep(self.backoff.next(Policy::RECONNECT)).await;
                Ok(())
            }
        }
    }
}

/// A client with our bounds on what the coordinator may send.
fn bounded(channel: Channel) -> Client {
    NodeClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

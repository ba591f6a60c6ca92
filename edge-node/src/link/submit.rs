//! An update on its way: chunks from where the coordinator has it already, until the receipt is back.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use sapwood_failpoint::{self as failpoint, Hook, Killed};
use sapwood_proto::{CHUNK, convert, v1};
use sapwood_protocol::{
    Digest, RunId, SessionId,
    fault::Misbehaviour,
    round::{Receipt, Stage},
};

use super::{Broken, CallError, Client, Link, broken};
use crate::points::SUBMITTING;

/// An encoded update for one attempt; clones share the bytes.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Which run.
    pub run: RunId,
    /// Which attempt.
    pub session: SessionId,
    /// Digest of `bytes`.
    pub digest: Digest,
    /// The encoded update.
    pub bytes: Bytes,
}

impl Link {
    /// Sends an update and waits for the receipt, over as many connections as it takes.
    ///
    /// # Errors
    /// [`CallError::Refused`] if the coordinator does not want it, which is so when the attempt is over.
    pub async fn submit(&self, submission: &Submission) -> Result<Receipt, CallError> {
        let mut tries = self.tries();
        loop {
            match submission.send(&mut tries.client().await?).await {
                Ok(receipt) => return Ok(receipt),
                Err(broken) => tries.again(broken).await?,
            }
        }
    }
}

/// What the coordinator says in a secure sum.
#[derive(Clone, Debug)]
pub enum Heard {
    /// The message of the next stage.
    Message(Bytes),
    /// Nothing follows.
    Receipt(Receipt),
}

impl Link {
    /// Hands over this node's message of a stage of the secure sum, and waits for what comes next, over as many connections as it
    /// takes: the same bytes again are answered again.
    ///
    /// # Errors
    /// As [`Link::submit`].
    pub async fn exchange(&self, run: &RunId, session: SessionId, stage: Stage, message: Bytes) -> Result<Heard, CallError> {
        let session = session.as_bytes().to_vec().into();
        let request = v1::ExchangeRequest { run: run.to_string(), session, stage: stage.number(), message };
        let mut tries = self.tries();
        loop {
            match tries.client().await?.exchange(request.clone()).await {
                Ok(reply) => {
                    let v1::ExchangeReply { message, outcome } = reply.into_inner();
                    return Ok(if outcome.is_empty() {
                        Heard::Message(message)
                    } else {
                        Heard::Receipt(convert::from_json("receipt", &outcome)?)
                    });
                }
                Err(status) => tries.again(broken(status)).await?,
            }
        }
    }
}

impl Submission {
    async fn send(&self, client: &mut Client) -> Result<Receipt, Broken> {
        let key = v1::UploadKey { session: self.session.as_bytes().to_vec().into(), digest: self.digest.as_bytes().to_vec().into() };
        let offset = client.upload_status(key.clone()).await.map_err(broken)?.into_inner().received;
        let offset = usize::try_from(offset).ok().filter(|offset| *offset <= self.bytes.len());
        let offset = offset.ok_or_else(|| {
            let why = "more has arrived than was sent".to_owned();
            CallError::Fault(Misbehaviour::Malformed { what: "the upload's offset", why }.into())
        })?;

        let header = v1::SubmitHeader { run: self.run.to_string(), key: Some(key), total: self.bytes.len() as u64, offset: offset as u64 };
        let killed = Arc::new(OnceLock::new());
        let reply = client.submit(tokio_stream::iter(self.parts(header, offset, killed.clone()))).await;
        if let Some(killed) = killed.get() {
            return Err(Killed::clone(killed).into());
        }
        let reply = reply.map_err(broken)?;
        Ok(convert::from_json("receipt", &reply.into_inner().outcome)?)
    }

    /// The stream: its header, then slices of the one buffer, taken as the connection has room for them.
    fn parts(
        &self,
        header: v1::SubmitHeader,
        offset: usize,
        killed: Arc<OnceLock<Killed>>,
    ) -> impl Iterator<Item = v1::SubmitRequest> + Send + use<> {
        use v1::submit_request::Part;
        let bytes = self.bytes.clone();
        let slices = (offset..bytes.len()).step_by(CHUNK).map(move |at| Part::Data(bytes.slice(at..bytes.len().min(at + CHUNK))));
        let parts = std::iter::once(Part::Header(header)).chain(slices);
        // The connection takes the parts in a task of its own, which knows nothing of the hook of this one.
        let hook = failpoint::current();
        parts
            .enumerate()
            .map_while(move |(n, part)| {
                let _guard = hook.as_ref().map(Hook::install);
                match if n == 1 { SUBMITTING.reached() } else { Ok(()) } {
                    Ok(()) => Some(part),
                    Err(death) => {
                        let _ = killed.set(death);
                        None
                    }
                }
            })
            .map(|part| v1::SubmitRequest { part: Some(part) })
    }
}

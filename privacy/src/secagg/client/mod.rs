//! A participant: four waits, each a type of its own that holds only what is still needed.
//!
//! ```text
//!  begin ──▶ Advertised ──Introduction──▶ Shared ──Delivery──▶ Ready ──vector──▶ Masked ──Survivors──▶ Agreed ──Consistency──▶ Done
//!             c_sk, s_sk                  b_i, pair seeds       + shares          shares               one share a peer      the answer
//! ```
//!
//! A step ends its state, so a secret that is not in the next state is wiped. It is wiped where it lies: a secret that moved out of a
//! box or a list would leave a copy behind, so a step copies what the next state needs, and then the old one is dropped whole.
//! [`Client`] holds whichever state it is.

mod advertised;
mod agreed;
mod masked;
mod ready;
mod shared;

use std::fmt;

use zeroize::Zeroizing;

use super::{
    Fault,
    message::{Consistency, Delivery, Introduction, Message, Survivors, name, peek},
    terms::{IdentityKey, Policy, Random, Signer, Terms, sha256},
};
use advertised::Advertised;
use agreed::Agreed;
use masked::Masked;
use ready::Ready;
use shared::Shared;

/// What a client's steps may use besides its state.
pub struct Cx<'a> {
    /// Signs under this participant's enrolled identity.
    pub signer: &'a dyn Signer,
    /// Whether the context proves that the identity may take part, such as by the enrolment authority's word.
    pub vouch: &'a dyn Fn(&IdentityKey, &[u8]) -> bool,
    /// Draws keys and polynomials.
    pub random: &'a mut dyn Random,
}

/// What follows from a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Send this back.
    Send(Vec<u8>),
    /// The vector is wanted: call [`Client::mask`] when it is there.
    WantsVector,
}

/// One participant in one session. It lives in memory only: who crashes has no part in the session any more, and a secret is
/// never used twice.
///
/// The same message again gets the same bytes again. Any refusal but a harmless one ([`Fault::harmless`]) ends the session and
/// wipes what is left of its secrets.
#[cfg_attr(test, derive(Clone))]
pub struct Client {
    terms: Terms,
    state: State,
    /// Kind and digest of the message answered last, and the answer.
    last: Option<(u8, [u8; 32], Answer)>,
}

#[cfg_attr(test, derive(Clone))]
enum State {
    Advertised(Box<Advertised>),
    Shared(Box<Shared>),
    Ready(Box<Ready>),
    Masked(Box<Masked>),
    Agreed(Box<Agreed>),
    Done,
    Over,
}

/// As [`Reply`], kept to be given again.
#[derive(Clone)]
enum Answer {
    Bytes(Zeroizing<Vec<u8>>),
    WantsVector,
}

impl Answer {
    fn bytes(bytes: Vec<u8>) -> Self {
        Self::Bytes(Zeroizing::new(bytes))
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Bytes(mut bytes) => Self::Send(std::mem::take(&mut bytes)),
            Answer::WantsVector => Self::WantsVector,
        }
    }
}

impl Client {
    /// R0: draws the keys of this session and signs them. Gives the first message to send.
    ///
    /// # Errors
    /// [`Fault::Policy`] if the terms ask for less than `policy`; [`Fault::Malformed`] for a context beyond
    /// [`super::message::MAX_CONTEXT`].
    pub fn begin(terms: Terms, policy: &Policy, context: Vec<u8>, cx: &mut Cx<'_>) -> Result<(Self, Vec<u8>), Fault> {
        policy.check(&terms)?;
        let (state, advertise) = Advertised::new(&terms, context, cx)?;
        let bytes = advertise.encode(&terms.session);
        Ok((Self { terms, state: State::Advertised(Box::new(state)), last: None }, bytes))
    }

    /// Takes a message of the server.
    ///
    /// # Errors
    /// By name. Whatever is not [`Fault::harmless`] has ended the session.
    pub fn receive(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Reply, Fault> {
        if matches!(self.state, State::Over) {
            return Err(Fault::Over);
        }
        let taken = self.take(bytes, cx);
        if taken.as_ref().is_err_and(|fault| !fault.harmless()) {
            self.abort();
        }
        taken
    }

    /// R2: adds the masks to `lanes`, elements below 2^b, on up to `threads` cores. Gives the packed vector to send; the
    /// caller keeps it until the server has it.
    ///
    /// # Errors
    /// [`Fault::OutOfTurn`] if no vector is wanted; [`Fault::Vector`] for a wrong length or element: call again with a
    /// right one.
    pub fn mask(&mut self, lanes: Vec<u32>, threads: usize) -> Result<Vec<u8>, Fault> {
        // Wiped if it is refused.
        let mut lanes = Zeroizing::new(lanes);
        let State::Ready(ready) = &self.state else {
            return Err(if self.is_over() { Fault::Over } else { Fault::OutOfTurn { message: "a vector" } });
        };
        ready.check(&self.terms, &lanes)?;
        let State::Ready(ready) = std::mem::replace(&mut self.state, State::Over) else { unreachable!("it was looked at above") };
        let (masked, packed) = ready.mask(&self.terms, std::mem::take(&mut lanes), threads);
        self.state = State::Masked(Box::new(masked));
        Ok(packed)
    }

    /// Gives the session up and wipes its secrets.
    pub fn abort(&mut self) {
        self.state = State::Over;
        self.last = None;
    }
    /// Whether it ended without an answer, and nothing is left of its secrets.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }
    /// Whether it gave its unmasking shares: nothing more will be asked of it.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }
    /// What was agreed.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    fn take(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Reply, Fault> {
        let (kind, session) = peek(bytes)?;
        if session != self.terms.session {
            return Err(Fault::WrongSession);
        }
        let digest = sha256(&[bytes]);
        if let Some((last, of, answer)) = &self.last
            && *last == kind
        {
            let again = *of == digest;
            return if again { Ok(answer.clone().into()) } else { Err(Fault::Contradiction { message: name(kind) }) };
        }
        let answer = self.step(kind, bytes, cx)?;
        self.last = Some((kind, digest, answer.clone()));
        Ok(answer.into())
    }

    fn step(&mut self, kind: u8, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Answer, Fault> {
        let terms = &self.terms;
        let session = &terms.session;
        // A message for another state leaves this one as it is.
        let state = std::mem::replace(&mut self.state, State::Over);
        let (next, answer) = match (state, kind) {
            (State::Advertised(state), Introduction::KIND) => {
                let (next, message) = state.share(terms, Introduction::decode(session, bytes)?, cx)?;
                (State::Shared(Box::new(next)), Answer::bytes(message.encode(session)))
            }
            (State::Shared(state), Delivery::KIND) => {
                let next = state.open(terms, &Delivery::decode(session, bytes)?)?;
                (State::Ready(Box::new(next)), Answer::WantsVector)
            }
            (State::Masked(state), Survivors::KIND) => {
                let (next, message) = state.agree(terms, Survivors::decode(session, bytes)?, cx.signer)?;
                (State::Agreed(Box::new(next)), Answer::bytes(message.encode(session)))
            }
            (State::Agreed(state), Consistency::KIND) => {
                let message = state.unmask(&Consistency::decode(session, bytes)?)?;
                (State::Done, Answer::bytes(message.encode(session)))
            }
            (state, _) => {
                self.state = state;
                return Err(Fault::OutOfTurn { message: name(kind) });
            }
        };
        self.state = next;
        Ok(answer)
    }
}

impl fmt::Debug for Client {
    /// The state by name. Secrets never print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Advertised(_) => "advertised",
            State::Shared(_) => "shared",
            State::Ready(_) => "ready",
            State::Masked(_) => "masked",
            State::Agreed(_) => "agreed",
            State::Done => "done",
            State::Over => "over",
        };
        write!(f, "Client({:?}, {state})", self.terms.session)
    }
}

#[cfg(test)]
#[path = "../tests/client.rs"]
mod tests;

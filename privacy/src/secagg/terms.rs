//! What everybody in a session must agree on, and who they are.

use std::{fmt, num::NonZeroU32};

use ring::{
    digest::{Context, SHA256},
    signature::{ED25519, UnparsedPublicKey},
};

use super::{
    Fault,
    codec::{Reader, Writer},
    mask::Suite,
    message::Malformed,
    plan::{Plan, Profile, Rate},
};
use crate::Bits;

/// `sid`: 32 bytes, random, of one attempt at one sum. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Session(pub [u8; 32]);

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_fold((), |(), byte| write!(f, "{byte:02x}"))
    }
}

/// An Ed25519 identity. What it is the identity *of* is the caller's matter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityKey(pub [u8; 32]);

impl IdentityKey {
    /// Whether `signature` is this identity's, of `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_fold((), |(), byte| write!(f, "{byte:02x}"))
    }
}

/// Signs as the participant. The private key stays with the caller.
pub trait Signer {
    /// The public half.
    fn identity(&self) -> IdentityKey;
    /// An Ed25519 signature (RFC 8032).
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

/// A source of bytes that nobody else can know. Never seeded in production, never replayed.
pub trait Random {
    /// Fills `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}

impl<F: FnMut(&mut [u8])> Random for F {
    fn fill(&mut self, bytes: &mut [u8]) {
        self(bytes);
    }
}

/// The parameters of a session. Every participant signs their hash together with its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Which attempt.
    pub session: Session,
    /// Which round of the run.
    pub round: u64,
    /// Fewest vectors in a sum that may be opened.
    pub minimum: u32,
    /// δ: the share of participants who may leave without costing the round.
    pub dropout: Rate,
    /// γ: the share who may work together with the server. At least one always does.
    pub corruption: Rate,
    /// What the server may do.
    pub profile: Profile,
    /// Width of an element.
    pub bits: Bits,
    /// Elements of a vector.
    pub length: NonZeroU32,
    /// How masks are drawn.
    pub suite: Suite,
    /// Digest of all else that must agree: clip norm, grid, noise, model, run.
    pub context: [u8; 32],
}

impl Terms {
    /// The degree, threshold and fewest survivors for `n` participants.
    ///
    /// # Errors
    /// [`super::Infeasible`], by name.
    pub fn plan(&self, n: u32) -> Result<Plan, Fault> {
        Ok(Plan::new(n, self.dropout, self.corruption, self.profile, self.minimum)?)
    }
    /// `params_hash`: SHA-256 of the canonical bytes.
    pub fn hash(&self) -> [u8; 32] {
        sha256(&[b"fl/secagg/v1/params", &self.encode()])
    }
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        Writer::default()
            .raw(&self.session.0)
            .u64(self.round)
            .u32(self.minimum)
            .u32(self.dropout.ppm())
            .u32(self.corruption.ppm())
            .u8(self.profile.code())
            .u8(self.bits.get())
            .u32(self.length.get())
            .u8(self.suite.code())
            .raw(&self.context)
            .finish()
    }
    /// # Errors
    /// [`Malformed`] unless `bytes` are exactly what [`Terms::encode`] gives.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let refuse = |what| Malformed::Value { what };
        let terms = Self {
            session: Session(reader.array()?),
            round: reader.u64()?,
            minimum: reader.u32()?,
            dropout: Rate::from_ppm(reader.u32()?).ok_or(refuse("the dropout rate"))?,
            corruption: Rate::from_ppm(reader.u32()?).ok_or(refuse("the corruption rate"))?,
            profile: Profile::from_code(reader.u8()?).ok_or(refuse("the profile"))?,
            bits: Bits::new(reader.u8()?).map_err(|_| refuse("the width of an element"))?,
            length: NonZeroU32::new(reader.u32()?).ok_or(refuse("the length of a vector"))?,
            suite: Suite::from_code(reader.u8()?).ok_or(refuse("the mask suite"))?,
            context: reader.array()?,
        };
        reader.end()?;
        Ok(terms)
    }
}

/// What the operator of a node insists on, whatever the terms say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Fewest vectors in a sum.
    pub minimum: u32,
    /// Share of colluders to be assumed.
    pub corruption: Rate,
    /// The server must be withstood at least so far.
    pub profile: Profile,
}

impl Policy {
    /// # Errors
    /// [`Fault::Policy`] for the first part of `terms` that asks for less.
    pub fn check(&self, terms: &Terms) -> Result<(), Fault> {
        let parts: [(&str, u64, u64); 3] = [
            ("the minimum cohort", terms.minimum.into(), self.minimum.into()),
            ("the assumed corruption in parts per million", terms.corruption.ppm().into(), self.corruption.ppm().into()),
            ("the profile", terms.profile.code().into(), self.profile.code().into()),
        ];
        match parts.into_iter().find(|(_, offered, required)| offered < required) {
            None => Ok(()),
            Some((what, offered, required)) => Err(Fault::Policy { what, offered, required }),
        }
    }
}

/// SHA-256 of the parts, one after the other. All parts but the last must have a fixed length, or carry theirs.
pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

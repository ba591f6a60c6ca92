//! The messages R0 to R4, and their one encoding: it is what is signed, hashed and sent.
//!
//! Every message begins `kind ‖ version ‖ session`. Numbers are little-endian, lists are counted and bounded, nothing may
//! stand behind the end. The masked input of R2 has no header: it is the packed vector ([`crate::wire`]), which may come in
//! pieces.
//!
//! | round | client to server | server to client |
//! |---|---|---|
//! | R0 | [`Advertise`] | |
//! | R1 | [`ShareKeys`] | [`Introduction`] |
//! | R2 | the masked vector | [`Delivery`] |
//! | R3 | [`Alive`] | [`Survivors`] |
//! | R4 | [`Unmask`] | [`Consistency`] |

use thiserror::Error;

use super::{
    Fault,
    codec::{Reader, Writer},
    plan::MAX_PARTICIPANTS,
    set::RankSet,
    shamir::{SHARE_BYTES, Share},
    terms::{IdentityKey, Session, Terms, sha256},
};

/// Version of the encoding.
const VERSION: u8 = 1;
/// Most bytes of a participant's context.
pub const MAX_CONTEXT: u32 = 4096;
/// Two shares and a tag.
pub const ENVELOPE_BYTES: usize = 2 * SHARE_BYTES + 16;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// They end too early.
    #[error("it ends too early")]
    Short,
    /// They go on behind the end.
    #[error("{bytes} bytes behind its end")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// Another kind of message, or none.
    #[error("not a {expected}")]
    Kind {
        /// What was expected.
        expected: &'static str,
    },
    /// A list beyond its bound.
    #[error("a list of {count}, at most {most} are possible")]
    TooLong {
        /// As written.
        count: u32,
        /// The bound.
        most: u32,
    },
    /// A field that cannot be.
    #[error("{what} is not a possible value")]
    Value {
        /// Which field.
        what: &'static str,
    },
}

/// One kind of message.
pub trait Message: Sized {
    /// First byte.
    const KIND: u8;
    /// In words.
    const NAME: &'static str;
    #[doc(hidden)]
    fn write(&self, writer: Sink) -> Sink;
    #[doc(hidden)]
    fn read(reader: &mut Source<'_>) -> Result<Self, Malformed>;

    /// The canonical bytes.
    fn encode(&self, session: &Session) -> Vec<u8> {
        self.write(Sink(Writer::default().u8(Self::KIND).u8(VERSION).raw(&session.0))).0.finish()
    }
    /// # Errors
    /// [`Fault::Malformed`] unless `bytes` are exactly what [`Message::encode`] gives; [`Fault::WrongSession`].
    fn decode(session: &Session, bytes: &[u8]) -> Result<Self, Fault> {
        let mut source = Source(Reader::new(bytes));
        let header = (source.0.u8()?, source.0.u8()?);
        if header != (Self::KIND, VERSION) {
            return Err(Malformed::Kind { expected: Self::NAME }.into());
        }
        if source.0.array()? != session.0 {
            return Err(Fault::WrongSession);
        }
        let message = Self::read(&mut source)?;
        source.0.end()?;
        Ok(message)
    }
}

/// Where a message is written to.
pub struct Sink(Writer);
/// Where a message is read from.
pub struct Source<'a>(Reader<'a>);

/// Which message it is and of which session, without reading on.
pub(super) fn peek(bytes: &[u8]) -> Result<(u8, Session), Malformed> {
    let mut reader = Reader::new(bytes);
    let kind = reader.u8()?;
    if reader.u8()? != VERSION {
        return Err(Malformed::Value { what: "the version" });
    }
    Ok((kind, Session(reader.array()?)))
}

/// What a kind of message is called.
pub(super) fn name(kind: u8) -> &'static str {
    match kind {
        Advertise::KIND => Advertise::NAME,
        ShareKeys::KIND => ShareKeys::NAME,
        Alive::KIND => Alive::NAME,
        Unmask::KIND => Unmask::NAME,
        Introduction::KIND => Introduction::NAME,
        Delivery::KIND => Delivery::NAME,
        Survivors::KIND => Survivors::NAME,
        Consistency::KIND => Consistency::NAME,
        _ => "message of no known kind",
    }
}

/// R0: a participant's keys of this session, signed by its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// Who.
    pub identity: IdentityKey,
    /// [`Terms::hash`] of what it agrees to.
    pub terms: [u8; 32],
    /// c_pk: X25519, for envelopes.
    pub channel_key: [u8; 32],
    /// s_pk: X25519, for masks.
    pub mask_key: [u8; 32],
    /// Its part of the randomness of the neighbour graph.
    pub nonce: [u8; 32],
    /// What the caller wants the neighbours to see, such as the enrolment authority's word.
    pub context: Vec<u8>,
    /// Ed25519.
    pub signature: [u8; 64],
}

impl Advertise {
    /// What the signature is of.
    pub fn signed_bytes(&self, terms: &Terms) -> Vec<u8> {
        Writer::default()
            .raw(b"fl/secagg/v1/adv")
            .raw(&terms.session.0)
            .u64(terms.round)
            .raw(&self.terms)
            .raw(&self.identity.0)
            .raw(&self.channel_key)
            .raw(&self.mask_key)
            .raw(&self.nonce)
            .bytes(&self.context)
            .finish()
    }
    /// What the roll commits to.
    pub fn digest(&self) -> [u8; 32] {
        sha256(&[b"fl/secagg/v1/leaf", &self.put(Writer::default()).finish()])
    }
    fn put(&self, writer: Writer) -> Writer {
        writer
            .raw(&self.identity.0)
            .raw(&self.terms)
            .raw(&self.channel_key)
            .raw(&self.mask_key)
            .raw(&self.nonce)
            .bytes(&self.context)
            .raw(&self.signature)
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            identity: IdentityKey(reader.array()?),
            terms: reader.array()?,
            channel_key: reader.array()?,
            mask_key: reader.array()?,
            nonce: reader.array()?,
            context: reader.bytes(MAX_CONTEXT)?.to_vec(),
            signature: reader.array()?,
        })
    }
}

impl Message for Advertise {
    const KIND: u8 = 1;
    const NAME: &'static str = "key advertisement";
    fn write(&self, sink: Sink) -> Sink {
        Sink(self.put(sink.0))
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Malformed> {
        Self::take(&mut source.0)
    }
}

/// All who advertised keys, in the order of their ranks, and the plan that follows from their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roll {
    /// k.
    pub degree: u32,
    /// t.
    pub threshold: u32,
    /// Identity and [`Advertise::digest`] of each.
    pub entries: Vec<(IdentityKey, [u8; 32])>,
}

impl Roll {
    /// What everything later in the session is bound to.
    pub fn digest(&self, terms: &Terms) -> [u8; 32] {
        sha256(&[b"fl/secagg/v1/roll", &terms.session.0, &terms.hash(), &self.put(Writer::default()).finish()])
    }
    fn put(&self, writer: Writer) -> Writer {
        let head = writer.u32(self.degree).u32(self.threshold);
        head.list(&self.entries, |writer, (identity, digest)| writer.raw(&identity.0).raw(digest))
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            degree: reader.u32()?,
            threshold: reader.u32()?,
            entries: reader.list(MAX_PARTICIPANTS, 64, |reader| Ok((IdentityKey(reader.array()?), reader.array()?)))?,
        })
    }
}

/// R1, to a client: the roll, and what its neighbours advertised, in the order of their ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// The same for everybody.
    pub roll: Roll,
    /// k of them.
    pub peers: Vec<Advertise>,
}

impl Message for Introduction {
    const KIND: u8 = 11;
    const NAME: &'static str = "introduction";
    fn write(&self, sink: Sink) -> Sink {
        Sink(self.roll.put(sink.0).list(&self.peers, |writer, peer| peer.put(writer)))
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Malformed> {
        let roll = Roll::take(&mut source.0)?;
        Ok(Self { roll, peers: source.0.list(MAX_PARTICIPANTS, 5 * 32 + 4 + 64, Advertise::take)? })
    }
}

/// What a client sends to one neighbour, through the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dealt {
    /// AES-256-GCM of a share of the mask key and one of the own-mask seed.
    pub envelope: [u8; ENVELOPE_BYTES],
    /// Commitments to the share of the mask key and to the share of the seed.
    pub commitments: [[u8; 32]; 2],
}

/// R1, to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareKeys {
    /// H(b_i).
    pub seed_commitment: [u8; 32],
    /// One for each neighbour, in the order of their ranks.
    pub dealt: Vec<Dealt>,
}

impl Message for ShareKeys {
    const KIND: u8 = 2;
    const NAME: &'static str = "list of shares";
    fn write(&self, sink: Sink) -> Sink {
        Sink(
            sink.0
                .raw(&self.seed_commitment)
                .list(&self.dealt, |writer, dealt| writer.raw(&dealt.envelope).raw(&dealt.commitments[0]).raw(&dealt.commitments[1])),
        )
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            seed_commitment: source.0.array()?,
            dealt: source.0.list(MAX_PARTICIPANTS, ENVELOPE_BYTES + 64, |reader| {
                Ok(Dealt { envelope: reader.array()?, commitments: [reader.array()?, reader.array()?] })
            })?,
        })
    }
}

/// R2, to a client: who dealt shares, and the envelopes for this client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// U2.
    pub sharers: RankSet,
    /// Of each neighbour in U2, in the order of their ranks.
    pub envelopes: Vec<[u8; ENVELOPE_BYTES]>,
}

impl Message for Delivery {
    const KIND: u8 = 12;
    const NAME: &'static str = "delivery of shares";
    fn write(&self, sink: Sink) -> Sink {
        Sink(self.sharers.write(sink.0).list(&self.envelopes, |writer, envelope| writer.raw(envelope)))
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Malformed> {
        let sharers = RankSet::read(&mut source.0)?;
        Ok(Self { sharers, envelopes: source.0.list(MAX_PARTICIPANTS, ENVELOPE_BYTES, Reader::array)? })
    }
}

/// R3, to a client: whose vectors are in the sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivors {
    /// U3.
    pub survivors: RankSet,
}

impl Survivors {
    /// What a client signs once in a session.
    pub fn signed_bytes(&self, session: &Session, roll: &[u8; 32]) -> Vec<u8> {
        self.survivors.write(Writer::default().raw(b"fl/secagg/v1/alive").raw(&session.0).raw(roll)).finish()
    }
}

impl Message for Survivors {
    const KIND: u8 = 13;
    const NAME: &'static str = "list of survivors";
    fn write(&self, sink: Sink) -> Sink {
        Sink(self.survivors.write(sink.0))
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Malformed> {
        Ok(Self { survivors: RankSet::read(&mut source.0)? })
    }
}

/// R3, to the server: which survivors this client was told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alive {
    /// Ed25519, of [`Survivors::signed_bytes`].
    pub signature: [u8; 64],
}

impl Message for Alive {
    const KIND: u8 = 3;
    const NAME: &'static str = "signature of the survivors";
    fn write(&self, sink: Sink) -> Sink {
        Sink(sink.0.raw(&self.signature))
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Malformed> {
        Ok(Self { signature: source.0.array()? })
    }
}

/// R4, to a client: what its neighbours signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consistency {
    /// Rank and signature, in ascending order.
    pub signatures: Vec<(u32, [u8; 64])>,
}

impl Message for Consistency {
    const KIND: u8 = 14;
    const NAME: &'static str = "proof of consistency";
    fn write(&self, sink: Sink) -> Sink {
        Sink(sink.0.list(&self.signatures, |writer, (rank, signature)| writer.u32(*rank).raw(signature)))
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Malformed> {
        Ok(Self { signatures: source.0.list(MAX_PARTICIPANTS, 68, |reader| Ok((reader.u32()?, reader.array()?)))? })
    }
}

/// R4, to the server: for each neighbour in U2, in the order of their ranks, a share of its own-mask seed if it survived and
/// of its mask key if not; nothing where the envelope could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmask {
    /// As said.
    pub shares: Vec<Option<Share>>,
}

impl Message for Unmask {
    const KIND: u8 = 4;
    const NAME: &'static str = "list of unmasking shares";
    fn write(&self, sink: Sink) -> Sink {
        // Shares are the one secret that a message holds in clear.
        let writer = sink.0.room(4 + self.shares.len() * (1 + SHARE_BYTES));
        Sink(writer.list(&self.shares, |writer, share| match share {
            None => writer.u8(0),
            Some(share) => writer.u8(1).raw(share.to_bytes().as_slice()),
        }))
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Malformed> {
        let shares = source.0.list(MAX_PARTICIPANTS, 1, |reader| match reader.u8()? {
            0 => Ok(None),
            1 => Share::from_bytes(&reader.array()?).map(Some),
            _ => Err(Malformed::Value { what: "the mark of a share" }),
        })?;
        Ok(Self { shares })
    }
}

#[cfg(test)]
#[path = "tests/message.rs"]
mod tests;

//! The sum of an attempt's updates, and the global parameters that it makes.

use std::io::{self, Read, Write};

use sapwood_privacy::{Accumulator, dp::NoiseSeed};
use sapwood_protocol::{
    Digest, Fault, Hasher, Secrets, SessionId,
    round::{Complaint, SecureSession, Terms, Totals},
};
use thiserror::Error;

use crate::objects::{ObjectError, Objects};

/// Bytes converted at a time.
const CHUNK: usize = 256 * 1024;

/// The running sum of one attempt's updates in clear.
pub struct Sum {
    terms: Box<Terms>,
    accumulator: Accumulator,
    /// The first update that could not be added: the sum is worth nothing then.
    spoiled: Option<String>,
}

/// A sum that is complete, and nobody's masks are on it.
pub struct Opened {
    terms: Box<Terms>,
    accumulator: Accumulator,
}

/// Why a sum did not become parameters.
#[derive(Debug, Error)]
pub enum AggregateError {
    /// The sum is worth nothing.
    #[error("{0}")]
    Unusable(String),
    /// The parameters could not be read or stored.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

impl From<io::Error> for AggregateError {
    fn from(error: io::Error) -> Self {
        Self::Object(error.into())
    }
}

impl Sum {
    /// The empty sum.
    ///
    /// # Errors
    /// Terms that make no sense.
    pub fn new(terms: Box<Terms>) -> Result<Self, Fault> {
        let accumulator = terms.codec()?.accumulator(terms.dimension());
        Ok(Self { terms, accumulator, spoiled: None })
    }

    /// Of which attempt.
    pub fn session(&self) -> SessionId {
        self.terms.session
    }

    /// Adds an update as it came over the wire.
    pub fn add(&mut self, bytes: &[u8]) {
        if let Err(fault) = self.accumulator.add_packed(bytes) {
            self.spoiled.get_or_insert_with(|| fault.to_string());
        }
    }

    /// An update was accepted whose bytes are gone.
    pub fn spoil(&mut self, why: &str) {
        self.spoiled.get_or_insert_with(|| why.to_owned());
    }

    /// The sum, complete.
    ///
    /// # Errors
    /// [`AggregateError::Unusable`] if it is worth nothing.
    pub fn open(self) -> Result<Opened, AggregateError> {
        match self.spoiled {
            Some(why) => Err(AggregateError::Unusable(why)),
            None => Ok(Opened { terms: self.terms, accumulator: self.accumulator }),
        }
    }
}

impl Opened {
    /// Takes the masks off a secure sum, on up to `threads` cores.
    ///
    /// # Errors
    /// [`AggregateError::Unusable`], with who is to blame if that is known.
    pub fn unmask(terms: Box<Terms>, mut session: SecureSession, threads: usize) -> Result<Self, AggregateError> {
        let (accumulator, complaints) = session.open(threads).map_err(AggregateError::Unusable)?;
        for Complaint { by, of } in complaints {
            tracing::warn!(%by, %of, "a share that the one holds of the other's secret is of no use, by the fault of one of them; the sum was opened without it");
        }
        Ok(Self { terms, accumulator })
    }

    /// Adds `server_lr` times the mean to the parameters of the terms and stores the result. `secrets` draws the noise where the
    /// coordinator adds it.
    ///
    /// May be asked again after a [`AggregateError::Object`]. Holds the parameters once, besides the sum.
    pub fn commit(&self, objects: &Objects, server_lr: f64, secrets: &mut dyn Secrets) -> Result<(Digest, Totals), AggregateError> {
        let unusable = |fault: Fault| AggregateError::Unusable(fault.to_string());
        let codec = self.terms.codec().map_err(unusable)?;
        let mut parameters = read_parameters(objects, self.terms.params, self.terms.dimension())?;
        let noise = || {
            let Ok(seed) = NoiseSeed::draw(|seed| {
                secrets.fill(seed);
                Ok::<(), std::convert::Infallible>(())
            });
            seed
        };
        let totals = codec.add_to(&self.terms, &self.accumulator, &mut parameters, server_lr, noise).map_err(unusable)?;
        Ok((write_parameters(objects, &parameters)?, totals))
    }
}

/// `length` little-endian `f32` under `digest`, checked.
pub fn read_parameters(objects: &Objects, digest: Digest, length: usize) -> Result<Vec<f32>, ObjectError> {
    let (mut file, bytes) = objects.open_at(digest, 0)?;
    let expected = length as u64 * 4;
    if bytes != expected {
        return Err(ObjectError::Offset { digest, offset: expected, have: bytes, total: bytes });
    }
    let mut parameters = Vec::with_capacity(length);
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; CHUNK.min(length * 4)];
    while parameters.len() < length {
        let wanted = buffer.len().min((length - parameters.len()) * 4);
        file.read_exact(&mut buffer[..wanted])?;
        hasher.update(&buffer[..wanted]);
        parameters.extend(buffer[..wanted].as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
    }
    let actual = hasher.finish();
    if actual == digest { Ok(parameters) } else { Err(ObjectError::Digest { digest, actual }) }
}

/// Stores parameters as little-endian `f32`.
pub fn write_parameters(objects: &Objects, parameters: &[f32]) -> Result<Digest, ObjectError> {
    let mut writer = objects.writer()?;
    let mut buffer = Vec::with_capacity(CHUNK);
    for part in parameters.chunks(CHUNK / 4) {
        buffer.clear();
        buffer.extend(part.iter().flat_map(|parameter| parameter.to_le_bytes()));
        writer.write_all(&buffer)?;
    }
    writer.finish()
}

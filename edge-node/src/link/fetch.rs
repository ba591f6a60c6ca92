//! Objects by digest, streamed: hashed as they come, bounded by what was announced, gone on with where they broke off.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use sapwood_failpoint::Point;
use sapwood_proto::v1;
use sapwood_protocol::{Digest, Hasher, fault::Misbehaviour};
use tokio::{fs::File, io::AsyncWriteExt};
use tonic::Code;

use super::{Broken, CallError, Client, Link, broken};

/// How large an object may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Announced: anything else is a fault of the peer.
    Exactly(u64),
    /// Not announced: this node's own bound.
    AtMost(u64),
}

impl Size {
    fn allows(self, total: u64) -> bool {
        match self {
            Self::Exactly(size) => total == size,
            Self::AtMost(most) => total <= most,
        }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(size) => write!(f, "{size} bytes"),
            Self::AtMost(most) => write!(f, "at most {most} bytes"),
        }
    }
}

impl Link {
    /// Reads `length` little-endian `f32` straight into a vector: the bytes are never held a second time.
    ///
    /// # Errors
    /// [`CallError`]; a wrong digest or length is a [`sapwood_protocol::Fault`] of the peer.
    pub async fn fetch_floats(&self, digest: Digest, length: usize) -> Result<Vec<f32>, CallError> {
        let mut sink = Floats { values: Vec::with_capacity(length), partial: Vec::with_capacity(4) };
        self.fetch(digest, Size::Exactly(4 * length as u64), Hasher::default(), 0, &mut sink).await?;
        Ok(sink.values)
    }

    /// Reads a small object, such as a model or a manifest, into memory.
    ///
    /// # Errors
    /// As [`Link::fetch_floats`].
    pub async fn fetch_bytes(&self, digest: Digest, size: Size) -> Result<Vec<u8>, CallError> {
        let mut sink = Vec::new();
        self.fetch(digest, size, Hasher::default(), 0, &mut sink).await?;
        Ok(sink)
    }

    /// Reads an object into the file `path`, by way of `path` + `.part`, which a later call, in this process or the next,
    /// goes on with. When `path` is there it is whole, verified and on disk. After each chunk a test may kill the node at `point`.
    ///
    /// # Errors
    /// As [`Link::fetch_floats`], and [`CallError::Disk`] if the disk is full; what has arrived stays in the `.part` file.
    pub async fn fetch_file(&self, digest: Digest, size: Size, path: &Path, point: Option<Point>) -> Result<u64, CallError> {
        let part = part_of(path);
        let disk = |source| CallError::Disk { path: part.clone(), source };
        let (hasher, received) = tokio::task::spawn_blocking({
            let part = part.clone();
            move || hash_file(&part)
        })
        .await
        .map_err(|_| CallError::Closed)?
        .map_err(disk)?;
        let file = File::options().create(true).append(true).open(&part).await.map_err(disk)?;
        let mut sink = Part { file, path: part.clone(), point };
        let total = self.fetch(digest, size, hasher, received, &mut sink).await?;
        sink.file.sync_all().await.map_err(disk)?;
        drop(sink);
        std::fs::rename(&part, path).and_then(|()| crate::files::sync_folder_of(path)).map_err(disk)?;
        Ok(total)
    }

    /// Goes on until the whole object has come; `hasher` has seen the first `received` bytes.
    async fn fetch(&self, digest: Digest, size: Size, hasher: Hasher, received: u64, sink: &mut impl Sink) -> Result<u64, CallError> {
        let mut transfer = Transfer { digest, size, hasher, received, total: None, resumed: received > 0 };
        let mut tries = self.tries();
        loop {
            let before = transfer.received;
            let actual = match transfer.pull(&mut tries.client().await?, sink).await {
                Ok(()) => std::mem::take(&mut transfer.hasher).finish(),
                // More is here than the object has: it is not the object.
                Err(Broken::Call(CallError::Refused { code: Code::InvalidArgument | Code::OutOfRange, .. } | CallError::Fault(_)))
                    if transfer.resumed =>
                {
                    transfer.start_over(sink).await?;
                    continue;
                }
                Err(broken) => {
                    if transfer.received > before {
                        tries = self.tries();
                    }
                    tries.again(broken).await?;
                    continue;
                }
            };
            if actual == digest {
                return Ok(transfer.received);
            }
            if !transfer.resumed {
                return Err(CallError::Fault(Misbehaviour::Digest { what: "the object", expected: digest, actual }.into()));
            }
            transfer.start_over(sink).await?;
        }
    }
}

struct Transfer {
    digest: Digest,
    size: Size,
    hasher: Hasher,
    received: u64,
    total: Option<u64>,
    /// Some bytes come from an earlier try.
    resumed: bool,
}

impl Transfer {
    /// The older part may be what is wrong: a crash can leave a file of zeros.
    async fn start_over(&mut self, sink: &mut impl Sink) -> Result<(), CallError> {
        tracing::warn!(object = ?self.digest, "a resumed transfer does not match its digest; starting over");
        sink.restart().await?;
        *self = Self { digest: self.digest, size: self.size, hasher: Hasher::default(), received: 0, total: None, resumed: false };
        Ok(())
    }

    /// One stream, from where the last one ended.
    async fn pull(&mut self, client: &mut Client, sink: &mut impl Sink) -> Result<(), Broken> {
        self.resumed |= self.received > 0;
        let request = v1::FetchRequest { digest: self.digest.as_bytes().to_vec().into(), offset: self.received };
        let mut stream = client.fetch(request).await.map_err(broken)?.into_inner();
        let mut first = true;
        while let Some(chunk) = stream.message().await.map_err(broken)? {
            if first {
                self.announced(chunk.total)?;
                first = false;
            }
            let total = self.total.unwrap_or_default();
            let received = self.received + chunk.data.len() as u64;
            if received > total {
                return Err(malformed(format!("{received} bytes came, {total} were announced")).into());
            }
            self.hasher.update(&chunk.data);
            sink.put(chunk.data).await?;
            self.received = received;
        }
        match self.total {
            Some(total) if total == self.received => Ok(()),
            // The stream ended early, but in good order: a coordinator that goes away.
            _ => Err(Broken::Line(tonic::Status::unavailable("the stream ended early"))),
        }
    }

    fn announced(&mut self, total: u64) -> Result<(), CallError> {
        if !self.size.allows(total) {
            return Err(malformed(format!("it has {total} bytes, expected {}", self.size)));
        }
        if self.total.is_some_and(|known| known != total) {
            return Err(malformed("its length changed during the transfer".to_owned()));
        }
        if self.received > total {
            return Err(malformed(format!("{} bytes are here already, it has {total}", self.received)));
        }
        self.total = Some(total);
        Ok(())
    }
}

fn malformed(why: String) -> CallError {
    CallError::Fault(Misbehaviour::Malformed { what: "the object", why }.into())
}

/// Where an object goes.
trait Sink {
    async fn put(&mut self, bytes: Bytes) -> Result<(), CallError>;
    async fn restart(&mut self) -> Result<(), CallError>;
}

impl Sink for Vec<u8> {
    async fn put(&mut self, bytes: Bytes) -> Result<(), CallError> {
        self.extend_from_slice(&bytes);
        Ok(())
    }
    async fn restart(&mut self) -> Result<(), CallError> {
        self.clear();
        Ok(())
    }
}

struct Floats {
    values: Vec<f32>,
    /// At most three bytes of a float that a chunk's border cuts.
    partial: Vec<u8>,
}

impl Sink for Floats {
    async fn put(&mut self, bytes: Bytes) -> Result<(), CallError> {
        let mut bytes = &bytes[..];
        while !self.partial.is_empty() && !bytes.is_empty() {
            self.partial.push(bytes[0]);
            bytes = &bytes[1..];
            if let Ok(float) = <[u8; 4]>::try_from(&self.partial[..]) {
                self.values.push(f32::from_le_bytes(float));
                self.partial.clear();
            }
        }
        let (floats, rest) = bytes.as_chunks::<4>();
        self.values.extend(floats.iter().map(|float| f32::from_le_bytes(*float)));
        self.partial.extend_from_slice(rest);
        Ok(())
    }
    async fn restart(&mut self) -> Result<(), CallError> {
        self.values.clear();
        self.partial.clear();
        Ok(())
    }
}

struct Part {
    file: File,
    path: PathBuf,
    point: Option<Point>,
}

impl Sink for Part {
    async fn put(&mut self, bytes: Bytes) -> Result<(), CallError> {
        let disk = |source| CallError::Disk { path: self.path.clone(), source };
        self.file.write_all(&bytes).await.map_err(disk)?;
        // Without this a full disk would show only at the next chunk, after the bytes were counted as received.
        self.file.flush().await.map_err(disk)?;
        Ok(self.point.map_or(Ok(()), Point::reached)?)
    }
    async fn restart(&mut self) -> Result<(), CallError> {
        self.file.set_len(0).await.map_err(|source| CallError::Disk { path: self.path.clone(), source })
    }
}

#[cfg(test)]
pub(super) async fn write_to(path: &Path, bytes: &'static [u8]) -> Result<(), CallError> {
    let file = File::options().append(true).open(path).await.expect("a test's file");
    Part { file, path: path.to_owned(), point: None }.put(Bytes::from_static(bytes)).await
}

fn part_of(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

/// Hashes what an earlier transfer left.
fn hash_file(path: &Path) -> io::Result<(Hasher, u64)> {
    let mut hasher = Hasher::default();
    let mut file = match std::fs::File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((hasher, 0)),
        file => file?,
    };
    let mut buffer = vec![0; 1 << 18];
    let mut received = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hasher, received));
        }
        hasher.update(&buffer[..read]);
        received += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn floats_survive_any_cut_into_chunks(values: Vec<f32>, cuts in prop::collection::vec(0usize..20, 0..200)) {
            let bytes: Bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>().into();
            let mut sink = Floats { values: Vec::new(), partial: Vec::new() };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut at = 0;
                for cut in cuts {
                    let next = (at + cut).min(bytes.len());
                    sink.put(bytes.slice(at..next)).await.unwrap();
                    at = next;
                }
                sink.put(bytes.slice(at..)).await.unwrap();
            });
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&sink.values), bits(&values));
            prop_assert!(sink.partial.is_empty());
        }
    }
}

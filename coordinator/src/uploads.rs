//! Receiving updates: whole, into memory, a bounded number of bytes at a time.
//!
//! An upload first waits for memory, and its sender with it: no more than its window is read from the network before. It is
//! checked against its digest while it arrives. If the connection breaks, what has arrived is parked for as long as nobody else needs the
//! room and the attempt lives, so that the sender can go on where it stopped.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use sapwood_protocol::{
    Digest, Fault, Hasher, NodeId, SessionId,
    fault::{Lack, Misbehaviour},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// What an upload is: whose update, in which attempt, with which bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Whose.
    pub node: NodeId,
    /// In which attempt.
    pub session: SessionId,
    /// Of which bytes.
    pub digest: Digest,
}

/// The memory for uploads, and those that were interrupted.
pub struct Uploads {
    /// One permit per KiB.
    memory: Arc<Semaphore>,
    capacity: usize,
    waiting: AtomicUsize,
    parked: Mutex<Parked>,
}

#[derive(Default)]
struct Parked {
    uploads: HashMap<Key, (u64, Buffer)>,
    next: u64,
}

struct Buffer {
    bytes: Vec<u8>,
    hasher: Hasher,
    total: usize,
    memory: OwnedSemaphorePermit,
}

/// A whole update whose bytes match their digest. Holds its memory until it is dropped.
pub struct Received {
    /// What it is.
    pub key: Key,
    /// Its bytes.
    pub bytes: Vec<u8>,
    _memory: OwnedSemaphorePermit,
}

const KIB: usize = 1024;

impl Uploads {
    /// At most `bytes` of uploads are in memory at a time, or a single larger one.
    pub fn new(bytes: usize) -> Arc<Self> {
        let capacity = bytes.div_ceil(KIB).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let memory = Arc::new(Semaphore::new(capacity));
        Arc::new(Self { memory, capacity, waiting: AtomicUsize::new(0), parked: Mutex::default() })
    }

    fn parked<T>(&self, body: impl FnOnce(&mut Parked) -> T) -> T {
        body(&mut self.parked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where a sender should go on.
    pub fn offset(&self, key: &Key) -> u64 {
        self.parked(|parked| parked.uploads.get(key).map_or(0, |(_, buffer)| buffer.bytes.len() as u64))
    }

    /// Begins an upload of `total` bytes, or goes on with one. Waits until there is memory for it.
    ///
    /// # Errors
    /// [`Lack::Resource`] unless `offset` is what [`Uploads::offset`] says now, or 0, which begins anew.
    pub async fn begin(self: &Arc<Self>, key: Key, total: usize, offset: u64) -> Result<Upload, Fault> {
        let mut resumed = self.parked(|parked| parked.uploads.remove(&key)).map(|(_, buffer)| buffer);
        if let Some(buffer) = resumed.take_if(|buffer| offset == 0 || buffer.total != total) {
            drop(buffer);
        }
        let have = resumed.as_ref().map_or(0, |buffer| buffer.bytes.len() as u64);
        if have != offset {
            if let Some(buffer) = resumed {
                self.park(key, buffer);
            }
            // What was there may have made room for others since the sender asked.
            return Err(lack(format!("the upload goes on at {offset}, but {have} bytes are here; ask again where to go on")));
        }
        let buffer = match resumed {
            Some(buffer) => buffer,
            None => Buffer { bytes: Vec::new(), hasher: Hasher::default(), total, memory: self.reserve(total).await? },
        };
        let mut upload = Upload { uploads: Arc::clone(self), key, buffer: Some(buffer) };
        let buffer = upload.buffer.as_mut().expect("it was just made");
        buffer.bytes.try_reserve_exact(total - buffer.bytes.len()).map_err(|error| lack(error.to_string()))?;
        Ok(upload)
    }

    async fn reserve(&self, total: usize) -> Result<OwnedSemaphorePermit, Fault> {
        let permits = u32::try_from(total.div_ceil(KIB).min(self.capacity)).expect("the capacity fits");
        // Counted before the first try: from then on nobody parks what this one waits for.
        let _waiting = Waiting::new(&self.waiting);
        loop {
            match Arc::clone(&self.memory).try_acquire_many_owned(permits) {
                Ok(memory) => return Ok(memory),
                Err(TryAcquireError::NoPermits) if self.evict() => {}
                Err(_) => break,
            }
        }
        Arc::clone(&self.memory).acquire_many_owned(permits).await.map_err(|_| lack("it is shutting down".into()))
    }

    /// Gives up the upload that was parked first.
    fn evict(&self) -> bool {
        let oldest = self.parked(|parked| {
            let oldest = parked.uploads.iter().min_by_key(|(_, (number, _))| *number).map(|(key, _)| key.clone())?;
            parked.uploads.remove(&oldest)
        });
        oldest.is_some()
    }

    fn park(&self, key: Key, buffer: Buffer) {
        if self.waiting.load(Ordering::SeqCst) == 0 && !buffer.bytes.is_empty() {
            self.parked(|parked| {
                parked.next += 1;
                parked.uploads.insert(key, (parked.next, buffer));
            });
            // Somebody may have begun to wait between the look and the parking.
            if self.waiting.load(Ordering::SeqCst) > 0 {
                self.evict();
            }
        }
    }

    /// The attempt is over.
    pub fn forget(&self, session: SessionId) {
        self.parked(|parked| parked.uploads.retain(|key, _| key.session != session));
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn lack(why: String) -> Fault {
    Lack::Resource { what: "the coordinator's memory for uploads", why }.into()
}

/// An upload under way. Dropped unfinished, it is parked.
pub struct Upload {
    uploads: Arc<Uploads>,
    key: Key,
    buffer: Option<Buffer>,
}

impl Upload {
    /// The next bytes.
    ///
    /// # Errors
    /// [`Misbehaviour::Malformed`] if there are more than announced.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let Some(buffer) = &mut self.buffer else { return Ok(()) };
        if bytes.len() > buffer.total - buffer.bytes.len() {
            let why = format!("it has more than the {} bytes announced", buffer.total);
            self.buffer = None;
            return Err(Misbehaviour::Malformed { what: "upload", why }.into());
        }
        buffer.hasher.update(bytes);
        buffer.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The whole update.
    ///
    /// # Errors
    /// [`Misbehaviour::Malformed`] if bytes are missing, which may follow later; [`Misbehaviour::Digest`] if they are wrong.
    pub fn whole(mut self) -> Result<Received, Fault> {
        let missing = self.buffer.as_ref().map_or(0, |buffer| buffer.total - buffer.bytes.len());
        if missing > 0 {
            return Err(Misbehaviour::Malformed { what: "upload", why: format!("its last {missing} bytes are missing") }.into());
        }
        let Some(Buffer { bytes, hasher, memory, .. }) = self.buffer.take() else {
            return Err(Misbehaviour::Malformed { what: "upload", why: "it was refused already".into() }.into());
        };
        let actual = hasher.finish();
        if actual != self.key.digest {
            return Err(Misbehaviour::Digest { what: "update", expected: self.key.digest, actual }.into());
        }
        Ok(Received { key: self.key.clone(), bytes, _memory: memory })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.uploads.park(self.key.clone(), buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(node: &str, bytes: &[u8]) -> Key {
        Key { node: node.parse().unwrap(), session: SessionId::new([1; 32]), digest: Digest::of(bytes) }
    }

    #[tokio::test]
    async fn an_interrupted_upload_goes_on_where_it_stopped() {
        let uploads = Uploads::new(1 << 20);
        let bytes = vec![7; 5000];
        let key = key("n1", &bytes);
        let mut first = uploads.begin(key.clone(), bytes.len(), 0).await.unwrap();
        first.push(&bytes[..3000]).unwrap();
        assert!(first.whole().is_err(), "the rest is missing");
        assert_eq!(uploads.offset(&key), 3000);
        assert!(matches!(uploads.begin(key.clone(), bytes.len(), 2999).await, Err(Fault::Unavailable(_))), "it asks again");
        assert_eq!(uploads.offset(&key), 3000, "a wrong offset loses nothing");
        let mut second = uploads.begin(key.clone(), bytes.len(), 3000).await.unwrap();
        second.push(&bytes[3000..]).unwrap();
        assert_eq!(second.whole().unwrap().bytes, bytes);
        assert_eq!(uploads.offset(&key), 0);
        assert_eq!(uploads.memory.available_permits(), uploads.capacity);
    }

    #[tokio::test]
    async fn wrong_and_surplus_bytes_are_refused_and_forgotten() {
        let uploads = Uploads::new(1 << 20);
        let key = key("n1", b"right");
        let mut wrong = uploads.begin(key.clone(), 5, 0).await.unwrap();
        wrong.push(b"wrong").unwrap();
        assert!(matches!(wrong.whole(), Err(Fault::PeerMisbehaved(Misbehaviour::Digest { .. }))));
        let mut long = uploads.begin(key.clone(), 5, 0).await.unwrap();
        assert!(long.push(b"right!").is_err());
        assert!(long.whole().is_err());
        assert_eq!(uploads.offset(&key), 0);
        assert_eq!(uploads.memory.available_permits(), uploads.capacity);
    }

    #[tokio::test]
    async fn the_next_one_waits_for_memory_and_gets_what_is_parked() {
        let uploads = Uploads::new(8 * KIB);
        let parked = key("n1", b"");
        let mut first = uploads.begin(parked.clone(), 8 * KIB, 0).await.unwrap();
        first.push(&[1; 100]).unwrap();
        drop(first);
        assert_eq!(uploads.offset(&parked), 100);
        let second = uploads.begin(key("n2", b""), 6 * KIB, 0).await.unwrap();
        assert_eq!(uploads.offset(&parked), 0, "what was parked made room");
        let third = tokio::spawn({
            let uploads = Arc::clone(&uploads);
            async move { uploads.begin(key("n3", b""), 100 * KIB, 0).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(!third.is_finished());
        drop(second);
        third.await.unwrap().unwrap();
        assert_eq!(uploads.memory.available_permits(), uploads.capacity, "one larger than all of it takes all of it");
    }

    #[tokio::test]
    async fn the_end_of_an_attempt_frees_its_uploads() {
        let uploads = Uploads::new(8 * KIB);
        let key = key("n1", b"");
        let mut upload = uploads.begin(key.clone(), 100, 0).await.unwrap();
        upload.push(&[1; 10]).unwrap();
        drop(upload);
        uploads.forget(key.session);
        assert_eq!(uploads.offset(&key), 0);
        assert_eq!(uploads.memory.available_permits(), uploads.capacity);
    }
}

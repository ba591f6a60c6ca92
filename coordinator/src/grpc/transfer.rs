//! Objects over the wire, in chunks, from any offset. The sender waits for the reader: two chunks are under way at most.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use sapwood_failpoint as failpoint;
use sapwood_proto::{CHUNK, convert, v1::Chunk};
use sapwood_protocol::{
    Digest, Fault, NodeId,
    fault::{Lack, Misbehaviour},
};
use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::objects::Objects;

/// Chunks under way to one reader.
const UNDER_WAY: usize = 2;
/// Streams of one node at a time, over all its connections.
const PER_NODE: usize = 16;

/// How many streams each node has open.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<HashMap<NodeId, usize>>>);

/// One stream of a node; its place is free again when this is dropped.
pub(super) struct Place {
    places: Places,
    node: NodeId,
}

impl Places {
    /// A place for one more stream of `node`.
    pub(super) fn take(&self, node: &NodeId) -> Result<Place, Fault> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(node.clone()).or_default();
        if *count >= PER_NODE {
            let why = format!("node {node} has {PER_NODE} streams open; let one end first");
            return Err(Lack::Resource { what: "streams", why }.into());
        }
        *count += 1;
        Ok(Place { places: self.clone(), node: node.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.node);
            }
        }
    }
}

/// Blocking work on objects, elsewhere; its task knows the failpoints of this one.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    let hook = failpoint::current();
    let done = spawn_blocking(move || {
        let _guard = hook.as_ref().map(failpoint::Hook::install);
        work()
    });
    done.await.unwrap_or_else(|e| Err(Lack::Resource { what: "a worker", why: e.to_string() }.into()))
}

/// The object from `offset` on. An empty object, or an offset at its end, gives one empty chunk with the total.
pub(super) async fn send<P: Send + 'static>(
    objects: &Objects,
    digest: Digest,
    offset: u64,
    place: P,
) -> Result<ReceiverStream<Result<Chunk, Status>>, Fault> {
    let objects = objects.clone();
    let (file, total) = blocking(move || Ok(objects.open_at(digest, offset)?)).await?;
    let (sender, receiver) = mpsc::channel(UNDER_WAY);
    tokio::spawn(failpoint::inherit(async move {
        let _place = place;
        pump(file, total, offset, &sender).await;
    }));
    Ok(ReceiverStream::new(receiver))
}

/// Ends when the file does, or when the reader has gone.
async fn pump(mut file: File, total: u64, offset: u64, sender: &mpsc::Sender<Result<Chunk, Status>>) {
    let mut left = total - offset;
    let mut first = true;
    while first || left > 0 {
        // No room, no read: what waits for a slow reader is two chunks, not the file.
        let Ok(permit) = sender.reserve().await else { return };
        let wanted = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        let read = blocking(move || {
            let mut data = vec![0; wanted];
            file.read_exact(&mut data).map_err(unreadable)?;
            Ok((file, data))
        });
        match read.await {
            Ok((same, data)) => {
                file = same;
                left -= wanted as u64;
                permit.send(Ok(Chunk { data: Bytes::from(data), total: if first { total } else { 0 } }));
            }
            Err(fault) => {
                permit.send(Err(convert::status(&fault)));
                return;
            }
        }
        first = false;
    }
}

fn unreadable(error: io::Error) -> Fault {
    Lack::Resource { what: "an object", why: error.to_string() }.into()
}

/// A stream that breaks off or begins wrongly.
pub(super) fn malformed(what: &'static str, why: &str) -> Status {
    convert::status(&Misbehaviour::Malformed { what, why: why.to_owned() }.into())
}

//! From a listening socket to connections whose holder is known.
//!
//! Handshakes are bounded in number and in time, and strangers, who show no certificate, have few places and little time:
//! they come to enrol. So a crowd cannot keep the members out. A failed accept is never the end of the server.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::transport::server::Connected;

use crate::pki::{Certified, PkiError};

/// How much the doors let in.
#[derive(Clone, Copy, Debug)]
pub struct Doors {
    /// Handshakes at once.
    pub handshakes: usize,
    /// How long one may take.
    pub handshake_timeout: Duration,
    /// Open connections.
    pub connections: usize,
    /// Of these, connections without a client certificate.
    pub strangers: usize,
    /// How long one of those may last.
    pub stranger_timeout: Duration,
}

impl Default for Doors {
    fn default() -> Self {
        Self {
            handshakes: 128,
            handshake_timeout: Duration::from_secs(10),
            connections: 20_000,
            strangers: 256,
            stranger_timeout: Duration::from_secs(60),
        }
    }
}

/// Who is at the other end, as TLS has verified it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where from.
    pub address: SocketAddr,
    /// What the client's certificate says; none if none was shown.
    pub certified: Option<Arc<Certified>>,
}

/// A connection after its handshake.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// A stranger's connection ends then.
    until: Option<Pin<Box<Sleep>>>,
    // Held for as long as the connection lives.
    _places: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

impl Connected for Connection {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(until) = &mut self.until
            && until.as_mut().poll(cx).is_ready()
        {
            // As if the peer had hung up.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Connections as they finish their handshakes. Accepting stops when the stream is dropped.
pub fn connections(listener: TcpListener, tls: ServerConfig, doors: Doors) -> impl Stream<Item = io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(doors.handshakes);
    tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), doors, ready));
    ReceiverStream::new(connections)
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, doors: Doors, ready: mpsc::Sender<io::Result<Connection>>) {
    let handshakes = Arc::new(Semaphore::new(doors.handshakes));
    let places = Arc::new(Semaphore::new(doors.connections));
    let strangers = Arc::new(Semaphore::new(doors.strangers));
    loop {
        // Who comes too early waits in the kernel's queue.
        let next = async {
            let place = places.clone().acquire_owned().await.expect("never closed");
            let turn = handshakes.clone().acquire_owned().await.expect("never closed");
            (place, turn, listener.accept().await)
        };
        let (place, turn, accepted) = tokio::select! {
            next = next => next,
            () = ready.closed() => return,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of file descriptors, or the caller is gone already: both pass.
                tracing::warn!(error = %e, "a connection could not be accepted");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (tls, ready, strangers) = (tls.clone(), ready.clone(), strangers.clone());
        tokio::spawn(async move {
            match timeout(doors.handshake_timeout, handshake(tls, socket)).await {
                Ok(Ok((stream, certified))) => {
                    drop(turn);
                    let (until, stranger) = match (&certified, strangers.try_acquire_owned()) {
                        (Some(_), _) => (None, None),
                        (None, Ok(place)) => (Some(Box::pin(sleep(doors.stranger_timeout))), Some(place)),
                        (None, Err(_)) => return tracing::debug!(%address, "no place for another stranger"),
                    };
                    let peer = Peer { address, certified: certified.map(Arc::new) };
                    // An error means that the server has gone.
                    let _ = ready.send(Ok(Connection { stream, peer, until, _places: (place, stranger) })).await;
                }
                Ok(Err(why)) => tracing::debug!(%address, %why, "handshake failed"),
                Err(_) => tracing::debug!(%address, "handshake timed out"),
            }
        });
    }
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Identity(#[from] PkiError),
}

async fn handshake(tls: TlsAcceptor, socket: TcpStream) -> Result<(TlsStream<TcpStream>, Option<Certified>), Refusal> {
    socket.set_nodelay(true)?;
    let stream = tls.accept(socket).await?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let certified = leaf.map(|leaf| Certified::read(leaf)).transpose()?;
    Ok((stream, certified))
}

//! The inference server: the Open Inference Protocol over HTTP, JSON and binary tensors.
//!
//! - [`Engine`] holds the model that answers now; the agent exchanges it atomically, and a request that has begun ends on
//!   the model it began with.
//! - [`router`] is the protocol; [`request`] and [`response`] are its tensors.
//! - [`start`] gives the server a thread of its own, so that neither training nor a slow coordinator delays an answer.

mod engine;
mod error;
mod guard;
mod http;
mod request;
mod response;
#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, sync::Arc, thread, time::Duration};

use tokio::{net::TcpListener, sync::oneshot};

pub use engine::{Engine, Model, Served};
pub use error::ServeError;
pub use http::router;

/// How long requests under way may take when the server stops.
const DRAIN: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(5) };

/// A running server.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Listens at `address` (port 0 takes a free one) and answers until [`Server::stop`].
///
/// # Errors
/// If the address cannot be taken.
pub fn start(address: SocketAddr, engine: Arc<Engine>) -> io::Result<Server> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = thread::Builder::new().name("serve".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let listener = match TcpListener::from_std(listener) {
                Ok(listener) => axum::serve::ListenerExt::tap_io(listener, |tcp| {
                    // Answers are small: waiting to fill a segment would only delay them.
                    let _ = tcp.set_nodelay(true);
                }),
                Err(e) => return tracing::error!(error = %e, "the inference server cannot listen"),
            };
            let (draining, drain) = oneshot::channel::<()>();
            let until = async {
                let _ = stopped.await;
                drop(draining);
            };
            let served = axum::serve(listener, router(engine)).with_graceful_shutdown(until).into_future();
            tokio::select! {
                ended = served => if let Err(e) = ended {
                    tracing::error!(error = %e, "the inference server ended");
                },
                // A client that stalls must not keep the node from stopping.
                () = async { let _ = drain.await; tokio::time::sleep(DRAIN).await } => {
                    tracing::warn!("requests that did not end were cut");
                }
            }
        });
    })?;
    Ok(Server { address, stop: Some(stop), thread: Some(thread) })
}

impl Server {
    /// Takes no new request, answers those under way for [`DRAIN`] at most, and returns when all connections are closed.
    pub fn stop(mut self) {
        self.ask();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn ask(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ask();
    }
}

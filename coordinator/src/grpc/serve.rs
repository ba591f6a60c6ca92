//! The three services behind one TLS listener.

use std::{future::Future, sync::Arc, time::Duration};

use rustls::ServerConfig;
use sapwood_proto::{
    MAX_MESSAGE,
    v1::{enrollment_server::EnrollmentServer, node_server::NodeServer, operator_server::OperatorServer},
};
use tokio::net::TcpListener;
use tonic::transport::Server;

use super::{
    Desk, Doors, accept::connections, enrollment::EnrollmentService, node::NodeService, operator::OperatorService, transfer::Places,
};
use crate::app::State;

/// What one stream, and one connection, may send before it is read. Each of a thousand nodes that wait for memory to upload
/// into has as much here already.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Larger frames are fewer frames; still shared fairly among a connection's streams.
const FRAME: u32 = 256 << 10;
/// Calls at once on one connection.
const STREAMS: u32 = 64;
/// A silent connection is asked for a sign of life, and closed without one.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves until `shutdown`, then accepts no more and waits for the calls under way: whoever shuts down ends the nodes' lines.
pub async fn serve(
    listener: TcpListener,
    tls: ServerConfig,
    doors: Doors,
    state: State,
    desk: Arc<Desk>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    if desk.authority.is_some() {
        tracing::warn!(
            "the enrolment authority's key lies beside this coordinator, which answers enrolments by itself; a fleet keeps it elsewhere"
        );
    }
    let enrollment = EnrollmentService { state: state.clone(), desk: desk.clone() };
    let node = NodeService { state: state.clone(), desk: desk.clone(), places: Places::default() };
    let operator = OperatorService { state, desk };
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        // Applications of strangers are small.
        .add_service(EnrollmentServer::new(enrollment).max_decoding_message_size(16 << 10))
        .add_service(NodeServer::new(node).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
        .add_service(OperatorServer::new(operator).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(64 << 20))
        .serve_with_incoming_shutdown(connections(listener, tls, doors), shutdown)
        .await
}

//! What both daemons share: when to stop.

use std::pin::pin;

use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
};

/// Resolves when the process is asked to go: SIGINT, SIGTERM, or its standard input closing if it was started so.
pub(super) async fn asked_to_stop(until_stdin_closes: bool) {
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be watched inside the runtime");
    let closed = pin!(stdin_closes(until_stdin_closes));
    tokio::select! {
        _ = tokio::signal::ctrl_c() => tracing::info!("interrupted: going away in good order"),
        _ = terminate.recv() => tracing::info!("asked to terminate: going away in good order"),
        () = closed => tracing::info!("standard input closed: going away in good order"),
    }
}

async fn stdin_closes(wanted: bool) {
    if !wanted {
        return std::future::pending().await;
    }
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 64];
    while stdin.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
}

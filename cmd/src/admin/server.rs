//! HTTP/1 connections under bounds: how many, how long, how large a header. One request each, since scrapes are seconds
//! apart and an idle connection would only hold a place.

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at a time; more wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 64;

/// Time until the header is complete; then the connection gets 408 or is closed.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);

/// Time for everything, reading of the answer included; then the connection is closed.
pub(super) const CONNECTION_DEADLINE: Duration = Duration::from_secs(15);

/// Bytes of request line and headers; beyond it the connection gets 431.
pub(super) const HEADER_BYTES_MAX: usize = 16 << 10;

/// Headers; beyond it the connection gets 431.
const HEADERS_MAX: usize = 64;

/// How long to wait when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts for ever.
pub(super) async fn serve(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    // A connection that fails or runs out of time is the client's loss alone.
                    let _ = tokio::time::timeout(CONNECTION_DEADLINE, serve_one(stream, router)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "admin endpoint cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_one(stream: TcpStream, router: Router) -> Result<(), hyper::Error> {
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}

//! What keeps the underlay from starting.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// See the module's page.
#[derive(Debug, thiserror::Error)]
pub enum UnderlayError {
    /// The cluster's port.
    #[error("cluster.bind = \"{address}\": {error}")]
    Bind {
        /// What was configured.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The file of starts and peers.
    #[error("{}: {problem}", path.display())]
    Identity {
        /// Which file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// A certificate could not be made, or TLS not be set up.
    #[error("TLS between nodes: {0}")]
    Tls(String),
    /// A thread could not be started.
    #[error("the cluster's thread: {0}")]
    Thread(#[from] io::Error),
}

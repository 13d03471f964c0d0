//! What keeps the underlay from starting.

use bifro_net::links::tls::TlsError;
use std::io;
use std::path::PathBuf;

/// See the module's page.
#[derive(Debug, thiserror::Error)]
pub enum UnderlayError {
    /// The file of starts and peers.
    #[error("{}: {problem}", path.display())]
    Identity {
        /// Which file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// A certificate could not be made, or TLS not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A thread could not be started, or its socket not be used.
    #[error("the cluster's thread: {0}")]
    Thread(#[from] io::Error),
}

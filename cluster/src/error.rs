//! What keeps the underlay from starting.

use bifro_core::ids::{ClusterId, NodeId};
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

/// Why a node does not get to know its cluster.
#[derive(Debug, thiserror::Error)]
pub enum FoundingError {
    /// What it promised could not be kept.
    #[error("cannot take part in making a cluster: {0}")]
    Keep(String),
    /// It has made a cluster by itself, and is to be of another.
    #[error(
        "this node ({me}) has data of the cluster {ours}, which it made by itself, and {other} at {place} is of the cluster {theirs}: two clusters \
         cannot become one. Start the node that is to come in with an empty data_dir (what it has stored stays in the old one), or take the other \
         out of cluster.seeds"
    )]
    Conflict {
        /// This node.
        me: NodeId,
        /// Its cluster.
        ours: ClusterId,
        /// The other node.
        other: NodeId,
        /// The seed at which it answers.
        place: String,
        /// The other's cluster.
        theirs: ClusterId,
    },
    /// The underlay's thread has ended.
    #[error("the cluster's thread has ended before the cluster was known")]
    Ended,
}

//! Why a node does not start, in words for the person who started it.

use super::listeners::ListenerError;
use crate::auth::LoadError;
use crate::selfcheck::Lack;
use bifro_cluster::{FoundingError, UnderlayError};
use bifro_net::cores::SpawnError;
use bifro_net::links::CertificateFault;
use bifro_store::host::HostError;
use std::net::SocketAddr;
use thiserror::Error;
use tracing::subscriber::SetGlobalDefaultError;

/// A start that failed; nothing has been served.
#[derive(Debug, Error)]
pub enum StartError {
    /// The machine lacks something.
    #[error("this machine cannot run a node:{}", .0.iter().map(|lack| format!("\n  {lack}")).collect::<String>())]
    Machine(Vec<Lack>),
    /// A listener.
    #[error(transparent)]
    Listener(#[from] ListenerError),
    /// Authentication or access rules.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The storage.
    #[error(transparent)]
    Store(#[from] HostError),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] UnderlayError),
    /// What the cluster is.
    #[error("cluster: {0}")]
    Founding(#[from] FoundingError),
    /// A port of the cluster.
    #[error(
        "cluster: {address}: {error}; a node of {shards} shards needs the {shards} ports after that of cluster.bind as well"
    )]
    ClusterPort {
        /// Where.
        address: SocketAddr,
        /// How many ports follow the first.
        shards: u16,
        /// Why not.
        error: std::io::Error,
    },
    /// The cluster's secret.
    #[error("cluster.secret_file = \"{file}\": {problem}")]
    Secret {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The cluster's certificates.
    #[error(transparent)]
    Certificates(#[from] CertificateFault),
    /// The shards' executors.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Logging.
    #[error(transparent)]
    Logging(#[from] SetGlobalDefaultError),
    /// Anything else the system refuses; the admin endpoint's address, typically.
    #[error(transparent)]
    System(#[from] std::io::Error),
}

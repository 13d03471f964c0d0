//! Why a node's storage cannot be used.

use crate::data_dir::DataDirError;
use crate::kv::KvError;
use crate::wal::{OpenError, WalError};
use bifro_core::ids::RangeId;
use bifro_raft::RestoreError;
use bifro_range::record::RecordError;
use std::io;
use std::path::PathBuf;

/// Why the storage did not open. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The node's identity, or what it knows of its cluster, is damaged, or gone although there is data.
    #[error(
        "{path} is damaged or missing: restore it from a backup, or start this node as a new one with an empty data directory"
    )]
    Node {
        /// The file.
        path: PathBuf,
    },
    /// The node has had a part in making a cluster, and does not know yet what has become of it.
    #[error(
        "{path} says that this node was helping to make a cluster with others when it ended: start it with its [cluster] table again, or as a \
         new node with an empty data directory"
    )]
    Unfinished {
        /// The file.
        path: PathBuf,
    },
    /// The node's identity cannot be read or written.
    #[error("cannot use {path}: {source}")]
    NodeFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The log.
    #[error(transparent)]
    Wal(#[from] OpenError),
    /// Old entries of the log.
    #[error(
        "the log of {range} cannot be read: {source}; restore the data directory, or let the node's peers repair it"
    )]
    Entries {
        /// Whose.
        range: RangeId,
        /// Why.
        source: WalError,
    },
    /// The key-value base.
    #[error("{0}; restore the data directory, or let the node's peers repair it")]
    Kv(#[from] KvError),
    /// A small record of the log or a checkpoint.
    #[error("{what} of {range} is damaged; restore the data directory, or let the node's peers repair it")]
    Damaged {
        /// Whose.
        range: RangeId,
        /// Which.
        what: &'static str,
    },
    /// Log and checkpoint do not belong together.
    #[error(
        "{range} cannot start: {source}; log and checkpoints do not belong together, restore the data directory as a whole"
    )]
    Restore {
        /// Which.
        range: RangeId,
        /// Why.
        source: RestoreError,
    },
    /// A record of the service.
    #[error(
        "a record of {range} cannot be read (key {key:02x?}): {source}; restore the data directory, or start the version that wrote it"
    )]
    Record {
        /// Whose.
        range: RangeId,
        /// The record's key.
        key: Vec<u8>,
        /// What is wrong with it.
        source: RecordError,
    },
    /// The system gave no threads.
    #[error("cannot start the storage threads: {0}")]
    Threads(io::Error),
}

//! What can go wrong with the log, as told to shards and at start. A failed fsync is not among these: it ends the process.

use std::io;
use std::path::PathBuf;

/// Why the log did not do something. Cloneable, since one cause may be told to several shards.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// The disk is full, or would be beyond the reserve. The log is as it was.
    #[error("no space for new log entries: {free_bytes} bytes are free, {reserve_bytes} are kept in reserve")]
    NoSpace {
        /// What the file system offered.
        free_bytes: u64,
        /// What is not given to new entries.
        reserve_bytes: u64,
    },
    /// An append begins beyond the end of the group's log, usually because an earlier one was refused.
    #[error("the append would leave a hole before index {from}")]
    Hole {
        /// First index of the append.
        from: u64,
    },
    /// The entries asked for were compacted away.
    #[error("the log begins at index {first}")]
    Compacted {
        /// The first index that is left.
        first: u64,
    },
    /// The group has no such entries.
    #[error("no such log entries")]
    NotFound,
    /// What was read is not what was written.
    #[error("the log is damaged: {0}")]
    Corrupt(String),
    /// The system refused.
    #[error("the log cannot be used: {0}")]
    Io(String),
}

impl WalError {
    /// Sorts the engine's errors. `space` is asked only for a full disk.
    pub(super) fn from_engine(error: &raft_engine::Error, space: impl FnOnce() -> (u64, u64)) -> Self {
        if is_no_space(error) {
            let (free_bytes, reserve_bytes) = space();
            return Self::NoSpace { free_bytes, reserve_bytes };
        }
        match error {
            raft_engine::Error::EntryCompacted => Self::Compacted { first: 0 },
            raft_engine::Error::EntryNotFound => Self::NotFound,
            raft_engine::Error::Corruption(what) => Self::Corrupt(what.clone()),
            raft_engine::Error::Codec(error) => Self::Corrupt(error.to_string()),
            raft_engine::Error::Protobuf(error) => Self::Corrupt(error.to_string()),
            other => Self::Io(other.to_string()),
        }
    }
}

/// Whether the engine met a full disk. It reports one as an I/O error, or as "try again" after it had rotated to a new file.
pub(super) fn is_no_space(error: &raft_engine::Error) -> bool {
    match error {
        raft_engine::Error::Io(error) => error.kind() == io::ErrorKind::StorageFull,
        raft_engine::Error::TryAgain(what) => what.contains("nospace"),
        _ => false,
    }
}

/// Why the log of a data directory cannot be opened. Nothing acknowledged was dropped.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A record in the middle of the log does not match its checksum.
    #[error(
        "the log file {path} is damaged at byte {offset}, and intact records follow: restore it, or remove this node's data and let its peers repair it"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the first bad record begins.
        offset: u64,
    },
    /// The engine refused its files.
    #[error("cannot open the log in {path}")]
    Engine {
        /// The directory.
        path: PathBuf,
        /// Its reason.
        #[source]
        source: Box<raft_engine::Error>,
    },
    /// The system said no.
    #[error("cannot open the log in {path}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// The answer.
        #[source]
        source: io::Error,
    },
}

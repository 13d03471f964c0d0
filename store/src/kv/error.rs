//! What can go wrong under the key-value engine.

use super::SpaceId;
use std::io;
use std::sync::Arc;

/// Why the base did not do something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KvError {
    /// A stored record is not what was written: the replica is to be repaired from its peers, and what was read not to be used.
    #[error("{space} is damaged at key {key:02x?}: {what}")]
    Corrupt {
        /// The space.
        space: SpaceId,
        /// The record's key; empty if it is not known, or the space's own record.
        key: Vec<u8>,
        /// What did not fit.
        what: &'static str,
    },
    /// The space is not there (any more).
    #[error("{0} does not exist")]
    NoSuchSpace(SpaceId),
    /// The disk is full, or would be beyond the reserve. Nothing was written; the overlay keeps what it has.
    #[error("no space for a checkpoint of {needed_bytes} bytes: {free_bytes} bytes are free")]
    NoSpace {
        /// What the checkpoint would write, with room for the LSM's own work.
        needed_bytes: u64,
        /// What the file system offered.
        free_bytes: u64,
    },
    /// The base failed and takes no more writes: the process should end.
    #[error("the key-value base failed: {0}")]
    Base(#[source] Arc<fjall::Error>),
    /// The system said no.
    #[error("the key-value base cannot be used: {0}")]
    Io(#[source] Arc<io::Error>),
    /// A job of the engine panicked.
    #[error("a job of the key-value engine panicked: {0}")]
    Panicked(String),
}

impl From<io::Error> for KvError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

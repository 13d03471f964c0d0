//! Hosts Raft replicas over the node's log and key-value engine: what stands between the machines of the services and the disk.
//!
//! ```text
//! machine ─ changes of a turn ─► Host::record ─► one proposal per range ─► Raft ─► one batch a turn ─► log, one fdatasync
//!    ▲                                                                      │
//!    └─ answers that waited for the gate ◄─ gate applied ◄─ entry applied to the range's KvSpace ◄┘ durable, committed
//! ```
//! The primary executes and the log carries the outcome, as in ZooKeeper's Zab (Junqueira, Reed, Serafini 2011): a range's machine on the
//! leader changes its memory at once and says which records changed; an entry holds those changes and nothing that would have to be
//! decided again. So replicas need no determinism of the machines, and no clock. What the machine answers is held back until the entry
//! with its changes is committed, durable and applied: nobody hears of what a crash could undo.
//!
//! Invariants:
//! - a range's batches are proposed in the order in which they were recorded, and gates open in that order;
//! - a [`crate::kv::KvSpace`] is never ahead of what its group has committed, and the log is compacted only behind a durable checkpoint;
//! - a replica that cannot be restored from what the disk holds does not start.
//!
//! For now every group has one voter, this node, and nobody to send to: messages of groups are dropped, which Raft allows.

mod cells;
mod entry;
mod error;
mod genesis;
mod range;
mod restore;
mod shard;
#[cfg(test)]
mod tests;

pub use cells::StorageCells;
pub use error::HostError;
pub use genesis::{Genesis, random};
pub use range::Gate;
pub use shard::Host;

use crate::data_dir::DataDir;
use crate::fatal::Fatal;
use crate::kv::{FjallBase, FjallConfig, KvEngine, SpaceLimits};
use crate::wal::{GroupId, RecoveredGroup, Wal, WalConfig};
use bifro_core::ids::RangeId;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// How a node stores.
#[derive(Clone)]
pub struct StoreConfig {
    /// The data directory.
    pub dir: PathBuf,
    /// Ranges of persistent sessions, and as many of retained messages, should the directory be new.
    pub ranges: u16,
    /// The log.
    pub wal: WalConfig,
    /// The key-value base.
    pub kv: FjallConfig,
    /// Each range's space.
    pub space: SpaceLimits,
}

/// A node's storage: opened once, before its shards start; dropped after they have ended.
pub struct Node {
    genesis: Genesis,
    space: SpaceLimits,
    /// What the log held at start, until the group's host takes it.
    recovered: Mutex<HashMap<GroupId, RecoveredGroup>>,
    cells: Arc<StorageCells>,
    kv: KvEngine,
    wal: Wal,
    _data: DataDir,
}

impl Node {
    /// Opens the directory, makes it this node's if it is new. Blocks while the log's files are read.
    ///
    /// # Errors
    /// [`HostError`]: what is wrong, and what to do.
    pub fn open(config: StoreConfig, fatal: Fatal) -> Result<Self, HostError> {
        let data = DataDir::open(&config.dir)?;
        let genesis = Genesis::of(&data, config.ranges)?;
        let (wal, groups) = Wal::open(&data, config.wal, fatal)?;
        let kv = KvEngine::new(Arc::new(FjallBase::open(&data, config.kv)?)).map_err(HostError::Threads)?;
        let recovered = groups.into_iter().map(|group| (group.group, group)).collect();
        let (cells, recovered) = (Arc::new(StorageCells::new(wal.metrics())), Mutex::new(recovered));
        Ok(Self { genesis, space: config.space, recovered, cells, kv, wal, _data: data })
    }

    /// Who the node is.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Figures of the log and of all shards' spaces.
    pub fn cells(&self) -> Arc<StorageCells> {
        self.cells.clone()
    }

    fn take_recovered(&self, range: RangeId) -> Option<RecoveredGroup> {
        self.recovered.lock().unwrap_or_else(PoisonError::into_inner).remove(&GroupId(range.0))
    }
}

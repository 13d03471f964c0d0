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
//! # Reigns
//! A range's machine lives where its group is led. [`Change::Leads`] says that this node leads and that the space is the whole committed truth:
//! the owner loads it ([`Host::begin_load`]), builds the machine, and records what it changes. [`Change::Follows`] ends that: the owner
//! throws the machine away with everything that it held back, and the host whatever was recorded and is not applied. Gates of a reign that
//! is over stay closed for ever ([`Gate`]).
//!
//! # Peers
//! Hosts speak in frames ([`frame`]), which somebody else carries. The log of a peer that lags behind this one's beginning is replaced by a
//! snapshot (`offers.rs`, `incoming.rs`); replicas that were removed go, and come when they are spoken to (`burial.rs`).

mod burial;
mod cells;
mod change;
mod checkpoints;
mod effects;
mod entry;
mod error;
pub mod frame;
mod genesis;
mod incoming;
mod load;
mod log;
mod offers;
mod peers;
mod range;
mod reads;
mod report;
mod restore;
mod shard;
#[cfg(feature = "simulation")]
mod simulated;
#[cfg(test)]
mod tests;

pub use cells::StorageCells;
pub use change::{Change, Malformed};
pub use error::HostError;
pub use frame::split as split_frame;
pub use genesis::{Genesis, LedgerFile, NodeDir, random};
pub use range::Gate;
pub use reads::ReadDone;
pub use shard::Host;
#[cfg(feature = "simulation")]
pub use simulated::Disk;

use crate::fatal::Fatal;
use crate::kv::{FjallBase, FjallConfig, KvEngine, SpaceLimits};
use crate::wal::{GroupId, RecoveredGroup, Wal, WalConfig};
use bifro_core::ids::RangeId;
use bifro_genesis::ClusterGenesis;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How a node stores.
#[derive(Clone)]
pub struct StoreConfig {
    /// The log.
    pub wal: WalConfig,
    /// The key-value base.
    pub kv: FjallConfig,
    /// Each range's space.
    pub space: SpaceLimits,
    /// Between nodes.
    pub replication: Replication,
}

/// How replicas on different nodes keep together.
#[derive(Clone, Debug)]
pub struct Replication {
    /// Of all groups. The largest proposal is the host's business.
    pub raft: bifro_raft::Config,
    /// Entries that a leader's log keeps behind a checkpoint for peers that lack them, unless the log asks for their room: a peer that was
    /// away for a moment need not be sent everything.
    pub kept_entries: u64,
    /// Bytes of a piece of a snapshot, about: one is on its way at a time.
    pub chunk_bytes: usize,
    /// Between a piece that is written and the next that is asked for: with it a snapshot takes no more than `chunk_bytes` in this time.
    pub chunk_pause: Duration,
    /// Without an answer for so long a piece is asked for again.
    pub chunk_timeout: Duration,
    /// Without any piece for so long the transfer is given up.
    pub chunk_patience: Duration,
}

impl Default for Replication {
    fn default() -> Self {
        Self {
            raft: bifro_raft::Config::DEFAULT,
            kept_entries: 1_024,
            chunk_bytes: 512 << 10,
            chunk_pause: Duration::from_millis(10),
            chunk_timeout: Duration::from_secs(1),
            chunk_patience: Duration::from_secs(10),
        }
    }
}

/// A node's storage: opened once, before its shards start; dropped after they have ended.
pub struct Node {
    genesis: Genesis,
    space: SpaceLimits,
    replication: Replication,
    /// What the log held at start, until the group's host takes it.
    recovered: Mutex<HashMap<GroupId, RecoveredGroup>>,
    cells: Arc<StorageCells>,
    kv: KvEngine,
    wal: Wal,
    /// Held as long as the storage is; there is none in the simulator.
    _dir: Option<NodeDir>,
}

impl Node {
    /// Opens the storage of a node of this cluster. Blocks while the log's files are read.
    ///
    /// # Errors
    /// [`HostError`]: what is wrong, and what to do.
    pub fn open(dir: NodeDir, cluster: ClusterGenesis, config: StoreConfig, fatal: Fatal) -> Result<Self, HostError> {
        let genesis = Genesis::new(dir.node(), cluster);
        let (wal, groups) = Wal::open(&dir.data, config.wal, fatal)?;
        let kv = KvEngine::new(Arc::new(FjallBase::open(&dir.data, config.kv)?)).map_err(HostError::Threads)?;
        let recovered = groups.into_iter().map(|group| (group.group, group)).collect();
        let (cells, recovered) = (Arc::new(StorageCells::new(wal.metrics())), Mutex::new(recovered));
        let (space, replication) = (config.space, config.replication);
        Ok(Self { genesis, space, replication, recovered, cells, kv, wal, _dir: Some(dir) })
    }

    /// Who the node is.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Figures of the log and of all shards' spaces.
    pub fn cells(&self) -> Arc<StorageCells> {
        self.cells.clone()
    }

    /// Waits until the storage may have done something, before the shard runs; then the wake given to [`Host::open`] must unpark this thread.
    fn wait(&self) {
        #[cfg(feature = "simulation")]
        if self.is_simulated() {
            assert!(self.step(), "whoever waits for the storage has asked it for something");
            return;
        }
        std::thread::park_timeout(shard::RETRY);
    }

    /// How long it has been waited for since.
    fn waited(&self, since: std::time::Instant) -> Duration {
        #[cfg(feature = "simulation")]
        if self.is_simulated() {
            return Duration::ZERO;
        }
        since.elapsed()
    }

    fn take_recovered(&self, range: RangeId) -> Option<RecoveredGroup> {
        self.recovered.lock().unwrap_or_else(PoisonError::into_inner).remove(&GroupId(range.0))
    }
}

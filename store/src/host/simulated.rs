//! A node's storage without files and threads, for the simulator: it decides when a write is durable and when a job of the engine is done, and what
//! is left when the process ends.

use super::{Genesis, HostError, Node, StorageCells, StoreConfig};
use crate::fatal::Fatal;
use crate::kv::{KvEngine, MemoryBase};
use crate::wal::{MemoryLog, Wal};
use bifro_core::ids::NodeId;
use bifro_genesis::ClusterGenesis;
use std::sync::{Arc, Mutex};

/// What is left of a node when its process ends.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    log: MemoryLog,
    base: MemoryBase,
}

impl Node {
    /// The storage of a process of `node`, on such a disk. Nothing happens in it but what the next methods say, and what is waited for at the start.
    ///
    /// # Errors
    /// None but what [`Node::open`] has, and no damage.
    pub fn simulated(
        node: NodeId,
        cluster: ClusterGenesis,
        disk: &Disk,
        config: StoreConfig,
        fatal: Fatal,
    ) -> Result<Self, HostError> {
        let StoreConfig { wal, space, replication, .. } = config;
        let (wal, groups) = Wal::stepped(&disk.log, wal, fatal);
        let recovered = Mutex::new(groups.into_iter().map(|group| (group.group, group)).collect());
        let (kv, cells) = (KvEngine::stepped(Arc::new(disk.base.clone())), Arc::new(StorageCells::new(wal.metrics())));
        Ok(Self { genesis: Genesis::new(node, cluster), space, replication, recovered, cells, kv, wal, _dir: None })
    }

    pub(super) fn is_simulated(&self) -> bool {
        self.wal.is_stepped()
    }

    /// Begins to write what the shards have handed to the log. False if there is nothing, or a write is under way.
    pub fn begin_write(&self) -> bool {
        self.wal.begin_write()
    }

    /// The write under way is durable.
    pub fn finish_write(&self) {
        self.wal.finish_write();
    }

    /// The process is about to end: this many batches of the write under way have reached the disk.
    pub fn cut_write(&self, kept: usize) {
        self.wal.cut_write(kept);
    }

    /// Whether something was asked of the engine, or of what the log holds.
    pub fn has_jobs(&self) -> bool {
        self.wal.has_reads() || self.kv.runner().has_jobs()
    }

    /// Does the oldest of what was asked of the engine, reads of the log before that. False if there is nothing.
    pub fn do_job(&self) -> bool {
        self.wal.answer_reads() || self.kv.runner().step()
    }

    /// Whatever comes next.
    pub(super) fn step(&self) -> bool {
        if self.begin_write() {
            self.finish_write();
            return true;
        }
        self.do_job()
    }
}

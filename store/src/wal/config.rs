//! Settings and limits of the log, each with what happens at it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

/// When an entry counts as durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// After fdatasync.
    #[default]
    Fsync,
    /// Once the operating system has it: survives the process, not the machine.
    Os,
}

/// Stands before each fsync of a log file; an error is taken for the device's. For tests.
pub type SyncProbe = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// Free bytes of the log's file system, instead of asking the system. For tests.
pub type SpaceProbe = Arc<dyn Fn() -> io::Result<u64> + Send + Sync>;

/// How the log works. The defaults suit a broker of a few cores.
#[derive(Clone)]
pub struct WalConfig {
    /// `[store] durability`.
    pub durability: Durability,
    /// Batches a shard may have queued; at it [`super::WalPort::submit`] gives the batch back.
    pub queue_batches: usize,
    /// Bytes a shard may have queued; at it likewise, except that a single batch is always taken.
    pub queue_bytes: usize,
    /// Reads of old entries a shard may have outstanding; at it [`super::WalPort::read`] refuses.
    pub reads_max: usize,
    /// Bytes merged into one write, after which what is left waits for the next.
    pub turn_bytes: usize,
    /// Size at which a log file is closed and the next begun.
    pub file_bytes: u64,
    /// Size of the log above which old files are cleared: small groups are rewritten, large ones reported as pinning.
    pub purge_bytes: u64,
    /// How often that is looked at.
    pub purge_interval: Duration,
    /// Free bytes below which [`super::Space::Short`] is announced, and new proposals are to be refused. Below half of it appends
    /// themselves are refused; the rest is kept for hard states, compaction, checkpoints and the LSM's own work.
    pub reserve_bytes: u64,
    /// For tests.
    pub sync_probe: Option<SyncProbe>,
    /// For tests.
    pub space_probe: Option<SpaceProbe>,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            queue_batches: 1024,
            queue_bytes: 16 << 20,
            reads_max: 64,
            turn_bytes: 8 << 20,
            file_bytes: 32 << 20,
            purge_bytes: 256 << 20,
            purge_interval: Duration::from_secs(3),
            reserve_bytes: 512 << 20,
            sync_probe: None,
            space_probe: None,
        }
    }
}

impl WalConfig {
    /// The engine's own settings. Compression is off: it costs a core at the rates a log sees, and makes every read of one entry
    /// unpack its whole batch. Files are recycled: overwriting allocated blocks makes fdatasync cheaper.
    pub(super) fn engine(&self, dir: String) -> raft_engine::Config {
        raft_engine::Config {
            dir,
            recovery_mode: raft_engine::RecoveryMode::TolerateTailCorruption,
            recovery_threads: 2,
            batch_compression_threshold: raft_engine::ReadableSize(0),
            target_file_size: raft_engine::ReadableSize(self.file_bytes),
            purge_threshold: raft_engine::ReadableSize(self.purge_bytes.max(self.file_bytes)),
            purge_rewrite_threshold: Some(raft_engine::ReadableSize((self.purge_bytes / 4).max(self.file_bytes))),
            ..raft_engine::Config::default()
        }
    }
}

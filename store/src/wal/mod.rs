//! The write-ahead log of a node: the entries and records of every Raft group, in one raft-engine instance behind a writer thread.
//!
//! ```text
//! shard ─ submit(batch) ─► bounded queue ─┐                      ┌─► one write ─► one fdatasync
//! shard ─ submit(batch) ─► bounded queue ─┴─► writer: merge ─────┘        │
//!   ▲                                                                     │
//!   └── poll ◄─ durable token (an atomic), refusals, entries read ◄───────┘   and a wake for each shard concerned
//! shard ─ read(range) ────► reader thread          purger thread: clears old files, reports the groups that pin them
//! ```
//! Invariants:
//! - batches of a port are written in order, each wholly or (its refused appends aside) not at all;
//! - [`WalEvent::Durable`] leaves only after fdatasync, unless [`Durability::Os`] was asked for;
//! - a failed fsync ends the process through the [`Fatal`] hook: what the kernel has of the file is unknown from then on;
//! - a full disk refuses appends with [`WalError::NoSpace`] and nothing else (`space.rs` has the thresholds): the engine itself would,
//!   on ENOSPC, cut the half-written record off, begin a new file and try once more, so a failed write leaves nothing behind;
//! - what is read was verified: the engine checks the CRC-32 of the block an entry is in at every read, this module the index, and
//!   `tail.rs` checks the newest file at start before the engine may cut it.
//!
//! `cargo run --release -p bifro-store --example storage` measures it.

mod batch;
mod config;
mod error;
mod files;
mod metrics;
mod port;
mod purger;
mod reader;
mod shared;
mod space;
mod spans;
#[cfg(feature = "simulation")]
mod stepped;
mod tail;
mod writer;

pub use batch::{GroupId, Record, WalBatch, WalEntry};
pub use config::{Durability, SpaceProbe, SyncProbe, WalConfig};
pub use error::{OpenError, WalError};
pub use metrics::WalMetrics;
pub use port::{Token, WalEvent, WalPort};
pub use space::{Space, free_bytes};
#[cfg(feature = "simulation")]
pub use stepped::MemoryLog;

use crate::data_dir::DataDir;
use crate::fatal::{Fatal, Wake};
use files::LogFiles;
use shared::{Log, Shared};
use spans::Spans;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

/// What the log holds of a group after a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredGroup {
    /// The group.
    pub group: GroupId,
    /// Its entries' indexes; empty (both ends zero) if there are none.
    pub entries: Range<u64>,
    /// Its records, by number.
    pub records: Vec<(Record, Vec<u8>)>,
}

impl RecoveredGroup {
    /// A record's value.
    pub fn record(&self, record: Record) -> Option<&[u8]> {
        self.records.iter().find(|(found, _)| *found == record).map(|(_, value)| value.as_slice())
    }
}

/// The log: owner of its threads. Dropped last, after the ports' shards have ended; writes what is still queued first.
pub struct Wal {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// What happens in the place of threads.
    #[cfg(feature = "simulation")]
    steps: Option<stepped::Steps>,
}

impl Wal {
    /// Opens the log in `data/wal`, creates it if need be, and starts its threads. Blocks while old files are read (about 1 GB/s).
    ///
    /// # Errors
    /// [`OpenError`]: damage that a torn write cannot explain, or what the system says.
    pub fn open(data: &DataDir, config: WalConfig, fatal: Fatal) -> Result<(Self, Vec<RecoveredGroup>), OpenError> {
        let dir = data.path().join("wal");
        let failed = |source| OpenError::Io { path: dir.clone(), source };
        std::fs::create_dir_all(&dir).map_err(failed)?;
        tail::mend(&dir, config.durability == Durability::Fsync)?;
        let log = open_engine(&dir, &config)?;
        let gauge = space::SpaceGauge::new(&dir, &config).map_err(failed)?;
        let groups = recovered(&log);
        let mut spans = Spans::default();
        for found in &groups {
            spans.recovered(found.group, found.entries.start, found.entries.end);
        }
        let (shared, log) = (Arc::new(Shared::new(config, fatal)), Arc::new(log));
        let writer = writer::Writer::new(shared.clone(), log.clone(), gauge, spans);
        let (reader, purger) = ((shared.clone(), log.clone()), (shared.clone(), log));
        let mut wal = Self::without_threads(shared);
        wal.start("wal-writer", move || writer.run()).map_err(failed)?;
        wal.start("wal-reader", move || reader::run(&reader.0, &reader.1)).map_err(failed)?;
        wal.start("wal-purger", move || purger::run(&purger.0, &purger.1)).map_err(failed)?;
        Ok((wal, groups))
    }

    fn without_threads(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            threads: Vec::new(),
            #[cfg(feature = "simulation")]
            steps: None,
        }
    }

    fn start(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }

    /// A shard's end. `wake` is called from the log's threads whenever [`WalPort::poll`] has something new.
    pub fn port(&self, wake: Wake) -> WalPort {
        WalPort::new(self.shared.clone(), wake)
    }

    /// Reads entries as [`WalPort::read`] does, but waits. For the start, before shards run.
    ///
    /// # Errors
    /// [`WalError::Compacted`], [`WalError::NotFound`], [`WalError::Corrupt`], [`WalError::Io`].
    ///
    /// # Panics
    /// If the reader thread has ended, which it does only with this value.
    pub fn read_now(&self, group: GroupId, range: Range<u64>, bytes_max: usize) -> Result<Vec<WalEntry>, WalError> {
        // By the reader thread: the engine caches the last block per thread, not per log.
        let caller = std::thread::current();
        let mut port = self.port(Arc::new(move || caller.unpark()));
        assert!(port.read(0, group, range, bytes_max), "a fresh port has no reads outstanding");
        #[cfg(feature = "simulation")]
        self.answer_reads();
        let mut events = Vec::new();
        loop {
            port.poll(&mut events);
            for event in events.drain(..) {
                if let WalEvent::Entries { result, .. } = event {
                    return result;
                }
            }
            std::thread::park();
        }
    }

    /// Its figures.
    pub fn metrics(&self) -> Arc<WalMetrics> {
        self.shared.metrics.clone()
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // A panic there was reported by the hook; there is nobody left to tell.
            let _ended = thread.join();
        }
    }
}

fn open_engine(dir: &Path, config: &WalConfig) -> Result<Log, OpenError> {
    let files = Arc::new(LogFiles::new(config.sync_probe.clone()));
    let settings = config.engine(dir.to_string_lossy().into_owned());
    Log::open_with_file_system(settings, files)
        .map_err(|source| OpenError::Engine { path: dir.to_owned(), source: Box::new(source) })
}

/// All groups of the log.
fn recovered(log: &Log) -> Vec<RecoveredGroup> {
    let mut groups: Vec<RecoveredGroup> = log.raft_groups().into_iter().map(|id| recovered_group(log, id)).collect();
    groups.sort_by_key(|found| found.group);
    groups
}

fn recovered_group(log: &Log, id: u64) -> RecoveredGroup {
    let mut records = Vec::new();
    let scanned = log.scan_raw_messages(id, None, None, false, |key, value| {
        if let [b'r', record] = key {
            records.push((Record(*record), value.to_vec()));
        }
        true
    });
    scanned.expect("the engine scans its memory");
    let entries = match (log.first_index(id), log.last_index(id)) {
        (Some(first), Some(last)) => first..last + 1,
        _ => 0..0,
    };
    RecoveredGroup { group: GroupId(id), entries, records }
}

#[cfg(test)]
mod tests;

//! The reader thread: old entries for lagging followers and for recovery. Apart from the writer, since a read may wait for the disk.

use super::batch::{GroupId, WalEntry};
use super::error::WalError;
use super::port::{Lane, WalEvent};
use super::shared::{Framing, Log, Shared, checked};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// One question of a port.
pub(super) struct ReadRequest {
    pub(super) lane: Arc<Lane>,
    pub(super) request: u64,
    pub(super) group: GroupId,
    pub(super) range: Range<u64>,
    pub(super) bytes_max: usize,
}

/// Entries of one answer at most, whatever their size.
const ENTRIES_MAX: u64 = 16_384;

/// Attempts at a read that the purger moves away from under.
const ATTEMPTS: usize = 4;

/// The thread.
pub(super) fn run(shared: &Shared, log: &Log) {
    loop {
        while let Some(ask) = shared.reads.pop() {
            let result = read(shared, log, ask.group, ask.range, ask.bytes_max);
            ask.lane.tell(WalEvent::Entries { request: ask.request, group: ask.group, result });
        }
        if shared.is_stopping() {
            return;
        }
        let has_work = || !shared.reads.is_empty() || shared.is_stopping();
        shared.reader.sleep(Duration::from_secs(60), has_work);
    }
}

/// Reads and counts.
///
/// # Errors
/// [`WalError::Compacted`], [`WalError::NotFound`], [`WalError::Corrupt`], [`WalError::Io`].
pub(super) fn read(
    shared: &Shared,
    log: &Log,
    group: GroupId,
    range: Range<u64>,
    bytes_max: usize,
) -> Result<Vec<WalEntry>, WalError> {
    let mut result = attempt(shared, log, group, &range, bytes_max);
    // Between finding an entry's place and reading it, its file may have been rewritten and cleared. Real damage stays.
    for _ in 1..ATTEMPTS {
        if !matches!(result, Err(WalError::Corrupt(_) | WalError::Io(_))) {
            break;
        }
        result = attempt(shared, log, group, &range, bytes_max);
    }
    shared.metrics.wal_reads.add(1);
    match &result {
        Ok(entries) => {
            let bytes: usize = entries.iter().map(|entry| entry.payload().len()).sum();
            shared.metrics.wal_read_bytes.add(bytes as u64);
        }
        Err(WalError::Corrupt(_)) => shared.metrics.wal_read_failures.add(1),
        Err(_) => {}
    }
    result
}

fn attempt(
    shared: &Shared,
    log: &Log,
    group: GroupId,
    range: &Range<u64>,
    bytes_max: usize,
) -> Result<Vec<WalEntry>, WalError> {
    let (Some(first), Some(last)) = (log.first_index(group.0), log.last_index(group.0)) else {
        return Err(WalError::NotFound);
    };
    if range.start < first {
        return Err(WalError::Compacted { first });
    }
    let end = range.end.min(last + 1).min(range.start.saturating_add(ENTRIES_MAX));
    if range.start >= end {
        return Err(WalError::NotFound);
    }
    let mut stored = Vec::new();
    let mut fetch =
        |log: &Log| log.fetch_entries_to::<Framing>(group.0, range.start, end, Some(bytes_max), &mut stored);
    // The engine verifies the checksum of every block it reads, and panics on an entry with a foreign index inside an intact one.
    let fetched = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fetch(log)));
    match fetched {
        Ok(Ok(_)) => checked(stored, range.start).map_err(WalError::Corrupt),
        // Compacted since the look above.
        Ok(Err(raft_engine::Error::EntryCompacted)) => {
            Err(WalError::Compacted { first: log.first_index(group.0).unwrap_or(last + 1) })
        }
        Ok(Err(error)) => Err(WalError::from_engine(&error, || (0, shared.config.reserve_bytes))),
        Err(panic) => Err(WalError::Corrupt(crate::fatal::panic_message(&*panic).to_owned())),
    }
}

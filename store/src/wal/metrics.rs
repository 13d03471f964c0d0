//! Figures of the log. Each cell has one writer: the thread its comment names.

bifro_core::metric_cells! {
    /// The cells of a node's log: `wal_write*`, `wal_sync*`, `wal_append*`, `wal_refused*`, `wal_space*` belong to the writer thread,
    /// `wal_read*` to the reader, `wal_purge*` to the purger.
    WalMetrics {
        wal_writes: Counter, "Merged batches written to the log.";
        wal_write_batches: Counter, "Batches of shards merged into those writes.";
        wal_write_bytes: Counter, "Bytes written to the log, framing included.";
        wal_write_micros: Counter, "Microseconds spent writing, and syncing if syncing is on.";
        wal_appended_entries: Counter, "Entries appended to the log.";
        wal_append_bytes: Counter, "Bytes of entries appended to the log, before framing.";
        wal_refused_appends: Counter, "Appends refused for want of space, or because they followed a refused one.";
        wal_space_free_bytes: Gauge, "Free bytes of the log's file system, as last seen.";
        wal_space_short: Gauge, "1 while new proposals are refused for want of space.";
        wal_reads: Counter, "Reads of old entries.";
        wal_read_bytes: Counter, "Bytes of old entries read.";
        wal_read_failures: Counter, "Reads of old entries that found damage.";
        wal_purges: Counter, "Rounds of clearing old log files.";
        wal_purge_pinned: Counter, "Times a group was asked to checkpoint because it pins old log files.";
        wal_purge_failures: Counter, "Rounds of clearing that failed.";
    }
}

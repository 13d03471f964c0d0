//! The storage's figures, for whoever shows them.

use crate::kv::KvMetrics;
use crate::wal::WalMetrics;
use bifro_core::ids::RangeId;
use bifro_core::metrics::Kind;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Cells of the log and of all shards' spaces, and what is known of the ranges.
#[derive(Debug)]
pub struct StorageCells {
    wal: Arc<WalMetrics>,
    kv: Mutex<Vec<Arc<KvMetrics>>>,
    /// Ranges of persistent sessions that nobody leads, as one of the shards knows it.
    unled: Mutex<BTreeSet<RangeId>>,
}

impl StorageCells {
    pub(super) fn new(wal: Arc<WalMetrics>) -> Self {
        Self { wal, kv: Mutex::default(), unled: Mutex::default() }
    }

    /// Whether the log refuses new proposals for want of space.
    pub fn is_space_short(&self) -> bool {
        self.wal.wal_space_short.read() > 0
    }

    /// Ranges of persistent sessions that nobody leads, as far as is known here: they lack a majority of their replicas, or are about to
    /// have a leader.
    pub fn unled(&self) -> Vec<RangeId> {
        self.unled.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// A range has a leader, or has none any more. Said by one shard for all.
    pub(crate) fn set_unled(&self, range: RangeId, is_unled: bool) {
        let mut unled = self.unled.lock().unwrap_or_else(PoisonError::into_inner);
        if is_unled {
            unled.insert(range)
        } else {
            unled.remove(&range)
        };
    }

    /// Another shard's spaces.
    pub(super) fn add(&self, metrics: Arc<KvMetrics>) {
        self.kv.lock().unwrap_or_else(PoisonError::into_inner).push(metrics);
    }

    /// Visits every figure: name, kind, what it is, value. Those of spaces are sums over the shards.
    pub fn each(&self, mut visit: impl FnMut(&'static str, Kind, &'static str, u64)) {
        self.wal.each(&mut visit);
        // Every shard visits its cells in the same order, so a column is a figure.
        let mut columns: Vec<(&'static str, Kind, &'static str, u64)> = Vec::new();
        for shard in self.kv.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let mut column = 0;
            shard.each(|name, kind, help, value| {
                match columns.get_mut(column) {
                    Some(sum) => sum.3 += value,
                    None => columns.push((name, kind, help, value)),
                }
                column += 1;
            });
        }
        columns.into_iter().for_each(|(name, kind, help, value)| visit(name, kind, help, value));
    }
}

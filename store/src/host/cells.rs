//! The storage's figures, for whoever shows them.

use crate::kv::KvMetrics;
use crate::wal::WalMetrics;
use bifro_core::metrics::Kind;
use std::sync::{Arc, Mutex, PoisonError};

/// Cells of the log and of all shards' spaces.
#[derive(Debug)]
pub struct StorageCells {
    wal: Arc<WalMetrics>,
    kv: Mutex<Vec<Arc<KvMetrics>>>,
}

impl StorageCells {
    pub(super) fn new(wal: Arc<WalMetrics>) -> Self {
        Self { wal, kv: Mutex::new(Vec::new()) }
    }

    /// Whether the log refuses new proposals for want of space.
    pub fn is_space_short(&self) -> bool {
        self.wal.wal_space_short.read() > 0
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

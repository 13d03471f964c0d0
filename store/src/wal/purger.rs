//! The purger thread: clears old log files every few seconds and tells which groups keep it from doing so.

use super::batch::GroupId;
use super::port::WalEvent;
use super::shared::{Log, Shared};

/// The thread.
pub(super) fn run(shared: &Shared, log: &Log) {
    while !shared.is_stopping() && !shared.is_dead() {
        shared.purger.sleep(shared.config.purge_interval, || shared.is_stopping());
        if shared.is_stopping() {
            return;
        }
        purge(shared, log);
    }
}

fn purge(shared: &Shared, log: &Log) {
    let Some(result) = shared.guarded(log, "syncing a rewritten file", Log::purge_expired_files) else { return };
    shared.metrics.wal_purges.add(1);
    match result {
        Ok(pinning) => {
            shared.metrics.wal_purge_pinned.add(pinning.len() as u64);
            for group in pinning {
                shared.tell_all(&WalEvent::Pinned { group: GroupId(group) });
            }
        }
        // A full disk, or damage in an old entry: nothing is lost by waiting, and reads report the damage to who needs the entry.
        Err(_) => shared.metrics.wal_purge_failures.add(1),
    }
}

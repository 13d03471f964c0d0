//! The host and its log: batches out, tokens, refusals and old entries in.

use super::entry::from_wal;
use super::range::RefusedAppend;
use super::shard::{Host, RETRY, Submitted, Written};
use crate::wal::{WalEntry, WalError, WalEvent};
use bifro_core::ids::RangeId;
use bifro_core::time::Instant;
use bifro_raft::{FetchError, FetchId, Index, WriteId};

impl Host {
    /// Hands the log what has gathered.
    pub(super) fn submit(&mut self, now: Instant) {
        if self.batch.is_empty() {
            return;
        }
        match self.wal.submit(std::mem::take(&mut self.batch)) {
            Ok(token) => {
                let writes = std::mem::take(&mut self.batch_writes);
                self.submitted.push_back(Submitted { token, at: now, writes });
            }
            // What is queued is on its way; more joins this until then.
            Err(batch) => self.batch = batch,
        }
    }

    pub(super) fn handle_wal_event(&mut self, now: Instant, event: WalEvent) {
        match event {
            WalEvent::Durable { token } => {
                while let Some(Submitted { writes, .. }) = self.submitted.pop_front_if(|batch| batch.token <= token) {
                    for written in writes {
                        match written {
                            Written::Group(range, write) => self.handle_durable(now, range, write),
                            Written::Burial(range) => self.handle_burial_durable(range),
                        }
                    }
                }
            }
            WalEvent::Refused { group, from, error, .. } => {
                let id = RangeId(group.0);
                let Some(range) = self.ranges.get_mut(&id) else { return };
                if range.refused.is_none() {
                    tracing::warn!(range = %id, %error, "the log takes no more entries; they are kept in memory and tried again");
                }
                let durable = range.refused.and_then(|refused| refused.durable);
                let first = range.refused.map_or(from, |refused| refused.from.0.min(from));
                range.refused = Some(RefusedAppend { from: Index(first), retry_at: now + RETRY, durable });
                self.refused.insert(id);
            }
            WalEvent::Pinned { group } => {
                let id = RangeId(group.0);
                if let Some(range) = self.ranges.get_mut(&id) {
                    range.is_pinning = true;
                    self.swollen.insert(id);
                }
            }
            WalEvent::Entries { request, result, .. } => {
                // Nobody's if the replica is gone meanwhile.
                if let Some((range, fetch)) = self.fetches.remove(&request) {
                    self.handle_entries(now, range, fetch, result);
                }
            }
            // It is asked for when it matters.
            WalEvent::SpaceChanged(_) => {}
        }
    }

    fn handle_entries(&mut self, now: Instant, id: RangeId, fetch: FetchId, result: Result<Vec<WalEntry>, WalError>) {
        let entries = match result {
            Ok(entries) => entries.iter().map(from_wal).collect::<Option<Vec<_>>>().ok_or(FetchError::Failed),
            Err(WalError::Compacted { .. }) => Err(FetchError::Compacted),
            Err(_) => Err(FetchError::Failed),
        };
        if entries == Err(FetchError::Failed) {
            tracing::error!(range = %id, "entries of the log cannot be read back; they are asked for again");
        }
        self.with_group(id, |group| group.handle_fetched(now, fetch, entries));
    }

    fn handle_durable(&mut self, now: Instant, id: RangeId, write: WriteId) {
        let Some(range) = self.ranges.get_mut(&id) else { return };
        match &mut range.refused {
            None => self.multi.handle_durable(now, id, write),
            // The write was made but for the entries that were refused: told when those are written again.
            Some(refused) => refused.durable = Some(write),
        }
    }

    /// Writes once more what the log has refused.
    pub(super) fn retry_refused(&mut self, now: Instant) {
        for id in self.refused.clone() {
            let Some(range) = self.ranges.get_mut(&id) else { continue };
            let Some(refused) = range.refused.take_if(|refused| refused.retry_at <= now) else { continue };
            self.refused.remove(&id);
            // A snapshot may have taken the place of some of them. What is not durable is written again in any case.
            self.with_group(id, |group| group.handle_refused(now, refused.from.max(group.durable().next())));
            if let Some(write) = refused.durable {
                self.multi.handle_durable(now, id, write);
            }
        }
    }
}

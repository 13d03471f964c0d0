//! State machines at rest: checkpoints, what they let the log forget, and where the engine's answers go.

use super::entry::{LOG_START, write_log_id};
use super::shard::{Host, RETRY};
use crate::kv::{KvDone, KvError, Outcome, Transfer};
use crate::wal::GroupId;
use bifro_core::ids::RangeId;
use bifro_core::time::Instant;
use bifro_raft::Index;

impl Host {
    /// Begins the checkpoints that are due. A range that has one on its way is looked at again when that is done.
    pub(super) fn checkpoint(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.swollen) {
            let Some(range) = self.ranges.get_mut(&id) else { continue };
            if !range.wants_checkpoint() {
                continue;
            }
            if range.checkpoint_at > now {
                self.swollen.insert(id);
            } else {
                range.checkpoint();
            }
        }
    }

    /// Takes in a finished job of the engine; what it came to, if it was a read.
    pub(super) fn complete(&mut self, now: Instant, id: RangeId, done: KvDone) -> Option<Outcome> {
        let done = match done.into_transfer() {
            Ok(Transfer::Read { request, snapshot, result }) => {
                self.served(request, snapshot, result);
                return None;
            }
            Ok(Transfer::Installed { request, result }) => {
                self.stepped(now, id, request, result);
                return None;
            }
            Err(done) => done,
        };
        let Some(range) = self.ranges.get_mut(&id) else {
            self.complete_buried(id, done);
            return None;
        };
        match range.space.complete(done) {
            Outcome::Checkpointed { applied, snapshot } => {
                self.swollen.insert(id);
                self.compact(id, Index(applied));
                if let Some((_, snapshot)) = snapshot {
                    self.offer(now, id, snapshot);
                }
                None
            }
            Outcome::Failed { request: None, error } => {
                self.checkpoint_failed(now, id, &error);
                None
            }
            read => Some(read),
        }
    }

    /// The base has everything up to `applied`: the log need not, but for peers that are a little behind.
    fn compact(&mut self, id: RangeId, applied: Index) {
        let (Some(group), Some(range)) = (self.multi.input(id), self.ranges.get_mut(&id)) else { return };
        let kept = if std::mem::take(&mut range.is_unpinning) { 0 } else { self.replication.kept_entries };
        let lacking = group.membership().members().into_iter().filter_map(|node| group.matched(node)).min();
        let least = Index(applied.0.saturating_sub(kept));
        group.compact(lacking.map_or(applied, |matched| matched.clamp(least, applied)));
        let start = group.log_start();
        let group = GroupId(id.0);
        self.batch.compact_to(group, start.index.0 + 1);
        self.batch.put_record(group, LOG_START, write_log_id(Vec::new(), start));
    }

    fn checkpoint_failed(&mut self, now: Instant, id: RangeId, error: &KvError) {
        match error {
            KvError::NoSpace { .. } | KvError::Corrupt { .. } => {
                tracing::error!(range = %id, %error, "a checkpoint failed; it is tried again, and the log grows meanwhile");
                if let Some(range) = self.ranges.get_mut(&id) {
                    range.checkpoint_at = now + RETRY;
                    // What was frozen is to be written whether or not more gathers.
                    range.is_pinning = true;
                }
                self.swollen.insert(id);
                self.withdraw(now, id);
            }
            error => (self.fatal)(&format!("{id}: {error}")),
        }
    }
}

//! What is durable, and what follows from that.

use super::Group;
use crate::types::{Index, WriteId};
use bifro_core::time::Instant;

/// A write that was handed out.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingWrite {
    pub(super) write: WriteId,
    /// Where the log ends with it, as far as that has not been replaced by a later write.
    pub(super) last: Index,
}

impl Group {
    /// The write and all before it have been synced.
    ///
    /// # Panics
    /// If it was not handed out: the host mistakes one group for another.
    pub fn handle_durable(&mut self, now: Instant, write: WriteId) {
        self.advance(now);
        assert!(write <= self.last_write, "only what was handed out can be durable");
        self.durable_write = self.durable_write.max(write);
        while let Some(done) = self.writes.front().copied()
            && done.write <= write
        {
            self.log.mark_durable(done.last);
            self.writes.pop_front();
        }
        self.count_own_vote();
        self.advance_commit();
    }

    /// The log has not taken the entries from `first` on, for want of space: the next turn hands them out once more, in a write of its own.
    /// The writes they were part of are reported durable as ever, and stand for the rest of what was in them.
    ///
    /// # Panics
    /// If they are durable.
    pub fn handle_refused(&mut self, now: Instant, first: Index) {
        self.advance(now);
        self.log.unwrite(first);
        self.limit_pending_writes(first.previous());
    }

    /// Entries from `index` on are replaced: writes under way no longer make them durable.
    pub(super) fn truncate_from(&mut self, index: Index) {
        self.log.truncate_from(index);
        self.limit_pending_writes(index.previous());
        if self.members.truncate_from(index) {
            self.note_members_changed();
        }
    }

    pub(super) fn limit_pending_writes(&mut self, last: Index) {
        self.writes.iter_mut().for_each(|pending| pending.last = pending.last.min(last));
    }
}

//! The follower's side of replication (Raft section 5.3).

use super::Group;
use super::output::Needs;
use crate::error::Violation;
use crate::message::{Body, Round};
use crate::mutation::Mutation;
use crate::types::{Entry, EntryKind, Index, LogId};
use alloc::vec::Vec;
use bifro_core::ids::NodeId;

impl Group {
    pub(super) fn handle_append(
        &mut self,
        from: NodeId,
        prev: LogId,
        entries: Vec<Entry>,
        commit: Index,
        round: Round,
    ) -> Result<(), Violation> {
        if self.log.undurable_bytes() >= self.config.pending_bytes_max {
            // The leader sends it again when the log has caught up: to it the message was lost.
            return Ok(());
        }
        let matched = entries.last().map_or(prev, |entry| entry.id).index;
        let committed = self.log.committed();
        if !self.agrees_at(prev) && prev.index > committed && !self.is_planted(Mutation::SkipLogMatching) {
            let hint = self.log.last_not_above(prev.index, prev.term);
            self.send(from, Body::Rejected { at: prev.index, hint, round });
            return Ok(());
        }
        let contradicts = |id: LogId| self.log.term_at(id.index).is_some_and(|term| term != id.term);
        let below = entries.iter().map(|entry| entry.id).take_while(|id| id.index <= committed);
        if let Some(id) = core::iter::once(prev).chain(below).find(|id| id.index <= committed && contradicts(*id)) {
            return Err(Violation::ContradictsCommitted { at: id.index });
        }
        entries.into_iter().filter(|entry| entry.id.index > committed).for_each(|entry| self.take_over(entry));
        if self.log.mark_committed(commit.min(matched)) {
            self.note_committed();
        }
        self.accept(from, matched, round);
        Ok(())
    }

    /// Confirms that the log agrees with the leader's up to `matched`, once it is durable.
    pub(super) fn accept(&mut self, from: NodeId, matched: Index, round: Round) {
        let needs = if self.is_planted(Mutation::AcceptWithoutSync) { Needs::Nothing } else { Needs::Log };
        self.send_after(from, Body::Accepted { matched, round }, needs);
    }

    pub(super) fn handle_heartbeat(&mut self, from: NodeId, commit: Index, round: Round, quiesce: bool) {
        if self.log.mark_committed(commit) {
            self.note_committed();
        }
        if quiesce && commit == self.log.last().index && self.log.durable() == commit {
            self.quiet_round = round;
            self.fall_quiet();
        } else {
            self.send(from, Body::HeartbeatReply { round });
        }
    }

    fn agrees_at(&self, prev: LogId) -> bool {
        self.log.term_at(prev.index) == Some(prev.term)
    }

    /// Appends a leader's entry, in place of one of another term and everything behind that.
    fn take_over(&mut self, entry: Entry) {
        match self.log.term_at(entry.id.index) {
            Some(term) if term == entry.id.term => return,
            Some(_) => self.truncate_from(entry.id.index),
            None if entry.id.index != self.log.last().index.next() || entry.id.term < self.log.last().term => {
                // Only a planted mistake comes here.
                return;
            }
            None => {}
        }
        if let EntryKind::Membership(membership) = &entry.kind {
            self.members.push(entry.id.index, membership.clone());
            self.log.append(entry);
            self.note_members_changed();
        } else {
            self.log.append(entry);
        }
    }
}

//! The leader's reign: how it begins, what it commits, when it ends.

use super::leader::Leader;
use super::progress::Progress;
use super::timers::Timer;
use super::{Group, State};
use crate::error::ProposeError;
use crate::mutation::Mutation;
use crate::types::{EntryKind, Index, LogId};
use alloc::borrow::Cow;
use alloc::boxed::Box;
use bifro_core::ids::NodeId;
use bifro_core::time::Instant;
use bytes::Bytes;

use crate::membership::Membership;

impl Group {
    /// Adds an entry to the log. Its fate is told by [`crate::Effect::Apply`]: an entry handed out at its index either is
    /// this one, which the term tells, or has taken its place for ever.
    ///
    /// # Errors
    /// If it was not added.
    pub fn propose(&mut self, now: Instant, data: Bytes) -> Result<LogId, ProposeError> {
        self.advance(now);
        let State::Leader(leader) = &mut self.state else {
            return Err(ProposeError::NotLeader { leader: self.leader });
        };
        if let Some(transfer) = leader.transfer {
            return Err(ProposeError::Transferring { to: transfer.to });
        }
        if data.len() > self.config.proposal_bytes_max {
            return Err(ProposeError::TooLarge { bytes_max: self.config.proposal_bytes_max });
        }
        let pending = self.log.pending_entries();
        let bytes = self.log.pending_bytes();
        let full = pending >= self.config.pending_entries_max || bytes >= self.config.pending_bytes_max;
        if pending > 0 && full {
            return Err(ProposeError::Busy);
        }
        leader.busy_at = self.now;
        self.wake();
        Ok(self.append_own(EntryKind::Data(data)))
    }

    /// A quorum has voted, durably.
    pub(super) fn become_leader(&mut self) {
        assert!(matches!(self.state, State::Candidate { .. }), "only a candidate is elected");
        let first = self.log.last().index.next();
        self.state = State::Leader(Box::new(Leader::new(self.now, first)));
        self.leader = Some(self.identity.node);
        self.timers.clear(Timer::Election);
        self.append_own(EntryKind::Noop);
        self.note_members_changed();
    }

    /// The members that count are others, or the leader is new: peers and timers follow.
    pub(super) fn note_members_changed(&mut self) {
        let (node, now, next) = (self.identity.node, self.now, self.log.last().index);
        let members = self.members.current().members();
        let State::Leader(leader) = &mut self.state else {
            if self.watches_leader() != self.timers.is_set(Timer::Election) {
                self.arm_election();
            }
            return;
        };
        leader.peers.retain(|peer, _| members.contains(peer));
        for peer in members.into_iter().filter(|peer| *peer != node) {
            leader.peers.entry(peer).or_insert_with(|| Progress::new(now, next));
        }
        if leader.peers.is_empty() {
            [Timer::Heartbeat, Timer::CheckQuorum].into_iter().for_each(|timer| self.timers.clear(timer));
        } else if !self.timers.is_set(Timer::Heartbeat) {
            self.arm_leader_timers();
        }
    }

    pub(super) fn arm_leader_timers(&mut self) {
        self.timers.set(Timer::Heartbeat, self.now + self.config.heartbeat);
        self.timers.set(Timer::CheckQuorum, self.now + self.config.election_timeout);
    }

    pub(super) fn handle_heartbeat_timeout(&mut self) {
        let Some(leader) = self.leader_state() else { return };
        leader.beat = true;
        self.timers.set(Timer::Heartbeat, self.now + self.config.heartbeat);
    }

    /// A leader that no quorum answers gives up, so that its clients look for another (dissertation, 6.2).
    pub(super) fn check_quorum(&mut self) {
        let (node, now) = (self.identity.node, self.now);
        let State::Leader(leader) = &self.state else { return };
        let heard = |peer: NodeId| {
            if peer == node { now } else { leader.peers.get(&peer).map_or(Instant::default(), |p| p.heard) }
        };
        let since = self.counted_members().reached_by_quorum(heard);
        if now.since(since) > self.config.election_timeout {
            self.step_down();
        } else {
            self.timers.set(Timer::CheckQuorum, now + self.config.election_timeout);
        }
    }

    /// Commits what a quorum has durably, if it is of this term; with it everything before (Raft sections 5.3 and 5.4.2).
    pub(super) fn advance_commit(&mut self) {
        let State::Leader(leader) = &self.state else { return };
        let own =
            if self.is_planted(Mutation::CountUnsyncedLeader) { self.log.last().index } else { self.log.durable() };
        let node = self.identity.node;
        let matched =
            |peer: NodeId| if peer == node { own } else { leader.peers.get(&peer).map_or(Index::ZERO, |p| p.matched) };
        let reached = self.counted_members().reached_by_quorum(matched);
        let of_this_term = self.log.term_at(reached) == Some(self.term());
        if (of_this_term || self.is_planted(Mutation::CommitOldTerm)) && self.log.mark_committed(reached) {
            self.note_committed();
        }
    }

    /// More is committed.
    pub(super) fn note_committed(&mut self) {
        let committed = self.log.committed();
        self.members.commit(committed);
        let now = self.now;
        let Some(leader) = self.leader_state() else { return };
        leader.busy_at = now;
        if leader.first <= committed && self.members.since() <= committed {
            self.finish_change();
        }
    }

    /// The members that decide.
    pub(super) fn counted_members(&self) -> Cow<'_, Membership> {
        if self.is_planted(Mutation::ForgetOutgoingQuorum) {
            return Cow::Owned(self.members.current().without_outgoing());
        }
        Cow::Borrowed(self.members.current())
    }
}

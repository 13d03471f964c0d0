//! Changing the members: by way of a joint phase whenever the voters change (Raft section 6), at once if only learners do.

use super::{Group, State};
use crate::error::ChangeError;
use crate::limits::CATCH_UP_ENTRIES_MAX;
use crate::membership::Membership;
use crate::message::Body;
use crate::types::{EntryKind, Index, LogId};
use alloc::vec::Vec;
use bifro_core::ids::NodeId;
use bifro_core::time::Instant;

impl Group {
    /// Changes the members to these. The joint phase is left by itself when it is committed; the change is done when an
    /// entry with the final members is applied. A leader that is no longer among the voters then hands over.
    ///
    /// # Errors
    /// If nothing was begun.
    pub fn change_membership(
        &mut self,
        now: Instant,
        voters: Vec<NodeId>,
        learners: Vec<NodeId>,
    ) -> Result<LogId, ChangeError> {
        self.advance(now);
        let target = Membership::new(voters, learners);
        let State::Leader(leader) = &self.state else {
            return Err(ChangeError::NotLeader { leader: self.leader });
        };
        if let Some(transfer) = leader.transfer {
            return Err(ChangeError::Transferring { to: transfer.to });
        }
        let current = self.members.current();
        if !target.is_well_formed() || !current.joint_with(&target).is_well_formed() {
            return Err(ChangeError::Malformed);
        }
        let committed = self.log.committed();
        if current.is_joint() || self.members.since() > committed || leader.first > committed {
            return Err(ChangeError::Pending);
        }
        if *current == target {
            return Err(ChangeError::Unchanged);
        }
        let catching_up = |node: &NodeId| -> Option<Index> {
            let matched = leader.peers.get(node).map_or(Index::ZERO, |peer| peer.matched);
            let lags = self.log.last().index.0 - matched.0 > CATCH_UP_ENTRIES_MAX;
            (*node != self.identity.node && !current.is_voter(*node) && lags).then_some(matched)
        };
        if let Some((node, matched)) = target.voters.iter().find_map(|node| Some((*node, catching_up(node)?))) {
            return Err(ChangeError::NotCaughtUp { node, matched });
        }
        let next = if target.voters == current.voters { target } else { current.joint_with(&target) };
        Ok(self.append_members(next))
    }

    fn append_members(&mut self, members: Membership) -> LogId {
        let now = self.now;
        if let Some(leader) = self.leader_state() {
            leader.busy_at = now;
        }
        self.wake();
        let id = self.append_own(EntryKind::Membership(members));
        self.note_members_changed();
        id
    }

    /// The newest change is committed: leave the joint phase, or the leadership if it was given up with it.
    pub(super) fn finish_change(&mut self) {
        let current = self.members.current();
        if current.is_joint() {
            let next = current.without_outgoing();
            self.append_members(next);
        } else if !current.is_voter(self.identity.node) {
            self.leave_leadership();
        }
    }

    /// Steps down and has the best voter campaign.
    fn leave_leadership(&mut self) {
        let State::Leader(leader) = &self.state else { return };
        let voters = leader.peers.iter().filter(|(node, _)| self.members.current().is_voter(**node));
        let best = voters.max_by_key(|(_, peer)| peer.matched).map(|(node, _)| *node);
        // They learn of the commit before the message that makes them campaign.
        self.replicate();
        if let Some(best) = best {
            self.send(best, Body::TimeoutNow);
        }
        self.step_down();
    }
}

//! Elections, from the voter's side.
//!
//! Who has heard from a leader within an election timeout votes for nobody else and does not even take note of the
//! candidate's term (Raft section 6, dissertation 4.2.3). Leases rest on this, so it also binds a replica that has just
//! started: it cannot know whom it heard before.

use super::output::Needs;
use super::{Group, State};
use crate::message::Body;
use crate::mutation::Mutation;
use crate::types::{LogId, Term};
use bifro_core::ids::NodeId;

impl Group {
    /// Whether a leader is believed to be alive.
    fn has_live_leader(&self) -> bool {
        let heard = self.heard.is_some_and(|heard| self.now.since(heard) < self.config.election_timeout);
        self.quiet || heard || matches!(self.state, State::Leader(_))
    }

    pub(super) fn handle_pre_vote(&mut self, from: NodeId, term: Term, last: LogId) {
        let refused = term < self.term() || self.has_live_leader() || last < self.least_log();
        self.wake_for(from);
        self.send(from, Body::PreVoteReply { asked_in: term, granted: !refused });
    }

    pub(super) fn handle_vote(&mut self, from: NodeId, term: Term, last: LogId, transfer: bool) {
        if term < self.term() {
            return self.send(from, Body::VoteReply { granted: false });
        }
        let bound = !transfer && self.has_live_leader() && !self.is_planted(Mutation::VoteDespiteLeader);
        if term > self.term() {
            if bound {
                return self.wake_for(from);
            }
            self.enter_term(term);
        }
        // In the candidate's term already, by another message, the promise to the leader of an earlier one still holds.
        let again = self.hard_state.vote == Some(from);
        let free = (self.hard_state.vote.is_none() && !bound) || again || self.is_planted(Mutation::VoteTwice);
        let up_to_date = last >= self.least_log() || self.is_planted(Mutation::VoteForStaleLog);
        let granted = free && up_to_date && self.leader.is_none();
        if granted {
            self.hard_state_changed |= self.hard_state.vote != Some(from);
            self.hard_state.vote = Some(from);
            self.arm_election();
        }
        let needs = if self.is_planted(Mutation::VoteWithoutSync) { Needs::Nothing } else { Needs::HardState };
        self.send_after(from, Body::VoteReply { granted }, needs);
    }

    /// Where a candidate's log must reach to get a vote (Raft section 5.4.1).
    fn least_log(&self) -> LogId {
        self.log.last().max(self.hard_state.removed)
    }

    /// Somebody doubts that the leader lives: reason enough to be no longer quiet, if it is a member. A replica that does not
    /// know that it was removed doubts for ever.
    fn wake_for(&mut self, candidate: NodeId) {
        if self.quiet && self.members.current().contains(candidate) {
            self.wake();
        }
    }

    /// Whoever leads in this term has spoken.
    pub(super) fn follow(&mut self, leader: NodeId) {
        if !matches!(self.state, State::Follower) {
            self.state = State::Follower;
        }
        self.leader = Some(leader);
        self.heard = Some(self.now);
        self.quiet = false;
        self.arm_election();
    }

    /// Forgets the promise that a restarted replica must assume it gave.
    #[cfg(feature = "mutations")]
    pub(crate) fn forget_promise(&mut self) {
        self.heard = None;
    }
}

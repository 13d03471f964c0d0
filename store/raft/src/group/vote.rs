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
        let refused = term < self.term() || self.has_live_leader() || last < self.log.last();
        if self.quiet {
            self.wake();
        }
        self.send(from, Body::PreVoteReply { asked_in: term, granted: !refused });
    }

    pub(super) fn handle_vote(&mut self, from: NodeId, term: Term, last: LogId, transfer: bool) {
        if term < self.term() {
            return self.send(from, Body::VoteReply { granted: false });
        }
        if term > self.term() {
            if !transfer && self.has_live_leader() && !self.is_planted(Mutation::VoteDespiteLeader) {
                if self.quiet {
                    self.wake();
                }
                return;
            }
            self.enter_term(term);
        }
        let free = self.hard_state.vote.is_none_or(|vote| vote == from) || self.is_planted(Mutation::VoteTwice);
        let up_to_date = last >= self.log.last() || self.is_planted(Mutation::VoteForStaleLog);
        let granted = free && up_to_date && self.leader.is_none();
        if granted {
            self.hard_state_changed |= self.hard_state.vote != Some(from);
            self.hard_state.vote = Some(from);
            self.arm_election();
        }
        let needs = if self.is_planted(Mutation::VoteWithoutSync) { Needs::Nothing } else { Needs::HardState };
        self.send_after(from, Body::VoteReply { granted }, needs);
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

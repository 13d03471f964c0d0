//! What is always true between two calls.

use super::timers::Timer;
use super::{Group, State};
use crate::limits::READS_PENDING_MAX;

impl Group {
    /// Checks what must be true between any two calls. Cheap enough for every turn of a test, not for every turn of a broker.
    ///
    /// # Panics
    /// If the replica contradicts itself.
    pub fn validate(&self) {
        self.log.validate();
        assert!(self.log.last().term <= self.term(), "no entry is of a later term");
        assert!(self.durable_write <= self.last_write, "only what was written is durable");
        assert!(self.hard_state_write <= self.last_write, "only what was written is durable");
        let in_order = self.writes.iter().zip(self.writes.iter().skip(1)).all(|(a, b)| a.write < b.write);
        assert!(in_order, "writes are in order");
        assert!(self.confirmed_reads.len() <= READS_PENDING_MAX, "reads are bounded");
        if self.quiet {
            let leads = matches!(self.state, State::Leader(_));
            assert!(leads || matches!(self.state, State::Follower), "a quiet group has a leader and followers");
            assert!(!self.timers.is_set(Timer::Election), "a quiet group has no timers");
        }
        match &self.state {
            State::Follower => {}
            State::PreCandidate { .. } => assert!(self.leader.is_none(), "candidates have no leader"),
            State::Candidate { .. } => {
                assert!(self.hard_state.vote == Some(self.identity.node), "a candidate votes for itself");
            }
            State::Leader(leader) => {
                assert!(self.leader == Some(self.identity.node), "a leader knows that it leads");
                assert!(!leader.peers.contains_key(&self.identity.node), "a leader is not its own peer");
                assert!(leader.reads.len() <= READS_PENDING_MAX, "reads are bounded");
                assert!(!self.timers.is_set(Timer::Election), "a leader does not campaign");
                let last = self.log.last().index;
                leader.peers.values().for_each(|peer| peer.validate(last));
                let known = |node| leader.peers.contains_key(node) || *node == self.identity.node;
                assert!(self.members.current().members().iter().all(known), "every member is known");
            }
        }
    }
}

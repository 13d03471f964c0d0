//! A group that has lost its majority for good, made anew of one replica. No part of Raft: what only the lost replicas had is lost, and
//! should one of them come back, it must not be heard. Whoever asks for this has to see to that, and that nobody else leads who lives.
//!
//! The replica becomes the sole voter by an entry of a term of its own, which lies far beyond all that others may have been in, and from
//! then on everything is as Raft has it: the entry counts as soon as it is in the log, and with the commit of the leader's first one all before
//! is committed, whether or not it was. Of the replicas that are left it has to be one whose log is the most up to date: then it has everything
//! that any of them knows to be committed (Raft, section 5.4.1), and whatever they have beyond it can be replaced.

use super::{Group, State};
use crate::error::ForceError;
use crate::membership::Membership;
use crate::types::{EntryKind, LogId, Term};
use alloc::collections::BTreeMap;
use bifro_core::time::Instant;

/// So many terms further than any that is known: candidates of the lost majority have seen a few more.
const TERMS_LEFT_OUT: u64 = 1_000;

impl Group {
    /// Makes this replica the only voter. `newest` is the newest term that any replica which is left has seen.
    ///
    /// # Errors
    /// If nothing was begun.
    pub fn force_sole_voter(&mut self, now: Instant, newest: Term) -> Result<LogId, ForceError> {
        self.advance(now);
        let (node, members) = (self.identity.node, self.members.current());
        if matches!(self.state, State::Leader(_)) {
            return Err(ForceError::Leads);
        }
        if self.installing.is_some() {
            return Err(ForceError::Installing);
        }
        // Without members it has only just been made, and the group is to begin with it.
        if !members.is_empty() && !members.contains(node) {
            return Err(ForceError::NoMember);
        }
        self.enter_term(Term(self.term().max(newest).0 + TERMS_LEFT_OUT));
        self.hard_state.vote = Some(node);
        let id = self.append_own(EntryKind::Membership(Membership::single(node)));
        // Elected when its own vote is durable, which is written together with the entry.
        self.state = State::Candidate { votes: BTreeMap::new() };
        self.arm_election();
        Ok(id)
    }
}

//! Linearizable reads: what was acknowledged before the read was asked for is in the state machine when it is answered.
//!
//! A read notes the commit index (at least the reign's first entry, before whose commit the leader does not know what is
//! committed), makes sure that this still is the leader, and waits until that index is applied (dissertation, 6.4). To make
//! sure, either a quorum answers a message that was sent after the read was asked for, or the lease is running: a quorum
//! answered a message sent less than [`crate::Config::lease`] ago, and until an election timeout after it none of them votes
//! for another.

use super::leader::WaitingRead;
use super::{Group, State};
use crate::effect::Effect;
use crate::error::ReadError;
use crate::limits::READS_PENDING_MAX;
use crate::message::Round;
use crate::mutation::Mutation;
use crate::types::ReadId;
use alloc::vec::Vec;
use bifro_core::ids::NodeId;
use bifro_core::time::Instant;

impl Group {
    /// Asks for the moment at which the state machine may be read: [`Effect::ReadReady`], or [`Effect::ReadFailed`] if
    /// leadership is lost before.
    ///
    /// # Errors
    /// If it was not taken.
    pub fn read_index(&mut self, now: Instant, read: ReadId) -> Result<(), ReadError> {
        self.advance(now);
        let waiting = self.confirmed_reads.len();
        let committed = self.log.committed();
        let has_lease = self.has_lease();
        let alone = self.members.current().is_sole_voter(self.identity.node);
        let certain = has_lease || alone || self.is_planted(Mutation::ReadWithoutQuorum);
        let State::Leader(leader) = &mut self.state else {
            return Err(ReadError::NotLeader { leader: self.leader });
        };
        if waiting + leader.reads.len() >= READS_PENDING_MAX {
            return Err(ReadError::Busy);
        }
        leader.busy_at = self.now;
        let index = committed.max(leader.first);
        if certain {
            self.confirmed_reads.push_back((read, index));
        } else {
            leader.wants_round = true;
            leader.reads.push_back(WaitingRead { read, index, round: Round(leader.round.0 + 1) });
            self.wake();
        }
        Ok(())
    }

    /// Whether the lease is running.
    fn has_lease(&self) -> bool {
        let State::Leader(leader) = &self.state else { return false };
        let Some((_, began)) = leader.confirmed else { return false };
        let running = self.now.since(began) < self.config.lease() || self.is_planted(Mutation::EternalLease);
        self.config.lease_reads && running && !leader.lease_forfeited
    }

    /// Notes what a quorum has answered.
    pub(super) fn confirm_rounds(&mut self) {
        let node = self.identity.node;
        let State::Leader(leader) = &self.state else { return };
        let current = leader.round;
        let acked =
            |peer: NodeId| if peer == node { current } else { leader.peers.get(&peer).map_or(Round(0), |p| p.acked) };
        let confirmed = self.counted_members().reached_by_quorum(acked);
        let State::Leader(leader) = &mut self.state else { return };
        leader.confirm(confirmed);
        while let Some(waiting) = leader.reads.front().copied()
            && waiting.round <= confirmed
        {
            leader.reads.pop_front();
            self.confirmed_reads.push_back((waiting.read, waiting.index));
        }
    }

    /// Leadership is lost: what was not confirmed cannot be answered here.
    pub(super) fn fail_reads(&mut self) {
        let State::Leader(leader) = &mut self.state else { return };
        let failed = leader.reads.drain(..).map(|waiting| Effect::ReadFailed { read: waiting.read });
        self.events.extend(failed);
    }

    /// Answers what the state machine has reached.
    pub(super) fn answer_reads(&mut self, out: &mut Vec<Effect>) {
        let applied = self.log.applied();
        while let Some((read, index)) = self.confirmed_reads.front().copied()
            && index <= applied
        {
            self.confirmed_reads.pop_front();
            out.push(Effect::ReadReady { read, index });
        }
    }
}

//! Quiescence: an idle group sends nothing and has no timers. The leader's node being alive, which the underlay watches once
//! for all groups, stands for the leader being alive.
//!
//! A leader lets the group go quiet when everybody has everything, knows it to be committed, and has said so lately: a learner that
//! misses the heartbeat which says that the group goes quiet must not miss anything else, since it never asks. A follower agrees only
//! if it knows all to be committed; otherwise it answers, and the leader wakes. Quiet is only the absence of timers: no safety
//! argument counts on it, and a lease runs out while it lasts.

use super::timers::Timer;
use super::{Group, State};
use crate::message::Body;
use bifro_core::ids::NodeId;
use bifro_core::time::Instant;
use core::time::Duration;

impl Group {
    /// The underlay has declared a node dead. A quiet group that it belongs to wakes.
    pub fn handle_node_down(&mut self, now: Instant, node: NodeId) {
        self.advance(now);
        if !self.quiet {
            return;
        }
        if matches!(self.state, State::Leader(_)) {
            if self.members.current().contains(node) {
                self.wake();
            }
        } else if self.leader.is_none_or(|leader| leader == node) {
            self.quiet = false;
            // Every group that the node led wakes now: they campaign at different times.
            let timeout = self.config.election_timeout.as_micros() as u64;
            let delay = Duration::from_micros(self.rng.below(timeout));
            self.arm_election_in(delay);
        }
    }

    /// Whether everybody has everything, and nothing has happened for a while.
    pub(super) fn may_fall_quiet(&self) -> bool {
        let (State::Leader(leader), Some(after)) = (&self.state, self.config.quiesce_after) else { return false };
        let idle = leader.beat && self.now.since(leader.busy_at) >= after && !leader.wants_round;
        let last = self.log.last().index;
        let done = self.log.applied() == last && self.log.durable() == last && !self.members.current().is_joint();
        let waiting = leader.transfer.is_some() || !leader.reads.is_empty() || leader.peers.is_empty();
        let lately = self.config.heartbeat * 3;
        let settled = leader.peers.values().all(|peer| peer.knows_all(last) && self.now.since(peer.heard) <= lately);
        idle && done && !waiting && settled
    }

    /// No more timers.
    pub(super) fn fall_quiet(&mut self) {
        self.quiet = true;
        for timer in [Timer::Heartbeat, Timer::CheckQuorum, Timer::Election] {
            self.timers.clear(timer);
        }
        if let Some(leader) = self.leader_state() {
            leader.quiet_round = Some(leader.round);
        }
    }

    /// There is something to do again, or a doubt.
    pub(super) fn wake(&mut self) {
        if !self.quiet {
            return;
        }
        self.quiet = false;
        let now = self.now;
        if let Some(leader) = self.leader_state() {
            leader.quiet_round = None;
            leader.busy_at = now;
            leader.beat = true;
            self.arm_leader_timers();
        } else {
            // Until now the leader was taken to be alive. If it is, this wakes it, and its heartbeat comes before an election does.
            self.heard = Some(now);
            self.arm_election();
            if let Some(leader) = self.leader {
                self.send(leader, Body::HeartbeatReply { round: self.quiet_round });
            }
        }
    }
}

//! The promise that leases rest on: who has heard from a leader within an election timeout, or cannot know because it has just
//! started, votes for nobody else, unless the leader itself has asked for the election (Raft section 6, dissertation 6.4.1).

use bifro_core::ids::NodeId;
use bifro_core::time::Instant;
use bifro_raft::{Batch, Body};
use std::time::Duration;

/// Whether a batch has a vote that a leader wanted.
pub(crate) fn is_released_by(batch: &Batch) -> bool {
    batch.messages.iter().any(|(_, message)| matches!(message.body, Body::Vote { transfer: true, .. }))
}

/// What one replica has promised.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeasePromise {
    /// When, by its own clock, it last heard from a leader, or was started.
    heard: Instant,
    /// In this turn somebody campaigned because the leader asked for it.
    released: bool,
}

impl LeasePromise {
    /// A replica that starts now.
    pub(crate) fn new(now: Instant) -> Self {
        Self { heard: now, released: false }
    }

    /// The leader has spoken, and was believed.
    pub(crate) fn note_heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// A turn begins, with a vote that a leader wanted or without.
    pub(crate) fn begin_turn(&mut self, released: bool) {
        self.released = released;
    }

    /// The replica votes for somebody else.
    pub(crate) fn check_vote(&self, node: NodeId, candidate: NodeId, now: Instant, election_timeout: Duration) {
        let since = now.since(self.heard);
        let free = self.released || since >= election_timeout;
        assert!(free, "lease promise: {node} votes for {candidate} {since:?} after it heard from a leader or started");
    }
}

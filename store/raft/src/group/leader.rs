//! What only a leader keeps.

use super::progress::Progress;
use crate::message::Round;
use crate::types::{Index, ReadId};
use alloc::collections::{BTreeMap, VecDeque};
use bifro_core::ids::NodeId;
use bifro_core::time::Instant;

/// State of a reign. Gone with it.
#[derive(Debug)]
pub(super) struct Leader {
    /// Everybody else who is sent the log.
    pub(super) peers: BTreeMap<NodeId, Progress>,
    /// The reign's first entry; nothing is known to be committed before it is.
    pub(super) first: Index,
    /// The current round.
    pub(super) round: Round,
    /// Rounds not yet confirmed, with the moment at which each began.
    pub(super) rounds: VecDeque<(Round, Instant)>,
    /// The newest round that a quorum has answered, and when it began.
    pub(super) confirmed: Option<(Round, Instant)>,
    /// Reads waiting for their round, in order.
    pub(super) reads: VecDeque<WaitingRead>,
    /// A round must begin for reads that were asked for in this turn.
    pub(super) wants_round: bool,
    /// A peer is asked again where its log agrees, in a round of its own.
    pub(super) asks_anew: bool,
    /// Heartbeats are due in this turn.
    pub(super) beat: bool,
    /// Handing over.
    pub(super) transfer: Option<Transfer>,
    /// Somebody was told to campaign in spite of the lease: there are no leases any more in this term, however late that
    /// message arrives.
    pub(super) lease_forfeited: bool,
    /// When there was last something to do.
    pub(super) busy_at: Instant,
    /// The heartbeat with which the group went quiet; only answers to newer ones wake it.
    pub(super) quiet_round: Option<Round>,
}

/// A read that waits for a quorum's confirmation.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingRead {
    pub(super) read: ReadId,
    /// What must be applied before it is answered.
    pub(super) index: Index,
    /// The round that must be confirmed; it begins at the end of the turn.
    pub(super) round: Round,
}

/// A transfer of leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) to: NodeId,
    /// Whether it was told to campaign.
    pub(super) told: bool,
}

impl Leader {
    pub(super) fn new(now: Instant, first: Index) -> Self {
        Self {
            peers: BTreeMap::new(),
            first,
            round: Round(0),
            rounds: VecDeque::new(),
            confirmed: None,
            reads: VecDeque::new(),
            wants_round: false,
            asks_anew: false,
            beat: true,
            transfer: None,
            lease_forfeited: false,
            busy_at: now,
            quiet_round: None,
        }
    }

    /// Begins a round: whatever is sent from now on proves, once answered, that this was still the leader at `now`.
    pub(super) fn begin_round(&mut self, now: Instant) {
        self.round = Round(self.round.0 + 1);
        self.rounds.push_back((self.round, now));
        (self.wants_round, self.asks_anew) = (false, false);
    }

    /// Notes that a quorum has answered `round`.
    pub(super) fn confirm(&mut self, round: Round) {
        while let Some(&oldest) = self.rounds.front()
            && oldest.0 <= round
        {
            self.confirmed = Some(oldest);
            self.rounds.pop_front();
        }
    }
}

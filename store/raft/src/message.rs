//! What replicas of a group say to each other. Plain data: how it is framed is the business of the crate that sends it.

use crate::error::Violation;
use crate::limits::MESSAGE_ENTRIES_MAX;
use crate::types::{Entry, EntryKind, Index, LogId, SnapshotMeta, Term};
use alloc::vec::Vec;

/// A message between two replicas of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender's term.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// A leader's heartbeats and appends are numbered, so that an answer tells which of them it answers: reads and leases count
/// from the moment that one was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Round(pub u64);

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// "Would you vote for me in the term after mine?" Changes nothing at the receiver (Ongaro's dissertation, 9.6).
    PreVote {
        /// The end of the sender's log.
        last: LogId,
    },
    /// The answer. `term` of the message is the receiver's own.
    PreVoteReply {
        /// The term the question was asked in, to tell the answer from one to an earlier question.
        asked_in: Term,
        /// Whether it would.
        granted: bool,
    },
    /// "Vote for me in this term" (Raft section 5.2).
    Vote {
        /// The end of the sender's log.
        last: LogId,
        /// The leader itself asked for this election, so that having heard from it is no reason to refuse.
        transfer: bool,
    },
    /// The answer; leaves only once the vote is durable.
    VoteReply {
        /// Whether it did.
        granted: bool,
    },
    /// Entries of the leader's log (Raft section 5.3); without entries it is a probe.
    Append {
        /// The entry before the first of `entries`.
        prev: LogId,
        /// In order, without gaps.
        entries: Vec<Entry>,
        /// What the leader knows to be committed.
        commit: Index,
        /// Number of this message.
        round: Round,
    },
    /// The log agrees with the leader's up to `matched`, durably.
    Accepted {
        /// The last entry known to agree.
        matched: Index,
        /// Number of the message answered; zero if none is.
        round: Round,
    },
    /// The entry at the append's `prev` is another one or missing.
    Rejected {
        /// Index of that `prev`.
        at: Index,
        /// The receiver's last entry that can still agree: the last one at or before `at` whose term is not above `prev`'s.
        hint: LogId,
        /// Number of the message answered.
        round: Round,
    },
    /// The leader lives.
    Heartbeat {
        /// What the receiver may take for committed: never beyond what it has confirmed.
        commit: Index,
        /// Number of this message.
        round: Round,
        /// The group goes quiet: from now on the leader's node being alive stands for the leader being alive.
        quiesce: bool,
    },
    /// The answer.
    HeartbeatReply {
        /// Number of the message answered.
        round: Round,
    },
    /// The leader's log no longer reaches back to the receiver's: there is a snapshot to fetch from the leader's host.
    SnapshotOffer {
        /// What it stands for.
        meta: SnapshotMeta,
        /// Number of this message.
        round: Round,
    },
    /// The snapshot offered is being fetched.
    SnapshotPending {
        /// Number of the message answered.
        round: Round,
    },
    /// Fetching it failed: offer again, later.
    SnapshotFailed {
        /// The last entry of the snapshot that failed.
        last: LogId,
    },
    /// "Campaign at once": the leader hands over (dissertation, 3.10).
    TimeoutNow,
    /// The answer to a message of a term that is over. `term` of the message tells which one it is now.
    TermIsOver,
}

/// Terms and indexes above this are refused: a replica counts on from what it is told.
const NUMBER_MAX: u64 = u64::MAX / 2;

impl Message {
    /// Whether the message can be one, whatever the receiver's state.
    pub(crate) fn check(&self) -> Result<(), Violation> {
        let plausible = |number: u64| number <= NUMBER_MAX;
        let (numbers, round) = match &self.body {
            Body::PreVote { last } | Body::Vote { last, .. } | Body::SnapshotFailed { last } => (*last, Round(0)),
            Body::Append { prev, round, commit, .. } => {
                (LogId { term: prev.term, index: prev.index.max(*commit) }, *round)
            }
            Body::Accepted { matched, round } => (LogId { term: Term(0), index: *matched }, *round),
            Body::Rejected { at, hint, round } => (LogId { term: hint.term, index: hint.index.max(*at) }, *round),
            Body::Heartbeat { commit, round, .. } => (LogId { term: Term(0), index: *commit }, *round),
            Body::SnapshotOffer { meta, round } => (meta.last, *round),
            Body::HeartbeatReply { round } | Body::SnapshotPending { round } => (LogId::ZERO, *round),
            Body::PreVoteReply { asked_in, .. } => (LogId { term: *asked_in, index: Index::ZERO }, Round(0)),
            Body::VoteReply { .. } | Body::TimeoutNow | Body::TermIsOver => (LogId::ZERO, Round(0)),
        };
        if ![self.term.0, numbers.term.0, numbers.index.0, round.0].into_iter().all(plausible) {
            return Err(Violation::NumberTooLarge);
        }
        match &self.body {
            Body::Append { prev, entries, .. } => self.check_entries(*prev, entries),
            Body::SnapshotOffer { meta, .. } if !meta.membership.is_well_formed() => {
                Err(Violation::MalformedMembership)
            }
            Body::SnapshotOffer { meta, .. } if meta.last.term > self.term => Err(Violation::EntriesOutOfOrder),
            _ => Ok(()),
        }
    }

    fn check_entries(&self, prev: LogId, entries: &[Entry]) -> Result<(), Violation> {
        if entries.len() > MESSAGE_ENTRIES_MAX {
            return Err(Violation::TooManyEntries);
        }
        let mut before = prev;
        for entry in entries {
            if entry.id.index != before.index.next() || entry.id.term < before.term {
                return Err(Violation::EntriesOutOfOrder);
            }
            if let EntryKind::Membership(membership) = &entry.kind
                && !membership.is_well_formed()
            {
                return Err(Violation::MalformedMembership);
            }
            before = entry.id;
        }
        if before.term > self.term { Err(Violation::EntriesOutOfOrder) } else { Ok(()) }
    }
}

impl Body {
    /// Whether only the leader of the message's term sends it.
    pub const fn is_from_leader(&self) -> bool {
        matches!(self, Self::Append { .. } | Self::Heartbeat { .. } | Self::SnapshotOffer { .. } | Self::TimeoutNow)
    }
}

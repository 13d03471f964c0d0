//! What a leader knows about one peer.
//!
//! ```text
//!            Accepted                    Rejected, or silence
//!   Probe ───────────────► Stream ───────────────────────────► Probe
//!     │ ▲                    │
//!     │ │ failed             │ log no longer reaches back
//!     ▼ │                    ▼
//!   Snapshot ◄───────────────┘       Accepted at or behind the log's start: Stream
//! ```

use crate::effect::FetchId;
use crate::message::Round;
use crate::types::{Index, SnapshotMeta};
use alloc::collections::VecDeque;
use bifro_core::time::Instant;

/// How a peer is sent the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Where the logs agree is not known: one message at a time. `asked` is whether it is under way.
    Probe { asked: bool },
    /// Message upon message, without waiting for answers.
    Stream,
    /// It needs a snapshot.
    Snapshot(Phase),
}

/// Where a snapshot for a peer stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The host is to be asked for one, after a failure not before some time.
    Wanted { not_before: Option<Instant> },
    /// The host makes one available.
    Preparing,
    /// The peer is told of it until it has it.
    Offered(SnapshotMeta),
}

/// One peer.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) mode: Mode,
    /// The last entry it has confirmed durably.
    pub(super) matched: Index,
    /// The next entry to send.
    pub(super) next: Index,
    /// When it was last heard.
    pub(super) heard: Instant,
    /// The newest round it has answered.
    pub(super) acked: Round,
    /// The commit index it was last told.
    pub(super) commit_sent: Index,
    /// What the last heartbeat told it is committed, and the first round that told it so.
    pub(super) told: (Index, Round),
    /// Entries for it that are being read.
    pub(super) fetching: Option<FetchId>,
    /// Reading them failed: not again before this.
    pub(super) fetch_after: Option<Instant>,
    /// What was sent may be lost: ask where it stands.
    pub(super) in_doubt: bool,
    /// Rejections of what was sent before this round say nothing new.
    pub(super) asked_since: Round,
    inflight: Inflight,
}

impl Progress {
    /// A peer of which nothing is known; `next` is where to begin asking.
    pub(super) fn new(now: Instant, next: Index) -> Self {
        Self {
            mode: Mode::Probe { asked: false },
            matched: Index::ZERO,
            next,
            heard: now,
            acked: Round(0),
            commit_sent: Index::ZERO,
            told: (Index::ZERO, Round(0)),
            fetching: None,
            fetch_after: None,
            in_doubt: false,
            asked_since: Round(0),
            inflight: Inflight::default(),
        }
    }

    /// Begins again behind what is confirmed, one message at a time.
    pub(super) fn probe(&mut self) {
        self.probe_from(self.matched.next());
    }

    /// Asks about an earlier place than before, because the peer does not agree there. What it denies after having confirmed it
    /// was confirmed by a replica that it has replaced: removed from the group, and added again in the same term, after which an
    /// old answer came late. Whatever that one confirmed was committed before the peer was added again, so nothing
    /// was counted that should not have been.
    pub(super) fn retreat_to(&mut self, next: Index) {
        self.matched = self.matched.min(next.previous());
        self.probe_from(next);
    }

    /// Asks about the entry before `next`, one message at a time.
    pub(super) fn probe_from(&mut self, next: Index) {
        self.mode = Mode::Probe { asked: false };
        self.next = next.max(self.matched.next());
        self.inflight = Inflight::default();
        self.in_doubt = false;
        self.fetching = None;
    }

    /// Turns to the snapshot.
    pub(super) fn need_snapshot(&mut self, not_before: Option<Instant>) {
        self.probe();
        self.mode = Mode::Snapshot(Phase::Wanted { not_before });
    }

    /// Notes that entries up to `last` were sent.
    pub(super) fn note_sent(&mut self, last: Index, bytes: usize) {
        self.next = last.next();
        self.inflight.messages.push_back((last, bytes));
        self.inflight.bytes += bytes;
    }

    /// Notes that entries up to `matched` are confirmed. Returns whether that was news. A log that begins behind `matched`
    /// cannot serve it yet.
    pub(super) fn note_accepted(&mut self, matched: Index, log_start: Index) -> bool {
        let news = matched > self.matched;
        self.matched = self.matched.max(matched);
        match self.mode {
            Mode::Stream => {
                self.inflight.free_through(matched);
                self.next = self.next.max(self.matched.next());
            }
            Mode::Snapshot(ref phase) if self.matched < log_start => {
                if matches!(phase, Phase::Offered(meta) if meta.last.index <= matched) {
                    // What it was offered it has; it needs a newer one.
                    self.need_snapshot(None);
                } else {
                    self.next = self.next.max(self.matched.next());
                }
            }
            Mode::Probe { .. } | Mode::Snapshot(_) => {
                self.probe();
                self.mode = Mode::Stream;
            }
        }
        if self.next == self.matched.next() {
            self.in_doubt = false;
        }
        news
    }

    /// Whether it has said that it knows everything up to `last` to be committed.
    pub(super) fn knows_all(&self, last: Index) -> bool {
        self.mode == Mode::Stream && self.matched == last && self.told.0 == last && self.acked >= self.told.1
    }

    /// Whether the window is used up.
    pub(super) fn is_full(&self, messages_max: usize, bytes_max: usize) -> bool {
        self.inflight.messages.len() >= messages_max || self.inflight.bytes >= bytes_max
    }

    /// # Panics
    /// If what is known contradicts itself.
    pub(super) fn validate(&self, last: Index) {
        assert!(self.matched < self.next, "what is confirmed is not sent again");
        assert!(self.next <= last.next(), "only what is in the log is sent");
        assert!(self.mode == Mode::Stream || self.inflight.messages.is_empty(), "only a stream is pipelined");
        let bytes: usize = self.inflight.messages.iter().map(|(_, bytes)| bytes).sum();
        assert!(bytes == self.inflight.bytes, "the window's bytes add up");
    }
}

/// Appends under way: last index and bytes of each.
#[derive(Clone, Debug, Default)]
struct Inflight {
    messages: VecDeque<(Index, usize)>,
    bytes: usize,
}

impl Inflight {
    fn free_through(&mut self, matched: Index) {
        while let Some(&(last, bytes)) = self.messages.front()
            && last <= matched
        {
            self.messages.pop_front();
            self.bytes -= bytes;
        }
    }
}

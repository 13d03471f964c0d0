//! What a host may tune, and the relations between the values that safety rests on.

use core::time::Duration;

/// Settings of a group. All replicas of a group must agree on `election_timeout` and `clock_drift_percent`; the others are
/// each replica's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Without a word from the leader for this long a replica may vote for another; it campaigns itself between once and
    /// twice this. A leader that has not heard from a quorum for this long gives up.
    pub election_timeout: Duration,
    /// A leader speaks to every peer at least this often, unless the group is quiet.
    pub heartbeat: Duration,
    /// After this long without anything to do a leader lets the group go quiet. `None`: never.
    pub quiesce_after: Option<Duration>,
    /// Whether a leader answers reads from its lease, without asking its peers.
    pub lease_reads: bool,
    /// The stated bound on clocks: over one election timeout, the monotonic clocks of any two replicas advance by amounts
    /// that differ by at most this many percent. Lease reads are linearizable only while it holds; nothing else needs it.
    pub clock_drift_percent: u32,
    /// Largest proposal, in bytes of data. Beyond it: refused as too large.
    pub proposal_bytes_max: usize,
    /// Entries a leader takes that are not applied yet. At the limit proposals are refused as busy.
    pub pending_entries_max: u64,
    /// Their bytes, likewise. One proposal is always taken if none is pending. A follower drops appends while as much is not durable.
    pub pending_bytes_max: usize,
    /// Append messages on their way to one peer. At the limit the peer is sent no more until it answers.
    pub inflight_messages_max: usize,
    /// Their bytes, likewise.
    pub inflight_bytes_max: usize,
    /// Bytes of entries in one append message, at least one entry.
    pub message_bytes_max: usize,
    /// Bytes of entries kept in memory beyond those that are not durable or not applied yet. Older ones are fetched back from
    /// the log when a slow peer needs them.
    pub tail_bytes_max: usize,
    /// Bytes of committed entries handed out to be applied before the first of them is reported applied.
    pub apply_bytes_max: usize,
}

impl Config {
    /// The settings a broker starts with. At 100 ms heartbeats a leader's death is noticed within 2 s.
    pub const DEFAULT: Self = Self {
        election_timeout: Duration::from_millis(1_000),
        heartbeat: Duration::from_millis(100),
        quiesce_after: Some(Duration::from_secs(5)),
        lease_reads: true,
        clock_drift_percent: 10,
        proposal_bytes_max: 8 << 20,
        pending_entries_max: 16_384,
        pending_bytes_max: 16 << 20,
        inflight_messages_max: 64,
        inflight_bytes_max: 4 << 20,
        message_bytes_max: 512 << 10,
        tail_bytes_max: 1 << 20,
        apply_bytes_max: 4 << 20,
    };

    /// How long, on the leader's clock, a lease lasts from the moment its heartbeat was sent: the time for which the voters
    /// refuse others, less what the clocks may differ.
    pub fn lease(&self) -> Duration {
        self.election_timeout * (100 - self.clock_drift_percent) / 100
    }

    /// # Panics
    /// If the values contradict each other: that is a mistake of the program, operators' values are checked on loading.
    pub fn validate(&self) {
        assert!(!self.heartbeat.is_zero(), "heartbeats must have a distance");
        assert!(self.heartbeat * 3 <= self.election_timeout, "two heartbeats may be lost without an election");
        assert!(self.clock_drift_percent < 100, "a lease must have a length");
        assert!(self.proposal_bytes_max > 0, "something must fit into a proposal");
        assert!(self.pending_entries_max > 0, "something must be proposable");
        assert!(self.inflight_messages_max > 0, "one message must be sendable");
        assert!(self.message_bytes_max > 0, "a message must carry something");
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::DEFAULT
    }
}

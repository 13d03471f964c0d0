//! The words of the protocol: terms, indexes, entries and what must survive a crash.

use crate::membership::Membership;
use bifro_core::ids::NodeId;
use bytes::Bytes;
use core::fmt;

/// A reign of at most one leader. Zero before the first election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Term(pub u64);

impl Term {
    /// The term after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A place in the log. The first entry has index 1; zero stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Index(pub u64);

impl Index {
    /// The place before the first entry.
    pub const ZERO: Self = Self(0);

    /// The place after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The place before this one; [`Index::ZERO`] stays where it is.
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// Which entry: no two different entries of a group have equal term and index (Log Matching, Raft section 5.3). Ordered as
/// "more up to date" is (section 5.4.1): by term, then by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LogId {
    /// Term of the leader that appended it.
    pub term: Term,
    /// Its place.
    pub index: Index,
}

impl LogId {
    /// What stands before the first entry.
    pub const ZERO: Self = Self { term: Term(0), index: Index(0) };

    /// An entry's name.
    pub const fn new(term: u64, index: u64) -> Self {
        Self { term: Term(term), index: Index(index) }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term.0, self.index.0)
    }
}

/// One write to the log, in the order of [`crate::Effect::Persist`]; grows by one with each. A write is durable only
/// with every one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct WriteId(pub u64);

impl WriteId {
    /// What is durable from the start: a condition that is always met.
    pub const NONE: Self = Self(0);
}

/// Correlates [`crate::Group::read_index`] with its answer. The host's own; the group only repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReadId(pub u64);

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Nothing: a new leader's first entry, with whose commit all before it is committed (Raft section 5.4.2).
    Noop,
    /// The state machine's business. [`Bytes`]: a clone is a count, a received frame is sliced without a copy, and it may
    /// be handed to the log's thread and to several peers at once.
    Data(Bytes),
    /// From this entry on, committed or not, the group has these members (Raft section 6).
    Membership(Membership),
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which one.
    pub id: LogId,
    /// What it does.
    pub kind: EntryKind,
}

impl Entry {
    /// Bytes it counts for against every limit: its data and a fixed part for the rest.
    pub fn cost(&self) -> usize {
        crate::limits::ENTRY_OVERHEAD_BYTES
            + match &self.kind {
                EntryKind::Noop => 0,
                EntryKind::Data(data) => data.len(),
                EntryKind::Membership(membership) => membership.len() * size_of::<NodeId>(),
            }
    }
}

/// What a replica must not forget, beside its log (Raft figure 2, "persistent state").
///
/// It outlives the replica: a node that leaves a group keeps it in the tombstone and starts from it if it ever joins again,
/// because a replica that forgot its vote could give a second one in the same term. [`crate::Group::tombstone`] is what to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HardState {
    /// The newest term it has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// The entry that removed the node's earlier replica from the group, or a later one that is committed; [`LogId::ZERO`] if
    /// there was none. The replica votes for nobody whose log ends before: with the log that it no longer has it would not have
    /// done so either, and what that log held counts as being on a quorum. Nor does it campaign before its own log reaches there.
    pub removed: LogId,
}

/// What a snapshot stands for: the state after `last`, and who the members were then.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SnapshotMeta {
    /// The last entry it contains.
    pub last: LogId,
    /// The members as of that entry.
    pub membership: Membership,
}

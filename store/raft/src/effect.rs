//! What a group asks of its host.

use crate::message::Message;
use crate::types::{Entry, HardState, Index, LogId, ReadId, SnapshotMeta, Term, WriteId};
use alloc::vec::Vec;
use bifro_core::ids::NodeId;

/// One thing to do. Effects are carried out in the order in which they come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write to the log and report [`crate::Group::handle_durable`] when it has been synced. Writes of a group are done in
    /// order. At most one per turn.
    Persist {
        /// Number of this write.
        write: WriteId,
        /// The new term and vote, if they changed.
        hard_state: Option<HardState>,
        /// What happens to the entries.
        log: LogWrite,
    },
    /// Send a message, once the write `after` is durable and not before: the message promises something that the write
    /// holds. It may be lost, delayed and overtaken, and dropped at will.
    Send {
        /// The receiver.
        to: NodeId,
        /// What to send.
        message: Message,
        /// The write it waits for; [`WriteId::NONE`] if it waits for nothing.
        after: WriteId,
    },
    /// Apply these committed entries, in order, and report [`crate::Group::handle_applied`]. They are durable here.
    Apply {
        /// They follow those handed out before without a gap.
        entries: Vec<Entry>,
    },
    /// Read old entries back from the log and report [`crate::Group::handle_fetched`].
    Fetch {
        /// Name of the request.
        fetch: FetchId,
        /// The first wanted.
        first: Index,
        /// The last wanted.
        last: Index,
        /// Stop after this many bytes ([`Entry::cost`]), but not before the first entry.
        bytes_max: usize,
    },
    /// The replica has another role, or the leader is another one.
    RoleChanged {
        /// What it is now.
        role: Role,
        /// In which term.
        term: Term,
        /// Who leads, if it is known.
        leader: Option<NodeId>,
    },
    /// The state machine now contains everything that was acknowledged before the read was asked for: read.
    ReadReady {
        /// The read.
        read: ReadId,
        /// The state machine has applied at least this.
        index: Index,
    },
    /// The read cannot be answered here: leadership was lost.
    ReadFailed {
        /// The read.
        read: ReadId,
    },
    /// Make a snapshot of the state machine available and report [`crate::Group::offer_snapshot`], or
    /// [`crate::Group::handle_snapshot_unavailable`]: a peer lags behind the beginning of the log.
    PrepareSnapshot {
        /// The peer that needs it.
        to: NodeId,
        /// It must contain at least this entry.
        at_least: Index,
    },
    /// Fetch the snapshot from the leader's host, in whatever chunks, install it durably in the state machine, and report
    /// [`crate::Group::handle_snapshot_installed`] or [`crate::Group::handle_snapshot_failed`]. Another one may follow
    /// before: it replaces this one.
    InstallSnapshot {
        /// Who has it.
        from: NodeId,
        /// What it stands for.
        meta: SnapshotMeta,
    },
}

/// What a write does to the entries of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogWrite {
    /// Nothing.
    Nothing,
    /// Remove every entry from the first of these on, then append these. Never empty.
    Append(Vec<Entry>),
    /// Remove every entry; the log goes on behind `start`, first of all with `entries`, which may be empty.
    Restart {
        /// What the next entry follows.
        start: LogId,
        /// What is appended at once.
        entries: Vec<Entry>,
    },
}

/// Name of a request for old entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FetchId(pub u64);

/// What a replica is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Does not vote and does not campaign: a member that is only sent the log, or no member.
    Learner,
    /// Follows the leader, or waits for one.
    Follower,
    /// Asks whether an election has a chance.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

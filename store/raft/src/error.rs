//! Why something was refused. No variant here changes the group's state.

use crate::types::{Index, LogId};
use bifro_core::ids::NodeId;
use core::fmt;

/// Why a proposal was not taken. It is not in the log and never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeError {
    /// Somebody else leads, or nobody.
    NotLeader {
        /// Whom to ask, if it is known.
        leader: Option<NodeId>,
    },
    /// Too much is not applied yet: try again when something has been applied.
    Busy,
    /// Leadership is being handed over: try again at the new leader.
    Transferring {
        /// Who is to lead.
        to: NodeId,
    },
    /// Larger than [`crate::Config::proposal_bytes_max`].
    TooLarge {
        /// What would have been taken.
        bytes_max: usize,
    },
}

/// Why a read was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// Somebody else leads, or nobody.
    NotLeader {
        /// Whom to ask, if it is known.
        leader: Option<NodeId>,
    },
    /// [`crate::limits::READS_PENDING_MAX`] reads are waiting.
    Busy,
}

/// Why members were not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// Somebody else leads, or nobody.
    NotLeader {
        /// Whom to ask, if it is known.
        leader: Option<NodeId>,
    },
    /// Another change, or the leader's first entry, is not committed yet.
    Pending,
    /// The members are already these.
    Unchanged,
    /// A group needs a voter, at most [`crate::limits::MEMBERS_MAX`] members, and nobody twice.
    Malformed,
    /// Leadership is being handed over.
    Transferring {
        /// Who is to lead.
        to: NodeId,
    },
    /// Would make somebody a voter whose log is not near the leader's: add it as a learner first.
    NotCaughtUp {
        /// Who lags.
        node: NodeId,
        /// Up to where it agrees.
        matched: Index,
    },
}

/// Why leadership is not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferError {
    /// Somebody else leads, or nobody.
    NotLeader {
        /// Whom to ask, if it is known.
        leader: Option<NodeId>,
    },
    /// The target is no voter, or leads already.
    NotEligible,
    /// It is being handed over to somebody else.
    Transferring {
        /// Who is to lead.
        to: NodeId,
    },
}

/// Why a replica is not made the only voter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForceError {
    /// It leads, so the group has its majority.
    Leads,
    /// A snapshot is on its way in: what the replica has is about to be replaced.
    Installing,
    /// It belongs to the group no more.
    NoMember,
}

/// How a peer broke the protocol. What the message says was ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Entries are not in order from behind `prev`, or their terms fall or exceed the message's.
    EntriesOutOfOrder,
    /// More than [`crate::limits::MESSAGE_ENTRIES_MAX`] entries.
    TooManyEntries,
    /// A set of members that is empty, unsorted or too large.
    MalformedMembership,
    /// Two leaders in one term: election safety is broken, by a replica that lost what it had made durable.
    TwoLeaders {
        /// Who was known to lead.
        known: NodeId,
    },
    /// Entries that contradict what is committed here, for the same reason.
    ContradictsCommitted {
        /// Where.
        at: Index,
    },
    /// Confirms entries that the leader does not have.
    ConfirmsBeyondLog {
        /// What was confirmed.
        matched: Index,
    },
    /// A term or an index so large that counting on would overflow.
    NumberTooLarge,
    /// Sent to itself.
    FromSelf,
}

/// Why a replica must not start from what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// Entries between the checkpoint and the log's beginning are missing.
    BeginsBehindCheckpoint {
        /// What the log's first entry follows.
        log_start: LogId,
    },
    /// The entry does not follow the one before it.
    Gap {
        /// The entry.
        before: LogId,
    },
    /// The log has entries of a later term than the newest one remembered.
    TermForgotten {
        /// The last entry.
        last: LogId,
    },
}

/// Why old entries could not be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// They are no longer in the log.
    Compacted,
    /// The log could not be read; it is asked again later.
    Failed,
}

macro_rules! display_as {
    ($type:ty, $self:ident, $f:ident, { $($pattern:pat => $text:expr),+ $(,)? }) => {
        impl fmt::Display for $type {
            fn fmt(&$self, $f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match $self { $($pattern => $text),+ }
            }
        }
        impl core::error::Error for $type {}
    };
}

fn not_leader(f: &mut fmt::Formatter<'_>, leader: Option<NodeId>) -> fmt::Result {
    match leader {
        Some(leader) => write!(f, "{leader} leads"),
        None => f.write_str("no leader is known"),
    }
}

display_as!(ProposeError, self, f, {
    Self::NotLeader { leader } => not_leader(f, *leader),
    Self::Busy => f.write_str("too much is not applied yet"),
    Self::Transferring { to } => write!(f, "leadership is going to {to}"),
    Self::TooLarge { bytes_max } => write!(f, "larger than {bytes_max} bytes"),
});
display_as!(ReadError, self, f, {
    Self::NotLeader { leader } => not_leader(f, *leader),
    Self::Busy => f.write_str("too many reads are waiting"),
});
display_as!(ChangeError, self, f, {
    Self::NotLeader { leader } => not_leader(f, *leader),
    Self::Pending => f.write_str("another change is not committed yet"),
    Self::Unchanged => f.write_str("the members are these already"),
    Self::Malformed => f.write_str("not a possible set of members"),
    Self::Transferring { to } => write!(f, "leadership is going to {to}"),
    Self::NotCaughtUp { node, matched } => write!(f, "{node} has the log only up to {}", matched.0),
});
display_as!(TransferError, self, f, {
    Self::NotLeader { leader } => not_leader(f, *leader),
    Self::NotEligible => f.write_str("the target cannot take over"),
    Self::Transferring { to } => write!(f, "leadership is going to {to}"),
});
display_as!(ForceError, self, f, {
    Self::Leads => f.write_str("it leads"),
    Self::Installing => f.write_str("a snapshot is on its way in"),
    Self::NoMember => f.write_str("it is no member any more"),
});
display_as!(Violation, self, f, {
    Self::EntriesOutOfOrder => f.write_str("entries out of order"),
    Self::TooManyEntries => f.write_str("too many entries"),
    Self::MalformedMembership => f.write_str("malformed membership"),
    Self::TwoLeaders { known } => write!(f, "a second leader beside {known}"),
    Self::ContradictsCommitted { at } => write!(f, "contradicts the committed entry {}", at.0),
    Self::ConfirmsBeyondLog { matched } => write!(f, "confirms {} beyond the end of the log", matched.0),
    Self::NumberTooLarge => f.write_str("a term or an index out of all proportion"),
    Self::FromSelf => f.write_str("a message from itself"),
});
display_as!(RestoreError, self, f, {
    Self::BeginsBehindCheckpoint { log_start } => write!(f, "the log begins behind {log_start}, the checkpoint is older"),
    Self::Gap { before } => write!(f, "the log has a gap before {before}"),
    Self::TermForgotten { last } => write!(f, "the log ends with {last}, a later term than the one remembered"),
});
display_as!(FetchError, self, f, {
    Self::Compacted => f.write_str("no longer in the log"),
    Self::Failed => f.write_str("the log could not be read"),
});

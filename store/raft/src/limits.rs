//! Limits that are the same for every group, each with its reason and what happens at it. What an operator may tune is in
//! [`crate::Config`].

/// Bytes an entry costs beyond its data: its frame in messages and in the log, its place in memory.
pub const ENTRY_OVERHEAD_BYTES: usize = 48;

/// Members of a group, in any role, as the sum over all sets. A change beyond it is refused. A message or an entry of a
/// peer beyond it is a violation.
pub const MEMBERS_MAX: usize = 1_024;

/// Reads that wait for a confirmation or for the state machine. At the limit a read is refused as busy.
pub const READS_PENDING_MAX: usize = 4_096;

/// Entries in one message of a peer; one beyond it is a violation. Bounds the work of one call.
pub const MESSAGE_ENTRIES_MAX: usize = 65_536;

/// How many entries a new voter may lack when it is made one; a change that adds one that lacks more is refused. It must first
/// have been a learner, so that the group does not wait for it.
pub const CATCH_UP_ENTRIES_MAX: u64 = 1_024;

/// Messages of one group that wait for a write. Beyond it they are dropped: the log is far behind, and what is said when it has
/// caught up will be newer.
pub const MESSAGES_HELD_MAX: usize = 1_024;

const _: () = assert!(MEMBERS_MAX > 1 && READS_PENDING_MAX > 0 && MESSAGE_ENTRIES_MAX > 0, "somebody must fit");

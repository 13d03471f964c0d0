//! Limits of the service machines, each with its reason and what happens at it.

use bifro_core::limits::INBOX_PUSH_WINDOW;
use core::time::Duration;

/// How long a connection that was kicked may take to close its session. At the limit the successor is admitted anyway; the
/// inbox's epoch fences the old one off.
pub const TAKEOVER_DEADLINE: Duration = Duration::from_secs(5);

/// Connections that may wait for one client id. At the limit the one that has waited longest is kicked unserved: its
/// successors are waiting already, so it could only have been kicked at once.
pub const TAKEOVERS_WAITING_MAX: usize = 1_024;

/// So long a range's new leader, or one whose link to a node has ended, expects the connections of its sessions to go on with them. Those that
/// have not by then count as broken: wills and expiry follow.
pub const REATTACH_WITHIN: Duration = Duration::from_secs(5);

/// Sessions ended by expiry in one call of the timer; the others follow in the next one, which is due at once. Bounds the
/// time a turn spends on a tenant whose sessions all expire together.
pub const SESSIONS_EXPIRED_PER_CALL_MAX: usize = 256;

/// Retained messages removed by expiry in one call of the timer; the others follow in the next one, which is due at once.
pub const RETAINED_EXPIRED_PER_CALL_MAX: usize = 1_024;

/// Retained messages expire in the timer at whole multiples of this, so that a million of them do not mean a million wakes.
/// Reads are exact: they skip what has expired and is still there.
pub const RETAINED_EXPIRY_GRAIN: Duration = Duration::from_secs(1);

/// Bytes a queued message costs beyond the message itself, which it may share with other inboxes: its entry in the queue.
pub const QUEUED_OVERHEAD_BYTES: u64 = 128;

/// Messages of one session that wait in memory for its owner; beyond, they rest in the range's records until their turn comes near.
pub const INBOX_CARRIED_MAX: usize = if cfg!(test) { 2 } else { 2 * INBOX_PUSH_WINDOW };

/// The same in bytes, with those that the owner has: beyond, messages rest, and none is fetched before it is the next.
pub const INBOX_CARRIED_BYTES_MAX: u64 = if cfg!(test) { 40_000 } else { 1 << 20 };

/// Messages and bytes that are fetched at a time from among those that rest.
pub const INBOX_FETCH_MESSAGES_MAX: usize = if cfg!(test) { 3 } else { 2 * INBOX_PUSH_WINDOW };
/// See [`INBOX_FETCH_MESSAGES_MAX`]; a message larger than this is fetched alone.
pub const INBOX_FETCH_BYTES_MAX: usize = 256 << 10;

/// Bytes a retained message costs beyond the message itself: its entry and its place in the index.
pub const RETAINED_OVERHEAD_BYTES: u64 = 128;

const _: () = assert!(TAKEOVERS_WAITING_MAX > 0, "somebody must be able to wait");
const _: () =
    assert!(SESSIONS_EXPIRED_PER_CALL_MAX > 0 && RETAINED_EXPIRED_PER_CALL_MAX > 0, "timers must make progress");
const _: () = assert!(!RETAINED_EXPIRY_GRAIN.is_zero(), "it divides");

/// Stored topics one search for retained messages looks at per call; beyond it the search goes on in the next call of the
/// timer, which is due at once. At well under a microsecond each this keeps a turn short whatever the filter.
pub const RETAINED_FIND_STEPS_MAX: usize = 4_096;

const _: () = assert!(RETAINED_FIND_STEPS_MAX > 0, "a search must make progress");

/// Bytes of one encoded command or record. A packet is shorter than 256 MiB, and what is written beside it (identity, topic,
/// rules) is smaller by far. What is longer is refused unread.
pub const RECORD_BYTES_MAX: usize = 512 << 20;

/// How long it is remembered that a retained message was cleared. A node that was away for longer may bring it back.
pub const RETAINED_CLEARED_FOR: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Clearings that one range remembers; beyond, the oldest is forgotten. Without it a client that clears topics which never had a message
/// would fill the memory.
pub const RETAINED_CLEARED_MAX: usize = 65_536;

//! Limits that are not settings: bounds of structures, each with its reason and what happens at it.

/// Levels the matchers accept at most, whatever the settings say: bounds recursion and the cost of one match.
pub const TOPIC_LEVELS_HARD_MAX: usize = 1_024;

/// Answers of the permission check one session remembers; at the limit the cache is emptied.
pub const PERMISSION_CACHE_ENTRIES_MAX: usize = 256;

/// Topics one shard keeps match results for; at the limit the least recently added are dropped.
pub const MATCH_CACHE_TOPICS_MAX: usize = 200_000;

/// Messages an inbox pushes to its live owner ahead of commits; beyond it they wait in the inbox.
pub const INBOX_PUSH_WINDOW: usize = 128;

/// Bytes one connection may have served per turn before the next one gets its share.
pub const TURN_BYTES_PER_CONN: usize = 64 << 10;

/// A link between two nodes over which nothing has come for so long is over. Keep-alives come six times as often.
pub const LINK_IDLE: core::time::Duration = core::time::Duration::from_secs(3);

/// After so long both ends of a link know that it is over: whichever notices first, the other does within [`LINK_IDLE`], and its shard may take as long
/// to act on it.
pub const LINK_LEASE: core::time::Duration = core::time::Duration::from_secs(6);

/// So long a connection whose inbox nobody leads waits for the next leader; then it is closed, since its client may do better elsewhere.
pub const INBOX_ORPHANED_MAX: core::time::Duration = core::time::Duration::from_secs(10);

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

/// How long what a publisher's earlier connection sent is refused once a later one had a QoS 2 publish forgotten: it may be on its way for as long as nobody
/// has noticed the end of a link, which takes less than half of this.
pub const ORIGINS_FENCED_FOR: core::time::Duration = core::time::Duration::from_secs(2 * LINK_LEASE.as_secs());

/// QoS 2 publishes of which one shard notes that its connections have them; beyond, the oldest is forgotten, and would be given again if it were repeated.
pub const DELIVERED_MAX: usize = if cfg!(test) { 4 } else { 65_536 };

/// So long a node relies on what a shard of another one has told it, from the moment at which it asked whether it still may: without an answer to a later
/// question it holds that node for unheard.
pub const RELIANCE: core::time::Duration = core::time::Duration::from_millis(900);

/// So long after its last answer a shard takes a node that may be dead for one that relies on what it was told: [`RELIANCE`] by a clock that is a tenth faster than
/// the other node's. Shorter than it takes to declare a node dead that was killed, so nobody waits for those.
pub const RELIANCE_OVER: core::time::Duration = core::time::Duration::from_millis(1_000);

/// How often a node asks. Two of three questions may be late.
pub const RELIANCE_ASKED: core::time::Duration = core::time::Duration::from_millis(250);

const _: () = assert!(RELIANCE.as_millis() * 11 <= RELIANCE_OVER.as_millis() * 10);
const _: () = assert!(RELIANCE_ASKED.as_millis() * 3 < RELIANCE.as_millis());

/// So long a connection whose inbox nobody leads waits for the next leader; then it is closed, since its client may do better elsewhere.
pub const INBOX_ORPHANED_MAX: core::time::Duration = core::time::Duration::from_secs(10);

//! What is bounded here, and by how much.

/// Bytes of a datagram's payload that every path carries: QUIC's smallest, less its own headers.
pub const DATAGRAM_BYTES: usize = 1_100;
/// Bytes that a message takes at most without its rumours.
pub const MESSAGE_BYTES: usize = 128;
/// Bytes that one rumour takes at most.
pub const RUMOUR_BYTES: usize = 56;
/// Rumours in one datagram.
pub const RUMOURS_PER_MESSAGE: usize = (DATAGRAM_BYTES - MESSAGE_BYTES) / RUMOUR_BYTES;
/// Members of a cluster, the dead ones among them. Announcements of more are ignored.
pub const MEMBERS: usize = 16_384;
/// Dead members that are remembered and asked. Of more, those that died first are forgotten.
pub const LOST: usize = 1_024;
/// Removed members that are remembered, so that nobody brings them back. Of more, those that were removed first are forgotten.
pub const REMOVED: usize = 1_024;
/// Addresses of seeds.
pub const SEEDS: usize = 1_024;
/// Probes of others that one node is busy with at a time.
pub const RELAYED_PROBES: usize = 256;
/// How far Lifeguard's local health multiplier goes: so many times the normal intervals, and one more.
pub const LOCAL_HEALTH: u32 = 8;

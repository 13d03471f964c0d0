//! What is bounded here, and by how much.

/// Seeds of a cluster, and so its founders. What names more is no message.
pub const SEEDS: usize = 1_024;
/// Bytes of the longest question or reply: two values with as many founders as there may be, and what is around them.
pub const MESSAGE_BYTES: usize = 2 * (SEEDS * 8 + 64) + 256;

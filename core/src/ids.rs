//! Identities: small newtypes so that a shard is never mistaken for a connection.

use core::fmt;

/// A shard of this process: one core, one executor. Dense from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The shard's place in per-shard tables.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A tenant interned for the life of the process. Dense from zero; 0 is the tenant of anonymous clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantIdx(pub u32);

/// A place in a per-shard table together with the generation of its occupant, so that a reference which outlives
/// the occupant is recognised instead of reaching its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Index into the owner's table.
    pub index: u32,
    /// Generation of the occupant.
    pub generation: u32,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// A connection on some shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnRef {
    /// Shard that accepted the connection and owns it for its whole life.
    pub shard: ShardId,
    /// Place in that shard's connection table.
    pub slot: Slot,
}

/// Correlates a request to a port with its completion; unique per shard, never reused in the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReqId(pub u64);

/// Keyed hash of (tenant, client id): tells publishers apart for No Local and for ordered shared subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublisherKey(pub u64);

/// Place of a message in one inbox; grows by one with each stored message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InboxSeq(pub u64);

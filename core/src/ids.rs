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

/// A node of the cluster: drawn once, kept in its data directory, never given to another node.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl core::str::FromStr for NodeId {
    type Err = core::num::ParseIntError;

    /// As it is displayed, or the number alone.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix('n').unwrap_or(text).parse().map(Self)
    }
}

/// A cluster: drawn once by the node that founds it, never zero, and kept by every node that ever was part of it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub struct ClusterId(pub u64);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

/// What ranges are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RangeKind {
    /// Persistent sessions.
    Inbox = 1,
    /// Retained messages, of one node each.
    Retain = 2,
}

impl RangeKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Inbox, Self::Retain];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Retain => "retain",
        }
    }
}

/// A range of the key space with its replicas, which are one Raft group; never reused for another range.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub struct RangeId(pub u64);

impl RangeId {
    /// The nth range of a kind.
    pub const fn of(kind: RangeKind, nth: RangeIdx) -> Self {
        Self((kind as u64) << 32 | nth.0 as u64)
    }

    /// Which range of which kind; none if it is none that a broker has.
    pub fn parts(self) -> Option<(RangeKind, RangeIdx)> {
        let kind = RangeKind::ALL.into_iter().find(|kind| *kind as u64 == self.0 >> 32)?;
        let nth = u16::try_from(self.0 & 0xffff_ffff).ok()?;
        Some((kind, RangeIdx(nth)))
    }
}

impl fmt::Display for RangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            Some((kind, nth)) => write!(f, "{}:{}", kind.name(), nth.0),
            None => write!(f, "r{}", self.0),
        }
    }
}

/// Text that names no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRange;

impl core::str::FromStr for RangeId {
    type Err = NoRange;

    /// As it is displayed: `inbox:7`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, nth) = text.split_once(':').ok_or(NoRange)?;
        let kind = RangeKind::ALL.into_iter().find(|known| known.name() == kind).ok_or(NoRange)?;
        nth.parse().map(|nth| Self::of(kind, RangeIdx(nth))).map_err(|_| NoRange)
    }
}

/// A range of persistent sessions, as this node counts them: dense from zero. Which shard has it is the services' business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RangeIdx(pub u16);

impl RangeIdx {
    /// The range's place in per-range tables.
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

/// A process that is or was a node of the cluster, as this process counts them: from 1; [`NodeIdx::HERE`] is this process. A node that
/// was started again is counted anew, so nothing said to its predecessor is ever taken for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeIdx(pub u16);

impl NodeIdx {
    /// This process.
    pub const HERE: Self = Self(0);
}

/// A connection on some shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnRef {
    /// Node whose shard that is.
    pub node: NodeIdx,
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

/// Place of a message in one inbox; grows with each stored message, by one or to where the places of the range's next leader begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InboxSeq(pub u64);

impl InboxSeq {
    /// Packet identifiers that messages of a durable inbox are sent with: 1 to this. Those above are for messages that come from no
    /// inbox.
    pub const PACKET_IDS: u16 = 32_767;

    /// The packet identifier of the message, which follows from its place: after a crash nobody knows what was in flight, and the client
    /// must find a QoS 2 message that it has received already under the same identifier [MQTT-4.3.3-1] [MQTT-4.4.0-1]. Of the
    /// messages outstanding no two have the same; the inbox sees to that.
    pub const fn packet_id(self) -> core::num::NonZeroU16 {
        let id = (self.0 % Self::PACKET_IDS as u64) as u16 + 1;
        core::num::NonZeroU16::new(id).expect("one is added")
    }
}

impl PublisherKey {
    /// A key that belongs to no client: for messages the broker itself publishes.
    pub const NOBODY: Self = Self(0);
}

/// The key by which a client is recognised as a publisher, the same wherever it is computed in this process.
///
/// `seed` is the process's secret, so that nobody can construct a client id that collides with another's.
pub fn publisher_key(seed: u64, tenant_name: &str, client_id: &str) -> PublisherKey {
    PublisherKey(keyed_hash(seed ^ PUBLISHER_SALT, &[tenant_name.as_bytes(), client_id.as_bytes()]).max(1))
}

/// Tells publisher keys apart from other uses of [`keyed_hash`] with the same seed.
const PUBLISHER_SALT: u64 = 0x7075_626c_6973_6865;

/// A keyed 64-bit hash of several byte strings, each told apart from its neighbours by its length. The same on every
/// platform and for ever, so that it may decide about placement. Not for secrets.
pub fn keyed_hash(seed: u64, parts: &[&[u8]]) -> u64 {
    let mut state = crate::rng::mix(seed);
    for part in parts {
        state = crate::rng::mix(state ^ part.len() as u64);
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            state = crate::rng::mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            state = crate::rng::mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ u64::from_le_bytes(word));
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_tells_seeds_parts_and_borders_apart() {
        let hash = |seed, parts: &[&str]| {
            let parts: alloc::vec::Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
            keyed_hash(seed, &parts)
        };
        assert_eq!(hash(1, &["a", "b"]), hash(1, &["a", "b"]));
        assert_ne!(hash(1, &["a", "b"]), hash(2, &["a", "b"]));
        assert_ne!(hash(1, &["ab", ""]), hash(1, &["a", "b"]));
        assert_ne!(hash(1, &["12345678", "9"]), hash(1, &["123456789", ""]));
        assert_ne!(hash(1, &["a"]), hash(1, &["a\0"]));
    }

    #[test]
    fn the_hash_never_changes_because_placement_depends_on_it() {
        assert_eq!(keyed_hash(7, &[b"tenant", b"a topic of more than one word"]), 7_219_643_500_064_065_863);
    }

    #[test]
    fn a_range_is_named_by_its_kind_and_its_number() {
        let range = RangeId::of(RangeKind::Retain, RangeIdx(12));
        assert_eq!((alloc::format!("{range}").as_str(), "retain:12".parse()), ("retain:12", Ok(range)));
        assert_eq!(alloc::format!("{}", RangeId(7)), "r7");
        for text in ["", "inbox", "inbox:", "inbox:65536", "outbox:1", "inbox:1:2", "r7"] {
            assert_eq!(text.parse::<RangeId>(), Err(NoRange), "{text}");
        }
    }

    #[test]
    fn a_publisher_is_never_nobody() {
        assert!((0..1_000).all(|seed| publisher_key(seed, "t", "c") != PublisherKey::NOBODY));
    }

    #[test]
    fn placement_by_the_hash_is_even() {
        let mut shards = [0_u32; 8];
        for client in 0..8_000 {
            shards[(keyed_hash(3, &[alloc::format!("client-{client}").as_bytes()]) % 8) as usize] += 1;
        }
        assert!(shards.iter().all(|&count| (850..1_150).contains(&count)), "{shards:?}");
    }
}

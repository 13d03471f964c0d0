//! What is known of one member.

use bifro_core::ids::NodeId;
use bifro_core::time::Instant;
use core::net::SocketAddr;
use rkyv::{Archive, Deserialize, Serialize};

/// Tells older from newer words of one node. Words about it at the same incarnation: alive, then suspect, then dead or gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Archive, Serialize, Deserialize)]
pub struct Incarnation {
    /// How many times the node was started, this time included.
    pub start: u32,
    /// How many times this process has spoken up since: against a suspicion, or because something about it changed.
    pub word: u32,
}

impl Incarnation {
    /// The next word of the same process.
    pub(crate) const fn next(self) -> Self {
        Self { start: self.start, word: self.word.saturating_add(1) }
    }
}

/// How a node says it is. Everybody who hears of it can take leaderships and traffic from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub enum Health {
    /// As it should be.
    #[default]
    Well,
    /// It lives and cannot be relied on: its disk is full or stalls, or a shard does not turn.
    Impaired,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Announcement {
    /// Who.
    pub id: NodeId,
    /// When, in its own count.
    pub incarnation: Incarnation,
    /// Drawn at each start: tells two processes with one identity apart.
    pub nonce: u64,
    /// Where its underlay listens.
    pub address: SocketAddr,
    /// How many shards it has; their overlay endpoints are the ports after the underlay's.
    pub shards: u16,
    /// How it is.
    pub health: Health,
}

/// What others think of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub enum Status {
    /// It answers.
    Alive,
    /// It did not answer somebody and has not spoken up since.
    Suspect,
    /// It did not speak up in time.
    Dead,
    /// It said that it goes.
    Left,
}

impl Status {
    /// Whether it takes part: suspects do.
    pub const fn is_present(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

/// A member as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it said last.
    pub announcement: Announcement,
    /// What is thought of it at that incarnation.
    pub status: Status,
    /// Since when.
    pub since: Instant,
    /// It was dead for longer than [`crate::Config::eviction_grace`].
    pub evicted: bool,
}

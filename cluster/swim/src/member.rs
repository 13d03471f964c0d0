//! What is known of one member.

use crate::swim::Peer;
use bifro_core::ids::{NodeId, NodeIdx};
use bifro_core::nodes::Node;
use bifro_core::ranges::{RangeAnswer, RangeOrder};
use bifro_core::roles::Duties;
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
    /// Than which there is nothing newer: of a node that has been expelled.
    pub const LAST: Self = Self { start: u32::MAX, word: u32::MAX };

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
    /// What others may expect of it.
    pub duties: Duties,
}

impl Announcement {
    /// The node as the other parts of a process know it, which counts it so.
    pub fn to_node(&self, idx: NodeIdx) -> Node {
        let Self { id, nonce, address, shards, health, duties, .. } = *self;
        Node { idx, id, nonce, address, shards, duties, is_well: health == Health::Well }
    }
}

/// What an operator wants of a node, told to it by any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Order {
    /// Only to say what it bears.
    Tell,
    /// To take on nothing new and give away what it has; or to be as any other again.
    Drain(bool),
    /// To leave, if it is draining.
    Leave,
    /// Something of its ranges.
    Ranges(RangeOrder),
}

/// What a node bears, as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct Load {
    /// Connections of clients.
    pub connections: u32,
    /// Replicas of ranges of persistent sessions.
    pub replicas: u16,
    /// Ranges among these that it leads.
    pub led: u16,
    /// Listeners for clients.
    pub listeners: u16,
    /// Retained messages of which it has a copy.
    pub retained: u32,
    /// Whether it gives all that away.
    pub is_draining: bool,
}

/// What a node answers to an order.
#[derive(Clone, Debug, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct Answer {
    /// What it bears.
    pub load: Load,
    /// Of its ranges, if the order was of these.
    pub ranges: RangeAnswer,
}

impl From<Load> for Answer {
    fn from(load: Load) -> Self {
        Self { load, ranges: RangeAnswer::default() }
    }
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
    /// It does not come back, an operator said.
    Removed,
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

impl Member {
    /// Whether it was removed so that it never comes back, not as a newcomer either.
    pub fn is_expelled(&self) -> bool {
        self.status == Status::Removed && self.announcement.incarnation == Incarnation::LAST
    }

    /// One that was expelled in the time of an earlier process.
    pub(crate) fn expelled(peer: Peer, now: Instant) -> Self {
        let announcement = Announcement {
            id: peer.id,
            incarnation: Incarnation::LAST,
            nonce: 0,
            address: peer.address,
            shards: 0,
            health: Health::Well,
            duties: Duties::default(),
        };
        Self { announcement, status: Status::Removed, since: now, evicted: false }
    }
}

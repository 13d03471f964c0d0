//! What nodes tell each other.

use crate::member::{Announcement, Answer, Incarnation, Order, Status};
use alloc::vec::Vec;
use bifro_core::ids::NodeId;
use bifro_core::ranges::RangeAnswer;
use core::net::SocketAddr;
use rkyv::{Archive, Deserialize, Serialize};

/// News about one node.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Rumour {
    /// A node's own word.
    Alive(Announcement),
    /// It did not answer `from`.
    Suspect {
        /// Who.
        id: NodeId,
        /// As of which word of it.
        incarnation: Incarnation,
        /// Who says so: independent witnesses shorten the suspicion.
        from: NodeId,
    },
    /// It did not refute a suspicion in time.
    Dead {
        /// Who.
        id: NodeId,
        /// As of which word of it.
        incarnation: Incarnation,
    },
    /// Its own last word.
    Left {
        /// Who.
        id: NodeId,
        /// As of which word of it.
        incarnation: Incarnation,
    },
    /// An operator's word: it does not come back.
    Removed {
        /// Who.
        id: NodeId,
        /// As of which word of it.
        incarnation: Incarnation,
    },
}

impl Rumour {
    /// Whom it is about.
    pub const fn subject(&self) -> NodeId {
        match self {
            Self::Alive(announcement) => announcement.id,
            Self::Suspect { id, .. } | Self::Dead { id, .. } | Self::Left { id, .. } | Self::Removed { id, .. } => *id,
        }
    }
}

/// One row of a table.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Report {
    /// The member.
    pub announcement: Announcement,
    /// What the sender thinks of it.
    pub status: Status,
}

/// What a message is for.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Body {
    /// Are you there?
    Ping {
        /// Comes back in the answer.
        seq: u64,
    },
    /// Is `target` there? I cannot reach it.
    PingRequest {
        /// Comes back in the answer.
        seq: u64,
        /// Who.
        target: NodeId,
        /// Where.
        address: SocketAddr,
    },
    /// I am, or the one you asked about is.
    Ack {
        /// Of the question.
        seq: u64,
    },
    /// I am, but the one you asked about has not answered me yet (Lifeguard, 4.1).
    Nack {
        /// Of the question.
        seq: u64,
    },
    /// Only rumours.
    Gossip,
    /// An operator wants this of you. It may come more than once.
    Order {
        /// Comes back in the answer.
        seq: u64,
        /// What.
        order: Order,
    },
    /// It is done, or refused, and this is what I have to say. Over a stream if it is about ranges.
    Obeyed {
        /// Of the order.
        seq: u64,
        /// Of the sender.
        answer: Answer,
    },
    /// Is your table like mine? Over a stream.
    Digest {
        /// Of the present members.
        digest: u64,
    },
    /// My table. Over a stream.
    Table {
        /// Its rows, the sender's own among them.
        reports: Vec<Report>,
        /// Whether yours is wanted in return.
        answer: bool,
    },
}

/// A message between two nodes.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Message {
    /// Who sends it.
    pub from: NodeId,
    /// Where the sender listens.
    pub address: SocketAddr,
    /// For whom it is; none if the sender knows only the address.
    pub to: Option<NodeId>,
    /// What for.
    pub body: Body,
    /// News that travel along.
    pub rumours: Vec<Rumour>,
}

impl Message {
    /// Whether it may be larger than a datagram, and so goes over a stream.
    pub fn is_bulk(&self) -> bool {
        match &self.body {
            Body::Digest { .. } | Body::Table { .. } => true,
            Body::Obeyed { answer, .. } => answer.ranges != RangeAnswer::default(),
            _ => false,
        }
    }
}

//! What a host is to do.

use crate::member::{Answer, Order};
use crate::message::Message;
use bifro_core::ids::NodeId;
use core::net::SocketAddr;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this. It may be lost: as a datagram, or over a stream if [`Message::is_bulk`] says so.
    Send {
        /// Where to.
        address: SocketAddr,
        /// What.
        message: Message,
    },
    /// Do what an operator wants of this node, then [say so](crate::Swim::obeyed).
    Obey {
        /// Who passes it on.
        from: NodeId,
        /// Where from.
        address: SocketAddr,
        /// Of the order.
        seq: u64,
        /// What.
        order: Order,
    },
    /// Another node has done what an operator wants of it.
    Obeyed {
        /// Which node.
        from: NodeId,
        /// Of the order.
        seq: u64,
        /// What it says.
        answer: Answer,
    },
    /// Something happened.
    Event(Event),
}

/// What happened to the membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A member is there that was not, or not any more.
    Joined(NodeId),
    /// What a member says of itself is new: its address, its health, its process.
    Changed(NodeId),
    /// A member did not answer.
    Suspected(NodeId),
    /// A suspect spoke up.
    Refuted(NodeId),
    /// A suspect did not speak up in time.
    Died(NodeId),
    /// A member is dead for so long that what it kept is to be kept elsewhere.
    Evicted(NodeId),
    /// A member said that it goes.
    Left(NodeId),
    /// A member does not come back, an operator said.
    Removed(NodeId),
    /// Two live members say that they are at one address: the second was believed, the first is suspected.
    AddressTaken(NodeId, NodeId),
    /// Another process has this node's identity and was started later: this one must end.
    Superseded,
    /// An operator has said that this node never comes back: it must end.
    Expelled,
}

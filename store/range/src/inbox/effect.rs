//! What the inboxes want done.

use crate::dist::RouteFilter;
use crate::key::ReplyTo;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::client::Client;
use bifro_core::event::Event;
use bifro_core::ids::{ConnRef, Slot, TenantIdx};
use bifro_core::message::Message;
use bifro_core::ports::{Attached, InboxMessage, PortError, Receiver};

/// An effect of an [`InboxTable`](super::InboxTable), to be carried out in order.
#[derive(Debug)]
pub enum InboxEffect {
    /// Answer to an attach.
    Attached {
        /// Who asked.
        to: ReplyTo,
        /// The inbox, or why there is none.
        result: Result<Box<Attached>, PortError>,
    },
    /// As [`InboxEffect::Attached`], once every range of the node has forgotten the publishes that
    /// [`Attached::received_qos2`] names: its last owner may not have seen to it.
    SettleAndAttach {
        /// Who asked.
        to: ReplyTo,
        /// The inbox.
        attached: Box<Attached>,
    },
    /// Answer to [`InboxTable::settle`](super::InboxTable::settle).
    Settled {
        /// Who asked.
        to: ReplyTo,
    },
    /// Answer to a step of a QoS 2 exchange.
    Done {
        /// Who asked.
        to: ReplyTo,
        /// [`PortError::NotOwner`] if another has the inbox by now.
        result: Result<(), PortError>,
    },
    /// Answer to [`InboxTable::inquire`](super::InboxTable::inquire).
    Found {
        /// Who asked.
        to: ReplyTo,
        /// Groups that have the publish.
        groups: Vec<u64>,
    },
    /// Answer to a detach or discard.
    Detached {
        /// Who asked.
        to: ReplyTo,
    },
    /// Answer to a subscribe, once the route is there.
    Subscribed {
        /// Who asked.
        to: ReplyTo,
        /// Whether the filter was subscribed already.
        result: Result<bool, PortError>,
    },
    /// Answer to an unsubscribe.
    Unsubscribed {
        /// Who asked.
        to: ReplyTo,
        /// Whether there was such a subscription.
        existed: bool,
    },
    /// Answer to an insertion.
    Inserted {
        /// Who asked.
        to: ReplyTo,
        /// Refusal of the whole insertion, if any.
        result: Result<(), PortError>,
    },
    /// Messages for the live owner; the first after a reattach, which may be of none, says that it is the owner.
    Push {
        /// The owner.
        conn: ConnRef,
        /// From its attach, or since then its reattach; see [`ReplyTo::claim`].
        claim: u32,
        /// The messages, in order.
        messages: Vec<InboxMessage>,
    },
    /// Read the records from one key to before another, as many as
    /// [`INBOX_FETCH_MESSAGES_MAX`](crate::limits::INBOX_FETCH_MESSAGES_MAX) and
    /// [`INBOX_FETCH_BYTES_MAX`](crate::limits::INBOX_FETCH_BYTES_MAX) say, for [`InboxTable::fetched`](super::InboxTable::fetched).
    Fetch {
        /// Whose they are.
        inbox: Slot,
        /// First key.
        from: Vec<u8>,
        /// Beyond the last.
        to: Vec<u8>,
    },
    /// The session does not count on its owner any more: a connection of another node that is held for lost, or one that another has taken the session
    /// from. Should it live, it has to go.
    Lost {
        /// The connection.
        conn: ConnRef,
        /// As in [`InboxEffect::Push`].
        claim: u32,
    },
    /// Add a route, then call [`InboxTable::route_added`](super::InboxTable::route_added).
    AddRoute {
        /// Tenant.
        tenant: TenantIdx,
        /// Filter and group.
        route: Arc<RouteFilter>,
        /// The subscription.
        receiver: Receiver,
    },
    /// Remove a route, of which nothing is heard again.
    RemoveRoute {
        /// Tenant.
        tenant: TenantIdx,
        /// Filter and group.
        route: Arc<RouteFilter>,
        /// The subscription.
        receiver: Receiver,
    },
    /// Publish a will on behalf of the client.
    WillDue {
        /// Whose will.
        client: Client,
        /// The will.
        will: Arc<Message>,
    },
    /// Give a message to another member of its shared group.
    Redeliver {
        /// Tenant.
        tenant: TenantIdx,
        /// Filter and group.
        route: Arc<RouteFilter>,
        /// The message.
        message: Arc<Message>,
    },
    /// Tell operators.
    Event(Event),
}

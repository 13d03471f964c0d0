//! One connection's MQTT session machine: packets and completions in, bytes and effects out.
//!
//! # Contract
//! The driver owns the socket, the timers and the ports. It calls one `handle_*` or command at a time with a monotonic
//! `now`, then carries out [`Outbox::effects`] in order and sends [`Outbox::wire`]. After [`Effect::Close`] the machine is
//! dead: it ignores everything, and the driver closes the socket once the wire is flushed.

use crate::codec::Fanout;
use crate::packet::Packet;
use crate::reason::Reason;
use crate::wire::Wire;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::client::{Client, Transport};
use bifro_core::event::{DropReason, Event};
use bifro_core::ids::{InboxSeq, PublisherKey, TenantIdx};
use bifro_core::message::{Message, MessageView, QoS};
use bifro_core::plugin::{AuthOutcome, AuthRequest, Authorizer};
use bifro_core::ports::{Attached, DetachState, GroupName, InboxMessage, PortError, RetainedMessage, SubOptions};
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;
use core::net::SocketAddr;
use core::num::NonZeroU32;

/// What every call needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Cx<'a> {
    /// The time.
    pub now: Instant,
    /// Tenant of the session; before authentication the default tenant.
    pub tenant: &'a TenantCtx,
    /// Answers permission questions.
    pub authorizer: &'a dyn Authorizer,
    /// The shard is over its memory budget: new CONNECTs are refused with 0x97 (3.x: 3).
    pub over_budget: bool,
}

/// Where the machine's outputs go.
#[derive(Debug)]
pub struct Outbox<'a> {
    /// Bytes for the client.
    pub wire: &'a mut Wire,
    /// Everything else, in order.
    pub effects: &'a mut Vec<Effect>,
    /// The connection is over its write high-water mark: QoS 0 is dropped, QoS 1 and 2 wait.
    pub congested: bool,
}

/// What is known of a connection before its first packet.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Listener it arrived on.
    pub listener: u16,
    /// Transport.
    pub transport: Transport,
    /// Peer address.
    pub peer: Option<SocketAddr>,
    /// Leaf certificate (DER) the client proved to own.
    pub certificate: Option<Box<[u8]>>,
    /// Random bits for an assigned client identifier.
    pub nonce: u128,
}

/// Correlates a subscription, unsubscription or retained lookup with its completion; unique per session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u32);

/// What the driver is to do.
#[derive(Debug)]
pub enum Effect {
    /// Ask the authentication chain; answer with [`Session::handle_auth`].
    Authenticate(Box<AuthRequest>),
    /// The identity is established: from here on `Cx::tenant` is this tenant's. The driver interns the tenant named in the
    /// grant and answers at once with [`Session::handle_identified`].
    Identify(Box<Identity>),
    /// Become the owner of the client id; answer with [`Session::handle_registered`].
    Register,
    /// Persistent session: attach to the inbox; answer with [`Session::handle_attached`].
    Attach {
        /// Discard what there was.
        clean_start: bool,
    },
    /// Transient session: delete the inbox an earlier session of the client may have left; answer with
    /// [`Session::handle_attached`] and an empty [`Attached`].
    Discard,
    /// Make a subscription (or replace the options of one); answer with [`Session::handle_subscribed`].
    Subscribe {
        /// For the answer.
        token: Token,
        /// Filter as the client wrote it.
        full: Box<str>,
        /// Filter without share prefix.
        filter: Box<str>,
        /// Group, if shared.
        group: Option<GroupName>,
        /// Options.
        options: SubOptions,
        /// A subscription with this full filter exists and is replaced.
        replaces: bool,
    },
    /// End a subscription; answer with [`Session::handle_unsubscribed`].
    Unsubscribe {
        /// For the answer.
        token: Token,
        /// Filter as the client wrote it.
        full: Box<str>,
        /// Filter without share prefix.
        filter: Box<str>,
        /// Group, if shared.
        group: Option<GroupName>,
    },
    /// Look up retained messages; answer with [`Session::handle_retained`].
    FindRetained {
        /// For the answer.
        token: Token,
        /// Filter without share prefix.
        filter: Box<str>,
    },
    /// Publish the will now.
    PublishWill(Arc<Message>),
    /// Tell the inbox that these are done with.
    Commit(Vec<InboxSeq>),
    /// Leave the inbox (persistent sessions only). Always before [`Effect::Unregister`].
    Detach(Box<DetachState>),
    /// Give this message of a shared group to another member.
    Redeliver {
        /// Filter without prefix.
        filter: Box<str>,
        /// Group.
        group: GroupName,
        /// The message.
        message: Arc<Message>,
    },
    /// Give up the client id (only after `Register`), once the inbox has been left.
    Unregister,
    /// Credentials or identity changed by re-authentication.
    Reidentified(Client),
    /// Send what is on the wire, then close the connection. Always the last effect of a session.
    Close(Closed),
    /// Tell operators.
    Event(Event),
}

/// The identity a grant establishes, to be completed by the driver.
#[derive(Debug)]
pub struct Identity {
    /// Who the client is.
    pub client: Client,
}

/// Why a session ended, for metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The client said DISCONNECT.
    ByClient,
    /// The transport closed or broke without DISCONNECT.
    Transport,
    /// The server ended it for this reason.
    Server(Reason),
    /// The CONNECT was refused for this reason.
    Refused(Reason),
    /// The peer broke the protocol.
    Violation(Reason),
}

/// A PUBLISH that passed all checks and wants to be routed. The one effect that borrows, so that a payload is not copied
/// unless somebody needs to keep it.
#[derive(Debug)]
pub struct PublishRequest<'p> {
    /// Topic name, resolved if the client sent an alias.
    pub topic: TopicName<'p>,
    /// See [`MessageView::properties`].
    pub properties: &'p [u8],
    /// Payload.
    pub payload: &'p [u8],
    /// QoS.
    pub qos: QoS,
    /// Retain flag: the message (or its absence, if the payload is empty) is to be retained.
    pub retain: bool,
    /// Expiry.
    pub expiry_at: Option<Instant>,
    /// For [`Session::handle_published`]; none for QoS 0, which nobody waits for.
    pub token: Option<PublishToken>,
}

impl PublishRequest<'_> {
    /// The message to route.
    pub fn view(&self, publisher: PublisherKey) -> MessageView<'_> {
        MessageView {
            topic: self.topic.as_str(),
            properties: self.properties,
            payload: self.payload,
            qos: self.qos,
            retain: self.retain,
            expiry_at: self.expiry_at,
            publisher,
        }
    }
}

/// A topic name from the packet, or from the alias table.
#[derive(Clone, Debug)]
pub enum TopicName<'p> {
    /// Stands in the packet.
    Packet(&'p str),
    /// An alias stood for it.
    Alias(Rc<str>),
}

impl TopicName<'_> {
    /// The name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Packet(name) => name,
            Self::Alias(name) => name,
        }
    }
}

/// Correlates a QoS 1 or 2 publish with its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PublishToken(pub u32);

/// How routing a publish ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Every receiver has taken it over.
    Done {
        /// Somebody subscribes to the topic.
        matched: bool,
    },
    /// Refused, or not done in time: MQTT 5 hears 0x97 or 0x83, MQTT 3.x hears nothing and retries.
    Failed(PortError),
}

/// How a message is to be delivered to this session.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// QoS: the lower of publish and subscription.
    pub qos: QoS,
    /// Retain flag.
    pub retain: bool,
    /// Ids of all subscriptions that matched.
    pub subscription_ids: &'a [NonZeroU32],
    /// Ask the permission for this topic again.
    pub check: bool,
    /// Place in the inbox, for persistent sessions.
    pub seq: Option<InboxSeq>,
    /// The shared subscription (filter without prefix, group) through which it came.
    pub shared: Option<(&'a str, &'a GroupName)>,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// On the wire.
    Sent,
    /// Waits in the session for its turn.
    Queued,
    /// Dropped, and counted.
    Dropped(DropReason),
}

/// The machine.
#[derive(Debug)]
pub struct Session {}

impl Session {
    /// A connection that has not sent anything yet.
    pub fn new(origin: Origin, now: Instant) -> Self {
        let _ = (origin, now);
        Self {}
    }

    /// Takes a packet. Returns what is to be routed, if it was a PUBLISH that may be.
    pub fn handle_packet<'p>(
        &mut self,
        cx: &Cx<'_>,
        packet: Packet<'p>,
        out: &mut Outbox<'_>,
    ) -> Option<PublishRequest<'p>> {
        let _ = (cx, packet, out);
        None
    }

    /// The bytes received are no packet.
    pub fn handle_malformed(&mut self, cx: &Cx<'_>, error: crate::codec::DecodeError, out: &mut Outbox<'_>) {
        let _ = (cx, error, out);
    }

    /// Answer to [`Effect::Authenticate`].
    pub fn handle_auth(&mut self, cx: &Cx<'_>, outcome: AuthOutcome, out: &mut Outbox<'_>) {
        let _ = (cx, outcome, out);
    }

    /// Answer to [`Effect::Identify`]: the tenant is interned, `cx.tenant` is it from now on.
    pub fn handle_identified(&mut self, cx: &Cx<'_>, tenant: TenantIdx, publisher: PublisherKey, out: &mut Outbox<'_>) {
        let _ = (cx, tenant, publisher, out);
    }

    /// Answer to [`Effect::Register`].
    pub fn handle_registered(&mut self, cx: &Cx<'_>, out: &mut Outbox<'_>) {
        let _ = (cx, out);
    }

    /// Answer to [`Effect::Attach`] or [`Effect::Discard`].
    pub fn handle_attached(&mut self, cx: &Cx<'_>, result: Result<Box<Attached>, PortError>, out: &mut Outbox<'_>) {
        let _ = (cx, result, out);
    }

    /// Answer to [`Effect::Subscribe`].
    pub fn handle_subscribed(
        &mut self,
        cx: &Cx<'_>,
        token: Token,
        result: Result<(), PortError>,
        out: &mut Outbox<'_>,
    ) {
        let _ = (cx, token, result, out);
    }

    /// Answer to [`Effect::Unsubscribe`].
    pub fn handle_unsubscribed(&mut self, cx: &Cx<'_>, token: Token, out: &mut Outbox<'_>) {
        let _ = (cx, token, out);
    }

    /// Answer to [`Effect::FindRetained`].
    pub fn handle_retained(&mut self, cx: &Cx<'_>, token: Token, messages: Vec<RetainedMessage>, out: &mut Outbox<'_>) {
        let _ = (cx, token, messages, out);
    }

    /// Answer to a [`PublishRequest`] with a token.
    pub fn handle_published(&mut self, cx: &Cx<'_>, token: PublishToken, result: Published, out: &mut Outbox<'_>) {
        let _ = (cx, token, result, out);
    }

    /// Messages from the session's inbox.
    pub fn handle_inbox(&mut self, cx: &Cx<'_>, messages: Vec<InboxMessage>, out: &mut Outbox<'_>) {
        let _ = (cx, messages, out);
    }

    /// Delivers a message that matched a subscription of this session.
    pub fn deliver(
        &mut self,
        cx: &Cx<'_>,
        message: &mut Fanout<'_>,
        delivery: &Delivery<'_>,
        out: &mut Outbox<'_>,
    ) -> Delivered {
        let _ = (cx, message, delivery, out);
        Delivered::Dropped(DropReason::SessionClosed)
    }

    /// Room on the wire again: send what waited because of [`Outbox::congested`].
    pub fn handle_writable(&mut self, cx: &Cx<'_>, out: &mut Outbox<'_>) {
        let _ = (cx, out);
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, cx: &Cx<'_>, out: &mut Outbox<'_>) {
        let _ = (cx, out);
    }

    /// When [`Session::handle_timeout`] wants to be called next. The driver may be late by a tick of its wheel, and need not
    /// ask again before it has fired unless a call returned a nearer time.
    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// The transport has closed or broken.
    pub fn handle_closed(&mut self, cx: &Cx<'_>, out: &mut Outbox<'_>) {
        let _ = (cx, out);
    }

    /// Ends the session from the server's side: takeover, shutdown, operator, redirection.
    pub fn close(&mut self, cx: &Cx<'_>, reason: Reason, server_reference: Option<&str>, out: &mut Outbox<'_>) {
        let _ = (cx, reason, server_reference, out);
    }

    /// Permissions or settings have been reloaded: ask anew for every subscription, and end those that are refused now.
    pub fn handle_reloaded(&mut self, cx: &Cx<'_>, out: &mut Outbox<'_>) {
        let _ = (cx, out);
    }
}

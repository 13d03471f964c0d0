//! One connection's MQTT session machine: packets and completions in, bytes and effects out.
//!
//! # Contract
//! The driver owns the socket, the timers and the ports. It calls one `handle_*` or command at a time with a monotonic
//! `now`, then carries out [`Outbox::effects`] in order and sends [`Outbox::wire`]. After [`Effect::Close`] the machine is
//! dead: it ignores everything, and the driver closes the socket once the wire is flushed.
//!
//! - Packets are fed only while [`Session::wants_packets`] says so; what has been received meanwhile waits with the driver.
//! - [`Session::handle_closed`] and [`Session::close`] end a session at once, unless its inbox is just being attached: then
//!   `Close` follows the answer, so that the inbox can be left in order.
//! - While [`Session::wants_writable`] says so, the driver calls [`Session::handle_writable`] when the wire has drained.
//!
//! # States
//! ```text
//! Fresh ──CONNECT──► Connecting: Authenticating ⇄ AwaitingAuth ─► Identifying ─► Registering ─► Attaching ──CONNACK──► Connected
//!   └──────────────────────┴── refusal, DISCONNECT, close ──────────────────────────────────────────────► Closed ◄──────┘
//! ```
//!
//! # Invariants
//! [`Session::validate`] asserts them: QoS 1 and 2 in flight never exceed the client's Receive Maximum; acknowledgements
//! leave in the order of receipt; nothing waits in the queue that could be sent; rare state is boxed, so that an idle
//! session is small.

mod ack_order;
mod alias;
mod auth;
mod close;
mod connack;
mod connect;
mod deliver;
mod effect;
mod exchange;
mod handshake;
mod in_flight;
mod inbound;
mod outbound_acks;
mod permission;
mod queue;
mod reload;
mod requests;
mod resume;
mod retained;
mod subscribe;
mod subscriptions;
mod timeouts;
mod unsubscribe;
mod validate;
mod violation;
mod will;

#[cfg(test)]
mod tests;

pub use effect::{Closed, Cx, Effect, Identity, Origin, Outbox, Tally, Token};
pub use exchange::{Delivered, Delivery, PublishRequest, PublishToken, Published, TopicName};

use crate::codec::{DecodeError, DecodeOptions, encode};
use crate::packet::Packet;
use ack_order::Inbound;
use alias::Aliases;
use alloc::boxed::Box;
use auth::ReAuth;
use bifro_core::client::{Client, Version};
use bifro_core::event::{Event, EventKind};
use bifro_core::ids::{InboxSeq, PublisherKey, RangeIdx, Slot, TenantIdx};
use bifro_core::time::Instant;
use connect::Connecting;
use core::net::SocketAddr;
use in_flight::Outbound;
use permission::PermissionCache;
use requests::Requests;
use subscriptions::Subscriptions;
use violation::Violation;
use will::Will;

/// The machine.
#[derive(Debug)]
pub struct Session {
    stage: Stage,
    client: Option<Client>,
    inbox: Option<Box<InboxHandle>>,
    will: Option<Box<Will>>,
    inbound: Option<Box<Inbound>>,
    outbound: Option<Box<Outbound>>,
    subscriptions: Option<Box<Subscriptions>>,
    requests: Option<Box<Requests>>,
    aliases: Option<Box<Aliases>>,
    permissions: Option<Box<PermissionCache>>,
    publisher: PublisherKey,
    last_packet_at: Instant,
    /// Theoretical arrival time of the publish rate's bucket.
    rate_until: Instant,
    tenant: TenantIdx,
    /// Session Expiry Interval in force, in seconds.
    expiry_s: u32,
    next_token: u32,
    /// Largest packet accepted, as announced.
    packet_bytes_max: u32,
    /// Largest packet the client accepts; 0 = no limit.
    client_packet_bytes_max: u32,
    /// QoS 1 and 2 messages in flight to the client at most; never above its Receive Maximum.
    send_window: u16,
    /// Receive Maximum announced to the client.
    receive_maximum: u16,
    /// Topic Alias Maximum announced to the client.
    alias_max: u16,
    keep_alive_s: u16,
    version: Version,
    flags: Flags,
}

/// Facts that take a bit each.
#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    /// A mosquitto bridge: it gets retain flags as published and never its own messages back.
    bridge: bool,
    /// The client asked for a session that outlives its connection.
    asked_to_persist: bool,
    /// One of the tenant's connections is ours, to be released at the end.
    holds_connection: bool,
    /// `Register` has been asked for.
    registered: bool,
    /// CONNACK has said success.
    started: bool,
    /// Messages may wait that were accepted under permissions which have changed since: each delivery is asked about.
    checks_all: bool,
    /// The client wants no reason strings [MQTT5-3.1.2-29].
    no_problem_information: bool,
}

/// Where the session stands.
#[derive(Debug)]
enum Stage {
    /// Nothing has arrived yet.
    Fresh(Box<Origin>),
    /// CONNECT has arrived, CONNACK has not left.
    Connecting(Box<Connecting>),
    /// CONNACK has left; with what re-authentication needs, if the client chose a method.
    Connected(Option<Box<ReAuth>>),
    /// `Close` has left.
    Closed,
}

/// The inbox of a persistent session.
#[derive(Clone, Copy, Debug)]
struct InboxHandle {
    place: (RangeIdx, Slot),
    epoch: u64,
    durable: bool,
    /// The session goes on.
    present: bool,
    /// One beyond the last message that it pushed; before that, the place of the first that it may push.
    next: InboxSeq,
}

impl Session {
    /// A connection that has not sent anything yet.
    pub fn new(origin: Origin, now: Instant) -> Self {
        Self {
            packet_bytes_max: origin.pre_auth_packet_bytes_max,
            stage: Stage::Fresh(Box::new(origin)),
            client: None,
            inbox: None,
            will: None,
            inbound: None,
            outbound: None,
            subscriptions: None,
            requests: None,
            aliases: None,
            permissions: None,
            publisher: PublisherKey(0),
            last_packet_at: now,
            rate_until: now,
            tenant: TenantIdx(0),
            expiry_s: 0,
            next_token: 0,
            client_packet_bytes_max: 0,
            send_window: 1,
            receive_maximum: 1,
            alias_max: 0,
            keep_alive_s: 0,
            version: Version::V311,
            flags: Flags::default(),
        }
    }

    /// Takes a packet. Returns what is to be routed, if it was a PUBLISH that may be.
    pub fn handle_packet<'p>(
        &mut self,
        cx: &Cx<'_>,
        packet: Packet<'p>,
        out: &mut Outbox<'_>,
    ) -> Option<PublishRequest<'p>> {
        self.last_packet_at = cx.now;
        match self.stage {
            Stage::Connected(_) => return self.handle_connected_packet(cx, packet, out),
            Stage::Fresh(_) => match packet {
                Packet::Connect(connect) => self.handle_connect(cx, &connect, out),
                _ => self.fail_silently(cx, Violation::FirstNotConnect, out), // [MQTT-3.1.0-1] [MQTT5-3.1.0-1]
            },
            Stage::Connecting(_) => match packet {
                Packet::Auth(auth) => self.handle_auth_packet(cx, &auth, out),
                Packet::Disconnect(disconnect) => self.handle_disconnect(cx, &disconnect, out),
                Packet::Connect(_) => self.fail(cx, Violation::SecondConnect, out), // [MQTT-3.1.0-2] [MQTT5-3.1.0-2]
                _ => self.fail(cx, Violation::BeforeConnAck, out),                  // [MQTT5-3.1.2-30]
            },
            Stage::Closed => {}
        }
        None
    }

    fn handle_connected_packet<'p>(
        &mut self,
        cx: &Cx<'_>,
        packet: Packet<'p>,
        out: &mut Outbox<'_>,
    ) -> Option<PublishRequest<'p>> {
        match packet {
            Packet::Publish(publish) => return self.handle_publish(cx, &publish, out),
            Packet::PubAck(ack) => self.handle_puback(cx, &ack, out),
            Packet::PubRec(ack) => self.handle_pubrec(cx, &ack, out),
            Packet::PubRel(ack) => self.handle_pubrel(cx, &ack, out),
            Packet::PubComp(ack) => self.handle_pubcomp(cx, &ack, out),
            Packet::Subscribe(subscribe) => self.handle_subscribe(cx, &subscribe, out),
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(cx, &unsubscribe, out),
            Packet::PingReq => self.handle_pingreq(cx, out),
            Packet::Disconnect(disconnect) => self.handle_disconnect(cx, &disconnect, out),
            Packet::Auth(auth) => self.handle_auth_packet(cx, &auth, out),
            Packet::Connect(_) => self.fail(cx, Violation::SecondConnect, out), // [MQTT-3.1.0-2] [MQTT5-3.1.0-2]
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                self.fail(cx, Violation::ServerPacket, out);
            }
        }
        None
    }

    /// The bytes received are no packet [MQTT-4.8.0-1] [MQTT5-4.13.1-1].
    pub fn handle_malformed(&mut self, cx: &Cx<'_>, error: DecodeError, out: &mut Outbox<'_>) {
        self.end_malformed(cx, error, out);
    }

    /// How the next packet is to be decoded.
    pub const fn decode_options(&self) -> DecodeOptions {
        let version = match self.stage {
            Stage::Fresh(_) => None,
            _ => Some(self.version),
        };
        DecodeOptions { version, packet_bytes_max: self.packet_bytes_max }
    }

    /// Whether the driver is to go on reading and feeding packets. False while CONNECT is being worked on, so that a
    /// client may send ahead of CONNACK and a refused one is not served [MQTT5-3.1.4-6], and while too much that the client has asked for is unanswered.
    pub fn wants_packets(&self) -> bool {
        match &self.stage {
            Stage::Fresh(_) => true,
            Stage::Connecting(connecting) => connecting.awaits_client(),
            Stage::Connected(_) => {
                !self.requests.as_ref().is_some_and(|requests| requests.is_full())
                    && !self.inbound.as_ref().is_some_and(|inbound| inbound.is_full(self.pending_publishes_max()))
            }
            Stage::Closed => false,
        }
    }

    /// The client, once authentication has told.
    pub const fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// Tenant of the session; the default tenant before it is known.
    pub const fn tenant(&self) -> TenantIdx {
        self.tenant
    }

    /// Tells this publisher from others; valid once identified.
    pub const fn publisher_key(&self) -> PublisherKey {
        self.publisher
    }

    /// Protocol version; valid once CONNECT has arrived.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// CONNACK has left, and the session has not ended.
    pub const fn is_connected(&self) -> bool {
        matches!(self.stage, Stage::Connected(_))
    }

    /// `Close` has been emitted.
    pub const fn is_closed(&self) -> bool {
        matches!(self.stage, Stage::Closed)
    }

    /// The session has an inbox.
    pub const fn is_persistent(&self) -> bool {
        self.inbox.is_some()
    }

    /// Place and epoch of the session's inbox, if it has one.
    pub fn inbox(&self) -> Option<((RangeIdx, Slot), u64)> {
        self.inbox.as_deref().map(|inbox| (inbox.place, inbox.epoch))
    }

    /// The session's inbox outlives the process: it is told of each step of a QoS 2 exchange before the client is.
    pub fn has_durable_inbox(&self) -> bool {
        self.inbox.as_deref().is_some_and(|inbox| inbox.durable)
    }

    /// A member of a shared group that would get a message on its way at once.
    pub fn has_credit(&self) -> bool {
        self.is_connected()
            && self
                .outbound
                .as_deref()
                .is_none_or(|outbound| outbound.has_room(self.send_window) && outbound.is_clear())
    }

    /// Where the client is, as far as it is known; only until CONNACK.
    pub fn peer(&self) -> Option<SocketAddr> {
        match &self.stage {
            Stage::Fresh(origin) => origin.peer,
            Stage::Connecting(connecting) => connecting.peer(),
            Stage::Connected(_) | Stage::Closed => None,
        }
    }

    /// The handshakes before MQTT have told who is there. Ignored once CONNECT has arrived.
    pub fn set_peer(&mut self, peer: Option<SocketAddr>, certificate: Option<&[u8]>) {
        if let Stage::Fresh(origin) = &mut self.stage {
            origin.peer = peer;
            origin.certificate = certificate.map(Box::from);
        }
    }

    /// Bytes of messages that wait for their turn.
    pub fn queued_bytes(&self) -> usize {
        self.outbound.as_deref().map_or(0, Outbound::queued_bytes)
    }

    /// Bytes this session takes, roughly, queued messages apart.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.inbox.as_ref().map_or(0, |_| size_of::<InboxHandle>())
            + self.will.as_deref().map_or(0, Will::memory_bytes)
            + self.inbound.as_deref().map_or(0, Inbound::memory_bytes)
            + self.outbound.as_deref().map_or(0, Outbound::memory_bytes)
            + self.subscriptions.as_deref().map_or(0, Subscriptions::memory_bytes)
            + self.requests.as_deref().map_or(0, Requests::memory_bytes)
            + self.aliases.as_deref().map_or(0, Aliases::memory_bytes)
            + self.permissions.as_deref().map_or(0, PermissionCache::memory_bytes)
    }

    /// The next token, unique until four thousand million more have been given out.
    const fn take_token(&mut self) -> Token {
        let token = Token(self.next_token);
        self.next_token = self.next_token.wrapping_add(1);
        token
    }

    /// Puts `packet` on the wire, unless it is larger than the client accepts [MQTT5-3.1.2-24].
    fn send(&self, packet: &Packet<'_>, out: &mut Outbox<'_>) -> bool {
        let start = out.wire.bytes.len();
        encode(packet, self.version, &mut out.wire.bytes);
        let limit = self.client_packet_bytes_max as usize;
        let fits = limit == 0 || out.wire.bytes.len() - start <= limit;
        if !fits {
            out.wire.bytes.truncate(start); // [MQTT5-3.1.2-25]
        }
        fits
    }

    /// Tells operators about this session.
    fn event(&self, kind: EventKind, detail: &str, out: &mut Outbox<'_>) {
        out.event(self.event_of(kind, detail));
    }

    fn event_of(&self, kind: EventKind, detail: &str) -> Event {
        let mut event = Event::of(kind, self.client.as_ref(), detail);
        if self.client.is_none() {
            event.peer = self.peer();
        }
        event
    }
}

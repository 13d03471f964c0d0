//! Control packets, borrowed from the bytes they were decoded from. The same types are encoded.

mod filters;

pub use filters::{SubscribeFilterIter, UnsubscribeFilterIter};

use crate::property::Properties;
use crate::reason::Reason;
use alloc::borrow::Cow;
use bifro_core::client::Version;
use bifro_core::message::QoS;
use core::num::NonZeroU16;

/// Packet identifier; never zero [MQTT-2.3.1-1].
pub type PacketId = NonZeroU16;

/// Any control packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// CONNECT.
    Connect(Connect<'a>),
    /// CONNACK.
    ConnAck(ConnAck<'a>),
    /// PUBLISH.
    Publish(Publish<'a>),
    /// PUBACK.
    PubAck(Ack<'a>),
    /// PUBREC.
    PubRec(Ack<'a>),
    /// PUBREL.
    PubRel(Ack<'a>),
    /// PUBCOMP.
    PubComp(Ack<'a>),
    /// SUBSCRIBE.
    Subscribe(Subscribe<'a>),
    /// SUBACK.
    SubAck(SubAck<'a>),
    /// UNSUBSCRIBE.
    Unsubscribe(Unsubscribe<'a>),
    /// UNSUBACK.
    UnsubAck(SubAck<'a>),
    /// PINGREQ.
    PingReq,
    /// PINGRESP.
    PingResp,
    /// DISCONNECT.
    Disconnect(Disconnect<'a>),
    /// AUTH.
    Auth(Auth<'a>),
}

/// CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Protocol version.
    pub version: Version,
    /// Bridge bit of the protocol level (0x80), as mosquitto's bridges set it.
    pub bridge: bool,
    /// Clean Session (3.x) or Clean Start (5.0).
    pub clean_start: bool,
    /// Keep Alive in seconds, 0 = off.
    pub keep_alive: u16,
    /// Properties (5.0).
    pub properties: Properties<'a>,
    /// Client identifier, may be empty.
    pub client_id: &'a str,
    /// Will.
    pub will: Option<Will<'a>>,
    /// User name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
}

/// The will in a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// Topic; syntax is checked by the session, not by the decoder.
    pub topic: &'a str,
    /// Payload.
    pub payload: &'a [u8],
    /// QoS.
    pub qos: QoS,
    /// Retain.
    pub retain: bool,
    /// Properties (5.0).
    pub properties: Properties<'a>,
}

/// CONNACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Session Present.
    pub session_present: bool,
    /// Reason; encoded as the return code that comes closest in 3.x, decoded from 3.x as the raw byte.
    pub reason: Reason,
    /// Properties (5.0).
    pub properties: Properties<'a>,
}

/// PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// DUP.
    pub dup: bool,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Topic name; empty if an alias stands for it. Valid UTF-8, no U+0000; wildcards are the session's to refuse.
    pub topic: &'a str,
    /// Packet identifier, for QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// Properties (5.0).
    pub properties: PublishProperties<'a>,
    /// Payload.
    pub payload: &'a [u8],
}

/// The properties of a PUBLISH, picked apart once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties<'a> {
    /// The whole block.
    pub all: Properties<'a>,
    /// Topic Alias; 0 is the session's to refuse.
    pub topic_alias: Option<u16>,
    /// Message Expiry Interval in seconds.
    pub message_expiry: Option<u32>,
    /// Payload Format Indicator is 1: the payload claims to be UTF-8.
    pub payload_is_utf8: bool,
    /// Response Topic; wildcards are the session's to refuse [MQTT5-3.3.2-14].
    pub response_topic: Option<&'a str>,
    /// There are subscription identifiers, which a client must not send [MQTT5-3.3.4-6].
    pub has_subscription_ids: bool,
}

impl<'a> PublishProperties<'a> {
    /// The properties that go with the message to its subscribers, see [`Properties::forwardable`]. Borrowed unless the
    /// publisher put an expiry or an alias between them.
    pub fn forward(&self) -> Cow<'a, [u8]> {
        if self.topic_alias.is_none() && self.message_expiry.is_none() && !self.has_subscription_ids {
            // All others are forwarded.
            return Cow::Borrowed(self.all.raw());
        }
        self.all.forwardable()
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Packet identifier.
    pub packet_id: PacketId,
    /// Reason; success in 3.x.
    pub reason: Reason,
    /// Properties (5.0).
    pub properties: Properties<'a>,
}

/// SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Packet identifier.
    pub packet_id: PacketId,
    /// Properties (5.0).
    pub properties: Properties<'a>,
    /// Filters with their options, at least one [MQTT-3.8.3-3].
    pub filters: SubscribeFilters<'a>,
}

/// The payload of a SUBSCRIBE: validated, walked with [`SubscribeFilters::iter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeFilters<'a> {
    pub(crate) raw: &'a [u8],
    pub(crate) count: u32,
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeFilter<'a> {
    /// Full topic filter, `$share/…` included; syntax is the session's to check.
    pub filter: &'a str,
    /// Requested QoS.
    pub qos: QoS,
    /// No Local (5.0).
    pub no_local: bool,
    /// Retain As Published (5.0).
    pub retain_as_published: bool,
    /// Retain Handling (5.0): 0, 1 or 2.
    pub retain_handling: u8,
}

/// SUBACK or UNSUBACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Packet identifier.
    pub packet_id: PacketId,
    /// Properties (5.0).
    pub properties: Properties<'a>,
    /// One code per filter, as they stand on the wire of the version in use; empty in an UNSUBACK of 3.x.
    pub codes: &'a [u8],
}

/// UNSUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Packet identifier.
    pub packet_id: PacketId,
    /// Properties (5.0).
    pub properties: Properties<'a>,
    /// Filters, at least one [MQTT-3.10.3-2].
    pub filters: UnsubscribeFilters<'a>,
}

/// The payload of an UNSUBSCRIBE: validated, walked with [`UnsubscribeFilters::iter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubscribeFilters<'a> {
    pub(crate) raw: &'a [u8],
    pub(crate) count: u32,
}

/// DISCONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Reason; success in 3.x.
    pub reason: Reason,
    /// Properties (5.0).
    pub properties: Properties<'a>,
}

/// AUTH (5.0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Reason.
    pub reason: Reason,
    /// Properties.
    pub properties: Properties<'a>,
}

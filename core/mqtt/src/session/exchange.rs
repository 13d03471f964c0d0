//! Messages on their way through the machine: what it hands out to be routed, and what it is handed to deliver.

use alloc::borrow::Cow;
use alloc::rc::Rc;
use bifro_core::event::DropReason;
use bifro_core::ids::{InboxSeq, PublisherKey};
use bifro_core::message::{MessageView, QoS};
use bifro_core::ports::{GroupName, PortError};
use bifro_core::time::Instant;
use core::num::NonZeroU32;

/// A PUBLISH that passed all checks and wants to be routed. The one effect that borrows, so that a payload is not copied
/// unless somebody needs to keep it.
#[derive(Debug)]
pub struct PublishRequest<'p> {
    /// Topic name, resolved if the client sent an alias.
    pub topic: TopicName<'p>,
    /// See [`MessageView::properties`].
    pub properties: Cow<'p, [u8]>,
    /// Payload.
    pub payload: &'p [u8],
    /// QoS.
    pub qos: QoS,
    /// Retain flag: the message (or its absence, if the payload is empty) is to be retained.
    pub retain: bool,
    /// Expiry.
    pub expiry_at: Option<Instant>,
    /// For [`Session::handle_published`](super::Session::handle_published); none for QoS 0, which nobody waits for.
    pub token: Option<PublishToken>,
}

impl PublishRequest<'_> {
    /// The message to route.
    pub fn view(&self, publisher: PublisherKey) -> MessageView<'_> {
        MessageView {
            topic: self.topic.as_str(),
            properties: &self.properties,
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

//! The application message as the broker owns it, and the borrowed view through which it is encoded.

use crate::ids::PublisherKey;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::sync::Arc;

/// Quality of service [MQTT-4.3].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum QoS {
    /// At most once.
    AtMostOnce = 0,
    /// At least once.
    AtLeastOnce = 1,
    /// Exactly once.
    ExactlyOnce = 2,
}

impl QoS {
    /// The level for its two bits on the wire; 3 is reserved [MQTT-3.3.1-4].
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// A message without an owner: what a decoded PUBLISH and a stored [`Message`] have in common.
#[derive(Clone, Copy, Debug)]
pub struct MessageView<'a> {
    /// Topic name, never empty, never with wildcards.
    pub topic: &'a str,
    /// The properties that are forwarded unaltered [MQTT5-3.3.2.3], already encoded and in their order: payload format,
    /// content type, response topic, correlation data, user properties. No length prefix; no expiry, alias or ids.
    pub properties: &'a [u8],
    /// Application payload.
    pub payload: &'a [u8],
    /// QoS the publisher used.
    pub qos: QoS,
    /// Retain flag as published.
    pub retain: bool,
    /// When the message expires, if it does [MQTT5-3.3.2-5].
    pub expiry_at: Option<Instant>,
    /// Who published it.
    pub publisher: PublisherKey,
}

impl MessageView<'_> {
    /// An owned copy: two allocations, one for the header and one for topic, properties and payload together.
    ///
    /// # Panics
    /// If the topic is longer than 65,535 bytes or the properties longer than 4 GiB, which no decoded packet can be.
    pub fn to_message(&self) -> Arc<Message> {
        let mut body = alloc::vec::Vec::with_capacity(self.topic.len() + self.properties.len() + self.payload.len());
        body.extend_from_slice(self.topic.as_bytes());
        body.extend_from_slice(self.properties);
        body.extend_from_slice(self.payload);
        Arc::new(Message {
            body: body.into_boxed_slice(),
            topic_len: u16::try_from(self.topic.len()).expect("a topic name has a two-byte length"),
            properties_len: u32::try_from(self.properties.len()).expect("properties fit a packet"),
            qos: self.qos,
            retain: self.retain,
            expiry_at: self.expiry_at,
            publisher: self.publisher,
        })
    }
}

/// A message the broker holds on to, shared between shards by reference count and never changed.
#[derive(Debug)]
pub struct Message {
    body: Box<[u8]>,
    properties_len: u32,
    topic_len: u16,
    qos: QoS,
    retain: bool,
    expiry_at: Option<Instant>,
    publisher: PublisherKey,
}

impl Message {
    /// Bytes this message keeps allocated, for budgets and quotas.
    pub const fn footprint_bytes(&self) -> usize {
        self.body.len() + size_of::<Self>() + 2 * size_of::<usize>()
    }

    /// The topic name.
    pub fn topic(&self) -> &str {
        // The first `topic_len` bytes were copied from a `str` and are never changed.
        core::str::from_utf8(&self.body[..self.topic_len as usize]).expect("copied from a str")
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.body[self.topic_len as usize + self.properties_len as usize..]
    }

    /// The borrowed view of this message.
    pub fn view(&self) -> MessageView<'_> {
        let (topic, rest) = self.body.split_at(self.topic_len as usize);
        let (properties, payload) = rest.split_at(self.properties_len as usize);
        MessageView {
            topic: core::str::from_utf8(topic).expect("copied from a str"),
            properties,
            payload,
            qos: self.qos,
            retain: self.retain,
            expiry_at: self.expiry_at,
            publisher: self.publisher,
        }
    }
}

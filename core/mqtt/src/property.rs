//! MQTT 5 properties (section 2.2.2) as a validated block of bytes, read in place and written in place.

mod validate;
mod writer;

pub(crate) use validate::{PropertyOwner, Validator, validate};
pub use writer::PropertyWriter;

use crate::codec::DecodeError;
use crate::codec::reader::Reader;
use alloc::borrow::Cow;
use alloc::vec::Vec;
use bifro_core::message::QoS;
use core::num::NonZeroU32;

/// Property identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are those of the specification's table 2-4")]
pub enum PropertyId {
    PayloadFormatIndicator = 1,
    MessageExpiryInterval = 2,
    ContentType = 3,
    ResponseTopic = 8,
    CorrelationData = 9,
    SubscriptionIdentifier = 11,
    SessionExpiryInterval = 17,
    AssignedClientIdentifier = 18,
    ServerKeepAlive = 19,
    AuthenticationMethod = 21,
    AuthenticationData = 22,
    RequestProblemInformation = 23,
    WillDelayInterval = 24,
    RequestResponseInformation = 25,
    ResponseInformation = 26,
    ServerReference = 28,
    ReasonString = 31,
    ReceiveMaximum = 33,
    TopicAliasMaximum = 34,
    TopicAlias = 35,
    MaximumQos = 36,
    RetainAvailable = 37,
    UserProperty = 38,
    MaximumPacketSize = 39,
    WildcardSubscriptionAvailable = 40,
    SubscriptionIdentifierAvailable = 41,
    SharedSubscriptionAvailable = 42,
}

/// Types that properties have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ValueType {
    Byte,
    U16,
    U32,
    VarInt,
    Str,
    Binary,
    Pair,
}

impl PropertyId {
    /// The property with this identifier. All of them fit one byte of the variable byte integer that identifiers are.
    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::PayloadFormatIndicator,
            2 => Self::MessageExpiryInterval,
            3 => Self::ContentType,
            8 => Self::ResponseTopic,
            9 => Self::CorrelationData,
            11 => Self::SubscriptionIdentifier,
            17 => Self::SessionExpiryInterval,
            18 => Self::AssignedClientIdentifier,
            19 => Self::ServerKeepAlive,
            21 => Self::AuthenticationMethod,
            22 => Self::AuthenticationData,
            23 => Self::RequestProblemInformation,
            24 => Self::WillDelayInterval,
            25 => Self::RequestResponseInformation,
            26 => Self::ResponseInformation,
            28 => Self::ServerReference,
            31 => Self::ReasonString,
            33 => Self::ReceiveMaximum,
            34 => Self::TopicAliasMaximum,
            35 => Self::TopicAlias,
            36 => Self::MaximumQos,
            37 => Self::RetainAvailable,
            38 => Self::UserProperty,
            39 => Self::MaximumPacketSize,
            40 => Self::WildcardSubscriptionAvailable,
            41 => Self::SubscriptionIdentifierAvailable,
            42 => Self::SharedSubscriptionAvailable,
            _ => return None,
        })
    }

    const fn value_type(self) -> ValueType {
        match self {
            Self::PayloadFormatIndicator
            | Self::RequestProblemInformation
            | Self::RequestResponseInformation
            | Self::MaximumQos
            | Self::RetainAvailable
            | Self::WildcardSubscriptionAvailable
            | Self::SubscriptionIdentifierAvailable
            | Self::SharedSubscriptionAvailable => ValueType::Byte,
            Self::ServerKeepAlive | Self::ReceiveMaximum | Self::TopicAliasMaximum | Self::TopicAlias => ValueType::U16,
            Self::MessageExpiryInterval
            | Self::SessionExpiryInterval
            | Self::WillDelayInterval
            | Self::MaximumPacketSize => ValueType::U32,
            Self::SubscriptionIdentifier => ValueType::VarInt,
            Self::ContentType
            | Self::ResponseTopic
            | Self::AssignedClientIdentifier
            | Self::AuthenticationMethod
            | Self::ResponseInformation
            | Self::ServerReference
            | Self::ReasonString => ValueType::Str,
            Self::CorrelationData | Self::AuthenticationData => ValueType::Binary,
            Self::UserProperty => ValueType::Pair,
        }
    }

    /// The server passes the property on to subscribers unaltered [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16]
    /// [MQTT5-3.3.2-17] [MQTT5-3.3.2-20].
    const fn is_forwarded(self) -> bool {
        matches!(
            self,
            Self::PayloadFormatIndicator
                | Self::ContentType
                | Self::ResponseTopic
                | Self::CorrelationData
                | Self::UserProperty
        )
    }
}

/// The value of one property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of section 2.2.2.2's types")]
pub enum PropertyValue<'a> {
    Byte(u8),
    U16(u16),
    U32(u32),
    VarInt(u32),
    Str(&'a str),
    Binary(&'a [u8]),
    Pair(&'a str, &'a str),
}

impl<'a> PropertyValue<'a> {
    /// Reads a value of type `value_type`.
    fn decode(reader: &mut Reader<'a>, value_type: ValueType) -> Result<Self, DecodeError> {
        Ok(match value_type {
            ValueType::Byte => Self::Byte(reader.u8()?),
            ValueType::U16 => Self::U16(reader.u16()?),
            ValueType::U32 => Self::U32(reader.u32()?),
            ValueType::VarInt => Self::VarInt(reader.varint()?),
            ValueType::Str => Self::Str(reader.string()?),
            ValueType::Binary => Self::Binary(reader.binary()?),
            // [MQTT5-1.5.7-1]
            ValueType::Pair => Self::Pair(reader.string()?, reader.string()?),
        })
    }

    /// Passes over a value of type `value_type` without looking at its content.
    fn skip(reader: &mut Reader<'a>, value_type: ValueType) -> Result<(), DecodeError> {
        match value_type {
            ValueType::Byte => reader.take(1).map(drop),
            ValueType::U16 => reader.take(2).map(drop),
            ValueType::U32 => reader.take(4).map(drop),
            ValueType::VarInt => reader.varint().map(drop),
            ValueType::Str | ValueType::Binary => reader.binary().map(drop),
            ValueType::Pair => reader.binary().and_then(|_| reader.binary()).map(drop),
        }
    }
}

/// One property where it stands.
#[derive(Clone, Copy, Debug)]
struct Field<'a> {
    id: PropertyId,
    /// Identifier and value.
    encoded: &'a [u8],
}

impl<'a> Field<'a> {
    fn value(&self) -> Option<PropertyValue<'a>> {
        PropertyValue::decode(&mut Reader::new(self.encoded.get(1..)?), self.id.value_type()).ok()
    }
}

/// Walks a block by lengths alone.
#[derive(Clone, Debug)]
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let mut reader = Reader::new(self.rest);
        let id = PropertyId::from_byte(reader.u8().ok()?)?;
        PropertyValue::skip(&mut reader, id.value_type()).ok()?;
        let (encoded, rest) = self.rest.split_at_checked(self.rest.len() - reader.rest().len())?;
        self.rest = rest;
        Some(Field { id, encoded })
    }
}

/// A block of properties without its length prefix. One that the decoder made is valid for its packet: known ids,
/// allowed there, none twice that must not be, strings in UTF-8, values in range. Of any other, iteration ends at the
/// first property that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    raw: &'a [u8],
}

impl<'a> Properties<'a> {
    /// Wraps a block that [`PropertyWriter`] or the decoder has made.
    pub const fn new(raw: &'a [u8]) -> Self {
        Self { raw }
    }

    /// The encoded block.
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    fn fields(&self) -> Fields<'a> {
        Fields { rest: self.raw }
    }

    /// The first property with this identifier.
    fn find(&self, id: PropertyId) -> Option<PropertyValue<'a>> {
        self.fields().find(|field| field.id == id)?.value()
    }

    /// All properties in their order.
    pub fn iter(&self) -> impl Iterator<Item = (PropertyId, PropertyValue<'a>)> + use<'a> {
        self.fields().map_while(|field| Some((field.id, field.value()?)))
    }

    /// Subscription Identifiers in their order: one in a SUBSCRIBE, any number in a PUBLISH to a client.
    pub fn subscription_ids(&self) -> impl Iterator<Item = NonZeroU32> + use<'a> {
        let ids = self.fields().filter(|field| field.id == PropertyId::SubscriptionIdentifier);
        ids.filter_map(|field| match field.value()? {
            PropertyValue::VarInt(id) => NonZeroU32::new(id),
            _ => None,
        })
    }

    /// User Properties in their order, as name and value.
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let properties = self.fields().filter(|field| field.id == PropertyId::UserProperty);
        properties.filter_map(|field| match field.value()? {
            PropertyValue::Pair(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// The part of a PUBLISH's or will's properties that goes to subscribers unaltered and in its order
    /// [MQTT5-3.3.2-18]: all but expiry, delay, alias and subscription identifiers. Borrowed if it is contiguous.
    pub fn forwardable(&self) -> Cow<'a, [u8]> {
        let is_forwarded = |field: &Field<'_>| field.id.is_forwarded();
        // The first run of forwarded properties, and whether any come after a gap.
        let mut fields = self.fields();
        let mut before = fields.clone();
        while fields.next().is_some_and(|field| !is_forwarded(&field)) {
            before = fields.clone();
        }
        let run = before.clone().take_while(is_forwarded).map(|field| field.encoded.len()).sum();
        let Some((run, after)) = before.rest.split_at_checked(run) else { return Cow::Borrowed(&[]) };
        let scattered = Fields { rest: after }.filter(is_forwarded).map(|field| field.encoded);
        let mut pieces = scattered.peekable();
        if pieces.peek().is_none() {
            return Cow::Borrowed(run);
        }
        let mut joined = Vec::with_capacity(run.len() + after.len());
        joined.extend_from_slice(run);
        pieces.for_each(|piece| joined.extend_from_slice(piece));
        Cow::Owned(joined)
    }
}

macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $id:ident, $pattern:pat => $value:expr;)*) => {
        impl<'a> Properties<'a> {
            $(
                $(#[$doc])*
                pub fn $name(&self) -> Option<$type> {
                    match self.find(PropertyId::$id)? {
                        $pattern => $value,
                        _ => None,
                    }
                }
            )*
        }
    };
}

accessors! {
    /// Payload Format Indicator: 1 if the payload claims to be UTF-8.
    payload_format: u8 = PayloadFormatIndicator, PropertyValue::Byte(v) => Some(v);
    /// Message Expiry Interval in seconds.
    message_expiry: u32 = MessageExpiryInterval, PropertyValue::U32(v) => Some(v);
    /// Content Type.
    content_type: &'a str = ContentType, PropertyValue::Str(v) => Some(v);
    /// Response Topic.
    response_topic: &'a str = ResponseTopic, PropertyValue::Str(v) => Some(v);
    /// Correlation Data.
    correlation_data: &'a [u8] = CorrelationData, PropertyValue::Binary(v) => Some(v);
    /// Session Expiry Interval in seconds, `u32::MAX` = never.
    session_expiry_interval: u32 = SessionExpiryInterval, PropertyValue::U32(v) => Some(v);
    /// Assigned Client Identifier.
    assigned_client_id: &'a str = AssignedClientIdentifier, PropertyValue::Str(v) => Some(v);
    /// Server Keep Alive in seconds.
    server_keep_alive: u16 = ServerKeepAlive, PropertyValue::U16(v) => Some(v);
    /// Authentication Method.
    authentication_method: &'a str = AuthenticationMethod, PropertyValue::Str(v) => Some(v);
    /// Authentication Data.
    authentication_data: &'a [u8] = AuthenticationData, PropertyValue::Binary(v) => Some(v);
    /// Request Problem Information.
    request_problem_information: bool = RequestProblemInformation, PropertyValue::Byte(v) => Some(v == 1);
    /// Will Delay Interval in seconds.
    will_delay_interval: u32 = WillDelayInterval, PropertyValue::U32(v) => Some(v);
    /// Request Response Information.
    request_response_information: bool = RequestResponseInformation, PropertyValue::Byte(v) => Some(v == 1);
    /// Response Information.
    response_information: &'a str = ResponseInformation, PropertyValue::Str(v) => Some(v);
    /// Server Reference.
    server_reference: &'a str = ServerReference, PropertyValue::Str(v) => Some(v);
    /// Reason String.
    reason_string: &'a str = ReasonString, PropertyValue::Str(v) => Some(v);
    /// Receive Maximum; never 0 in a decoded packet.
    receive_maximum: u16 = ReceiveMaximum, PropertyValue::U16(v) => Some(v);
    /// Topic Alias Maximum.
    topic_alias_maximum: u16 = TopicAliasMaximum, PropertyValue::U16(v) => Some(v);
    /// Topic Alias; 0 is the session's to refuse.
    topic_alias: u16 = TopicAlias, PropertyValue::U16(v) => Some(v);
    /// Maximum QoS.
    maximum_qos: QoS = MaximumQos, PropertyValue::Byte(v) => QoS::from_bits(v);
    /// Retain Available.
    retain_available: bool = RetainAvailable, PropertyValue::Byte(v) => Some(v == 1);
    /// Maximum Packet Size in bytes; never 0 in a decoded packet.
    maximum_packet_size: u32 = MaximumPacketSize, PropertyValue::U32(v) => Some(v);
    /// Wildcard Subscription Available.
    wildcard_subscription_available: bool = WildcardSubscriptionAvailable, PropertyValue::Byte(v) => Some(v == 1);
    /// Subscription Identifiers Available.
    subscription_identifier_available: bool = SubscriptionIdentifierAvailable, PropertyValue::Byte(v) => Some(v == 1);
    /// Shared Subscription Available.
    shared_subscription_available: bool = SharedSubscriptionAvailable, PropertyValue::Byte(v) => Some(v == 1);
}

#[cfg(test)]
mod tests;

//! Which properties belong to which packet, how often, and in which range: section 2.2.2.2 of MQTT 5 and the
//! packets' own sections.

use super::{Properties, PropertyId, PropertyValue};
use crate::codec::DecodeError;
use crate::codec::reader::Reader;

/// What has a block of properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PropertyOwner {
    /// CONNECT.
    Connect,
    /// The will in a CONNECT.
    Will,
    /// CONNACK.
    ConnAck,
    /// PUBLISH.
    Publish,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK or UNSUBACK.
    Ack,
    /// SUBSCRIBE.
    Subscribe,
    /// UNSUBSCRIBE.
    Unsubscribe,
    /// DISCONNECT.
    Disconnect,
    /// AUTH.
    Auth,
}

/// A set of property identifiers, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct IdSet(u64);

impl IdSet {
    const fn of(ids: &[PropertyId]) -> Self {
        let (mut set, mut at) = (0, 0);
        while at < ids.len() {
            set |= 1 << ids[at] as u8;
            at += 1;
        }
        Self(set)
    }

    const fn contains(self, id: PropertyId) -> bool {
        self.0 >> id as u8 & 1 == 1
    }

    const fn insert(&mut self, id: PropertyId) {
        self.0 |= 1 << id as u8;
    }
}

const CONNECT: IdSet = IdSet::of(&[
    PropertyId::SessionExpiryInterval,
    PropertyId::AuthenticationMethod,
    PropertyId::AuthenticationData,
    PropertyId::RequestProblemInformation,
    PropertyId::RequestResponseInformation,
    PropertyId::ReceiveMaximum,
    PropertyId::TopicAliasMaximum,
    PropertyId::UserProperty,
    PropertyId::MaximumPacketSize,
]);

const WILL: IdSet = IdSet::of(&[
    PropertyId::PayloadFormatIndicator,
    PropertyId::MessageExpiryInterval,
    PropertyId::ContentType,
    PropertyId::ResponseTopic,
    PropertyId::CorrelationData,
    PropertyId::WillDelayInterval,
    PropertyId::UserProperty,
]);

const CONNACK: IdSet = IdSet::of(&[
    PropertyId::SessionExpiryInterval,
    PropertyId::AssignedClientIdentifier,
    PropertyId::ServerKeepAlive,
    PropertyId::AuthenticationMethod,
    PropertyId::AuthenticationData,
    PropertyId::ResponseInformation,
    PropertyId::ServerReference,
    PropertyId::ReasonString,
    PropertyId::ReceiveMaximum,
    PropertyId::TopicAliasMaximum,
    PropertyId::MaximumQos,
    PropertyId::RetainAvailable,
    PropertyId::UserProperty,
    PropertyId::MaximumPacketSize,
    PropertyId::WildcardSubscriptionAvailable,
    PropertyId::SubscriptionIdentifierAvailable,
    PropertyId::SharedSubscriptionAvailable,
]);

const PUBLISH: IdSet = IdSet::of(&[
    PropertyId::PayloadFormatIndicator,
    PropertyId::MessageExpiryInterval,
    PropertyId::ContentType,
    PropertyId::ResponseTopic,
    PropertyId::CorrelationData,
    PropertyId::SubscriptionIdentifier,
    PropertyId::TopicAlias,
    PropertyId::UserProperty,
]);

const ACK: IdSet = IdSet::of(&[PropertyId::ReasonString, PropertyId::UserProperty]);

const SUBSCRIBE: IdSet = IdSet::of(&[PropertyId::SubscriptionIdentifier, PropertyId::UserProperty]);

const UNSUBSCRIBE: IdSet = IdSet::of(&[PropertyId::UserProperty]);

const DISCONNECT: IdSet = IdSet::of(&[
    PropertyId::SessionExpiryInterval,
    PropertyId::ServerReference,
    PropertyId::ReasonString,
    PropertyId::UserProperty,
]);

const AUTH: IdSet = IdSet::of(&[
    PropertyId::AuthenticationMethod,
    PropertyId::AuthenticationData,
    PropertyId::ReasonString,
    PropertyId::UserProperty,
]);

impl PropertyOwner {
    const fn allowed(self) -> IdSet {
        match self {
            Self::Connect => CONNECT,
            Self::Will => WILL,
            Self::ConnAck => CONNACK,
            Self::Publish => PUBLISH,
            Self::Ack => ACK,
            Self::Subscribe => SUBSCRIBE,
            Self::Unsubscribe => UNSUBSCRIBE,
            Self::Disconnect => DISCONNECT,
            Self::Auth => AUTH,
        }
    }

    /// A PUBLISH to a client names every subscription that matched [MQTT5-3.3.4-4]; user properties repeat anywhere.
    const fn may_repeat(self, id: PropertyId) -> bool {
        match id {
            PropertyId::UserProperty => true,
            PropertyId::SubscriptionIdentifier => matches!(self, Self::Publish),
            _ => false,
        }
    }
}

/// Checks properties one after another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validator {
    owner: PropertyOwner,
    allowed: IdSet,
    seen: IdSet,
}

impl Validator {
    pub(crate) const fn new(owner: PropertyOwner) -> Self {
        Self { owner, allowed: owner.allowed(), seen: IdSet(0) }
    }

    /// Reads the next property.
    pub(crate) fn read<'a>(&mut self, reader: &mut Reader<'a>) -> Result<(PropertyId, PropertyValue<'a>), DecodeError> {
        let byte = reader.u8()?;
        let id = PropertyId::from_byte(byte).ok_or(DecodeError::PropertyUnknown { id: byte })?;
        if !self.allowed.contains(id) {
            return Err(DecodeError::PropertyNotAllowed(id));
        }
        if self.seen.contains(id) && !self.owner.may_repeat(id) {
            return Err(DecodeError::PropertyRepeated(id));
        }
        self.seen.insert(id);
        let value = PropertyValue::decode(reader, id.value_type())?;
        if is_in_range(id, value) { Ok((id, value)) } else { Err(DecodeError::PropertyOutOfRange(id)) }
    }

    /// Checks what can only be said of the whole block.
    const fn finish(&self) -> Result<(), DecodeError> {
        // Section 3.1.2.11.10.
        if self.seen.contains(PropertyId::AuthenticationData) && !self.seen.contains(PropertyId::AuthenticationMethod) {
            return Err(DecodeError::AuthDataWithoutMethod);
        }
        Ok(())
    }
}

/// All properties of one byte are flags. Topic Alias 0 has a reason code of its own and is left to the session.
const fn is_in_range(id: PropertyId, value: PropertyValue<'_>) -> bool {
    match (id, value) {
        (_, PropertyValue::Byte(flag)) => flag <= 1,
        (PropertyId::ReceiveMaximum, PropertyValue::U16(0))
        | (PropertyId::MaximumPacketSize, PropertyValue::U32(0))
        | (PropertyId::SubscriptionIdentifier, PropertyValue::VarInt(0)) => false,
        _ => true,
    }
}

/// Checks a whole block.
pub(crate) fn validate(block: &[u8], owner: PropertyOwner) -> Result<Properties<'_>, DecodeError> {
    let mut reader = Reader::new(block);
    let mut validator = Validator::new(owner);
    while !reader.is_empty() {
        validator.read(&mut reader)?;
    }
    validator.finish()?;
    Ok(Properties::new(block))
}

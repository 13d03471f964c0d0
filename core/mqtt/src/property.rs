//! MQTT 5 properties [MQTT5-2.2.2] as a validated block of bytes, read in place and written in place.

use alloc::vec::Vec;

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

/// A block of properties without its length prefix. One that the decoder made is valid for its packet: known ids, allowed
/// there, none twice that must not be, strings in UTF-8, values in range.
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
}

/// Appends encoded properties to a buffer.
#[derive(Debug)]
pub struct PropertyWriter<'b> {
    out: &'b mut Vec<u8>,
}

impl<'b> PropertyWriter<'b> {
    /// Writes to the end of `out`.
    pub const fn new(out: &'b mut Vec<u8>) -> Self {
        Self { out }
    }
}

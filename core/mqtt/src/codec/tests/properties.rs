//! Properties, packet by packet: HOSTILE rows 5 and 16.

use super::*;
use crate::property::PropertyId::{self, *};

/// Every property, with a valid value.
const ALL: [(PropertyId, &[u8]); 27] = [
    (PayloadFormatIndicator, &[1]),
    (MessageExpiryInterval, &[0, 0, 0, 9]),
    (ContentType, b"\0\x01t"),
    (ResponseTopic, b"\0\x01r"),
    (CorrelationData, b"\0\x02\0\xFF"),
    (SubscriptionIdentifier, &[0xFF, 0x7F]),
    (SessionExpiryInterval, &[0xFF; 4]),
    (AssignedClientIdentifier, b"\0\x01c"),
    (ServerKeepAlive, &[0, 9]),
    (AuthenticationMethod, b"\0\x01m"),
    (AuthenticationData, b"\0\x01d"),
    (RequestProblemInformation, &[0]),
    (WillDelayInterval, &[0; 4]),
    (RequestResponseInformation, &[1]),
    (ResponseInformation, b"\0\x01i"),
    (ServerReference, b"\0\x01s"),
    (ReasonString, b"\0\x01e"),
    (ReceiveMaximum, &[0, 1]),
    (TopicAliasMaximum, &[0, 0]),
    (TopicAlias, &[0, 1]),
    (MaximumQos, &[1]),
    (RetainAvailable, &[0]),
    (UserProperty, b"\0\x01k\0\0"),
    (MaximumPacketSize, &[0, 0, 0, 1]),
    (WildcardSubscriptionAvailable, &[1]),
    (SubscriptionIdentifierAvailable, &[1]),
    (SharedSubscriptionAvailable, &[1]),
];

/// A kind of packet with properties: first byte, what comes before them and after, and which it may have (table 2-4).
struct Kind {
    name: &'static str,
    first: u8,
    before: &'static [u8],
    after: &'static [u8],
    allowed: &'static [PropertyId],
}

const ACK: &[PropertyId] = &[ReasonString, UserProperty];

const fn kind(
    name: &'static str,
    first: u8,
    before: &'static [u8],
    after: &'static [u8],
    allowed: &'static [PropertyId],
) -> Kind {
    Kind { name, first, before, after, allowed }
}

const KINDS: [Kind; 14] = [
    kind(
        "CONNECT",
        0x10,
        b"\0\x04MQTT\x05\x02\0\0",
        b"\0\x01c",
        &[
            SessionExpiryInterval,
            AuthenticationMethod,
            AuthenticationData,
            RequestProblemInformation,
            RequestResponseInformation,
            ReceiveMaximum,
            TopicAliasMaximum,
            UserProperty,
            MaximumPacketSize,
        ],
    ),
    kind(
        "will",
        0x10,
        b"\0\x04MQTT\x05\x06\0\0\0\0\x01c",
        b"\0\x01w\0\0",
        &[
            PayloadFormatIndicator,
            MessageExpiryInterval,
            ContentType,
            ResponseTopic,
            CorrelationData,
            WillDelayInterval,
            UserProperty,
        ],
    ),
    kind(
        "CONNACK",
        0x20,
        b"\0\0",
        b"",
        &[
            SessionExpiryInterval,
            AssignedClientIdentifier,
            ServerKeepAlive,
            AuthenticationMethod,
            AuthenticationData,
            ResponseInformation,
            ServerReference,
            ReasonString,
            ReceiveMaximum,
            TopicAliasMaximum,
            MaximumQos,
            RetainAvailable,
            UserProperty,
            MaximumPacketSize,
            WildcardSubscriptionAvailable,
            SubscriptionIdentifierAvailable,
            SharedSubscriptionAvailable,
        ],
    ),
    kind(
        "PUBLISH",
        0x30,
        b"\0\x01t",
        b"payload",
        &[
            PayloadFormatIndicator,
            MessageExpiryInterval,
            ContentType,
            ResponseTopic,
            CorrelationData,
            SubscriptionIdentifier,
            TopicAlias,
            UserProperty,
        ],
    ),
    kind("PUBACK", 0x40, b"\0\x01\0", b"", ACK),
    kind("PUBREC", 0x50, b"\0\x01\0", b"", ACK),
    kind("PUBREL", 0x62, b"\0\x01\0", b"", ACK),
    kind("PUBCOMP", 0x70, b"\0\x01\0", b"", ACK),
    kind("SUBSCRIBE", 0x82, b"\0\x01", b"\0\x01f\0", &[SubscriptionIdentifier, UserProperty]),
    kind("SUBACK", 0x90, b"\0\x01", b"\0", ACK),
    kind("UNSUBSCRIBE", 0xA2, b"\0\x01", b"\0\x01f", &[UserProperty]),
    kind("UNSUBACK", 0xB0, b"\0\x01", b"\0", ACK),
    kind("DISCONNECT", 0xE0, b"\0", b"", &[SessionExpiryInterval, ServerReference, ReasonString, UserProperty]),
    kind("AUTH", 0xF0, b"\0", b"", &[AuthenticationMethod, AuthenticationData, ReasonString, UserProperty]),
];

impl Kind {
    fn with_block(&self, block: &[u8]) -> Vec<u8> {
        // A method is where data has to have one and AUTH needs one.
        let mut whole = Vec::new();
        let has_method = block.first() == Some(&(AuthenticationMethod as u8));
        if self.allowed.contains(&AuthenticationMethod) && !has_method {
            whole.extend_from_slice(b"\x15\0\x01m");
        }
        whole.extend_from_slice(block);
        assert!(whole.len() < 128);
        packet(self.first, &[self.before, &[whole.len() as u8], &whole, self.after])
    }

    fn answer(&self, block: &[u8]) -> Result<(), DecodeError> {
        decode(&self.with_block(block), &options(Version::V5)).map(|packet| assert!(packet.is_some(), "{}", self.name))
    }
}

fn field(id: PropertyId, value: &[u8]) -> Vec<u8> {
    [&[id as u8], value].concat()
}

#[test]
fn each_packet_accepts_its_properties_and_no_others() {
    for kind in &KINDS {
        for (id, value) in ALL {
            let expected = if kind.allowed.contains(&id) { Ok(()) } else { Err(DecodeError::PropertyNotAllowed(id)) };
            assert_eq!(kind.answer(&field(id, value)), expected, "{id:?} in {}", kind.name);
        }
    }
    assert_eq!(DecodeError::PropertyNotAllowed(TopicAlias).reason(), Reason::MALFORMED_PACKET);
}

#[test]
fn properties_stand_once_but_for_two_that_may_repeat() {
    for kind in &KINDS {
        for (id, value) in ALL.iter().filter(|(id, _)| kind.allowed.contains(id)) {
            let twice = [field(*id, value), field(*id, value)].concat();
            let may_repeat = *id == UserProperty || (*id == SubscriptionIdentifier && kind.name == "PUBLISH");
            let expected = if may_repeat { Ok(()) } else { Err(DecodeError::PropertyRepeated(*id)) };
            assert_eq!(kind.answer(&twice), expected, "{id:?} in {}", kind.name);
        }
    }
    assert_eq!(DecodeError::PropertyRepeated(TopicAlias).reason(), Reason::PROTOCOL_ERROR);
}

#[test]
fn identifiers_that_do_not_exist_are_refused() {
    let known: Vec<u8> = ALL.iter().map(|(id, _)| *id as u8).collect();
    for kind in &KINDS {
        for id in (0..=255).filter(|id| !known.contains(id)) {
            assert_eq!(kind.answer(&[id, 0, 0]), Err(DecodeError::PropertyUnknown { id }), "{}", kind.name);
        }
    }
    assert_eq!(DecodeError::PropertyUnknown { id: 0 }.reason(), Reason::MALFORMED_PACKET);
}

#[test]
fn values_out_of_range_are_refused() {
    let out_of_range: [(PropertyId, &[u8]); 11] = [
        (PayloadFormatIndicator, &[2]),
        (RequestProblemInformation, &[2]),
        (RequestResponseInformation, &[255]),
        (MaximumQos, &[2]),
        (RetainAvailable, &[2]),
        (WildcardSubscriptionAvailable, &[2]),
        (SubscriptionIdentifierAvailable, &[2]),
        (SharedSubscriptionAvailable, &[2]),
        (ReceiveMaximum, &[0, 0]),
        (MaximumPacketSize, &[0; 4]),
        (SubscriptionIdentifier, &[0]),
    ];
    for kind in &KINDS {
        for (id, value) in out_of_range.iter().filter(|(id, _)| kind.allowed.contains(id)) {
            let expected = Err(DecodeError::PropertyOutOfRange(*id));
            assert_eq!(kind.answer(&field(*id, value)), expected, "{id:?} in {}", kind.name);
        }
    }
    assert_eq!(DecodeError::PropertyOutOfRange(ReceiveMaximum).reason(), Reason::PROTOCOL_ERROR);
}

/// HOSTILE row 16: a block that ends inside a property, at every byte of every property.
#[test]
fn half_a_property_is_refused() {
    for kind in &KINDS {
        for (id, value) in ALL.iter().filter(|(id, _)| kind.allowed.contains(id)) {
            let whole = field(*id, value);
            for end in 1..whole.len() {
                let answer = kind.answer(&whole[..end]);
                assert_eq!(answer, Err(DecodeError::Truncated), "{id:?} cut at {end} in {}", kind.name);
            }
        }
    }
}

/// [MQTT5-2.2.2-1]
#[test]
fn the_length_of_the_properties_is_there_and_fits() {
    let truncated = Err(DecodeError::Truncated);
    for kind in KINDS.iter().filter(|kind| !kind.after.is_empty()) {
        let answer = |len: &[u8]| decode(&packet(kind.first, &[kind.before, len]), &options(Version::V5)).map(drop);
        assert_eq!(answer(&[]), truncated, "{}", kind.name);
        assert_eq!(answer(&[100]), truncated, "{}", kind.name);
        assert_eq!(answer(&[0x80]), truncated, "{}", kind.name);
        assert_eq!(answer(&[0x80, 0]), Err(DecodeError::VarIntNotMinimal), "{}", kind.name);
        assert_eq!(answer(&[0xFF, 0xFF, 0xFF, 0xFF, 1]), Err(DecodeError::VarIntTooLong), "{}", kind.name);
        assert_eq!(answer(&[0xFF, 0xFF, 0xFF, 0x7F]), truncated, "{}", kind.name);
    }
}

#[test]
fn authentication_data_needs_a_method() {
    for (first, before, after) in [(0x10, &b"\0\x04MQTT\x05\x02\0\0"[..], &b"\0\x01c"[..]), (0x20, b"\0\0", b"")] {
        let bytes = packet(first, &[before, b"\x04\x16\0\x01d", after]);
        assert_refused(&bytes, Version::V5, DecodeError::AuthDataWithoutMethod, Reason::PROTOCOL_ERROR);
    }
}

/// HOSTILE row 20: nothing limits user properties but the packet.
#[test]
fn many_and_long_user_properties_are_decoded() {
    let long = alloc::vec![b'v'; 65_535];
    let one = [b"\x26\0\x01k\xFF\xFF", &long[..]].concat();
    let block = one.repeat(20);
    let mut properties_len = Vec::new();
    crate::codec::writer::put_varint(&mut properties_len, block.len() as u32);
    let bytes = packet(0x30, &[b"\0\x01t", &properties_len, &block]);
    let Packet::Publish(publish) = decoded(&bytes, Version::V5) else { panic!() };
    assert_eq!(publish.properties.all.user_properties().count(), 20);
    assert_eq!(publish.properties.forward(), block);
}

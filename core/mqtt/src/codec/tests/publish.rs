//! PUBLISH.

use super::*;
use crate::packet::{Publish, PublishProperties};
use crate::property::{Properties, PropertyId, PropertyWriter};
use alloc::borrow::Cow;
use bifro_core::message::QoS;

fn publish_of(bytes: &[u8], version: Version) -> Publish<'_> {
    match decoded(bytes, version) {
        Packet::Publish(publish) => publish,
        other => panic!("{other:?}"),
    }
}

/// A QoS 0 PUBLISH of MQTT 5 to "t" with these properties and the payload "p".
fn with_properties(write: impl FnOnce(&mut PropertyWriter<'_>)) -> Vec<u8> {
    let mut block = Vec::new();
    write(&mut PropertyWriter::new(&mut block));
    packet(0x30, &[b"\0\x01t", &[block.len() as u8], &block, b"p"])
}

/// [MQTT-3.3.1-4] [MQTT5-3.3.1-4]
#[test]
fn qos_3_is_refused_at_the_first_byte() {
    for version in VERSIONS {
        assert_refused(&[0x36], version, DecodeError::QosReserved, Reason::MALFORMED_PACKET);
    }
}

/// [MQTT-3.3.1-2] [MQTT5-3.3.1-2]
#[test]
fn dup_needs_a_qos_above_0() {
    for version in [Version::V311, Version::V5] {
        assert_refused(&[0x38], version, DecodeError::DupWithoutQos, Reason::MALFORMED_PACKET);
    }
    assert!(publish_of(b"\x38\x03\0\x01t", Version::V31).dup);
    assert!(publish_of(b"\x3A\x05\0\x01t\0\x01", Version::V311).dup);
}

/// [MQTT-2.3.1-1] [MQTT5-2.2.1-3]
#[test]
fn packet_identifier_0_is_refused() {
    let protocol_error = Reason::PROTOCOL_ERROR;
    assert_refused(b"\x32\x05\0\x01t\0\0", Version::V311, DecodeError::PacketIdZero, protocol_error);
    assert_refused(b"\x34\x06\0\x01t\0\0\0", Version::V5, DecodeError::PacketIdZero, protocol_error);
}

/// [MQTT-2.3.1-5] [MQTT5-2.2.1-2]
#[test]
fn qos_0_has_no_packet_identifier() {
    let publish = publish_of(b"\x30\x05\0\x01t\0\x07", Version::V311);
    assert_eq!((publish.packet_id, publish.payload), (None, &[0, 7][..]));
    let publish = publish_of(b"\x32\x05\0\x01t\0\x07", Version::V311);
    assert_eq!((publish.packet_id, publish.payload), (Some(id(7)), &[][..]));
}

/// HOSTILE row 7. [MQTT-4.7.3-1] [MQTT5-4.7.3-1]
#[test]
fn an_empty_topic_needs_an_alias() {
    assert_refused(b"\x30\x02\0\0", Version::V311, DecodeError::TopicMissing, Reason::PROTOCOL_ERROR);
    assert_refused(b"\x30\x03\0\0\0", Version::V5, DecodeError::TopicMissing, Reason::PROTOCOL_ERROR);
    let publish = publish_of(b"\x30\x06\0\0\x03\x23\0\x01", Version::V5);
    assert_eq!((publish.topic, publish.properties.topic_alias), ("", Some(1)));
    assert_eq!(publish_of(b"\x30\x07\0\x05$SYS/", Version::V311).topic, "$SYS/");
}

/// HOSTILE row 15, the decoder's part: the session has 0x94 for these. [MQTT5-3.3.2-8]
#[test]
fn alias_0_and_wildcards_are_left_to_the_session() {
    let bytes = with_properties(|writer| {
        writer.u16(PropertyId::TopicAlias, 0).str(PropertyId::ResponseTopic, "a/#");
    });
    let properties = publish_of(&bytes, Version::V5).properties;
    assert_eq!((properties.topic_alias, properties.response_topic), (Some(0), Some("a/#")));
}

#[test]
fn properties_are_picked_apart() {
    let bytes = with_properties(|writer| {
        writer
            .byte(PropertyId::PayloadFormatIndicator, 1)
            .u32(PropertyId::MessageExpiryInterval, 9)
            .u16(PropertyId::TopicAlias, 4)
            .str(PropertyId::ResponseTopic, "r")
            .varint(PropertyId::SubscriptionIdentifier, 1)
            .varint(PropertyId::SubscriptionIdentifier, 268_435_455)
            .pair(PropertyId::UserProperty, "k", "v");
    });
    let publish = publish_of(&bytes, Version::V5);
    let properties = publish.properties;
    assert_eq!(publish.payload, b"p");
    assert!(properties.payload_is_utf8 && properties.has_subscription_ids);
    assert_eq!((properties.message_expiry, properties.topic_alias), (Some(9), Some(4)));
    assert_eq!(properties.response_topic, Some("r"));
    let ids: Vec<u32> = properties.all.subscription_ids().map(u32::from).collect();
    assert_eq!(ids, [1, 268_435_455]);
}

/// [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18] [MQTT5-3.3.2-20]
#[test]
fn what_is_forwarded_is_borrowed_unless_it_is_scattered() {
    let bytes = with_properties(|writer| {
        writer.pair(PropertyId::UserProperty, "b", "1").pair(PropertyId::UserProperty, "a", "2");
    });
    let all = publish_of(&bytes, Version::V5).properties;
    assert!(matches!(all.forward(), Cow::Borrowed(block) if block == all.all.raw()));

    let bytes = with_properties(|writer| {
        writer
            .u32(PropertyId::MessageExpiryInterval, 9)
            .str(PropertyId::ContentType, "t")
            .binary(PropertyId::CorrelationData, b"c")
            .u16(PropertyId::TopicAlias, 1);
    });
    let ends = publish_of(&bytes, Version::V5).properties;
    assert!(matches!(ends.forward(), Cow::Borrowed(b"\x03\0\x01t\x09\0\x01c")));

    let bytes = with_properties(|writer| {
        writer
            .byte(PropertyId::PayloadFormatIndicator, 1)
            .u16(PropertyId::TopicAlias, 1)
            .pair(PropertyId::UserProperty, "k", "v")
            .u32(PropertyId::MessageExpiryInterval, 9)
            .str(PropertyId::ResponseTopic, "r");
    });
    let scattered = publish_of(&bytes, Version::V5).properties;
    let forwarded = scattered.forward();
    assert!(matches!(forwarded, Cow::Owned(_)));
    assert_eq!(*forwarded, *b"\x01\x01\x26\0\x01k\0\x01v\x08\0\x01r");
}

#[test]
fn all_shapes_round_trip() {
    let mut block = Vec::new();
    PropertyWriter::new(&mut block).str(PropertyId::ContentType, "text/plain");
    for version in VERSIONS {
        for (qos, packet_id) in
            [(QoS::AtMostOnce, None), (QoS::AtLeastOnce, Some(id(1))), (QoS::ExactlyOnce, Some(id(65_535)))]
        {
            let mut properties = PublishProperties::default();
            if version == Version::V5 {
                properties.all = Properties::new(&block);
            }
            for retain in [false, true] {
                let dup = retain && packet_id.is_some();
                let payload = &[7; 200];
                let publish = Publish { dup, qos, retain, topic: "a/b", packet_id, properties, payload };
                assert_round_trip(&Packet::Publish(publish), version);
                assert_round_trip(&Packet::Publish(Publish { payload: &[], ..publish }), version);
            }
        }
    }
}

/// The lengths at which Remaining Length takes one more byte.
#[test]
fn payloads_at_the_edges_of_remaining_length_round_trip() {
    let payload = alloc::vec![0x5A; 2_097_152];
    for remaining in [127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
        let publish = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: "t",
            packet_id: None,
            properties: PublishProperties::default(),
            payload: &payload[..remaining - 3],
        };
        let mut bytes = Vec::new();
        encode(&Packet::Publish(publish), Version::V311, &mut bytes);
        assert_eq!(decoded(&bytes, Version::V311), Packet::Publish(publish));
    }
}

#[test]
#[should_panic(expected = "if and only if its QoS is above 0")]
fn encoding_a_packet_identifier_with_qos_0_is_a_defect() {
    let publish = Publish { packet_id: Some(id(1)), ..publish_of(b"\x30\x03\0\x01t", Version::V311) };
    encode(&Packet::Publish(publish), Version::V311, &mut Vec::new());
}

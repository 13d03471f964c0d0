//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK.

use super::*;
use crate::packet::{SubAck, Subscribe, SubscribeFilter, SubscribeFilters, Unsubscribe, UnsubscribeFilters};
use crate::property::{Properties, PropertyId, PropertyWriter};
use bifro_core::message::QoS;

/// A SUBSCRIBE with packet identifier 1 for "f" with these options.
fn with_options(version: Version, bits: u8) -> Vec<u8> {
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    packet(0x82, &[&[0, 1], properties, b"\0\x01f", &[bits]])
}

/// [MQTT-3.8.3-4] [MQTT5-3.8.3-5]
#[test]
fn reserved_option_bits_are_refused() {
    let reserved = DecodeError::SubscribeOptionsReserved;
    for bits in [0x40, 0x80, 0xC1] {
        for version in VERSIONS {
            assert_refused(&with_options(version, bits), version, reserved, Reason::MALFORMED_PACKET);
        }
    }
    for bits in [0x04, 0x08, 0x10, 0x20] {
        assert_eq!(refused(&with_options(Version::V31, bits), Version::V31), reserved);
        assert_eq!(refused(&with_options(Version::V311, bits), Version::V311), reserved);
        decoded(&with_options(Version::V5, bits), Version::V5);
    }
}

/// [MQTT-3.8.3-4]
#[test]
fn requested_qos_3_is_refused() {
    for version in VERSIONS {
        let bytes = with_options(version, 3);
        assert_refused(&bytes, version, DecodeError::SubscribeQosReserved, Reason::PROTOCOL_ERROR);
    }
}

#[test]
fn retain_handling_3_is_refused() {
    let bytes = with_options(Version::V5, 0x30);
    assert_refused(&bytes, Version::V5, DecodeError::RetainHandlingReserved, Reason::PROTOCOL_ERROR);
}

/// HOSTILE row 13. [MQTT-3.8.3-3] [MQTT-3.10.3-2] [MQTT5-3.8.3-2] [MQTT5-3.10.3-2]
#[test]
fn there_must_be_filters() {
    for first in [0x82, 0xA2] {
        for version in [Version::V31, Version::V311] {
            let error = DecodeError::FiltersMissing;
            assert_refused(&packet(first, &[&[0, 1]]), version, error, Reason::PROTOCOL_ERROR);
        }
        assert_eq!(refused(&packet(first, &[&[0, 1, 0]]), Version::V5), DecodeError::FiltersMissing);
    }
}

/// HOSTILE row 13.
#[test]
fn truncated_filters_are_refused() {
    for rest in [&b"\0"[..], b"\0\x02f", b"\0\x01f", b"\0\x01f\0\0", b"\0\x01f\0\0\x01g"] {
        assert_eq!(refused(&packet(0x82, &[&[0, 1], rest]), Version::V311), DecodeError::Truncated);
    }
    for rest in [&b"\0"[..], b"\0\x02f", b"\0\x01f\0"] {
        assert_eq!(refused(&packet(0xA2, &[&[0, 1], rest]), Version::V311), DecodeError::Truncated);
    }
}

/// HOSTILE row 13.
#[test]
fn the_subscription_identifier_is_one_in_range() {
    let with_block = |block: &[u8]| packet(0x82, &[&[0, 1, block.len() as u8], block, b"\0\x01f\0"]);
    let subscription_id = PropertyId::SubscriptionIdentifier;
    for (block, error, reason) in [
        (&[11, 0][..], DecodeError::PropertyOutOfRange(subscription_id), Reason::PROTOCOL_ERROR),
        (&[11, 1, 11, 2], DecodeError::PropertyRepeated(subscription_id), Reason::PROTOCOL_ERROR),
        (&[11, 0xFF, 0xFF, 0xFF, 0xFF, 1], DecodeError::VarIntTooLong, Reason::MALFORMED_PACKET),
        (&[11, 0x81, 0], DecodeError::VarIntNotMinimal, Reason::MALFORMED_PACKET),
    ] {
        assert_refused(&with_block(block), Version::V5, error, reason);
    }
    let bytes = with_block(&[11, 0xFF, 0xFF, 0xFF, 0x7F]);
    let Packet::Subscribe(subscribe) = decoded(&bytes, Version::V5) else { panic!("a SUBSCRIBE") };
    assert_eq!(subscribe.properties.subscription_ids().next().map(u32::from), Some(268_435_455));
}

/// [MQTT-2.3.1-1] [MQTT5-2.2.1-3]
#[test]
fn packet_identifier_0_is_refused() {
    for version in VERSIONS {
        for first in [0x82, 0xA2, 0x90, 0xB0] {
            assert_refused(&[first, 2, 0, 0], version, DecodeError::PacketIdZero, Reason::PROTOCOL_ERROR);
        }
    }
}

#[test]
fn filters_are_walked_in_order_with_their_options() {
    let filters = [
        SubscribeFilter {
            filter: "$share/g/a/#",
            qos: QoS::ExactlyOnce,
            no_local: false,
            retain_as_published: true,
            retain_handling: 2,
        },
        SubscribeFilter {
            filter: "",
            qos: QoS::AtMostOnce,
            no_local: true,
            retain_as_published: false,
            retain_handling: 0,
        },
    ];
    let (mut scratch, mut block, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    PropertyWriter::new(&mut block).varint(PropertyId::SubscriptionIdentifier, 200);
    let filters_block = SubscribeFilters::encode(filters, &mut scratch);
    let subscribe = Subscribe { packet_id: id(10), properties: Properties::new(&block), filters: filters_block };
    assert_round_trip(&Packet::Subscribe(subscribe), Version::V5);
    encode(&Packet::Subscribe(subscribe), Version::V5, &mut bytes);
    let Packet::Subscribe(walked) = decoded(&bytes, Version::V5) else { panic!("a SUBSCRIBE") };
    assert_eq!((walked.filters.len(), walked.filters.iter().len()), (2, 2));
    assert!(!walked.filters.is_empty());
    assert!(walked.filters.iter().eq(filters));
    assert_eq!((&walked.filters).into_iter().skip(1).len(), 1);
}

#[test]
fn options_of_mqtt_5_are_not_written_to_older_versions() {
    let filter = SubscribeFilter {
        filter: "f",
        qos: QoS::AtLeastOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: 1,
    };
    let (mut scratch, mut bytes) = (Vec::new(), Vec::new());
    let filters = SubscribeFilters::encode([filter], &mut scratch);
    let subscribe = Subscribe { packet_id: id(1), properties: Properties::default(), filters };
    encode(&Packet::Subscribe(subscribe), Version::V311, &mut bytes);
    assert_eq!(bytes, b"\x82\x06\0\x01\0\x01f\x01");
}

/// HOSTILE row 20: as many filters as fit, walked without an allocation.
#[test]
fn sixty_four_thousand_filters_are_decoded() {
    let (mut scratch, mut bytes) = (Vec::new(), Vec::new());
    let filters = UnsubscribeFilters::encode(core::iter::repeat_n("a/b", 65_536), &mut scratch);
    let unsubscribe = Unsubscribe { packet_id: id(1), properties: Properties::default(), filters };
    encode(&Packet::Unsubscribe(unsubscribe), Version::V311, &mut bytes);
    let Packet::Unsubscribe(walked) = decoded(&bytes, Version::V311) else { panic!("an UNSUBSCRIBE") };
    assert_eq!((walked.filters.len(), walked.filters.iter().len()), (65_536, 65_536));
    assert!(walked.filters.iter().all(|filter| filter == "a/b"));
    assert_eq!((&walked.filters).into_iter().count(), 65_536);
    assert!(!walked.filters.is_empty());
}

/// [MQTT-3.9.3-2] [MQTT5-3.9.3-2] [MQTT5-3.11.3-2]
#[test]
fn codes_are_those_of_the_packet() {
    let ack = |codes| SubAck { packet_id: id(3), properties: Properties::default(), codes };
    for version in VERSIONS {
        assert_round_trip(&Packet::SubAck(ack(&[0, 1, 2, 0x80])), version);
    }
    assert_round_trip(&Packet::SubAck(ack(&[0x87, 0x8F, 0x97, 0xA2])), Version::V5);
    assert_round_trip(&Packet::UnsubAck(ack(&[0, 0x11, 0x87])), Version::V5);
    assert_round_trip(&Packet::UnsubAck(ack(&[])), Version::V31);
    assert_round_trip(&Packet::UnsubAck(ack(&[])), Version::V311);
    let unknown = |code| DecodeError::ReasonUnknown { code };
    assert_eq!(refused(&[0x90, 3, 0, 1, 3], Version::V311), unknown(3));
    assert_eq!(refused(&[0x90, 3, 0, 1, 0x87], Version::V311), unknown(0x87));
    assert_eq!(refused(&[0x90, 4, 0, 1, 0, 0x11], Version::V5), unknown(0x11));
    assert_eq!(refused(&[0xB0, 4, 0, 1, 0, 0x01], Version::V5), unknown(1));
    assert_eq!(refused(&[0x90, 2, 0, 1], Version::V311), DecodeError::CodesMissing);
    assert_eq!(refused(&[0xB0, 3, 0, 1, 0], Version::V5), DecodeError::CodesMissing);
}

#[test]
fn unsuback_of_3x_has_no_codes() {
    let mut out = Vec::new();
    let ack = SubAck { packet_id: id(3), properties: Properties::default(), codes: &[0, 0] };
    encode(&Packet::UnsubAck(ack), Version::V311, &mut out);
    assert_eq!(out, [0xB0, 2, 0, 3]);
}

#[test]
#[should_panic(expected = "no U+0000")]
fn encoding_a_filter_with_nul_is_a_defect() {
    UnsubscribeFilters::encode(["\0"], &mut Vec::new());
}

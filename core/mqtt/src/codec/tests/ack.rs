//! PUBACK, PUBREC, PUBREL, PUBCOMP, DISCONNECT and AUTH.

use super::*;
use crate::codec::{AckKind, encode_ack, encode_ping_resp};
use crate::packet::{Ack, Auth, Disconnect};
use crate::property::{Properties, PropertyId, PropertyWriter};

const FIRST_BYTES: [u8; 4] = [0x40, 0x50, 0x62, 0x70];

fn all_kinds(ack: Ack<'_>) -> [Packet<'_>; 4] {
    [Packet::PubAck(ack), Packet::PubRec(ack), Packet::PubRel(ack), Packet::PubComp(ack)]
}

fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    encode(packet, version, &mut out);
    out
}

#[test]
fn success_takes_four_bytes_in_every_version() {
    let ack = Ack { packet_id: id(0x0102), reason: Reason::SUCCESS, properties: Properties::default() };
    for version in VERSIONS {
        for (packet, first) in all_kinds(ack).iter().zip(FIRST_BYTES) {
            assert_eq!(encoded(packet, version), [first, 2, 1, 2]);
            assert_round_trip(packet, version);
        }
    }
    let mut out = Vec::new();
    for kind in [AckKind::PubAck, AckKind::PubRec, AckKind::PubRel, AckKind::PubComp] {
        encode_ack(kind, id(0x0102), &mut out);
    }
    encode_ping_resp(&mut out);
    assert_eq!(out, [0x40, 2, 1, 2, 0x50, 2, 1, 2, 0x62, 2, 1, 2, 0x70, 2, 1, 2, 0xD0, 0]);
}

#[test]
fn older_versions_hear_no_reason() {
    let ack = Ack { packet_id: id(1), reason: Reason::PACKET_IDENTIFIER_NOT_FOUND, properties: Properties::default() };
    assert_eq!(encoded(&Packet::PubRel(ack), Version::V311), [0x62, 2, 0, 1]);
    let disconnect = Disconnect { reason: Reason::SERVER_BUSY, properties: Properties::default() };
    assert_eq!(encoded(&Packet::Disconnect(disconnect), Version::V31), [0xE0, 0]);
}

#[test]
fn reason_and_properties_may_be_left_out() {
    let reason = Reason::PACKET_IDENTIFIER_NOT_FOUND;
    let bare = Ack { packet_id: id(1), reason, properties: Properties::default() };
    assert_eq!(encoded(&Packet::PubComp(bare), Version::V5), [0x70, 3, 0, 1, 0x92]);
    assert_round_trip(&Packet::PubComp(bare), Version::V5);
    // What the encoder leaves out, others write.
    assert_eq!(decoded(&[0x70, 4, 0, 1, 0x92, 0], Version::V5), Packet::PubComp(bare));
    let mut block = Vec::new();
    PropertyWriter::new(&mut block).str(PropertyId::ReasonString, "gone").pair(PropertyId::UserProperty, "k", "v");
    let success = Ack { packet_id: id(1), reason: Reason::SUCCESS, properties: Properties::new(&block) };
    for packet in all_kinds(success) {
        assert_round_trip(&packet, Version::V5);
    }
}

/// HOSTILE row 6, the decoder's part.
/// [MQTT5-3.4.2-1] [MQTT5-3.5.2-1] [MQTT5-3.6.2-1] [MQTT5-3.7.2-1] [MQTT5-3.14.2-1] [MQTT5-3.15.2-1]
#[test]
fn a_reason_of_another_packet_is_refused() {
    for (bytes, code) in [
        (&[0x40, 3, 0, 1, 0x92][..], 0x92),
        (&[0x50, 3, 0, 1, 0x01], 0x01),
        (&[0x62, 3, 0, 1, 0x10], 0x10),
        (&[0x70, 3, 0, 1, 0x80], 0x80),
        (&[0xE0, 1, 0x01], 0x01),
        (&[0xE0, 1, 0x84], 0x84),
        (&[0xF0, 2, 0x80, 0], 0x80),
    ] {
        assert_refused(bytes, Version::V5, DecodeError::ReasonUnknown { code }, Reason::PROTOCOL_ERROR);
    }
}

/// [MQTT-2.3.1-1] [MQTT5-2.2.1-5]
#[test]
fn packet_identifier_0_is_refused() {
    for version in VERSIONS {
        for first in FIRST_BYTES {
            assert_refused(&[first, 2, 0, 0], version, DecodeError::PacketIdZero, Reason::PROTOCOL_ERROR);
        }
    }
}

#[test]
fn disconnect_is_as_short_as_it_may_be() {
    let normal = Disconnect { reason: Reason::SUCCESS, properties: Properties::default() };
    let will = Disconnect { reason: Reason::DISCONNECT_WITH_WILL, properties: Properties::default() };
    for version in VERSIONS {
        assert_round_trip(&Packet::Disconnect(normal), version);
        assert_eq!(encoded(&Packet::Disconnect(normal), version), [0xE0, 0]);
    }
    assert_eq!(encoded(&Packet::Disconnect(will), Version::V5), [0xE0, 1, 4]);
    assert_eq!(decoded(&[0xE0, 2, 4, 0], Version::V5), Packet::Disconnect(will));
    let mut block = Vec::new();
    PropertyWriter::new(&mut block)
        .u32(PropertyId::SessionExpiryInterval, 0)
        .str(PropertyId::ServerReference, "other:1883")
        .str(PropertyId::ReasonString, "moved");
    let moved = Disconnect { reason: Reason::SERVER_MOVED, properties: Properties::new(&block) };
    assert_round_trip(&Packet::Disconnect(moved), Version::V5);
}

/// HOSTILE row 6, the decoder's part. [MQTT5-3.15.2-1]
#[test]
fn auth_names_its_method() {
    let mut block = Vec::new();
    PropertyWriter::new(&mut block)
        .str(PropertyId::AuthenticationMethod, "SCRAM")
        .binary(PropertyId::AuthenticationData, &[1, 2]);
    for reason in [Reason::SUCCESS, Reason::CONTINUE_AUTHENTICATION, Reason::RE_AUTHENTICATE] {
        assert_round_trip(&Packet::Auth(Auth { reason, properties: Properties::new(&block) }), Version::V5);
    }
    let empty = Auth { reason: Reason::SUCCESS, properties: Properties::default() };
    assert_round_trip(&Packet::Auth(empty), Version::V5);
    let protocol_error = Reason::PROTOCOL_ERROR;
    assert_refused(&[0xF0, 1, 0x18], Version::V5, DecodeError::AuthMethodMissing, protocol_error);
    assert_refused(&[0xF0, 2, 0x18, 0], Version::V5, DecodeError::AuthMethodMissing, protocol_error);
    let data_only = [0xF0, 6, 0x18, 4, 22, 0, 1, 7];
    assert_refused(&data_only, Version::V5, DecodeError::AuthDataWithoutMethod, protocol_error);
}

#[test]
#[should_panic(expected = "AUTH is a packet of MQTT 5")]
fn encoding_auth_for_an_older_version_is_a_defect() {
    let auth = Auth { reason: Reason::SUCCESS, properties: Properties::default() };
    encode(&Packet::Auth(auth), Version::V311, &mut Vec::new());
}

//! The fixed header.

use super::*;
use crate::codec::packet_len;

/// HOSTILE row 1. [MQTT5-1.5.5-1]
#[test]
fn remaining_length_must_be_minimal_and_at_most_four_bytes() {
    for version in VERSIONS {
        let malformed = Reason::MALFORMED_PACKET;
        assert_refused(&[0xC0, 0x80, 0x00], version, DecodeError::VarIntNotMinimal, malformed);
        assert_refused(&[0xC0, 0x80, 0x80, 0x00], version, DecodeError::VarIntNotMinimal, malformed);
        assert_refused(&[0xC0, 0x80, 0x80, 0x80, 0x00], version, DecodeError::VarIntNotMinimal, malformed);
        assert_refused(&[0xC0, 0xFF, 0xFF, 0xFF, 0xFF], version, DecodeError::VarIntTooLong, malformed);
        assert_refused(&[0xC0, 0x80, 0x80, 0x80, 0x80, 0x01], version, DecodeError::VarIntTooLong, malformed);
        for truncated in [&[0xC0][..], &[0xC0, 0x80], &[0xC0, 0xFF, 0xFF, 0xFF]] {
            assert_eq!(decode(truncated, &options(version)), Ok(None));
        }
    }
}

#[test]
fn remaining_length_is_read_at_the_edges_of_its_sizes() {
    for (bytes, packet_bytes) in [
        (&[0x30, 0x00][..], 2),
        (&[0x30, 0x7F], 2 + 127),
        (&[0x30, 0x80, 0x01], 3 + 128),
        (&[0x30, 0xFF, 0x7F], 3 + 16_383),
        (&[0x30, 0x80, 0x80, 0x01], 4 + 16_384),
        (&[0x30, 0xFF, 0xFF, 0x7F], 4 + 2_097_151),
        (&[0x30, 0x80, 0x80, 0x80, 0x01], 5 + 2_097_152),
        (&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], 5 + 268_435_455),
    ] {
        assert_eq!(packet_len(bytes, u32::MAX), Ok(Some(packet_bytes)));
        assert_eq!(packet_len(&bytes[..bytes.len() - 1], u32::MAX), Ok(None));
    }
    assert_eq!(packet_len(&[], u32::MAX), Ok(None));
}

/// HOSTILE row 3.
#[test]
fn a_packet_that_is_too_large_is_refused_by_its_header_alone() {
    let limited = DecodeOptions { version: None, packet_bytes_max: 1000 };
    let huge = [0x10, 0xFF, 0xFF, 0xFF, 0x7F];
    assert_eq!(decode(&huge, &limited), Err(DecodeError::PacketTooLarge));
    assert_eq!(packet_len(&huge, 1000), Err(DecodeError::PacketTooLarge));
    assert_eq!(DecodeError::PacketTooLarge.reason(), Reason::PACKET_TOO_LARGE);
    // 997 bytes follow a header of 3: exactly the limit. One more is too much.
    assert_eq!(packet_len(&[0x10, 0xE5, 0x07], 1000), Ok(Some(1000)));
    assert_eq!(packet_len(&[0x10, 0xE6, 0x07], 1000), Err(DecodeError::PacketTooLarge));
}

/// [MQTT-3.1.0-1] [MQTT5-3.1.0-1]
#[test]
fn before_connect_every_other_packet_is_refused_at_its_first_byte() {
    let fresh = DecodeOptions { version: None, packet_bytes_max: u32::MAX };
    for first in [0x20, 0x30, 0x40, 0x50, 0x62, 0x70, 0x82, 0x90, 0xA2, 0xB0, 0xC0, 0xD0, 0xE0, 0xF0] {
        assert_eq!(decode(&[first], &fresh), Err(DecodeError::NotConnect), "{first:02x}");
    }
    assert_eq!(DecodeError::NotConnect.reason(), Reason::PROTOCOL_ERROR);
    assert_eq!(decode(&[0x10], &fresh), Ok(None));
    assert_eq!(decode(&[], &fresh), Ok(None));
}

#[test]
fn reserved_packet_types_are_refused() {
    for version in VERSIONS {
        assert_refused(&[0x00], version, DecodeError::PacketTypeReserved, Reason::MALFORMED_PACKET);
    }
    assert_eq!(refused(&[0xF0], Version::V31), DecodeError::PacketTypeReserved);
    assert_eq!(refused(&[0xF0], Version::V311), DecodeError::PacketTypeReserved);
    assert_eq!(decode(&[0xF0], &options(Version::V5)), Ok(None));
}

/// [MQTT-2.2.2-1] [MQTT-2.2.2-2] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1]
/// [MQTT5-2.1.3-1] [MQTT5-3.6.1-1] [MQTT5-3.8.1-1] [MQTT5-3.10.1-1] [MQTT5-3.14.1-1] [MQTT5-3.15.1-1]
#[test]
fn reserved_flags_are_refused() {
    for packet_type in (1..=15).filter(|&packet_type| packet_type != 3) {
        let right = if matches!(packet_type, 6 | 8 | 10) { 0b0010 } else { 0 };
        for flags in 0..16 {
            let first = packet_type << 4 | flags;
            let expected = if flags == right { Ok(None) } else { Err(DecodeError::FlagsReserved) };
            assert_eq!(decode(&[first], &options(Version::V5)), expected, "{first:02x}");
            if packet_type != 15 {
                assert_eq!(decode(&[first], &options(Version::V311)), expected, "{first:02x}");
            }
        }
    }
    assert_eq!(DecodeError::FlagsReserved.reason(), Reason::MALFORMED_PACKET);
}

#[test]
fn mqtt_31_sends_three_packets_again_with_dup() {
    for first in [0x6A, 0x8A, 0xAA] {
        assert_eq!(decode(&[first], &options(Version::V31)), Ok(None));
        assert_eq!(refused(&[first], Version::V311), DecodeError::FlagsReserved);
    }
    assert_eq!(refused(&[0x48], Version::V31), DecodeError::FlagsReserved);
}

/// HOSTILE row 2.
#[test]
fn a_body_that_is_shorter_or_longer_than_its_fields_is_refused() {
    for version in VERSIONS {
        let malformed = Reason::MALFORMED_PACKET;
        assert_refused(&[0xC0, 0x01, 0x00], version, DecodeError::TrailingBytes, malformed);
        assert_refused(&[0xD0, 0x01, 0x00], version, DecodeError::TrailingBytes, malformed);
        assert_refused(&[0x40, 0x00], version, DecodeError::Truncated, malformed);
        assert_refused(&[0x40, 0x01, 0x00], version, DecodeError::Truncated, malformed);
        assert_refused(&[0x30, 0x03, 0x00, 0x02, b'a'], version, DecodeError::Truncated, malformed);
        assert_refused(&[0x32, 0x04, 0x00, 0x01, b'a', 0], version, DecodeError::Truncated, malformed);
    }
    assert_eq!(refused(&[0x40, 0x03, 0, 1, 0], Version::V311), DecodeError::TrailingBytes);
    assert_eq!(refused(&[0xE0, 0x01, 0], Version::V311), DecodeError::TrailingBytes);
    assert_eq!(refused(&[0xB0, 0x03, 0, 1, 0], Version::V311), DecodeError::TrailingBytes);
}

#[test]
fn ping_packets_are_two_bytes() {
    for version in VERSIONS {
        assert_round_trip(&Packet::PingReq, version);
        assert_round_trip(&Packet::PingResp, version);
        let mut out = Vec::new();
        encode(&Packet::PingReq, version, &mut out);
        encode(&Packet::PingResp, version, &mut out);
        assert_eq!(out, [0xC0, 0, 0xD0, 0]);
    }
}

#[test]
fn every_error_has_a_text_for_people() {
    use alloc::string::ToString;
    let text = DecodeError::ProtocolLevelUnknown { level: 9 }.to_string();
    assert_eq!(text, "CONNECT has the unknown protocol level 9");
    let text = DecodeError::PropertyRepeated(crate::property::PropertyId::TopicAlias).to_string();
    assert_eq!(text, "property TopicAlias is there more than once");
    assert_eq!(DecodeError::ReasonUnknown { code: 5 }.to_string(), "reason code 0x05 does not belong to the packet");
}

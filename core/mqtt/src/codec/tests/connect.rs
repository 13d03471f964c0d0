//! CONNECT and CONNACK.

use super::*;
use crate::packet::{ConnAck, Connect, Will};
use crate::property::{Properties, PropertyId, PropertyWriter};
use bifro_core::message::QoS;

const FRESH: DecodeOptions = DecodeOptions { version: None, packet_bytes_max: u32::MAX };

const PLAIN: Connect<'static> = Connect {
    version: Version::V311,
    bridge: false,
    clean_start: true,
    keep_alive: 60,
    properties: Properties::new(&[]),
    client_id: "c",
    will: None,
    username: None,
    password: None,
};

/// A CONNECT of 3.1.1 or 5.0 with these flags, client id "c" and `rest`.
fn with_flags(version: Version, flags: u8, rest: &[u8]) -> Vec<u8> {
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    packet(0x10, &[b"\0\x04MQTT", &[version as u8, flags, 0, 60], properties, b"\0\x01c", rest])
}

fn with_protocol(name: &str, level: u8) -> Vec<u8> {
    let name_len = (name.len() as u16).to_be_bytes();
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    packet(0x10, &[&name_len, name.as_bytes(), &[level, 2, 0, 60], properties, b"\0\x01c"])
}

fn connect_of(bytes: &[u8]) -> Result<Connect<'_>, DecodeError> {
    match decode(bytes, &FRESH)?.expect("complete").0 {
        Packet::Connect(connect) => Ok(connect),
        other => panic!("{other:?}"),
    }
}

/// [MQTT-3.1.2-1] [MQTT-3.1.2-2] [MQTT5-3.1.2-1] [MQTT5-3.1.2-2]
#[test]
fn protocol_name_and_level_make_the_version() {
    for (name, level, version, bridge) in [
        ("MQIsdp", 3, Version::V31, false),
        ("MQTT", 4, Version::V311, false),
        ("MQTT", 5, Version::V5, false),
        ("MQIsdp", 0x83, Version::V31, true),
        ("MQTT", 0x84, Version::V311, true),
    ] {
        let bytes = with_protocol(name, level);
        let connect = connect_of(&bytes).expect("valid");
        assert_eq!((connect.version, connect.bridge), (version, bridge));
    }
    for (name, level) in [("MQTT", 3), ("MQTT", 6), ("MQTT", 0), ("MQTT", 0x85), ("MQIsdp", 4), ("MQIsdp", 5)] {
        assert_eq!(connect_of(&with_protocol(name, level)), Err(DecodeError::ProtocolLevelUnknown { level }));
    }
    for name in ["", "mqtt", "MQTTX", "HTTP", "MQIsdp\0"] {
        assert_eq!(connect_of(&with_protocol(name, 4)), Err(DecodeError::ProtocolNameUnknown));
    }
}

/// Whatever the version, the answer is one the client can read: return code 1 or 0x84. [MQTT-3.1.2-2] [MQTT5-3.1.2-2]
#[test]
fn an_unknown_version_can_be_answered() {
    for (error, version, connack) in [
        (DecodeError::ProtocolNameUnknown, Version::V311, &[0x20, 2, 0, 1][..]),
        (DecodeError::ProtocolLevelUnknown { level: 2 }, Version::V311, &[0x20, 2, 0, 1]),
        (DecodeError::ProtocolLevelUnknown { level: 6 }, Version::V5, &[0x20, 3, 0, 0x84, 0]),
    ] {
        assert_eq!(error.reason(), Reason::UNSUPPORTED_PROTOCOL_VERSION);
        assert_eq!(error.connack_version(), Some(version));
        let refusal = ConnAck { session_present: false, reason: error.reason(), properties: Properties::default() };
        let mut out = Vec::new();
        encode(&Packet::ConnAck(refusal), version, &mut out);
        assert_eq!(out, connack);
    }
    // [MQTT-3.1.4-1]: no answer where the format is not respected.
    assert_eq!(DecodeError::ConnectFlagReserved.connack_version(), None);
    let out_of_range = DecodeError::PropertyOutOfRange(PropertyId::ReceiveMaximum);
    assert_eq!(out_of_range.connack_version(), Some(Version::V5));
}

/// [MQTT-3.1.2-3] [MQTT5-3.1.2-3] [MQTT-3.1.4-1] [MQTT5-3.1.4-1]
#[test]
fn the_reserved_flag_is_refused() {
    for version in [Version::V311, Version::V5] {
        assert_eq!(connect_of(&with_flags(version, 0x03, &[])), Err(DecodeError::ConnectFlagReserved));
    }
}

/// [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-15] [MQTT5-3.1.2-11] [MQTT5-3.1.2-13]
#[test]
fn will_qos_and_retain_need_a_will() {
    for version in [Version::V311, Version::V5] {
        for flags in [0x08, 0x10, 0x20, 0x28] {
            assert_eq!(connect_of(&with_flags(version, flags, &[])), Err(DecodeError::WillFlagsWithoutWill));
        }
    }
}

/// [MQTT-3.1.2-14] [MQTT5-3.1.2-12]
#[test]
fn will_qos_3_is_refused() {
    for version in [Version::V311, Version::V5] {
        for flags in [0x1C, 0x18] {
            assert_eq!(connect_of(&with_flags(version, flags, &[])), Err(DecodeError::WillQosReserved));
        }
    }
}

/// [MQTT-3.1.2-9] [MQTT5-3.1.2-9]
#[test]
fn a_will_that_is_announced_must_be_there() {
    assert_eq!(connect_of(&with_flags(Version::V311, 0x06, &[])), Err(DecodeError::Truncated));
    assert_eq!(connect_of(&with_flags(Version::V311, 0x06, b"\0\x01w")), Err(DecodeError::Truncated));
    assert_eq!(connect_of(&with_flags(Version::V5, 0x06, b"\0\0\x01w")), Err(DecodeError::Truncated));
    let bytes = with_flags(Version::V5, 0x36, b"\0\0\x01w\0\x02xy");
    let will = connect_of(&bytes).expect("valid").will.expect("a will");
    assert_eq!((will.topic, will.payload, will.qos, will.retain), ("w", &b"xy"[..], QoS::ExactlyOnce, true));
}

/// [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.2-20] [MQTT-3.1.2-21]
/// [MQTT5-3.1.2-16] [MQTT5-3.1.2-17] [MQTT5-3.1.2-18] [MQTT5-3.1.2-19]
#[test]
fn user_name_and_password_are_there_if_and_only_if_announced() {
    for version in [Version::V311, Version::V5] {
        assert_eq!(connect_of(&with_flags(version, 0x02, b"\0\x01u")), Err(DecodeError::TrailingBytes));
        assert_eq!(connect_of(&with_flags(version, 0x82, b"")), Err(DecodeError::Truncated));
        assert_eq!(connect_of(&with_flags(version, 0xC2, b"\0\x01u")), Err(DecodeError::Truncated));
        assert_eq!(connect_of(&with_flags(version, 0x82, b"\0\x01u\0\x01p")), Err(DecodeError::TrailingBytes));
        let bytes = with_flags(version, 0xC2, b"\0\x01u\0\x01\xFF");
        let connect = connect_of(&bytes).expect("valid");
        assert_eq!((connect.username, connect.password), (Some("u"), Some(&b"\xFF"[..])));
    }
}

/// [MQTT-3.1.2-22]
#[test]
fn a_password_needs_a_user_name_before_mqtt_5() {
    let bytes = with_flags(Version::V311, 0x42, b"\0\x01p");
    assert_eq!(connect_of(&bytes), Err(DecodeError::PasswordWithoutUserName));
    let bytes = with_flags(Version::V5, 0x42, b"\0\x01p");
    assert_eq!(connect_of(&bytes).expect("valid").password, Some(&b"p"[..]));
}

#[test]
fn mqtt_31_may_announce_credentials_and_leave_them_out() {
    let head: &[&[u8]] = &[b"\0\x06MQIsdp\x03\xC2\0\x3C\0\x01c"];
    for (rest, username, password) in
        [(&b""[..], None, None), (b"\0\x01u", Some("u"), None), (b"\0\x01u\0\x01p", Some("u"), Some(&b"p"[..]))]
    {
        let bytes = packet(0x10, &[head[0], rest]);
        let connect = connect_of(&bytes).expect("valid");
        assert_eq!((connect.username, connect.password), (username, password));
    }
}

/// [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT5-3.1.3-1] [MQTT5-3.1.3-3]
#[test]
fn the_payload_has_its_fields_in_order() {
    let will =
        Will { topic: "w", payload: b"bye", qos: QoS::AtLeastOnce, retain: true, properties: Properties::default() };
    let full = Connect { will: Some(will), username: Some("u"), password: Some(b"p"), ..PLAIN };
    let mut out = Vec::new();
    encode(&Packet::Connect(full), Version::V311, &mut out);
    assert_eq!(out, b"\x10\x1B\0\x04MQTT\x04\xEE\0\x3C\0\x01c\0\x01w\0\x03bye\0\x01u\0\x01p");
    let missing = packet(0x10, &[b"\0\x04MQTT\x04\x02\0\x3C"]);
    assert_eq!(connect_of(&missing), Err(DecodeError::Truncated));
}

#[test]
fn all_versions_round_trip_in_full() {
    let (mut properties, mut will_properties) = (Vec::new(), Vec::new());
    PropertyWriter::new(&mut properties)
        .u32(PropertyId::SessionExpiryInterval, u32::MAX)
        .u16(PropertyId::ReceiveMaximum, 1)
        .u32(PropertyId::MaximumPacketSize, 1)
        .u16(PropertyId::TopicAliasMaximum, 0)
        .byte(PropertyId::RequestResponseInformation, 1)
        .byte(PropertyId::RequestProblemInformation, 0)
        .pair(PropertyId::UserProperty, "k", "v")
        .pair(PropertyId::UserProperty, "k", "v")
        .str(PropertyId::AuthenticationMethod, "SCRAM")
        .binary(PropertyId::AuthenticationData, &[0, 255]);
    PropertyWriter::new(&mut will_properties)
        .u32(PropertyId::WillDelayInterval, 5)
        .u32(PropertyId::MessageExpiryInterval, 6);
    for version in VERSIONS {
        let is_v5 = version == Version::V5;
        let block = |bytes| if is_v5 { Properties::new(bytes) } else { Properties::default() };
        let will = Will {
            topic: "last/words",
            payload: &[1, 2, 3],
            qos: QoS::ExactlyOnce,
            retain: true,
            properties: block(&will_properties),
        };
        let connect = Connect {
            version,
            bridge: !is_v5,
            properties: block(&properties),
            will: Some(will),
            username: Some("user"),
            password: Some(b"secret"),
            ..PLAIN
        };
        assert_round_trip(&Packet::Connect(connect), version);
        assert_round_trip(&Packet::Connect(Connect { version, client_id: "", clean_start: false, ..PLAIN }), version);
    }
}

/// [MQTT-3.2.2-4] is the session's; the codec writes what stands in the packet. [MQTT5-3.2.2-1] [MQTT5-3.2.2-8]
#[test]
fn connack_flags_and_codes_are_checked() {
    assert_eq!(refused(&[0x20, 2, 2, 0], Version::V311), DecodeError::ConnAckFlagsReserved);
    assert_eq!(refused(&[0x20, 3, 0x80, 0, 0], Version::V5), DecodeError::ConnAckFlagsReserved);
    assert_eq!(refused(&[0x20, 2, 0, 6], Version::V311), DecodeError::ReasonUnknown { code: 6 });
    assert_eq!(refused(&[0x20, 3, 0, 1, 0], Version::V5), DecodeError::ReasonUnknown { code: 1 });
    assert_eq!(refused(&[0x20, 2, 0, 0], Version::V5), DecodeError::Truncated);
    for version in [Version::V311, Version::V5] {
        let ack = ConnAck { session_present: true, reason: Reason::SUCCESS, properties: Properties::default() };
        assert_round_trip(&Packet::ConnAck(ack), version);
    }
    for code in 0..=5 {
        let ack = ConnAck { session_present: false, reason: Reason(code), properties: Properties::default() };
        assert_round_trip(&Packet::ConnAck(ack), Version::V31);
        assert_round_trip(&Packet::ConnAck(ack), Version::V311);
    }
}

#[test]
fn connack_of_3x_gets_the_closest_return_code() {
    for (reason, code) in [
        (Reason::UNSUPPORTED_PROTOCOL_VERSION, 1),
        (Reason::CLIENT_IDENTIFIER_NOT_VALID, 2),
        (Reason::QUOTA_EXCEEDED, 3),
        (Reason::BAD_USER_NAME_OR_PASSWORD, 4),
        (Reason::NOT_AUTHORIZED, 5),
    ] {
        let ack = ConnAck { session_present: false, reason, properties: Properties::default() };
        let mut out = Vec::new();
        encode(&Packet::ConnAck(ack), Version::V31, &mut out);
        assert_eq!(out, [0x20, 2, 0, code]);
    }
}

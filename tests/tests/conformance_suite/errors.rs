//! Chapters 1.5, 2 and 4.8 (3.1.1), 4.13 (5.0): what is malformed closes the connection, with the reason where there is one.

use crate::suite::{ALL, AT_LEAST_ONCE, AT_MOST_ONCE, anybody, frame, name, no_properties, text};
use bifro_core::client::Version;
use bifro_mqtt::reason::Reason;

const MALFORMED: Reason = Reason::MALFORMED_PACKET;
const PROTOCOL: Reason = Reason::PROTOCOL_ERROR;

/// Asserts that a connected client which sends these bytes is put out.
fn expect_end(version: Version, bytes: &[u8], reason: Reason, what: &str) {
    eprintln!("{version:?}: {what}");
    let mut client = anybody(version);
    client.send_bytes(bytes);
    client.expect_disconnect(reason);
}

/// [MQTT-2.2.2-1] [MQTT-2.2.2-2] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-4.8.0-1]
/// [MQTT5-2.1.3-1] [MQTT5-3.6.1-1] [MQTT5-3.8.1-1] [MQTT5-3.10.1-1] [MQTT5-3.14.1-1] [MQTT5-3.15.1-1] [MQTT5-4.13.1-1]
/// [MQTT5-4.13.2-1]
#[test]
fn wrong_header_flags_close_the_connection() {
    for version in [Version::V311, Version::V5] {
        let none = no_properties(version);
        let subscribe = [&[0, 1], none, &text("a"), &[0]].concat();
        let unsubscribe = [&[0, 1], none, &text("a")].concat();
        let cases: [(u8, &[u8], &str); 9] = [
            (0x41, &[0, 1], "PUBACK"),
            (0x52, &[0, 1], "PUBREC"),
            (0x60, &[0, 1], "PUBREL"),
            (0x6A, &[0, 1], "PUBREL with DUP"),
            (0x78, &[0, 1], "PUBCOMP"),
            (0x80, &subscribe, "SUBSCRIBE"),
            (0xA0, &unsubscribe, "UNSUBSCRIBE"),
            (0xC1, &[], "PINGREQ"),
            (0xE1, &[], "DISCONNECT"),
        ];
        for (first, body, what) in cases {
            expect_end(version, &frame(first, &[body]), MALFORMED, what);
        }
    }
    expect_end(Version::V5, &[0xF1, 0], MALFORMED, "AUTH");
}

/// [MQTT-4.8.0-1] [MQTT5-4.13.1-1]
#[test]
fn packet_types_a_client_must_not_send_close_the_connection() {
    for version in ALL {
        let none = no_properties(version);
        expect_end(version, &[0x00, 0], MALFORMED, "type 0");
        expect_end(version, &frame(0x20, &[&[0, 0], none]), PROTOCOL, "CONNACK");
        expect_end(version, &frame(0x90, &[&[0, 1], none, &[0]]), PROTOCOL, "SUBACK");
        let codes: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        expect_end(version, &frame(0xB0, &[&[0, 1], none, codes]), PROTOCOL, "UNSUBACK");
        expect_end(version, &[0xD0, 0], PROTOCOL, "PINGRESP");
    }
    for version in [Version::V31, Version::V311] {
        expect_end(version, &[0xF0, 0], MALFORMED, "type 15 before 5.0");
    }
}

/// [MQTT-2.3.1-1] [MQTT5-2.2.1-3] [MQTT-4.8.0-1] [MQTT5-4.13.1-1]
#[test]
fn packet_id_0_closes_the_connection() {
    for version in ALL {
        let none = no_properties(version);
        expect_end(version, &frame(0x32, &[&text("a"), &[0, 0], none, b"x"]), PROTOCOL, "PUBLISH");
        expect_end(version, &frame(0x82, &[&[0, 0], none, &text("a"), &[0]]), PROTOCOL, "SUBSCRIBE");
        expect_end(version, &frame(0xA2, &[&[0, 0], none, &text("a")]), PROTOCOL, "UNSUBSCRIBE");
        expect_end(version, &[0x40, 2, 0, 0], PROTOCOL, "PUBACK");
        expect_end(version, &[0x62, 2, 0, 0], PROTOCOL, "PUBREL");
    }
}

/// [MQTT-1.5.3-1] [MQTT-1.5.3-2] [MQTT-3.3.2-1] [MQTT-3.8.3-1] [MQTT-3.10.3-1] [MQTT-4.7.3-2]
/// [MQTT5-1.5.4-1] [MQTT5-1.5.4-2] [MQTT5-3.3.2-1] [MQTT5-3.8.3-1] [MQTT5-3.10.3-1] [MQTT5-4.7.3-2]
#[test]
fn topics_and_filters_that_are_not_utf_8_or_contain_u_0000_close_the_connection() {
    for version in ALL {
        let none = no_properties(version);
        for bad in [&[0xED, 0xA0, 0x80][..], b"a\0b", &[0xFF], &[0xC0, 0xAF], &[0xF5, 0x80, 0x80, 0x80]] {
            let bad = text(bad);
            expect_end(version, &frame(0x30, &[&bad, none, b"x"]), MALFORMED, "PUBLISH");
            expect_end(version, &frame(0x82, &[&[0, 1], none, &bad, &[0]]), MALFORMED, "SUBSCRIBE");
            expect_end(version, &frame(0xA2, &[&[0, 1], none, &bad]), MALFORMED, "UNSUBSCRIBE");
        }
    }
}

/// [MQTT-1.5.3-3] [MQTT5-1.5.4-3] [MQTT-4.7.3-4] [MQTT5-4.7.3-4]
#[test]
fn a_byte_order_mark_is_kept_and_counts() {
    for version in ALL {
        let bare = name("bom");
        let marked = format!("\u{FEFF}{bare}");
        let mut client = anybody(version);
        client.subscribe(&marked, AT_MOST_ONCE);
        client.publish(&bare, b"without", AT_MOST_ONCE, false);
        client.publish(&marked, b"with", AT_MOST_ONCE, false);
        let received = client.recv_publish();
        let publish = crate::suite::as_publish(&received);
        assert_eq!((publish.topic, publish.payload), (&*marked, &b"with"[..]));
        client.expect_silence();
    }
}

/// [MQTT5-1.5.5-1]
#[test]
fn a_variable_byte_integer_longer_than_needed_is_malformed() {
    for version in ALL {
        expect_end(version, &[0xC0, 0x80, 0x00], MALFORMED, "Remaining Length in two bytes instead of one");
        expect_end(version, &[0xC0, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], MALFORMED, "Remaining Length of five bytes");
    }
    let publish = frame(0x30, &[&text("a"), &[0x80, 0x00], b"x"]);
    expect_end(Version::V5, &publish, MALFORMED, "a property length in two bytes instead of one");
}

/// [MQTT5-1.5.5-1] [MQTT5-2.2.2-1]
#[test]
fn the_servers_own_lengths_are_minimal_and_no_properties_are_a_length_of_0() {
    let mut client = anybody(Version::V5);
    let topic = name("minimal");
    client.subscribe(&topic, AT_MOST_ONCE);
    for size in [1, 100, 128, 16_384] {
        client.publish(&topic, &vec![b'x'; size], AT_MOST_ONCE, false);
        let received = client.recv();
        let expected = frame(0x30, &[&text(&topic), &[0], &vec![b'x'; size]]);
        assert!(received.bytes() == expected, "{size} bytes");
    }
    client.send_bytes(&frame(0x82, &[&[0, 7], &[0], &text(&topic), &[0]]));
    assert_eq!(client.recv().bytes(), [0x90, 4, 0, 7, 0, 0]);
}

/// [MQTT5-1.5.7-1] [MQTT5-3.3.2-13] [MQTT5-3.3.2-19] [MQTT5-1.5.4-1] [MQTT5-1.5.4-2]
#[test]
fn strings_within_properties_are_utf_8_too() {
    let (good, bad) = (text("good"), text([0xFF, 0xFE]));
    let cases: [(&[&[u8]], &str); 5] = [
        (&[&[38], &bad, &good], "name of a user property"),
        (&[&[38], &good, &bad], "value of a user property"),
        (&[&[38], &good, &text("a\0b")], "U+0000 in a user property"),
        (&[&[8], &bad], "response topic"),
        (&[&[3], &bad], "content type"),
    ];
    for (parts, what) in cases {
        let properties = parts.concat();
        let length = [u8::try_from(properties.len()).expect("short")];
        expect_end(Version::V5, &frame(0x30, &[&text("a"), &length, &properties, b"x"]), MALFORMED, what);
    }
}

/// [MQTT5-3.4.2-1] [MQTT5-3.5.2-1] [MQTT5-3.6.2-1] [MQTT5-3.7.2-1] [MQTT5-3.14.2-1] [MQTT5-3.15.2-1] [MQTT5-4.13.1-1]
#[test]
fn reason_codes_that_a_packet_does_not_have_are_protocol_errors() {
    let cases: [(&[u8], &str); 6] = [
        (&[0x40, 3, 0, 1, 0x92], "PUBACK"),
        (&[0x50, 3, 0, 1, 0x92], "PUBREC"),
        (&[0x62, 3, 0, 1, 0x10], "PUBREL"),
        (&[0x70, 3, 0, 1, 0x80], "PUBCOMP"),
        (&[0xE0, 1, 0x01], "DISCONNECT"),
        (&[0xF0, 2, 0x80, 0], "AUTH"),
    ];
    for (bytes, what) in cases {
        expect_end(Version::V5, bytes, PROTOCOL, what);
    }
}

/// [MQTT5-4.13.1-1] [MQTT5-2.2.2-1]
#[test]
fn properties_that_are_unknown_misplaced_repeated_or_out_of_range_are_refused() {
    let cases: [(&[u8], Reason, &str); 6] = [
        (&[0x7F, 1], MALFORMED, "unknown"),
        (&[17, 0, 0, 0, 1], MALFORMED, "Session Expiry Interval in PUBLISH"),
        (&[1, 0, 1, 0], PROTOCOL, "Payload Format Indicator twice"),
        (&[1, 2], PROTOCOL, "Payload Format Indicator 2"),
        (&[2, 0, 0], MALFORMED, "half an integer"),
        (&[11, 0], PROTOCOL, "Subscription Identifier 0"),
    ];
    for (properties, reason, what) in cases {
        let length = [u8::try_from(properties.len()).expect("short")];
        expect_end(Version::V5, &frame(0x30, &[&text("a"), &length, properties, b"x"]), reason, what);
    }
}

/// [MQTT-4.8.0-1] [MQTT5-4.13.1-1] [MQTT5-2.2.2-1]
#[test]
fn fields_that_run_past_the_end_and_bytes_left_over_close_the_connection() {
    for version in ALL {
        let none = no_properties(version);
        expect_end(version, &frame(0x30, &[&[0, 9], b"a"]), MALFORMED, "a topic longer than its packet");
        expect_end(version, &frame(0x82, &[&[0, 1], none, &text("a")]), MALFORMED, "a filter without options");
        expect_end(version, &frame(0xC0, &[&[0]]), MALFORMED, "PINGREQ with a body");
    }
    for version in [Version::V31, Version::V311] {
        expect_end(version, &[0x40, 3, 0, 1, 0], MALFORMED, "a reason code before 5.0");
    }
    expect_end(Version::V5, &frame(0x30, &[&text("a"), &[9, 1, 0]]), MALFORMED, "properties longer than the packet");
    expect_end(Version::V5, &frame(0x30, &[&text("a")]), MALFORMED, "no property length");
}

/// [MQTT5-3.2.2-15] [MQTT-4.8.0-1]
#[test]
fn a_packet_above_the_servers_maximum_closes_the_connection_before_its_body_is_there() {
    for version in ALL {
        let mut client = anybody(version);
        client.send_bytes(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
        client.expect_disconnect(Reason::PACKET_TOO_LARGE);
    }
}

/// [MQTT-4.8.0-1] [MQTT5-4.13.1-1]: one client's mistake is nobody else's.
#[test]
fn whoever_did_nothing_wrong_stays_connected() {
    let mut bystander = anybody(Version::V5);
    let topic = name("bystander");
    bystander.subscribe(&topic, AT_LEAST_ONCE);
    expect_end(Version::V311, &[0x36, 0], MALFORMED, "QoS 3");
    bystander.publish(&topic, b"still here", AT_LEAST_ONCE, false);
    let kinds = [bystander.recv(), bystander.recv()].map(|received| received.bytes()[0] >> 4);
    assert!(kinds == [3, 4] || kinds == [4, 3], "{kinds:?}");
}

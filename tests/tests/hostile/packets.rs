//! Rows 6 and 13: packets that are not for a client to send, that answer nothing, or that ask for nothing.

use crate::arena::{Arena, MIB, VERSIONS};
use crate::raw::{AUTH, PINGREQ, SUBSCRIBE, UNSUBSCRIBE, block, field, packet, publish, subscribe, text_property};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::{Packet, PacketId};
use bifro_mqtt::reason::Reason;
use bifro_tests::client::AckKind;
use bifro_tests::{Client, ConnectOptions};

/// [MQTT-4.8.0-1] [MQTT5-4.13.1-1]
#[test]
fn row_06_packets_that_only_servers_send_end_the_connection() {
    let mut arena = Arena::new();
    for version in VERSIONS {
        let no_properties = block(version, &[]);
        let unsuback_codes: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let packets = [
            packet(0x20, &[&[0, 0], &no_properties]),
            packet(0x90, &[&[0, 1], &no_properties, &[0]]),
            packet(0xB0, &[&[0, 1], &no_properties, unsuback_codes]),
            packet(0xD0, &[]),
        ];
        for bytes in packets {
            let mut client = arena.client(version, "offender");
            client.send_bytes(&bytes);
            client.expect_disconnect(Reason::PROTOCOL_ERROR);
        }
    }
    arena.check();
    arena.finish(16 * MIB);
}

/// [MQTT-3.1.0-1] [MQTT-3.1.0-2] [MQTT5-3.1.0-1] [MQTT5-3.1.0-2]
#[test]
fn row_06_the_first_packet_is_connect_and_no_other_is() {
    let mut arena = Arena::new();
    for version in VERSIONS {
        for kind in 0..16_u8 {
            if kind == 1 {
                continue;
            }
            let mut client = Client::open(arena.tcp(), version);
            client.send_bytes(&packet(kind << 4 | if matches!(kind, 6 | 8 | 10) { 2 } else { 0 }, &[&[0, 1, 0, 0]]));
            client.expect_closed();
        }
        let mut client = arena.client(version, "offender");
        client.send_bytes(&ConnectOptions::new(version, "offender").encode());
        client.expect_disconnect(Reason::PROTOCOL_ERROR);
    }
    arena.check();
    arena.finish(16 * MIB);
}

/// [MQTT-2.2.2-2] [MQTT-3.3.1-4] [MQTT5-2.1.3-1] [MQTT5-3.3.1-4]
#[test]
fn row_06_reserved_types_and_flags_are_malformed() {
    let mut arena = Arena::new();
    let topic = field(b"t");
    for version in VERSIONS {
        let wrong: [(u8, &[&[u8]]); 7] = [
            (0x00, &[]),
            (0x36, &[&topic, &[0, 1]]),
            (0x41, &[&[0, 1]]),
            (0x60, &[&[0, 1]]),
            (0x80, &[&[0, 1], &topic, &[0]]),
            (0xC1, &[]),
            (0xE2, &[]),
        ];
        for (first, parts) in wrong {
            let mut client = arena.client(version, "offender");
            client.send_bytes(&packet(first, parts));
            client.expect_disconnect(Reason::MALFORMED_PACKET);
        }
    }
    arena.check();
    arena.finish(16 * MIB);
}

/// [MQTT-4.3.3-2] [MQTT5-4.3.3-11]
#[test]
fn row_06_acknowledgements_of_unknown_identifiers_are_answered_or_ignored_but_never_believed() {
    let mut arena = Arena::new();
    for version in VERSIONS {
        let mut client = arena.client(version, "offender");
        let not_found = if version == Version::V5 { Reason::PACKET_IDENTIFIER_NOT_FOUND } else { Reason::SUCCESS };
        for id in [1, 7, u16::MAX] {
            let id = PacketId::new(id).expect("not zero");
            client.ack(AckKind::PubAck, id);
            client.ack(AckKind::PubComp, id);
            client.expect_silence();
            client.ack(AckKind::PubRel, id);
            let received = client.recv();
            let Packet::PubComp(ack) = received.packet() else { panic!("not a PUBCOMP: {received:?}") };
            assert_eq!((ack.packet_id, ack.reason), (id, not_found));
            client.ack(AckKind::PubRec, id);
            let received = client.recv();
            let Packet::PubRel(ack) = received.packet() else { panic!("not a PUBREL: {received:?}") };
            assert_eq!((ack.packet_id, ack.reason), (id, not_found));
        }
        // A message in flight survives them all, and is acknowledged by its own.
        assert_eq!(client.subscribe("row06", QoS::AtLeastOnce), 1);
        client.publish("row06", b"once", QoS::AtLeastOnce, false);
        let mut seen = 0;
        for _ in 0..2 {
            let received = client.recv();
            match received.packet() {
                Packet::Publish(publish) => {
                    let id = publish.packet_id.expect("QoS 1 has an id");
                    let other = PacketId::new(id.get().wrapping_add(1000)).expect("not zero");
                    client.ack(AckKind::PubAck, other);
                    client.ack(AckKind::PubAck, id);
                    seen += 1;
                }
                Packet::PubAck(_) => {}
                _ => panic!("unexpected: {received:?}"),
            }
        }
        assert_eq!(seen, 1);
        client.expect_silence();
        client.disconnect();
    }
    arena.check();
    arena.finish(16 * MIB);
}

/// Identifier 0 stands for nothing [MQTT-2.3.1-1] [MQTT5-2.2.1-3].
#[test]
fn row_06_a_packet_identifier_of_zero_is_a_protocol_error() {
    let mut arena = Arena::new();
    for version in VERSIONS {
        let none = block(version, &[]);
        let topic = field(b"t");
        let packets = [
            packet(0x32, &[&topic, &[0, 0], &none, b"payload"]),
            packet(0x40, &[&[0, 0]]),
            packet(0x50, &[&[0, 0]]),
            packet(0x62, &[&[0, 0]]),
            packet(SUBSCRIBE, &[&[0, 0], &none, &topic, &[0]]),
            packet(UNSUBSCRIBE, &[&[0, 0], &none, &topic]),
        ];
        for bytes in packets {
            let mut client = arena.client(version, "offender");
            client.send_bytes(&bytes);
            client.expect_disconnect(Reason::PROTOCOL_ERROR);
        }
    }
    arena.check();
    arena.finish(16 * MIB);
}

/// [MQTT5-4.12.0-6] [MQTT5-4.12.0-7]
#[test]
fn row_06_auth_without_a_method_ends_the_connection() {
    let mut arena = Arena::new();
    for version in VERSIONS {
        // AUTH is no packet at all before MQTT 5.
        let without = if version == Version::V5 { Reason::PROTOCOL_ERROR } else { Reason::MALFORMED_PACKET };
        let method = block(version, &text_property(21, b"SCRAM-SHA-256"));
        for bytes in [packet(AUTH, &[]), packet(AUTH, &[&[0x19], &method]), packet(AUTH, &[&[0x18], &method])] {
            let mut client = arena.client(version, "offender");
            client.send_bytes(&bytes);
            client.expect_disconnect(without);
        }
    }
    // A method nobody here knows.
    let mut client = Client::open(arena.tcp(), Version::V5);
    let mut options = ConnectOptions::new(Version::V5, "offender");
    options.properties = [text_property(21, b"NO-SUCH"), text_property(22, &[0; 300])].concat();
    client.send_bytes(&options.encode());
    crate::arena::expect_refused(&mut client, Some(Reason::BAD_AUTHENTICATION_METHOD));
    arena.check();
    arena.finish(16 * MIB);
}

/// [MQTT-3.8.3-3] [MQTT-3.10.3-2] [MQTT5-3.8.3-2] [MQTT5-3.10.3-2]
#[test]
fn row_13_subscribe_and_unsubscribe_without_filters_are_protocol_errors() {
    let mut arena = Arena::new();
    for version in VERSIONS {
        for first in [SUBSCRIBE, UNSUBSCRIBE] {
            let mut client = arena.client(version, "offender");
            client.send_bytes(&packet(first, &[&[0, 1], &block(version, &[])]));
            client.expect_disconnect(Reason::PROTOCOL_ERROR);
        }
    }
    arena.check();
    arena.finish(16 * MIB);
}

#[test]
fn row_13_a_truncated_filter_subscribes_to_nothing() {
    let mut arena = Arena::new();
    for version in VERSIONS {
        let head = [&[0, 1][..], &block(version, &[])].concat();
        let good = [field(b"row13/good"), vec![0]].concat();
        let truncated: [&[u8]; 5] = [&[0], &[0, 9, b'x'], &[0, 1, b'x'], &[0xFF, 0xFF], &[0, 0]];
        for tail in truncated {
            let mut client = arena.client(version, "offender");
            client.send_bytes(&packet(SUBSCRIBE, &[&head, &good, tail]));
            client.expect_disconnect(Reason::MALFORMED_PACKET);
        }
        for tail in [&[0][..], &[0, 9, b'x'], &[0xFF, 0xFF]] {
            let mut client = arena.client(version, "offender");
            client.send_bytes(&packet(UNSUBSCRIBE, &[&head, &field(b"row13/good"), tail]));
            client.expect_disconnect(Reason::MALFORMED_PACKET);
        }
    }
    let mut client = arena.client(Version::V5, "publisher");
    assert_eq!(client.publish_acked("row13/good", b""), Reason::NO_MATCHING_SUBSCRIBERS);
    arena.check();
    arena.finish(16 * MIB);
}

/// [MQTT-3.8.3-4] [MQTT5-3.8.3-5]
#[test]
fn row_13_subscription_options_and_identifiers_out_of_range_end_the_connection() {
    let mut arena = Arena::new();
    for version in VERSIONS {
        let v5 = version == Version::V5;
        let mut cases = vec![(Vec::new(), 3_u8, Reason::PROTOCOL_ERROR)];
        if v5 {
            cases.extend([
                (vec![], 0x30, Reason::PROTOCOL_ERROR),
                (vec![], 0x40, Reason::MALFORMED_PACKET),
                (vec![], 0x80, Reason::MALFORMED_PACKET),
                (vec![11, 0], 0, Reason::PROTOCOL_ERROR),
                (vec![11, 0x80, 0x80, 0x80, 0x80, 0x01], 0, Reason::MALFORMED_PACKET),
                (vec![11, 1, 11, 2], 0, Reason::PROTOCOL_ERROR),
            ]);
        } else if version == Version::V311 {
            cases.extend([4, 0x20, 0x80].map(|options| (vec![], options, Reason::MALFORMED_PACKET)));
        }
        for (properties, options, reason) in cases {
            let mut client = arena.client(version, "offender");
            client.send_bytes(&subscribe(version, &properties, &[(b"t", options)]));
            client.expect_disconnect(reason);
        }
    }
    // The largest identifier there is comes back with the message.
    let mut client = arena.client(Version::V5, "right");
    client.send_bytes(&subscribe(Version::V5, &[11, 0xFF, 0xFF, 0xFF, 0x7F], &[(b"row13/id", 0)]));
    assert!(matches!(client.recv().packet(), Packet::SubAck(ack) if ack.codes == [0]));
    client.send_bytes(&publish(Version::V5, b"row13/id", &[], b""));
    let received = client.recv_publish();
    let Packet::Publish(publish) = received.packet() else { unreachable!("recv_publish has looked") };
    let ids: Vec<u32> = publish.properties.all.subscription_ids().map(std::num::NonZeroU32::get).collect();
    assert_eq!(ids, [268_435_455]);
    client.send_bytes(&PINGREQ);
    assert!(matches!(client.recv().packet(), Packet::PingResp));
    arena.check();
    arena.finish(16 * MIB);
}

/// [MQTT-3.8.4-1] [MQTT-3.10.4-4] [MQTT5-3.8.4-1] [MQTT5-3.10.4-4]
#[test]
fn row_13_an_unsubscribe_right_behind_its_subscribe_leaves_neither_unanswered() {
    let mut arena = Arena::new();
    for version in VERSIONS {
        let mut client = arena.client(version, "hasty");
        for round in 0..50 {
            let filter = format!("row13/{round}");
            let unsubscribe = packet(UNSUBSCRIBE, &[&[0, 2], &block(version, &[]), &field(filter.as_bytes())]);
            client.send_bytes(&[subscribe(version, &[], &[(filter.as_bytes(), 1)]), unsubscribe].concat());
            let received = client.recv();
            assert!(matches!(received.packet(), Packet::SubAck(ack) if ack.codes == [1]), "{received:?}");
            let received = client.recv();
            assert!(matches!(received.packet(), Packet::UnsubAck(ack) if ack.packet_id.get() == 2), "{received:?}");
        }
        client.expect_silence();
    }
    let mut client = arena.client(Version::V5, "publisher");
    assert_eq!(client.publish_acked("row13/49", b""), Reason::NO_MATCHING_SUBSCRIBERS);
    arena.check();
    arena.finish(16 * MIB);
}

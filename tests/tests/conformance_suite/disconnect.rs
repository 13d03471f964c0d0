//! Chapter 3.14: DISCONNECT.

use crate::suite::{
    ALL, AT_MOST_ONCE, LASTING_S, anybody, block, broker, expect_payload, frame, join, lasting, name, pass,
    publish_packet, resume,
};
use bifro_core::client::Version;
use bifro_mqtt::packet::{Disconnect, Packet};
use bifro_mqtt::property::{Properties, PropertyId};
use bifro_mqtt::reason::Reason;
use bifro_tests::{Client, ConnectOptions};
use std::time::Duration;

fn with_will(version: Version, topic: &str) -> Client {
    let mut options = ConnectOptions::new(version, &name("d"));
    options.will = Some((topic.into(), b"will".to_vec(), AT_MOST_ONCE, false, Vec::new()));
    Client::connect_with(broker().tcp(), &options).0
}

/// [MQTT-3.14.4-3] [MQTT-3.1.2-10] [MQTT5-3.14.4-3] [MQTT5-3.1.2-10]
#[test]
fn disconnect_discards_the_will() {
    for version in ALL {
        let topic = name("discarded/");
        let mut witness = anybody(version);
        witness.subscribe(&topic, AT_MOST_ONCE);
        with_will(version, &topic).disconnect();
        witness.expect_silence();
    }
}

/// [MQTT5-3.14.4-3] [MQTT5-3.1.2-8] [MQTT5-3.14.2-1]
#[test]
fn disconnect_with_any_other_reason_publishes_the_will() {
    for reason in [0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99] {
        let topic = name("kept/");
        let mut witness = anybody(Version::V5);
        witness.subscribe(&topic, AT_MOST_ONCE);
        let mut client = with_will(Version::V5, &topic);
        client.send_bytes(&[0xE0, 1, reason]);
        client.expect_closed();
        expect_payload(&mut witness, "will");
    }
}

/// [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT5-3.14.4-1] [MQTT5-3.14.4-2]
#[test]
fn nothing_behind_disconnect_is_processed_and_the_server_closes() {
    for version in ALL {
        let topic = name("behind/");
        let mut witness = anybody(Version::V311);
        witness.subscribe(&topic, AT_MOST_ONCE);
        let mut client = anybody(version);
        let publish = match version {
            Version::V5 => frame(0x30, &[&crate::suite::text(&topic), &[0], b"x"]),
            _ => publish_packet(&topic, b"x", AT_MOST_ONCE, 0, false),
        };
        client.send_bytes(&[&[0xE0, 0][..], &publish, &[0xC0, 0]].concat());
        client.expect_closed();
        witness.expect_silence();
    }
}

/// [MQTT5-3.14.4-1] [MQTT5-3.14.4-2] [MQTT5-3.14.2-1] [MQTT5-3.14.2-2] [MQTT5-4.13.2-1]
#[test]
fn a_disconnect_from_the_server_is_its_last_packet_and_has_no_session_expiry() {
    let id = name("last");
    let mut options = lasting(Version::V5, &id);
    options.properties = block(|w| w.u32(PropertyId::SessionExpiryInterval, LASTING_S));
    let (mut first, _) = resume(&options);
    let _second = join(Version::V5, &id);
    let received = first.recv();
    let Packet::Disconnect(disconnect) = received.packet() else { panic!("not a DISCONNECT: {received:?}") };
    assert_eq!(disconnect.reason, Reason::SESSION_TAKEN_OVER);
    assert_eq!(disconnect.properties.session_expiry_interval(), None);
    first.expect_closed();
}

/// [MQTT5-4.1.0-2] [MQTT5-3.1.2-23]
#[test]
fn disconnect_may_change_the_session_expiry() {
    let leave = |mut client: Client, expiry_s: u32| {
        let properties = block(|w| w.u32(PropertyId::SessionExpiryInterval, expiry_s));
        let properties = Properties::new(&properties);
        client.send(&Packet::Disconnect(Disconnect { reason: Reason::SUCCESS, properties }));
        client.expect_closed();
    };
    let options = lasting(Version::V5, &name("changed"));
    leave(resume(&options).0, 0);
    let (client, present) = resume(&options);
    assert!(!present, "0 ends the session with the connection");
    leave(client, 1);
    let (client, present) = resume(&options);
    assert!(present, "still there");
    leave(client, 1);
    pass(Duration::from_millis(1_300));
    let (client, present) = resume(&options);
    assert!(!present, "expired");
    leave(client, LASTING_S);
    assert!(resume(&options).1);
}

/// [MQTT5-4.13.1-1]: section 3.14.2.2.2.
#[test]
fn disconnect_must_not_make_a_session_last_that_connect_wanted_to_end() {
    let mut client = anybody(Version::V5);
    let properties = block(|w| w.u32(PropertyId::SessionExpiryInterval, 1));
    let properties = Properties::new(&properties);
    client.send(&Packet::Disconnect(Disconnect { reason: Reason::SUCCESS, properties }));
    client.expect_disconnect(Reason::PROTOCOL_ERROR);
}

/// [MQTT5-3.14.0-1] [MQTT5-3.1.2-2]
#[test]
fn no_disconnect_precedes_connack() {
    let mut options = ConnectOptions::new(Version::V5, &name("c"));
    options.will = Some(("+".into(), b"x".to_vec(), AT_MOST_ONCE, false, Vec::new()));
    let mut client = Client::open(broker().tcp(), Version::V5);
    client.send_bytes(&options.encode());
    assert!(matches!(client.recv().packet(), Packet::ConnAck(ack) if ack.reason.is_error()));
    client.expect_closed();
}

/// [MQTT-3.14.1-1] [MQTT5-3.14.1-1] [MQTT-3.1.2-8]: no valid DISCONNECT, so the will is published.
#[test]
fn reserved_bits_in_disconnect_end_the_connection_abnormally() {
    for version in [Version::V311, Version::V5] {
        let topic = name("abnormal/");
        let mut witness = anybody(version);
        witness.subscribe(&topic, AT_MOST_ONCE);
        let mut client = with_will(version, &topic);
        client.send_bytes(&[0xE2, 0]);
        client.expect_disconnect(Reason::MALFORMED_PACKET);
        expect_payload(&mut witness, "will");
    }
}

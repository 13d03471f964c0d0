//! What MQTT 3.1 does differently: `MQIsdp`, no Session Present, QoS in the header of SUBSCRIBE, no failure in SUBACK.

use crate::suite::{AT_LEAST_ONCE, AT_MOST_ONCE, anybody, broker, expect_payload, frame, lasting, name, resume, text};
use bifro_core::client::Version;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::reason::Reason;
use bifro_tests::{Client, ConnectOptions};

/// Section 3.1 of 3.1: the client id has at least one character.
#[test]
fn an_empty_client_id_is_rejected_whatever_clean_session_says() {
    for clean in [true, false] {
        let mut options = ConnectOptions::new(Version::V31, "");
        options.clean = clean;
        crate::suite::expect_refused(broker().tcp(), &options, Reason::CLIENT_IDENTIFIER_NOT_VALID);
    }
}

/// Section 3.2 of 3.1: the byte is reserved.
#[test]
fn connack_has_no_session_present() {
    let options = lasting(Version::V31, &name("old"));
    resume(&options).0.disconnect();
    let (_client, received) = Client::connect_with(broker().tcp(), &options);
    assert_eq!(received.bytes(), [0x20, 2, 0, 0]);
}

/// Section 2.1 of 3.1: PUBREL, SUBSCRIBE and UNSUBSCRIBE are sent again with DUP.
#[test]
fn dup_in_subscribe_unsubscribe_and_pubrel_is_accepted() {
    let mut client = anybody(Version::V31);
    let topic = name("old/");
    client.send_bytes(&frame(0x8A, &[&[0, 5], &text(&topic), &[1]]));
    assert_eq!(client.recv().bytes(), [0x90, 3, 0, 5, 1]);
    client.send_bytes(&frame(0x6A, &[&[0, 6]]));
    assert_eq!(client.recv().bytes(), [0x70, 2, 0, 6]);
    client.send_bytes(&frame(0xAA, &[&[0, 7], &text(&topic)]));
    assert_eq!(client.recv().bytes(), [0xB0, 2, 0, 7]);
}

/// Section 3.1 of 3.1: Remaining Length overrules the flags for user name and password.
#[test]
fn announced_credentials_may_be_missing() {
    let mut client = Client::open(broker().tcp(), Version::V31);
    client.send_bytes(&frame(0x10, &[&text("MQIsdp"), &[3, 0xC2, 0, 60], &text(name("old"))]));
    assert!(matches!(client.recv().packet(), Packet::ConnAck(ack) if ack.reason == Reason::SUCCESS));
}

/// A bridge of mosquitto announces itself in the protocol level; it gets retain flags as published and no echo.
#[test]
fn a_bridge_gets_retain_as_published_and_not_its_own_messages() {
    for (protocol, level, version) in [("MQIsdp", 0x83, Version::V31), ("MQTT", 0x84, Version::V311)] {
        let mut bridge = Client::open(broker().tcp(), version);
        bridge.send_bytes(&frame(0x10, &[&text(protocol), &[level, 2, 0, 60], &text(name("bridge"))]));
        assert!(matches!(bridge.recv().packet(), Packet::ConnAck(ack) if ack.reason == Reason::SUCCESS));
        let topic = name("bridged/");
        bridge.subscribe(&topic, AT_LEAST_ONCE);
        bridge.publish(&topic, b"own", AT_MOST_ONCE, false);
        bridge.expect_silence();
        let mut publisher = anybody(Version::V5);
        publisher.publish(&topic, b"others", AT_LEAST_ONCE, true);
        let received = expect_payload(&mut bridge, "others");
        assert!(crate::suite::as_publish(&received).retain);
        publisher.publish(&topic, b"", AT_LEAST_ONCE, true);
    }
}

/// The versions understand each other's messages.
#[test]
fn clients_of_all_versions_exchange_messages() {
    for publisher in crate::suite::ALL {
        for subscriber in crate::suite::ALL {
            let topic = name("across/");
            let mut receives = anybody(subscriber);
            receives.subscribe(&topic, AT_LEAST_ONCE);
            anybody(publisher).publish_acked(&topic, "\u{1F980}".as_bytes());
            expect_payload(&mut receives, "\u{1F980}");
        }
    }
}

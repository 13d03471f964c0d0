//! Row 9: a permission that is taken away while what it allowed is still there: session, subscription, queue, retained message.

use crate::access::{guarded, replace_rules};
use crate::arena::{MIB, VERSIONS};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::reason::Reason;
use bifro_tests::{Client, ConnectOptions, Received};

const OPEN: &str = "allow all #\n";
const REVOKED: &str = "deny all client=reader row09/#\nallow all #\n";

fn topic_and_payload(received: &Received) -> (String, Vec<u8>) {
    let Packet::Publish(publish) = received.packet() else { panic!("not a PUBLISH: {received:?}") };
    (publish.topic.to_owned(), publish.payload.to_vec())
}

#[test]
fn row_09_a_live_subscription_ends_with_its_permission() {
    let mut arena = guarded(OPEN, &["alice"]);
    for version in VERSIONS {
        assert!(replace_rules(&arena, OPEN).contains("reload done"));
        let mut reader = Client::connect(arena.tcp(), version, "reader");
        for filter in ["row09/exact", "row09/#", "+/exact", "$share/g/row09/shared"] {
            assert_eq!(reader.subscribe(filter, QoS::AtLeastOnce), 1);
        }
        let mut writer = Client::connect(arena.tcp(), Version::V5, "writer");
        writer.publish_acked("row09/exact", b"before");
        assert_eq!(topic_and_payload(&reader.recv_publish()), ("row09/exact".into(), b"before".to_vec()));
        assert!(replace_rules(&arena, REVOKED).contains("reload done"));
        arena.check();
        for topic in ["row09/exact", "row09/other", "row09/shared"] {
            writer.publish_acked(topic, b"after");
        }
        writer.publish_acked("open/exact", b"after");
        // The wildcard that covers more than was revoked goes on, without what was. Copies of the first message may come
        // before, one for each subscription that matched.
        let next = loop {
            let received = topic_and_payload(&reader.recv_publish());
            if received.1 == b"after" {
                break received;
            }
        };
        assert_eq!(next.0, "open/exact");
        assert_eq!(reader.subscribe("row09/new", QoS::AtMostOnce), if version == Version::V5 { 0x87 } else { 0x80 });
    }
    arena.finish(32 * MIB);
}

/// [MQTT-3.3.5-2]
#[test]
fn row_09_a_session_that_published_before_may_not_any_more() {
    let mut arena = guarded(OPEN, &["alice"]);
    let mut witness = Client::connect(arena.tcp(), Version::V5, "witness");
    assert_eq!(witness.subscribe("row09/#", QoS::AtMostOnce), 0);
    for version in VERSIONS {
        assert!(replace_rules(&arena, OPEN).contains("reload done"));
        let mut writer = Client::connect(arena.tcp(), version, "reader");
        assert_eq!(writer.publish_acked("row09/write", b""), Reason::SUCCESS);
        assert_eq!(topic_and_payload(&witness.recv_publish()).0, "row09/write");
        assert!(replace_rules(&arena, REVOKED).contains("reload done"));
        arena.check();
        let expected = if version == Version::V5 { Reason::NOT_AUTHORIZED } else { Reason::SUCCESS };
        assert_eq!(writer.publish_acked("row09/write", b""), expected);
        assert_eq!(writer.publish_exactly_once("row09/write", b""), expected);
        writer.publish("row09/write", b"", QoS::AtMostOnce, true);
        writer.expect_silence();
        witness.expect_silence();
        writer.disconnect();
    }
    arena.finish(32 * MIB);
}

#[test]
fn row_09_what_was_queued_or_retained_before_is_not_delivered_after() {
    let mut arena = guarded(OPEN, &["alice"]);
    let mut writer = Client::connect(arena.tcp(), Version::V5, "writer");
    for version in VERSIONS {
        assert!(replace_rules(&arena, OPEN).contains("reload done"));
        let mut options = ConnectOptions::new(version, "reader");
        options.clean = false;
        if version == Version::V5 {
            options.properties = vec![17, 0, 0, 1, 0];
        }
        let (mut reader, _) = Client::connect_with(arena.tcp(), &options);
        reader.subscribe("row09/#", QoS::AtLeastOnce);
        reader.disconnect();
        writer.publish_acked("row09/queued", b"secret");
        writer.publish("row09/retained", b"secret", QoS::AtLeastOnce, true);
        assert!(matches!(writer.recv().packet(), Packet::PubAck(_)));
        assert!(replace_rules(&arena, REVOKED).contains("reload done"));
        arena.check();
        let (mut reader, connack) = Client::connect_with(arena.tcp(), &options);
        assert!(version == Version::V31 || matches!(connack.packet(), Packet::ConnAck(ack) if ack.session_present));
        reader.expect_silence();
        for filter in ["row09/retained", "row09/#", "row09/+"] {
            assert!(reader.subscribe(filter, QoS::AtMostOnce) >= 0x80, "{filter}");
        }
        reader.expect_silence();
        // A filter that covers more than was revoked is granted, without what was.
        assert_eq!(reader.subscribe("+/retained", QoS::AtMostOnce), 0);
        reader.expect_silence();
        drop(reader);
        options.clean = true;
        options.properties.clear();
        Client::connect_with(arena.tcp(), &options).0.disconnect();
        writer.publish("row09/retained", b"", QoS::AtLeastOnce, true);
        assert!(matches!(writer.recv().packet(), Packet::PubAck(_)));
    }
    arena.finish(32 * MIB);
}

//! Row 12: shared subscriptions that are malformed, or that look like others.

use crate::arena::{Arena, MIB, VERSIONS};
use crate::raw::{subscribe, unsubscribe};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::{Packet, SubscribeFilter};
use bifro_mqtt::reason::Reason;

/// [MQTT5-4.8.2-1] [MQTT5-4.8.2-2] [MQTT-4.7.1-2] [MQTT-4.7.1-3]
#[test]
fn row_12_a_malformed_share_is_refused_and_the_session_goes_on() {
    let mut arena = Arena::new();
    for version in VERSIONS {
        let refused = if version == Version::V5 { Reason::TOPIC_FILTER_INVALID.0 } else { 0x80 };
        let mut client = arena.client(version, "offender");
        for prefix in ["$share", "$oshare"] {
            for rest in ["/", "//t", "/g", "/g/", "/+/t", "/#/t", "/a#/t", "/g+/t", "/g/t/#/x", "/g/a+", "/#"] {
                assert_eq!(client.subscribe(&format!("{prefix}{rest}"), QoS::AtMostOnce), refused, "{prefix}{rest}");
            }
        }
        for filter in ["", "a/#/b", "a#", "a+/b", "##", "++"] {
            assert_eq!(client.subscribe(filter, QoS::AtMostOnce), refused, "{filter:?}");
        }
        // Without a separator it is a filter like any other, and so is another word with a dollar.
        assert_eq!(client.subscribe("$share", QoS::AtMostOnce), 0);
        assert_eq!(client.subscribe("$shared/g/t", QoS::AtMostOnce), 0);
        client.expect_silence();
        client.disconnect();
    }
    arena.check();
    arena.finish(16 * MIB);
}

/// [MQTT5-3.8.3-4]
#[test]
fn row_12_no_local_on_a_share_is_a_protocol_error() {
    let mut arena = Arena::new();
    for filter in [&b"$share/g/t"[..], b"$share//t", b"$oshare/g/#"] {
        let mut client = arena.client(Version::V5, "offender");
        client.send_bytes(&subscribe(Version::V5, &[], &[(b"fine", 0), (filter, 0x04)]));
        client.expect_disconnect(Reason::PROTOCOL_ERROR);
    }
    arena.check();
    arena.finish(16 * MIB);
}

/// [MQTT-3.10.4-1] [MQTT5-3.10.4-1]: a shared subscription and the plain one with its filter are two.
#[test]
fn row_12_shared_and_plain_subscriptions_mixed_in_one_packet_end_one_by_one() {
    let mut arena = Arena::new();
    let v5 = Version::V5;
    let mut client = arena.client(v5, "mixed");
    let filter = |filter| SubscribeFilter {
        filter,
        qos: QoS::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    };
    let filters =
        ["row12/t", "$share/g/row12/t", "$share//row12/t", "$share/h/row12/t", "row12/t", "$oshare/g/row12/t"];
    let codes = client.subscribe_with(&filters.map(filter), &[]);
    let invalid = Reason::TOPIC_FILTER_INVALID.0;
    assert_eq!(codes, [0, 0, invalid, 0, 0, 0]);
    let mut publisher = arena.client(v5, "publisher");
    let mut count = |client: &mut bifro_tests::Client| {
        assert!(!publisher.publish_acked("row12/t", b"x").is_error());
        // All copies are on their way before the answer to a ping that the client sends now.
        client.send(&Packet::PingReq);
        let mut copies = 0;
        while let Packet::Publish(publish) = client.recv().packet() {
            assert_eq!(publish.topic, "row12/t");
            copies += 1;
        }
        copies
    };
    assert_eq!(count(&mut client), 4, "one for the plain subscription, one for each of three groups");
    client.send_bytes(&unsubscribe(
        v5,
        &[],
        &[b"$share/g/row12/t", b"$share/x/row12/t", b"$share//row12/t", b"row12/t"],
    ));
    let received = client.recv();
    let none = Reason::NO_SUBSCRIPTION_EXISTED.0;
    assert!(matches!(received.packet(), Packet::UnsubAck(ack) if ack.codes == [0, none, none, 0]), "{received:?}");
    assert_eq!(count(&mut client), 2, "the other two groups are left");
    for rest in ["$share/h/row12/t", "$oshare/g/row12/t"] {
        assert_eq!(client.unsubscribe(rest), [0]);
    }
    assert_eq!(count(&mut client), 0);
    arena.check();
    arena.finish(16 * MIB);
}

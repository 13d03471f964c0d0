//! Chapters 3.10 and 3.11: UNSUBSCRIBE and UNSUBACK.

use crate::suite::{
    ALL, AT_LEAST_ONCE, AT_MOST_ONCE, EXACTLY_ONCE, anybody, as_publish, expect_ack, expect_payload, frame, lasting,
    name, no_properties, resume, text,
};
use bifro_core::client::Version;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::reason::Reason;
use bifro_tests::client::AckKind;

/// [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-2.3.1-7] [MQTT5-3.10.4-4] [MQTT5-3.10.4-5] [MQTT5-3.10.4-6]
/// [MQTT5-2.2.1-6] [MQTT5-3.11.3-1] [MQTT5-3.11.3-2]
#[test]
fn one_unsuback_answers_all_filters_even_if_nothing_is_deleted() {
    for version in ALL {
        let mut client = anybody(version);
        let (one, two) = (name("end/"), name("end/"));
        client.subscribe(&one, AT_MOST_ONCE);
        client.subscribe(&two, AT_MOST_ONCE);
        let none = no_properties(version);
        client.send_bytes(&frame(0xA2, &[&[2, 1], none, &text(&two), &text("never/made"), &text(&one)]));
        let expected: &[u8] = if version == Version::V5 { &[0xB0, 6, 2, 1, 0, 0, 0x11, 0] } else { &[0xB0, 2, 2, 1] };
        assert_eq!(client.recv().bytes(), expected);
        client.publish(&one, b"x", AT_MOST_ONCE, false);
        client.publish(&two, b"x", AT_MOST_ONCE, false);
        client.expect_silence();
    }
}

/// [MQTT-3.10.3-2] [MQTT5-3.10.3-2] [MQTT-4.8.0-1] [MQTT5-4.13.1-1]
#[test]
fn unsubscribe_without_filters_closes_the_connection() {
    for version in ALL {
        let mut client = anybody(version);
        client.send_bytes(&frame(0xA2, &[&[0, 1], no_properties(version)]));
        client.expect_disconnect(Reason::PROTOCOL_ERROR);
    }
}

/// [MQTT-3.10.4-1] [MQTT5-3.10.4-1] [MQTT-4.7.3-4] [MQTT5-4.7.3-4]
#[test]
fn only_the_very_same_filter_is_deleted() {
    for version in ALL {
        let mut client = anybody(version);
        let root = name("exact");
        client.subscribe(&format!("{root}/+/é"), AT_MOST_ONCE);
        for other in ["+/e\u{301}", "a/é", "#", "+/É", "+/é/", "+"] {
            let codes = client.unsubscribe(&format!("{root}/{other}"));
            assert!(version != Version::V5 || codes == [0x11], "{other}");
        }
        client.publish(&format!("{root}/a/é"), b"x", AT_MOST_ONCE, false);
        expect_payload(&mut client, "x");
        client.unsubscribe(&format!("{root}/+/é"));
        client.publish(&format!("{root}/a/é"), b"x", AT_MOST_ONCE, false);
        client.expect_silence();
    }
}

/// [MQTT-3.10.4-2] [MQTT5-3.10.4-2] [MQTT-3.10.4-3] [MQTT5-3.10.4-3]
#[test]
fn deliveries_under_way_are_completed_and_no_new_ones_begun() {
    for version in ALL {
        let (mut client, mut publisher) = (anybody(version), anybody(version));
        let topic = name("under/way");
        client.subscribe(&topic, EXACTLY_ONCE);
        publisher.publish_acked(&topic, b"one");
        publisher.publish_exactly_once(&topic, b"two");
        let ids = [(); 2].map(|()| as_publish(&client.recv()).packet_id.expect("QoS above 0"));
        client.unsubscribe(&topic);
        publisher.publish_acked(&topic, b"three");
        client.ack(AckKind::PubAck, ids[0]);
        client.ack(AckKind::PubRec, ids[1]);
        expect_ack(&mut client, "PUBREL", ids[1].get());
        client.ack(AckKind::PubComp, ids[1]);
        client.expect_silence();
    }
}

/// [MQTT-3.10.4-3] [MQTT5-3.10.4-3]: over a reconnect as well.
#[test]
fn a_delivery_under_way_survives_unsubscribe_and_reconnect() {
    for version in ALL {
        let (options, topic) = (lasting(version, &name("under")), name("under/way"));
        let mut client = resume(&options).0;
        client.subscribe(&topic, AT_LEAST_ONCE);
        anybody(version).publish_acked(&topic, b"one");
        let first = as_publish(&client.recv()).packet_id;
        client.unsubscribe(&topic);
        drop(client);
        let mut client = resume(&options).0;
        let received = expect_payload(&mut client, "one");
        let publish = as_publish(&received);
        assert_eq!((publish.packet_id, publish.dup), (first, true));
        anybody(version).publish_acked(&topic, b"two");
        client.expect_silence();
    }
}

/// [MQTT5-3.11.3-2]
#[test]
fn too_many_filters_in_one_unsubscribe_are_refused_one_by_one() {
    let (mut client, _) = crate::suite::join_tenant("small", Version::V5);
    let filters = [text("a"), text("b"), text("c"), text("d"), text("e")].concat();
    client.send_bytes(&frame(0xA2, &[&[0, 5, 0], &filters]));
    let received = client.recv();
    let Packet::UnsubAck(unsuback) = received.packet() else { panic!("not an UNSUBACK: {received:?}") };
    assert_eq!(unsuback.codes, [Reason::IMPLEMENTATION_SPECIFIC_ERROR.0; 5]);
}

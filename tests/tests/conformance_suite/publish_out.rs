//! Chapter 3.3: PUBLISH to clients.

use crate::suite::{
    ALL, AT_LEAST_ONCE, AT_MOST_ONCE, EXACTLY_ONCE, QOS, anybody, as_publish, block, broker, expect_payload, filter,
    frame, lasting, name, no_properties, resume, subscribe_as, text,
};
use bifro_core::client::Version;
use bifro_mqtt::property::{Properties, PropertyId};
use bifro_tests::{Client, ConnectOptions};
use std::collections::BTreeSet;

/// [MQTT-2.3.1-4] [MQTT5-2.2.1-4] [MQTT-4.3.2-1] [MQTT5-4.3.2-1] [MQTT5-4.3.3-1] [MQTT5-4.3.2-2] [MQTT5-4.3.3-2]
/// [MQTT-4.3.3-1]
#[test]
fn messages_in_flight_have_packet_ids_of_their_own() {
    for version in ALL {
        let (mut publisher, mut subscriber) = (anybody(version), anybody(version));
        let topic = name("ids/");
        subscriber.subscribe(&topic, EXACTLY_ONCE);
        let mut seen = BTreeSet::new();
        for round in 0..10 {
            let qos = if round % 2 == 0 { AT_LEAST_ONCE } else { EXACTLY_ONCE };
            publisher.publish(&topic, b"x", qos, false);
            let received = subscriber.recv();
            let publish = as_publish(&received);
            assert_eq!((publish.qos, publish.dup), (qos, false));
            assert!(seen.insert(publish.packet_id.expect("QoS above 0").get()), "used twice: {received:?}");
        }
    }
}

/// [MQTT-2.3.1-5] [MQTT5-2.2.1-2] [MQTT-4.3.1-1] [MQTT5-4.3.1-1] [MQTT5-2.2.2-1]
#[test]
fn a_qos_0_publish_has_no_packet_id_and_no_dup() {
    for version in ALL {
        let mut client = anybody(version);
        let topic = name("bare/");
        client.subscribe(&topic, EXACTLY_ONCE);
        client.publish(&topic, b"payload", AT_MOST_ONCE, false);
        assert_eq!(client.recv().bytes(), frame(0x30, &[&text(&topic), no_properties(version), b"payload"]));
    }
}

/// [MQTT-3.8.4-6] [MQTT5-3.8.4-8] [MQTT-4.3.2-1] [MQTT-4.3.3-1]
#[test]
fn a_message_is_delivered_at_the_lower_of_published_and_granted_qos() {
    for version in ALL {
        let mut publisher = anybody(Version::V5);
        for granted in QOS {
            let mut subscriber = anybody(version);
            let topic = name("lower/");
            assert_eq!(subscriber.subscribe(&topic, granted), granted as u8);
            for published in QOS {
                publisher.publish(&topic, b"x", published, false);
                let received = expect_payload(&mut subscriber, "x");
                assert_eq!(as_publish(&received).qos, published.min(granted), "{published:?} to {granted:?}");
            }
        }
    }
}

/// [MQTT-3.3.5-1] [MQTT5-3.3.4-2] [MQTT5-3.3.4-3] [MQTT5-3.3.4-4]
#[test]
fn overlapping_subscriptions_deliver_one_copy_at_the_highest_qos_with_all_identifiers() {
    for version in ALL {
        let root = name("overlap");
        let mut client = anybody(version);
        let filters = [
            (format!("{root}/#"), AT_MOST_ONCE),
            (format!("{root}/+"), EXACTLY_ONCE),
            (format!("{root}/a"), AT_LEAST_ONCE),
        ];
        for ((pattern, qos), identifier) in filters.iter().zip([7, 1, 268_435_455]) {
            if version == Version::V5 {
                subscribe_as(&mut client, pattern, *qos, identifier);
            } else {
                client.subscribe(pattern, *qos);
            }
        }
        let mut publisher = anybody(Version::V5);
        publisher.publish(&format!("{root}/a"), b"x", EXACTLY_ONCE, false);
        let received = expect_payload(&mut client, "x");
        assert_eq!(as_publish(&received).qos, EXACTLY_ONCE);
        let identifiers: BTreeSet<u32> =
            as_publish(&received).properties.all.subscription_ids().map(|identifier| identifier.get()).collect();
        let expected = if version == Version::V5 { BTreeSet::from([1, 7, 268_435_455]) } else { BTreeSet::new() };
        assert_eq!(identifiers, expected, "{version:?}");
        client.expect_silence();
    }
}

/// [MQTT5-3.3.4-3] [MQTT5-3.3.4-4]: only of the subscriptions that match, and those without one add none.
#[test]
fn subscription_identifiers_are_those_of_the_matching_subscriptions() {
    let root = name("identified");
    let mut client = anybody(Version::V5);
    subscribe_as(&mut client, &format!("{root}/a"), AT_MOST_ONCE, 5);
    subscribe_as(&mut client, &format!("{root}/b"), AT_MOST_ONCE, 6);
    client.subscribe(&format!("{root}/#"), AT_MOST_ONCE);
    let ids_of = |client: &mut Client, topic: &str| {
        client.publish(&format!("{root}/{topic}"), b"x", AT_MOST_ONCE, false);
        let received = client.recv_publish();
        let ids = as_publish(&received).properties.all.subscription_ids().map(|id| id.get());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids_of(&mut client, "a"), [5]);
    assert_eq!(ids_of(&mut client, "b"), [6]);
    assert!(ids_of(&mut client, "c").is_empty());
    client.subscribe(&format!("{root}/a"), AT_MOST_ONCE);
    assert!(ids_of(&mut client, "a").is_empty(), "a subscription made again without an identifier has none");
}

/// [MQTT5-3.3.4-3] [MQTT5-3.3.4-4]
#[test]
fn identifiers_come_along_with_retained_and_queued_messages() {
    let topic = name("identified/");
    anybody(Version::V5).publish(&topic, b"kept", AT_LEAST_ONCE, true);
    let options = lasting(Version::V5, &name("identified"));
    let mut client = resume(&options).0;
    subscribe_as(&mut client, &topic, AT_LEAST_ONCE, 42);
    let ids = |received: &bifro_tests::Received| {
        as_publish(received).properties.all.subscription_ids().map(|id| id.get()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&expect_payload(&mut client, "kept")), [42]);
    client.disconnect();
    anybody(Version::V5).publish_acked(&topic, b"queued");
    assert_eq!(ids(&expect_payload(&mut resume(&options).0, "queued")), [42]);
}

/// [MQTT-3.3.2-3] [MQTT5-3.3.2-3] [MQTT5-3.3.4-5]
#[test]
fn the_topic_of_what_is_delivered_is_the_one_published() {
    for version in ALL {
        let root = name("topic");
        let mut client = anybody(version);
        client.subscribe_with(
            &[filter(&format!("{root}/+/x"), AT_MOST_ONCE), filter(&format!("{root}/y/#"), AT_MOST_ONCE)],
            &[],
        );
        for topic in ["a/x", "ä €/x", "/x", "y", "y/", "y/z/€/𝄞"] {
            let topic = format!("{root}/{topic}");
            client.publish(&topic, b"x", AT_MOST_ONCE, false);
            assert_eq!(as_publish(&client.recv_publish()).topic, topic);
        }
        client.expect_silence();
    }
}

/// [MQTT5-3.1.2-24] [MQTT5-3.1.2-25]
#[test]
fn a_message_too_large_for_the_client_is_dropped_as_if_it_had_been_sent() {
    let mut options = ConnectOptions::new(Version::V5, &name("narrow"));
    let limit = 100;
    options.properties = block(|w| w.u32(PropertyId::MaximumPacketSize, limit));
    let (mut narrow, _) = Client::connect_with(broker().tcp(), &options);
    let mut wide = anybody(Version::V5);
    let topic = name("size/");
    narrow.subscribe(&topic, AT_LEAST_ONCE);
    wide.subscribe(&topic, AT_LEAST_ONCE);
    let overhead = frame(0x32, &[&text(&topic), &[0, 1, 0]]).len();
    let exact = vec![b'x'; limit as usize - overhead];
    let mut publisher = anybody(Version::V311);
    for qos in QOS {
        publisher.publish(&topic, &[exact.as_slice(), b"xxx"].concat(), qos, false);
        wide.recv_publish();
    }
    publisher.publish(&topic, &exact, AT_LEAST_ONCE, false);
    let received = expect_payload(&mut narrow, &exact);
    assert_eq!(received.bytes().len(), limit as usize, "the limit itself is allowed");
    narrow.expect_silence();
}

/// [MQTT5-3.1.2-25]: it does not stand in the way of what follows, nor come back.
#[test]
fn a_stored_message_too_large_for_the_client_does_not_block_the_session() {
    let (mut options, topic) = (lasting(Version::V5, &name("narrow")), name("size/"));
    let mut client = resume(&options).0;
    client.subscribe(&topic, EXACTLY_ONCE);
    client.disconnect();
    let mut publisher = anybody(Version::V311);
    publisher.publish_acked(&topic, &[b'x'; 500]);
    publisher.publish_exactly_once(&topic, &[b'x'; 500]);
    publisher.publish_acked(&topic, b"small");
    let mut properties = options.properties.clone();
    properties.extend(block(|w| w.u32(PropertyId::MaximumPacketSize, 200)));
    options.properties = properties;
    let mut client = resume(&options).0;
    expect_payload(&mut client, "small");
    client.expect_silence();
    client.disconnect();
    options.properties = lasting(Version::V5, "").properties;
    let mut client = resume(&options).0;
    client.expect_silence();
    assert_eq!(Properties::new(&options.properties).maximum_packet_size(), None);
}

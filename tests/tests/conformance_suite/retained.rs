//! Chapter 3.3.1.3: retained messages.

use crate::suite::{
    ALL, AT_LEAST_ONCE, AT_MOST_ONCE, EXACTLY_ONCE, QOS, anybody, as_publish, block, expect_payload, lasting, name,
    resume,
};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::property::PropertyId;
use bifro_tests::Client;

/// Publishes with RETAIN and waits until that has been taken over.
fn retain(client: &mut Client, topic: &str, payload: &[u8], qos: QoS) {
    client.publish(topic, payload, qos, true);
    match qos {
        QoS::AtMostOnce => client.expect_silence(),
        QoS::AtLeastOnce => drop(client.recv()),
        QoS::ExactlyOnce => {
            let received = client.recv();
            let (_, number, _) = crate::suite::as_ack(&received);
            client.ack(bifro_tests::client::AckKind::PubRel, crate::suite::id(number));
            client.recv();
        }
    }
}

/// [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8] [MQTT5-3.3.1-5] [MQTT5-3.3.1-9]
#[test]
fn a_new_subscription_gets_the_last_retained_message_with_its_qos() {
    for version in ALL {
        let topic = name("retained/");
        let mut publisher = anybody(version);
        for qos in [EXACTLY_ONCE, AT_LEAST_ONCE, AT_MOST_ONCE, EXACTLY_ONCE] {
            let payload = format!("{qos:?}");
            retain(&mut publisher, &topic, payload.as_bytes(), qos);
            for granted in QOS {
                let mut subscriber = anybody(version);
                subscriber.subscribe(&topic, granted);
                let received = expect_payload(&mut subscriber, &payload);
                let publish = as_publish(&received);
                assert_eq!((publish.retain, publish.dup, publish.qos), (true, false, qos.min(granted)));
                subscriber.expect_silence();
            }
        }
    }
}

/// [MQTT-3.3.1-6] [MQTT5-3.3.1-9] [MQTT-4.7.2-1]
#[test]
fn a_wildcard_gets_one_message_for_each_topic() {
    for version in ALL {
        let root = name("retained");
        let mut publisher = anybody(version);
        let mut topics: Vec<String> = (0..12).map(|index| format!("{root}/{index}")).collect();
        for topic in &topics {
            retain(&mut publisher, topic, b"old", AT_LEAST_ONCE);
            retain(&mut publisher, topic, topic.as_bytes(), AT_LEAST_ONCE);
        }
        let mut subscriber = anybody(version);
        subscriber.subscribe(&format!("{root}/#"), AT_LEAST_ONCE);
        let mut seen: Vec<String> = topics
            .iter()
            .map(|_| {
                let received = subscriber.recv_publish();
                let publish = as_publish(&received);
                assert_eq!(publish.payload, publish.topic.as_bytes());
                publish.topic.to_owned()
            })
            .collect();
        subscriber.expect_silence();
        seen.sort();
        topics.sort();
        assert_eq!(seen, topics);
    }
}

/// [MQTT-3.3.1-9] [MQTT5-3.3.1-12]
#[test]
fn an_established_subscription_gets_it_without_retain() {
    for version in ALL {
        let topic = name("retained/");
        let mut subscriber = anybody(version);
        subscriber.subscribe(&topic, AT_LEAST_ONCE);
        retain(&mut anybody(version), &topic, b"x", AT_LEAST_ONCE);
        assert!(!as_publish(&expect_payload(&mut subscriber, "x")).retain);
    }
}

/// [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT5-3.3.1-6] [MQTT5-3.3.1-7]
#[test]
fn an_empty_payload_clears_the_topic_and_is_forwarded_but_not_kept() {
    for version in ALL {
        let topic = name("cleared/");
        let (mut publisher, mut established) = (anybody(version), anybody(version));
        retain(&mut publisher, &topic, b"kept", AT_LEAST_ONCE);
        established.subscribe(&topic, AT_LEAST_ONCE);
        expect_payload(&mut established, "kept");
        for qos in QOS {
            retain(&mut publisher, &topic, b"", qos);
            let received = expect_payload(&mut established, "");
            assert!(!as_publish(&received).retain, "forwarded like any other");
            let mut later = anybody(version);
            later.subscribe(&topic, AT_LEAST_ONCE);
            later.expect_silence();
        }
    }
}

/// [MQTT-3.3.1-12] [MQTT5-3.3.1-8]
#[test]
fn a_publish_without_retain_leaves_the_retained_message_alone() {
    for version in ALL {
        let topic = name("alone/");
        let mut publisher = anybody(version);
        publisher.publish_acked(&topic, b"never kept");
        let mut early = anybody(version);
        early.subscribe(&topic, AT_LEAST_ONCE);
        early.expect_silence();
        retain(&mut publisher, &topic, b"kept", AT_LEAST_ONCE);
        publisher.publish_acked(&topic, b"passes");
        publisher.publish_acked(&topic, b"");
        let mut late = anybody(version);
        late.subscribe(&topic, AT_LEAST_ONCE);
        expect_payload(&mut late, "kept");
        late.expect_silence();
    }
}

/// [MQTT-3.1.2-7]
#[test]
fn retained_messages_outlive_the_session_that_published_them() {
    for version in ALL {
        let (options, topic) = (lasting(version, &name("outlived")), name("outlived/"));
        let mut publisher = resume(&options).0;
        retain(&mut publisher, &topic, b"kept", AT_LEAST_ONCE);
        publisher.disconnect();
        crate::suite::join(version, &options.client_id).disconnect();
        let mut subscriber = anybody(version);
        subscriber.subscribe(&topic, AT_MOST_ONCE);
        expect_payload(&mut subscriber, "kept");
    }
}

/// [MQTT5-3.3.2-5] [MQTT5-3.3.2-6]
#[test]
fn a_retained_message_expires() {
    let topic = name("expires/");
    let mut publisher = anybody(Version::V5);
    let expiry = |seconds| block(|w| w.u32(PropertyId::MessageExpiryInterval, seconds));
    publisher.publish_with(&topic, b"long", AT_LEAST_ONCE, true, &expiry(100));
    publisher.recv();
    let brief = name("expires/");
    publisher.publish_with(&brief, b"brief", AT_LEAST_ONCE, true, &expiry(1));
    publisher.recv();
    crate::suite::pass(std::time::Duration::from_millis(1_100));
    let mut subscriber = anybody(Version::V5);
    subscriber.subscribe(&topic, AT_LEAST_ONCE);
    let received = expect_payload(&mut subscriber, "long");
    let left = as_publish(&received).properties.message_expiry.expect("it had one");
    assert!((97..=99).contains(&left), "{left} seconds left");
    subscriber.subscribe(&brief, AT_LEAST_ONCE);
    subscriber.expect_silence();
}

/// [MQTT5-3.3.1-5] [MQTT5-3.3.2-17] [MQTT5-3.3.2-20]
#[test]
fn a_retained_message_keeps_its_properties() {
    let topic = name("properties/");
    let properties = block(|w| w.str(PropertyId::ContentType, "text/plain").pair(PropertyId::UserProperty, "a", "b"));
    let mut publisher = anybody(Version::V5);
    publisher.publish_with(&topic, b"kept", AT_LEAST_ONCE, true, &properties);
    publisher.recv();
    let mut subscriber = anybody(Version::V5);
    subscriber.subscribe(&topic, AT_MOST_ONCE);
    let received = expect_payload(&mut subscriber, "kept");
    assert_eq!(as_publish(&received).properties.all.raw(), properties);
    let mut older = anybody(Version::V311);
    older.subscribe(&topic, AT_MOST_ONCE);
    expect_payload(&mut older, "kept");
}

//! Chapters 2.2.2 and 3.3.2.3: properties that travel with messages, and what CONNECT asks for.

use crate::suite::{
    AT_LEAST_ONCE, AT_MOST_ONCE, QOS, anybody, anybody_with, as_publish, block, broker, connack_properties,
    expect_payload, frame, name, subscribe_as, text,
};
use bifro_core::client::Version;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::property::{PropertyId, PropertyValue};
use bifro_mqtt::reason::Reason;
use bifro_tests::{Client, ConnectOptions};

/// [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18] [MQTT5-3.3.2-20]
#[test]
fn the_properties_of_a_message_are_forwarded_unaltered_and_in_order() {
    let properties = block(|w| {
        w.pair(PropertyId::UserProperty, "b", "1").byte(PropertyId::PayloadFormatIndicator, 0);
        w.str(PropertyId::ContentType, "application/\u{FEFF}json").pair(PropertyId::UserProperty, "a", "2");
        w.binary(PropertyId::CorrelationData, &[0, 1, 255]).str(PropertyId::ResponseTopic, "answers/é");
        w.pair(PropertyId::UserProperty, "b", "1").pair(PropertyId::UserProperty, "", "")
    });
    for qos in QOS {
        let (mut publisher, mut subscriber) = (anybody(Version::V5), anybody(Version::V5));
        let mut older = anybody(Version::V311);
        let topic = name("properties/");
        subscriber.subscribe(&topic, qos);
        older.subscribe(&topic, qos);
        publisher.publish_with(&topic, b"x", qos, false, &properties);
        let received = expect_payload(&mut subscriber, "x");
        assert_eq!(as_publish(&received).properties.all.raw(), properties);
        expect_payload(&mut older, "x");
    }
}

/// [MQTT5-3.3.2-17] [MQTT5-3.3.2-18]: an expiry or alias between them changes nothing.
#[test]
fn what_is_taken_out_leaves_the_rest_in_order() {
    let (mut publisher, mut subscriber) = (anybody(Version::V5), anybody(Version::V5));
    let topic = name("properties/");
    subscribe_as(&mut subscriber, &topic, AT_MOST_ONCE, 9);
    let properties = block(|w| {
        w.pair(PropertyId::UserProperty, "c", "3").u16(PropertyId::TopicAlias, 1);
        w.pair(PropertyId::UserProperty, "a", "1").u32(PropertyId::MessageExpiryInterval, 1_000);
        w.pair(PropertyId::UserProperty, "b", "2")
    });
    publisher.publish_with(&topic, b"x", AT_MOST_ONCE, false, &properties);
    let received = expect_payload(&mut subscriber, "x");
    let all = as_publish(&received).properties.all;
    let user: Vec<_> = all.user_properties().collect();
    assert_eq!(user, [("c", "3"), ("a", "1"), ("b", "2")]);
    assert_eq!(all.topic_alias(), None);
    assert!(all.message_expiry().is_some_and(|left| (999..=1_000).contains(&left)));
    assert_eq!(all.subscription_ids().map(|id| id.get()).collect::<Vec<_>>(), [9]);
}

/// [MQTT5-3.3.2-6] [MQTT5-3.3.2-5]
#[test]
fn an_expiry_is_forwarded_and_0_expires_at_once_or_is_delivered_at_once() {
    let (mut publisher, mut subscriber) = (anybody(Version::V5), anybody(Version::V5));
    let topic = name("expiry/");
    subscriber.subscribe(&topic, AT_LEAST_ONCE);
    for seconds in [10, 3_600, u32::MAX] {
        let properties = block(|w| w.u32(PropertyId::MessageExpiryInterval, seconds));
        publisher.publish_with(&topic, b"x", AT_LEAST_ONCE, false, &properties);
        let received = expect_payload(&mut subscriber, "x");
        let left = as_publish(&received).properties.message_expiry.expect("forwarded");
        assert!(left <= seconds && left >= seconds - 1, "{left} of {seconds}");
    }
}

/// [MQTT5-3.1.2-28]
#[test]
fn response_information_is_never_sent_unasked() {
    for asked in [None, Some(0), Some(1)] {
        let mut options = ConnectOptions::new(Version::V5, &name("c"));
        if let Some(asked) = asked {
            options.properties = block(|w| w.byte(PropertyId::RequestResponseInformation, asked));
        }
        let (_client, received) = Client::connect_with(broker().tcp(), &options);
        let information = connack_properties(&received).response_information();
        assert!(asked == Some(1) || information.is_none(), "{information:?}");
    }
}

/// [MQTT5-3.1.2-29]
#[test]
fn without_problem_information_only_publish_connack_and_disconnect_have_user_properties() {
    let mut client = anybody_with(&block(|w| w.byte(PropertyId::RequestProblemInformation, 0)));
    let topic = name("problem/");
    let bad = crate::suite::filter("bad/#/x", AT_LEAST_ONCE);
    client.send_bytes(&frame(0x82, &[&[0, 1, 0], &text(bad.filter), &[0], &text(&topic), &[1]]));
    assert_eq!(client.recv().bytes(), [0x90, 5, 0, 1, 0, 0x8F, 1]);
    client.publish_with(
        &topic,
        &[0xFF],
        AT_LEAST_ONCE,
        false,
        &block(|w| w.byte(PropertyId::PayloadFormatIndicator, 1)),
    );
    let received = client.recv();
    assert!(
        matches!(received.packet(), Packet::PubAck(ack) if ack.reason.is_error() && ack.properties.raw().is_empty())
    );
    let user = block(|w| w.pair(PropertyId::UserProperty, "a", "b"));
    client.publish_with(&topic, b"x", AT_MOST_ONCE, false, &user);
    assert_eq!(as_publish(&client.recv()).properties.all.raw(), user, "a message keeps its own");
    client.send_bytes(&[0xD0, 0]);
    client.expect_disconnect(Reason::PROTOCOL_ERROR);
}

/// [MQTT5-2.2.2-1] [MQTT5-3.2.2-8]
#[test]
fn no_property_stands_twice_in_connack_and_all_are_of_connack() {
    let mut options = ConnectOptions::new(Version::V5, "");
    options.properties =
        block(|w| w.u32(PropertyId::SessionExpiryInterval, u32::MAX).u16(PropertyId::ReceiveMaximum, 1));
    let (_client, received) = Client::connect_with(broker().tcp(), &options);
    let mut seen = Vec::new();
    for (property, value) in connack_properties(&received).iter() {
        assert!(!seen.contains(&property), "{property:?} twice");
        assert!(!matches!(value, PropertyValue::Str("")), "{property:?} is empty");
        seen.push(property);
    }
    assert!(seen.contains(&PropertyId::AssignedClientIdentifier) && seen.contains(&PropertyId::SessionExpiryInterval));
}

/// [MQTT5-3.3.4-3] [MQTT5-3.3.2-17]: user properties of SUBSCRIBE, UNSUBSCRIBE and acknowledgements are taken and go nowhere.
#[test]
fn user_properties_of_other_packets_are_accepted() {
    let user = block(|w| w.pair(PropertyId::UserProperty, "k", "v").pair(PropertyId::UserProperty, "k", "v"));
    let mut options = ConnectOptions::new(Version::V5, &name("c"));
    options.properties.clone_from(&user);
    let (mut client, _) = Client::connect_with(broker().tcp(), &options);
    let topic = name("user/");
    assert_eq!(client.subscribe_with(&[crate::suite::filter(&topic, AT_LEAST_ONCE)], &user), [1]);
    anybody(Version::V311).publish_acked(&topic, b"x");
    let received = client.recv();
    let publish = as_publish(&received);
    assert!(publish.properties.all.raw().is_empty());
    let length = [u8::try_from(user.len()).expect("short")];
    let packet_id = publish.packet_id.expect("QoS 1").get().to_be_bytes();
    client.send_bytes(&frame(0x40, &[&packet_id, &[0], &length, &user]));
    client.send_bytes(&frame(0xA2, &[&[0, 9], &length, &user, &text(&topic)]));
    assert_eq!(client.recv().bytes(), [0xB0, 4, 0, 9, 0, 0]);
    client.send_bytes(&frame(0xE0, &[&[0], &length, &user]));
    client.expect_closed();
}

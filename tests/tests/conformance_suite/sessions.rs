//! Chapters 3.1.2.4 and 4.1: sessions that outlive connections, and those that do not.

use crate::suite::{
    ALL, AT_LEAST_ONCE, AT_MOST_ONCE, EXACTLY_ONCE, LASTING_S, STANDARD, anybody, at_once, block, broker,
    expect_payload, join, lasting, name, pass, resume,
};
use bifro_core::client::Version;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::property::PropertyId;
use bifro_mqtt::reason::Reason;
use bifro_tests::{Client, ConnectOptions};
use std::time::Duration;

/// [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-4.1.0-1] [MQTT-3.1.3-2] [MQTT5-3.1.2-5] [MQTT5-3.1.2-6] [MQTT5-3.1.2-23]
/// [MQTT5-3.1.3-2] [MQTT-4.5.0-1] [MQTT5-4.5.0-1]
#[test]
fn a_stored_session_keeps_subscriptions_and_messages_of_qos_1_and_2() {
    for version in ALL {
        let (options, topic) = (lasting(version, &name("stored")), name("stored/"));
        let (mut client, present) = resume(&options);
        assert!(!present);
        client.subscribe(&topic, EXACTLY_ONCE);
        client.disconnect();
        let mut publisher = anybody(version);
        publisher.publish_acked(&topic, b"one");
        publisher.publish_exactly_once(&topic, b"two");
        let (mut client, present) = resume(&options);
        assert_eq!(present, version != Version::V31, "3.1 has no way to say it");
        expect_payload(&mut client, "one");
        expect_payload(&mut client, "two");
        publisher.publish_acked(&topic, b"three");
        expect_payload(&mut client, "three");
        client.expect_silence();
    }
}

/// [MQTT-3.1.2-4] [MQTT5-3.1.2-23]: however the connection ended.
#[test]
fn a_session_survives_a_lost_connection_and_a_takeover() {
    for version in ALL {
        let (options, topic) = (lasting(version, &name("survives")), name("survives/"));
        let mut lost = resume(&options).0;
        lost.subscribe(&topic, AT_LEAST_ONCE);
        drop(lost);
        let mut taken = resume(&options).0;
        taken.expect_silence();
        let mut client = resume(&options).0;
        taken.expect_disconnect(Reason::SESSION_TAKEN_OVER);
        anybody(version).publish_acked(&topic, b"news");
        expect_payload(&mut client, "news");
    }
}

/// [MQTT-3.1.2-6] [MQTT-4.1.0-2] [MQTT5-3.1.2-4] [MQTT5-4.1.0-1] [MQTT5-4.1.0-2]
#[test]
fn a_clean_session_begins_with_nothing_and_ends_with_its_connection() {
    for version in ALL {
        let (options, topic) = (lasting(version, &name("clean")), name("clean/"));
        let mut client = resume(&options).0;
        client.subscribe(&topic, AT_LEAST_ONCE);
        client.disconnect();
        let mut publisher = anybody(version);
        publisher.publish_acked(&topic, b"discarded");
        let mut clean = join(version, &options.client_id);
        clean.expect_silence();
        publisher.publish_acked(&topic, b"not subscribed any more");
        clean.expect_silence();
        clean.subscribe(&topic, AT_LEAST_ONCE);
        publisher.publish_acked(&topic, b"while it lasts");
        expect_payload(&mut clean, "while it lasts");
        clean.disconnect();
        publisher.publish_acked(&topic, b"too late");
        let (mut client, present) = resume(&options);
        assert!(!present, "{version:?}");
        client.expect_silence();
    }
}

/// [MQTT5-3.1.2-4] [MQTT5-3.1.2-23]: clean start and expiry are two things in 5.0.
#[test]
fn a_clean_start_with_an_expiry_begins_a_session_that_lasts() {
    let (mut options, topic) = (lasting(Version::V5, &name("both")), name("both/"));
    options.clean = true;
    let (mut client, present) = resume(&options);
    assert!(!present);
    client.subscribe(&topic, AT_LEAST_ONCE);
    client.disconnect();
    anybody(Version::V5).publish_acked(&topic, b"kept");
    options.clean = false;
    let (mut client, present) = resume(&options);
    assert!(present);
    expect_payload(&mut client, "kept");
}

/// [MQTT5-3.1.2-5] [MQTT5-4.1.0-2]
#[test]
fn a_session_resumed_without_an_expiry_ends_with_that_connection() {
    let options = lasting(Version::V5, &name("resumed"));
    resume(&options).0.disconnect();
    let mut last = options.clone();
    last.properties.clear();
    let (client, present) = resume(&last);
    assert!(present, "it is resumed");
    client.disconnect();
    assert!(!resume(&options).1, "and it is over");
}

/// [MQTT5-4.1.0-2] [MQTT5-3.1.2-23]
#[test]
fn a_session_expires() {
    let mut options = lasting(Version::V5, &name("expires"));
    options.properties = block(|w| w.u32(PropertyId::SessionExpiryInterval, 1));
    let topic = name("expires/");
    let mut client = resume(&options).0;
    client.subscribe(&topic, AT_LEAST_ONCE);
    pass(Duration::from_millis(1_200));
    client.expect_silence();
    client.disconnect();
    let (client, present) = resume(&options);
    assert!(present, "the interval runs from the end of the connection");
    drop(client);
    pass(Duration::from_millis(1_500));
    let (mut client, present) = resume(&options);
    assert!(!present);
    anybody(Version::V5).publish_acked(&topic, b"x");
    client.expect_silence();
}

/// [MQTT5-3.3.2-5] [MQTT5-3.3.2-6]
#[test]
fn a_message_expires_in_the_queue_or_tells_what_is_left() {
    at_once(&ALL, |version| {
        let (options, topic) = (lasting(version, &name("queue")), name("queue/"));
        let mut client = resume(&options).0;
        client.subscribe(&topic, AT_LEAST_ONCE);
        client.disconnect();
        let mut publisher = anybody(Version::V5);
        for (payload, seconds) in [(&b"brief"[..], 1), (b"long", 60), (b"forever", 0)] {
            let properties =
                if seconds == 0 { Vec::new() } else { block(|w| w.u32(PropertyId::MessageExpiryInterval, seconds)) };
            publisher.publish_with(&topic, payload, AT_LEAST_ONCE, false, &properties);
            publisher.recv();
        }
        pass(Duration::from_millis(1_200));
        let mut client = resume(&options).0;
        let received = expect_payload(&mut client, "long");
        let left = crate::suite::as_publish(&received).properties.message_expiry;
        match version {
            Version::V5 => assert!(left.is_some_and(|left| (57..=59).contains(&left)), "{left:?}"),
            Version::V31 | Version::V311 => assert_eq!(left, None),
        }
        let received = expect_payload(&mut client, "forever");
        assert_eq!(crate::suite::as_publish(&received).properties.message_expiry, None);
        client.expect_silence();
    });
}

/// [MQTT-3.1.4-2] [MQTT5-3.1.4-3] [MQTT-4.4.0-1] [MQTT5-4.4.0-1]
#[test]
fn a_takeover_hands_over_what_was_not_acknowledged() {
    for version in ALL {
        let (options, topic) = (lasting(version, &name("handed")), name("handed/"));
        let mut first = resume(&options).0;
        first.subscribe(&topic, EXACTLY_ONCE);
        anybody(version).publish_acked(&topic, b"x");
        let before = first.recv();
        let mut second = resume(&options).0;
        let after = expect_payload(&mut second, "x");
        let (before, after) = (crate::suite::as_publish(&before), crate::suite::as_publish(&after));
        assert_eq!((before.packet_id, before.dup, after.dup), (after.packet_id, false, true));
        first.expect_disconnect(Reason::SESSION_TAKEN_OVER);
    }
}

/// [MQTT-3.1.3-2] [MQTT5-3.1.3-2]: a session is the client id's, whatever version the client speaks.
#[test]
fn a_session_may_be_resumed_in_another_version() {
    for (before, after) in [(Version::V311, Version::V5), (Version::V5, Version::V311), (Version::V31, Version::V311)] {
        let (id, topic) = (name("versions"), name("versions/"));
        let mut client = resume(&lasting(before, &id)).0;
        client.subscribe(&topic, AT_LEAST_ONCE);
        client.disconnect();
        anybody(before).publish_acked(&topic, b"kept");
        let (mut client, present) = resume(&lasting(after, &id));
        assert!(present, "{before:?} to {after:?}");
        expect_payload(&mut client, "kept");
    }
}

/// [MQTT-3.1.2-5]: QoS 0 may be kept as well, and is here.
#[test]
fn qos_0_messages_are_kept_for_a_session_that_is_away() {
    for version in STANDARD {
        let (options, topic) = (lasting(version, &name("zero")), name("zero/"));
        let mut client = resume(&options).0;
        client.subscribe(&topic, AT_MOST_ONCE);
        client.disconnect();
        let mut publisher = anybody(version);
        publisher.publish(&topic, b"zero", AT_MOST_ONCE, false);
        publisher.expect_silence();
        expect_payload(&mut resume(&options).0, "zero");
    }
}

/// [MQTT5-3.1.4-3] [MQTT-3.1.4-2]: many at once, and one of them has the id in the end.
#[test]
fn a_storm_of_takeovers_leaves_exactly_one_connection() {
    for version in ALL {
        let id = name("storm");
        let mut clients: Vec<Client> = Vec::new();
        std::thread::scope(|scope| {
            let handles: Vec<_> = (0..12)
                .map(|_| {
                    let options = ConnectOptions::new(version, &id);
                    scope.spawn(move || {
                        let mut client = Client::open(broker().tcp(), version);
                        client.send_bytes(&options.encode());
                        // Answered, accepted or not: the one that comes after all of them is the last.
                        client.try_recv();
                        client
                    })
                })
                .collect();
            clients.extend(handles.into_iter().map(|handle| handle.join().expect("connected")));
        });
        let mut last = join(version, &id);
        for client in &mut clients {
            // Accepted and then taken over, or refused because a later one was faster.
            while let Some(received) = client.try_recv() {
                let expected = matches!(received.packet(), Packet::ConnAck(_) | Packet::Disconnect(_));
                assert!(expected, "{received:?}");
            }
        }
        last.expect_silence();
    }
}

/// [MQTT5-3.1.2-23]: UINT_MAX never expires; here it is brought down to the server's maximum, and said so.
#[test]
fn an_expiry_of_uint_max_lasts_as_long_as_the_server_allows() {
    let mut options = ConnectOptions::new(Version::V5, &name("max"));
    options.clean = false;
    options.properties = block(|w| w.u32(PropertyId::SessionExpiryInterval, u32::MAX));
    let (client, received) = Client::connect_with(broker().tcp(), &options);
    let announced = crate::suite::connack_properties(&received).session_expiry_interval();
    assert_eq!(announced, Some(30 * 24 * 3600));
    client.disconnect();
    options.properties = block(|w| w.u32(PropertyId::SessionExpiryInterval, LASTING_S));
    assert!(resume(&options).1);
}

//! Chapters 3.8 and 3.9: SUBSCRIBE and SUBACK.

use crate::suite::{
    ALL, AT_LEAST_ONCE, AT_MOST_ONCE, EXACTLY_ONCE, QOS, STANDARD, anybody, as_publish, expect_payload, filter, frame,
    join_tenant, name, no_properties, subscribe_as, text,
};
use bifro_core::client::Version;
use bifro_mqtt::packet::{Packet, SubscribeFilter};
use bifro_mqtt::property::PropertyId;
use bifro_mqtt::reason::Reason;

/// [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-4] [MQTT-3.8.4-5] [MQTT-3.9.3-1] [MQTT-3.9.3-2] [MQTT-2.3.1-7]
/// [MQTT5-3.8.4-1] [MQTT5-3.8.4-2] [MQTT5-3.8.4-5] [MQTT5-3.8.4-6] [MQTT5-3.8.4-7] [MQTT5-3.9.3-1] [MQTT5-3.9.3-2]
/// [MQTT5-2.2.1-6]
#[test]
fn one_suback_tells_for_each_filter_in_order_what_was_granted() {
    for version in ALL {
        let mut client = anybody(version);
        let root = name("many/");
        let good: Vec<Vec<u8>> =
            [2, 0, 1].iter().map(|qos| [text(format!("{root}{qos}")), vec![*qos]].concat()).collect();
        let bad = [text(format!("{root}#/x")), vec![1]].concat();
        let body: [&[u8]; 6] = [&[1, 44], no_properties(version), &good[0], &bad, &good[1], &good[2]];
        client.send_bytes(&frame(0x82, &body));
        let received = client.recv();
        let Packet::SubAck(suback) = received.packet() else { panic!("not a SUBACK: {received:?}") };
        let failure = if version == Version::V5 { Reason::TOPIC_FILTER_INVALID.0 } else { 0x80 };
        assert_eq!((suback.packet_id.get(), suback.codes), (300, &[2, failure, 0, 1][..]), "{version:?}");
        for qos in QOS {
            client.publish(&format!("{root}{}", qos as u8), b"x", AT_MOST_ONCE, false);
            client.recv_publish();
        }
    }
}

/// [MQTT-3.8.3-4] [MQTT5-3.8.3-5] [MQTT-3.8.3-3] [MQTT5-3.8.3-2] [MQTT-4.8.0-1] [MQTT5-4.13.1-1]
#[test]
fn reserved_option_bits_and_a_missing_filter_close_the_connection() {
    let cases: [(Version, u8, Reason); 9] = [
        (Version::V31, 0x03, Reason::PROTOCOL_ERROR),
        (Version::V311, 0x03, Reason::PROTOCOL_ERROR),
        (Version::V311, 0x04, Reason::MALFORMED_PACKET),
        (Version::V311, 0x80, Reason::MALFORMED_PACKET),
        (Version::V5, 0x03, Reason::PROTOCOL_ERROR),
        (Version::V5, 0x30, Reason::PROTOCOL_ERROR),
        (Version::V5, 0x40, Reason::MALFORMED_PACKET),
        (Version::V5, 0x80, Reason::MALFORMED_PACKET),
        (Version::V5, 0xC1, Reason::MALFORMED_PACKET),
    ];
    for (version, options, reason) in cases {
        let mut client = anybody(version);
        client.send_bytes(&frame(0x82, &[&[0, 1], no_properties(version), &text("a"), &[options]]));
        client.expect_disconnect(reason);
    }
    for version in ALL {
        let mut client = anybody(version);
        client.send_bytes(&frame(0x82, &[&[0, 1], no_properties(version)]));
        client.expect_disconnect(Reason::PROTOCOL_ERROR);
    }
}

/// [MQTT5-3.8.3-4]
#[test]
fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    for shared in ["$share/g/a", "$oshare/g/a"] {
        let mut client = anybody(Version::V5);
        client.send_bytes(&frame(0x82, &[&[0, 1, 0], &text(shared), &[0x04]]));
        client.expect_disconnect(Reason::PROTOCOL_ERROR);
    }
}

/// [MQTT5-3.8.3-3]
#[test]
fn no_local_keeps_a_clients_own_messages_from_it() {
    let (mut one, mut two) = (anybody(Version::V5), anybody(Version::V5));
    let topic = name("local/");
    let options = SubscribeFilter { no_local: true, ..filter(&topic, AT_LEAST_ONCE) };
    one.subscribe_with(&[options], &[]);
    two.subscribe_with(&[options], &[]);
    for qos in QOS {
        one.publish(&topic, b"from one", qos, false);
        expect_payload(&mut two, "from one");
    }
    two.publish(&topic, b"from two", AT_MOST_ONCE, false);
    loop {
        let received = one.recv();
        if let Packet::Publish(publish) = received.packet() {
            assert_eq!(publish.payload, b"from two");
            break;
        }
    }
    two.expect_silence();
}

/// [MQTT5-3.8.3-3]: a client that subscribes twice, once with and once without, gets what the one without matches.
#[test]
fn no_local_is_a_matter_of_each_subscription() {
    let mut client = anybody(Version::V5);
    let root = name("local");
    let all = format!("{root}/#");
    let with = SubscribeFilter { no_local: true, ..filter(&all, AT_MOST_ONCE) };
    client.subscribe_with(&[with], &[]);
    client.subscribe(&format!("{root}/a"), AT_MOST_ONCE);
    client.publish(&format!("{root}/b"), b"hidden", AT_MOST_ONCE, false);
    client.publish(&format!("{root}/a"), b"seen", AT_MOST_ONCE, false);
    expect_payload(&mut client, "seen");
    client.expect_silence();
}

/// [MQTT-3.8.4-3] [MQTT5-3.8.4-3] [MQTT5-3.8.4-4] [MQTT5-3.3.1-9]
#[test]
fn a_filter_subscribed_again_replaces_the_subscription_and_sends_retained_messages_again() {
    for version in ALL {
        let mut client = anybody(version);
        let topic = name("replaced/");
        anybody(version).publish_acked(&topic, b"unheard");
        let mut publisher = anybody(version);
        publisher.publish(&topic, b"kept", AT_LEAST_ONCE, true);
        publisher.recv();
        for qos in [EXACTLY_ONCE, AT_MOST_ONCE, AT_LEAST_ONCE] {
            assert_eq!(client.subscribe(&topic, qos), qos as u8);
            let received = expect_payload(&mut client, "kept");
            assert!(as_publish(&received).retain);
            publisher.publish_exactly_once(&topic, b"live");
            let received = expect_payload(&mut client, "live");
            assert_eq!(as_publish(&received).qos, qos, "the options of the last SUBSCRIBE hold");
            client.expect_silence();
        }
    }
}

/// [MQTT-3.8.4-3] [MQTT5-3.8.4-4]: publications are not interrupted.
#[test]
fn replacing_a_subscription_loses_nothing() {
    for version in ALL {
        let (mut client, mut publisher) = (anybody(version), anybody(version));
        let topic = name("steady/");
        client.subscribe(&topic, AT_MOST_ONCE);
        let writer = std::thread::spawn({
            let topic = topic.clone();
            move || {
                for sequence in 0..300_u32 {
                    publisher.publish(&topic, &sequence.to_be_bytes(), AT_MOST_ONCE, false);
                }
                publisher.expect_silence();
            }
        });
        let options =
            SubscribeFilter { retain_handling: 2 * u8::from(version == Version::V5), ..filter(&topic, AT_MOST_ONCE) };
        let (mut expected, mut subacks) = (0_u32, 0);
        let mut scratch = Vec::new();
        while expected < 300 || subacks < 20 {
            if subacks < 20 {
                let filters = bifro_mqtt::packet::SubscribeFilters::encode([options], &mut scratch);
                let (packet_id, properties) = (client.packet_id(), Default::default());
                client.send(&Packet::Subscribe(bifro_mqtt::packet::Subscribe { packet_id, properties, filters }));
            }
            loop {
                match client.recv().packet() {
                    Packet::Publish(publish) => {
                        assert_eq!(publish.payload, expected.to_be_bytes(), "{version:?}");
                        expected += 1;
                        if expected == 300 {
                            break;
                        }
                    }
                    Packet::SubAck(_) => {
                        subacks += 1;
                        break;
                    }
                    other => panic!("unexpected: {other:?}"),
                }
            }
        }
        writer.join().expect("the publisher is done");
    }
}

/// [MQTT-3.8.3-2] [MQTT5-3.9.3-2]
#[test]
fn what_is_switched_off_is_refused_filter_by_filter() {
    for version in ALL {
        let (mut client, _) = join_tenant("plain", version);
        let filters = [
            filter("a/b", AT_LEAST_ONCE),
            filter("a/+", AT_LEAST_ONCE),
            filter("#", AT_LEAST_ONCE),
            filter("$share/g/a", AT_LEAST_ONCE),
        ];
        let expected: &[u8] = if version == Version::V5 { &[1, 0xA2, 0xA2, 0x9E] } else { &[1, 0x80, 0x80, 0x80] };
        assert_eq!(client.subscribe_with(&filters, &[]), expected);
    }
    let (mut client, _) = join_tenant("plain", Version::V5);
    let properties = crate::suite::block(|w| w.varint(PropertyId::SubscriptionIdentifier, 1));
    assert_eq!(client.subscribe_with(&[filter("a", AT_MOST_ONCE)], &properties), [0xA1]);
}

/// [MQTT-3.3.1-9] [MQTT5-3.3.1-12] [MQTT5-3.3.1-13]
#[test]
fn retain_as_published_is_a_matter_of_each_subscription() {
    let (mut plain, mut as_published) = (anybody(Version::V5), anybody(Version::V5));
    let mut older = anybody(Version::V311);
    let topic = name("rap/");
    plain.subscribe(&topic, AT_MOST_ONCE);
    older.subscribe(&topic, AT_MOST_ONCE);
    let options = SubscribeFilter { retain_as_published: true, ..filter(&topic, AT_MOST_ONCE) };
    as_published.subscribe_with(&[options], &[]);
    let mut publisher = anybody(Version::V5);
    for retain in [true, false] {
        publisher.publish(&topic, b"x", AT_MOST_ONCE, retain);
        assert!(!as_publish(&plain.recv()).retain);
        assert!(!as_publish(&older.recv()).retain);
        assert_eq!(as_publish(&as_published.recv()).retain, retain);
    }
}

/// [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11] [MQTT-3.3.1-6] [MQTT-3.3.1-8]
#[test]
fn retain_handling_decides_whether_retained_messages_are_sent() {
    let topic = name("handling/");
    anybody(Version::V5).publish_with(&topic, b"kept", AT_LEAST_ONCE, true, &[]);
    let mut client = anybody(Version::V5);
    // Waits until the retained message is there.
    loop {
        client.subscribe(&topic, AT_MOST_ONCE);
        if client.recv_within(std::time::Duration::from_millis(20)).is_some() {
            break;
        }
    }
    client.unsubscribe(&topic);
    for (handling, exists, sent) in
        [(1, false, true), (1, true, false), (0, true, true), (2, true, false), (0, true, true)]
    {
        assert!(!client.unsubscribe(&name("other/")).is_empty());
        let options = SubscribeFilter { retain_handling: handling, ..filter(&topic, AT_MOST_ONCE) };
        client.subscribe_with(&[options], &[]);
        if sent {
            assert!(as_publish(&expect_payload(&mut client, "kept")).retain);
        }
        client.expect_silence();
        assert!(exists || handling == 1);
    }
    client.unsubscribe(&topic);
    client.subscribe_with(&[SubscribeFilter { retain_handling: 2, ..filter(&topic, AT_MOST_ONCE) }], &[]);
    client.expect_silence();
}

/// [MQTT-3.8.4-5] [MQTT5-3.8.4-7] [MQTT5-3.9.3-2]
#[test]
fn what_a_client_may_not_read_is_refused_in_suback() {
    for version in ALL {
        let options = crate::suite::with_claims("one", version, r#""acl":{"sub":["open/#"]}"#);
        let (mut client, _) = bifro_tests::Client::connect_with(crate::suite::token_listener(), &options);
        let refused = if version == Version::V5 { 0x87 } else { 0x80 };
        let filters = [filter("closed", AT_LEAST_ONCE), filter("open/a", AT_LEAST_ONCE)];
        assert_eq!(client.subscribe_with(&filters, &[]), [refused, 1]);
    }
}

/// [MQTT-3.8.4-5] [MQTT5-3.8.4-7] [MQTT5-3.9.3-2]
#[test]
fn filters_above_the_limits_are_refused_in_suback() {
    for version in STANDARD {
        let (mut client, _) = join_tenant("small", version);
        let code = |reason: Reason| if version == Version::V5 { reason.0 } else { 0x80 };
        let long = "x".repeat(65);
        let filters = [filter(&long, AT_MOST_ONCE), filter("a/b/c/d/e", AT_MOST_ONCE), filter("a/b/c/d", AT_MOST_ONCE)];
        let invalid = code(Reason::TOPIC_FILTER_INVALID);
        assert_eq!(client.subscribe_with(&filters, &[]), [invalid, invalid, 0]);
        let many: Vec<String> = (0..5).map(|index| format!("n/{index}")).collect();
        let many: Vec<_> = many.iter().map(|pattern| filter(pattern, AT_MOST_ONCE)).collect();
        let exceeded = code(Reason::QUOTA_EXCEEDED);
        assert_eq!(client.subscribe_with(&many, &[]), [exceeded; 5], "five filters in one packet");
        assert_eq!(client.subscribe_with(&many[..4], &[]), [0; 4]);
        assert_eq!(client.subscribe_with(&many[4..], &[]), [exceeded], "the sixth subscription");
        assert_eq!(client.subscribe_with(&many[..1], &[]), [0], "replacing one is not another");
    }
}

/// [MQTT5-3.8.4-3] [MQTT5-3.3.4-3]
#[test]
fn the_identifier_of_the_last_subscribe_holds() {
    let mut client = anybody(Version::V5);
    let topic = name("identifier/");
    for identifier in [1, 127, 128, 16_384, 268_435_455] {
        subscribe_as(&mut client, &topic, AT_MOST_ONCE, identifier);
        client.publish(&topic, b"x", AT_MOST_ONCE, false);
        let received = client.recv();
        let ids: Vec<u32> = as_publish(&received).properties.all.subscription_ids().map(|id| id.get()).collect();
        assert_eq!(ids, [identifier]);
    }
}

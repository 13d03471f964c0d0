//! Rows 7, 15, 20 and 27: topics that are none, that are too much, or that an alias stands for.

use crate::arena::{Arena, MIB, VERSIONS, expect_refused};
use crate::raw::{field, packet, publish, subscribe, text_property, unsubscribe, user_property};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::reason::Reason;
use bifro_tests::{Client, ConnectOptions};
use std::time::{Duration, Instant};

/// [MQTT-4.7.3-1] [MQTT-3.3.2-2] [MQTT5-4.7.3-1] [MQTT5-3.3.2-2]
#[test]
fn row_07_a_topic_that_is_empty_or_has_a_wildcard_ends_the_connection() {
    let mut arena = Arena::new();
    let mut witness = arena.client(Version::V5, "witness");
    assert_eq!(witness.subscribe("row07/#", QoS::AtMostOnce), 0);
    for version in VERSIONS {
        let topics: [(&[u8], Reason); 5] = [
            (b"", Reason::PROTOCOL_ERROR),
            (b"#", Reason::TOPIC_NAME_INVALID),
            (b"row07/+", Reason::TOPIC_NAME_INVALID),
            (b"row07/a#", Reason::TOPIC_NAME_INVALID),
            (b"row07/+/b", Reason::TOPIC_NAME_INVALID),
        ];
        for (topic, reason) in topics {
            for first in [0x30, 0x32, 0x34, 0x31] {
                let id: &[u8] = if first & 6 == 0 { &[] } else { &[0, 9] };
                let mut client = arena.client(version, "offender");
                client.send_bytes(&packet(first, &[&field(topic), id, &crate::raw::block(version, &[]), b"payload"]));
                client.expect_disconnect(reason);
            }
        }
    }
    witness.expect_silence();
    arena.check();
    arena.finish(16 * MIB);
}

/// [MQTT-4.7.1-1] [MQTT5-4.7.0-1]
#[test]
fn row_07_a_will_topic_that_is_empty_or_has_a_wildcard_is_refused() {
    let mut arena = Arena::new();
    for version in VERSIONS {
        for topic in ["", "#", "a/+", "a/b#"] {
            let mut options = ConnectOptions::new(version, "offender");
            options.will = Some((topic.into(), b"will".to_vec(), QoS::AtMostOnce, false, Vec::new()));
            let mut client = Client::open(arena.tcp(), version);
            client.send_bytes(&options.encode());
            expect_refused(&mut client, Some(Reason::TOPIC_NAME_INVALID));
        }
    }
    arena.check();
    arena.finish(16 * MIB);
}

/// [MQTT-4.7.2-1] [MQTT5-4.7.2-1]
#[test]
fn row_07_a_topic_that_starts_with_a_dollar_is_hidden_from_leading_wildcards() {
    let mut arena = Arena::new();
    for version in VERSIONS {
        let mut witness = arena.client(version, "witness");
        witness.send_bytes(&subscribe(version, &[], &[(b"#", 0), (b"+/row07", 0), (b"+/+", 0)]));
        let mut client = arena.client(version, "offender");
        for topic in ["$SYS/row07", "$/row07", "$share/row07", "$queue/row07"] {
            client.publish(topic, b"control", QoS::AtMostOnce, false);
            client.publish_exactly_once(topic, b"control");
        }
        client.publish("last/row07", b"data", QoS::AtMostOnce, false);
        // The bystander's messages reach it too, before or after SUBACK.
        loop {
            let received = witness.recv();
            let Packet::Publish(publish) = received.packet() else { continue };
            assert!(!publish.topic.starts_with('$'), "{received:?}");
            if publish.topic == "last/row07" {
                break;
            }
        }
    }
    arena.check();
    arena.finish(16 * MIB);
}

/// [MQTT5-3.3.2-8] [MQTT5-3.3.2-9] [MQTT5-3.3.2-10]
#[test]
fn row_15_an_alias_that_is_zero_too_high_or_unknown_ends_the_connection() {
    let mut arena = Arena::new();
    let v5 = Version::V5;
    let alias = |alias: u16| [&[35][..], &alias.to_be_bytes()].concat();
    let cases: [(&[u8], u16, Reason); 7] = [
        (b"row15", 0, Reason::TOPIC_ALIAS_INVALID),
        (b"", 0, Reason::TOPIC_ALIAS_INVALID),
        (b"row15", 11, Reason::TOPIC_ALIAS_INVALID),
        (b"row15", u16::MAX, Reason::TOPIC_ALIAS_INVALID),
        (b"", 11, Reason::TOPIC_ALIAS_INVALID),
        (b"", 1, Reason::PROTOCOL_ERROR),
        (b"", 10, Reason::PROTOCOL_ERROR),
    ];
    for (topic, number, reason) in cases {
        let mut client = arena.client(v5, "offender");
        client.send_bytes(&publish(v5, topic, &alias(number), b""));
        client.expect_disconnect(reason);
    }
    // A topic that was refused sets no alias, and no alias outlives its connection, even if the session does.
    let mut options = ConnectOptions::new(v5, "keeper");
    options.clean = false;
    options.properties = [17, 0, 0, 0, 60].to_vec();
    let (mut keeper, _) = Client::connect_with(arena.tcp(), &options);
    assert_eq!(keeper.subscribe("row15/#", QoS::AtMostOnce), 0);
    keeper.send_bytes(&publish(v5, b"row15/alias", &alias(3), b"sets"));
    keeper.send_bytes(&publish(v5, b"", &alias(3), b"uses"));
    for payload in [b"sets", b"uses"] {
        let received = keeper.recv_publish();
        assert!(
            matches!(received.packet(), Packet::Publish(publish) if publish.topic == "row15/alias" && publish.payload == payload),
            "{received:?}"
        );
    }
    drop(keeper);
    let (mut keeper, connack) = Client::connect_with(arena.tcp(), &options);
    assert!(matches!(connack.packet(), Packet::ConnAck(ack) if ack.session_present));
    keeper.send_bytes(&publish(v5, b"", &alias(3), b"kept?"));
    keeper.expect_disconnect(Reason::PROTOCOL_ERROR);
    arena.check();
    arena.finish(16 * MIB);
}

/// [MQTT5-3.3.2-14]
#[test]
fn row_20_a_response_topic_with_a_wildcard_is_a_protocol_error() {
    let mut arena = Arena::new();
    for topic in [&b"#"[..], b"answers/+", b"a/b#", b""] {
        let mut client = arena.client(Version::V5, "offender");
        client.send_bytes(&publish(Version::V5, b"row20", &text_property(8, topic), b""));
        client.expect_disconnect(Reason::PROTOCOL_ERROR);
    }
    let mut client = Client::open(arena.tcp(), Version::V5);
    let mut options = ConnectOptions::new(Version::V5, "offender");
    options.will = Some(("row20".into(), vec![], QoS::AtMostOnce, false, text_property(8, b"answers/#")));
    client.send_bytes(&options.encode());
    expect_refused(&mut client, Some(Reason::PROTOCOL_ERROR));
    arena.check();
    arena.finish(16 * MIB);
}

/// [MQTT5-3.1.2-24] [MQTT5-3.1.2-25]
#[test]
fn row_20_oversized_user_properties_go_to_those_who_can_take_them_and_no_further_than_the_limit() {
    let mut arena = Arena::new();
    let v5 = Version::V5;
    let mut large = arena.client(v5, "large");
    assert_eq!(large.subscribe("row20/#", QoS::AtLeastOnce), 1);
    let mut options = ConnectOptions::new(v5, "small");
    options.properties = [39, 0, 0, 4, 0].to_vec();
    let (mut small, _) = Client::connect_with(arena.tcp(), &options);
    assert_eq!(small.subscribe("row20/#", QoS::AtLeastOnce), 1);
    let properties = user_property(&vec![b'n'; 65_535], &vec![b'v'; 65_535]);
    let mut client = arena.client(v5, "publisher");
    client.publish_with("row20/wide", b"x", QoS::AtMostOnce, false, &properties);
    client.publish("row20/narrow", b"x", QoS::AtMostOnce, false);
    let received = large.recv_publish();
    let Packet::Publish(publish) = received.packet() else { unreachable!("recv_publish has looked") };
    assert_eq!(publish.properties.all.raw(), properties);
    large.recv_publish();
    let received = small.recv_publish();
    assert!(matches!(received.packet(), Packet::Publish(publish) if publish.topic == "row20/narrow"), "{received:?}");
    small.expect_silence();
    arena.broker.wait_for_metric("bifro_dropped_oversize_total", |dropped| dropped >= 1.0);
    // Ten of them are more than Maximum Packet Size.
    client.publish_with("row20/wide", b"x", QoS::AtMostOnce, false, &properties.repeat(10));
    client.expect_disconnect(Reason::PACKET_TOO_LARGE);
    let mut options = ConnectOptions::new(v5, "offender");
    options.properties = properties;
    let mut client = Client::open(arena.tcp(), v5);
    client.send_bytes(&options.encode());
    client.expect_closed();
    large.expect_silence();
    arena.check();
    arena.finish(24 * MIB);
}

#[test]
fn row_20_a_subscribe_with_64k_filters_is_refused_filter_by_filter() {
    let mut arena = Arena::new();
    let filters: Vec<(&[u8], u8)> = vec![(b"f", 0); 65_535];
    let bare: Vec<&[u8]> = vec![b"f"; 65_535];
    for version in VERSIONS {
        let refused = if version == Version::V5 { Reason::QUOTA_EXCEEDED.0 } else { 0x80 };
        let mut client = arena.client(version, "offender");
        client.send_bytes(&subscribe(version, &[], &filters));
        let received = client.recv();
        let Packet::SubAck(ack) = received.packet() else { panic!("not a SUBACK") };
        assert!(ack.codes.len() == 65_535 && ack.codes.iter().all(|code| *code == refused), "{}", ack.codes[0]);
        client.send_bytes(&unsubscribe(version, &[], &bare));
        let received = client.recv();
        assert!(matches!(received.packet(), Packet::UnsubAck(_)));
        client.expect_silence();
        arena.check();
    }
    let mut client = arena.client(Version::V5, "publisher");
    assert_eq!(client.publish_acked("f", b""), Reason::NO_MATCHING_SUBSCRIBERS);
    arena.finish(32 * MIB);
}

#[test]
fn row_20_where_64k_filters_are_allowed_they_come_and_go_with_their_session() {
    let limits = "[tenant_defaults]\nfilters_per_packet_max = 65535\nsubscriptions_per_session_max = 100000\n";
    let mut arena = Arena::with(limits);
    let names: Vec<String> = (0..40_000).map(|n| format!("{n:x}")).collect();
    let filters: Vec<(&[u8], u8)> = names.iter().map(|name| (name.as_bytes(), 0)).collect();
    for version in [Version::V311, Version::V5] {
        let mut client = arena.client(version, "greedy");
        client.send_bytes(&subscribe(version, &[], &filters));
        let received = client.recv();
        let Packet::SubAck(ack) = received.packet() else { panic!("not a SUBACK") };
        assert!(ack.codes.len() == names.len() && ack.codes.iter().all(|code| *code == 0));
        arena.check();
        drop(client);
        arena.broker.wait_for_metric("bifro_subscriptions", |held| held <= 1.0);
    }
    arena.check();
    arena.finish(160 * MIB);
}

#[test]
fn row_27_a_topic_of_65535_bytes_is_carried_and_one_of_too_many_levels_is_refused() {
    let mut arena = Arena::new();
    let long = "x".repeat(65_535);
    let deep = "/".repeat(65_535);
    for version in VERSIONS {
        let mut client = arena.client(version, "offender");
        assert_eq!(client.subscribe(&long, QoS::AtLeastOnce), 1);
        client.publish(&long, b"long", QoS::AtMostOnce, true);
        let received = client.recv_publish();
        assert!(matches!(received.packet(), Packet::Publish(publish) if publish.topic == long));
        client.publish(&long, b"", QoS::AtMostOnce, true);
        client.recv_publish();
        let refused = if version == Version::V5 { Reason::TOPIC_FILTER_INVALID.0 } else { 0x80 };
        assert_eq!(client.subscribe(&deep, QoS::AtMostOnce), refused);
        assert_eq!(client.subscribe(&vec!["+"; 32_768].join("/"), QoS::AtMostOnce), refused);
        client.publish(&deep, b"deep", QoS::AtMostOnce, false);
        client.expect_disconnect(Reason::TOPIC_NAME_INVALID);
    }
    arena.check();
    arena.finish(24 * MIB);
}

/// How long `count` publishes with QoS 1 to topics that nobody has used before take.
fn time_of(client: &mut Client, count: u32, topic: impl Fn(u32) -> String) -> Duration {
    let start = Instant::now();
    for number in 0..count {
        assert!(!client.publish_acked(&topic(number), b"").is_error());
    }
    start.elapsed()
}

#[test]
fn row_27_many_plus_signs_do_not_make_matching_explode() {
    let limits = "[tenant_defaults]\ntopic_levels_max = 1024\nsubscriptions_per_session_max = 100000\n";
    let mut arena = Arena::with(limits);
    let mut subscriber = arena.client(Version::V5, "subscriber");
    // Every mix of `+` and `a` over nine levels, behind a level of its own, and filters of up to 1,024 levels.
    for mix in 0..512_u32 {
        let levels: Vec<&str> = (0..9).map(|bit| if mix >> bit & 1 == 1 { "+" } else { "a" }).collect();
        assert_eq!(subscriber.subscribe(&format!("row27/{}/never", levels.join("/")), QoS::AtMostOnce), 0);
    }
    for depth in (64..1024).step_by(64) {
        assert_eq!(
            subscriber.subscribe(&format!("row27/{}/never", vec!["+"; depth - 2].join("/")), QoS::AtMostOnce),
            0
        );
        assert_eq!(
            subscriber.subscribe(&format!("row27/{}/never/#", vec!["a/+"; depth / 2 - 2].join("/")), QoS::AtMostOnce),
            0
        );
    }
    let mut publisher = arena.client(Version::V5, "publisher");
    let count = 60;
    let plain = time_of(&mut publisher, count, |n| format!("plain/{n}"));
    let mixed = time_of(&mut publisher, count, |n| format!("row27/{}{n}", "a/".repeat(9)));
    let deep = time_of(&mut publisher, count, |n| format!("row27/{}{n}", "a/".repeat(1022)));
    // The index has 2,000 nodes or so on the way: a thousand times a plain publish would be an explosion already.
    let allowed = plain * 200 + Duration::from_millis(500);
    assert!(mixed < allowed && deep < allowed, "plain {plain:?}, mixed {mixed:?}, deep {deep:?}");
    subscriber.expect_silence();
    arena.check();
    arena.finish(64 * MIB);
}

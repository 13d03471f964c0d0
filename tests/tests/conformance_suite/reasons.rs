//! Every reason code this server sends, and how to provoke it: by packet, in the order of the codes. Those that are shown
//! elsewhere name their test.

use crate::suite::{
    AT_LEAST_ONCE, AT_MOST_ONCE, EXACTLY_ONCE, answer_to, anybody, as_ack, block, broken_listener, broker,
    connack_properties, expect_refused, expect_taken, filter, frame, id, join_tenant, name, of_tenant, publish_as,
    text, token_listener, with_claims,
};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::property::PropertyId;
use bifro_mqtt::reason::Reason;
use bifro_tests::client::AckKind;
use bifro_tests::{Broker, Client, ConnectOptions};
use std::net::SocketAddr;

/// A will, where one is what provokes the code.
fn willing(
    mut options: ConnectOptions,
    topic: &str,
    payload: &[u8],
    qos: QoS,
    retain: bool,
    properties: &[u8],
) -> ConnectOptions {
    options.will = Some((topic.into(), payload.to_vec(), qos, retain, properties.to_vec()));
    options
}

fn anonymous(properties: &[u8]) -> ConnectOptions {
    let mut options = ConnectOptions::new(Version::V5, &name("r"));
    options.properties = properties.to_vec();
    options
}

/// [MQTT5-3.2.2-8] [MQTT5-3.2.2-7] [MQTT5-3.2.2-6] [MQTT5-4.13.2-1]; 0x84 for a level and 0x8C are in `connect` and `auth`.
#[test]
fn connack_says_why() {
    let of = |tenant: &str| of_tenant(tenant, Version::V5);
    let (anybody, tokens) = (broker().tcp(), token_listener());
    let utf8 = block(|w| w.byte(PropertyId::PayloadFormatIndicator, 1));
    let response = block(|w| w.str(PropertyId::ResponseTopic, "a/#"));
    let mut wrong = of("one");
    wrong.credentials = Some(("tester".into(), "a.b.c".into()));
    let mut long_id = of("small");
    long_id.client_id = "x".repeat(31);
    let denied = with_claims("one", Version::V5, r#""acl":{"pub":[]}"#);
    let mut unknown = anonymous(&[]);
    unknown.credentials = Some(("user".into(), "secret".into()));
    let cases: [(SocketAddr, ConnectOptions, Reason); 15] = [
        (anybody, anonymous(&[0x7E, 0]), Reason::MALFORMED_PACKET),
        (anybody, anonymous(&[33, 0, 1, 33, 0, 1]), Reason::PROTOCOL_ERROR),
        (anybody, willing(anonymous(&[]), "t", b"x", AT_MOST_ONCE, false, &response), Reason::PROTOCOL_ERROR),
        (tokens, of("unversioned"), Reason::UNSUPPORTED_PROTOCOL_VERSION),
        (tokens, long_id, Reason::CLIENT_IDENTIFIER_NOT_VALID),
        (tokens, wrong, Reason::BAD_USER_NAME_OR_PASSWORD),
        (tokens, willing(denied, "t", b"x", AT_MOST_ONCE, false, &[]), Reason::NOT_AUTHORIZED),
        (broken_listener(), unknown, Reason::SERVER_UNAVAILABLE),
        (anybody, willing(anonymous(&[]), "t/#", b"x", AT_MOST_ONCE, false, &[]), Reason::TOPIC_NAME_INVALID),
        (tokens, willing(of("small"), "a/b/c/d/e", b"x", AT_MOST_ONCE, false, &[]), Reason::TOPIC_NAME_INVALID),
        (tokens, willing(of("small"), "t", &[0; 65], AT_MOST_ONCE, false, &[]), Reason::PACKET_TOO_LARGE),
        (anybody, willing(anonymous(&[]), "t", &[0xFF], AT_MOST_ONCE, false, &utf8), Reason::PAYLOAD_FORMAT_INVALID),
        (tokens, willing(of("unretained"), "t", b"x", AT_MOST_ONCE, true, &[]), Reason::RETAIN_NOT_SUPPORTED),
        (tokens, willing(of("qos1"), "t", b"x", EXACTLY_ONCE, false, &[]), Reason::QOS_NOT_SUPPORTED),
        (tokens, willing(of("qos0"), "t", b"x", AT_LEAST_ONCE, false, &[]), Reason::QOS_NOT_SUPPORTED),
    ];
    for (address, options, reason) in cases {
        let refusal = expect_refused(address, &options, reason);
        let malformed = matches!(reason, Reason::MALFORMED_PACKET) || options.properties.len() == 6;
        assert!(malformed || connack_properties(&refusal).reason_string().is_some(), "{reason} has a sentence");
    }
}

/// [MQTT-3.1.2-2] [MQTT-3.2.2-4] [MQTT-3.2.2-5]: the return codes of 3.x, which are fewer.
#[test]
fn return_codes_of_3_x_say_what_they_can() {
    for version in [Version::V31, Version::V311] {
        let of = |tenant: &str| of_tenant(tenant, version);
        let mut wrong = of("one");
        wrong.credentials = Some(("tester".into(), "a.b.c".into()));
        let mut long_id = of("small");
        long_id.client_id = "x".repeat(31);
        let mut unknown = ConnectOptions::new(version, &name("r"));
        unknown.credentials = Some(("user".into(), "secret".into()));
        let denied = with_claims("one", version, r#""acl":{"pub":[]}"#);
        for (address, options, code) in [
            (token_listener(), of("unversioned"), 1),
            (token_listener(), long_id, 2),
            (broken_listener(), unknown, 3),
            (token_listener(), wrong, 4),
            (token_listener(), willing(denied, "t", b"x", AT_MOST_ONCE, false, &[]), 5),
        ] {
            let (mut client, received) = answer_to(address, &options);
            assert_eq!(received.bytes(), [0x20, 2, 0, code], "{version:?}");
            client.expect_closed();
        }
    }
}

/// [MQTT5-3.2.2-8]: what a tenant has run out of.
#[test]
fn connack_says_which_quota_is_used_up() {
    let (_first, _) = join_tenant("lonely", Version::V5);
    expect_refused(token_listener(), &of_tenant("lonely", Version::V5), Reason::QUOTA_EXCEEDED);
    let lasting = |id: &str| {
        let mut options = of_tenant("forgetful", Version::V5);
        options.client_id = id.into();
        options.properties = block(|w| w.u32(PropertyId::SessionExpiryInterval, 600));
        options
    };
    Client::connect_with(token_listener(), &lasting("first")).0.expect_silence();
    expect_refused(token_listener(), &lasting("second"), Reason::QUOTA_EXCEEDED);
    let mut refused = 0;
    for _ in 0..3 {
        let (_client, received) = answer_to(token_listener(), &of_tenant("rare", Version::V5));
        let Packet::ConnAck(connack) = received.packet() else { unreachable!("answer_to has checked it") };
        assert!([Reason::SUCCESS, Reason::CONNECTION_RATE_EXCEEDED].contains(&connack.reason), "{received:?}");
        refused += u32::from(connack.reason != Reason::SUCCESS);
    }
    assert!(refused > 0, "three in less than two seconds");
}

/// [MQTT5-3.4.2-1] [MQTT5-3.5.2-1] [MQTT5-3.6.2-1] [MQTT5-3.7.2-1]; 0x83 needs a service that does not answer, and is shown
/// by the session's own tests.
#[test]
fn acknowledgements_say_how_it_went() {
    let utf8 = block(|w| w.byte(PropertyId::PayloadFormatIndicator, 1));
    let (topic, mut listener) = (name("acks/"), anybody(Version::V5));
    listener.subscribe(&topic, AT_MOST_ONCE);
    let mut client = anybody(Version::V5);
    let options = with_claims("thrifty", Version::V5, r#""acl":{"pub":["free"]}"#);
    let (mut bound, _) = Client::connect_with(token_listener(), &options);
    for (qos, kind) in [(AT_LEAST_ONCE, "PUBACK"), (EXACTLY_ONCE, "PUBREC")] {
        let answer = |client: &mut Client, topic: &str, payload: &[u8], properties: &[u8]| {
            let sent = client.publish_with(topic, payload, qos, false, properties).expect("an id").get();
            let received = client.recv();
            let (found, number, reason) = as_ack(&received);
            assert_eq!((found, number), (kind, sent));
            if kind == "PUBREC" && !reason.is_error() {
                client.ack(AckKind::PubRel, id(sent));
                assert_eq!(as_ack(&client.recv()), ("PUBCOMP", sent, Reason::SUCCESS));
            }
            reason
        };
        assert_eq!(answer(&mut client, &topic, b"x", &[]), Reason::SUCCESS);
        assert_eq!(answer(&mut client, "nobody/listens", b"x", &[]), Reason::NO_MATCHING_SUBSCRIBERS);
        assert_eq!(answer(&mut client, &topic, &[0xFF], &utf8), Reason::PAYLOAD_FORMAT_INVALID);
        assert_eq!(answer(&mut bound, "closed", b"x", &[]), Reason::NOT_AUTHORIZED);
        assert_eq!(answer(&mut bound, "free", &[b'x'; 65], &[]), Reason::QUOTA_EXCEEDED);
    }
    publish_as(&mut client, "any", b"x", EXACTLY_ONCE, 500, false);
    expect_taken(&mut client, "PUBREC", 500);
    publish_as(&mut client, "any", b"x", AT_LEAST_ONCE, 500, false);
    assert_eq!(as_ack(&client.recv()), ("PUBACK", 500, Reason::PACKET_IDENTIFIER_IN_USE));
    client.ack(AckKind::PubRec, id(600));
    assert_eq!(as_ack(&client.recv()), ("PUBREL", 600, Reason::PACKET_IDENTIFIER_NOT_FOUND));
    client.ack(AckKind::PubRel, id(700));
    assert_eq!(as_ack(&client.recv()), ("PUBCOMP", 700, Reason::PACKET_IDENTIFIER_NOT_FOUND));
}

/// [MQTT5-3.9.3-2] [MQTT5-3.11.3-2]
#[test]
fn suback_and_unsuback_say_how_it_went() {
    let (mut small, _) = join_tenant("small", Version::V5);
    let wanted = [
        filter("a", AT_MOST_ONCE),
        filter("b", AT_LEAST_ONCE),
        filter("c", EXACTLY_ONCE),
        filter("a/#/b", AT_MOST_ONCE),
    ];
    assert_eq!(small.subscribe_with(&wanted, &[]), [0, 1, 2, 0x8F]);
    let five: Vec<_> = ["1", "2", "3", "4", "5"].iter().map(|pattern| filter(pattern, AT_MOST_ONCE)).collect();
    assert_eq!(small.subscribe_with(&five, &[]), [0x97; 5]);
    assert_eq!(small.unsubscribe("a"), [0]);
    assert_eq!(small.unsubscribe("a"), [0x11]);
    let (mut plain, _) = join_tenant("plain", Version::V5);
    assert_eq!(plain.subscribe("$share/g/a", AT_MOST_ONCE), 0x9E);
    assert_eq!(plain.subscribe("a/+", AT_MOST_ONCE), 0xA2);
    let identifier = block(|w| w.varint(PropertyId::SubscriptionIdentifier, 1));
    assert_eq!(plain.subscribe_with(&[filter("a", AT_MOST_ONCE)], &identifier), [0xA1]);
    let options = with_claims("one", Version::V5, r#""acl":{"sub":["open"]}"#);
    let (mut bound, _) = Client::connect_with(token_listener(), &options);
    assert_eq!(bound.subscribe("closed", AT_MOST_ONCE), 0x87);
    let (mut thrifty, _) = join_tenant("thrifty", Version::V5);
    thrifty.send_bytes(&frame(0xA2, &[&[0, 1, 0], &text("a"), &text("b"), &text("c")]));
    let received = thrifty.recv();
    let Packet::UnsubAck(unsuback) = received.packet() else { panic!("not an UNSUBACK: {received:?}") };
    assert!(unsuback.codes.contains(&0x83) && unsuback.codes.iter().all(|code| [0x11, 0x83].contains(code)));
}

/// [MQTT5-3.14.2-1] [MQTT5-3.14.4-2] [MQTT5-4.13.2-1]; 0x87 and 0x8C are in `auth`, 0x8D in `ping`, 0x8E in `connect`.
#[test]
fn disconnect_says_why() {
    type Provocation = (&'static str, Vec<u8>, Reason);
    let (one, small, utf8) = ([0, 1], vec![b'x'; 1_025], [2, 1, 1]);
    let cases: [Provocation; 11] = [
        ("four", vec![0xC1, 0], Reason::MALFORMED_PACKET),
        ("four", vec![0xD0, 0], Reason::PROTOCOL_ERROR),
        ("small", frame(0x30, &[&text("a/b/c/d/e"), &[0], b"x"]), Reason::TOPIC_NAME_INVALID),
        ("four", frame(0x30, &[&text("a/+"), &[0], b"x"]), Reason::TOPIC_NAME_INVALID),
        ("four", frame(0x30, &[&text("a"), &[3, 35, 0, 3], b"x"]), Reason::TOPIC_ALIAS_INVALID),
        ("small", frame(0x30, &[&text("a"), &[0], &small]), Reason::PACKET_TOO_LARGE),
        ("slow", frame(0x30, &[&text("a"), &[0], b"x"]).repeat(40), Reason::MESSAGE_RATE_TOO_HIGH),
        ("four", frame(0x30, &[&text("a"), &utf8, &[0xFF]]), Reason::PAYLOAD_FORMAT_INVALID),
        ("unretained", frame(0x31, &[&text("a"), &[0], b"x"]), Reason::RETAIN_NOT_SUPPORTED),
        ("qos1", frame(0x34, &[&text("a"), &one, &[0], b"x"]), Reason::QOS_NOT_SUPPORTED),
        (
            "one",
            [1, 2].map(|n| frame(0x34, &[&text("a"), &[0, n], &[0], b"x"])).concat(),
            Reason::RECEIVE_MAXIMUM_EXCEEDED,
        ),
    ];
    for (tenant, bytes, reason) in cases {
        let (mut client, _) = join_tenant(tenant, Version::V5);
        client.send_bytes(&bytes);
        client.expect_disconnect(reason);
        if tenant != "slow" {
            let (mut older, _) = join_tenant(tenant, Version::V311);
            older.expect_silence();
        }
    }
}

/// [MQTT5-3.14.2-1] [MQTT5-3.14.4-2]: 0x8B, and the end of every connection, when the server goes.
#[test]
fn a_server_that_ends_says_so_to_everybody() {
    let broker = Broker::start(1, "");
    let mut newer = Client::connect(broker.tcp(), Version::V5, "newer");
    let mut older = Client::connect(broker.tcp(), Version::V311, "older");
    let ended = std::thread::spawn(move || broker.terminate());
    newer.expect_disconnect(Reason::SERVER_SHUTTING_DOWN);
    older.expect_closed();
    assert!(ended.join().expect("no panic").success());
}

//! Chapter 3.3: PUBLISH from clients, and what the server answers.

use crate::suite::{
    ALL, AT_LEAST_ONCE, AT_MOST_ONCE, EXACTLY_ONCE, QOS, STANDARD, anybody, as_ack, as_publish, block, expect_ack,
    expect_payload, expect_taken, frame, id, join_tenant, name, no_properties, publish_as, text, token_listener,
    with_claims,
};
use bifro_core::client::Version;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::property::PropertyId;
use bifro_mqtt::reason::Reason;
use bifro_tests::Client;
use bifro_tests::client::AckKind;

/// [MQTT-3.3.4-1] [MQTT5-3.3.4-1] [MQTT-2.3.1-6] [MQTT5-2.2.1-5] [MQTT-4.3.2-2] [MQTT5-4.3.2-4] [MQTT-4.3.3-2]
/// [MQTT5-4.3.3-8] [MQTT5-4.3.3-11] [MQTT5-3.4.2-1] [MQTT5-3.5.2-1] [MQTT5-3.7.2-1]
#[test]
fn a_publish_is_answered_as_its_qos_demands_with_its_own_packet_id() {
    for version in ALL {
        let mut client = anybody(version);
        let topic = name("answers/");
        client.subscribe(&topic, AT_MOST_ONCE);
        publish_as(&mut client, &topic, b"0", AT_MOST_ONCE, 0, false);
        expect_payload(&mut client, "0");
        client.expect_silence();
        for number in [1, 300, 65_535] {
            publish_as(&mut client, "nobody/listens", b"1", AT_LEAST_ONCE, number, false);
            expect_taken(&mut client, "PUBACK", number);
            publish_as(&mut client, "nobody/listens", b"2", EXACTLY_ONCE, number, false);
            expect_taken(&mut client, "PUBREC", number);
            client.ack(AckKind::PubRel, id(number));
            expect_ack(&mut client, "PUBCOMP", number);
        }
        client.expect_silence();
    }
}

/// [MQTT-4.3.2-2] [MQTT5-4.3.2-5]
#[test]
fn after_puback_the_packet_id_means_a_new_message_whatever_dup_says() {
    for version in ALL {
        let (mut publisher, mut subscriber) = (anybody(version), anybody(version));
        let topic = name("again/");
        subscriber.subscribe(&topic, AT_MOST_ONCE);
        for dup in [false, true, true] {
            publish_as(&mut publisher, &topic, b"x", AT_LEAST_ONCE, 7, dup);
            expect_ack(&mut publisher, "PUBACK", 7);
            expect_payload(&mut subscriber, "x");
        }
        subscriber.expect_silence();
    }
}

/// [MQTT-4.3.3-2] [MQTT5-4.3.3-10] [MQTT5-4.3.3-12]
#[test]
fn until_pubrel_the_same_packet_id_is_answered_again_and_delivered_once() {
    for version in ALL {
        let (mut publisher, mut subscriber) = (anybody(version), anybody(version));
        let topic = name("once/");
        subscriber.subscribe(&topic, AT_MOST_ONCE);
        for dup in [false, true, true] {
            publish_as(&mut publisher, &topic, b"first", EXACTLY_ONCE, 7, dup);
            expect_ack(&mut publisher, "PUBREC", 7);
        }
        publisher.ack(AckKind::PubRel, id(7));
        expect_ack(&mut publisher, "PUBCOMP", 7);
        publish_as(&mut publisher, &topic, b"second", EXACTLY_ONCE, 7, false);
        expect_ack(&mut publisher, "PUBREC", 7);
        expect_payload(&mut subscriber, "first");
        expect_payload(&mut subscriber, "second");
        subscriber.expect_silence();
    }
}

/// [MQTT5-4.3.3-9] [MQTT5-3.5.2-1]
#[test]
fn after_a_pubrec_that_refuses_the_packet_id_means_a_new_message() {
    let claims = r#""acl":{"pub":["free/#"]}"#;
    let (mut publisher, _) = Client::connect_with(token_listener(), &with_claims("one", Version::V5, claims));
    let (mut subscriber, _) = join_tenant("one", Version::V5);
    let topic = name("free/");
    subscriber.subscribe(&topic, AT_MOST_ONCE);
    publish_as(&mut publisher, "closed", b"no", EXACTLY_ONCE, 7, false);
    assert_eq!(as_ack(&publisher.recv()), ("PUBREC", 7, Reason::NOT_AUTHORIZED));
    publish_as(&mut publisher, &topic, b"yes", EXACTLY_ONCE, 7, false);
    expect_ack(&mut publisher, "PUBREC", 7);
    expect_payload(&mut subscriber, "yes");
}

/// [MQTT-3.3.5-2] [MQTT5-3.4.2-1]
#[test]
fn a_publish_that_is_not_permitted_is_acknowledged_and_not_delivered() {
    let (mut witness, _) = join_tenant("four", Version::V5);
    let topic = name("closed/");
    witness.subscribe("closed/#", AT_MOST_ONCE);
    for version in ALL {
        let (mut client, _) =
            Client::connect_with(token_listener(), &with_claims("four", version, r#""acl":{"pub":["free/#"]}"#));
        let reason = if version == Version::V5 { Reason::NOT_AUTHORIZED } else { Reason::SUCCESS };
        publish_as(&mut client, &topic, b"no", AT_LEAST_ONCE, 3, false);
        assert_eq!(as_ack(&client.recv()), ("PUBACK", 3, reason));
        publish_as(&mut client, &topic, b"no", EXACTLY_ONCE, 3, false);
        assert_eq!(as_ack(&client.recv()), ("PUBREC", 3, reason));
        publish_as(&mut client, &topic, b"no", AT_MOST_ONCE, 0, false);
        client.expect_silence();
    }
    witness.expect_silence();
}

/// [MQTT-3.3.1-4] [MQTT5-3.3.1-4] [MQTT-3.3.1-2] [MQTT5-3.3.1-2] [MQTT-4.8.0-1] [MQTT5-4.13.1-1]
#[test]
fn qos_3_and_dup_without_qos_close_the_connection() {
    for version in STANDARD {
        for first in [0x36, 0x37, 0x3E, 0x38, 0x39] {
            let mut client = anybody(version);
            client.send_bytes(&frame(first, &[&text("a"), &[0, 1], no_properties(version), b"x"]));
            client.expect_disconnect(Reason::MALFORMED_PACKET);
        }
    }
}

/// [MQTT-3.3.1-3] [MQTT5-3.3.1-3] [MQTT-3.3.1-2] [MQTT5-3.3.1-2] [MQTT-4.3.1-1] [MQTT5-4.3.1-1] [MQTT5-4.3.2-2]
/// [MQTT5-4.3.3-2]
#[test]
fn dup_that_came_in_does_not_go_out() {
    for version in ALL {
        for granted in QOS {
            let (mut publisher, mut subscriber) = (anybody(version), anybody(version));
            let topic = name("dup/");
            subscriber.subscribe(&topic, granted);
            publish_as(&mut publisher, &topic, b"x", EXACTLY_ONCE, 5, true);
            let received = expect_payload(&mut subscriber, "x");
            assert!(!as_publish(&received).dup && as_publish(&received).qos == granted, "{received:?}");
        }
    }
}

/// [MQTT-3.3.2-2] [MQTT-4.7.1-1] [MQTT-4.7.3-1] [MQTT5-3.3.2-2] [MQTT5-4.7.0-1] [MQTT5-4.7.3-1]
#[test]
fn topics_that_are_empty_or_have_wildcards_end_the_connection() {
    for version in ALL {
        for (topic, reason) in [
            ("a/#", Reason::TOPIC_NAME_INVALID),
            ("+/b", Reason::TOPIC_NAME_INVALID),
            ("a+b", Reason::TOPIC_NAME_INVALID),
            ("#", Reason::TOPIC_NAME_INVALID),
            ("", Reason::PROTOCOL_ERROR),
        ] {
            let mut client = anybody(version);
            client.send_bytes(&frame(0x30, &[&text(topic), no_properties(version), b"x"]));
            client.expect_disconnect(reason);
        }
    }
}

/// [MQTT5-3.3.2-14] [MQTT5-3.3.4-6]
#[test]
fn response_topics_with_wildcards_and_subscription_ids_from_clients_are_protocol_errors() {
    let response = |topic: &str| block(|w| w.str(PropertyId::ResponseTopic, topic));
    let identifier = block(|w| w.varint(PropertyId::SubscriptionIdentifier, 1));
    for properties in [response("a/#"), response("+"), identifier] {
        let mut client = anybody(Version::V5);
        client.publish_with("any", b"x", AT_MOST_ONCE, false, &properties);
        client.expect_disconnect(Reason::PROTOCOL_ERROR);
    }
}

/// [MQTT5-3.3.2-4]: the indicator is checked where the tenant wants it, and forwarded either way.
#[test]
fn a_payload_that_is_not_the_utf_8_it_claims_to_be_is_refused() {
    let utf8 = block(|w| w.byte(PropertyId::PayloadFormatIndicator, 1));
    let mut client = anybody(Version::V5);
    client.publish_with("any", &[0xFF], AT_LEAST_ONCE, false, &utf8);
    assert_eq!(as_ack(&client.recv()).2, Reason::PAYLOAD_FORMAT_INVALID);
    client.publish_with("any", &[0xFF], EXACTLY_ONCE, false, &utf8);
    assert_eq!(as_ack(&client.recv()).2, Reason::PAYLOAD_FORMAT_INVALID);
    client.publish_with("any", &[0xFF], AT_MOST_ONCE, false, &utf8);
    client.expect_disconnect(Reason::PAYLOAD_FORMAT_INVALID);
    let (mut trusted, _) = join_tenant("trusting", Version::V5);
    let topic = name("claims/");
    trusted.subscribe(&topic, AT_MOST_ONCE);
    trusted.publish_with(&topic, &[0xFF], AT_MOST_ONCE, false, &utf8);
    let received = expect_payload(&mut trusted, [0xFF]);
    assert_eq!(as_publish(&received).properties.all.payload_format(), Some(1));
}

/// [MQTT-3.3.4-1] [MQTT5-3.3.4-1]: only 5.0 can be told that nobody listens.
#[test]
fn a_publish_that_matches_nobody_is_a_success() {
    for version in ALL {
        let mut client = anybody(version);
        let reason = if version == Version::V5 { Reason::NO_MATCHING_SUBSCRIBERS } else { Reason::SUCCESS };
        assert_eq!(client.publish_acked(&name("lonely/"), b"x"), reason);
        assert_eq!(client.publish_exactly_once(&name("lonely/"), b"x"), reason);
    }
}

/// [MQTT5-3.2.2-15] [MQTT5-4.13.2-1]
#[test]
fn a_payload_above_the_tenants_limit_ends_the_connection() {
    for version in ALL {
        let (mut client, _) = join_tenant("small", version);
        assert!(!client.publish_acked("fits", &[b'x'; 1024]).is_error());
        client.publish("fits", &[b'x'; 1025], AT_LEAST_ONCE, false);
        client.expect_disconnect(Reason::PACKET_TOO_LARGE);
    }
}

/// [MQTT5-3.7.2-1] [MQTT5-3.6.2-1] [MQTT-4.3.3-2]
#[test]
fn pubrel_for_an_unknown_packet_id_is_completed_all_the_same() {
    for version in ALL {
        let mut client = anybody(version);
        client.ack(AckKind::PubRel, id(99));
        let reason = if version == Version::V5 { Reason::PACKET_IDENTIFIER_NOT_FOUND } else { Reason::SUCCESS };
        assert_eq!(as_ack(&client.recv()), ("PUBCOMP", 99, reason));
        client.send(&Packet::PingReq);
        assert!(matches!(client.recv().packet(), Packet::PingResp));
    }
}

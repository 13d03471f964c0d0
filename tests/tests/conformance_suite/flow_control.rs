//! Chapters 3.3.4 and 4.9: Receive Maximum, both ways.

use crate::suite::{
    ALL, AT_LEAST_ONCE, AT_MOST_ONCE, EXACTLY_ONCE, anybody, anybody_with, as_ack, as_publish, block, expect_ack,
    expect_payload, id, join_tenant, lasting, name, publish_as, resume,
};
use bifro_core::client::Version;
use bifro_mqtt::packet::{Ack, Packet, PacketId};
use bifro_mqtt::property::{Properties, PropertyId};
use bifro_mqtt::reason::Reason;
use bifro_tests::Client;
use bifro_tests::client::AckKind;

fn window(size: u16) -> Vec<u8> {
    block(|w| w.u16(PropertyId::ReceiveMaximum, size))
}

fn next_id(client: &mut Client, payload: &str) -> PacketId {
    let received = client.recv();
    let publish = as_publish(&received);
    assert_eq!(publish.payload, payload.as_bytes());
    publish.packet_id.expect("QoS above 0")
}

/// [MQTT5-3.3.4-9] [MQTT5-4.9.0-1] [MQTT5-4.9.0-2]
#[test]
fn the_server_has_exactly_receive_maximum_in_flight_to_a_client() {
    for size in [1, 2, 5] {
        let mut client = anybody_with(&window(size));
        let topic = name("window/");
        client.subscribe(&topic, AT_LEAST_ONCE);
        let mut publisher = anybody(Version::V5);
        for sequence in 0..12 {
            publisher.publish_acked(&topic, sequence.to_string().as_bytes());
        }
        let mut flying: std::collections::VecDeque<PacketId> =
            (0..size).map(|sequence| next_id(&mut client, &sequence.to_string())).collect();
        client.expect_silence();
        for sequence in size..12 {
            let oldest = flying.pop_front().expect("some are in flight");
            client.ack(AckKind::PubAck, oldest);
            flying.push_back(next_id(&mut client, &sequence.to_string()));
            client.expect_silence();
        }
    }
}

/// [MQTT5-3.3.4-9] [MQTT5-4.9.0-2]: a QoS 2 message keeps its place until PUBCOMP, or a PUBREC that refuses.
#[test]
fn a_qos_2_message_holds_its_place_until_it_is_complete() {
    let mut client = anybody_with(&window(1));
    let topic = name("window/");
    client.subscribe(&topic, EXACTLY_ONCE);
    let mut publisher = anybody(Version::V5);
    for payload in ["one", "two", "three"] {
        publisher.publish_exactly_once(&topic, payload.as_bytes());
    }
    let one = next_id(&mut client, "one");
    client.expect_silence();
    client.ack(AckKind::PubRec, one);
    expect_ack(&mut client, "PUBREL", one.get());
    client.expect_silence();
    client.ack(AckKind::PubComp, one);
    let two = next_id(&mut client, "two");
    client.expect_silence();
    let refusal = Ack { packet_id: two, reason: Reason::QUOTA_EXCEEDED, properties: Properties::default() };
    client.send(&Packet::PubRec(refusal));
    next_id(&mut client, "three");
    client.expect_silence();
}

/// [MQTT5-3.3.4-10] [MQTT5-4.9.0-3]
#[test]
fn a_full_window_delays_nothing_but_publish() {
    let mut client = anybody_with(&window(1));
    let topic = name("window/");
    client.subscribe(&topic, AT_LEAST_ONCE);
    let mut publisher = anybody(Version::V5);
    publisher.publish_acked(&topic, b"one");
    publisher.publish_acked(&topic, b"two");
    let one = next_id(&mut client, "one");
    assert_eq!(client.subscribe(&name("other/"), AT_LEAST_ONCE), 1);
    client.unsubscribe(&name("other/"));
    publish_as(&mut client, "any", b"x", AT_LEAST_ONCE, 9, false);
    assert_eq!(as_ack(&client.recv()).1, 9);
    publish_as(&mut client, "any", b"x", EXACTLY_ONCE, 9, false);
    assert_eq!(as_ack(&client.recv()).0, "PUBREC");
    client.ack(AckKind::PubRel, id(9));
    expect_ack(&mut client, "PUBCOMP", 9);
    client.expect_silence();
    client.ack(AckKind::PubAck, one);
    next_id(&mut client, "two");
}

/// [MQTT5-3.3.4-10] [MQTT5-4.9.0-2]: QoS 0 is not counted; behind a message that waits it keeps its order.
#[test]
fn qos_0_is_not_counted() {
    let mut client = anybody_with(&window(1));
    let (counted, free) = (name("window/"), name("free/"));
    client.subscribe(&counted, AT_LEAST_ONCE);
    client.subscribe(&free, AT_MOST_ONCE);
    let mut publisher = anybody(Version::V5);
    publisher.publish_acked(&counted, b"one");
    next_id(&mut client, "one");
    for _ in 0..5 {
        publisher.publish(&free, b"zero", AT_MOST_ONCE, false);
        expect_payload(&mut client, "zero");
    }
}

/// [MQTT5-3.3.4-9]: a resumed session keeps to the window of the new connection.
#[test]
fn a_smaller_window_after_a_reconnect_holds_for_what_is_sent_again() {
    let (mut options, topic) = (lasting(Version::V5, &name("window")), name("window/"));
    let mut client = resume(&options).0;
    client.subscribe(&topic, AT_LEAST_ONCE);
    let mut publisher = anybody(Version::V5);
    let ids: Vec<PacketId> = ["one", "two", "three"]
        .iter()
        .map(|payload| {
            publisher.publish_acked(&topic, payload.as_bytes());
            next_id(&mut client, payload)
        })
        .collect();
    drop(client);
    options.properties.extend(window(1));
    let mut client = resume(&options).0;
    for (payload, packet_id) in ["one", "two", "three"].iter().zip(ids) {
        assert_eq!(next_id(&mut client, payload), packet_id);
        client.expect_silence();
        client.ack(AckKind::PubAck, packet_id);
    }
    client.expect_silence();
}

/// [MQTT5-3.3.4-7] [MQTT5-4.9.0-1] [MQTT5-4.13.1-1]
#[test]
fn a_client_that_exceeds_the_servers_receive_maximum_is_put_out() {
    for (tenant, size) in [("one", 1), ("four", 4)] {
        let (mut client, received) = join_tenant(tenant, Version::V5);
        assert_eq!(crate::suite::connack_properties(&received).receive_maximum(), Some(size));
        for number in 1..=size {
            publish_as(&mut client, "any", b"x", EXACTLY_ONCE, number, false);
            assert_eq!(as_ack(&client.recv()).0, "PUBREC");
        }
        publish_as(&mut client, "any", b"x", AT_MOST_ONCE, 0, false);
        client.expect_silence();
        publish_as(&mut client, "any", b"x", EXACTLY_ONCE, size + 1, false);
        client.expect_disconnect(Reason::RECEIVE_MAXIMUM_EXCEEDED);
    }
}

/// [MQTT5-3.3.4-7] [MQTT5-4.9.0-1]: PUBACK, PUBCOMP, and PUBREC with an error give a place back; PUBREC without does not.
#[test]
fn acknowledgements_give_places_back() {
    let (mut client, _) = join_tenant("one", Version::V5);
    for round in 1..=20 {
        publish_as(&mut client, "any", b"x", AT_LEAST_ONCE, round, false);
        assert_eq!(as_ack(&client.recv()).0, "PUBACK");
        publish_as(&mut client, "any", b"x", EXACTLY_ONCE, round, false);
        assert_eq!(as_ack(&client.recv()).0, "PUBREC");
        publish_as(&mut client, "any", b"x", EXACTLY_ONCE, round, true);
        assert_eq!(as_ack(&client.recv()).0, "PUBREC", "a repetition takes no place");
        client.ack(AckKind::PubRel, id(round));
        assert_eq!(as_ack(&client.recv()).0, "PUBCOMP");
    }
    let options = crate::suite::with_claims("one", Version::V5, r#""acl":{"pub":[]}"#);
    let (mut client, _) = Client::connect_with(crate::suite::token_listener(), &options);
    for round in 1..=5 {
        publish_as(&mut client, "any", b"x", EXACTLY_ONCE, round, false);
        assert_eq!(as_ack(&client.recv()), ("PUBREC", round, Reason::NOT_AUTHORIZED));
    }
}

/// [MQTT5-3.1.2-24] [MQTT5-4.9.0-1]: 0 is a protocol error.
#[test]
fn a_receive_maximum_or_maximum_packet_size_of_0_is_a_protocol_error() {
    let zero_size = block(|w| w.u32(PropertyId::MaximumPacketSize, 0));
    for properties in [window(0), zero_size] {
        let mut options = bifro_tests::ConnectOptions::new(Version::V5, &name("zero"));
        options.properties = properties;
        crate::suite::expect_refused(crate::suite::broker().tcp(), &options, Reason::PROTOCOL_ERROR);
    }
}

/// [MQTT-4.3.2-1] [MQTT-4.3.3-1]: 3.x has no Receive Maximum; the server's own bound loses nothing.
#[test]
fn a_client_that_acknowledges_late_gets_everything() {
    for version in ALL {
        let mut client = anybody(version);
        let topic = name("late/");
        client.subscribe(&topic, AT_LEAST_ONCE);
        let mut publisher = anybody(version);
        for sequence in 0..200 {
            publisher.publish_acked(&topic, sequence.to_string().as_bytes());
        }
        for sequence in 0..200 {
            expect_payload(&mut client, sequence.to_string());
        }
        client.expect_silence();
    }
}

//! Chapter 4.3 and 4.4: the server as the sender of QoS 1 and 2, and what it sends again.

use crate::suite::{
    ALL, AT_LEAST_ONCE, EXACTLY_ONCE, anybody, as_ack, as_publish, at_once, expect_ack, id, lasting, name, pass, resume,
};
use bifro_core::client::Version;
use bifro_mqtt::packet::{Ack, Packet, PacketId};
use bifro_mqtt::property::Properties;
use bifro_mqtt::reason::Reason;
use bifro_tests::Client;
use bifro_tests::client::AckKind;
use std::time::Duration;

/// The next PUBLISH, not acknowledged: payload, id, DUP.
fn unacknowledged(client: &mut Client) -> (Vec<u8>, PacketId, bool) {
    let received = client.recv();
    let publish = as_publish(&received);
    (publish.payload.to_vec(), publish.packet_id.expect("QoS above 0"), publish.dup)
}

fn answer(client: &mut Client, kind: AckKind, packet_id: PacketId, reason: Reason) {
    let ack = Ack { packet_id, reason, properties: Properties::default() };
    client.send(&match kind {
        AckKind::PubAck => Packet::PubAck(ack),
        AckKind::PubRec => Packet::PubRec(ack),
        AckKind::PubRel => Packet::PubRel(ack),
        AckKind::PubComp => Packet::PubComp(ack),
    });
}

/// [MQTT-4.3.3-1] [MQTT5-4.3.3-4] [MQTT-2.3.1-6] [MQTT5-2.2.1-5] [MQTT5-3.6.2-1]
#[test]
fn pubrec_is_answered_with_pubrel_and_its_packet_id() {
    for version in ALL {
        let mut client = anybody(version);
        let topic = name("release/");
        client.subscribe(&topic, EXACTLY_ONCE);
        anybody(version).publish(&topic, b"x", EXACTLY_ONCE, false);
        let (_, packet_id, _) = unacknowledged(&mut client);
        for _ in 0..2 {
            client.ack(AckKind::PubRec, packet_id);
            expect_ack(&mut client, "PUBREL", packet_id.get());
        }
        client.ack(AckKind::PubComp, packet_id);
        client.expect_silence();
    }
}

/// [MQTT-3.3.1-1] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-4.4.0-1] [MQTT-4.1.0-1]
/// [MQTT5-3.3.1-1] [MQTT5-4.3.2-3] [MQTT5-4.3.3-3] [MQTT5-4.3.3-5] [MQTT5-4.3.3-6] [MQTT5-4.4.0-1] [MQTT5-4.1.0-1]
#[test]
fn a_resumed_session_gets_again_what_it_has_not_acknowledged_with_the_same_ids_and_in_order() {
    for version in ALL {
        let (options, topic) = (lasting(version, &name("again")), name("again/"));
        let mut client = resume(&options).0;
        client.subscribe(&topic, EXACTLY_ONCE);
        let mut publisher = anybody(version);
        publisher.publish_exactly_once(&topic, b"released");
        let (_, released, _) = unacknowledged(&mut client);
        client.ack(AckKind::PubRec, released);
        expect_ack(&mut client, "PUBREL", released.get());
        publisher.publish_acked(&topic, b"done");
        publisher.publish_acked(&topic, b"one");
        publisher.publish_exactly_once(&topic, b"two");
        publisher.publish_acked(&topic, b"three");
        let first: Vec<_> = (0..4).map(|_| unacknowledged(&mut client)).collect();
        assert!(first.iter().all(|(_, _, dup)| !dup));
        client.ack(AckKind::PubAck, first[0].1);
        client.expect_silence();
        drop(client);
        for round in 0..2 {
            let mut client = resume(&options).0;
            expect_ack(&mut client, "PUBREL", released.get());
            for (payload, packet_id, _) in &first[1..] {
                assert_eq!(unacknowledged(&mut client), (payload.clone(), *packet_id, true), "round {round}");
            }
            client.expect_silence();
        }
    }
}

/// [MQTT5-4.4.0-1] [MQTT-4.4.0-1]: what was acknowledged, completely or by PUBREC, is not published again.
#[test]
fn what_is_acknowledged_is_not_sent_again_after_a_reconnect() {
    for version in ALL {
        let (options, topic) = (lasting(version, &name("done")), name("done/"));
        let mut client = resume(&options).0;
        client.subscribe(&topic, EXACTLY_ONCE);
        let mut publisher = anybody(version);
        publisher.publish_acked(&topic, b"one");
        publisher.publish_exactly_once(&topic, b"two");
        client.recv_publish();
        client.recv_publish();
        client.expect_silence();
        drop(client);
        let (mut client, present) = resume(&options);
        assert!(present || version == Version::V31);
        client.expect_silence();
    }
}

/// [MQTT-4.4.0-1] [MQTT5-4.4.0-1]: retained messages are no exception.
#[test]
fn a_resumed_session_gets_retained_messages_again_that_it_has_not_acknowledged() {
    for version in ALL {
        let (options, root) = (lasting(version, &name("kept")), name("kept"));
        let mut publisher = anybody(version);
        for number in 0..3 {
            publisher.publish(&format!("{root}/{number}"), &[b'0' + number], EXACTLY_ONCE, true);
            let received = publisher.recv();
            publisher.ack(AckKind::PubRel, id(as_ack(&received).1));
            publisher.recv();
        }
        let mut client = resume(&options).0;
        client.subscribe(&format!("{root}/#"), EXACTLY_ONCE);
        let (first, second, third) =
            (unacknowledged(&mut client), unacknowledged(&mut client), unacknowledged(&mut client));
        client.ack(AckKind::PubRec, first.1);
        expect_ack(&mut client, "PUBREL", first.1.get());
        client.ack(AckKind::PubRec, second.1);
        expect_ack(&mut client, "PUBREL", second.1.get());
        client.ack(AckKind::PubComp, second.1);
        drop(client);
        let mut client = resume(&options).0;
        expect_ack(&mut client, "PUBREL", first.1.get());
        let received = client.recv();
        let publish = as_publish(&received);
        assert_eq!((publish.payload, publish.packet_id), (&third.0[..], Some(third.1)));
        assert!(publish.dup && publish.retain, "{publish:?}");
        client.expect_silence();
    }
}

/// [MQTT5-4.4.0-1]: nothing is sent again on a live connection.
#[test]
fn a_live_connection_of_5_0_gets_nothing_twice() {
    let mut client = anybody(Version::V5);
    let topic = name("live/");
    client.subscribe(&topic, EXACTLY_ONCE);
    let mut publisher = anybody(Version::V5);
    publisher.publish_acked(&topic, b"one");
    publisher.publish_exactly_once(&topic, b"two");
    unacknowledged(&mut client);
    let (_, second, _) = unacknowledged(&mut client);
    client.ack(AckKind::PubRec, second);
    expect_ack(&mut client, "PUBREL", second.get());
    assert!(client.recv_within(Duration::from_millis(1500)).is_none());
    client.expect_silence();
}

/// [MQTT5-4.4.0-1] [MQTT-3.3.1-1] [MQTT-4.3.2-1]: 3.x may send again on a live connection, with DUP and the same id.
#[test]
fn a_3_x_client_is_reminded_where_the_tenant_wants_it_and_a_5_0_client_never() {
    at_once(&ALL, |version| {
        let (mut client, _) = crate::suite::join_tenant("reminded", version);
        let topic = name("reminded/");
        client.subscribe(&topic, AT_LEAST_ONCE);
        crate::suite::join_tenant("reminded", version).0.publish(&topic, b"x", AT_LEAST_ONCE, false);
        let (_, packet_id, dup) = unacknowledged(&mut client);
        assert!(!dup);
        let again = client.recv_within(Duration::from_millis(1900));
        match version {
            Version::V5 => assert!(again.is_none(), "{again:?}"),
            Version::V31 | Version::V311 => {
                let received = again.flatten().expect("sent again");
                let publish = as_publish(&received);
                assert_eq!((publish.packet_id, publish.dup), (Some(packet_id), true));
            }
        }
    });
}

/// [MQTT5-4.4.0-2] [MQTT5-4.3.2-3] [MQTT5-4.3.3-4]
#[test]
fn a_puback_or_pubrec_that_refuses_is_an_acknowledgement_too() {
    let (options, topic) = (lasting(Version::V5, &name("refuses")), name("refuses/"));
    let mut client = resume(&options).0;
    client.subscribe(&topic, EXACTLY_ONCE);
    let mut publisher = anybody(Version::V5);
    publisher.publish_acked(&topic, b"one");
    publisher.publish_exactly_once(&topic, b"two");
    let (_, one, _) = unacknowledged(&mut client);
    let (_, two, _) = unacknowledged(&mut client);
    answer(&mut client, AckKind::PubAck, one, Reason::UNSPECIFIED_ERROR);
    answer(&mut client, AckKind::PubRec, two, Reason::QUOTA_EXCEEDED);
    client.expect_silence();
    drop(client);
    resume(&options).0.expect_silence();
}

/// [MQTT5-4.3.3-7] [MQTT5-4.3.3-13] [MQTT5-3.3.2-5]
#[test]
fn expiry_touches_neither_a_message_once_sent_nor_its_acknowledgements() {
    let (options, topic) = (lasting(Version::V5, &name("late")), name("late/"));
    let mut client = resume(&options).0;
    client.subscribe(&topic, EXACTLY_ONCE);
    let expiry = crate::suite::block(|w| w.u32(bifro_mqtt::property::PropertyId::MessageExpiryInterval, 1));
    let mut publisher = anybody(Version::V5);
    let inbound = publisher.publish_with(&topic, b"x", EXACTLY_ONCE, false, &expiry).expect("an id");
    let (_, packet_id, _) = unacknowledged(&mut client);
    expect_ack(&mut publisher, "PUBREC", inbound.get());
    drop(client);
    pass(Duration::from_millis(1200));
    let mut client = resume(&options).0;
    let (payload, again, dup) = unacknowledged(&mut client);
    assert_eq!((payload.as_slice(), again, dup), (&b"x"[..], packet_id, true));
    client.ack(AckKind::PubRec, packet_id);
    expect_ack(&mut client, "PUBREL", packet_id.get());
    publisher.ack(AckKind::PubRel, inbound);
    expect_ack(&mut publisher, "PUBCOMP", inbound.get());
}

/// [MQTT-4.4.0-1] [MQTT5-4.4.0-1] [MQTT5-4.3.3-10] [MQTT-4.3.3-2]: the receiver's half of the state lasts as well.
#[test]
fn a_qos_2_message_repeated_on_a_new_connection_is_delivered_once() {
    for version in ALL {
        let (options, topic) = (lasting(version, &name("twice")), name("twice/"));
        let mut witness = anybody(version);
        witness.subscribe(&topic, EXACTLY_ONCE);
        let mut client = resume(&options).0;
        crate::suite::publish_as(&mut client, &topic, b"x", EXACTLY_ONCE, 77, false);
        expect_ack(&mut client, "PUBREC", 77);
        drop(client);
        let mut client = resume(&options).0;
        crate::suite::publish_as(&mut client, &topic, b"x", EXACTLY_ONCE, 77, true);
        expect_ack(&mut client, "PUBREC", 77);
        client.ack(AckKind::PubRel, id(77));
        expect_ack(&mut client, "PUBCOMP", 77);
        witness.recv_publish();
        witness.expect_silence();
    }
}

/// [MQTT5-3.6.2-1] [MQTT5-4.3.3-4]
#[test]
fn pubrec_for_an_unknown_packet_id_is_released_with_the_reason() {
    for version in ALL {
        let mut client = anybody(version);
        client.ack(AckKind::PubRec, id(123));
        let reason = if version == Version::V5 { Reason::PACKET_IDENTIFIER_NOT_FOUND } else { Reason::SUCCESS };
        assert_eq!(as_ack(&client.recv()), ("PUBREL", 123, reason));
    }
}

/// [MQTT5-4.13.1-1]
#[test]
fn an_acknowledgement_of_the_other_qos_is_a_protocol_error() {
    for (qos, wrong) in [(AT_LEAST_ONCE, AckKind::PubRec), (EXACTLY_ONCE, AckKind::PubAck)] {
        let mut client = anybody(Version::V5);
        let topic = name("wrong/");
        client.subscribe(&topic, EXACTLY_ONCE);
        anybody(Version::V5).publish(&topic, b"x", qos, false);
        let (_, packet_id, _) = unacknowledged(&mut client);
        client.ack(wrong, packet_id);
        client.expect_disconnect(Reason::PROTOCOL_ERROR);
    }
}

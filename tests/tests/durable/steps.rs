//! QoS 2 exchanges that a kill interrupts, step by step.

use crate::persistent;
use bifro_core::client::Version::V311;
use bifro_core::message::QoS::ExactlyOnce;
use bifro_mqtt::packet::{Packet, PacketId, Publish, PublishProperties};
use bifro_tests::client::AckKind;
use bifro_tests::{Broker, Client, ConnectOptions};
use std::time::Duration;

fn repeat(client: &mut Client, id: PacketId, payload: &[u8]) {
    client.send(&Packet::Publish(Publish {
        dup: true,
        qos: ExactlyOnce,
        retain: false,
        topic: "t",
        packet_id: Some(id),
        properties: PublishProperties::default(),
        payload,
    }));
}

/// Sessions of six clients that have subscribed and are away.
fn leave_sessions(broker: &Broker, filter: &str) -> Vec<ConnectOptions> {
    let sessions: Vec<_> = (0..6).map(|n| persistent(V311, &format!("subscriber-{n}"))).collect();
    for options in &sessions {
        let (mut subscriber, _) = Client::connect_with(broker.tcp(), options);
        subscriber.subscribe(filter, ExactlyOnce);
        subscriber.disconnect();
    }
    sessions
}

/// [MQTT-4.3.3-1] [MQTT-4.4.0-1]
#[test]
fn a_message_the_subscriber_has_is_followed_by_pubrel_and_not_sent_again() {
    let broker = Broker::start(2, "");
    let options = persistent(V311, "subscriber");
    let (mut subscriber, _) = Client::connect_with(broker.tcp(), &options);
    subscriber.subscribe("t", ExactlyOnce);
    Client::connect(broker.tcp(), V311, "publisher").publish_exactly_once("t", b"once");
    let received = subscriber.recv();
    let Packet::Publish(publish) = received.packet() else { panic!("not a PUBLISH: {received:?}") };
    let id = publish.packet_id.expect("QoS 2 has one");
    subscriber.ack(AckKind::PubRec, id);
    let released = subscriber.recv();
    assert!(matches!(released.packet(), Packet::PubRel(ack) if ack.packet_id == id), "{released:?}");
    // PUBCOMP never comes.
    let broker = broker.crash().restart();
    let (mut subscriber, _) = Client::connect_with(broker.tcp(), &options);
    let again = subscriber.recv();
    assert!(matches!(again.packet(), Packet::PubRel(ack) if ack.packet_id == id), "{again:?}");
    subscriber.ack(AckKind::PubComp, id);
    subscriber.expect_silence();
    let broker = broker.stop().restart();
    Client::connect_with(broker.tcp(), &options).0.expect_silence();
}

/// [MQTT-3.3.1-1] [MQTT-4.4.0-1]
#[test]
fn a_message_in_flight_comes_again_with_dup_and_the_same_packet_id() {
    let broker = Broker::start(2, "");
    let options = persistent(V311, "subscriber");
    let (mut subscriber, _) = Client::connect_with(broker.tcp(), &options);
    subscriber.subscribe("t", ExactlyOnce);
    let mut publisher = Client::connect(broker.tcp(), V311, "publisher");
    let mut sent = Vec::new();
    for n in 0..20_u8 {
        publisher.publish_exactly_once("t", &[n]);
        let received = subscriber.recv();
        let Packet::Publish(publish) = received.packet() else { panic!("not a PUBLISH: {received:?}") };
        sent.push((publish.packet_id, publish.payload.to_vec()));
    }
    let broker = broker.crash().restart();
    let (mut subscriber, _) = Client::connect_with(broker.tcp(), &options);
    for (expected, received) in sent.into_iter().zip(subscriber.recv_publishes(20)) {
        let Packet::Publish(publish) = received.packet() else { panic!("not a PUBLISH: {received:?}") };
        assert_eq!((publish.packet_id, publish.payload.to_vec(), publish.dup), (expected.0, expected.1, true));
    }
    subscriber.expect_silence();
}

/// [MQTT-4.3.3-2]
#[test]
fn a_publish_acknowledged_with_pubrec_and_repeated_after_the_kill_is_delivered_once() {
    let broker = Broker::start(2, "");
    // Subscribers of several ranges, so that the publish is stored in more than one.
    let subscribers = leave_sessions(&broker, "t");
    let options = persistent(V311, "publisher");
    let (mut publisher, _) = Client::connect_with(broker.tcp(), &options);
    let id = publisher.publish("t", b"once", ExactlyOnce, false).expect("QoS 2 has one");
    let received = publisher.recv();
    assert!(matches!(received.packet(), Packet::PubRec(_)), "{received:?}");
    let broker = broker.crash().restart();
    let (mut publisher, _) = Client::connect_with(broker.tcp(), &options);
    repeat(&mut publisher, id, b"once");
    let received = publisher.recv();
    assert!(matches!(received.packet(), Packet::PubRec(ack) if ack.packet_id == id), "{received:?}");
    publisher.ack(AckKind::PubRel, id);
    let received = publisher.recv();
    assert!(matches!(received.packet(), Packet::PubComp(ack) if ack.packet_id == id), "{received:?}");
    // The identifier is free for another message, before and after another kill.
    repeat(&mut publisher, id, b"twice");
    assert!(matches!(publisher.recv().packet(), Packet::PubRec(_)));
    publisher.ack(AckKind::PubRel, id);
    assert!(matches!(publisher.recv().packet(), Packet::PubComp(_)));
    let broker = broker.crash().restart();
    let (mut publisher, _) = Client::connect_with(broker.tcp(), &options);
    repeat(&mut publisher, id, b"thrice");
    assert!(matches!(publisher.recv().packet(), Packet::PubRec(_)));
    for options in &subscribers {
        let (mut subscriber, _) = Client::connect_with(broker.tcp(), options);
        for (expected, received) in [&b"once"[..], b"twice", b"thrice"].into_iter().zip(subscriber.recv_publishes(3)) {
            assert!(
                matches!(received.packet(), Packet::Publish(publish) if publish.payload == expected),
                "{received:?}"
            );
        }
        subscriber.expect_silence();
    }
}

/// [MQTT-4.3.3-2] of a shared group, any of whose sessions may be chosen for the repetition.
#[test]
fn publishes_that_a_kill_interrupts_come_to_one_member_of_a_group_when_they_are_repeated() {
    const ROUNDS: u8 = 5;
    const UNDER_WAY: u8 = 12;
    let mut broker = Broker::start(2, "");
    let members = leave_sessions(&broker, "$share/g/t");
    let options = persistent(V311, "publisher");
    let (mut publisher, _) = Client::connect_with(broker.tcp(), &options);
    for round in 0..ROUNDS {
        let texts: Vec<[u8; 2]> = (0..UNDER_WAY).map(|n| [round, n]).collect();
        let publish = |text: &[u8; 2]| publisher.publish("t", text, ExactlyOnce, false).expect("QoS 2 has one");
        let ids: Vec<PacketId> = texts.iter().map(publish).collect();
        std::thread::sleep(Duration::from_micros(400 * u64::from(round)));
        broker = broker.crash().restart();
        publisher = Client::connect_with(broker.tcp(), &options).0;
        for (text, id) in texts.iter().zip(ids) {
            repeat(&mut publisher, id, text);
            assert!(matches!(publisher.recv().packet(), Packet::PubRec(ack) if ack.packet_id == id));
            publisher.ack(AckKind::PubRel, id);
            assert!(matches!(publisher.recv().packet(), Packet::PubComp(ack) if ack.packet_id == id));
        }
    }
    let mut received = Vec::new();
    for options in &members {
        let (mut member, _) = Client::connect_with(broker.tcp(), options);
        received.extend(member.drain_exactly_once(Duration::from_millis(200)));
    }
    received.sort_unstable();
    let published: Vec<_> = (0..ROUNDS).flat_map(|round| (0..UNDER_WAY).map(move |n| vec![round, n])).collect();
    assert_eq!(received, published);
}

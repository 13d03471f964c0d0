//! QoS 2 publishes whose client loses its node before it hears PUBREC, and repeats them on another one.

use super::replication::{payload, resume, until_replicated};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::codec::AckKind;
use bifro_mqtt::packet::{Packet, PacketId, Publish, PublishProperties};
use bifro_tests::Broker;
use bifro_tests::client::Client;
use bifro_tests::cluster::cluster_on;
use std::time::Duration;

/// Says again what was published as `packet_id`, and goes through the rest of the exchange.
fn repeat(publisher: &mut Client, dup: bool, packet_id: PacketId, topic: &str, payload: &[u8]) {
    let properties = PublishProperties::default();
    let (qos, retain, packet_id) = (QoS::ExactlyOnce, false, Some(packet_id));
    publisher.send(&Packet::Publish(Publish { dup, qos, retain, topic, packet_id, properties, payload }));
    let answer = publisher.recv();
    let Packet::PubRec(ack) = answer.packet() else { panic!("not a PUBREC: {answer:?}") };
    assert!(!ack.reason.is_error() && Some(ack.packet_id) == packet_id, "{answer:?}");
    let packet_id = ack.packet_id;
    publisher.ack(AckKind::PubRel, packet_id);
    let answer = publisher.recv();
    assert!(matches!(answer.packet(), Packet::PubComp(ack) if ack.packet_id == packet_id), "{answer:?}");
}

fn listener(node: &Broker, id: &str) -> Client {
    let mut client = Client::connect(node.tcp(), Version::V5, id);
    client.subscribe("t", QoS::ExactlyOnce);
    client
}

/// [MQTT-4.3.3-2] [MQTT5-4.3.3-10] of those that have no session: nobody has noted for them what they were given but the shard they are on. The exchange cannot end, since a
/// third node stands still, when the publisher's node dies. rumqttc does not set DUP.
#[test]
fn what_a_client_repeats_on_another_node_comes_once_to_connections_without_a_session() {
    for dup in [true, false] {
        let mut nodes = cluster_on(3, 2);
        until_replicated(&nodes);
        let mut listeners: Vec<Client> = (0..6).map(|n| listener(&nodes[1 + n % 2], &format!("l{n}"))).collect();
        let (mut publisher, _) = resume(&nodes[0], "p");
        repeat(&mut publisher, false, PacketId::MIN, "t", b"first");
        listeners.iter_mut().for_each(|client| assert_eq!(payload(client), "first"));

        nodes[2].signal(libc::SIGSTOP);
        let packet_id = publisher.publish("t", b"once", QoS::ExactlyOnce, false).expect("QoS 2 has one");
        listeners.iter_mut().step_by(2).for_each(|client| assert_eq!(payload(client), "once"));
        drop(nodes.remove(0).crash());
        nodes[1].signal(libc::SIGCONT);

        let (mut publisher, present) = resume(&nodes[1], "p");
        assert!(present);
        repeat(&mut publisher, dup, packet_id, "t", b"once");
        // It stood still, and had it from one of the two.
        listeners.iter_mut().skip(1).step_by(2).for_each(|client| assert_eq!(payload(client), "once"));
        // The identifier is free, also for a message that says the same.
        for text in ["next", "once"] {
            repeat(&mut publisher, false, packet_id, "t", text.as_bytes());
            listeners.iter_mut().for_each(|client| assert_eq!(payload(client), text, "DUP {dup}"));
        }
    }
}

/// Messages that have arrived, or do so within `patience`, with their exchanges.
fn payloads(client: &mut Client, patience: Duration) -> Vec<String> {
    let texts = client.drain_exactly_once(patience).into_iter();
    texts.map(|text| String::from_utf8(text).expect("a text")).collect()
}

/// Publishes that a node of two shards has under way for a client.
const UNDER_WAY: usize = 12;

/// [MQTT-4.3.3-2] [MQTT5-4.3.3-10] [MQTT5-4.8.2]: any member of the group could be chosen for the repetition, on another node or with another session. The exchanges cannot end, since a node with
/// a subscriber of all of them stands still, and with it some of the members, when the publisher's node dies.
#[test]
fn what_a_client_repeats_on_another_node_comes_to_one_member_of_a_group() {
    let mut nodes = cluster_on(3, 2);
    until_replicated(&nodes);
    let mut members: Vec<Client> =
        (0..4).map(|n| Client::connect(nodes[1].tcp(), Version::V5, &format!("m{n}"))).collect();
    members.extend((0..4).map(|n| resume(&nodes[1], &format!("s{n}")).0));
    members.iter_mut().for_each(|member| _ = member.subscribe("$share/g/t", QoS::ExactlyOnce));
    let mut everything = Client::connect(nodes[2].tcp(), Version::V5, "everything");
    everything.subscribe("t", QoS::ExactlyOnce);
    let (mut publisher, _) = resume(&nodes[0], "p");

    nodes[2].signal(libc::SIGSTOP);
    let texts: Vec<String> = (0..UNDER_WAY).map(|n| n.to_string()).collect();
    let publish =
        |text: &String| publisher.publish("t", text.as_bytes(), QoS::ExactlyOnce, false).expect("QoS 2 has one");
    let packet_ids: Vec<_> = texts.iter().map(publish).collect();
    let early: Vec<String> =
        members.iter_mut().flat_map(|member| payloads(member, Duration::from_millis(100))).collect();
    assert!(!early.is_empty(), "some members are not on the node that stands still, nor their sessions");
    drop(nodes.remove(0).crash());
    nodes[1].signal(libc::SIGCONT);

    let (mut publisher, present) = resume(&nodes[0], "p");
    assert!(present);
    for (text, packet_id) in texts.iter().zip(&packet_ids) {
        repeat(&mut publisher, packet_id.get() % 2 == 0, *packet_id, "t", text.as_bytes());
    }
    let late = members.iter_mut().flat_map(|member| payloads(member, Duration::from_secs(1)));
    let mut all: Vec<usize> = early.iter().cloned().chain(late).map(|text| text.parse().expect("a number")).collect();
    all.sort_unstable();
    assert_eq!(all, (0..UNDER_WAY).collect::<Vec<_>>(), "{} of them early", early.len());
    // The identifiers are free.
    repeat(&mut publisher, false, packet_ids[0], "t", b"0");
    let next: Vec<String> =
        members.iter_mut().flat_map(|member| payloads(member, Duration::from_millis(300))).collect();
    assert_eq!(next, ["0"]);
}

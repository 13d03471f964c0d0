//! QoS 2 publishes whose client loses its node before it hears PUBREC, and repeats them on another one.

use super::replication::{payload, resume, until_replicated};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::codec::AckKind;
use bifro_mqtt::packet::{Packet, PacketId, Publish, PublishProperties};
use bifro_tests::Broker;
use bifro_tests::client::Client;
use bifro_tests::cluster::cluster_on;

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

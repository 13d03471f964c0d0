//! Chapter 4.6: order of messages, and of acknowledgements.

use crate::suite::{
    ALL, AT_LEAST_ONCE, AT_MOST_ONCE, EXACTLY_ONCE, QOS, anybody, as_ack, as_publish, broker, expect_ack, id, lasting,
    name, publish_as, resume,
};
use bifro_core::client::Version;
use bifro_mqtt::packet::Packet;
use bifro_tests::client::AckKind;
use bifro_tests::{Client, ConnectOptions};

const MESSAGES: u32 = 200;

fn number(payload: &[u8]) -> u32 {
    std::str::from_utf8(payload).expect("a number").parse().expect("a number")
}

/// [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT5-4.6.0-5] [MQTT5-4.6.0-6]
#[test]
fn messages_of_one_publisher_topic_and_qos_arrive_in_order_on_every_connection() {
    for version in ALL {
        for qos in QOS {
            let topic = name("order/");
            let mut subscribers: Vec<Client> = (0..4).map(|_| anybody(version)).collect();
            for subscriber in &mut subscribers {
                subscriber.subscribe(&topic, EXACTLY_ONCE);
            }
            let mut publisher = anybody(Version::V311);
            for sequence in 0..MESSAGES {
                publisher.publish(&topic, sequence.to_string().as_bytes(), qos, false);
            }
            for subscriber in &mut subscribers {
                for sequence in 0..MESSAGES {
                    assert_eq!(number(next_publish(subscriber).as_slice()), sequence, "{version:?} {qos:?}");
                }
            }
        }
    }
}

/// The payload of the next PUBLISH; what is due for the ones before is answered on the way.
fn next_publish(client: &mut Client) -> Vec<u8> {
    loop {
        let received = client.recv();
        match received.packet() {
            Packet::Publish(publish) => {
                match (publish.qos, publish.packet_id) {
                    (AT_LEAST_ONCE, Some(packet_id)) => client.ack(AckKind::PubAck, packet_id),
                    (EXACTLY_ONCE, Some(packet_id)) => client.ack(AckKind::PubRec, packet_id),
                    _ => {}
                }
                return publish.payload.to_vec();
            }
            Packet::PubRel(ack) => client.ack(AckKind::PubComp, ack.packet_id),
            other => panic!("unexpected: {other:?}"),
        }
    }
}

/// [MQTT-4.6.0-6] [MQTT5-4.6.0-5] [MQTT-4.4.0-1] [MQTT5-4.4.0-1]
#[test]
fn what_waited_for_a_session_arrives_in_order_and_before_what_is_new() {
    for version in ALL {
        let (options, topic) = (lasting(version, &name("order")), name("order/"));
        let mut client = resume(&options).0;
        client.subscribe(&topic, AT_LEAST_ONCE);
        client.disconnect();
        let mut publisher = anybody(version);
        for sequence in 0..100 {
            publisher.publish_acked(&topic, sequence.to_string().as_bytes());
        }
        let mut client = resume(&options).0;
        for sequence in 100..150 {
            publisher.publish(&topic, sequence.to_string().as_bytes(), AT_LEAST_ONCE, false);
        }
        for sequence in 0..150 {
            assert_eq!(number(&next_publish(&mut client)), sequence, "{version:?}");
        }
    }
}

/// [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT-4.6.0-4] [MQTT5-4.6.0-2] [MQTT5-4.6.0-3] [MQTT5-4.6.0-4]: client statements by
/// the letter, which the server keeps to as the receiver and sender that it is.
#[test]
fn acknowledgements_leave_in_the_order_of_what_they_answer() {
    for version in ALL {
        let mut client = anybody(version);
        let (here, nowhere) = (name("acks/"), name("nowhere/"));
        anybody(version).subscribe(&here, AT_MOST_ONCE);
        let order = [9, 3, 40, 1, 7, 22, 5, 2];
        for packet_id in order {
            let topic = if packet_id % 2 == 0 { &here } else { &nowhere };
            let qos = if packet_id % 3 == 0 { EXACTLY_ONCE } else { AT_LEAST_ONCE };
            publish_as(&mut client, topic, b"x", qos, packet_id, false);
        }
        let answered = order.map(|_| as_ack(&client.recv()).1);
        assert_eq!(answered, order, "{version:?}");
        for packet_id in [3, 9] {
            client.ack(AckKind::PubRel, id(packet_id));
        }
        expect_ack(&mut client, "PUBCOMP", 3);
        expect_ack(&mut client, "PUBCOMP", 9);
    }
}

/// [MQTT-4.6.0-4] [MQTT5-4.6.0-4]: PUBRELs follow the order of the PUBRECs, not of the PUBLISHes.
#[test]
fn pubrels_follow_the_order_of_the_pubrecs() {
    for version in ALL {
        let mut client = anybody(version);
        let topic = name("rels/");
        client.subscribe(&topic, EXACTLY_ONCE);
        let mut publisher = anybody(version);
        let ids = [0, 1, 2].map(|_| {
            publisher.publish(&topic, b"x", EXACTLY_ONCE, false);
            as_publish(&client.recv()).packet_id.expect("QoS 2")
        });
        for at in [2, 0, 1] {
            client.ack(AckKind::PubRec, ids[at]);
        }
        for at in [2, 0, 1] {
            expect_ack(&mut client, "PUBREL", ids[at].get());
        }
    }
}

/// [MQTT-4.5.0-1] [MQTT5-4.5.0-1]
#[test]
fn a_message_reaches_every_session_with_a_matching_subscription_connected_or_not() {
    for version in ALL {
        let root = name("all");
        let mut live: Vec<Client> = (0..6)
            .map(|index| {
                let mut client = anybody(ALL[index % 3]);
                client.subscribe(&format!("{root}/{}", ["#", "+", "x"][index % 3]), AT_LEAST_ONCE);
                client
            })
            .collect();
        let away = lasting(version, &name("away"));
        let mut client = resume(&away).0;
        client.subscribe(&format!("{root}/x"), AT_LEAST_ONCE);
        client.disconnect();
        let (mut other, _) = Client::connect_with(broker().tcp(), &ConnectOptions::new(version, &name("other")));
        other.subscribe(&format!("{root}/y"), AT_LEAST_ONCE);
        anybody(version).publish_acked(&format!("{root}/x"), b"news");
        for client in &mut live {
            assert_eq!(next_publish(client), b"news");
            client.expect_silence();
        }
        assert_eq!(next_publish(&mut resume(&away).0), b"news");
        other.expect_silence();
    }
}

//! Rows 17 and 24: many at once for what only one can have.

use crate::arena::{Arena, MIB};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::reason::Reason;
use bifro_tests::{Client, ConnectOptions};
use std::net::SocketAddr;
use std::thread;

/// Session Expiry Interval of a minute.
const A_MINUTE: [u8; 5] = [17, 0, 0, 0, 60];

/// One of the hundred: clean or persistent, of one version or the other.
fn contender(number: usize) -> ConnectOptions {
    let version = if number.is_multiple_of(2) { Version::V5 } else { Version::V311 };
    let mut options = ConnectOptions::new(version, "the one");
    options.clean = number.is_multiple_of(3);
    if version == Version::V5 && !options.clean {
        options.properties = A_MINUTE.to_vec();
    }
    options
}

/// Whether the connection is the one that has stayed. One that has lost was told so, where its version can say it
/// [MQTT5-3.1.4-3].
fn has_stayed(client: &mut Client, number: usize) -> bool {
    client.send(&Packet::PingReq);
    let mut told = false;
    loop {
        let Some(received) = client.try_recv() else {
            assert!(told || client.version != Version::V5, "contender {number} was closed without a word");
            return false;
        };
        match received.packet() {
            Packet::ConnAck(ack) => told |= ack.reason.is_error() || ack.reason.0 == 3,
            Packet::Disconnect(disconnect) => {
                assert_eq!(disconnect.reason, Reason::SESSION_TAKEN_OVER, "contender {number}");
                told = true;
            }
            Packet::PingResp => return true,
            _ => panic!("contender {number}: unexpected {received:?}"),
        }
    }
}

/// [MQTT-3.1.4-2] [MQTT5-3.1.4-3]
#[test]
fn row_17_of_a_hundred_connections_with_one_client_id_exactly_one_stays() {
    let mut arena = Arena::new();
    for round in 0..2 {
        let address = arena.tcp();
        let threads: Vec<_> = (0..10)
            .map(|thread| {
                thread::spawn(move || {
                    let numbers = (0..10).map(|n| thread * 10 + n);
                    let connect = |number: usize| {
                        let options = contender(number);
                        let mut client = Client::open(address, options.version);
                        client.send_bytes(&options.encode());
                        (number, client)
                    };
                    numbers.map(connect).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut contenders: Vec<(usize, Client)> =
            threads.into_iter().flat_map(|thread| thread.join().expect("all can connect")).collect();
        arena.broker.wait_for_metric("bifro_sessions", |sessions| sessions == 3.0);
        arena.broker.wait_for_metric("bifro_connections", |connections| connections == 3.0);
        arena.check();
        let stayed: Vec<usize> = contenders
            .iter_mut()
            .filter_map(|(number, client)| has_stayed(client, *number).then_some(*number))
            .collect();
        assert_eq!(stayed.len(), 1, "round {round}: {stayed:?} have stayed");
    }
    assert!(arena.broker.metric("bifro_takeovers_total") >= 1.0);
    // The client id is good for more.
    let mut last = arena.client(Version::V311, "the one");
    assert_eq!(last.subscribe("row17", QoS::AtLeastOnce), 1);
    last.publish("row17", b"mine", QoS::AtMostOnce, false);
    last.recv_publish();
    last.disconnect();
    arena.finish(32 * MIB);
}

/// Sets and clears one retained message again and again; every payload names its topic.
fn set_and_clear(address: SocketAddr, topic: &'static str, client_id: &str) {
    let mut client = Client::connect(address, Version::V5, client_id);
    for round in 0..150 {
        let payload = if round % 2 == 0 { topic } else { "" };
        client.publish(topic, payload.as_bytes(), QoS::AtLeastOnce, true);
        let received = client.recv();
        assert!(matches!(received.packet(), Packet::PubAck(ack) if !ack.reason.is_error()), "{received:?}");
    }
    client.disconnect();
}

/// Subscribes afresh again and again; whatever is retained belongs to the topic it comes under.
fn look(address: SocketAddr, client_id: &str) {
    let mut client = Client::connect(address, Version::V311, client_id);
    for _ in 0..60 {
        client.send_bytes(&crate::raw::subscribe(Version::V311, &[], &[(b"row24/#", 0)]));
        client.send_bytes(&crate::raw::unsubscribe(Version::V311, &[], &[b"row24/#"]));
        loop {
            let received = client.recv();
            match received.packet() {
                Packet::Publish(publish) => {
                    assert!(publish.payload.is_empty() || publish.payload == publish.topic.as_bytes(), "{received:?}")
                }
                Packet::SubAck(_) => {}
                Packet::UnsubAck(_) => break,
                _ => panic!("unexpected: {received:?}"),
            }
        }
    }
}

/// [MQTT-3.3.1-10] [MQTT5-3.3.1-6]
#[test]
fn row_24_concurrent_set_and_clear_never_show_the_payload_of_one_topic_under_another() {
    let mut arena = Arena::new();
    let address = arena.tcp();
    let topics = ["row24/a", "row24/b", "row24/a", "row24/b"];
    let mut threads: Vec<_> = topics
        .into_iter()
        .enumerate()
        .map(|(n, topic)| thread::spawn(move || set_and_clear(address, topic, &format!("setter-{n}"))))
        .collect();
    threads.extend((0..2).map(|n| thread::spawn(move || look(address, &format!("looker-{n}")))));
    for thread in threads {
        thread.join().expect("nobody sees what is another's");
        arena.check();
    }
    // What was said last holds.
    let mut client = arena.client(Version::V5, "last");
    for (topic, payload) in [("row24/a", &b"row24/a"[..]), ("row24/b", b"")] {
        client.publish(topic, payload, QoS::AtLeastOnce, true);
        client.recv();
    }
    assert_eq!(client.subscribe("row24/#", QoS::AtMostOnce), 0);
    let received = client.recv_publish();
    assert!(
        matches!(received.packet(), Packet::Publish(publish) if publish.topic == "row24/a" && publish.payload == b"row24/a"),
        "{received:?}"
    );
    client.expect_silence();
    arena.broker.wait_for_metric("bifro_retained_messages", |retained| retained == 1.0);
    arena.finish(32 * MIB);
}

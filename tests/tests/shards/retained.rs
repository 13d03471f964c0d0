//! Retained messages: the last writer wins, for readers on both shards alike, whoever writes from wherever.

use crate::{broker, expect_both_shards};
use bifro_core::message::QoS;
use bifro_core::rng::Prng;
use bifro_mqtt::packet::Packet;
use bifro_tests::history::Mark;
use bifro_tests::load::{for_each_seed, version_of};
use bifro_tests::{Broker, Client};
use std::collections::HashMap;
use std::time::Duration;

const TOPICS: u32 = 20;
const WRITERS: u32 = 8;
const WRITES: u32 = 120;
const READERS: u32 = 8;
const SILENCE: Duration = Duration::from_millis(400);

fn topic(seed: u64, number: u32) -> String {
    format!("kept/{seed:x}/{number}")
}

/// Publishes with QoS 1 and waits until it is taken over.
fn write(client: &mut Client, topic: &str, payload: &[u8], seed: u64) {
    client.publish(topic, payload, QoS::AtLeastOnce, true);
    let received = client.recv();
    let Packet::PubAck(ack) = received.packet() else { panic!("seed {seed:#x}: {received:?}") };
    assert!(!ack.reason.is_error(), "seed {seed:#x}: {received:?}");
}

/// What new subscribers find, by topic. Retained messages come after the SUBACK, and nothing marks the last one; so all readers
/// subscribe first, and each is read until nothing has come for a while.
fn read(broker: &Broker, seed: u64) -> Vec<HashMap<String, Vec<u8>>> {
    let subscribe = |reader: u32| {
        let name = format!("reader{seed:x}-{reader}");
        let mut client = Client::connect(broker.tcp(), version_of(reader), &name);
        client.subscribe(&format!("kept/{seed:x}/#"), QoS::AtMostOnce);
        client
    };
    let readers: Vec<_> = (0..READERS).map(subscribe).collect();
    readers.into_iter().map(|client| read_all(client, seed)).collect()
}

fn read_all(mut client: Client, seed: u64) -> HashMap<String, Vec<u8>> {
    let mut found = HashMap::new();
    while let Some(received) = client.recv_within(SILENCE) {
        let received = received.expect("the connection stays");
        let Packet::Publish(publish) = received.packet() else { panic!("seed {seed:#x}: {received:?}") };
        assert!(publish.retain, "[MQTT-3.3.1-8]: {publish:?}");
        let twice = found.insert(publish.topic.to_owned(), publish.payload.to_vec());
        assert!(twice.is_none(), "seed {seed:#x}: {} came twice", publish.topic);
    }
    client.disconnect();
    found
}

/// [MQTT-3.3.1-5], [MQTT-3.3.1-10]; row 24 of HOSTILE: concurrent sets and clears never mix two messages.
#[test]
fn writers_on_both_shards_leave_one_value_that_all_readers_agree_on() {
    let broker = broker();
    for_each_seed(|seed| {
        let last: Vec<HashMap<u32, Option<Mark>>> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    scope.spawn({
                        let broker = &broker;
                        move || compete(broker, seed, writer)
                    })
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().expect("a writer")).collect()
        });
        let readings = read(&broker, seed);
        for reading in &readings[1..] {
            assert_eq!(reading, &readings[0], "seed {seed:#x}: readers of different shards disagree");
        }
        for number in 0..TOPICS {
            let kept = readings[0].get(&topic(seed, number)).map(|payload| {
                Mark::parse(payload).unwrap_or_else(|| panic!("seed {seed:#x}: a payload of two messages"))
            });
            let candidates: Vec<_> = last.iter().filter_map(|last| last.get(&number)).collect();
            assert!(candidates.contains(&&kept), "seed {seed:#x}, topic {number}: {kept:?} not of {candidates:?}");
        }
        overwrite_all(&broker, seed);
    });
    expect_both_shards(&broker);
}

/// Sets and clears random topics; returns what it did last to each.
fn compete(broker: &Broker, seed: u64, writer: u32) -> HashMap<u32, Option<Mark>> {
    let mut rng = Prng::new(seed).derive(u64::from(writer));
    let mut client = Client::connect(broker.tcp(), version_of(writer), &format!("writer{seed:x}-{writer}"));
    let mut last = HashMap::new();
    for seq in 0..WRITES {
        let number = rng.below(u64::from(TOPICS)) as u32;
        let mark = (rng.below(4) > 0).then_some(Mark { stream: writer * TOPICS + number, seq });
        let payload = mark.map_or_else(Vec::new, |mark| mark.payload(8 + rng.below(500) as usize));
        write(&mut client, &topic(seed, number), &payload, seed);
        last.insert(number, mark);
    }
    client.disconnect();
    last
}

/// What is written after everything else was acknowledged stands, wherever writer and reader are.
fn overwrite_all(broker: &Broker, seed: u64) {
    let mut clients: Vec<_> =
        (0..6).map(|n| Client::connect(broker.tcp(), version_of(n), &format!("over{seed:x}-{n}"))).collect();
    for number in 0..TOPICS {
        for (n, client) in clients.iter_mut().enumerate() {
            let payload = if number % 2 == 0 { vec![n as u8; 20] } else { Vec::new() };
            write(client, &topic(seed, number), &payload, seed);
        }
    }
    for found in read(broker, seed) {
        assert_eq!(found.len(), TOPICS as usize / 2, "seed {seed:#x}: {found:?}");
        assert!(found.values().all(|payload| payload == &[5; 20]), "seed {seed:#x}: {found:?}");
    }
}

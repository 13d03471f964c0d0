//! Wills across shards: once for each client that is lost, never for one that says goodbye.

use crate::{broker, expect_both_shards};
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_tests::load::{for_each_seed, version_of};
use bifro_tests::{Broker, Client, ConnectOptions};
use std::collections::HashMap;

const CLIENTS: u32 = 60;
const WATCHERS: u32 = 6;

fn mortal(seed: u64, n: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(version_of(n), &format!("mortal{seed:x}-{n}"));
    let payload = n.to_be_bytes().to_vec();
    options.will = Some((format!("wills/{seed:x}/{n}"), payload, QoS::AtLeastOnce, false, Vec::new()));
    options
}

/// [MQTT-3.1.2-8], [MQTT5-3.1.2-8]: a connection that is lost, or taken over, publishes its will; [MQTT-3.14.4-3]: one that is
/// ended by DISCONNECT does not.
#[test]
fn lost_and_replaced_clients_leave_one_will_each_and_polite_ones_none() {
    let broker = broker();
    for_each_seed(|seed| last_words(&broker, seed));
    expect_both_shards(&broker);
}

fn last_words(broker: &Broker, seed: u64) {
    let mut watchers: Vec<_> =
        (0..WATCHERS).map(|n| Client::connect(broker.tcp(), version_of(n), &format!("watcher{seed:x}-{n}"))).collect();
    for watcher in &mut watchers {
        watcher.subscribe(&format!("wills/{seed:x}/+"), QoS::AtLeastOnce);
    }
    let clients: Vec<_> = (0..CLIENTS).map(|n| Client::connect_with(broker.tcp(), &mortal(seed, n)).0).collect();
    let mut expected = HashMap::new();
    let mut successors = Vec::new();
    for (n, client) in (0..CLIENTS).zip(clients) {
        match n % 3 {
            0 => client.disconnect(),
            1 => {
                drop(client);
                expected.insert(n, 1);
            }
            _ => {
                // The successor takes over and says goodbye itself.
                successors.push(Client::connect_with(broker.tcp(), &mortal(seed, n)).0);
                expected.insert(n, 1);
            }
        }
    }
    for successor in successors {
        successor.disconnect();
    }
    for watcher in &mut watchers {
        let mut seen: HashMap<u32, i32> = HashMap::new();
        for _ in 0..expected.len() {
            let received = watcher.recv_publish();
            let Packet::Publish(publish) = received.packet() else { panic!("a PUBLISH") };
            let n = u32::from_be_bytes(publish.payload.try_into().expect("four bytes"));
            assert_eq!(publish.topic, format!("wills/{seed:x}/{n}"), "seed {seed:#x}");
            *seen.entry(n).or_default() += 1;
        }
        assert_eq!(seen, expected, "seed {seed:#x}");
        watcher.expect_silence();
    }
}

//! What of a session a killed broker still knows.

use crate::{lasting, payload, persistent};
use bifro_core::client::Version::{V5, V311};
use bifro_core::message::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use bifro_mqtt::packet::Packet;
use bifro_tests::{Broker, Client, ConnectOptions, Received};
use std::time::Duration;

fn is_present(connack: &Received) -> bool {
    matches!(connack.packet(), Packet::ConnAck(connack) if connack.session_present)
}

/// [MQTT-3.1.2-5] [MQTT5-3.1.2-23] [MQTT-4.6.0-6]
#[test]
fn a_queue_of_two_thousand_messages_is_there_after_the_kill_whole_and_in_order() {
    let broker = Broker::start(2, "[tenant_defaults]\ninbox_messages_max = 100000\n");
    let options = persistent(V311, "away");
    let (mut client, _) = Client::connect_with(broker.tcp(), &options);
    client.subscribe("q/#", ExactlyOnce);
    client.disconnect();
    let mut publisher = Client::connect(broker.tcp(), V311, "publisher");
    for n in 0..2_000 {
        let qos = if n % 2 == 0 { AtLeastOnce } else { ExactlyOnce };
        publisher.publish("q/x", n.to_string().as_bytes(), qos, false);
        if n % 100 == 99 {
            (0..100).for_each(|_| drop(publisher.recv()));
        }
    }
    // Other cores, other shards: the ranges stay what they are.
    let broker = broker.crash().restart_on(1);
    let (mut client, connack) = Client::connect_with(broker.tcp(), &options);
    assert!(is_present(&connack));
    for (n, received) in client.recv_publishes(2_000).iter().enumerate() {
        assert_eq!(payload(received), n.to_string());
    }
    client.expect_silence();
}

#[test]
fn retained_messages_stay_and_cleared_ones_stay_cleared() {
    let broker = Broker::start(2, "");
    let mut client = Client::connect(broker.tcp(), V5, "writer");
    for n in 0..50 {
        client.publish(&format!("r/{n}"), b"kept", AtLeastOnce, true);
        client.recv();
    }
    for n in 0..25 {
        client.publish(&format!("r/{n}"), b"", AtLeastOnce, true);
        client.recv();
    }
    let broker = broker.crash().restart();
    assert_eq!(broker.metric("bifro_retained_messages"), 25.0);
    let mut client = Client::connect(broker.tcp(), V5, "reader");
    client.subscribe("r/#", AtMostOnce);
    let mut topics: Vec<String> = (0..25)
        .map(|_| match client.recv().packet() {
            Packet::Publish(publish) => publish.topic.to_owned(),
            other => panic!("not a PUBLISH: {other:?}"),
        })
        .collect();
    topics.sort();
    let mut expected: Vec<String> = (25..50).map(|n| format!("r/{n}")).collect();
    expected.sort();
    assert_eq!(topics, expected);
    client.expect_silence();
}

#[test]
fn an_unsubscription_and_new_options_survive() {
    let broker = Broker::start(2, "");
    let options = persistent(V5, "away");
    let (mut client, _) = Client::connect_with(broker.tcp(), &options);
    client.subscribe("gone", AtLeastOnce);
    client.subscribe("kept", AtLeastOnce);
    client.subscribe("kept", AtMostOnce);
    client.unsubscribe("gone");
    let broker = broker.crash().restart();
    let (mut client, connack) = Client::connect_with(broker.tcp(), &options);
    assert!(is_present(&connack));
    let mut publisher = Client::connect(broker.tcp(), V311, "publisher");
    publisher.publish_acked("gone", b"no");
    publisher.publish_acked("kept", b"yes");
    let received = client.recv();
    assert_eq!(payload(&received), "yes");
    assert!(matches!(received.packet(), Packet::Publish(publish) if publish.qos == AtMostOnce));
    client.expect_silence();
}

/// [MQTT-3.1.2-6] [MQTT5-3.1.2-4]
#[test]
fn a_clean_start_ends_the_session_for_the_next_process_too() {
    let broker = Broker::start(2, "");
    let options = persistent(V311, "c");
    let (mut client, _) = Client::connect_with(broker.tcp(), &options);
    client.subscribe("t", AtLeastOnce);
    client.disconnect();
    Client::connect(broker.tcp(), V311, "c").disconnect();
    let broker = broker.crash().restart();
    let (_, connack) = Client::connect_with(broker.tcp(), &options);
    assert!(!is_present(&connack));
    assert_eq!(broker.metric("bifro_routes"), 0.0);
}

/// [MQTT5-4.1.0-2]
#[test]
fn a_session_expires_while_the_broker_is_down() {
    let broker = Broker::start(2, "");
    let (client, _) = Client::connect_with(broker.tcp(), &lasting(V5, "short", 1));
    client.disconnect();
    let (client, _) = Client::connect_with(broker.tcp(), &lasting(V5, "long", 600));
    client.disconnect();
    let crashed = broker.crash();
    std::thread::sleep(Duration::from_millis(1_200));
    let broker = crashed.restart();
    assert!(!is_present(&Client::connect_with(broker.tcp(), &lasting(V5, "short", 1)).1));
    assert!(is_present(&Client::connect_with(broker.tcp(), &lasting(V5, "long", 600)).1));
}

/// [MQTT-3.1.2-8] [MQTT5-3.1.2-8]
#[test]
fn the_will_of_a_client_that_was_connected_at_the_kill_is_published_by_the_next_process() {
    let broker = Broker::start(2, "");
    let watcher = persistent(V311, "watcher");
    let (mut client, _) = Client::connect_with(broker.tcp(), &watcher);
    client.subscribe("will/#", AtLeastOnce);
    let will = Some(("will/x".into(), b"bye".to_vec(), AtLeastOnce, true, Vec::new()));
    let mortal = ConnectOptions { will, ..persistent(V311, "mortal") };
    let (_mortal, _) = Client::connect_with(broker.tcp(), &mortal);
    let broker = broker.crash().restart();
    let (mut client, _) = Client::connect_with(broker.tcp(), &watcher);
    assert_eq!(payload(&client.recv_publish()), "bye");
    client.expect_silence();
    // Published once, not by every process that follows.
    let broker = broker.stop().restart();
    let (mut client, _) = Client::connect_with(broker.tcp(), &watcher);
    client.expect_silence();
}

#[test]
fn a_second_process_on_the_same_directory_says_whose_it_is_and_ends() {
    let broker = Broker::start(1, "");
    let second = std::process::Command::new(bifro_tests::process::binaries().join("bifro-uring"))
        .args(["--cores", "1", "--config"])
        .arg(broker.dir.join("node.toml"))
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success());
    assert!(said.contains(&format!("in use by process {}", broker.pid())) && said.contains("data_dir"), "{said}");
}

#[test]
fn a_damaged_identity_is_told_and_nothing_is_touched() {
    let broker = Broker::start(1, "");
    let crashed = broker.crash();
    let path = crashed.dir.join("data/CLUSTER");
    let text = std::fs::read_to_string(&path).expect("it is there").replace("ranges 8", "ranges 9");
    std::fs::write(&path, &text).expect("written");
    let output = std::process::Command::new(bifro_tests::process::binaries().join("bifro-uring"))
        .args(["--cores", "1", "--config"])
        .arg(crashed.dir.join("node.toml"))
        .output()
        .expect("the binary starts");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("CLUSTER is damaged") && said.contains("restore it"), "{said}");
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), text);
    std::fs::remove_dir_all(&crashed.dir).expect("removed");
}

#[test]
fn with_volatile_nothing_is_written_and_nothing_kept() {
    let broker = Broker::start(1, "[store]\ndurability = \"volatile\"\n");
    let options = persistent(V311, "c");
    Client::connect_with(broker.tcp(), &options).0.disconnect();
    assert!(is_present(&Client::connect_with(broker.tcp(), &options).1));
    let crashed = broker.crash();
    assert!(!crashed.dir.join("data").exists());
    let broker = crashed.restart();
    assert!(!is_present(&Client::connect_with(broker.tcp(), &options).1));
}

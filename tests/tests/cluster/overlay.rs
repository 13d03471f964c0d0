//! Clients of several nodes: what is published on one is received on all, whoever dies meanwhile.

use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::reason::Reason;
use bifro_tests::client::{AckKind, Client, ConnectOptions};
use bifro_tests::cluster::{SECRET, cluster, cluster_on, free_address, node, wait_for};
use bifro_tests::{Broker, PATIENCE};
use std::time::{Duration, Instant};

fn client(node: &Broker, id: &str) -> Client {
    Client::connect(node.tcp(), Version::V5, id)
}

fn payload(client: &mut Client) -> String {
    let received = client.recv_publish();
    match received.packet() {
        Packet::Publish(publish) => String::from_utf8_lossy(publish.payload).into_owned(),
        other => panic!("not a publish: {other:?}"),
    }
}

#[test]
fn what_is_published_on_one_node_is_received_on_all_once_and_in_order() {
    let nodes = cluster_on(3, 2);
    let mut subscribers: Vec<Client> = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        for n in 0..4 {
            let mut subscriber = client(node, &format!("s{at}{n}"));
            subscriber.subscribe("line/+", QoS::AtLeastOnce);
            subscribers.push(subscriber);
        }
    }
    let mut publisher = client(&nodes[1], "p");
    for n in 0..200 {
        assert_eq!(publisher.publish_acked("line/1", n.to_string().as_bytes()), Reason::SUCCESS);
    }
    for subscriber in &mut subscribers {
        let heard: Vec<String> = (0..200).map(|_| payload(subscriber)).collect();
        assert_eq!(heard, (0..200).map(|n| n.to_string()).collect::<Vec<_>>());
        subscriber.expect_silence();
    }
    assert_eq!(publisher.publish_exactly_once("line/2", b"exactly once"), Reason::SUCCESS);
    for subscriber in &mut subscribers {
        assert_eq!(payload(subscriber), "exactly once");
    }
    assert_eq!(nodes[1].metric("bifro_forwards_failed_total"), 0.0);
}

#[test]
fn a_message_after_suback_is_received_however_quickly_it_follows() {
    let nodes = cluster(3);
    let mut publisher = client(&nodes[0], "p");
    for n in 0..100 {
        let topic = format!("new/{n}");
        let mut subscriber = client(&nodes[1 + n % 2], &format!("s{n}"));
        publisher.publish_acked(&topic, b"before anybody listens");
        subscriber.subscribe(&topic, QoS::AtLeastOnce);
        assert_eq!(publisher.publish_acked(&topic, b"after"), Reason::SUCCESS);
        assert_eq!(payload(&mut subscriber), "after");
    }
}

/// [MQTT-3.1.4-2] [MQTT5-3.1.4-3]
#[test]
fn a_client_that_connects_to_another_node_ends_its_old_connection() {
    let nodes = cluster(3);
    let mut old = client(&nodes[0], "same");
    for turn in 1..10 {
        let new = client(&nodes[turn % 3], "same");
        old.expect_disconnect(Reason::SESSION_TAKEN_OVER);
        old = new;
    }
}

#[test]
fn a_group_spreads_over_nodes_and_goes_on_without_the_one_that_died() {
    let mut nodes = cluster(3);
    let mut members: Vec<Client> = nodes.iter().enumerate().map(|(n, node)| client(node, &format!("m{n}"))).collect();
    for member in &mut members {
        member.subscribe("$share/g/work", QoS::AtMostOnce);
    }
    let mut publisher = client(&nodes[0], "p");
    for n in 0..300_u32 {
        publisher.publish_acked("work", n.to_string().as_bytes());
    }
    let mut counts = Vec::new();
    for member in &mut members {
        let mut count = 0;
        while member.recv_within(Duration::from_millis(200)).flatten().is_some() {
            count += 1;
        }
        counts.push(count);
    }
    assert_eq!(counts.iter().sum::<i32>(), 300, "{counts:?}");
    assert!(counts.iter().all(|&count| count > 30), "{counts:?}");
    drop(nodes.pop().expect("three").crash());
    for node in &nodes {
        wait_for(node, &["alive", "alive", "dead"]);
    }
    for n in 0..50_u32 {
        assert_eq!(publisher.publish_acked("work", n.to_string().as_bytes()), Reason::SUCCESS);
    }
    let mut left = 0;
    for member in &mut members[..2] {
        while member.recv_within(Duration::from_millis(200)).flatten().is_some() {
            left += 1;
        }
    }
    assert_eq!(left, 50);
}

/// Publishing on one node to subscribers of another goes on when a third is killed, and nothing acknowledged is lost.
#[test]
fn a_killed_node_stops_publishing_elsewhere_for_less_than_three_seconds() {
    let mut nodes = cluster(3);
    let (mut publisher, mut subscriber) = (client(&nodes[0], "p"), client(&nodes[1], "s"));
    let mut third = client(&nodes[2], "third");
    subscriber.subscribe("t", QoS::AtLeastOnce);
    third.subscribe("t", QoS::AtLeastOnce);
    let mut acknowledged = Vec::new();
    let mut pause = Duration::ZERO;
    let crashed = nodes.pop().expect("three").crash();
    for n in 0..900_u32 {
        let start = Instant::now();
        if publisher.publish_acked("t", n.to_string().as_bytes()) == Reason::SUCCESS {
            acknowledged.push(n.to_string());
        }
        pause = pause.max(start.elapsed());
    }
    eprintln!("publishing paused for {pause:?}");
    assert!(pause < Duration::from_secs(6), "{pause:?}");
    let mut heard = std::collections::HashSet::new();
    // What failed may have been received as well.
    while let Some(missing) = acknowledged.iter().find(|n| !heard.contains(*n)) {
        let received = subscriber.recv_within(PATIENCE).flatten();
        let Some(Packet::Publish(publish)) = received.as_ref().map(|received| received.packet()) else {
            panic!("{missing} was acknowledged and not received: {received:?}");
        };
        heard.insert(String::from_utf8_lossy(publish.payload).into_owned());
        if let Some(id) = publish.packet_id {
            subscriber.ack(AckKind::PubAck, id);
        }
    }
    let back = crashed.restart();
    wait_for(&back, &["alive", "alive", "alive"]);
    let mut third = client(&back, "third");
    third.subscribe("t", QoS::AtLeastOnce);
    assert_eq!(publisher.publish_acked("t", b"again"), Reason::SUCCESS);
    assert_eq!(payload(&mut third), "again");
}

#[test]
fn a_flood_to_a_subscriber_that_does_not_read_on_another_node_costs_bounded_memory_and_holds_nobody_up() {
    let nodes = cluster_on(2, 2);
    let mut silent = client(&nodes[1], "silent");
    silent.subscribe("flood", QoS::AtMostOnce);
    let (mut publisher, mut subscriber) = (client(&nodes[0], "p"), client(&nodes[1], "s"));
    subscriber.subscribe("quiet", QoS::AtLeastOnce);
    let before: Vec<u64> = nodes.iter().map(Broker::resident_bytes).collect();
    let address = nodes[0].tcp();
    let flooders = (0..2).map(|n| {
        std::thread::spawn(move || {
            let mut flooder = Client::connect(address, Version::V311, &format!("flooder-{n}"));
            let until = Instant::now() + Duration::from_secs(4);
            while Instant::now() < until {
                for _ in 0..100 {
                    flooder.publish("flood", &[7; 4_096], QoS::AtMostOnce, false);
                }
            }
        })
    });
    let flooders: Vec<_> = flooders.collect();
    let mut worst = Duration::ZERO;
    while !flooders.iter().all(std::thread::JoinHandle::is_finished) {
        let start = Instant::now();
        assert_eq!(publisher.publish_acked("quiet", b"x"), Reason::SUCCESS);
        subscriber.recv_publish();
        worst = worst.max(start.elapsed());
    }
    flooders.into_iter().for_each(|flooder| flooder.join().expect("the flooder is served"));
    let grown: Vec<u64> = nodes
        .iter()
        .zip(before)
        .map(|(node, before)| node.resident_bytes() - before.min(node.resident_bytes()))
        .collect();
    let forwarded = nodes[0].metric("bifro_forwarded_total");
    eprintln!("{forwarded} messages; resident memory grew by {grown:?} bytes; the worst of the others took {worst:?}");
    assert!(grown.iter().all(|&grown| grown < 256 << 20), "{grown:?}");
    assert!(worst < Duration::from_secs(2), "{worst:?}");
}

/// What a client sent to a node that stood still waits in its socket, and is the first that the node hears when it goes on. By then others have
/// subscribed without waiting for it.
#[test]
fn a_node_that_stood_still_acknowledges_nothing_that_passes_new_subscribers() {
    let nodes = cluster_on(3, 2);
    let mut publishers: Vec<Client> = (0..8).map(|n| client(&nodes[2], &format!("p{n}"))).collect();
    for (n, publisher) in publishers.iter_mut().enumerate() {
        // The receivers of the topic are remembered.
        publisher.publish_acked(&format!("t/{n}"), b"before");
    }
    nodes[2].signal(libc::SIGSTOP);
    wait_for(&nodes[0], &["alive", "alive", "dead"]);
    let mut subscriber = client(&nodes[0], "s");
    subscriber.subscribe("t/#", QoS::AtLeastOnce);
    for (n, publisher) in publishers.iter_mut().enumerate() {
        publisher.publish(&format!("t/{n}"), n.to_string().as_bytes(), QoS::AtLeastOnce, false);
    }
    std::thread::sleep(Duration::from_secs(4));
    nodes[2].signal(libc::SIGCONT);
    let mut expected = Vec::new();
    for (n, publisher) in publishers.iter_mut().enumerate() {
        let received = publisher.recv();
        let Packet::PubAck(ack) = received.packet() else { panic!("not a PUBACK: {received:?}") };
        if !ack.reason.is_error() {
            expected.push(n.to_string());
        }
    }
    eprintln!("{} of 8 were acknowledged", expected.len());
    let mut heard: Vec<String> = expected.iter().map(|_| payload(&mut subscriber)).collect();
    heard.sort();
    assert_eq!(heard, expected);
}

/// A persistent session lives on the node it connected to, and is reached from the others.
#[test]
fn a_message_for_an_offline_session_of_another_node_waits_for_it_there() {
    let nodes = cluster(2);
    // Session Expiry Interval: ten minutes.
    let properties = vec![0x11, 0, 0, 2, 88];
    let mut options = ConnectOptions { properties, ..ConnectOptions::new(Version::V5, "sleeper") };
    let (mut sleeper, _) = Client::connect_with(nodes[1].tcp(), &options);
    sleeper.subscribe("night/#", QoS::AtLeastOnce);
    sleeper.disconnect();
    let mut publisher = client(&nodes[0], "p");
    assert_eq!(publisher.publish_acked("night/1", b"while it slept"), Reason::SUCCESS);
    options.clean = false;
    let (mut sleeper, _) = Client::connect_with(nodes[1].tcp(), &options);
    assert_eq!(payload(&mut sleeper), "while it slept");
}

#[test]
fn a_retained_message_is_found_on_every_node_and_on_one_that_was_away() {
    let mut nodes = cluster(3);
    let mut publisher = client(&nodes[0], "p");
    let retain = |publisher: &mut Client, topic: &str, payload: &[u8]| {
        publisher.publish(topic, payload, QoS::AtLeastOnce, true);
        let received = publisher.recv();
        assert!(matches!(received.packet(), Packet::PubAck(ack) if !ack.reason.is_error()), "{received:?}");
    };
    retain(&mut publisher, "state/1", b"one");
    retain(&mut publisher, "state/2", b"two");
    for node in &nodes {
        let mut subscriber = client(node, "s");
        subscriber.subscribe("state/1", QoS::AtLeastOnce);
        assert_eq!(payload(&mut subscriber), "one");
    }
    let crashed = nodes.pop().expect("three").crash();
    wait_for(&nodes[0], &["alive", "alive", "dead"]);
    retain(&mut publisher, "state/1", b"changed");
    retain(&mut publisher, "state/2", b"");
    retain(&mut publisher, "state/3", b"three");
    let back = crashed.restart();
    back.wait_for_metric("bifro_retained_messages", |messages| messages == 2.0);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut subscriber = client(&back, "s");
        subscriber.subscribe("state/#", QoS::AtLeastOnce);
        let mut found = [payload(&mut subscriber), payload(&mut subscriber)];
        found.sort();
        if found == ["changed", "three"] {
            break;
        }
        assert!(Instant::now() < deadline, "{found:?}");
    }
}

#[test]
fn a_node_hears_clients_when_it_has_joined_and_not_before() {
    let addresses = [free_address(), free_address()];
    let first = node(addresses[0], &addresses[..1], "", SECRET);
    let mut publisher = client(&first, "p");
    let second = node(addresses[1], &addresses[..1], "", SECRET);
    // It listens only now that it knows the first.
    let mut subscriber = client(&second, "s");
    subscriber.subscribe("t", QoS::AtLeastOnce);
    assert_eq!(publisher.publish_acked("t", b"x"), Reason::SUCCESS);
    assert_eq!(payload(&mut subscriber), "x");
}

/// What a node draws itself it must not draw of what all nodes have in common.
#[test]
fn clients_without_an_identifier_are_different_clients_on_every_node() {
    let nodes = cluster(2);
    let mut first = Client::connect(nodes[0].tcp(), Version::V5, "");
    let mut second = Client::connect(nodes[1].tcp(), Version::V5, "");
    for client in [&mut first, &mut second] {
        assert_eq!(client.publish_acked("t", b"still here"), Reason::NO_MATCHING_SUBSCRIBERS);
    }
    assert_eq!(nodes.iter().map(|node| node.metric("bifro_takeovers_total")).sum::<f64>(), 0.0);
}

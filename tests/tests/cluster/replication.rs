//! Persistent sessions that outlive nodes: whoever dies, nothing acknowledged is lost, and clients go on elsewhere.

use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::reason::Reason;
use bifro_tests::client::{Client, ConnectOptions};
use bifro_tests::cluster::{cluster, wait_for};
use bifro_tests::{Broker, PATIENCE};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Waits until every range has a leader that all nodes know, and all its replicas where they belong.
pub(crate) fn until_replicated<N: std::borrow::Borrow<Broker>>(nodes: &[N]) {
    let nodes: Vec<&Broker> = nodes.iter().map(N::borrow).collect();
    for node in &nodes {
        node.wait_for_metric("bifro_ranges_unled", |unled| unled == 0.0);
    }
    // A leader looks at once where its range's replicas belong, when it hears of a node.
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    loop {
        let sum = |name: &str| nodes.iter().map(|node| node.metric(name)).sum::<f64>();
        if (sum("bifro_ranges_led"), sum("bifro_ranges_moving")) == (8.0, 0.0) {
            return;
        }
        assert!(
            start.elapsed() < 3 * PATIENCE,
            "{} led, {} moving",
            sum("bifro_ranges_led"),
            sum("bifro_ranges_moving")
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn replicated(count: usize) -> Vec<Broker> {
    let nodes = cluster(count);
    until_replicated(&nodes);
    nodes
}

/// A session that is kept for an hour.
pub(crate) fn kept(id: &str) -> ConnectOptions {
    ConnectOptions { properties: vec![0x11, 0, 0, 14, 16], clean: false, ..ConnectOptions::new(Version::V5, id) }
}

/// Connects as soon as the node takes the client; says whether its session was there.
pub(crate) fn resume(node: &Broker, id: &str) -> (Client, bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = Client::open(node.tcp(), Version::V5);
        match client.login(&kept(id)) {
            Ok(received) => {
                let Packet::ConnAck(ack) = received.packet() else { panic!("not a CONNACK: {received:?}") };
                let present = ack.session_present;
                return (client, present);
            }
            Err(reason) => assert!(Instant::now() < deadline, "{id} is refused: {reason}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sessions s0, s1... of clients that connected to the node, subscribed to q/0, q/1... and are away.
pub(crate) fn leave_sessions(node: &Broker, count: u32) {
    for turn in 0..count {
        let (mut client, _) = resume(node, &format!("s{turn}"));
        client.subscribe(&format!("q/{turn}"), QoS::AtLeastOnce);
        client.disconnect();
    }
}

pub(crate) fn payload(client: &mut Client) -> String {
    let received = client.recv_publish();
    match received.packet() {
        Packet::Publish(publish) => String::from_utf8_lossy(publish.payload).into_owned(),
        other => panic!("not a publish: {other:?}"),
    }
}

/// Publishes until it is acknowledged, on another connection if this one has to go. Returns how long that took.
pub(crate) fn publish(node: &Broker, publisher: &mut Client, id: &str, topic: &str, payload: &str) -> Duration {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < 2 * PATIENCE, "{payload} is not acknowledged");
        publisher.publish(topic, payload.as_bytes(), QoS::AtLeastOnce, false);
        let answer = publisher.recv_within(PATIENCE).flatten();
        match answer.as_ref().map(|received| received.packet()) {
            Some(Packet::PubAck(ack)) if !ack.reason.is_error() => return start.elapsed(),
            Some(Packet::PubAck(_)) => {}
            _ => *publisher = Client::connect(node.tcp(), Version::V5, id),
        }
    }
}

#[test]
fn sessions_are_reached_from_every_node_and_resumed_on_any() {
    let nodes = replicated(3);
    for turn in 0..12_usize {
        let id = format!("s{turn}");
        let (mut client, present) = resume(&nodes[turn % 3], &id);
        assert!(!present);
        client.subscribe(&format!("q/{turn}"), QoS::ExactlyOnce);
        let mut publisher = Client::connect(nodes[(turn + 1) % 3].tcp(), Version::V5, "p");
        assert_eq!(publisher.publish_acked(&format!("q/{turn}"), b"online"), Reason::SUCCESS);
        assert_eq!(payload(&mut client), "online");
        client.disconnect();
        assert_eq!(publisher.publish_acked(&format!("q/{turn}"), b"offline"), Reason::SUCCESS);
        assert_eq!(publisher.publish_exactly_once(&format!("q/{turn}"), b"once"), Reason::SUCCESS);
        let (mut client, present) = resume(&nodes[(turn + 2) % 3], &id);
        assert!(present, "{id}");
        assert_eq!([payload(&mut client), payload(&mut client)], ["offline", "once"]);
        client.expect_silence();
    }
}

/// A leader that has synced a message before its followers have is missing only their word, and waits for none of its heartbeats, which are 100 ms apart.
#[test]
fn a_publish_is_acknowledged_as_soon_as_a_follower_has_it() {
    let nodes = replicated(3);
    leave_sessions(&nodes[0], 1);
    for node in &nodes {
        let mut publisher = Client::connect(node.tcp(), Version::V5, "p");
        let times = (0..40).map(|_| publish(node, &mut publisher, "p", "q/0", "x"));
        let mut times: Vec<Duration> = times.collect();
        times.sort_unstable();
        // Not all: the CPUs are shared with other tests.
        assert!(times[times.len() / 4] < Duration::from_millis(40), "{times:?}");
    }
}

#[test]
fn a_session_outlives_the_node_of_its_client_and_the_node_that_led_it() {
    let mut nodes = replicated(3);
    leave_sessions(&nodes[0], 16);
    let mut publisher = Client::connect(nodes[0].tcp(), Version::V5, "p");
    for turn in 0..16 {
        assert_eq!(publisher.publish_acked(&format!("q/{turn}"), b"before"), Reason::SUCCESS);
    }
    // The seed has founded the cluster, and so leads every range until somebody else has to.
    assert!(nodes[0].metric("bifro_ranges_led") > 0.0);
    let killed = nodes.remove(0).crash();
    let start = Instant::now();
    let mut publisher = Client::connect(nodes[0].tcp(), Version::V5, "p2");
    publish(&nodes[0], &mut publisher, "p2", "q/0", "after");
    eprintln!("publishing to sessions works again {:?} after the kill", start.elapsed());
    for turn in 1..16 {
        publish(&nodes[0], &mut publisher, "p2", &format!("q/{turn}"), "after");
    }
    for turn in 0..16 {
        let (mut client, present) = resume(&nodes[1], &format!("s{turn}"));
        assert!(present, "s{turn}");
        assert_eq!(payload(&mut client), "before");
        assert_eq!(payload(&mut client), "after");
    }
    let back = killed.restart();
    wait_for(&back, &["alive", "alive", "alive"]);
    let (mut client, present) = resume(&back, "s3");
    assert!(present);
    publish(&nodes[1], &mut publisher, "p2", "q/3", "at last");
    while payload(&mut client) != "at last" {}
}

/// Each node is killed in turn and comes back, while a publisher on another sends without a pause to a session that is away.
#[test]
fn every_node_is_killed_in_turn_and_no_acknowledged_message_is_lost() {
    let mut nodes = replicated(3);
    let (mut client, _) = resume(&nodes[0], "sleeper");
    client.subscribe("night/#", QoS::AtLeastOnce);
    client.disconnect();
    let mut acknowledged = HashSet::new();
    let mut worst = Duration::ZERO;
    for turn in 0..6 {
        let killed = nodes.remove(0).crash();
        let mut publisher = Client::connect(nodes[1].tcp(), Version::V5, "p");
        for n in 0..100 {
            let message = format!("{turn}.{n}");
            worst = worst.max(publish(&nodes[1], &mut publisher, "p", "night/1", &message));
            acknowledged.insert(message);
        }
        nodes.push(killed.restart());
        until_replicated(&nodes);
    }
    eprintln!("the longest that a publish took is {worst:?}");
    let (mut client, present) = resume(&nodes[0], "sleeper");
    assert!(present);
    while !acknowledged.is_empty() {
        acknowledged.remove(&payload(&mut client));
    }
}

/// All at once, which leaves nobody who remembers anything but the disks.
#[test]
fn all_nodes_are_killed_at_once_and_every_session_is_there_again() {
    let nodes = replicated(3);
    for turn in 0..8 {
        let (mut client, _) = resume(&nodes[turn % 3], &format!("s{turn}"));
        client.subscribe(&format!("q/{turn}"), QoS::AtLeastOnce);
    }
    let mut publisher = Client::connect(nodes[1].tcp(), Version::V5, "p");
    for turn in 0..8 {
        assert_eq!(publisher.publish_acked(&format!("q/{turn}"), b"kept"), Reason::SUCCESS);
    }
    let killed: Vec<_> = nodes.into_iter().map(Broker::crash).collect();
    let begun: Vec<_> = killed.into_iter().map(|node| node.begin_again()).collect();
    let nodes: Vec<_> = begun.into_iter().map(Broker::until_ready).collect();
    until_replicated(&nodes);
    for turn in 0..8 {
        let (mut client, present) = resume(&nodes[(turn + 1) % 3], &format!("s{turn}"));
        assert!(present, "s{turn}");
        assert_eq!(payload(&mut client), "kept");
    }
}

/// A client of MQTT 3.1.1 cannot be told that a publish has failed, so it does not fail: it waits for the next leader.
#[test]
fn a_publisher_hears_nothing_of_the_death_of_a_leader_but_a_pause() {
    let mut nodes = replicated(3);
    leave_sessions(&nodes[2], 8);
    let mut publisher = Client::connect(nodes[1].tcp(), Version::V311, "p");
    let (mut killed, mut worst) = (None, Duration::ZERO);
    for n in 0..400 {
        if n == 100 {
            killed = Some(nodes.remove(0).crash());
        }
        let start = Instant::now();
        publisher.publish(&format!("q/{}", n % 8), n.to_string().as_bytes(), QoS::AtLeastOnce, false);
        let answer = publisher.recv();
        assert!(matches!(answer.packet(), Packet::PubAck(_)), "{n}: {answer:?}");
        worst = worst.max(start.elapsed());
    }
    eprintln!("the longest that a publish took is {worst:?}");
    for turn in 0..8 {
        let (mut client, present) = resume(&nodes[1], &format!("s{turn}"));
        assert!(present);
        let mut missing: HashSet<String> = (0..400).filter(|n| n % 8 == turn).map(|n| n.to_string()).collect();
        while !missing.is_empty() {
            missing.remove(&payload(&mut client));
        }
    }
    drop(killed);
}

/// More than a message between nodes may have, pushed at once.
#[test]
fn a_queue_of_large_messages_reaches_a_client_on_another_node_than_leads_it() {
    let nodes = replicated(2);
    let (mut client, _) = resume(&nodes[0], "large");
    client.subscribe("large", QoS::AtLeastOnce);
    client.disconnect();
    let mut publisher = Client::connect(nodes[0].tcp(), Version::V5, "p");
    let body = vec![7; 200 << 10];
    for _ in 0..100 {
        assert_eq!(publisher.publish_acked("large", &body), Reason::SUCCESS);
    }
    for node in [&nodes[1], &nodes[0], &nodes[1]] {
        // It leaves without a word, so the messages are sent again.
        let (mut client, present) = resume(node, "large");
        assert!(present);
        let first = client.recv();
        assert!(matches!(first.packet(), Packet::Publish(publish) if publish.payload == body));
    }
    let (mut client, _) = resume(&nodes[1], "large");
    for _ in 0..100 {
        assert_eq!(payload(&mut client).len(), body.len());
    }
}

/// Clients of a node that lives keep their connections when the leaders of their sessions die, and miss nothing.
#[test]
fn a_connection_goes_on_when_the_leader_of_its_session_dies() {
    let mut nodes = replicated(3);
    // The last leads most.
    nodes.sort_by_key(|node| node.metric("bifro_ranges_led") as u32);
    let mut clients: Vec<(Client, u32)> =
        (0..16).map(|turn| (resume(&nodes[0], &format!("s{turn}")).0, turn)).collect();
    for (client, turn) in &mut clients {
        client.subscribe(&format!("q/{turn}"), QoS::ExactlyOnce);
    }
    let mut publisher = Client::connect(nodes[0].tcp(), Version::V5, "p");
    for (_, turn) in &clients {
        // In hand when the leader dies: nobody reads it yet.
        assert_eq!(publisher.publish_acked(&format!("q/{turn}"), b"before"), Reason::SUCCESS);
    }
    let moved = nodes[0].metric("bifro_inboxes_moved_total");
    drop(nodes.remove(2).crash());
    for (_, turn) in &clients {
        publish(&nodes[0], &mut publisher, "p", &format!("q/{turn}"), "meanwhile");
    }
    nodes[0].wait_for_metric("bifro_ranges_unled", |unled| unled == 0.0);
    for (client, turn) in &mut clients {
        assert_eq!([payload(client), payload(client)], ["before", "meanwhile"], "s{turn}");
        assert_eq!(publisher.publish_exactly_once(&format!("q/{turn}"), b"after"), Reason::SUCCESS);
        assert_eq!(payload(client), "after", "s{turn}");
    }
    assert!(nodes[0].metric("bifro_inboxes_moved_total") > moved, "no session was led by the node that died");
    assert_eq!(nodes[0].metric("bifro_inboxes_lost_total"), 0.0);
    // A session that goes on can be taken over, and left, as any other.
    for (client, turn) in clients {
        if turn % 2 == 0 {
            client.disconnect();
        }
        publish(&nodes[0], &mut publisher, "p", &format!("q/{turn}"), "late");
        let (mut client, present) = resume(&nodes[1], &format!("s{turn}"));
        assert!(present && payload(&mut client) == "late", "s{turn}");
    }
}

/// Whoever would attach to a session that nobody can lead is told so.
#[test]
fn without_a_majority_a_client_is_told_that_the_service_is_unavailable() {
    let mut nodes = replicated(3);
    drop(nodes.remove(2).crash());
    drop(nodes.remove(1).crash());
    nodes[0].wait_for_metric("bifro_ranges_unled", |unled| unled == 8.0);
    let options = [ConnectOptions::new(Version::V5, "clean"), kept("kept")];
    let clients = options.map(|options| {
        let mut client = Client::open(nodes[0].tcp(), Version::V5);
        client.send_bytes(&options.encode());
        client
    });
    for mut client in clients {
        let answer = client.recv_within(3 * PATIENCE).flatten().expect("an answer");
        let Packet::ConnAck(ack) = answer.packet() else { panic!("not a CONNACK: {answer:?}") };
        assert_eq!(ack.reason, Reason::SERVER_UNAVAILABLE);
    }
}

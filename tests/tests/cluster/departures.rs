//! Nodes that are to go: drained while everybody goes on, or removed when they do not come back.

use super::replication::{payload, replicated, resume, until_replicated};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::reason::Reason;
use bifro_tests::client::{Client, ConnectOptions};
use bifro_tests::cluster::{LONG_QUEUES, SECRET, begin, free_address, id, page, wait_for};
use bifro_tests::{Broker, PATIENCE};
use std::collections::HashSet;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What `bifroctl` says, and whether it has done what it was told.
pub(crate) fn bifroctl(arguments: &[&str]) -> (bool, String) {
    let tool = bifro_tests::process::binaries().join("bifroctl");
    let output = Command::new(tool).args(arguments).output().expect("the tool runs");
    let told = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&told).into_owned())
}

/// `bifroctl node` by way of another node.
pub(crate) fn node(by: &Broker, wish: &str, of: &str) -> (bool, String) {
    bifroctl(&["node", wish, of, "--admin", &by.address("admin").to_string()])
}

/// What the first of the nodes says of a node.
pub(crate) fn told_of(by: &Broker, id: &str, field: &str) -> String {
    let page = page(by);
    let nodes = page["nodes"].as_array().expect("a list");
    nodes.iter().find(|node| node["id"] == *id).map_or_else(String::new, |node| node[field].to_string())
}

fn sum(nodes: &[&Broker], name: &str) -> f64 {
    nodes.iter().map(|node| node.metric(name)).sum()
}

/// Publishes until it is told to stop, on whichever node takes it. Returns what was acknowledged.
fn publish_until(stop: &AtomicBool, name: &str, nodes: &[SocketAddr]) -> Vec<String> {
    let (mut acknowledged, mut at, mut client) = (Vec::new(), 0, None);
    for n in 0_u64.. {
        let message = format!("{name}.{n}");
        loop {
            if stop.load(Ordering::Relaxed) {
                return acknowledged;
            }
            let client = client.get_or_insert_with(|| connect(nodes, &mut at, name));
            client.publish("q/load", message.as_bytes(), QoS::AtLeastOnce, false);
            let answer = client.recv_within(PATIENCE).flatten();
            match answer.as_ref().map(|answer| answer.packet()) {
                Some(Packet::PubAck(ack)) if !ack.reason.is_error() => break acknowledged.push(message),
                Some(Packet::PubAck(_)) => {}
                _ => *client = connect(nodes, &mut at, name),
            }
        }
    }
    acknowledged
}

fn connect(nodes: &[SocketAddr], at: &mut usize, name: &str) -> Client {
    loop {
        let options = ConnectOptions::new(Version::V5, name);
        if let Ok(stream) = TcpStream::connect(nodes[*at]) {
            let mut client = Client::over(Box::new(stream), Version::V5);
            client.send_bytes(&options.encode());
            let answer = client.recv_within(PATIENCE).flatten();
            if matches!(answer.as_ref().map(|answer| answer.packet()), Some(Packet::ConnAck(ack)) if !ack.reason.is_error())
            {
                return client;
            }
        }
        *at = (*at + 1) % nodes.len();
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_node_is_drained_under_load_and_stopped_and_nothing_acknowledged_is_lost() {
    let addresses: Vec<SocketAddr> = (0..4).map(|_| free_address()).collect();
    let start = |&address| begin(address, &addresses[..1], LONG_QUEUES, SECRET).until_ready();
    let mut nodes: Vec<Broker> = addresses.iter().map(start).collect();
    until_replicated(&nodes);
    let (mut sleeper, _) = resume(&nodes[0], "sleeper");
    sleeper.subscribe("q/#", QoS::AtLeastOnce);
    sleeper.disconnect();
    let (going, addresses) = (id(&nodes[1]), nodes.iter().map(Broker::tcp).collect::<Vec<_>>());
    let held = nodes[1].metric("bifro_ranges_held");
    assert!(held > 0.0);
    let mut guest = Client::connect(nodes[1].tcp(), Version::V5, "guest");
    let stop = AtomicBool::new(false);
    let acknowledged = std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..4)
            .map(|n| {
                let (stop, mut addresses) = (&stop, addresses.clone());
                addresses.rotate_left(n);
                scope.spawn(move || publish_until(stop, &format!("p{n}"), &addresses))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(500));
        let start = Instant::now();
        let (done, told) = node(&nodes[0], "drain", &going);
        eprintln!("drained in {:?}: {told}", start.elapsed());
        assert!(done && told.ends_with("is drained: it can be stopped, or removed\n"), "{told}");
        guest.expect_disconnect(Reason::USE_ANOTHER_SERVER);
        let gone = nodes.remove(1);
        assert_eq!((gone.metric("bifro_ranges_held"), gone.metric("bifro_ranges_led")), (0.0, 0.0));
        assert_eq!(bifro_tests::http::get(gone.address("admin"), "/readyz").status, 503);
        let mut late = Client::open(gone.tcp(), Version::V5);
        assert_eq!(late.login(&ConnectOptions::new(Version::V5, "late")).err(), Some(Reason::USE_ANOTHER_SERVER));
        drop(late);
        let stopped = gone.stop();
        std::thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        drop(stopped);
        publishers.into_iter().flat_map(|publisher| publisher.join().expect("it publishes")).collect::<HashSet<_>>()
    });
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    let (mut sleeper, present) = resume(&nodes[1], "sleeper");
    assert!(present);
    let mut missing = acknowledged;
    while !missing.is_empty() {
        missing.remove(&payload(&mut sleeper));
    }
}

#[test]
fn draining_outlives_a_restart_and_can_be_called_off() {
    let mut nodes = replicated(3);
    let last = nodes.pop().expect("three");
    let going = id(&last);
    let admin = last.address("admin").to_string();
    let (done, told) = bifroctl(&["node", "drain", "--no-wait", "--admin", &admin]);
    assert!(done && told.contains("no more than 2 of each range"), "{told}");
    last.wait_for_metric("bifro_ranges_held", |held| held == 0.0);
    let back = last.crash().restart();
    assert_eq!(told_of(&back, &going, "draining"), "true");
    wait_for(&nodes[0], &["alive", "alive", "alive"]);
    assert_eq!((told_of(&nodes[0], &going, "draining"), back.metric("bifro_ranges_held")), ("true".to_owned(), 0.0));
    let (_, table) = bifroctl(&["node", "list", "--admin", &nodes[0].address("admin").to_string()]);
    assert!(table.contains(" draining "), "{table}");
    assert!(node(&nodes[1], "undrain", &going).0);
    nodes.push(back);
    until_replicated(&nodes);
    assert_eq!(sum(&nodes.iter().collect::<Vec<_>>(), "bifro_ranges_held"), 24.0);
    Client::connect(nodes[2].tcp(), Version::V5, "welcome").disconnect();
}

#[test]
fn a_drained_node_that_is_removed_ends() {
    let mut nodes = replicated(3);
    let mut last = nodes.pop().expect("three");
    let going = id(&last);
    let (done, told) = node(&nodes[0], "remove", &going);
    assert!(!done && told.contains("lives: `bifroctl node drain"), "{told}");
    assert!(node(&nodes[0], "drain", &going).0);
    let (done, told) = node(&nodes[0], "remove", &going);
    assert!(done, "{told}");
    assert!(last.wait(PATIENCE).success());
    for node in &nodes {
        wait_for(node, &["alive", "alive", "removed"]);
    }
    let (done, told) = node(&nodes[0], "remove", &id(&nodes[0]));
    assert!(!done && told.contains("ask another one"), "{told}");
}

/// Well before the grace of a minute is over.
#[test]
fn the_replicas_of_a_removed_node_are_made_again_and_it_may_come_back_as_a_newcomer() {
    let mut nodes = replicated(4);
    let (mut client, _) = resume(&nodes[0], "kept");
    client.subscribe("kept", QoS::AtLeastOnce);
    client.disconnect();
    let last = nodes.remove(1);
    let gone = id(&last);
    assert!(last.metric("bifro_ranges_held") > 0.0);
    let crashed = last.crash();
    for node in &nodes {
        wait_for(node, &["alive", "alive", "alive", "dead"]);
    }
    assert!(!node(&nodes[0], "remove", "somebody").0);
    assert!(!node(&nodes[0], "remove", "n1").0);
    let start = Instant::now();
    // Ranges that it led have other leaders a moment after it is known to be dead.
    nodes[0].wait_for_metric("bifro_ranges_unled", |unled| unled == 0.0);
    let (done, told) = node(&nodes[0], "remove", &gone);
    assert!(done, "{told}");
    for node in &nodes {
        wait_for(node, &["alive", "alive", "alive", "removed"]);
        node.wait_for_metric("bifro_cluster_addresses_lost", |lost| lost == 0.0);
    }
    until_replicated(&nodes);
    eprintln!("the replicas of the removed node are made again after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(30));
    assert_eq!(sum(&nodes.iter().collect::<Vec<_>>(), "bifro_ranges_held"), 24.0);
    let mut publisher = Client::connect(nodes[0].tcp(), Version::V5, "p");
    assert_eq!(publisher.publish_acked("kept", b"without it"), Reason::SUCCESS);
    nodes.push(crashed.restart());
    for node in &nodes {
        wait_for(node, &["alive", "alive", "alive", "alive"]);
    }
    until_replicated(&nodes);
    let all: Vec<&Broker> = nodes.iter().collect();
    let deadline = Instant::now() + 3 * PATIENCE;
    while sum(&all, "bifro_ranges_held") != 24.0 {
        assert!(Instant::now() < deadline, "{} replicas, not 24", sum(&all, "bifro_ranges_held"));
        std::thread::sleep(Duration::from_millis(100));
    }
    let (mut client, present) = resume(&nodes[3], "kept");
    assert!(present);
    assert_eq!(payload(&mut client), "without it");
}

#[test]
fn a_node_whose_replicas_are_the_last_but_one_is_not_removed() {
    let mut nodes = replicated(3);
    let gone: Vec<String> = nodes[1..].iter().map(id).collect();
    nodes.drain(1..).for_each(|node| drop(node.crash()));
    wait_for(&nodes[0], &["alive", "dead", "dead"]);
    nodes[0].wait_for_metric("bifro_ranges_unled", |unled| unled == 8.0);
    let (done, told) = node(&nodes[0], "remove", &gone[0]);
    assert!(!done && told.contains("inbox:0, inbox:1") && told.contains("no majority"), "{told}");
    assert!(told.contains(&format!("`bifroctl node remove {} --lost`", gone[0])), "{told}");
    assert_eq!(told_of(&nodes[0], &gone[0], "status"), "\"dead\"");
}

//! What operators see of ranges, and change of them.

use super::departures::bifroctl;
use super::replication::{leave_sessions, publish, replicated};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_tests::Broker;
use bifro_tests::client::Client;
use bifro_tests::cluster::id;
use serde_json::Value;
use std::time::{Duration, Instant};

/// `bifroctl range` by way of a node.
pub(crate) fn range(by: &Broker, arguments: &[&str]) -> (bool, String) {
    let admin = by.address("admin").to_string();
    bifroctl(&[&["range"], arguments, &["--admin", &admin]].concat())
}

/// The ranges that `bifroctl range list` shows with these arguments.
pub(crate) fn list(by: &Broker, arguments: &[&str]) -> Vec<Value> {
    let (done, told) = range(by, &[&["list", "--json"], arguments].concat());
    assert!(done, "{told}");
    let page: Value = serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"));
    page["ranges"].as_array().expect("a list").clone()
}

pub(crate) fn text<'a>(range: &'a Value, field: &str) -> &'a str {
    range[field].as_str().unwrap_or_default()
}

/// Waits until every range of sessions is well, as a node sees it.
fn until_well(by: &Broker) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let ranges = list(by, &["--kind", "inbox"]);
        if ranges.iter().all(|range| text(range, "health") == "well") {
            return ranges;
        }
        assert!(Instant::now() < deadline, "{ranges:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn ranges_are_shown_and_handed_over_by_any_node() {
    let nodes = replicated(3);
    leave_sessions(&nodes[0], 8);
    let mut publisher = Client::connect(nodes[1].tcp(), Version::V5, "p");
    for turn in 0..8 {
        publish(&nodes[1], &mut publisher, "p", &format!("q/{turn}"), "kept");
    }
    let ranges = until_well(&nodes[2]);
    assert_eq!(ranges.len(), 8);
    let sum = |field: &str| ranges.iter().map(|range| range[field].as_u64().expect("it is served")).sum::<u64>();
    assert_eq!((sum("sessions"), sum("messages")), (8, 8));
    for range in &ranges {
        assert_eq!(
            (range["voters"].as_array().map(Vec::len), range["replicas"].as_array().map(Vec::len)),
            (Some(3), Some(3))
        );
    }
    assert_eq!(list(&nodes[0], &["--kind", "retain"]).len(), 24, "each node has its own copies");
    assert_eq!(list(&nodes[0], &["--kind", "retain", "--node", &id(&nodes[1])]).len(), 8);
    let (name, leader) = (text(&ranges[0], "range").to_owned(), text(&ranges[0], "leader").to_owned());
    let ids: Vec<String> = nodes.iter().map(id).collect();
    let heir = ids.iter().position(|id| *id != leader).expect("there are three");
    let (done, told) = range(&nodes[2], &["lead", &name, "--node", &ids[heir]]);
    assert!(done && told.contains(&format!("{name} is led by {}", ids[heir])), "{told}");
    let (_, told) = range(&nodes[2], &["show", &name]);
    assert!(told.contains(&format!("leader     {}\n", ids[heir])) && told.contains("health     "), "{told}");
    let (done, told) = range(&nodes[1], &["lead", &name, "--node", &ids[heir]]);
    assert!(done && told.contains("already"), "{told}");
    for turn in 0..8 {
        publish(&nodes[1], &mut publisher, "p", &format!("q/{turn}"), "kept");
    }
}

#[test]
fn the_services_of_all_nodes_are_shown() {
    let nodes = replicated(2);
    let mut client = Client::connect(nodes[1].tcp(), Version::V5, "c");
    client.publish("kept", b"on", QoS::AtLeastOnce, true);
    client.recv();
    let admin = nodes[0].address("admin").to_string();
    let (done, told) = bifroctl(&["service", "list", "--admin", &admin]);
    let rows = |service: &str, state: &str| {
        told.lines().filter(|line| line.contains(service) && line.ends_with(state)).count()
    };
    assert!(done && told.lines().count() == 11, "{told}");
    assert_eq!(
        (rows(" mqtt ", "listeners 1, connections 1"), rows(" mqtt ", "listeners 1, connections 0")),
        (1, 1),
        "{told}"
    );
    assert_eq!(
        (rows(" retain ", "messages 1"), rows(" inbox ", "replicas 8, leads 0"), rows(" api ", "on")),
        (2, 1, 2),
        "{told}"
    );
}

#[test]
fn what_cannot_be_done_with_ranges_is_told() {
    let mut nodes = replicated(2);
    let other = id(&nodes[1]);
    for (arguments, expected) in [
        (vec!["show", "inbox"], "is no range"),
        (vec!["show", "inbox:99"], "has a replica of inbox:99"),
        (vec!["lead", "inbox:0", "--node", "n1"], "there is no node n1"),
        (vec!["lead", "inbox:99", "--node", &other], "nobody who answers has a replica"),
        (vec!["lead", "retain:0", "--node", &other], "each node leads its own copy"),
    ] {
        let (done, told) = range(&nodes[0], &arguments);
        assert!(!done && told.contains(expected), "{arguments:?}: {told}");
    }
    drop(nodes.remove(1).crash());
    let deadline = Instant::now() + Duration::from_secs(20);
    let is_told = |told: &str| told.contains("no leader for ") && told.contains("1 of 2 voters answer");
    while !is_told(&range(&nodes[0], &["list", "--kind", "inbox"]).1) {
        assert!(Instant::now() < deadline, "{:?}", range(&nodes[0], &["list"]));
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_node_by_itself_shows_its_ranges() {
    let node = Broker::start(2, "");
    let ranges = list(&node, &[]);
    assert_eq!(ranges.len(), 16);
    assert!(ranges.iter().all(|range| text(range, "health") == "well"), "{ranges:?}");
    let (done, told) = range(&node, &["lead", "inbox:0", "--node", "n1"]);
    assert!(!done && told.contains("this node is alone"), "{told}");
}

//! Most of the nodes burn. What is left goes on when an operator says so, and what was lost does not come back.

use super::departures::{bifroctl, told_of};
use super::ranges::{list, range, text};
use super::replication::{leave_sessions, payload, publish, resume, until_replicated};
use bifro_core::client::Version;
use bifro_tests::client::Client;
use bifro_tests::cluster::{SECRET, begin, free_address, id, node, wait_for};
use bifro_tests::process::Crashed;
use bifro_tests::{Broker, PATIENCE};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What a process ends with that must not go on.
const UNUSABLE: Option<i32> = Some(74);

/// So many nodes, any of which is found by any other.
fn seeds(count: usize) -> (Vec<SocketAddr>, Vec<Broker>) {
    let bind: Vec<SocketAddr> = (0..count).map(|_| free_address()).collect();
    let nodes: Vec<Broker> = bind.iter().map(|&here| begin(here, &bind, "", SECRET)).collect();
    let nodes: Vec<Broker> = nodes.into_iter().map(Broker::until_ready).collect();
    for node in &nodes {
        wait_for(node, &vec!["alive"; count]);
    }
    until_replicated(&nodes);
    (bind, nodes)
}

/// Waits until every replica of every range of sessions has the whole log.
fn until_equal(by: &Broker) {
    let deadline = Instant::now() + PATIENCE;
    let is_whole = |range: &Value| {
        let replicas = range["replicas"].as_array().expect("a list");
        replicas.len() == 3
            && replicas.iter().all(|one| one["last"] == replicas[0]["last"] && one["applied"] == one["last"][1])
    };
    while !list(by, &["--kind", "inbox"]).iter().all(is_whole) {
        assert!(Instant::now() < deadline, "{:?}", list(by, &["--kind", "inbox"]));
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn remove_lost(by: &Broker, lost: &str) -> (bool, String) {
    bifroctl(&["node", "remove", lost, "--lost", "--admin", &by.address("admin").to_string()])
}

fn recover_all(by: &Broker) -> (bool, String) {
    range(by, &["recover", "--all", "--accept-loss"])
}

/// Publishes to all of 16 sessions.
fn publish_to_all(by: &Broker, name: &str, payload: &str) {
    let mut publisher = Client::connect(by.tcp(), Version::V5, name);
    for turn in 0..16 {
        publish(by, &mut publisher, name, &format!("q/{turn}"), payload);
    }
}

/// Three nodes with sessions, of which one is left; with what two others had, and their ids.
fn burnt() -> (Vec<SocketAddr>, Broker, Vec<Crashed>, Vec<String>) {
    let (bind, mut nodes) = seeds(3);
    leave_sessions(&nodes[1], 16);
    publish_to_all(&nodes[1], "p", "before");
    until_equal(&nodes[0]);
    let lost: Vec<String> = nodes[1..].iter().map(id).collect();
    let crashed = nodes.drain(1..).map(Broker::crash).collect();
    let left = nodes.remove(0);
    wait_for(&left, &["alive", "dead", "dead"]);
    left.wait_for_metric("bifro_ranges_unled", |unled| unled == 8.0);
    (bind, left, crashed, lost)
}

#[test]
fn of_three_nodes_two_burn_and_the_third_goes_on_with_what_it_has() {
    let (bind, left, crashed, lost) = burnt();
    // Their disks are gone with them.
    crashed.iter().for_each(|crashed| std::fs::remove_dir_all(&crashed.dir).expect("it can be removed"));
    assert!(!range(&left, &["recover", "--all"]).0, "not without saying what it costs");
    let (done, told) = recover_all(&left);
    assert!(
        !done && told.contains("may come back") && told.contains(&format!("`bifroctl node remove {} --lost`", lost[0])),
        "{told}"
    );
    let (done, told) = remove_lost(&left, &lost[0]);
    assert!(done, "{told}");
    let (done, told) = range(&left, &["recover", "inbox:0", "--accept-loss"]);
    assert!(!done && told.contains(&lost[1]) && !told.contains(&lost[0]), "{told}");
    assert!(remove_lost(&left, &lost[1]).0);
    let deadline = Instant::now() + PATIENCE;
    while told_of(&left, &lost[1], "status") != "\"lost\"" {
        assert!(Instant::now() < deadline, "the node does not show that another one is lost");
        std::thread::sleep(Duration::from_millis(20));
    }
    let start = Instant::now();
    let (done, told) = recover_all(&left);
    assert!(done && told.lines().count() == 8 && told.contains("inbox:7 goes on on "), "{told}");
    eprintln!("all ranges are served again {:?} after it was said", start.elapsed());
    assert_eq!(recover_all(&left), (true, "no range has lost its majority\n".to_owned()));
    publish_to_all(&left, "p", "after");
    // Others with empty disks take the places of the burnt ones, and then any may die.
    let mut nodes = vec![left];
    nodes.extend(bind[1..].iter().map(|&here| node(here, &bind, "", SECRET)));
    until_replicated(&nodes);
    until_equal(&nodes[1]);
    drop(nodes.remove(0).crash());
    for turn in 0..16 {
        let (mut client, present) = resume(&nodes[turn % 2], &format!("s{turn}"));
        assert!(present, "s{turn}");
        assert_eq!([payload(&mut client), payload(&mut client)], ["before", "after"]);
    }
}

#[test]
fn nodes_that_were_declared_lost_are_not_let_in_again_with_their_old_disks() {
    let (_, left, crashed, lost) = burnt();
    // A later process has never met them.
    let left = left.crash().restart();
    lost.iter().for_each(|lost| assert!(remove_lost(&left, lost).0));
    let (done, told) = recover_all(&left);
    assert!(done, "{told}");
    let copies: Vec<Crashed> = crashed.iter().map(Crashed::copy).collect();
    publish_to_all(&left, "p", "after");
    // Both at once, which together have a majority of all that they know.
    let back: Vec<Broker> = crashed.into_iter().map(Crashed::begin_again).collect();
    for mut back in back {
        assert_eq!(back.wait(3 * PATIENCE).code(), UNUSABLE, "{:?}", back.log_lines());
        assert!(back.log_lines().iter().any(|line| line.contains("declared this node lost")), "{:?}", back.log_lines());
    }
    publish_to_all(&left, "p", "at last");
    // Nor by a later process of the one that is left.
    let left = left.crash().restart();
    assert_eq!(told_of(&left, &lost[0], "status"), "\"lost\"");
    for copy in copies {
        assert_eq!(copy.begin_again().wait(3 * PATIENCE).code(), UNUSABLE);
    }
    until_replicated(&[&left]);
    for turn in 0..16 {
        let (mut client, present) = resume(&left, &format!("s{turn}"));
        assert!(present, "s{turn}");
        assert_eq!([payload(&mut client), payload(&mut client), payload(&mut client)], ["before", "after", "at last"]);
    }
}

/// Of five nodes the three burn that have all of one range: it begins anew, the others go on with what is left of them.
#[test]
fn a_range_that_has_nothing_left_begins_anew_and_others_go_on() {
    let (_, mut nodes) = seeds(5);
    let ranges = list(&nodes[0], &["--kind", "inbox"]);
    let voters: Vec<&str> = ranges[0]["voters"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let burns = |node: &mut Broker| voters.contains(&id(node).as_str());
    let burnt: Vec<Broker> = nodes.extract_if(.., burns).collect();
    let left = &nodes[0];
    burnt.into_iter().for_each(|node| drop(node.crash()));
    wait_for(left, &["alive", "alive", "dead", "dead", "dead"]);
    let deadline = Instant::now() + PATIENCE;
    while list(left, &["--kind", "inbox"])
        .iter()
        .any(|range| !text(range, "leader").is_empty() && range["replicas"].as_array().map(Vec::len) == Some(1))
    {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(recover_all(left).1.contains("may come back"));
    voters.iter().for_each(|lost| assert!(remove_lost(left, lost).0));
    let (done, told) = recover_all(left);
    assert!(done && told.contains("inbox:0 begins anew on "), "{told}");
    until_replicated(&nodes);
    leave_sessions(&nodes[1], 16);
    publish_to_all(&nodes[0], "p", "anew");
    for turn in 0..16 {
        let (mut client, present) = resume(&nodes[0], &format!("s{turn}"));
        assert!(present, "s{turn}");
        assert_eq!(payload(&mut client), "anew");
    }
}

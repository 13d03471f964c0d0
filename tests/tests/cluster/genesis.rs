//! A cluster is made once, by a majority of its seeds, whoever starts when and ends when.

use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_tests::Broker;
use bifro_tests::client::Client;
use bifro_tests::cluster::{SECRET, begin, cluster, cluster_id, free_address, id, node, page, table, wait_for};
use bifro_tests::process::Crashed;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

fn three() -> [SocketAddr; 3] {
    [free_address(), free_address(), free_address()]
}

/// What a file of the data directory says after this word.
fn field(dir: &Path, file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(dir.join("data").join(file)).expect("the file is there");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")).map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
}

fn assert_one_cluster(nodes: &[Broker]) -> String {
    let cluster = cluster_id(&nodes[0]);
    for node in nodes {
        wait_for(node, &vec!["alive"; nodes.len()]);
        assert_eq!(cluster_id(node), cluster);
        for name in ["cluster", "seed", "ranges", "founders"] {
            assert_eq!(field(&node.dir, "CLUSTER", name), field(&nodes[0].dir, "CLUSTER", name));
        }
    }
    cluster
}

#[test]
fn the_first_of_three_seeds_waits_the_second_makes_the_cluster_and_the_third_joins() {
    let seeds = three();
    let first = begin(seeds[0], &seeds, "", SECRET);
    first.wait_for_log("whom it waits for", |line| {
        line.contains("waiting for a majority of the seeds to create the cluster: heard 1 of 3")
            && line.contains(&seeds[1].to_string())
            && line.contains(&seeds[2].to_string())
    });
    assert!(!first.log_lines().iter().any(|line| line.contains("\"ready\"")), "it serves nobody");
    let second = begin(seeds[1], &seeds, "", SECRET).until_ready();
    let first = first.until_ready();
    let third = node(seeds[2], &seeds, "", SECRET);
    let stranger = node(free_address(), &seeds, "", SECRET);
    let nodes = [first, second, third, stranger];
    assert_one_cluster(&nodes);
    assert_eq!(field(&nodes[0].dir, "CLUSTER", "founders").split(' ').count(), 2);
    assert!(nodes.iter().all(|node| !node.dir.join("data/GENESIS").exists()));
}

#[test]
fn a_node_that_waits_for_others_ends_in_order_when_it_is_told_to() {
    let seeds = three();
    let waiting = begin(seeds[0], &seeds, "", SECRET);
    waiting.wait_for_log("that it waits", |line| line.contains("waiting for a majority of the seeds"));
    assert_eq!(waiting.terminate().code(), Some(0));
    let outside = begin(free_address(), &seeds, "", SECRET);
    outside.wait_for_log("that it waits", |line| line.contains("being none of them"));
    assert_eq!(outside.terminate().code(), Some(0));
}

#[test]
fn three_seeds_that_start_together_are_its_founders_and_killed_and_started_in_another_order_are_the_same_cluster() {
    let seeds = three();
    let nodes: Vec<Broker> = seeds.iter().map(|&bind| begin(bind, &seeds, "", SECRET)).collect();
    let nodes: Vec<Broker> = nodes.into_iter().map(Broker::until_ready).collect();
    let made = assert_one_cluster(&nodes);
    let mut founders: Vec<String> = nodes.iter().map(|node| id(node).replace('n', "")).collect();
    founders.sort_by_key(|founder| founder.parse::<u64>().expect("a number"));
    assert_eq!(field(&nodes[0].dir, "CLUSTER", "founders"), founders.join(" "));
    let crashed: Vec<Crashed> = nodes.into_iter().map(Broker::crash).collect();
    let nodes: Vec<Broker> = crashed.into_iter().rev().map(Crashed::restart).collect();
    assert_eq!(assert_one_cluster(&nodes), made);
}

/// Whoever is the founder: one of three is killed at some moment of the start, and the other two go on.
#[test]
fn a_seed_killed_while_the_cluster_is_made_keeps_it_from_nobody() {
    for (round, delay_ms) in [40, 120, 250, 400, 700, 1_200].into_iter().enumerate() {
        let seeds = three();
        let mut nodes: Vec<Broker> = seeds.iter().map(|&bind| begin(bind, &seeds, "", SECRET)).collect();
        let killed = nodes.remove(round % 3);
        std::thread::sleep(Duration::from_millis(delay_ms));
        let crashed = killed.crash();
        let mut nodes: Vec<Broker> = nodes.into_iter().map(Broker::until_ready).collect();
        nodes.push(crashed.restart());
        assert_one_cluster(&nodes);
    }
}

/// Has a node of before, without a cluster, be one of these.
fn brought_along(crashed: Crashed, bind: SocketAddr, seeds: &[SocketAddr]) -> Broker {
    let config = crashed.dir.join("node.toml");
    let text = std::fs::read_to_string(&config).expect("its configuration");
    std::fs::write(&config, format!("{text}{}", table(bind, seeds, ""))).expect("written");
    std::fs::write(crashed.dir.join("cluster.secret"), SECRET).expect("written");
    crashed.begin_again()
}

fn alone_with_data(topic: &str) -> Crashed {
    let alone = Broker::start(1, "");
    let mut publisher = Client::connect(alone.tcp(), Version::V5, "p");
    publisher.publish(topic, b"kept", QoS::AtLeastOnce, true);
    assert!(matches!(publisher.recv().packet(), Packet::PubAck(ack) if !ack.reason.is_error()));
    drop(publisher);
    assert!(page(&alone)["cluster"].is_null());
    alone.crash()
}

#[test]
fn a_node_with_data_that_becomes_a_seed_brings_its_data_along() {
    let seeds = three();
    let alone = alone_with_data("state");
    let cluster = field(&alone.dir, "CLUSTER", "cluster");
    let waiting = begin(seeds[0], &seeds, "", SECRET);
    let first = brought_along(alone, seeds[1], &seeds).until_ready();
    let nodes = [first, waiting.until_ready(), node(seeds[2], &seeds, "", SECRET)];
    assert_eq!(assert_one_cluster(&nodes), format!("c{cluster}"));
    for node in &nodes {
        node.wait_for_metric("bifro_retained_messages", |messages| messages == 1.0);
        let mut subscriber = Client::connect(node.tcp(), Version::V5, "s");
        subscriber.subscribe("state", QoS::AtLeastOnce);
        assert!(matches!(subscriber.recv_publish().packet(), Packet::Publish(publish) if publish.payload == b"kept"));
    }
}

#[test]
fn of_two_nodes_with_data_the_one_that_comes_in_is_refused_and_told_what_to_do() {
    let seeds = [free_address(), free_address()];
    let (one, other) = (alone_with_data("one"), alone_with_data("other"));
    let clusters = [&one, &other].map(|node| format!("c{}", field(&node.dir, "CLUSTER", "cluster")));
    let mut first = brought_along(one, seeds[0], &seeds).until_ready();
    let mut second = brought_along(other, seeds[1], &seeds);
    let status = second.wait(Duration::from_secs(20));
    let told = second.log_lines().join("\n");
    assert!(!status.success(), "{told}");
    assert!(clusters.iter().all(|cluster| told.contains(cluster)), "{told}");
    assert!(told.contains(&id(&first)) && told.contains("empty data_dir"), "{told}");
    first.assert_alive();
    wait_for(&first, &["alive"]);
}

#[test]
fn a_node_of_another_cluster_on_the_address_of_a_dead_one_is_refused_with_one_word() {
    let seeds = [free_address(), free_address()];
    let nodes: Vec<Broker> = seeds.iter().map(|&bind| begin(bind, &seeds, "", SECRET)).collect();
    let mut nodes: Vec<Broker> = nodes.into_iter().map(Broker::until_ready).collect();
    let address = seeds[1];
    drop(nodes.pop().expect("two").crash());
    wait_for(&nodes[0], &["alive", "dead"]);
    let stranger = node(address, &[address], "", SECRET);
    let ids = [cluster_id(&nodes[0]), cluster_id(&stranger)];
    assert_ne!(ids[0], ids[1]);
    let is_word = |line: &str| {
        line.contains("a node of another cluster was refused") && ids.iter().all(|cluster| line.contains(cluster))
    };
    for node in [&nodes[0], &stranger] {
        node.wait_for_log("that they are strangers", is_word);
    }
    nodes[0].wait_for_metric("bifro_cluster_handshakes_refused_total", |refused| refused > 2.0);
    for node in [&nodes[0], &stranger] {
        assert_eq!(node.log_lines().iter().filter(|line| is_word(line)).count(), 1, "not again and again");
        assert_eq!(node.metric("bifro_cluster_members_present"), 1.0);
    }
    // It was made with another: a stranger does not keep it from starting again.
    let again = nodes.pop().expect("one").crash().restart();
    assert_eq!(cluster_id(&again), ids[0]);
    again.wait_for_log("who is at the seed's address", |line| {
        line.contains("a node at the address of a seed is of another cluster") && line.contains(&ids[1])
    });
}

#[test]
fn a_node_that_keeps_nothing_is_of_the_cluster_that_it_meets() {
    let nodes = cluster(2);
    let volatile = "[store]\ndurability = \"volatile\"\n";
    let guest = node(free_address(), &[nodes[0].address("cluster")], volatile, SECRET);
    wait_for(&guest, &["alive", "alive", "alive"]);
    assert_eq!(cluster_id(&guest), cluster_id(&nodes[0]));
    guest.wait_for_metric("bifro_links", |up| up == 4.0);
    let alone = node(free_address(), &[], volatile, SECRET);
    assert!(page(&alone)["cluster"].is_null());
}

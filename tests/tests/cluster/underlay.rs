//! Construction, failure detection, leaving, coming back; strangers.

use bifro_tests::Broker;
use bifro_tests::cluster::{SECRET, begin, cluster, cluster_id, free_address, id, node, page, wait_for};
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn a_killed_node_is_dead_within_two_seconds_and_comes_back_as_the_same() {
    let mut nodes = cluster(3);
    let (last, name) = (nodes.pop().expect("three"), id(&nodes[1]));
    let gone = id(&last);
    let crashed = last.crash();
    let start = Instant::now();
    for node in &nodes {
        wait_for(node, &["alive", "alive", "dead"]);
    }
    let detection = start.elapsed();
    eprintln!("known to be dead after {detection:?}");
    // The promise is two seconds; the rest is for a machine that does other things as well.
    assert!(detection < Duration::from_secs(4), "{detection:?}");
    let back = crashed.restart();
    for node in [&nodes[0], &nodes[1], &back] {
        wait_for(node, &["alive", "alive", "alive"]);
    }
    assert_eq!((id(&back), id(&nodes[1])), (gone.clone(), name));
    let page = page(&nodes[0]);
    let starts = page["nodes"].as_array().expect("a list").iter().find(|node| node["id"] == *gone).expect("it is back");
    assert_eq!(starts["starts"], 2);
}

#[test]
fn a_node_that_is_told_to_end_has_left_and_is_not_dead() {
    let mut nodes = cluster(3);
    let last = nodes.pop().expect("three");
    assert!(last.terminate().success());
    for node in &nodes {
        wait_for(node, &["alive", "alive", "left"]);
        assert_eq!(node.metric("bifro_cluster_deaths_total"), 0.0);
    }
}

#[test]
fn all_killed_at_once_find_each_other_again_without_the_seed() {
    let nodes = cluster(3);
    let mut crashed: Vec<_> = nodes.into_iter().map(Broker::crash).collect();
    // The seed stays away: the others remember each other.
    let seed = crashed.remove(0);
    let back: Vec<Broker> = crashed.into_iter().map(|crashed| crashed.restart()).collect();
    for node in &back {
        node.wait_for_metric("bifro_cluster_members_present", |present| present == 2.0);
    }
    let seed = seed.restart();
    for node in back.iter().chain([&seed]) {
        wait_for(node, &["alive", "alive", "alive"]);
    }
}

#[test]
fn a_stopped_node_is_dead_and_speaks_up_when_it_goes_on() {
    let nodes = cluster(3);
    nodes[2].signal(libc::SIGSTOP);
    wait_for(&nodes[0], &["alive", "alive", "dead"]);
    std::thread::sleep(Duration::from_secs(5));
    nodes[2].signal(libc::SIGCONT);
    for node in &nodes {
        wait_for(node, &["alive", "alive", "alive"]);
    }
    assert_eq!(nodes[2].metric("bifro_cluster_deaths_total"), 0.0, "it takes nobody for dead");
}

#[test]
fn who_does_not_know_the_secret_stays_outside() {
    let nodes = cluster(2);
    let seed = nodes[0].address("cluster");
    let stranger = begin(free_address(), &[seed], "", b"another secret, of a good length");
    nodes[0].wait_for_metric("bifro_cluster_handshakes_refused_total", |refused| refused > 0.0);
    stranger.wait_for_log("why it waits", |line| line.contains("waiting") && line.contains("secret"));
    assert_eq!(nodes[0].metric("bifro_cluster_members_present"), 2.0);
    nodes[0].wait_for_log("who was refused", |line| line.contains("does not know the secret"));
}

#[test]
fn random_bytes_on_the_ports_of_a_node_change_nothing() {
    let mut nodes = cluster(2);
    let underlay = nodes[0].address("cluster");
    let links = SocketAddr::new(underlay.ip(), underlay.port() + 1);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut state = 1_u64;
    for length in (0..20_000).map(|round| round % 1_400) {
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        // A full buffer is fine: it was sent as fast as it goes.
        let _ = socket.send_to(&bytes, if length % 2 == 0 { underlay } else { links });
    }
    wait_for(&nodes[1], &["alive", "alive"]);
    assert_eq!(nodes[1].metric("bifro_cluster_deaths_total"), 0.0);
    assert_eq!((nodes[0].metric("bifro_links"), nodes[1].metric("bifro_links")), (2.0, 2.0));
    nodes[0].assert_alive();
}

#[test]
fn another_node_on_the_address_of_a_dead_one_is_another_member() {
    let mut nodes = cluster(2);
    let seed = nodes[0].address("cluster");
    let address = nodes[1].address("cluster");
    drop(nodes.pop().expect("two").crash());
    let other = node(address, &[seed], "", SECRET);
    wait_for(&nodes[0], &["alive", "alive", "dead"]);
    wait_for(&other, &["alive", "alive", "dead"]);
}

#[test]
fn bifroctl_shows_the_nodes() {
    let nodes = cluster(2);
    let tool = bifro_tests::process::binaries().join("bifroctl");
    let run = |arguments: &[&str]| {
        let output = Command::new(&tool).arg("cluster").args(arguments).output().expect("the tool runs");
        (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let admin = nodes[0].address("admin").to_string();
    let (table, _) = run(&["--admin", &admin]);
    assert_eq!(table.matches("alive").count(), 2, "{table}");
    assert!(table.starts_with(&format!("cluster {}\n", cluster_id(&nodes[1]))), "{table}");
    assert!(table.contains(&format!("{}*", id(&nodes[0]))) && table.contains(&id(&nodes[1])), "{table}");
    let (json, _) = run(&["--admin", &admin, "--json"]);
    assert_eq!(json.trim(), bifro_tests::http::get(nodes[0].address("admin"), "/cluster?loads").body.trim());
    let alone = Broker::start(1, "");
    let (told, _) = run(&["--admin", &alone.address("admin").to_string()]);
    assert!(told.contains("alone"), "{told}");
    let (_, told) = run(&["--admin", &nodes[0].tcp().to_string()]);
    assert!(told.contains("admin.bind"), "{told}");
}

#[test]
fn a_copy_of_a_nodes_directory_ends_when_the_node_has_been_started_more_often() {
    let seed = node(free_address(), &[], "", SECRET);
    let any = "127.0.0.1:0".parse().expect("an address");
    let crashed = node(any, &[seed.address("cluster")], "", SECRET).crash();
    // Nobody removes the copy's directory; it is below the target directory.
    let copy = crashed.copy();
    let again = crashed.restart().crash().restart();
    wait_for(&again, &["alive", "alive"]);
    let mut command = Command::new("timeout");
    command.arg("20").arg(bifro_tests::process::binaries().join("bifro-uring")).arg("--cores").arg("1");
    let output = command.arg("--config").arg(copy.dir.join("node.toml")).output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{told}");
    assert!(told.contains("another process with this node's identity"), "{told}");
    wait_for(&seed, &["alive", "alive"]);
    wait_for(&again, &["alive", "alive"]);
}

#[test]
fn a_secret_that_is_missing_or_short_is_told_before_anything_runs() {
    let binary = bifro_tests::process::binaries().join("bifro-uring");
    let dir = bifro_tests::process::fresh_dir("secret");
    std::fs::write(dir.join("short"), "too short\n").expect("a file");
    for (file, expected) in [("none", "cannot be read"), ("short", "has 9 characters, and at least 16 are needed")] {
        let config = dir.join("node.toml");
        std::fs::write(&config, format!("[cluster]\nsecret_file = \"{file}\"\n")).expect("a file");
        let output =
            Command::new(&binary).arg("--check-config").arg("--config").arg(&config).output().expect("it runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(expected), "{told}");
        assert!(told.contains("cluster.secret_file"), "{told}");
    }
}

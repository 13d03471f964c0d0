//! A node that leads stands still, for so long that others take its place, and goes on as if nothing had been. Clients publish and receive on
//! all nodes meanwhile.
//!
//! `BIFRO_STANDSTILL_SECONDS` is how long it does the second time, by default ten: 60 is long enough for it to be evicted.

use super::replication::until_replicated;
use super::storm::{Clients, addresses_of, under};
use bifro_tests::Broker;
use bifro_tests::cluster::{LONG_QUEUES, cluster_with, wait_for};
use std::time::{Duration, Instant};

/// The node that leads most ranges, and how many.
fn leader(nodes: &[Broker]) -> (&Broker, u32) {
    let led = nodes.iter().map(|node| (node, node.metric("bifro_ranges_led") as u32));
    led.max_by_key(|(_, led)| *led).expect("there are nodes")
}

#[test]
fn sessions_live_through_a_leader_that_stands_still_for_a_second_and_for_ten() {
    // What is published meanwhile waits for the clients of the node, and is more than a session may have by default.
    let nodes = cluster_with(3, LONG_QUEUES);
    until_replicated(&nodes);
    let long = std::env::var("BIFRO_STANDSTILL_SECONDS").map_or(10, |text| text.parse().expect("a number of seconds"));
    let seen = under(&addresses_of(&nodes), 1, Clients::Anywhere, |_| {
        for seconds in [1, long] {
            std::thread::sleep(Duration::from_secs(1));
            let (node, led) = leader(&nodes);
            assert!(led > 0);
            node.signal(libc::SIGSTOP);
            std::thread::sleep(Duration::from_secs(seconds));
            node.signal(libc::SIGCONT);
            let start = Instant::now();
            for node in &nodes {
                wait_for(node, &["alive"; 3]);
            }
            until_replicated(&nodes);
            let leads = node.metric("bifro_ranges_led");
            eprintln!(
                "it led {led} ranges and stood still for {seconds} s; {:?} later all are well, and it leads {leads}",
                start.elapsed()
            );
        }
        std::thread::sleep(Duration::from_secs(1));
    });
    for sent in seen.iter().filter(|sent| sent.messages > 0) {
        eprintln!("{sent:?}");
    }
}

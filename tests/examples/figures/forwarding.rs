//! Messages of QoS 0 from publishers of one node to subscribers of another, per second of both nodes' CPU time, beside the same within each node.
//!
//! Each node has one shard and a CPU for itself, as on machines of their own; the generator has to share with them. Both nodes have as many publishers and
//! subscribers as in the comparison, and are at work at the same time in both: what the one takes from the other's caches and clock, it takes in both.

use crate::target::{pin, unpin};
use crate::{Row, choose, generator};
use bifro_tests::Broker;
use bifro_tests::cluster::{SECRET, free_address, node, wait_for};
use std::net::SocketAddr;

const PAIRS: &str = "50";
/// Messages in flight of each publisher.
const WINDOWS: [u32; 2] = [10, 100];

pub(crate) fn measure() -> Vec<Row> {
    let seed = free_address();
    let start = |cpu, bind| {
        pin(cpu);
        node(bind, &[seed], "", SECRET)
    };
    let nodes = [start(0, seed), start(1, free_address())];
    unpin();
    for node in &nodes {
        wait_for(node, &["alive"; 2]);
        node.wait_for_metric("bifro_nodes_unheard", |unheard| unheard == 0.0);
    }
    WINDOWS.map(|window| row(&nodes, window)).into()
}

fn row([one, other]: &[Broker; 2], window: u32) -> Row {
    // The pairs subscribe at one node after the other, and publish to the same or to the other.
    let (both, processes) = ([one.tcp(), other.tcp()], [one.pid(), other.pid()]);
    let within = |_| rate(window, &both, &both, &processes);
    let across = |_| rate(window, &both, &[other.tcp(), one.tcp()], &processes);
    let mut rounds: Vec<(f64, f64)> = (0..choose(7, 2)).map(|round| (across(round), within(round))).collect();
    rounds.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
    let share = |at: usize| 100.0 * rounds[at].0 / rounds[at].1;
    let (across, within) = rounds[rounds.len() / 2];
    Row::new(
        format!(
            "QoS 0 from node to node beside within each node, per CPU-second of both, {PAIRS} pairs, {window} in flight: median [range]"
        ),
        format!(
            "{:.0} % [{:.0} to {:.0}] ({:.2} of {:.2} million)",
            share(rounds.len() / 2),
            share(0),
            share(rounds.len() - 1),
            across / 1e6,
            within / 1e6
        ),
        ">= 60 %",
    )
}

/// Messages received per second of these processes' CPU time.
fn rate(window: u32, targets: &[SocketAddr], publish_to: &[SocketAddr], processes: &[u32]) -> f64 {
    let mut line = format!("pair --qos 0 --pairs {PAIRS} --window {window} --duration {}", choose("5", "2"));
    for target in publish_to {
        line += &format!(" --publish-to {target}");
    }
    generator::run(&line, targets, processes)["received_per_cpu_s"].as_f64().expect("a rate")
}

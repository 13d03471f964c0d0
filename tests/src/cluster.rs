//! Clusters of processes on loopback addresses.

use crate::{Broker, PATIENCE};
use serde_json::Value;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// What all nodes of a test share.
pub const SECRET: &[u8] = b"a secret that is long enough\n";

/// A port nobody uses now.
///
/// # Panics
/// If there is none.
pub fn free_address() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port")
}

/// A node at this address that asks these to be let in.
pub fn node(bind: SocketAddr, seeds: &[SocketAddr], extra: &str, secret: &[u8]) -> Broker {
    let seeds: Vec<String> = seeds.iter().map(|seed| format!("\"{seed}\"")).collect();
    let config = format!(
        "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\n[cluster]\nbind = \"{bind}\"\nseeds = [{}]\n\
         secret_file = \"cluster.secret\"\n{extra}\n",
        seeds.join(", ")
    );
    Broker::start_with(1, &config, &[("cluster.secret", secret)])
}

/// So many nodes that all know each other; the first is the seed of all.
///
/// # Panics
/// If they do not in time.
pub fn cluster(count: usize) -> Vec<Broker> {
    let addresses: Vec<SocketAddr> = (0..count).map(|_| free_address()).collect();
    let nodes: Vec<Broker> = addresses.iter().map(|&address| node(address, &addresses[..1], "", SECRET)).collect();
    for node in &nodes {
        wait_for(node, &vec!["alive"; count]);
    }
    nodes
}

/// What a node says of the cluster.
///
/// # Panics
/// If it says something else.
pub fn page(node: &Broker) -> Value {
    let body = crate::http::get(node.address("admin"), "/cluster").body;
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// One field of all nodes.
fn fields(node: &Broker, name: &str) -> Vec<String> {
    let page = page(node);
    let nodes = page["nodes"].as_array().expect("a list").iter();
    let mut fields: Vec<String> = nodes.map(|node| node[name].as_str().expect("a string").to_owned()).collect();
    fields.sort_unstable();
    fields
}

/// The id of a node.
///
/// # Panics
/// If it is alone.
pub fn id(node: &Broker) -> String {
    page(node)["local"].as_str().expect("it is in a cluster").to_owned()
}

/// Waits until the statuses of all nodes are these, in alphabetical order. Returns how long it took.
///
/// # Panics
/// If it takes too long.
pub fn wait_for(node: &Broker, statuses: &[&str]) -> Duration {
    let start = Instant::now();
    loop {
        let found = fields(node, "status");
        if found == statuses {
            return start.elapsed();
        }
        assert!(start.elapsed() < 3 * PATIENCE, "{found:?}, not {statuses:?}: {}", page(node));
        std::thread::sleep(Duration::from_millis(10));
    }
}

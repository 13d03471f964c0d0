//! Clusters of processes on loopback addresses.

use crate::{Broker, PATIENCE};
use serde_json::Value;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What all nodes of a test share.
pub const SECRET: &[u8] = b"a secret that is long enough\n";

/// Tables that let sessions keep what is published while their clients cannot come: the default of a thousand messages is soon reached.
pub const LONG_QUEUES: &str = "[tenant_defaults]\ninbox_messages_max = 1000000\n";

/// Ports from which the system chooses none by itself, so that what a test has been given stays free until it is used, and used again.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// A port nobody uses now, followed by such ports for two shards. Never given twice by this process.
///
/// # Panics
/// If there is none left.
pub fn free_address() -> SocketAddr {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let triples = u32::from(PORTS.end - PORTS.start) / 3;
    // Another run of the tests on this machine begins elsewhere.
    let choice =
        |given: u32| PORTS.start + 3 * u16::try_from((std::process::id() + given) % triples).unwrap_or_default();
    let is_free = |port: &u16| (0..3).all(|shard| UdpSocket::bind(("127.0.0.1", port + shard)).is_ok());
    let given = std::iter::repeat_with(|| GIVEN.fetch_add(1, Ordering::Relaxed)).take(100);
    let port = given.map(choice).find(is_free).expect("free ports");
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A node at this address that asks these to be let in.
pub fn node(bind: SocketAddr, seeds: &[SocketAddr], extra: &str, secret: &[u8]) -> Broker {
    begin(bind, seeds, extra, secret).until_ready()
}

/// The same without waiting for it: it may wait for a majority of its seeds.
pub fn begin(bind: SocketAddr, seeds: &[SocketAddr], extra: &str, secret: &[u8]) -> Broker {
    begin_on(1, bind, seeds, extra, secret)
}

fn begin_on(cores: u16, bind: SocketAddr, seeds: &[SocketAddr], extra: &str, secret: &[u8]) -> Broker {
    let listener = "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\n";
    let config = format!("{listener}{}", table(bind, seeds, extra));
    Broker::begin_with(cores, &config, &[("cluster.secret", secret)])
}

/// The configuration's table of a node, with `extra` behind it. The secret is in `cluster.secret`.
pub fn table(bind: SocketAddr, seeds: &[SocketAddr], extra: &str) -> String {
    let seeds: Vec<String> = seeds.iter().map(|seed| format!("\"{seed}\"")).collect();
    let seeds = seeds.join(", ");
    format!("[cluster]\nbind = \"{bind}\"\nseeds = [{seeds}]\nsecret_file = \"cluster.secret\"\n{extra}\n")
}

/// So many nodes of one shard that all know each other; the first is the seed of all.
///
/// # Panics
/// If they do not in time.
pub fn cluster(count: usize) -> Vec<Broker> {
    cluster_on(count, 1)
}

/// As [`cluster`], with `extra` behind each node's table.
///
/// # Panics
/// If they do not know each other in time.
pub fn cluster_with(count: usize, extra: &str) -> Vec<Broker> {
    cluster_of(count, 1, extra)
}

/// As [`cluster`], with nodes of at most two shards, and all shards linked.
///
/// # Panics
/// If they do not know each other in time.
pub fn cluster_on(count: usize, cores: u16) -> Vec<Broker> {
    cluster_of(count, cores, "")
}

fn cluster_of(count: usize, cores: u16, extra: &str) -> Vec<Broker> {
    let addresses: Vec<SocketAddr> = (0..count).map(|_| free_address()).collect();
    let node = |&address: &SocketAddr| begin_on(cores, address, &addresses[..1], extra, SECRET).until_ready();
    let nodes: Vec<Broker> = addresses.iter().map(node).collect();
    for node in &nodes {
        wait_for(node, &vec!["alive"; count]);
        let links = 2 * (count - 1) * usize::from(cores);
        node.wait_for_metric("bifro_links", |up| up == links as f64);
        node.wait_for_metric("bifro_nodes_unheard", |unheard| unheard == 0.0);
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

/// The id of its cluster.
///
/// # Panics
/// If it is alone.
pub fn cluster_id(node: &Broker) -> String {
    page(node)["cluster"].as_str().expect("it is in a cluster").to_owned()
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

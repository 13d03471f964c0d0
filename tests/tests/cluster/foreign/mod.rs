//! Clients of other houses on a cluster whose nodes die and lose each other: rumqttc in both its versions and paho-mqtt, which reconnect by
//! their own logic. What they did and saw is a history, and that is compared with what is promised:
//!
//! - nothing acknowledged is lost to a persistent session, and it is never gone;
//! - what a publisher that waits for each answer has sent comes in its order;
//! - of QoS 2 nothing comes twice, whoever loses a connection in the middle;
//! - of two connections of one client id one is served.
//!
//! | | node 1 | node 2 | node 3 |
//! |---|---|---|---|
//! | publishers | rumqttc 5.0 QoS 1, paho 3.1.1 QoS 1 | paho 5.0 QoS 2 | rumqttc 3.1.1 QoS 1, rumqttc 5.0 QoS 2 |
//! | subscribers | paho 5.0 QoS 2 | rumqttc 3.1.1 QoS 1, paho 3.1.1 QoS 2 | rumqttc 5.0 QoS 1 |
//!
//! And one more subscriber wanders: its client id connects to another node each time something goes wrong, without leaving the last.
//! rumqttc 0.25 forgets at the end of a connection which messages of QoS 2 it has received, and takes PUBREL for them as an error ever after:
//! so its subscribers have QoS 1.

mod paho;
mod record;
mod rumqtt;

use self::paho::Paho;
use self::record::Record;
use self::rumqtt::{Part, Peer, Version};
use super::partitions::Network;
use super::replication::until_replicated;
use bifro_tests::cluster::{LONG_QUEUES, SECRET, free_address, table, wait_for};
use bifro_tests::foreign::python_with_paho;
use bifro_tests::history::{Guarantee, Promise};
use bifro_tests::{Broker, PATIENCE};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between an acknowledgement and the next message.
const PACE: Duration = Duration::from_millis(4);
/// A client of MQTT 3.1.1 cannot be told that a publish has failed. Who has waited so long connects anew.
const UNANSWERED: Duration = Duration::from_secs(8);

/// What is published, all below one topic: who publishes it is said above.
#[derive(Clone, Copy, Debug)]
struct Stream {
    number: u32,
    qos: u8,
    /// Messages without an acknowledgement at most.
    window: u32,
}

impl Stream {
    const fn new(number: u32, qos: u8, window: u32) -> Self {
        Self { number, qos, window }
    }

    fn topic(self) -> String {
        format!("foreign/{}", self.number)
    }
}

const STREAMS: [Stream; 5] =
    [Stream::new(0, 1, 8), Stream::new(1, 1, 1), Stream::new(2, 2, 1), Stream::new(3, 1, 1), Stream::new(4, 2, 1)];

/// Subscribers: who they are in the history, and their QoS.
const AUDIENCES: [(u32, u8); 5] = [(0, 2), (1, 1), (2, 2), (3, 1), (WANDERER, 1)];
const WANDERER: u32 = 4;

/// What is promised to all of them about all streams.
fn promises() -> Vec<Promise> {
    let to = |(audience, qos): (u32, u8)| {
        STREAMS.iter().map(move |stream| Promise {
            audience,
            stream: stream.number,
            from: 0,
            guarantee: if qos.min(stream.qos) == 2 { Guarantee::ExactlyOnce } else { Guarantee::AtLeastOnce },
            // Who does not wait may be overtaken by itself; and of two connections of the wanderer we may hear in any order.
            ordered: stream.window == 1 && audience != WANDERER,
        })
    };
    AUDIENCES.into_iter().flat_map(to).collect()
}

/// All clients but the wanderer, and where it can go.
struct Clients {
    record: Arc<Record>,
    nodes: [SocketAddr; 3],
    peers: Vec<Peer>,
    wanderers: Vec<Peer>,
    paho: Paho,
}

impl Clients {
    /// They are subscribed when this returns, and publish from then on.
    fn start(python: &Path, nodes: [SocketAddr; 3]) -> Self {
        let record = Arc::new(Record::default());
        let mut paho = Paho::start(python, record.clone());
        paho.subscriber(0, 5, nodes[0]);
        paho.subscriber(2, 4, nodes[1]);
        let subscriber = |version, node: usize, audience| {
            Peer::start(version, nodes[node], &format!("rs{audience}"), Part::Subscriber { audience }, &record)
        };
        let mut peers = vec![subscriber(Version::V311, 1, 1), subscriber(Version::V5, 2, 3)];
        let mut clients = Self { record: record.clone(), nodes, peers: Vec::new(), wanderers: Vec::new(), paho };
        clients.wander(2);
        until("all are subscribed", PATIENCE, || record.subscribed() == AUDIENCES.len());
        let publisher = |version, node: usize, stream: Stream| {
            Peer::start(version, nodes[node], &format!("rp{}", stream.number), Part::Publisher { stream }, &record)
        };
        peers.push(publisher(Version::V5, 0, STREAMS[0]));
        peers.push(publisher(Version::V311, 2, STREAMS[3]));
        peers.push(publisher(Version::V5, 2, STREAMS[4]));
        clients.paho.publisher(STREAMS[1], 4, nodes[0]);
        clients.paho.publisher(STREAMS[2], 5, nodes[1]);
        clients.peers = peers;
        clients
    }

    /// The wandering client connects to this node too, and has not left the one it was on.
    fn wander(&mut self, node: usize) {
        if let Some(last) = self.wanderers.last() {
            last.supersede();
        }
        let part = Part::Subscriber { audience: WANDERER };
        self.wanderers.push(Peer::start(Version::V5, self.nodes[node], "wanderer", part, &self.record));
    }

    /// Publishers end, and what is missing comes; then everything is counted.
    fn finish(self) {
        let Self { record, peers, wanderers, paho, .. } = self;
        let before = record.acknowledged_by_stream();
        let more = || record.acknowledged_by_stream().iter().zip(&before).all(|((_, now), (_, then))| now > then);
        until("every publisher goes on", 2 * PATIENCE, || {
            paho.hurry();
            before.len() == STREAMS.len() && more()
        });
        record.end_publishing();
        // What stays unanswered is not promised to anybody.
        let deadline = Instant::now() + PATIENCE;
        while record.in_flight() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let deadline = Instant::now() + 2 * PATIENCE;
        while record.lost(&promises()) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(250));
        }
        record.end_all();
        paho.end();
        peers.into_iter().chain(wanderers).for_each(Peer::end);
        record.expect_kept(&promises());
    }
}

#[track_caller]
fn until(what: &str, patience: Duration, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < patience, "not in {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A node whose clients find it where it was when it is started again.
fn node_with_port(bind: SocketAddr, seed: SocketAddr, listen: SocketAddr) -> Broker {
    let listener = format!("[[listener]]\nprotocol = \"tcp\"\nbind = \"{listen}\"\n");
    let config = format!("{listener}{}", table(bind, &[seed], LONG_QUEUES));
    Broker::start_with(1, &config, &[("cluster.secret", SECRET)])
}

#[test]
fn foreign_clients_live_through_the_death_of_every_node() {
    let Some(python) = python_with_paho() else { return };
    let (bind, listen) = ([(); 3].map(|()| free_address()), [(); 3].map(|()| free_address()));
    let mut nodes: Vec<Broker> = (0..3).map(|at| node_with_port(bind[at], bind[0], listen[at])).collect();
    for node in &nodes {
        wait_for(node, &["alive"; 3]);
    }
    until_replicated(&nodes);
    let mut clients = Clients::start(&python, listen);
    for at in 0..3 {
        std::thread::sleep(Duration::from_secs(1));
        let killed = nodes.remove(at).crash();
        clients.wander((at + 1) % 3);
        std::thread::sleep(Duration::from_secs(3));
        nodes.insert(at, killed.restart());
        until_replicated(&nodes);
    }
    clients.finish();
}

#[test]
fn foreign_clients_live_through_a_partition_that_heals() {
    let Some(python) = python_with_paho() else { return };
    let Some(network) = Network::up(3) else { return };
    network.wait_for_replicas();
    let listen = [1, 2, 3].map(|number| format!("10.78.0.{number}:1883").parse().expect("an address"));
    let mut clients = Clients::start(&python, listen);
    // Whoever wanders is on a node that is cut off then, and goes to one that is not.
    for (cut_off, others) in [(3, [1, 2]), (1, [2, 3])] {
        std::thread::sleep(Duration::from_secs(1));
        network.cut(&[cut_off], &others);
        std::thread::sleep(Duration::from_secs(2));
        clients.wander(others[0] as usize - 1);
        std::thread::sleep(Duration::from_secs(4));
        network.script(&["heal"]);
        network.wait_for(|_| 3, |_| 0);
        network.wait_for_replicas();
    }
    clients.finish();
}

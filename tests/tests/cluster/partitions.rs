//! Cut networks, by `scripts/cluster.sh` in network namespaces. Needs root.

use super::replication::kept;
use super::storm::{Addresses, Clients, under};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::reason::Reason;
use bifro_tests::PATIENCE;
use bifro_tests::client::Client;
use bifro_tests::cluster::LONG_QUEUES;
use bifro_tests::http::metric_values;
use bifro_tests::process::binaries;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Namespaces and addresses are there once, for one test at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// So many nodes, each in a namespace of its own. They end with this.
pub(crate) struct Network(
    u32,
    #[expect(dead_code, reason = "held until the nodes have ended")] MutexGuard<'static, ()>,
);

impl Network {
    /// None without root: said, not failed.
    pub(crate) fn up(nodes: u32) -> Option<Self> {
        if !is_root("network namespaces") {
            return None;
        }
        let network = Self(nodes, ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner));
        network.script(&["up", &nodes.to_string()]);
        network.wait_for(|_| nodes as usize, |_| 0);
        Some(network)
    }

    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env("BIFRO_CLUSTER", "bfrtest").env("BIFRO_CLUSTER_NETWORK", "10.78.0");
        command.env("BIFRO_URING", binaries().join("bifro-uring")).env("BIFROCTL", binaries().join("bifroctl"));
        command.env("BIFRO_CLUSTER_SETTINGS", LONG_QUEUES);
        command
    }

    pub(crate) fn script(&self, arguments: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/cluster.sh");
        let output = self.command(script).args(arguments).output().expect("the script runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Cuts every node of one list off from every one of the other.
    pub(crate) fn cut(&self, one: &[u32], other: &[u32]) {
        for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
            self.script(&["cut", &a.to_string(), &b.to_string()]);
        }
    }

    /// How many members node `number` sees with this status.
    fn count(&self, number: u32, status: &str) -> usize {
        let (namespace, admin) = (format!("bfrtest{number}"), format!("10.78.0.{number}:9091"));
        let tool = binaries().join("bifroctl");
        let mut command = self.command("ip");
        command.args(["netns", "exec", &namespace]).arg(tool).args(["cluster", "--json", "--admin", &admin]);
        let output = command.output().expect("ip runs");
        let page: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        page["nodes"].as_array().expect("a list").iter().filter(|node| node["status"] == status).count()
    }

    /// Waits until every node sees so many alive and so many dead.
    pub(crate) fn wait_for(&self, alive: impl Fn(u32) -> usize, dead: impl Fn(u32) -> usize) -> Duration {
        let start = Instant::now();
        for number in 1..=self.0 {
            loop {
                let seen = (self.count(number, "alive"), self.count(number, "dead"));
                if seen == (alive(number), dead(number)) {
                    break;
                }
                assert!(start.elapsed() < 4 * PATIENCE, "node {number} sees {} alive and {} dead", seen.0, seen.1);
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        start.elapsed()
    }
}

/// Whether this process may do everything; if not, says what is skipped for that.
pub(crate) fn is_root(what: &str) -> bool {
    // SAFETY: it only returns a number.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root {
        eprintln!("skipped: {what} need root");
    }
    is_root
}

/// Clients of the nodes.
impl Network {
    fn client(&self, number: u32, id: &str) -> Client {
        let address = format!("10.78.0.{number}:1883").parse().expect("an address");
        Client::connect(address, Version::V5, &format!("{id}-{number}"))
    }

    fn retain(&self, number: u32, topic: &str, payload: &str) {
        let mut client = self.client(number, "retainer");
        client.publish(topic, payload.as_bytes(), QoS::AtLeastOnce, true);
        let received = client.recv();
        assert!(matches!(received.packet(), Packet::PubAck(ack) if !ack.reason.is_error()), "{received:?}");
    }

    /// Waits until every range has a leader and all its replicas.
    pub(crate) fn wait_for_replicas(&self) {
        let metric = |number: u32, name: &str| -> f64 {
            let address = format!("10.78.0.{number}:9091").parse().expect("an address");
            metric_values(address, "/metrics", name).into_iter().sum()
        };
        let start = Instant::now();
        let sum = |name: &str| (1..=self.0).map(|number| metric(number, name)).sum::<f64>();
        std::thread::sleep(Duration::from_millis(300));
        while (sum("bifro_ranges_unled"), sum("bifro_ranges_moving"), sum("bifro_ranges_led")) != (0.0, 0.0, 8.0) {
            assert!(start.elapsed() < 3 * PATIENCE, "{} ranges have no leader", sum("bifro_ranges_unled"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until every node has these retained messages.
    fn wait_for_retained(&self, wanted: &[&str]) {
        let start = Instant::now();
        for number in 1..=self.0 {
            loop {
                let mut client = self.client(number, "finder");
                client.subscribe("#", QoS::AtMostOnce);
                let mut found = Vec::new();
                while let Some(Some(received)) = client.recv_within(Duration::from_millis(300)) {
                    let Packet::Publish(publish) = received.packet() else { continue };
                    found.push(format!("{}={}", publish.topic, String::from_utf8_lossy(publish.payload)));
                }
                found.sort();
                if found == wanted {
                    break;
                }
                assert!(start.elapsed() < 2 * PATIENCE, "node {number} has {found:?}");
            }
        }
    }

    /// What is published on one node is received on all others.
    fn publish_to_all(&self, number: u32) {
        let others = (1..=self.0).filter(|&other| other != number);
        let mut subscribers: Vec<_> = others.map(|other| self.client(other, "subscriber")).collect();
        for subscriber in &mut subscribers {
            subscriber.subscribe("to/all", QoS::AtLeastOnce);
        }
        let mut publisher = self.client(number, "publisher");
        assert_eq!(publisher.publish_acked("to/all", b"x"), Reason::SUCCESS);
        for subscriber in &mut subscribers {
            subscriber.recv_publish();
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.script(&["down"]);
    }
}

/// What is set in two halves, in this order: by nodes 1, 4, 2 and 5.
const SET: [(&str, &str); 4] = [("one half", "1"), ("other half", "4"), ("both", "older"), ("both", "newer")];

#[test]
fn cut_networks_make_halves_and_healed_ones_one_cluster() {
    let Some(network) = Network::up(5) else { return };
    let whole = || network.wait_for(|_| 5, |_| 0);

    network.cut(&[1], &[2]);
    std::thread::sleep(Duration::from_secs(6));
    whole();
    // The two reach each other by way of the others.
    network.publish_to_all(1);
    network.publish_to_all(2);
    network.retain(1, "relayed", "yes");
    network.wait_for_retained(&["relayed=yes"]);
    network.retain(2, "relayed", "");
    network.script(&["heal"]);
    std::thread::sleep(Duration::from_secs(3));
    network.publish_to_all(1);

    network.retain(1, "both", "before");
    let mut setters = [1, 4, 2, 5].map(|number| network.client(number, "setter"));
    network.cut(&[1, 2], &[3, 4, 5]);
    let half = |number| if number <= 2 { 2 } else { 3 };
    network.wait_for(half, |number| 5 - half(number));
    // Publishers may have to wait for a majority of some range, but what they have sent is retained where they are.
    for (setter, (topic, message)) in setters.iter_mut().zip(SET) {
        setter.publish(topic, message.as_bytes(), QoS::AtLeastOnce, true);
        std::thread::sleep(Duration::from_millis(50));
    }
    // Until they ask each other only now and then.
    std::thread::sleep(Duration::from_secs(10));
    network.script(&["heal"]);
    eprintln!("halves are one cluster {:?} after the cut", whole());
    drop(setters);
    network.wait_for_retained(&["both=newer", "one half=1", "other half=4"]);
    network.publish_to_all(2);

    for other in ["2", "3", "4", "5"] {
        network.script(&["mute", "1", other]);
    }
    network.wait_for(|number| if number == 1 { 1 } else { 4 }, |number| if number == 1 { 4 } else { 1 });
    network.script(&["heal"]);
    eprintln!("a node nobody heard is back {:?} after the cut", whole());

    for _ in 0..5 {
        network.cut(&[1, 2], &[3, 4, 5]);
        std::thread::sleep(Duration::from_secs(2));
        network.script(&["heal"]);
        std::thread::sleep(Duration::from_secs(2));
    }
    eprintln!("one cluster {:?} after cuts that came and went", whole());
    network.publish_to_all(4);
}

/// Two of three have a majority of every range; the third has of none, and can neither lose a message nor take one.
#[test]
fn a_majority_goes_on_with_all_sessions_and_a_node_that_is_cut_off_acknowledges_nothing() {
    let Some(network) = Network::up(3) else { return };
    network.wait_for_replicas();
    let address = |number: u32| format!("10.78.0.{number}:1883").parse().expect("an address");
    for n in 0..8 {
        let (mut session, _) = Client::connect_with(address(3), &kept(&format!("session {n}")));
        session.subscribe(&format!("q/{n}"), QoS::AtLeastOnce);
        session.disconnect();
    }
    let mut cut_off = network.client(3, "cut off");
    network.cut(&[3], &[1, 2]);
    network.wait_for(|number| if number == 3 { 1 } else { 2 }, |number| if number == 3 { 2 } else { 1 });
    cut_off.publish("q/1", b"from a node that is cut off", QoS::AtLeastOnce, false);
    let mut publisher = network.client(1, "publisher");
    for n in 0..8 {
        while publisher.publish_acked(&format!("q/{n}"), n.to_string().as_bytes()) != Reason::SUCCESS {}
    }
    let (mut session, connack) = Client::connect_with(address(2), &kept("session 1"));
    assert!(matches!(connack.packet(), Packet::ConnAck(ack) if ack.session_present));
    let received = session.recv_publish();
    assert!(matches!(received.packet(), Packet::Publish(publish) if publish.payload == b"1"), "{received:?}");
    session.disconnect();
    if let Some(Some(answer)) = cut_off.recv_within(Duration::from_secs(5)) {
        let is_refused = matches!(answer.packet(), Packet::PubAck(ack) if ack.reason.is_error())
            || matches!(answer.packet(), Packet::Disconnect(_));
        assert!(is_refused, "{answer:?}");
    }
    network.script(&["heal"]);
    network.wait_for(|_| 3, |_| 0);
    for n in (0..8).filter(|&n| n != 1) {
        let (mut session, connack) = Client::connect_with(address(3), &kept(&format!("session {n}")));
        assert!(matches!(connack.packet(), Packet::ConnAck(ack) if ack.session_present), "session {n}");
        let received = session.recv_publish();
        let expected = n.to_string();
        assert!(matches!(received.packet(), Packet::Publish(publish) if publish.payload == expected.as_bytes()));
    }
}

/// No acknowledged message is lost to a session while nodes are cut off in turn, one way and both, every two seconds.
#[test]
fn sessions_live_through_cuts_that_come_and_go() {
    let Some(network) = Network::up(3) else { return };
    network.wait_for_replicas();
    let addresses = (1..=3).map(|number| format!("10.78.0.{number}:1883").parse().expect("an address")).collect();
    let addresses: Addresses = Arc::new(Mutex::new(addresses));
    under(&addresses, 1, Clients::Anywhere, |_| {
        let second = |seconds| std::thread::sleep(Duration::from_secs(seconds));
        for (one, others) in [(1, [2, 3]), (2, [3, 1]), (3, [1, 2])] {
            network.cut(&[one], &others);
            second(2);
            network.script(&["heal"]);
            second(2);
            // It hears the others, who do not hear it.
            others.iter().for_each(|other| network.script(&["mute", &one.to_string(), &other.to_string()]));
            second(2);
            network.script(&["heal"]);
            second(2);
            // And the other way about.
            others.iter().for_each(|other| network.script(&["mute", &other.to_string(), &one.to_string()]));
            second(2);
            network.script(&["heal"]);
            second(2);
        }
        // Only these two do not hear each other.
        network.cut(&[1], &[2]);
        second(8);
        network.script(&["heal"]);
        network.wait_for(|_| 3, |_| 0);
        network.wait_for_replicas();
    });
}

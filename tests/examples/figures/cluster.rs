//! How long a cluster of three takes to know that one of its processes is gone, and to serve its sessions again.

use crate::{Row, choose};
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_tests::client::{AckKind, Client, ConnectOptions};
use bifro_tests::cluster::{cluster, id, page, wait_for};
use bifro_tests::{Broker, PATIENCE};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Sessions that are away: some are led by each node.
const SESSIONS: u32 = 24;

/// From the kill on.
struct Gone {
    /// Until both others know.
    known: Duration,
    /// Until a publisher of another node has been acknowledged a message to each session, one after the other.
    published: Duration,
    /// Until a client of the node that was killed has received a message on another.
    received: Duration,
}

pub(crate) fn measure() -> Vec<Row> {
    let mut nodes = cluster(3);
    until_led(&nodes);
    for n in 0..SESSIONS {
        let mut client = resume(nodes[0].tcp(), &format!("s{n}"));
        client.subscribe(&format!("q/{n}"), QoS::AtLeastOnce);
        client.disconnect();
    }
    let all: Vec<Gone> = (0..choose(20, 5)).map(|_| kill_one(&mut nodes)).collect();
    let row = |what: &str, time: fn(&Gone) -> Duration, wanted: &'static str| {
        let mut times: Vec<Duration> = all.iter().map(time).collect();
        times.sort_unstable();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        Row::new(what, format!("{median:.2?}, worst of {} {worst:.2?}", times.len()), wanted)
    };
    vec![
        row("a killed process of three is known to be dead on both others: median", |gone| gone.known, "< 2 s"),
        row("publishing to all sessions, those it led included, works again: median", |gone| gone.published, "< 3 s"),
        row("its client has received a message on another node: median", |gone| gone.received, "-"),
    ]
}

/// Kills whichever leads most, and starts it again.
fn kill_one(nodes: &mut Vec<Broker>) -> Gone {
    let led = |node: &Broker| node.metric("bifro_ranges_led") as u32;
    nodes.sort_by_key(led);
    let victim = nodes.pop().expect("there are three");
    let name = &id(&victim);
    let mut client = resume(victim.tcp(), "mobile");
    client.subscribe("mobile", QoS::AtLeastOnce);
    let (one, other) = (nodes[0].tcp(), nodes[1].tcp());
    let mut publishers = ["to all", "to one"].map(|name| resume(one, name));
    let killed_at = Instant::now();
    let crashed = victim.crash();
    let gone = std::thread::scope(|scope| {
        let [to_all, to_one] = &mut publishers;
        let published = scope.spawn(move || {
            (0..SESSIONS).for_each(|n| publish(to_all, &format!("q/{n}"), b"x"));
            killed_at.elapsed()
        });
        scope.spawn(move || publish(to_one, "mobile", name.as_bytes()));
        let received = scope.spawn(move || {
            let mut client = resume(other, "mobile");
            loop {
                let received = client.recv_within(PATIENCE).flatten().expect("a message");
                let Packet::Publish(publish) = received.packet() else { panic!("not a PUBLISH: {received:?}") };
                client.ack(AckKind::PubAck, publish.packet_id.expect("QoS 1"));
                // Of the last time may be there still: it was not acknowledged before the client was dropped.
                if publish.payload == name.as_bytes() {
                    break;
                }
            }
            killed_at.elapsed()
        });
        for node in &*nodes {
            while !is_dead(&page(node), name) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let known = killed_at.elapsed();
        let joined = |thread: std::thread::ScopedJoinHandle<'_, Duration>| thread.join().expect("it ends");
        Gone { known, published: joined(published), received: joined(received) }
    });
    nodes.push(crashed.restart());
    for node in &*nodes {
        wait_for(node, &["alive"; 3]);
    }
    until_led(nodes);
    gone
}

/// Connects to a session that is kept, as soon as the node lets it.
fn resume(node: SocketAddr, id: &str) -> Client {
    let options = ConnectOptions { clean: false, ..ConnectOptions::new(bifro_core::client::Version::V311, id) };
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let mut client = Client::open(node, options.version);
        client.send_bytes(&options.encode());
        let answer = client.recv_within(PATIENCE).flatten();
        if let Some(Packet::ConnAck(ack)) = answer.as_ref().map(|answer| answer.packet())
            && !ack.reason.is_error()
        {
            return client;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{id} is not let in");
}

fn publish(publisher: &mut Client, topic: &str, payload: &[u8]) {
    publisher.publish(topic, payload, QoS::AtLeastOnce, false);
    let answer = publisher.recv_within(PATIENCE).flatten().expect("an answer");
    assert!(matches!(answer.packet(), Packet::PubAck(_)), "{answer:?}");
}

/// Waits until every range has a leader and all its replicas.
pub(crate) fn until_led(nodes: &[Broker]) {
    for node in nodes {
        node.wait_for_metric("bifro_ranges_unled", |unled| unled == 0.0);
        node.wait_for_metric("bifro_ranges_moving", |moving| moving == 0.0);
    }
}

fn is_dead(page: &serde_json::Value, name: &str) -> bool {
    let nodes = page["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    nodes.iter().any(|node| node["id"] == name && node["status"] == "dead")
}

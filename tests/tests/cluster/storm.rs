//! Nodes are killed, stopped and started again, over and over, while clients publish and receive on all of them; then it is counted.
//! `BIFRO_STORM_ROUNDS` makes it longer.

use super::replication::{kept, until_replicated};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_core::rng::Prng;
use bifro_mqtt::packet::Packet;
use bifro_tests::Broker;
use bifro_tests::client::{AckKind, Client, ConnectOptions};
use bifro_tests::cluster::cluster;
use std::collections::{BTreeMap, HashSet};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SUBSCRIBERS: usize = 6;
const PUBLISHERS: usize = 3;
/// How long a client waits for an answer before it tries another node.
const SHORT: Duration = Duration::from_secs(3);

/// Where the nodes are reached now: a node that was started again is somewhere else.
type Addresses = Arc<Mutex<Vec<SocketAddr>>>;

/// Connects to some node that takes the client.
fn connect(addresses: &Addresses, options: &ConnectOptions, rng: &mut Prng) -> Client {
    loop {
        let address = {
            let addresses = addresses.lock().expect("nobody panics with it");
            addresses[rng.below(addresses.len() as u64) as usize]
        };
        if let Ok(stream) = TcpStream::connect_timeout(&address, SHORT) {
            let mut client = Client::over(Box::new(stream), options.version);
            client.send_bytes(&options.encode());
            let answer = client.recv_within(SHORT).flatten();
            if let Some(Packet::ConnAck(ack)) = answer.as_ref().map(|answer| answer.packet())
                && !ack.reason.is_error()
            {
                return client;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a publisher has seen.
#[derive(Default)]
struct Sent {
    messages: u64,
    disconnects: u32,
    /// The longest that a message took, with all that was in the way.
    worst: Duration,
}

/// Publishes numbered messages, each until it is acknowledged.
fn publisher(n: usize, addresses: &Addresses, is_over: &AtomicBool) -> Sent {
    let mut rng = Prng::new(n as u64);
    let options = ConnectOptions::new(Version::V5, &format!("publisher-{n}"));
    let mut client = connect(addresses, &options, &mut rng);
    let mut seen = Sent::default();
    let mut begun = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        let sent = seen.messages;
        client.publish(&format!("storm/{n}"), format!("{n}.{sent}").as_bytes(), QoS::AtLeastOnce, false);
        let answer = client.recv_within(SHORT).flatten();
        match answer.as_ref().map(|answer| answer.packet()) {
            Some(Packet::PubAck(ack)) if !ack.reason.is_error() => {
                seen.messages += 1;
                seen.worst = seen.worst.max(begun.elapsed());
                begun = Instant::now();
            }
            Some(Packet::PubAck(_)) => {}
            _ => {
                seen.disconnects += 1;
                client = connect(addresses, &options, &mut rng);
            }
        }
    }
    seen
}

/// Receives for a session that is resumed wherever it can be. Returns every message, and how often it came.
fn subscriber(n: usize, addresses: &Addresses, expected: &Mutex<Option<HashSet<String>>>) -> BTreeMap<String, u32> {
    let mut rng = Prng::new(1_000 + n as u64);
    let options = kept(&format!("subscriber-{n}"));
    let mut client = connect(addresses, &options, &mut rng);
    let mut heard = BTreeMap::new();
    let mut over_since = None;
    loop {
        match client.recv_within(Duration::from_millis(200)) {
            Some(Some(received)) => match received.packet() {
                Packet::Publish(publish) => {
                    *heard.entry(String::from_utf8_lossy(publish.payload).into_owned()).or_default() += 1;
                    if let Some(id) = publish.packet_id {
                        client.ack(AckKind::PubAck, id);
                    }
                }
                Packet::Disconnect(_) => {}
                other => panic!("not expected: {other:?}"),
            },
            Some(None) => client = connect(addresses, &options, &mut rng),
            None => {}
        }
        // Some go now and then and come back, to another node mostly.
        if rng.below(2_000) == 0 {
            client = connect(addresses, &options, &mut rng);
        }
        if let Some(expected) = &*expected.lock().expect("nobody panics with it") {
            let since = *over_since.get_or_insert_with(Instant::now);
            let is_complete = expected.iter().all(|message| heard.contains_key(message));
            if is_complete || since.elapsed() > Duration::from_secs(20) {
                return heard;
            }
        }
    }
}

/// Three nodes, and clients on all of them while `weather` changes the nodes; then every session must have every message.
fn under(seed: u64, weather: impl FnOnce(&mut Vec<Broker>, &Addresses, &mut Prng)) -> Vec<Sent> {
    let mut nodes = cluster(3);
    until_replicated(&nodes);
    let addresses: Addresses = Arc::new(Mutex::new(nodes.iter().map(|node| node.tcp()).collect()));
    let mut rng = Prng::new(seed);
    for n in 0..SUBSCRIBERS {
        let mut client = connect(&addresses, &kept(&format!("subscriber-{n}")), &mut rng);
        client.subscribe("storm/#", QoS::AtLeastOnce);
    }
    let (is_over, expected) = (AtomicBool::new(false), Mutex::new(None));
    std::thread::scope(|scope| {
        let (addresses, is_over, expected) = (&addresses, &is_over, &expected);
        let subscribers: Vec<_> =
            (0..SUBSCRIBERS).map(|n| scope.spawn(move || subscriber(n, addresses, expected))).collect();
        let publishers: Vec<_> =
            (0..PUBLISHERS).map(|n| scope.spawn(move || publisher(n, addresses, is_over))).collect();
        weather(&mut nodes, addresses, &mut rng);
        is_over.store(true, Ordering::Relaxed);
        let seen: Vec<Sent> = publishers.into_iter().map(|publisher| publisher.join().expect("it ends")).collect();
        let numbered = |(n, seen): (usize, &Sent)| (0..seen.messages).map(move |sent| format!("{n}.{sent}"));
        let all: HashSet<String> = seen.iter().enumerate().flat_map(numbered).collect();
        *expected.lock().expect("nobody panics with it") = Some(all.clone());
        let mut repeated = 0;
        for (n, subscriber) in subscribers.into_iter().enumerate() {
            let heard = subscriber.join().expect("it ends");
            let lost: Vec<_> = all.iter().filter(|message| !heard.contains_key(*message)).collect();
            assert!(
                lost.is_empty(),
                "subscriber {n} lost {} of {}: {:?}",
                lost.len(),
                all.len(),
                &lost[..lost.len().min(20)]
            );
            repeated += heard.values().map(|times| times - 1).sum::<u32>();
        }
        eprintln!(
            "{} messages acknowledged, none lost to {SUBSCRIBERS} sessions; {repeated} came more than once",
            all.len()
        );
        seen
    })
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

/// The node is somewhere else now.
fn moved(addresses: &Addresses, nodes: &[Broker], at: usize) {
    addresses.lock().expect("nobody panics with it")[at] = nodes[at].tcp();
}

#[test]
fn sessions_live_through_a_storm() {
    under(number("BIFRO_STORM_SEED", 1), |nodes, addresses, rng| {
        for round in 0..number("BIFRO_STORM_ROUNDS", 6) {
            std::thread::sleep(Duration::from_millis(500 + rng.below(1_000)));
            let victim = rng.below(3) as usize;
            if rng.below(3) == 0 {
                eprintln!("round {round}: node {victim} stands still");
                nodes[victim].signal(libc::SIGSTOP);
                std::thread::sleep(Duration::from_millis(500 + rng.below(4_000)));
                nodes[victim].signal(libc::SIGCONT);
            } else {
                eprintln!("round {round}: node {victim} is killed");
                let killed = nodes.remove(victim).crash();
                std::thread::sleep(Duration::from_millis(rng.below(4_000)));
                nodes.insert(victim, killed.restart());
                moved(addresses, nodes, victim);
            }
            until_replicated(nodes);
        }
    });
}

/// Every node is ended in order and started again, one after the other.
#[test]
fn a_rolling_restart_loses_nothing() {
    let seen = under(1, |nodes, addresses, _| {
        for at in 0..3 {
            std::thread::sleep(Duration::from_secs(1));
            let ended = nodes.remove(at).stop();
            nodes.insert(at, ended.restart());
            moved(addresses, nodes, at);
            until_replicated(nodes);
        }
    });
    for Sent { messages, disconnects, worst } in &seen {
        eprintln!("{messages} messages, {disconnects} disconnects, the longest took {worst:?}");
    }
    assert!(seen.iter().all(|seen| seen.worst < Duration::from_secs(5)));
}

//! Nodes are killed, stopped and started again, over and over, while clients publish and receive on all of them; then it is counted.
//! `BIFRO_STORM_ROUNDS` makes it longer.

use super::replication::{kept, until_replicated};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_core::rng::Prng;
use bifro_mqtt::packet::Packet;
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

/// Publishes numbered messages, each until it is acknowledged. Returns how many.
fn publisher(n: usize, addresses: &Addresses, is_over: &AtomicBool) -> u64 {
    let mut rng = Prng::new(n as u64);
    let options = ConnectOptions::new(Version::V5, &format!("publisher-{n}"));
    let mut client = connect(addresses, &options, &mut rng);
    let mut sent = 0;
    while !is_over.load(Ordering::Relaxed) {
        client.publish(&format!("storm/{n}"), format!("{n}.{sent}").as_bytes(), QoS::AtLeastOnce, false);
        let answer = client.recv_within(SHORT).flatten();
        match answer.as_ref().map(|answer| answer.packet()) {
            Some(Packet::PubAck(ack)) if !ack.reason.is_error() => sent += 1,
            Some(Packet::PubAck(_)) => {}
            _ => client = connect(addresses, &options, &mut rng),
        }
    }
    sent
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

#[test]
fn sessions_live_through_a_storm() {
    let rounds = std::env::var("BIFRO_STORM_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(6_u64);
    let seed = std::env::var("BIFRO_STORM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1_u64);
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
        for round in 0..rounds {
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
                let node = nodes[victim].tcp();
                addresses.lock().expect("nobody panics with it")[victim] = node;
            }
            until_replicated(&nodes);
        }
        is_over.store(true, Ordering::Relaxed);
        let counts: Vec<u64> = publishers.into_iter().map(|publisher| publisher.join().expect("it ends")).collect();
        let all: HashSet<String> =
            (0..).zip(&counts).flat_map(|(n, &count)| (0..count).map(move |sent| format!("{n}.{sent}"))).collect();
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
    });
}

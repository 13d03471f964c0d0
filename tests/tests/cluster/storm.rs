//! Nodes are killed, stopped and started again, over and over, while clients publish and receive on all of them; then it is counted.
//! `BIFRO_STORM_ROUNDS` makes it longer.

use super::replication::{kept, until_replicated};
use bifro_core::message::QoS;
use bifro_core::rng::Prng;
use bifro_mqtt::packet::Packet;
use bifro_tests::Broker;
use bifro_tests::client::{AckKind, Client, ConnectOptions};
use bifro_tests::cluster::{LONG_QUEUES, cluster_with};
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
pub(crate) type Addresses = Arc<Mutex<Vec<SocketAddr>>>;

/// Where clients connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clients {
    /// To whichever node takes them.
    Anywhere,
    /// Each to a node of its own.
    AtHome,
}

/// What all clients have in common.
struct World {
    clients: Clients,
    addresses: Addresses,
    is_over: AtomicBool,
    expected: Mutex<Option<HashSet<String>>>,
}

/// Connects to a node that takes the client, which is the `n`th.
fn connect(world: &World, n: usize, options: &ConnectOptions, rng: &mut Prng) -> Client {
    loop {
        let address = {
            let addresses = world.addresses.lock().expect("nobody panics with it");
            let at = match world.clients {
                Clients::Anywhere => rng.below(addresses.len() as u64) as usize,
                Clients::AtHome => n % addresses.len(),
            };
            addresses[at]
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

/// What a client has seen.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) messages: u64,
    disconnects: u32,
    /// The longest that a message took, with all that was in the way.
    worst: Duration,
}

/// Publishes numbered messages, each until it is acknowledged.
fn publisher(n: usize, world: &World) -> Sent {
    let mut rng = Prng::new(n as u64);
    let options = kept(&format!("publisher-{n}"));
    let mut client = connect(world, n, &options, &mut rng);
    let mut seen = Sent::default();
    let mut begun = Instant::now();
    while !world.is_over.load(Ordering::Relaxed) {
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
                client = connect(world, n, &options, &mut rng);
            }
        }
    }
    seen
}

/// Receives for a session that is resumed wherever it can be. Returns every message, and how often it came; and how often it was disconnected.
fn subscriber(n: usize, world: &World) -> (BTreeMap<String, u32>, u32) {
    let mut rng = Prng::new(1_000 + n as u64);
    let options = kept(&format!("subscriber-{n}"));
    let mut client = connect(world, n, &options, &mut rng);
    let (mut heard, mut disconnects) = (BTreeMap::new(), 0);
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
            Some(None) => {
                disconnects += 1;
                client = connect(world, n, &options, &mut rng);
            }
            None => {}
        }
        // Some go now and then and come back, to another node mostly.
        if world.clients == Clients::Anywhere && rng.below(2_000) == 0 {
            client = connect(world, n, &options, &mut rng);
        }
        if let Some(expected) = &*world.expected.lock().expect("nobody panics with it") {
            let since = *over_since.get_or_insert_with(Instant::now);
            let is_complete = expected.iter().all(|message| heard.contains_key(message));
            if is_complete || since.elapsed() > Duration::from_secs(20) {
                return (heard, disconnects);
            }
        }
    }
}

/// Clients on all of these nodes while `weather` changes them; then every session must have every message.
pub(crate) fn under(addresses: &Addresses, seed: u64, clients: Clients, weather: impl FnOnce(&mut Prng)) -> Vec<Sent> {
    let world =
        World { clients, addresses: addresses.clone(), is_over: AtomicBool::new(false), expected: Mutex::new(None) };
    let mut rng = Prng::new(seed);
    for n in 0..SUBSCRIBERS {
        let mut client = connect(&world, n, &kept(&format!("subscriber-{n}")), &mut rng);
        client.subscribe("storm/#", QoS::AtLeastOnce);
    }
    std::thread::scope(|scope| {
        let world = &world;
        let subscribers: Vec<_> = (0..SUBSCRIBERS).map(|n| scope.spawn(move || subscriber(n, world))).collect();
        let publishers: Vec<_> = (0..PUBLISHERS).map(|n| scope.spawn(move || publisher(n, world))).collect();
        weather(&mut rng);
        world.is_over.store(true, Ordering::Relaxed);
        let mut seen: Vec<Sent> = publishers.into_iter().map(|publisher| publisher.join().expect("it ends")).collect();
        let numbered = |(n, seen): (usize, &Sent)| (0..seen.messages).map(move |sent| format!("{n}.{sent}"));
        let all: HashSet<String> = seen.iter().enumerate().flat_map(numbered).collect();
        *world.expected.lock().expect("nobody panics with it") = Some(all.clone());
        let mut repeated = 0;
        for (n, subscriber) in subscribers.into_iter().enumerate() {
            let (heard, disconnects) = subscriber.join().expect("it ends");
            let lost: Vec<_> = all.iter().filter(|message| !heard.contains_key(*message)).collect();
            let some = &lost[..lost.len().min(20)];
            assert!(lost.is_empty(), "subscriber {n} lost {} of {}: {some:?}", lost.len(), all.len());
            repeated += heard.values().map(|times| times - 1).sum::<u32>();
            seen.push(Sent { disconnects, ..Sent::default() });
        }
        let count = all.len();
        eprintln!("{count} messages acknowledged, none lost to {SUBSCRIBERS} sessions; {repeated} came more than once");
        seen
    })
}

/// Three nodes, and where they are.
fn three() -> (Vec<Broker>, Addresses) {
    // What is published while a client asks a node that stands still is more than a session may have by default.
    let nodes = cluster_with(3, LONG_QUEUES);
    until_replicated(&nodes);
    let addresses = addresses_of(&nodes);
    (nodes, addresses)
}

/// Where these are reached now.
pub(crate) fn addresses_of(nodes: &[Broker]) -> Addresses {
    Arc::new(Mutex::new(nodes.iter().map(|node| node.tcp()).collect()))
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

/// The node is somewhere else now.
pub(crate) fn moved(addresses: &Addresses, nodes: &[Broker], at: usize) {
    addresses.lock().expect("nobody panics with it")[at] = nodes[at].tcp();
}

#[test]
fn sessions_live_through_a_storm() {
    let (mut nodes, addresses) = three();
    under(&addresses, number("BIFRO_STORM_SEED", 1), Clients::Anywhere, |rng| {
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
                moved(&addresses, &nodes, victim);
            }
            until_replicated(&nodes);
        }
    });
}

/// Every node is ended in order and started again, one after the other, under clients that each know one of them: those of the node that is
/// restarted are disconnected, the others hear nothing of it.
#[test]
fn a_rolling_restart_loses_nothing_and_disconnects_each_client_once() {
    let (mut nodes, addresses) = three();
    let seen = under(&addresses, 1, Clients::AtHome, |_| {
        for at in 0..3 {
            std::thread::sleep(Duration::from_secs(1));
            let ended = nodes.remove(at).stop();
            nodes.insert(at, ended.restart());
            moved(&addresses, &nodes, at);
            until_replicated(&nodes);
        }
    });
    for Sent { messages, disconnects, worst } in &seen {
        eprintln!("{messages} messages, {disconnects} disconnects, the longest took {worst:?}");
    }
    assert!(seen.iter().all(|seen| seen.disconnects <= 1), "a client is disconnected at most once");
    assert!(seen.iter().all(|seen| seen.worst < Duration::from_secs(5)));
}

//! A rolling restart of three nodes under ten thousand messages a second: what its clients see of it.
//!
//! Each publisher sends to a persistent session of its own, on another node. Clients know one node each and connect to it again as soon as it
//! is back, so a client is away for as long as its node is.

use crate::cluster::until_led;
use crate::{Row, choose};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::{Packet, PacketId};
use bifro_tests::client::{AckKind, ConnectOptions};
use bifro_tests::cluster::{LONG_QUEUES, cluster_with, wait_for};
use bifro_tests::load::{Incoming, Sender, Swarm};
use bifro_tests::{Broker, PATIENCE};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PUBLISHERS: usize = 20;
/// Between two messages of a publisher: five hundred a second.
const INTERVAL: Duration = Duration::from_millis(2);
/// Messages without an acknowledgement at most. What there is no room for waits, and is sent as soon as there is.
const WINDOW: usize = 256;
const PAYLOAD_BYTES: usize = 256;
/// Times without an answer that are worth a line.
const LONG: Duration = Duration::from_millis(500);
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(20);

/// Where nodes are reached; none while one is down.
type Addresses = Mutex<[Option<SocketAddr>; 3]>;

/// What clients of either kind have: a session at a node.
struct Session {
    home: usize,
    options: ConnectOptions,
    key: Option<usize>,
    is_connected: bool,
    next_attempt: Instant,
    disconnects: u32,
    /// Refused with CONNACK, or broken before that.
    refused: u32,
}

impl Session {
    fn new(home: usize, id: &str) -> Self {
        let options = ConnectOptions { clean: false, ..ConnectOptions::new(Version::V311, id) };
        let next_attempt = Instant::now();
        Self { home, options, key: None, is_connected: false, next_attempt, disconnects: 0, refused: 0 }
    }

    /// Tries to connect if it is time to. Returns the new connection's key.
    fn attempt(&mut self, swarm: &mut Swarm, addresses: &[Option<SocketAddr>; 3]) -> Option<usize> {
        if self.key.is_some() || Instant::now() < self.next_attempt {
            return None;
        }
        self.next_attempt = Instant::now() + BETWEEN_ATTEMPTS;
        self.key = swarm.try_connect(addresses[self.home]?, &self.options).ok();
        self.key
    }

    fn closed(&mut self) {
        *(if self.is_connected { &mut self.disconnects } else { &mut self.refused }) += 1;
        (self.key, self.is_connected) = (None, false);
    }
}

struct Publisher {
    session: Session,
    topic: String,
    in_flight: VecDeque<(PacketId, u32)>,
    /// When the next message is due, and its number.
    due: Instant,
    next: u32,
    acknowledged: Vec<u32>,
    begun: Instant,
    last_answer: Instant,
    /// It lost its connection since.
    was_away: bool,
    /// The longest times without an answer: while it was connected, and with the time that it was not.
    stall: Duration,
    stall_away: Duration,
}

impl Publisher {
    fn new(n: usize) -> Self {
        let now = Instant::now();
        Self {
            session: Session::new(n % 3, &format!("publisher-{n}")),
            topic: format!("rolling/{n}"),
            in_flight: VecDeque::new(),
            due: now,
            next: 0,
            acknowledged: Vec::new(),
            begun: now,
            last_answer: now,
            was_away: false,
            stall: Duration::ZERO,
            stall_away: Duration::ZERO,
        }
    }

    fn fill(&mut self, sender: &mut Sender) {
        let now = Instant::now();
        while self.due <= now && self.in_flight.len() < WINDOW {
            let id = loop {
                let id = sender.packet_id();
                if self.in_flight.iter().all(|(other, _)| *other != id) {
                    break id;
                }
            };
            self.in_flight.push_back((id, self.next));
            self.send(sender, id, self.next, false);
            self.due += INTERVAL;
            self.next += 1;
        }
    }

    fn send(&self, sender: &mut Sender, id: PacketId, number: u32, dup: bool) {
        let mut payload = [0; PAYLOAD_BYTES];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        sender.publish(&self.topic, &payload, QoS::AtLeastOnce, Some(id), dup);
    }

    fn handle(&mut self, sender: &mut Sender, packet: &Packet<'_>) {
        match packet {
            Packet::ConnAck(ack) if !ack.reason.is_error() => {
                self.session.is_connected = true;
                self.in_flight.iter().for_each(|&(id, number)| self.send(sender, id, number, true));
            }
            Packet::PubAck(ack) => {
                let Some(at) = self.in_flight.iter().position(|(id, _)| *id == ack.packet_id) else { return };
                self.acknowledged.extend(self.in_flight.remove(at).map(|(_, number)| number));
                let since = self.last_answer.elapsed();
                let longest = if self.was_away { &mut self.stall_away } else { &mut self.stall };
                *longest = since.max(*longest);
                if since > LONG {
                    let how = if self.was_away { "away" } else { "connected" };
                    eprintln!("{:.2?}: {} had no answer for {since:.2?}, {how}", self.begun.elapsed(), self.topic);
                }
                (self.last_answer, self.was_away) = (Instant::now(), false);
            }
            _ => {}
        }
    }
}

struct Subscriber {
    session: Session,
    filter: String,
    is_subscribed: bool,
    /// How often each number has come.
    heard: Vec<u32>,
}

impl Subscriber {
    fn new(n: usize) -> Self {
        let session = Session::new((n + 1) % 3, &format!("subscriber-{n}"));
        Self { session, filter: format!("rolling/{n}"), is_subscribed: false, heard: Vec::new() }
    }

    fn handle(&mut self, sender: &mut Sender, packet: &Packet<'_>) {
        match packet {
            Packet::ConnAck(ack) if !ack.reason.is_error() => {
                self.session.is_connected = true;
                assert_eq!(ack.session_present, self.is_subscribed, "{}", self.filter);
                if !self.is_subscribed {
                    sender.subscribe([(&*self.filter, QoS::AtLeastOnce)]);
                }
            }
            Packet::SubAck(_) => self.is_subscribed = true,
            Packet::Publish(publish) => {
                if let Some(id) = publish.packet_id {
                    sender.ack(AckKind::PubAck, id);
                }
                let number = publish.payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes) as usize);
                if self.heard.len() <= number {
                    self.heard.resize(number + 1, 0);
                }
                self.heard[number] += 1;
            }
            _ => {}
        }
    }

    fn lost(&self, acknowledged: &[u32]) -> usize {
        acknowledged.iter().filter(|&&number| self.heard.get(number as usize).is_none_or(|times| *times == 0)).count()
    }

    fn repeated(&self) -> u64 {
        self.heard.iter().map(|times| u64::from(times.saturating_sub(1))).sum()
    }
}

#[derive(Clone, Copy)]
enum Role {
    Publisher(usize),
    Subscriber(usize),
}

/// All clients on one thread.
struct Load {
    swarm: Swarm,
    roles: HashMap<usize, Role>,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
}

impl Load {
    fn new(any: SocketAddr) -> Self {
        let publishers = (0..PUBLISHERS).map(Publisher::new).collect();
        let subscribers = (0..PUBLISHERS).map(Subscriber::new).collect();
        Self { swarm: Swarm::new(any), roles: HashMap::new(), publishers, subscribers }
    }

    /// Whoever has to connects; publishers send what is due, if they are to; everybody hears.
    fn turn(&mut self, addresses: &Addresses, are_publishing: bool) {
        let addresses = *addresses.lock().expect("nobody panics with it");
        let Self { swarm, roles, publishers, subscribers } = self;
        for (n, subscriber) in subscribers.iter_mut().enumerate() {
            let key = subscriber.session.attempt(swarm, &addresses);
            roles.extend(key.map(|key| (key, Role::Subscriber(n))));
        }
        let are_subscribed = subscribers.iter().all(|subscriber| subscriber.is_subscribed);
        for (n, publisher) in publishers.iter_mut().enumerate() {
            let key = publisher.session.attempt(swarm, &addresses);
            roles.extend(key.map(|key| (key, Role::Publisher(n))));
            if publisher.session.is_connected
                && are_subscribed
                && are_publishing
                && let Some(sender) = publisher.session.key.and_then(|key| swarm.sender(key))
            {
                publisher.fill(sender);
            }
        }
        swarm.turn(Duration::from_millis(1), |key, sender, incoming| match (roles.get(&key), incoming) {
            (Some(Role::Publisher(n)), Incoming::Packet(packet)) => publishers[*n].handle(sender, &packet),
            (Some(Role::Subscriber(n)), Incoming::Packet(packet)) => subscribers[*n].handle(sender, &packet),
            (Some(Role::Publisher(n)), Incoming::Closed) => {
                publishers[*n].was_away = true;
                publishers[*n].session.closed();
            }
            (Some(Role::Subscriber(n)), Incoming::Closed) => subscribers[*n].session.closed(),
            (None, _) => {}
        });
    }

    /// Nobody has published yet: from now on stalls count.
    fn begin(&mut self) {
        let now = Instant::now();
        for publisher in &mut self.publishers {
            (publisher.due, publisher.begun, publisher.last_answer) = (now, now, now);
        }
    }

    fn lost(&self) -> usize {
        self.publishers.iter().zip(&self.subscribers).map(|(sent, heard)| heard.lost(&sent.acknowledged)).sum()
    }

    fn in_flight(&self) -> usize {
        self.publishers.iter().map(|publisher| publisher.in_flight.len()).sum()
    }
}

/// What was done to the nodes, one after the other, and how long each was down.
fn restart_all(nodes: &mut Vec<Broker>, addresses: &Addresses) -> Vec<Duration> {
    let start = Instant::now();
    let place = |at: usize, address| addresses.lock().expect("nobody panics with it")[at] = address;
    let mut down = Vec::new();
    for at in 0..nodes.len() {
        std::thread::sleep(choose(Duration::from_secs(10), Duration::from_secs(3)));
        let node = nodes.remove(at);
        place(at, None);
        let began = Instant::now();
        let stopped = node.stop();
        let ended = began.elapsed();
        nodes.insert(at, stopped.restart());
        down.push(began.elapsed());
        eprintln!(
            "{:.2?}: a node ended in {ended:.2?} and was ready {:.2?} later",
            start.elapsed(),
            began.elapsed() - ended
        );
        place(at, Some(nodes[at].tcp()));
        for node in &*nodes {
            wait_for(node, &["alive"; 3]);
        }
        until_led(nodes);
    }
    std::thread::sleep(choose(Duration::from_secs(10), Duration::from_secs(3)));
    down
}

pub(crate) fn measure() -> Vec<Row> {
    // A client is away for as long as its node is down, at five hundred messages a second.
    let mut nodes = cluster_with(3, LONG_QUEUES);
    until_led(&nodes);
    let reached = |at: usize| Some(nodes[at].tcp());
    let addresses = Mutex::new([reached(0), reached(1), reached(2)]);
    let mut load = Load::new(nodes[0].tcp());
    while !load.subscribers.iter().all(|subscriber| subscriber.is_subscribed) {
        load.turn(&addresses, false);
    }
    let is_over = AtomicBool::new(false);
    let began = Instant::now();
    load.begin();
    let down = std::thread::scope(|scope| {
        let weather = scope.spawn(|| {
            let down = restart_all(&mut nodes, &addresses);
            is_over.store(true, Ordering::Relaxed);
            down
        });
        while !is_over.load(Ordering::Relaxed) && !weather.is_finished() {
            load.turn(&addresses, true);
        }
        weather.join().expect("the nodes come back")
    });
    let lasted = began.elapsed();
    let deadline = Instant::now() + 3 * PATIENCE;
    while (load.in_flight() > 0 || load.lost() > 0) && Instant::now() < deadline {
        (0..200).for_each(|_| load.turn(&addresses, false));
    }
    rows(&load, lasted, &down)
}

fn rows(load: &Load, lasted: Duration, down: &[Duration]) -> Vec<Row> {
    let acknowledged: usize = load.publishers.iter().map(|publisher| publisher.acknowledged.len()).sum();
    let repeated: u64 = load.subscribers.iter().map(Subscriber::repeated).sum();
    let sessions = || {
        let publishers = load.publishers.iter().map(|publisher| &publisher.session);
        publishers.chain(load.subscribers.iter().map(|subscriber| &subscriber.session))
    };
    let most = sessions().map(|session| session.disconnects).max().unwrap_or_default();
    let disconnects: u32 = sessions().map(|session| session.disconnects).sum();
    let refused: u32 = sessions().map(|session| session.refused).sum();
    let worst = |stall: fn(&Publisher) -> Duration| load.publishers.iter().map(stall).max().unwrap_or_default();
    let rate = acknowledged as f64 / lasted.as_secs_f64();
    let down: Vec<String> = down.iter().map(|time| format!("{time:.2?}")).collect();
    vec![
        Row::new(
            "rolling restart of three nodes under 20 publishers of QoS 1: acknowledged",
            format!("{acknowledged} ({rate:.0}/s over {lasted:.0?})"),
            "10,000/s",
        ),
        Row::new("acknowledged and lost; without an answer", format!("{}; {}", load.lost(), load.in_flight()), "0"),
        Row::new("came more than once", repeated.to_string(), "-"),
        Row::new(
            format!("disconnections of a client at most; of {} altogether; refused attempts", 2 * PUBLISHERS),
            format!("{most}; {disconnects}; {refused}"),
            "1",
        ),
        Row::new(
            "longest time without an acknowledgement, of publishers that stayed connected",
            format!("{:.2?}", worst(|publisher| publisher.stall)),
            "< 2 s",
        ),
        Row::new(
            format!("the same of those whose node was restarted (down for {})", down.join(", ")),
            format!("{:.2?}", worst(|publisher| publisher.stall_away)),
            "< 2 s",
        ),
    ]
}

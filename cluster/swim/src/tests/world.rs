//! Nodes, a network between them and a clock.

use crate::{Announcement, Body, Config, Effect, Event, Health, Incarnation, Message, Report, Status, Swim, wire};
use alloc::collections::{BTreeMap, BTreeSet, BinaryHeap};
use alloc::vec::Vec;
use bifro_core::ids::NodeId;
use bifro_core::rng::Prng;
use bifro_core::roles::Duties;
use bifro_core::time::Instant;
use core::cmp::Reverse;
use core::time::Duration;
use std::net::{Ipv4Addr, SocketAddr};

/// Where node `id` listens.
pub(super) fn address(id: u64) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(0x0a00_0000 | id as u32), 7946))
}

/// What node `id` says at its start number `start`.
pub(super) fn announcement(id: u64, start: u32, nonce: u64) -> Announcement {
    Announcement {
        id: NodeId(id),
        incarnation: Incarnation { start, word: 0 },
        nonce,
        address: address(id),
        shards: 2,
        health: Health::Well,
        duties: Duties::default(),
    }
}

/// A message on its way.
#[derive(Debug)]
struct Flight {
    due: Instant,
    number: u64,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl PartialEq for Flight {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Flight {}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Flight {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

/// See the module's page. Processes are told apart by where they listen.
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) nodes: BTreeMap<SocketAddr, Swim>,
    /// What every process has told its host, and when.
    pub(super) events: Vec<(Instant, SocketAddr, Event)>,
    /// Of a hundred messages, so many are lost.
    pub(super) loss_percent: u64,
    /// Nothing gets from one to the other.
    pub(super) cuts: BTreeSet<(SocketAddr, SocketAddr)>,
    /// Those that do not run.
    pub(super) stopped: BTreeSet<SocketAddr>,
    /// Bytes sent by everybody.
    pub(super) bytes: u64,
    config: Config,
    flights: BinaryHeap<Reverse<Flight>>,
    timers: BTreeSet<(Instant, SocketAddr)>,
    armed: BTreeMap<SocketAddr, Instant>,
    number: u64,
    pub(super) rng: Prng,
}

impl World {
    pub(super) fn new(seed: u64, config: Config) -> Self {
        Self {
            now: Instant::from_micros(1_000_000),
            nodes: BTreeMap::new(),
            events: Vec::new(),
            loss_percent: 0,
            cuts: BTreeSet::new(),
            stopped: BTreeSet::new(),
            bytes: 0,
            config,
            flights: BinaryHeap::new(),
            timers: BTreeSet::new(),
            armed: BTreeMap::new(),
            number: 0,
            rng: Prng::new(seed),
        }
    }

    /// A cluster of `count` nodes that all know each other. Node 1 is everybody's seed.
    pub(super) fn cluster(seed: u64, count: u64) -> Self {
        Self::cluster_with(seed, count, Config::default())
    }

    pub(super) fn cluster_with(seed: u64, count: u64, config: Config) -> Self {
        let mut world = Self::new(seed, config);
        for id in 1..=count {
            world.start(announcement(id, 1, id), &[address(1)]);
            world.run(Duration::from_millis(10));
        }
        world.run_until(Duration::from_secs(300), "everybody knows everybody", Self::is_whole);
        // Until nothing is left to be told, and everybody has had time to feel well.
        world.run_until(Duration::from_secs(300), "nothing is left to be told", |world| {
            world.nodes.values().all(|node| node.has_told() && node.local_health() == 0)
        });
        world.events.clear();
        world
    }

    /// The same without the long way to it: for clusters so large that it takes long to simulate.
    pub(super) fn formed(seed: u64, count: u64) -> Self {
        let mut world = Self::new(seed, Config::default());
        let all = (1..=count).map(|id| Report { announcement: announcement(id, 1, id), status: Status::Alive });
        let reports: Vec<Report> = all.collect();
        for id in 1..=count {
            world.start(announcement(id, 1, id), &[]);
            let others = reports.iter().filter(|report| report.announcement.id != NodeId(id)).cloned().collect();
            let from = 1 + id % count;
            let body = Body::Table { reports: others, answer: false };
            let (from, address) = (NodeId(from), address(from));
            let message = Message { from, address, to: Some(NodeId(id)), body, rumours: Vec::new() };
            world.with(id, |node, now| {
                node.handle_message(message, now);
                node.forget_news();
            });
            // So that they do not all probe at the same moment.
            let pause = Duration::from_micros(world.rng.below(1_000_000) / count);
            world.now = world.now + pause;
        }
        assert!(world.is_whole());
        world.events.clear();
        world
    }

    pub(super) fn start(&mut self, me: Announcement, seeds: &[SocketAddr]) {
        let at = me.address;
        let rng = Prng::new(self.rng.next_u64());
        let mut node = Swim::new(self.config.clone(), me, Vec::new(), rng, self.now);
        node.set_seeds(seeds.to_vec(), self.now);
        self.nodes.insert(at, node);
        self.settle(at);
    }

    /// The process is gone, without a word.
    pub(super) fn kill(&mut self, at: SocketAddr) -> Swim {
        self.arm(at, None);
        self.nodes.remove(&at).expect("it runs")
    }

    /// The process does not run until it is told to go on.
    pub(super) fn stop(&mut self, at: SocketAddr) {
        self.stopped.insert(at);
        self.arm(at, None);
    }

    pub(super) fn go_on(&mut self, at: SocketAddr) {
        self.stopped.remove(&at);
        // What has come meanwhile comes before anything that is due.
        self.run(Duration::from_micros(1));
        self.settle(at);
    }

    pub(super) fn cut(&mut self, one: &[u64], other: &[u64]) {
        for (&a, &b) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
            self.cuts.extend([(address(a), address(b)), (address(b), address(a))]);
        }
    }

    /// Does something with one node.
    pub(super) fn with<T>(&mut self, id: u64, work: impl FnOnce(&mut Swim, Instant) -> T) -> T {
        let result = work(self.nodes.get_mut(&address(id)).expect("it runs"), self.now);
        self.settle(address(id));
        result
    }

    /// Every process knows every other as alive, and nobody else as present.
    pub(super) fn is_whole(&self) -> bool {
        self.nodes.values().all(|node| {
            let alive = node.members().filter(|member| member.status == Status::Alive);
            let alive: BTreeSet<SocketAddr> = alive.map(|member| member.announcement.address).collect();
            let others = self.nodes.keys().filter(|&&at| at != node.me().address);
            node.present() == self.nodes.len() && others.copied().eq(alive.iter().copied())
        })
    }

    /// How often something like this happened.
    pub(super) fn count(&self, wanted: impl Fn(Event) -> bool) -> usize {
        self.events.iter().filter(|(_, _, event)| wanted(*event)).count()
    }

    /// # Panics
    /// If `done` does not come true within `most`.
    pub(super) fn run_until(&mut self, most: Duration, what: &str, done: impl Fn(&Self) -> bool) -> Duration {
        let start = self.now;
        while !done(self) {
            assert!(self.now.since(start) < most, "not within {most:?}: {what}");
            self.run(Duration::from_millis(10));
        }
        self.now.since(start)
    }

    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    fn next(&self) -> Option<Instant> {
        let flight = self.flights.peek().map(|flight| flight.0.due);
        bifro_core::time::earlier(flight, self.timers.first().map(|timer| timer.0))
    }

    fn step(&mut self) {
        if self.flights.peek().is_some_and(|flight| flight.0.due <= self.now) {
            let Some(Reverse(mut flight)) = self.flights.pop() else { return };
            if self.stopped.contains(&flight.to) {
                flight.due = self.now + Duration::from_millis(5);
                self.flights.push(Reverse(flight));
                return;
            }
            let message = wire::decode(&flight.bytes).expect("what was sent");
            if let Some(node) = self.nodes.get_mut(&flight.to) {
                node.handle_message(message, self.now);
            }
            self.settle(flight.to);
        } else if let Some((_, at)) = self.timers.pop_first() {
            self.armed.remove(&at);
            if let Some(node) = self.nodes.get_mut(&at) {
                node.handle_timeout(self.now);
            }
            self.settle(at);
        }
    }

    fn settle(&mut self, at: SocketAddr) {
        let Some(node) = self.nodes.get_mut(&at) else { return };
        let effects: Vec<Effect> = core::iter::from_fn(|| node.poll_effect()).collect();
        let next = node.next_timeout();
        self.arm(at, next.filter(|_| !self.stopped.contains(&at)));
        for effect in effects {
            match effect {
                Effect::Send { address, message } => self.send(at, address, &message),
                Effect::Event(event) => self.events.push((self.now, at, event)),
                // Nobody gives orders here.
                Effect::Obey { .. } | Effect::Obeyed { .. } => {}
            }
        }
    }

    fn arm(&mut self, at: SocketAddr, next: Option<Instant>) {
        if let Some(before) = self.armed.remove(&at) {
            self.timers.remove(&(before, at));
        }
        if let Some(next) = next {
            self.timers.insert((next, at));
            self.armed.insert(at, next);
        }
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, message: &Message) {
        // To where nobody is, no connection is made, and nothing is sent.
        if !self.nodes.contains_key(&to) {
            return;
        }
        let bytes = wire::encode(message).to_vec();
        self.bytes += bytes.len() as u64;
        let lost = !message.is_bulk() && self.rng.below(100) < self.loss_percent;
        if lost || self.cuts.contains(&(from, to)) {
            return;
        }
        self.number += 1;
        let delay = Duration::from_micros(200 + self.rng.below(800));
        self.flights.push(Reverse(Flight { due: self.now + delay, number: self.number, to, bytes }));
    }
}

//! Publishers and subscribers on one swarm, and their common history.

use super::{Incoming, Publisher, Subscriber, Swarm};
use crate::history::{Event, History, Promise, Violation, check};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
enum Role {
    Publisher(usize),
    Subscriber(usize),
}

/// See the module's page.
#[derive(Debug)]
pub struct World {
    /// Shown when anything fails.
    pub seed: u64,
    /// Publishers, by number.
    pub publishers: Vec<Publisher>,
    /// Subscribers, by number.
    pub subscribers: Vec<Subscriber>,
    /// What they did and saw.
    pub history: History,
    swarm: Swarm,
    roles: HashMap<usize, Role>,
    publisher_keys: HashMap<usize, usize>,
    subscriber_keys: HashMap<usize, usize>,
    faults: Vec<String>,
    progress: Instant,
    /// The broker has been killed: connections end.
    is_dead: bool,
}

impl World {
    /// Nobody yet.
    pub fn new(broker: SocketAddr, seed: u64) -> Self {
        Self {
            seed,
            publishers: Vec::new(),
            subscribers: Vec::new(),
            history: History::default(),
            swarm: Swarm::new(broker),
            roles: HashMap::new(),
            publisher_keys: HashMap::new(),
            subscriber_keys: HashMap::new(),
            faults: Vec::new(),
            progress: Instant::now(),
            is_dead: false,
        }
    }

    /// Adds a publisher and connects it.
    pub fn add_publisher(&mut self, publisher: Publisher) -> usize {
        self.publishers.push(publisher);
        self.connect_publisher(self.publishers.len() - 1);
        self.publishers.len() - 1
    }

    /// Adds a subscriber and connects it.
    pub fn add_subscriber(&mut self, subscriber: Subscriber) -> usize {
        self.subscribers.push(subscriber);
        self.connect_subscriber(self.subscribers.len() - 1);
        self.subscribers.len() - 1
    }

    /// Connects a publisher (again).
    pub fn connect_publisher(&mut self, number: usize) {
        let key = self.swarm.connect(&self.publishers[number].options);
        self.roles.insert(key, Role::Publisher(number));
        self.publisher_keys.insert(number, key);
    }

    /// Connects a subscriber (again).
    pub fn connect_subscriber(&mut self, number: usize) {
        let key = self.swarm.connect(&self.subscribers[number].options);
        self.roles.insert(key, Role::Subscriber(number));
        self.subscriber_keys.insert(number, key);
    }

    /// Cuts a publisher off, without DISCONNECT, and connects it again at once, before the broker can know. Only once it has its
    /// CONNACK: of two connections that are both on their way the broker may take either for the later one.
    pub fn flap_publisher(&mut self, number: usize) {
        if !self.publishers[number].is_connected() {
            return;
        }
        if let Some(key) = self.publisher_keys.remove(&number) {
            self.roles.remove(&key);
            self.swarm.cut(key);
            self.publishers[number].disconnected();
        }
        self.connect_publisher(number);
    }

    /// The same for a subscriber.
    pub fn flap_subscriber(&mut self, number: usize) {
        if !self.subscribers[number].is_ready() {
            return;
        }
        self.cut_subscriber(number);
        self.connect_subscriber(number);
    }

    /// Cuts a subscriber off, without DISCONNECT.
    pub fn cut_subscriber(&mut self, number: usize) {
        let Some(key) = self.subscriber_keys.remove(&number) else { return };
        self.roles.remove(&key);
        self.swarm.cut(key);
        self.subscribers[number].disconnected();
    }

    /// A member leaves its group, with whatever it has not acknowledged.
    pub fn depart(&mut self, number: usize) {
        self.cut_subscriber(number);
        let subscriber = &self.subscribers[number];
        self.history.push(Event::Departed { audience: subscriber.audience, member: subscriber.member });
    }

    /// The broker has been killed: everybody hears what was on its way to them, and the end.
    pub fn broker_died(&mut self) {
        self.is_dead = true;
        self.run_until("the end of all connections", |world| world.swarm.is_empty());
        self.is_dead = false;
        self.roles.clear();
        self.publisher_keys.clear();
        self.subscriber_keys.clear();
        self.publishers.iter_mut().for_each(Publisher::disconnected);
        self.subscribers.iter_mut().for_each(Subscriber::disconnected);
    }

    /// Another broker has taken its place. Nobody is connected to it yet.
    pub fn set_broker(&mut self, broker: SocketAddr) {
        self.swarm.set_broker(broker);
    }

    /// One round: publishers send, everybody hears.
    pub fn turn(&mut self) {
        for (number, publisher) in self.publishers.iter_mut().enumerate() {
            if publisher.is_done() || self.is_dead {
                continue;
            }
            if let Some(sender) = self.publisher_keys.get(&number).and_then(|&key| self.swarm.sender(key)) {
                publisher.fill(sender, &mut self.history);
            }
        }
        let Self { swarm, roles, publishers, subscribers, history, faults, progress, is_dead, .. } = self;
        swarm.turn(Duration::from_millis(5), |key, sender, incoming| {
            *progress = Instant::now();
            let result = match (roles.get(&key), incoming) {
                (Some(Role::Publisher(number)), Incoming::Packet(packet)) => {
                    publishers[*number].handle(sender, &packet, history)
                }
                (Some(Role::Subscriber(number)), Incoming::Packet(packet)) => {
                    subscribers[*number].handle(sender, &packet, history)
                }
                (Some(_), Incoming::Closed) if *is_dead => Ok(()),
                (Some(role), Incoming::Closed) => Err(format!("the broker closed the connection of {role:?}")),
                (None, _) => Ok(()),
            };
            faults.extend(result.err());
        });
        assert!(self.faults.is_empty(), "seed {:#x}: {:#?}", self.seed, &self.faults[..self.faults.len().min(10)]);
    }

    /// Turns until `done`, as long as anything happens.
    ///
    /// # Panics
    /// If nothing happens for a while and it is still not done, or the broker does what it must not.
    pub fn run_until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        self.progress = Instant::now();
        while !done(self) {
            self.turn();
            assert!(self.progress.elapsed() < crate::PATIENCE, "seed {:#x}: stuck before «{what}»", self.seed);
        }
    }

    /// Turns until nothing has come for `silence`.
    pub fn run_until_silent(&mut self, silence: Duration) {
        self.progress = Instant::now();
        while self.progress.elapsed() < silence {
            self.turn();
        }
    }

    /// Compares the history with what was promised.
    ///
    /// # Panics
    /// If a promise was broken.
    pub fn expect_kept(&self, promises: &[Promise]) {
        let violations = check(&self.history, promises);
        let shown = &violations[..violations.len().min(10)];
        let (seed, count) = (self.seed, violations.len());
        assert!(violations.is_empty(), "seed {seed:#x}: {count} violations: {shown:#?}\n{}", self.story(shown));
    }

    /// Everything that happened to the first mark of a violation, and who was concerned.
    fn story(&self, violations: &[Violation]) -> String {
        let Some((audience, mark)) = violations.iter().find_map(Violation::concerns) else { return String::new() };
        let members = self.subscribers.iter().filter(|subscriber| subscriber.audience == audience);
        let mut story = members.take(3).map(|member| format!("{member:#?}\n")).collect::<String>();
        for (time, event) in self.history.events().iter().enumerate() {
            let told = match *event {
                Event::Published { mark: other } | Event::Acknowledged { mark: other } => other == mark,
                Event::Received { audience: other, mark: seen, .. } => other == audience && seen.stream == mark.stream,
                _ => false,
            };
            if told {
                story.push_str(&format!("{time}: {event:?}\n"));
            }
        }
        story
    }
}

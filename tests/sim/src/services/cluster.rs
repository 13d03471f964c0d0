//! One simulation: the cluster from the first event to the last.

use super::invariants::Checks;
use super::invariants::liveness::Seen;
use super::links::{Link, Place};
use super::listener::Listener;
use super::node::{self, Node};
use super::options::{CLIENTS_GO_ON, EPISODE, FAULTY, Kind, Options, SHARDS_MAX, Settings, Weather};
use super::publisher::Publisher;
use super::report::Report;
use super::shard::{Outputs, Shard};
use super::subscriber::Subscriber;
use super::talk::{ConnId, Frame, LinkId, LinkOutput, MIXED, Note, Parcel, SESSIONS, ToClient, ToServer};
use crate::clock::Clock;
use crate::network::Network;
use crate::options::{around, within};
use crate::queue::{Moment, Queue};
use crate::trace::Trace;
use bifro_core::ids::{InboxSeq, ShardId};
use bifro_core::rng::Prng;
use bifro_core::time::Instant;
use bifro_genesis::ClusterGenesis;
use bifro_swim::{Effect, Message as Membership};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a node's clock shows at the beginning: Unix time, as a node's does.
const EPOCH: Instant = Instant::from_micros(1_700_000_000_000_000);
/// How far a clock may be ahead.
const SKEW: Duration = Duration::from_secs(600);
/// How often it is looked whether everything is well again.
const LOOK: Duration = Duration::from_millis(250);

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// A shard turns.
    Turn(Place),
    /// A write to a node's log is done.
    Written {
        node: usize,
        boot: u64,
    },
    /// A job of a node's engine is done.
    Job {
        node: usize,
        boot: u64,
    },
    /// A node's underlay looks at the clock.
    Membership {
        node: usize,
        boot: u64,
    },
    /// A message of the underlay arrives.
    Heard {
        to: usize,
        message: Box<Membership>,
    },
    /// See [`super::links`].
    Call {
        link: LinkId,
        from: Place,
        to: usize,
        shard: u16,
    },
    Parcel {
        link: LinkId,
        way: usize,
    },
    Note {
        link: LinkId,
        way: usize,
        note: Note,
    },
    /// A client's words arrive.
    ToServer {
        conn: ConnId,
        what: ToServer,
    },
    /// Words for a client arrive.
    ToClient {
        conn: ConnId,
        what: ToClient,
    },
    /// A client acknowledges a message.
    Acknowledge {
        conn: ConnId,
        seq: InboxSeq,
    },
    /// A client does the next thing.
    Subscriber {
        index: usize,
    },
    Publisher {
        index: usize,
    },
    Listener {
        index: usize,
    },
    /// A node starts.
    Start {
        node: usize,
    },
    /// The next fault, and the next of several cuts.
    Fault,
    Flap,
    /// The episode's faults end.
    Heal,
    /// Clients begin nothing new.
    Settle,
    /// It is looked whether everything is well again.
    Look {
        healed: Moment,
    },
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ClientKey {
    Subscriber(usize),
    Publisher(usize),
    Listener(usize),
}

/// A client's connection.
#[derive(Debug)]
struct Conn {
    client: ClientKey,
    place: Place,
    /// What was said before arrives by then.
    to_server: Moment,
    to_client: Moment,
    is_open: bool,
    /// The client has left it: it hears nothing more.
    is_left: bool,
}

/// Everything but nodes, links and clients.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) settings: Settings,
    pub(crate) weather: Weather,
    pub(crate) queue: Queue<Event>,
    pub(crate) network: Network,
    pub(crate) rng: Prng,
    pub(crate) trace: Trace,
    pub(crate) report: Report,
}

impl World {
    /// Tells what happens, if that is wanted.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        let now = self.queue.now();
        if self.options.narrate_from.is_some_and(|from| now.0 >= from * 1_000_000) {
            eprintln!("{now}: {}", what());
        }
    }
}

/// The whole cluster.
pub(crate) struct Simulation {
    pub(crate) world: World,
    pub(crate) nodes: Vec<Node>,
    genesis: ClusterGenesis,
    pub(super) links: BTreeMap<LinkId, Link>,
    conns: BTreeMap<ConnId, Conn>,
    pub(crate) subscribers: Vec<Subscriber>,
    pub(crate) publishers: Vec<Publisher>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) checks: Checks,
    boots: u64,
    /// Things go wrong at the moment.
    pub(super) faulty: bool,
    pub(super) heals_at: Moment,
    /// Clients begin new things.
    pub(crate) clients_begin: bool,
    pub(crate) seen: Seen,
}

impl Simulation {
    pub(crate) fn new(seed: u64, options: Options) -> Self {
        let rng = Prng::new(seed).derive(options.nodes as u64).derive(7);
        let settings = Settings::drawn(&mut rng.derive(1));
        let (mut draws, mut callers) = (rng.derive(2), rng.derive(5));
        let nodes = (0..options.nodes).map(|index| {
            let shards = 1 + draws.below(SHARDS_MAX) as u16;
            let skew = within(&mut draws, if options.without.contains(&Kind::Clocks) { Duration::ZERO } else { SKEW });
            Node::new(index, shards, Clock::new(EPOCH + skew))
        });
        let nodes = nodes.collect();
        let mut world = World {
            network: Network::new(options.nodes, rng.derive(3)),
            rng: rng.derive(4),
            weather: Weather::fair(),
            queue: Queue::new(),
            trace: Trace::default(),
            report: Report::default(),
            settings,
            options,
        };
        let Settings { subscribers, members, publishers, listeners, ranges, .. } = world.settings;
        let groups = (0..members).map(|index| Some(if index % 2 == 0 { SESSIONS } else { MIXED }));
        let groups: Vec<_> = std::iter::repeat_n(None, subscribers).chain(groups).collect();
        (0..world.options.nodes).for_each(|node| world.queue.at(Moment(0), Event::Start { node }));
        (0..groups.len()).for_each(|index| world.queue.at(Moment(1), Event::Subscriber { index }));
        (0..publishers).for_each(|index| world.queue.at(Moment(2), Event::Publisher { index }));
        (0..listeners).for_each(|index| world.queue.at(Moment(3), Event::Listener { index }));
        Self {
            genesis: node::genesis(world.options.nodes, ranges, draws.next_u64()),
            world,
            nodes,
            links: BTreeMap::new(),
            conns: BTreeMap::new(),
            checks: Checks::new(groups.len()),
            subscribers: groups.into_iter().enumerate().map(|(index, group)| Subscriber::new(index, group)).collect(),
            publishers: (0..publishers).map(|index| Publisher::drawn(index, &mut callers)).collect(),
            listeners: (0..listeners).map(|_| Listener::default()).collect(),
            boots: 0,
            faulty: false,
            heals_at: Moment(0),
            clients_begin: true,
            seen: Seen::default(),
        }
    }

    /// Runs every episode.
    pub(crate) fn run(&mut self) {
        for _ in 0..self.world.options.episodes {
            self.episode();
        }
    }

    fn episode(&mut self) {
        let begin = self.world.queue.now();
        self.world.weather = Weather::drawn(&mut self.world.rng, &self.world.options);
        (self.faulty, self.clients_begin, self.seen) = (true, true, Seen::default());
        let healed = begin + FAULTY;
        self.heals_at = healed;
        let (weather, pace) = (&self.world.weather, self.world.weather.pace);
        let confusing = [Kind::Cuts, Kind::Flaps, Kind::Freezes, Kind::Stalls, Kind::Loss];
        self.checks.delivery.groups.is_calm = !confusing.into_iter().any(|kind| weather.has(kind));
        self.world.tell(|| format!("{weather:?}"));
        self.world.queue.after(pace, Event::Fault);
        self.world.queue.at(healed, Event::Heal);
        self.world.queue.at(healed + CLIENTS_GO_ON, Event::Settle);
        self.world.queue.at(healed + LOOK, Event::Look { healed });
        while self.world.queue.now() < begin + EPISODE && !self.seen.all {
            let event = self.world.queue.pop().expect("nodes always look again");
            self.happen(event);
        }
        assert!(self.seen.all, "what had to be true was looked at");
        self.world.report.episodes += 1;
    }

    /// The virtual time.
    pub(crate) fn now(&self) -> Moment {
        self.world.queue.now()
    }

    fn happen(&mut self, event: Event) {
        self.world.report.events += 1;
        match event {
            Event::Turn(place) => self.turn(place),
            Event::Written { node, boot } => self.written(node, boot),
            Event::Job { node, boot } => self.do_job(node, boot),
            Event::Membership { node, boot } => self.look_at_members(node, boot),
            Event::Heard { to, message } => self.hear_of_members(to, message),
            Event::Call { link, from, to, shard } => self.call_arrives(link, from, to, shard),
            Event::Parcel { link, way } => self.parcel_arrives(link, way),
            Event::Note { link, way, note } => self.note_arrives(link, way, note),
            Event::ToServer { conn, what } => self.client_says(conn, what),
            Event::ToClient { conn, what } => self.client_hears(conn, what),
            Event::Acknowledge { conn, seq } => self.tell_server(conn, ToServer::Acknowledge(seq)),
            Event::Subscriber { index } => self.subscriber_acts(index),
            Event::Publisher { index } => self.publisher_acts(index),
            Event::Listener { index } => self.listener_acts(index),
            Event::Start { node } => self.start(node),
            Event::Fault => self.fault(),
            Event::Flap => self.flap_once(),
            Event::Heal => self.heal(),
            Event::Settle => self.clients_begin = false,
            Event::Look { healed } => {
                self.look(healed);
                if !self.seen.all {
                    self.world.queue.after(LOOK, Event::Look { healed });
                }
            }
        }
    }

    pub(super) fn shard(&self, place: Place) -> Option<&Shard> {
        let process = self.nodes[place.node].process.as_ref().filter(|process| process.boot == place.boot)?;
        process.shards.get(usize::from(place.shard))
    }

    pub(super) fn shard_mut(&mut self, place: Place) -> Option<&mut Shard> {
        let process = self.nodes[place.node].process.as_mut().filter(|process| process.boot == place.boot)?;
        process.shards.get_mut(usize::from(place.shard))
    }

    /// There is something for a shard to do.
    pub(super) fn wake(&mut self, node: usize, shard: u16) {
        let delay = within(&mut self.world.rng, self.world.weather.turn);
        self.turn_at(node, shard, self.world.queue.now() + delay);
    }

    fn turn_at(&mut self, node: usize, shard: u16, at: Moment) {
        let Some(process) = &mut self.nodes[node].process else { return };
        let next = &mut process.turns[usize::from(shard)];
        if next.is_none_or(|next| at < next) {
            *next = Some(at);
            let boot = process.boot;
            self.world.queue.at(at, Event::Turn(Place { node, boot, shard }));
        }
    }

    fn turn(&mut self, place: Place) {
        let now = self.world.queue.now();
        let Place { node, boot, shard } = place;
        let stands_until = self.nodes[node].stands_until(Some(shard));
        let clock = self.nodes[node].now(now);
        let Some(process) = self.nodes[node].process.as_mut().filter(|process| process.boot == boot) else { return };
        let index = usize::from(shard);
        if process.turns[index] != Some(now) {
            return;
        }
        process.turns[index] = None;
        if stands_until > now {
            return self.turn_at(node, shard, stands_until);
        }
        process.shards[index].turn(clock);
        self.world.report.turns += 1;
        let outputs = std::mem::take(&mut process.shards[index].outputs);
        let (next, is_quiet) = (process.shards[index].next_turn(), process.shards[index].inputs.is_empty());
        assert!(is_quiet, "a turn takes everything");
        self.hand_over(place, outputs);
        self.begin_storing(node);
        // A shard that wants to go on at once does so after a breath.
        let at = self.nodes[node].clock.when(next).max(now + Duration::from_micros(100));
        self.turn_at(node, shard, at);
    }

    fn hand_over(&mut self, place: Place, outputs: Outputs) {
        let Outputs { clients, mesh, links, given_up, inquired } = outputs;
        self.world.report.inquired += inquired;
        let now = self.world.queue.now().0;
        let sent = [place.node, place.shard.into(), clients.len(), mesh.len(), links.len()].map(|word| word as u64);
        self.world.trace.note(&[now]);
        self.world.trace.note(&sent);
        for (to, message) in mesh {
            let from = ShardId(place.shard);
            if let Some(shard) = self.shard_mut(Place { shard: to.0, ..place }) {
                shard.inputs.mesh.push_back((from, message));
                self.wake(place.node, to.0);
            }
        }
        for output in &links {
            if let LinkOutput::Parcel(link, Parcel::Batch(frames)) = output {
                self.world.report.batches += 1;
                for frame in frames {
                    if !matches!(frame, Frame::Service { .. }) {
                        self.world
                            .tell(|| format!("shard {} of n{} over {link:?}: {frame:?}", place.shard, place.node));
                    }
                }
                self.world.trace.note(&[link.0, frames.len() as u64]);
            }
        }
        self.carry(place, links);
        given_up.into_iter().for_each(|mark| self.checks.delivery.given_up(mark));
        for (conn, what) in clients {
            self.tell_client(conn, what);
        }
    }

    /// What the shards have handed to the storage begins.
    fn begin_storing(&mut self, node: usize) {
        let now = self.world.queue.now();
        let slow = if self.nodes[node].slow_until > now { Duration::from_secs(2) } else { Duration::ZERO };
        let Some(process) = &mut self.nodes[node].process else { return };
        let boot = process.boot;
        if !process.is_writing && process.storage.begin_write() {
            process.is_writing = true;
            let took = within(&mut self.world.rng, self.world.weather.sync + slow);
            self.world.queue.after(took, Event::Written { node, boot });
        }
        if !process.does_jobs && process.storage.has_jobs() {
            process.does_jobs = true;
            let took = within(&mut self.world.rng, self.world.weather.job + slow);
            self.world.queue.after(took, Event::Job { node, boot });
        }
    }

    fn written(&mut self, node: usize, boot: u64) {
        let Some(process) = self.nodes[node].process.as_mut().filter(|process| process.boot == boot) else { return };
        process.storage.finish_write();
        process.is_writing = false;
        self.stored(node);
    }

    fn do_job(&mut self, node: usize, boot: u64) {
        let Some(process) = self.nodes[node].process.as_mut().filter(|process| process.boot == boot) else { return };
        process.storage.do_job();
        process.does_jobs = false;
        self.stored(node);
    }

    fn stored(&mut self, node: usize) {
        (0..self.nodes[node].shards).for_each(|shard| self.wake(node, shard));
        self.begin_storing(node);
    }

    fn start(&mut self, node: usize) {
        if self.nodes[node].process.is_some() {
            return;
        }
        self.boots += 1;
        let (at, boot) = (self.world.queue.now(), self.boots);
        let rng = self.world.rng.derive(boot);
        self.nodes[node].start(boot, &self.genesis, &self.world.settings, at, &rng);
        #[cfg(feature = "mutations")]
        if let (Some(mutation), Some(process)) = (self.world.options.mutation, &mut self.nodes[node].process) {
            process.shards.iter_mut().for_each(|shard| shard.services.plant(mutation));
        }
        self.world.tell(|| format!("n{node} starts, as process {boot}"));
        (0..self.nodes[node].shards).for_each(|shard| self.wake(node, shard));
        self.follow_membership(node);
    }

    /// Ends a process, and has the node start again after a while.
    pub(super) fn crash(&mut self, node: usize) {
        let Some(process) = self.nodes[node].process.take() else { return };
        self.world.report.crashes += 1;
        let kept = self.world.rng.below(3) as usize;
        process.storage.cut_write(kept);
        let boot = process.boot;
        drop(process);
        let stays = crate::options::pick(&mut self.world.rng, &[300, 2_000, 8_000, 60_000]);
        let down = around(&mut self.world.rng, Duration::from_millis(stays));
        self.world.tell(|| format!("n{node} is killed, for {down:?}"));
        self.world.queue.after(down, Event::Start { node });
        let open = self.conns.iter().filter(|(_, conn)| conn.is_open && conn.place.boot == boot);
        for conn in open.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.tell_client(conn, ToClient::Closed);
        }
    }

    fn heal(&mut self) {
        self.faulty = false;
        self.world.tell(|| "everything heals".to_owned());
        self.world.network.heal();
        self.world.weather = Weather::fair();
        let now = self.world.queue.now();
        for node in 0..self.nodes.len() {
            let of = &mut self.nodes[node];
            (of.frozen_until, of.slow_until) = (now, now);
            of.stalled_until.fill(now);
            self.start(node);
            (0..self.nodes[node].shards).for_each(|shard| self.wake(node, shard));
        }
    }

    fn look_at_members(&mut self, node: usize, boot: u64) {
        let now = self.world.queue.now();
        let (stands_until, clock) = (self.nodes[node].stands_until(None), self.nodes[node].now(now));
        let Some(process) = self.nodes[node].process.as_mut().filter(|process| process.boot == boot) else { return };
        if process.swim_at != Some(now) {
            return;
        }
        process.swim_at = None;
        if stands_until > now {
            // What has arrived is heard before anybody is judged by not having been heard.
            let at = stands_until + Duration::from_micros(1);
            process.swim_at = Some(at);
            return self.world.queue.at(at, Event::Membership { node, boot });
        }
        process.swim.handle_timeout(clock);
        self.follow_membership(node);
    }

    fn hear_of_members(&mut self, to: usize, message: Box<Membership>) {
        let now = self.world.queue.now();
        let stands_until = self.nodes[to].stands_until(None);
        if stands_until > now {
            return self.world.queue.at(stands_until, Event::Heard { to, message });
        }
        let clock = self.nodes[to].now(now);
        if let Some(process) = &mut self.nodes[to].process {
            process.swim.handle_message(*message, clock);
            self.follow_membership(to);
        }
    }

    /// Carries out what a node's underlay wants.
    fn follow_membership(&mut self, node: usize) {
        let now = self.world.queue.now();
        let Some(process) = &mut self.nodes[node].process else { return };
        let mut sent = Vec::new();
        while let Some(effect) = process.swim.poll_effect() {
            match effect {
                Effect::Send { address, message } => sent.push((node::at(address), message)),
                Effect::Event(event) => {
                    self.world.tell(|| format!("n{node} hears {event:?}"));
                    assert_ne!(event, bifro_swim::Event::Superseded, "no node has two processes at a time");
                }
                order @ (Effect::Obey { .. } | Effect::Obeyed { .. }) => panic!("nobody gives orders: {order:?}"),
            }
        }
        let (nodes, peers, boot) = (process.nodes(), process.swim.peers(), process.boot);
        let next = process.swim.next_timeout();
        let next = next.map(|at| self.nodes[node].clock.when(at).max(now + Duration::from_micros(100)));
        self.nodes[node].peers = peers;
        for (to, message) in sent {
            self.send_membership(node, to, message);
        }
        let Some(process) = &mut self.nodes[node].process else { return };
        if let Some(at) = next.filter(|at| process.swim_at.is_none_or(|before| *at < before)) {
            process.swim_at = Some(at);
            self.world.queue.at(at, Event::Membership { node, boot });
        }
        if let Some(nodes) = nodes {
            for shard in &mut process.shards {
                shard.inputs.nodes.push_back(nodes.clone());
            }
            (0..self.nodes[node].shards).for_each(|shard| self.wake(node, shard));
        }
    }

    fn send_membership(&mut self, from: usize, to: usize, message: Membership) {
        let now = self.world.queue.now();
        // A stream repeats what is lost, as long as anything gets through.
        let weather = &self.world.weather.network;
        let weather = if message.is_bulk() {
            crate::options::Weather { loss: 0, duplicates: 0, ..weather.clone() }
        } else {
            weather.clone()
        };
        for at in self.world.network.deliveries(now, from, to, &weather).into_iter().flatten() {
            let message = Box::new(message.clone());
            self.world.queue.at(at, Event::Heard { to, message });
        }
    }

    /// A client connects to some node that is up. None if none is.
    pub(super) fn connect(&mut self, client: ClientKey) -> Option<ConnId> {
        let up: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].process.is_some()).collect();
        let node = *up.get(self.world.rng.below(up.len() as u64) as usize)?;
        let boot = self.nodes[node].process.as_ref()?.boot;
        let shard = self.world.rng.below(self.nodes[node].shards.into()) as u16;
        let (id, now) = (ConnId(self.conns.len() as u64), self.world.queue.now());
        let place = Place { node, boot, shard };
        self.conns.insert(id, Conn { client, place, to_server: now, to_client: now, is_open: true, is_left: false });
        self.world.tell(|| format!("{client:?} connects to shard {shard} of n{node}, as {id:?}"));
        Some(id)
    }

    /// A client says something.
    pub(super) fn tell_server(&mut self, id: ConnId, what: ToServer) {
        let (now, delay) = (self.world.queue.now(), within(&mut self.world.rng, self.world.weather.client));
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| !conn.is_left) else { return };
        conn.is_left = matches!(what, ToServer::Disconnect | ToServer::Broken);
        conn.to_server = conn.to_server.max(now + delay);
        let at = conn.to_server;
        self.world.queue.at(at, Event::ToServer { conn: id, what });
    }

    fn client_says(&mut self, id: ConnId, what: ToServer) {
        let Some(place) = self.conns.get(&id).map(|conn| conn.place) else { return };
        self.world.tell(|| format!("{id:?} to shard {} of n{}: {what:?}", place.shard, place.node));
        match self.shard_mut(place) {
            Some(shard) => {
                shard.inputs.clients.push_back((id, what));
                self.wake(place.node, place.shard);
            }
            None => self.tell_client(id, ToClient::Closed),
        }
    }

    fn tell_client(&mut self, id: ConnId, what: ToClient) {
        let (now, delay) = (self.world.queue.now(), within(&mut self.world.rng, self.world.weather.client));
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.is_open) else { return };
        conn.is_open = !matches!(what, ToClient::Closed);
        conn.to_client = conn.to_client.max(now + delay);
        let at = conn.to_client;
        self.world.queue.at(at, Event::ToClient { conn: id, what });
    }

    fn client_hears(&mut self, id: ConnId, what: ToClient) {
        let Some(client) = self.conns.get(&id).filter(|conn| !conn.is_left).map(|conn| conn.client) else { return };
        self.world.tell(|| format!("{id:?} of {client:?} hears {what:?}"));
        match client {
            ClientKey::Subscriber(index) => self.subscriber_hears(index, id, what),
            ClientKey::Publisher(index) => self.publisher_hears(index, id, &what),
            ClientKey::Listener(index) => self.listener_hears(index, id, &what),
        }
    }
}

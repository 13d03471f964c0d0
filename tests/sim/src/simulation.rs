//! One simulation: the cluster from the first event to the last.

use crate::client::Client;
use crate::disk::Checkpoint;
use crate::invariants::{Checks, liveness};
use crate::machine::{CLIENTS, Machine};
use crate::network::Network;
use crate::node::{CrashPoint, Crashed, Node};
use crate::options::{CLIENTS_GO_ON, EPISODE, FAULTY, HEALED_WITHIN, Kind, Options, Settings, Weather, around, pick};
use crate::queue::{Moment, Queue};
use crate::replica::Ticket;
use crate::report::Report;
use crate::trace::Trace;
use crate::underlay::{LOOK, Underlay};
use crate::world::{Event, Input, World};
use bifro_core::ids::{NodeId, RangeId};
use bifro_core::rng::Prng;
use bifro_raft::{EntryKind, LogId, Membership, Poll, SnapshotMeta};
use std::time::Duration;

/// The whole cluster.
#[derive(Debug)]
pub(crate) struct Simulation {
    pub(crate) world: World,
    pub(crate) nodes: Vec<Node>,
    clients: Vec<Client>,
    underlay: Underlay,
    /// Things go wrong at the moment.
    pub(crate) faulty: bool,
    /// When the episode's faults end.
    pub(crate) heals_at: Moment,
    /// A node that stays down when the others are healed: they can do without.
    absent: Option<usize>,
    /// Clients begin new operations.
    clients_begin: bool,
}

impl Simulation {
    /// A cluster whose every group is founded on the same nodes, all of which are about to start.
    pub(crate) fn new(seed: u64, options: Options) -> Self {
        let settings = Settings::drawn(&mut Prng::new(seed).derive(1));
        Self::with_settings(seed, options, settings)
    }

    /// The same with these settings.
    pub(crate) fn with_settings(seed: u64, options: Options, settings: Settings) -> Self {
        let rng = Prng::new(seed).derive(options.nodes as u64);
        let nodes = options.nodes;
        let mut world = World {
            network: Network::new(nodes, rng.derive(1)),
            rng: rng.derive(2),
            weather: Weather::fair(),
            queue: Queue::new(),
            checks: (0..settings.groups).map(|_| Checks::default()).collect(),
            trace: Trace::default(),
            report: Report::default(),
            answers: Vec::new(),
            reads: 0,
            settings,
            options,
        };
        let founders = Membership::new((0..nodes.min(3) as u64).map(NodeId), []);
        let mut all: Vec<Node> = (0..nodes).map(Node::new).collect();
        for range in (0..world.settings.groups).map(RangeId) {
            let meta = SnapshotMeta { last: LogId::ZERO, membership: founders.clone() };
            let checkpoint = Checkpoint { meta, machine: Machine::default() };
            all.iter_mut().take(3).for_each(|node| node.disk.found(range, checkpoint.clone()));
        }
        let clients = (0..CLIENTS).map(|index| Client::new(index, rng.derive(100 + index as u64))).collect::<Vec<_>>();
        (0..nodes).for_each(|node| world.queue.at(Moment(0), Event::Start { node }));
        clients.iter().for_each(|client| world.queue.at(Moment(1), Event::Client(client.ticket())));
        world.queue.at(Moment(2), Event::Underlay);
        Self {
            world,
            nodes: all,
            clients,
            underlay: Underlay::new(nodes),
            faulty: false,
            heals_at: Moment(0),
            absent: None,
            clients_begin: true,
        }
    }

    /// Runs every episode.
    pub(crate) fn run(&mut self) {
        for _ in 0..self.world.options.minutes {
            self.episode();
        }
    }

    fn episode(&mut self) {
        let begin = self.world.queue.now();
        let weather = Weather::drawn(&mut self.world.rng, &self.world.options);
        let (pace, operations) = (weather.pace, weather.operations);
        self.world.weather = weather;
        (self.faulty, self.clients_begin) = (true, true);
        let healed = begin + FAULTY;
        self.heals_at = healed;
        self.world.queue.after(pace, Event::Fault);
        self.world.queue.after(operations, Event::Operate);
        self.world.queue.at(healed, Event::Heal);
        self.world.queue.at(healed + CLIENTS_GO_ON, Event::Settle);
        self.world.queue.at(healed + HEALED_WITHIN, Event::Judge);
        self.run_until(begin + EPISODE);
    }

    /// Lets everything happen until this moment.
    pub(crate) fn run_until(&mut self, end: Moment) {
        while self.world.queue.now() < end {
            let event = self.world.queue.pop().expect("the underlay always looks again");
            self.happen(event);
        }
    }

    /// What has been seen.
    pub(crate) fn report(&self) -> &Report {
        &self.world.report
    }

    /// The virtual time.
    pub(crate) fn now(&self) -> Moment {
        self.world.queue.now()
    }

    fn happen(&mut self, event: Event) {
        self.world.report.events += 1;
        let now = self.world.queue.now();
        match event {
            Event::Deliver { from, to, batch } => {
                if self.is_frozen(to) {
                    return self.world.queue.at(self.nodes[to].frozen_until, Event::Deliver { from, to, batch });
                }
                if self.nodes[to].shard.is_some() && !self.underlay.has_given_up(to, from) {
                    self.world.trace.note(&[now.0, 1, from as u64, to as u64, batch.len() as u64]);
                    self.world.tell(|| format!("n{from} to n{to}: {batch:?}"));
                    self.nodes[to].handle_batch(&mut self.world, from, batch);
                    self.end_turn(to);
                }
            }
            Event::Node { node, boot, input } => self.input(node, boot, input),
            Event::Start { node } => self.start(node),
            Event::Client(ticket) => self.act(ticket),
            Event::Fault => self.fault(),
            Event::Operate => self.operate(),
            Event::Underlay => self.look(),
            Event::Heal => self.heal(),
            Event::Settle => self.clients_begin = false,
            Event::Judge => {
                let waiting = self.clients.iter().filter_map(|client| client.operation).count();
                liveness::check(&self.nodes, &self.world.checks, waiting);
                self.world.report.episodes += 1;
                if let Some(node) = self.absent.take() {
                    self.world.queue.after(Duration::ZERO, Event::Start { node });
                }
            }
        }
    }

    fn is_frozen(&self, node: usize) -> bool {
        self.nodes[node].frozen_until > self.world.queue.now()
    }

    fn input(&mut self, at: usize, boot: u64, input: Input) {
        let node = &mut self.nodes[at];
        if node.boot != boot || node.shard.is_none() {
            return;
        }
        if node.frozen_until > self.world.queue.now() {
            return self.world.queue.at(node.frozen_until, Event::Node { node: at, boot, input });
        }
        self.world.trace.note(&[self.world.queue.now().0, 2, at as u64]);
        self.world.tell(|| format!("n{at}: {input:?}"));
        let aimed_after_report = matches!(input, Input::Synced) && node.crash_at == Some(CrashPoint::AfterReport);
        if let Input::SnapshotFetched { range, life, from, meta } = input {
            if node.lives(range, life) {
                let fetched = self.fetched_snapshot(at, from, range, &meta);
                self.nodes[at].finish_install(&mut self.world, range, &meta, fetched);
            }
        } else if let Err(Crashed) = node.handle(&mut self.world, input) {
            return self.crash_as_aimed(at);
        }
        if aimed_after_report {
            return self.crash_as_aimed(at);
        }
        self.end_turn(at);
    }

    /// The snapshot that a peer offered, if it still has it and can be reached.
    fn fetched_snapshot(&mut self, at: usize, from: NodeId, range: RangeId, meta: &SnapshotMeta) -> Option<Checkpoint> {
        let (now, source) = (self.world.queue.now(), from.0 as usize);
        let network = &self.world.network;
        let open = network.is_open(now, at, source) && network.is_open(now, source, at);
        let fails = self.world.weather.fails && self.world.rng.below(8) == 0;
        let (_, replica) = self.nodes[source].replica(range)?;
        let offered = replica.offered.get(&NodeId(at as u64))?;
        (open && !fails && offered.meta == *meta).then(|| offered.clone())
    }

    /// Ends a node's turn: what it did, what the invariants say to it, what leaves.
    pub(crate) fn end_turn(&mut self, at: usize) {
        if let Err(Crashed) = self.nodes[at].turn(&mut self.world) {
            return self.crash_as_aimed(at);
        }
        self.observe(at);
        self.nodes[at].flush(&mut self.world);
        for (ticket, answer) in std::mem::take(&mut self.world.answers) {
            self.world.tell(|| format!("answer: {ticket:?} {answer:?}"));
            self.world.trace.note(&[self.world.queue.now().0, 3, ticket.client as u64, ticket.attempt]);
            self.clients[ticket.client].handle_answer(&mut self.world, ticket, answer);
        }
    }

    fn observe(&mut self, at: usize) {
        for range in (0..self.world.settings.groups).map(RangeId) {
            let Some((group, _)) = self.nodes[at].replica(range) else { continue };
            let committed = group.committed();
            self.world.checks[range.0 as usize].commitment.note(&self.nodes, at, range);
            let shard = self.nodes[at].running();
            let (Some(group), Some(replica)) = (shard.multi.group(range), shard.replicas.get_mut(&range)) else {
                continue;
            };
            if replica.seen.members != *group.membership() {
                replica.seen.members = group.membership().clone();
                replica.seen.since = replica.members_since();
            }
            self.world.report.quiet += u64::from(group.is_quiet() && !replica.seen.quiet);
            (replica.seen.committed, replica.seen.role, replica.seen.quiet) =
                (committed, group.role(), group.is_quiet());
        }
    }

    /// Crashes a node that is up, and has it start again after a while.
    pub(crate) fn crash(&mut self, at: usize) {
        if self.nodes[at].shard.is_none() {
            return;
        }
        self.world.report.crashes += 1;
        self.world.trace.note(&[self.world.queue.now().0, 4, at as u64]);
        self.world.tell(|| format!("n{at}: crashes"));
        self.nodes[at].crash(&mut self.world);
        let down = Duration::from_millis(pick(&mut self.world.rng, &[10, 200, 800, 4_000]));
        let down = around(&mut self.world.rng, down);
        self.world.queue.after(down, Event::Start { node: at });
    }

    fn crash_as_aimed(&mut self, at: usize) {
        self.world.report.aimed_crashes += 1;
        self.crash(at);
    }

    fn start(&mut self, at: usize) {
        if self.nodes[at].shard.is_none() && self.absent != Some(at) {
            self.world.tell(|| format!("n{at}: starts"));
            self.nodes[at].start(&mut self.world);
            self.end_turn(at);
        }
    }

    /// A client acts.
    fn act(&mut self, ticket: Ticket) {
        let client = &mut self.clients[ticket.client];
        if client.ticket() != ticket {
            return;
        }
        if client.operation.is_none() && !self.clients_begin {
            // It rests until there is something to do again.
            return self.world.queue.after(Duration::from_secs(1), Event::Client(ticket));
        }
        let Some((operation, at)) =
            client.attempt(&self.world.checks, &self.world.settings, self.nodes.len(), self.clients_begin)
        else {
            return;
        };
        let (ticket, node) = (client.ticket(), at.0 as usize);
        if self.is_frozen(node) || self.nodes[node].shard.is_none() {
            return self.clients[ticket.client].note_attempt(&mut self.world, at, Err(None));
        }
        let result = if operation.write {
            let data = self.clients[ticket.client].command(operation, &self.world.settings);
            self.nodes[node].propose(&self.world, operation.range, data, ticket)
        } else {
            self.nodes[node].read(&mut self.world, operation.range, operation.key, ticket)
        };
        self.world.tell(|| format!("{at}: {ticket:?} {operation:?}: {result:?}"));
        self.clients[ticket.client].note_attempt(&mut self.world, at, result);
        self.end_turn(node);
    }

    fn look(&mut self) {
        self.world.queue.after(LOOK, Event::Underlay);
        for (at, other) in self.underlay.look(&self.world, &self.nodes) {
            let now = self.nodes[at].clock.read(self.world.queue.now());
            if let Some(shard) = &mut self.nodes[at].shard {
                shard.multi.handle_node_down(now, NodeId(other as u64));
                self.end_turn(at);
            }
        }
    }

    /// All faults end.
    fn heal(&mut self) {
        self.world.tell(|| "all faults end".to_owned());
        self.faulty = false;
        let crashes = self.world.weather.has(Kind::Crashes);
        self.world.weather = Weather::fair();
        self.world.network.heal();
        let now = self.world.queue.now();
        self.absent = if crashes { self.dispensable() } else { None };
        if let Some(node) = self.absent {
            self.world.report.absences += 1;
            self.crash(node);
        }
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            node.clock.set_rate(now, 1_000_000);
            (node.frozen_until, node.crash_at) = (Moment(0), None);
            (node.disk.slow_until, node.disk.full_until) = (Moment(0), Moment(0));
            if node.shard.is_none() {
                self.start(at);
            } else {
                self.end_turn(at);
            }
        }
    }

    /// A node without which every group still has a quorum, whichever of the members it may have in the end.
    fn dispensable(&mut self) -> Option<usize> {
        let node = self.world.rng.below(self.nodes.len() as u64 * 2);
        let decides =
            |members: &Membership| members.is_empty() || members.poll(|voter| Some(voter != NodeId(node))) == Poll::Won;
        let at_rest = self.nodes.iter().flat_map(|node| node.disk.all_stored()).all(|(_, stored)| {
            let changes = stored.log.entries().rev().filter_map(|entry| match &entry.kind {
                EntryKind::Membership(members) => Some(members),
                _ => None,
            });
            decides(&stored.checkpoint.meta.membership) && changes.take(3).all(decides)
        });
        let running = self.nodes.iter().filter_map(|node| node.shard.as_ref());
        let spared = running.flat_map(|shard| shard.multi.groups()).all(|group| decides(group.membership()));
        ((node as usize) < self.nodes.len() && at_rest && spared).then_some(node as usize)
    }
}

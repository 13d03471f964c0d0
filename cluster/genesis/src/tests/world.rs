//! Nodes, the network between them, and what must hold at every moment: see [`World::check`].

use crate::{Ballot, ClusterGenesis, Config, Draft, Effect, Founding, Ledger, Question, Reply, Seat};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use bifro_core::ids::{ClusterId, NodeId};
use bifro_core::rng::Prng;
use bifro_core::time::Instant;
use core::time::Duration;

/// What may go wrong, each in a thousand times.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// A message is lost.
    pub(super) loss: u64,
    /// A message comes twice.
    pub(super) duplicates: u64,
    /// A message takes up to three seconds.
    pub(super) delays: u64,
    /// A process ends before it carries out an effect.
    pub(super) crashes: u64,
}

enum Event {
    Question { to: usize, asker: u64, question: Question },
    Reply { to: usize, process: u32, seat: usize, reply: Reply },
    Tick { node: usize, process: u32 },
    Start { node: usize },
}

pub(super) struct Node {
    pub(super) machine: Option<Founding>,
    pub(super) disk: Ledger,
    pub(super) settled: Option<ClusterGenesis>,
    pub(super) conflicts: Vec<ClusterGenesis>,
    /// How often it was started.
    process: u32,
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    pub(super) faults: Faults,
    /// Nodes that cannot hear those of the other side.
    pub(super) sides: Vec<u8>,
    pub(super) rng: Prng,
    pub(super) trace: Vec<(Instant, usize, Effect)>,
    seeds: usize,
    events: BTreeMap<(Instant, u64), Event>,
    count: u64,
    /// Who waits for a reply: node, process, place asked.
    askers: Vec<(usize, u32, usize)>,
    accepted: BTreeMap<Ballot, (ClusterGenesis, BTreeSet<usize>)>,
    chosen: Option<ClusterGenesis>,
}

impl World {
    /// So many nodes, the first of which are the seeds, all of them not started yet.
    pub(super) fn new(seed: u64, seeds: usize, nodes: usize) -> Self {
        let node = || Node { machine: None, disk: Ledger::default(), settled: None, conflicts: Vec::new(), process: 0 };
        Self {
            now: Instant::from_micros(1_000_000),
            nodes: (0..nodes).map(|_| node()).collect(),
            faults: Faults::default(),
            sides: vec![0; nodes],
            rng: Prng::new(seed),
            trace: Vec::new(),
            seeds,
            events: BTreeMap::new(),
            count: 0,
            askers: Vec::new(),
            accepted: BTreeMap::new(),
            chosen: None,
        }
    }

    pub(super) const fn id(node: usize) -> NodeId {
        NodeId(node as u64 + 1)
    }

    fn at(&mut self, delay: Duration, event: Event) {
        self.count += 1;
        self.events.insert((self.now + delay, self.count), event);
    }

    fn happens(&mut self, in_a_thousand: u64) -> bool {
        self.rng.below(1_000) < in_a_thousand
    }

    pub(super) fn start(&mut self, node: usize) {
        self.start_after(Duration::ZERO, node);
    }

    pub(super) fn start_after(&mut self, delay: Duration, node: usize) {
        self.at(delay, Event::Start { node });
    }

    pub(super) fn crash(&mut self, node: usize) {
        self.nodes[node].machine = None;
    }

    fn boot(&mut self, node: usize) {
        if self.nodes[node].machine.is_some() {
            return;
        }
        let draft = Draft {
            cluster: ClusterId(self.rng.next_u64().max(1)),
            seed: self.rng.next_u64(),
            ranges: node as u16 + 1,
        };
        let (disk, rng) = (self.nodes[node].disk.clone(), Prng::new(self.rng.next_u64()));
        let mut machine = Founding::new(Config::default(), Self::id(node), disk, self.seeds, draft, rng, self.now);
        for seat in 0..self.seeds {
            machine.set_seat(seat, if seat == node { Seat::Mine } else { Seat::Elsewhere }, self.now);
        }
        machine.handle_timeout(self.now);
        self.nodes[node].machine = Some(machine);
        self.nodes[node].process += 1;
        self.carry_out(node);
    }

    /// A message goes its way: perhaps lost, perhaps twice, perhaps late.
    fn send(&mut self, from: usize, to: usize, event: impl Fn() -> Event) {
        if self.sides[from] != self.sides[to] || self.happens(self.faults.loss) {
            return;
        }
        let copies = if self.happens(self.faults.duplicates) { 2 } else { 1 };
        for _ in 0..copies {
            let most = if self.happens(self.faults.delays) { 3_000_000 } else { 20_000 };
            let delay = Duration::from_micros(100 + self.rng.below(most));
            self.at(delay, event());
        }
    }

    /// Does what the machine wants done, in order; the process may end anywhere in between.
    fn carry_out(&mut self, node: usize) {
        while let Some(effect) = self.nodes[node].machine.as_mut().and_then(Founding::poll_effect) {
            if self.happens(self.faults.crashes) {
                self.crash(node);
                let pause = Duration::from_micros(self.rng.below(3_000_000));
                return self.start_after(pause, node);
            }
            self.trace.push((self.now, node, effect.clone()));
            match effect {
                Effect::Keep(ledger) => {
                    self.nodes[node].disk = ledger;
                    self.check(node);
                }
                Effect::Ask { seat, question } => {
                    self.askers.push((node, self.nodes[node].process, seat));
                    let asker = self.askers.len() as u64 - 1;
                    self.send(node, seat, || Event::Question { to: seat, asker, question: question.clone() });
                }
                Effect::Reply { asker, reply } => {
                    let (to, process, seat) = self.askers[asker as usize];
                    self.send(node, to, || Event::Reply { to, process, seat, reply: reply.clone() });
                }
                Effect::Settled(value) => {
                    assert_eq!(self.nodes[node].disk.decided.as_ref(), Some(&value), "settled before it was kept");
                    self.nodes[node].settled = Some(value);
                }
                Effect::Conflict { theirs, .. } => self.nodes[node].conflicts.push(theirs),
            }
        }
        if let Some(due) = self.nodes[node].machine.as_ref().and_then(Founding::next_timeout) {
            let process = self.nodes[node].process;
            self.at(due.since(self.now), Event::Tick { node, process });
        }
    }

    /// What a majority of the seeds' disks has ever accepted under one number is one value, and nothing else is decided; under one number
    /// there is one value; what a node has decided stays.
    fn check(&mut self, node: usize) {
        let disk = &self.nodes[node].disk;
        if let Some(vote) = &disk.accepted {
            let entry = self.accepted.entry(vote.ballot).or_insert_with(|| (vote.value.clone(), BTreeSet::new()));
            assert_eq!(entry.0, vote.value, "two values under one number");
            entry.1.insert(node);
            if entry.1.len() > self.seeds / 2 {
                let chosen = self.chosen.get_or_insert_with(|| vote.value.clone());
                assert_eq!(*chosen, vote.value, "two values are decided");
            }
        }
        if let Some(decided) = &disk.decided {
            assert_eq!(self.chosen.as_ref(), Some(decided), "a node takes for decided what is not");
        }
    }

    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= end) {
            self.now = entry.key().0;
            let event = entry.remove();
            let now = self.now;
            let node = match event {
                Event::Start { node } => {
                    self.boot(node);
                    continue;
                }
                Event::Tick { node, .. } | Event::Question { to: node, .. } | Event::Reply { to: node, .. } => node,
            };
            let (of, Some(machine)) = (self.nodes[node].process, &mut self.nodes[node].machine) else { continue };
            match event {
                Event::Tick { process, .. } if process == of => {
                    if machine.next_timeout().is_none_or(|due| due > now) {
                        continue;
                    }
                    machine.handle_timeout(now);
                }
                Event::Question { asker, question, .. } => machine.handle_question(asker, question, now),
                Event::Reply { process, seat, reply, .. } if process == of => machine.handle_reply(seat, reply, now),
                _ => continue,
            }
            self.carry_out(node);
        }
        self.now = end;
    }

    /// The node has a cluster of before: decided by nobody else.
    pub(super) fn decided_alone(&mut self, node: usize) -> ClusterGenesis {
        let value = ClusterGenesis {
            cluster: ClusterId(self.rng.next_u64().max(1)),
            seed: self.rng.next_u64(),
            ranges: 8,
            founders: vec![Self::id(node)],
        };
        self.nodes[node].disk.decided = Some(value.clone());
        value
    }

    /// What is said to be decided is taken for it from now on.
    pub(super) fn trust(&mut self, value: &ClusterGenesis) {
        self.chosen = Some(value.clone());
    }

    pub(super) fn settled(&self) -> Vec<&ClusterGenesis> {
        self.nodes.iter().filter_map(|node| node.settled.as_ref()).collect()
    }
}

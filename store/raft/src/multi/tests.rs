//! Three shards in virtual time from one seed, in few lines (`tests/sim` is the thorough simulator): messages are lost and late,
//! syncs take their time, nodes crash and lose what was not synced. What is applied must be the same everywhere; afterwards, without
//! faults, everybody must get everything.

use super::Multi;
use crate::{Batch, EntryKind};
use crate::{
    Config, Effect, Entry, Group, HardState, Identity, LogId, LogWrite, Membership, Restored, Role, SnapshotMeta,
    WriteId,
};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use bifro_core::ids::{NodeId, RangeId};
use bifro_core::rng::Prng;
use bifro_core::time::Instant;
use bytes::Bytes;
use core::time::Duration;

const RANGE: RangeId = RangeId(7);
const NODES: usize = 3;
const STEP: Duration = Duration::from_millis(5);

struct Node {
    multi: Multi,
    /// What a crash leaves.
    synced: (HardState, Vec<Entry>),
    unsynced: VecDeque<(WriteId, Option<HardState>, LogWrite)>,
    applied: Vec<Entry>,
}

struct Cluster {
    seed: u64,
    rng: Prng,
    now: Instant,
    nodes: Vec<Node>,
    mail: Vec<(Instant, usize, NodeId, Batch)>,
    /// What was applied anywhere, by place.
    history: Vec<Entry>,
    leaders: BTreeMap<u64, NodeId>,
    faults: bool,
}

fn start(index: usize, (hard_state, entries): (HardState, Vec<Entry>), rng: Prng, now: Instant) -> Multi {
    let membership = Membership::new((0..NODES as u64).map(NodeId), []);
    let checkpoint = SnapshotMeta { last: LogId::ZERO, membership };
    let identity = Identity { range: RANGE, node: NodeId(index as u64) };
    let restored = Restored { hard_state, checkpoint, log_start: LogId::ZERO };
    let config = Config { quiesce_after: Some(Duration::from_secs(1)), ..Config::DEFAULT };
    let mut multi = Multi::default();
    multi.insert(Group::new(config, identity, restored, entries, rng, now).expect("what was synced is whole"));
    multi
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let rng = Prng::new(seed);
        let now = Instant::from_micros(1);
        let node = |index| Node {
            multi: start(index, Default::default(), rng.derive(index as u64), now),
            synced: Default::default(),
            unsynced: VecDeque::new(),
            applied: Vec::new(),
        };
        let nodes = (0..NODES).map(node).collect();
        Self { seed, rng, now, nodes, mail: Vec::new(), history: Vec::new(), leaders: BTreeMap::new(), faults: true }
    }

    fn group(&self, index: usize) -> &Group {
        self.nodes[index].multi.group(RANGE).expect("every node has a replica")
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.rng.below(count) == 0
    }

    fn step(&mut self) {
        self.now = self.now + STEP;
        for index in 0..NODES {
            if self.faults && self.one_in(800) {
                self.crash(index);
            }
            self.deliver(index);
            if !self.faults || !self.one_in(3) {
                self.sync(index);
            }
            if self.one_in(10) {
                let data = Bytes::copy_from_slice(&self.rng.next_u64().to_le_bytes());
                let group = self.nodes[index].multi.input(RANGE).expect("every node has a replica");
                _ = group.propose(self.now, data);
            }
            let now = self.now;
            self.nodes[index].multi.handle_timeout(now);
            self.end_turn(index);
        }
    }

    fn crash(&mut self, index: usize) {
        let rng = self.rng.derive(self.now.as_micros());
        let node = &mut self.nodes[index];
        node.unsynced.clear();
        node.applied.clear();
        node.multi = start(index, node.synced.clone(), rng, self.now);
        self.mail.retain(|(_, to, _, _)| *to != index);
    }

    fn deliver(&mut self, index: usize) {
        let now = self.now;
        let due = self.mail.extract_if(.., |(at, to, _, _)| *at <= now && *to == index).collect::<Vec<_>>();
        let mut refused = Vec::new();
        for (_, _, from, batch) in due {
            self.nodes[index].multi.handle_batch(now, from, batch, &mut refused);
        }
        assert_eq!(refused, [], "seed {}: nobody breaks the protocol", self.seed);
    }

    /// One write becomes durable.
    fn sync(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let Some((write, hard_state, log)) = node.unsynced.pop_front() else { return };
        node.synced.0 = hard_state.unwrap_or(node.synced.0);
        match log {
            LogWrite::Nothing => {}
            LogWrite::Append(entries) => {
                node.synced.1.retain(|entry| entry.id.index < entries[0].id.index);
                node.synced.1.extend(entries);
            }
            LogWrite::Restart { .. } => panic!("nothing is compacted here"),
        }
        node.multi.handle_durable(self.now, RANGE, write);
    }

    fn end_turn(&mut self, index: usize) {
        loop {
            let mut effects = Vec::new();
            self.nodes[index].multi.poll_effects(self.now, &mut effects);
            if effects.is_empty() {
                break;
            }
            effects.into_iter().for_each(|(_, effect)| self.carry_out(index, effect));
        }
        self.group(index).validate();
        let from = NodeId(index as u64);
        for (to, batch) in self.nodes[index].multi.take_batches().collect::<Vec<_>>() {
            let delay = Duration::from_millis(self.rng.below(if self.faults { 80 } else { 5 }));
            for _ in 0..1 + u32::from(self.faults && self.one_in(20)) {
                if !(self.faults && self.one_in(8)) {
                    self.mail.push((self.now + delay, to.0 as usize, from, batch.clone()));
                }
            }
        }
    }

    fn carry_out(&mut self, index: usize, effect: Effect) {
        let (seed, now) = (self.seed, self.now);
        let node = &mut self.nodes[index];
        match effect {
            Effect::Persist { write, hard_state, log } => node.unsynced.push_back((write, hard_state, log)),
            Effect::RoleChanged { role: Role::Leader, term, leader } => {
                let known = *self.leaders.entry(term.0).or_insert(leader.expect("it leads"));
                assert_eq!(Some(known), leader, "seed {seed}: two leaders of term {}", term.0);
            }
            Effect::RoleChanged { .. } => {}
            Effect::Apply { entries } => {
                let last = entries.last().expect("never empty").id.index;
                node.applied.extend(entries);
                for (at, entry) in node.applied.iter().enumerate().skip(self.history.len()) {
                    assert_eq!(entry.id.index.0, at as u64 + 1, "seed {seed}: without gaps");
                    self.history.push(entry.clone());
                }
                assert_eq!(node.applied[..], self.history[..node.applied.len()], "seed {seed}: n{index} differs");
                node.multi.input(RANGE).expect("it is there").handle_applied(now, last);
            }
            other => panic!("seed {seed}: not asked for here: {other:?}"),
        }
    }
}

/// Thirty seconds with faults, five without.
fn run(mut cluster: Cluster) {
    let seed = cluster.seed;
    (0..6_000).for_each(|_| cluster.step());
    cluster.faults = false;
    (0..1_000).for_each(|_| cluster.step());
    let leaders = (0..NODES).filter(|index| cluster.group(*index).role() == Role::Leader).count();
    assert_eq!(leaders, 1, "seed {seed}: somebody leads");
    let data = cluster.history.iter().filter(|entry| matches!(entry.kind, EntryKind::Data(_))).count();
    assert!(data > 200, "seed {seed}: only {data} proposals in 35 s");
    let applied: Vec<usize> = cluster.nodes.iter().map(|node| node.applied.len()).collect();
    let behind = applied.iter().max().expect("three nodes") - applied.iter().min().expect("three nodes");
    assert!(behind < 20, "seed {seed}: {applied:?}");
}

#[test]
fn what_is_applied_is_the_same_everywhere_and_after_healing_everybody_gets_everything() {
    (0..40).for_each(|seed| run(Cluster::new(seed)));
}

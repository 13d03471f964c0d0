//! An entry from proposal to commitment, with disks and networks that take no time.

use bifro_core::ids::{NodeId, RangeId};
use bifro_core::rng::Prng;
use bifro_core::time::Instant;
use bifro_raft::{Config, Effect, Group, HardState, Identity, LogId, Membership, Multi, Restored, Role, SnapshotMeta};
use bytes::Bytes;
use criterion::{Criterion, Throughput};
use std::hint::black_box;
use std::time::Duration;

const RANGE: RangeId = RangeId(1);

struct Cluster {
    nodes: Vec<Multi>,
    now: Instant,
    applied: usize,
}

impl Cluster {
    fn new(nodes: u64) -> Self {
        let now = Instant::from_micros(1_000_000);
        let start = |node| {
            let membership = Membership::new((0..nodes).map(NodeId), []);
            let restored = Restored {
                hard_state: HardState::default(),
                checkpoint: SnapshotMeta { last: LogId::ZERO, membership },
                log_start: LogId::ZERO,
            };
            let identity = Identity { range: RANGE, node: NodeId(node) };
            let group = Group::new(Config::DEFAULT, identity, restored, Vec::new(), Prng::new(node), now);
            let mut multi = Multi::default();
            multi.insert(group.expect("an empty log is whole"));
            multi
        };
        let mut cluster = Self { nodes: (0..nodes).map(start).collect(), now, applied: 0 };
        while cluster.leader().is_none() {
            cluster.now = cluster.now + Duration::from_millis(10);
            for node in 0..cluster.nodes.len() {
                let now = cluster.now;
                cluster.nodes[node].handle_timeout(now);
            }
            cluster.settle();
        }
        cluster
    }

    fn leader(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.group(RANGE).is_some_and(|group| group.role() == Role::Leader))
    }

    /// Carries out effects and delivers messages until nothing is left.
    fn settle(&mut self) {
        let now = self.now;
        loop {
            let mut idle = true;
            for at in 0..self.nodes.len() {
                idle &= !self.run_effects(at);
                for (to, batch) in self.nodes[at].take_batches() {
                    idle = false;
                    let from = NodeId(at as u64);
                    self.nodes[to.0 as usize].handle_batch(now, from, batch, &mut Vec::new());
                }
            }
            if idle {
                return;
            }
        }
    }

    fn run_effects(&mut self, at: usize) -> bool {
        let (node, now) = (&mut self.nodes[at], self.now);
        let mut effects = Vec::new();
        node.poll_effects(now, &mut effects);
        let worked = !effects.is_empty();
        for (range, effect) in effects {
            match effect {
                Effect::Persist { write, .. } => node.handle_durable(now, range, write),
                Effect::Apply { entries } => {
                    self.applied += entries.len();
                    if let (Some(last), Some(group)) = (entries.last(), node.input(range)) {
                        group.handle_applied(now, last.id.index);
                        group.compact(last.id.index);
                    }
                }
                _ => {}
            }
        }
        worked
    }
}

fn commit(criterion: &mut Criterion) {
    let data = Bytes::from_static(&[b'x'; 256]);
    for voters in [1, 3] {
        let mut cluster = Cluster::new(voters);
        let leader = cluster.leader().expect("elected");
        let mut group = criterion.benchmark_group(format!("raft/{voters} voter(s)"));
        for batch in [1_u64, 64] {
            group.throughput(Throughput::Elements(batch));
            group.bench_function(format!("commit {batch} at a time"), |b| {
                b.iter(|| {
                    let now = cluster.now;
                    for _ in 0..batch {
                        let group = cluster.nodes[leader].input(RANGE).expect("it is there");
                        group.propose(now, data.clone()).expect("it leads");
                    }
                    cluster.settle();
                    black_box(cluster.applied)
                });
            });
        }
        group.finish();
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    commit(&mut criterion);
    criterion.final_summary();
}

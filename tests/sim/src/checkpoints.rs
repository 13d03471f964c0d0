//! A node's state machines at rest: checkpoints and what they let the log forget, snapshots for peers and from them, and the removal of a
//! replica.

use crate::disk::{Checkpoint, What, Write};
use crate::node::Node;
use crate::options::within;
use crate::world::{Input, World};
use bifro_core::ids::{NodeId, RangeId};
use bifro_raft::{Index, LogId, SnapshotMeta};
use std::time::Duration;

impl Node {
    /// The operator wants a checkpoint.
    pub(crate) fn begin_checkpoint(&mut self, world: &mut World, range: RangeId) {
        let Some((_, replica)) = self.replica(range) else { return };
        if replica.installing.is_none() {
            let (life, checkpoint) = (replica.life, Box::new(replica.checkpoint()));
            let delay = within(&mut world.rng, Duration::from_millis(200));
            self.later(world, delay, Input::Checkpointed { range, life, checkpoint });
        }
    }

    /// A checkpoint becomes durable: the log may be compacted, often not quite as far.
    pub(crate) fn finish_checkpoint(&mut self, world: &mut World, range: RangeId, checkpoint: Checkpoint) {
        let last = checkpoint.meta.last.index;
        if self.disk.stored(range).is_some_and(|stored| stored.checkpoint.meta.last.index >= last) {
            return;
        }
        world.report.checkpoints += 1;
        self.disk.keep_checkpoint(range, checkpoint);
        let spared = if world.rng.below(2) == 0 { 0 } else { world.rng.below(20) };
        let shard = self.running();
        let group = shard.multi.input(range).expect("it lives");
        group.compact(Index(last.0.saturating_sub(spared)));
        let (to, replica) = (group.log_start().index, shard.replicas.get_mut(&range).expect("it lives"));
        replica.log.compact(to);
        let write = Write { range, life: replica.life, what: What::Compact { to } };
        self.disk.write(write);
    }

    /// Makes a snapshot for a peer, unless that happens to be impossible.
    pub(crate) fn offer_snapshot(&mut self, world: &mut World, range: RangeId, to: NodeId, at_least: Index) {
        let now = self.clock.read(world.queue.now());
        let unavailable = world.weather.fails && world.rng.below(8) == 0;
        let shard = self.running();
        let group = shard.multi.input(range).expect("it lives");
        let replica = shard.replicas.get_mut(&range).expect("it lives");
        if unavailable {
            return group.handle_snapshot_unavailable(now, to);
        }
        let checkpoint = replica.checkpoint();
        assert!(checkpoint.meta.last.index >= at_least, "what is compacted was applied");
        group.offer_snapshot(now, to, checkpoint.meta.clone());
        replica.offered.insert(to, checkpoint);
    }

    /// A snapshot has been fetched, or could not be.
    pub(crate) fn finish_install(
        &mut self,
        world: &mut World,
        range: RangeId,
        meta: &SnapshotMeta,
        fetched: Option<Checkpoint>,
    ) {
        let now = self.clock.read(world.queue.now());
        let shard = self.running();
        let group = shard.multi.input(range).expect("it lives");
        let replica = shard.replicas.get_mut(&range).expect("it lives");
        if replica.installing.as_ref() != Some(meta) {
            return;
        }
        match fetched {
            None => {
                replica.installing = None;
                group.handle_snapshot_failed(now);
            }
            Some(checkpoint) => {
                world.report.snapshots += 1;
                replica.install(&checkpoint);
                self.disk.keep_checkpoint(range, checkpoint);
                self.running().multi.input(range).expect("it lives").handle_snapshot_installed(now, meta);
            }
        }
    }

    /// Removes a replica that has applied its own removal.
    pub(crate) fn bury_removed(&mut self, world: &mut World, range: RangeId) {
        let (group, _) = self.replica(range).expect("it lives");
        if group.is_removed() {
            self.bury(world, range, LogId::ZERO);
        }
    }

    /// Removes a replica for good: what stays is its tombstone. `removed` is as in [`bifro_raft::HardState`], if others told it.
    pub(crate) fn bury(&mut self, world: &mut World, range: RangeId, removed: LogId) {
        let shard = self.running();
        let group = shard.multi.group(range).expect("it lives");
        world.report.burials += 1;
        let mut tombstone = group.tombstone();
        tombstone.removed = tombstone.removed.max(removed);
        shard.multi.remove(range);
        let replica = shard.replicas.remove(&range).expect("it lives");
        shard.burying.insert(range);
        self.disk.write(Write { range, life: replica.life, what: What::Bury(tombstone) });
    }
}

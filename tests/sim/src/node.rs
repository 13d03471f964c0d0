//! A node: the host of one shard of replicas. It does what bifro-raft's page asks of a host, over a simulated disk, network and
//! clock, and crashes where it is told to.

use crate::clock::Clock;
use crate::disk::{Disk, Stored, What, Write};
use crate::invariants::lease_promise::is_released_by;
use crate::options::within;
use crate::queue::Moment;
use crate::replica::{Replica, Ticket};
use crate::world::{Answer, Event, Input, World};
use bifro_core::ids::{NodeId, RangeId};
use bifro_core::time::Instant;
use bifro_raft::{Batch, Body, Group, Identity, Multi, Refusal, Restored, Term};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A step at which a node crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CrashPoint {
    /// A write was asked for and not done.
    BeforeWrite,
    /// It was done, not synced.
    AfterWrite,
    /// It was synced, the group does not know.
    AfterSync,
    /// The group knows, nothing that waited for it has left.
    AfterReport,
    /// Entries were applied, nobody was told.
    AfterApply,
}

impl CrashPoint {
    pub(crate) const ALL: [Self; 5] =
        [Self::BeforeWrite, Self::AfterWrite, Self::AfterSync, Self::AfterReport, Self::AfterApply];
}

/// The node has come to the step at which it crashes.
#[derive(Debug)]
pub(crate) struct Crashed;

/// What runs on a node that is up.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    pub(crate) multi: Multi,
    pub(crate) replicas: BTreeMap<RangeId, Replica>,
    /// Groups whose removed replica is not gone from the disk yet: no new one is made before.
    pub(crate) burying: BTreeSet<RangeId>,
    /// When a wake-up is scheduled.
    wake_at: Option<Moment>,
    pub(crate) answers: Vec<(Ticket, Answer)>,
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    /// Counts crashes: what an earlier life of the node set going is forgotten.
    pub(crate) boot: u64,
    pub(crate) frozen_until: Moment,
    pub(crate) crash_at: Option<CrashPoint>,
    pub(crate) shard: Option<Shard>,
    lives: u64,
}

impl Node {
    /// A node that is down and has nothing on its disk.
    pub(crate) fn new(index: usize) -> Self {
        // Any start will do, so long as nodes do not agree.
        let clock = Clock::new(Instant::from_micros(1 + index as u64 * 1_000_003));
        Self {
            index,
            clock,
            disk: Disk::default(),
            boot: 0,
            frozen_until: Moment(0),
            crash_at: None,
            shard: None,
            lives: 0,
        }
    }

    /// Its name.
    pub(crate) fn id(&self) -> NodeId {
        NodeId(self.index as u64)
    }

    /// What runs on it.
    ///
    /// # Panics
    /// If it is down.
    pub(crate) fn running(&mut self) -> &mut Shard {
        self.shard.as_mut().expect("only what runs is given inputs")
    }

    /// A replica of the group, with its host's part, if the node is up and has one.
    pub(crate) fn replica(&self, range: RangeId) -> Option<(&Group, &Replica)> {
        let shard = self.shard.as_ref()?;
        Some((shard.multi.group(range)?, shard.replicas.get(&range)?))
    }

    /// Starts with what is on the disk.
    pub(crate) fn start(&mut self, world: &mut World) {
        assert!(self.shard.is_none(), "only a node that is down starts");
        self.shard = Some(Shard::default());
        let alive: Vec<(RangeId, Stored)> = self
            .disk
            .all_stored()
            .filter(|(_, stored)| !stored.buried)
            .map(|(range, stored)| (range, stored.clone()))
            .collect();
        for (range, stored) in alive {
            self.add_replica(world, range, &stored);
        }
    }

    fn add_replica(&mut self, world: &mut World, range: RangeId, stored: &Stored) {
        self.lives += 1;
        let salt = (self.lives << 8) ^ (self.index as u64) ^ (range.0 << 40);
        let rng = world.rng.derive(salt);
        let identity = Identity { range, node: self.id() };
        let restored = Restored {
            hard_state: stored.hard_state,
            checkpoint: stored.checkpoint.meta.clone(),
            log_start: stored.log.start(),
        };
        let now = self.clock.read(world.queue.now());
        let config = world.settings.config.clone();
        let entries = stored.log.entries().cloned();
        let group = match Group::new(config, identity, restored, entries, rng, now) {
            Ok(group) => group,
            Err(error) => panic!("{} of {range} cannot start from what it made durable: {error}", self.id()),
        };
        #[cfg(feature = "mutations")]
        let group = {
            let mut group = group;
            if let Some(mutation) = world.options.mutation {
                group.plant(mutation);
            }
            group
        };
        let replica = Replica::new(self.lives, &group, stored, now);
        let shard = self.running();
        shard.multi.insert(group);
        shard.replicas.insert(range, replica);
    }

    /// Loses everything but the disk.
    pub(crate) fn crash(&mut self, world: &mut World) {
        self.disk.crash(&mut world.rng);
        self.shard = None;
        self.boot += 1;
        self.crash_at = None;
        self.frozen_until = Moment(0);
    }

    /// Whether this is the step at which it crashes.
    pub(crate) fn reaches(&mut self, point: CrashPoint) -> Result<(), Crashed> {
        if self.crash_at == Some(point) { Err(Crashed) } else { Ok(()) }
    }

    /// Schedules an input to itself.
    pub(crate) fn later(&self, world: &mut World, delay: Duration, input: Input) {
        world.queue.after(delay, Event::Node { node: self.index, boot: self.boot, input });
    }

    /// A batch has arrived.
    pub(crate) fn handle_batch(&mut self, world: &mut World, from: usize, batch: Batch) {
        let now = self.clock.read(world.queue.now());
        let from = NodeId(from as u64);
        let released = is_released_by(&batch);
        let heard: Vec<(RangeId, Term)> = heard_leaders(&batch).collect();
        self.running().replicas.values_mut().for_each(|replica| replica.promise.begin_turn(released));
        let mut refused = Vec::new();
        self.running().multi.handle_batch(now, from, batch, &mut refused);
        for refusal in refused {
            match refusal {
                Refusal::Violation { range, violation } => panic!("{} to {} in {range}: {violation}", from, self.id()),
                Refusal::NoReplica { range, message } => {
                    // A leader has made this node a member, or a candidate needs its vote.
                    let asks = matches!(message.body, Body::PreVote { .. } | Body::Vote { .. });
                    if !(asks || message.body.is_from_leader()) || self.running().burying.contains(&range) {
                        continue;
                    }
                    if self.running().multi.group(range).is_none() {
                        let buried = self.disk.stored(range).cloned().unwrap_or_default();
                        self.add_replica(world, range, &buried);
                        let replica = self.running().replicas.get_mut(&range).expect("it is there now");
                        replica.promise.begin_turn(released);
                    }
                    let again =
                        self.running().multi.input(range).expect("it is there now").handle_message(now, from, message);
                    again.unwrap_or_else(|violation| panic!("{} to {} in {range}: {violation}", from, self.id()));
                }
            }
        }
        let shard = self.running();
        for (range, term) in heard {
            let (group, replica) = (shard.multi.group(range), shard.replicas.get_mut(&range));
            if let (Some(group), Some(replica)) = (group, replica)
                && (group.leader(), group.term()) == (Some(from), term)
            {
                replica.promise.note_heard(now);
            }
        }
    }

    /// Something that it set going is done.
    pub(crate) fn handle(&mut self, world: &mut World, input: Input) -> Result<(), Crashed> {
        let now = self.clock.read(world.queue.now());
        self.running().replicas.values_mut().for_each(|replica| replica.promise.begin_turn(false));
        match input {
            Input::Wake => {
                let moment = world.queue.now();
                let shard = self.running();
                // An earlier one may have been scheduled since, and have rung already.
                if shard.wake_at.is_some_and(|at| at <= moment) {
                    shard.wake_at = None;
                    shard.multi.handle_timeout(now);
                }
            }
            Input::Synced => return self.finish_sync(world, now),
            Input::Applied { range, life } if self.lives(range, life) => self.apply_waiting(world, range)?,
            Input::Fetched { range, life, fetch, first, last, bytes_max } if self.lives(range, life) => {
                let result = self.read_back(world, range, first, last, bytes_max);
                self.running().multi.input(range).expect("it lives").handle_fetched(now, fetch, result);
            }
            Input::SnapshotPrepared { range, life, to, at_least } if self.lives(range, life) => {
                self.offer_snapshot(world, range, to, at_least);
            }
            Input::Checkpointed { range, life, checkpoint } if self.lives(range, life) => {
                self.finish_checkpoint(world, range, *checkpoint);
            }
            Input::Bury { range, life } if self.lives(range, life) => self.bury_removed(world, range),
            // The replica has gone meanwhile. Snapshots are fetched from another node, so not here.
            _ => {}
        }
        Ok(())
    }

    /// Whether the replica is still the same.
    pub(crate) fn lives(&self, range: RangeId, life: u64) -> bool {
        self.replica(range).is_some_and(|(_, replica)| replica.life == life)
    }

    fn finish_sync(&mut self, world: &mut World, now: Instant) -> Result<(), Crashed> {
        if self.disk.full_until > world.queue.now() {
            let node = self.index;
            world.queue.at(self.disk.full_until, Event::Node { node, boot: self.boot, input: Input::Synced });
            return Ok(());
        }
        let done = self.disk.finish_sync();
        self.reaches(CrashPoint::AfterSync)?;
        for Write { range, life, what } in done {
            match what {
                What::Persist { write, .. } if self.lives(range, life) => {
                    self.running().multi.handle_durable(now, range, write);
                }
                What::Bury(_) => {
                    self.running().burying.remove(&range);
                }
                What::Persist { .. } | What::Compact { .. } => {}
            }
        }
        Ok(())
    }

    /// Schedules what the turn has left to be done: batches, the sync, the next wake-up.
    pub(crate) fn flush(&mut self, world: &mut World) {
        self.send(world);
        if self.disk.begin_sync() {
            let slow = self.disk.slow_until > world.queue.now();
            let most = if slow { Duration::from_secs(2) } else { world.weather.sync };
            let delay = within(&mut world.rng, most);
            self.later(world, delay, Input::Synced);
        }
        let shard = self.shard.as_mut().expect("it runs");
        world.answers.append(&mut shard.answers);
        let Some(due) = shard.multi.next_timeout().map(|deadline| self.clock.when(deadline)) else { return };
        if shard.wake_at.is_none_or(|at| due < at) {
            shard.wake_at = Some(due);
            let (node, boot) = (self.index, self.boot);
            world.queue.at(due, Event::Node { node, boot, input: Input::Wake });
        }
    }

    fn send(&mut self, world: &mut World) {
        let from = self.id();
        let batches: Vec<(NodeId, Batch)> = self.running().multi.take_batches().collect();
        for (to, batch) in batches {
            world.report.batches += 1;
            world.report.messages += batch.len() as u64;
            crate::invariants::promises::check(world, &self.disk, from, to, &batch);
            let now = world.queue.now();
            let (from, to) = (self.index, to.0 as usize);
            let [first, second] = world.network.deliveries(now, from, to, &world.weather);
            if let Some(at) = second {
                world.queue.at(at, Event::Deliver { from, to, batch: batch.clone() });
            }
            if let Some(at) = first {
                world.queue.at(at, Event::Deliver { from, to, batch });
            }
        }
    }
}

/// The groups whose leader speaks in a batch.
fn heard_leaders(batch: &Batch) -> impl Iterator<Item = (RangeId, Term)> {
    let spoken = batch.messages.iter().filter(|(_, message)| message.body.is_from_leader());
    let beats = batch.beats.iter().map(|beat| (beat.range, beat.term));
    beats.chain(spoken.map(|(range, message)| (*range, message.term)))
}

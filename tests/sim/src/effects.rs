//! The end of a node's turn: its groups' effects are carried out.

use crate::disk::{What, Write};
use crate::machine::Command;
use crate::node::{CrashPoint, Crashed, Node};
use crate::options::{pick, within};
use crate::replica::Ticket;
use crate::world::{Answer, Input, World};
use bifro_core::ids::{NodeId, RangeId};
use bifro_raft::{Effect, Entry, EntryKind, FetchError, Group, Index, LogWrite, ReadId, Role};
use std::time::Duration;

impl Node {
    /// Ends the turn, up to where batches may leave.
    pub(crate) fn turn(&mut self, world: &mut World) -> Result<(), Crashed> {
        let mut effects = Vec::new();
        loop {
            let now = self.clock.read(world.queue.now());
            self.running().multi.poll_effects(now, &mut effects);
            if effects.is_empty() {
                break;
            }
            for (range, effect) in effects.drain(..) {
                self.carry_out(world, range, effect)?;
            }
        }
        self.running().multi.groups().for_each(Group::validate);
        Ok(())
    }

    fn carry_out(&mut self, world: &mut World, range: RangeId, effect: Effect) -> Result<(), Crashed> {
        let life = self.replica(range).expect("effects come from what lives").1.life;
        world.tell(|| format!("{} {range}: {effect:?}", self.id()));
        match effect {
            Effect::Persist { write, hard_state, log } => {
                self.reaches(CrashPoint::BeforeWrite)?;
                self.note_write(world, range, &log);
                let (id, now) = (self.id(), self.clock.read(world.queue.now()));
                let replica = self.running().replicas.get_mut(&range).expect("it lives");
                if let Some(candidate) = hard_state.and_then(|state| state.vote).filter(|vote| *vote != id) {
                    replica.promise.check_vote(id, candidate, now, world.settings.config.election_timeout);
                }
                replica.hard_state = hard_state.unwrap_or(replica.hard_state);
                replica.log.write(&log);
                self.disk.write(Write { range, life, what: What::Persist { write, hard_state, log } });
                self.reaches(CrashPoint::AfterWrite)?;
            }
            Effect::Send { .. } => unreachable!("Multi keeps messages to itself"),
            Effect::Apply { entries } => {
                self.running().replicas.get_mut(&range).expect("it lives").applying.extend(entries);
                if world.weather.apply.is_zero() {
                    self.apply_waiting(world, range)?;
                } else {
                    let delay = within(&mut world.rng, world.weather.apply);
                    self.later(world, delay, Input::Applied { range, life });
                }
            }
            Effect::Fetch { fetch, first, last, bytes_max } => {
                let delay = within(&mut world.rng, world.weather.sync);
                self.later(world, delay, Input::Fetched { range, life, fetch, first, last, bytes_max });
            }
            Effect::RoleChanged { role, term, leader } => {
                if role == Role::Leader {
                    assert_eq!(leader, Some(self.id()), "a leader knows that it leads");
                    world.report.elections += 1;
                    let (_, replica) = self.replica(range).expect("it lives");
                    world.checks[range.0 as usize].note_leader(self.id(), term, replica, self.disk.stored(range));
                }
            }
            Effect::ReadReady { read, .. } => self.answer_read(range, read),
            Effect::ReadFailed { read } => {
                let shard = self.running();
                let asked = shard.replicas.get_mut(&range).and_then(|replica| replica.reads.remove(&read));
                shard.answers.extend(asked.map(|(_, ticket)| (ticket, Answer::Lost)));
            }
            Effect::PrepareSnapshot { to, at_least } => {
                let delay = within(&mut world.rng, Duration::from_millis(50));
                self.later(world, delay, Input::SnapshotPrepared { range, life, to, at_least });
            }
            Effect::InstallSnapshot { from, meta } => {
                self.running().replicas.get_mut(&range).expect("it lives").installing = Some(meta.clone());
                let most = pick(&mut world.rng, &[10, 100, 2_000]);
                let delay = within(&mut world.rng, Duration::from_millis(most));
                self.later(world, delay, Input::SnapshotFetched { range, life, from, meta });
            }
        }
        Ok(())
    }

    /// Has the invariants look at what is written.
    fn note_write(&self, world: &mut World, range: RangeId, log: &LogWrite) {
        let (LogWrite::Append(entries) | LogWrite::Restart { entries, .. }) = log else { return };
        let (group, replica) = self.replica(range).expect("it lives");
        let before = match (log, entries.first()) {
            (LogWrite::Restart { start, .. }, _) => Some(*start),
            (_, Some(first)) => {
                let index = first.id.index.previous();
                replica.log.term_at(index).map(|term| bifro_raft::LogId { term, index })
            }
            _ => None,
        };
        let Some(before) = before else { panic!("{} leaves a gap in its log of {range}", self.id()) };
        let checks = world.checks(range);
        checks.log_matching.note(self.id(), before, entries);
        if group.role() == Role::Leader {
            checks.configuration.note(self.id(), replica, group.committed(), entries);
        }
    }

    /// Applies what was handed out.
    pub(crate) fn apply_waiting(&mut self, world: &mut World, range: RangeId) -> Result<(), Crashed> {
        let (id, now) = (self.id(), self.clock.read(world.queue.now()));
        let shard = self.running();
        let replica = shard.replicas.get_mut(&range).expect("it lives");
        let entries = std::mem::take(&mut replica.applying);
        let Some(last) = entries.last().map(|entry| entry.id.index) else { return Ok(()) };
        let mut leaves = None;
        for entry in entries {
            world.checks(range).applied.note(id, replica.machine.applied, &entry);
            replica.machine.applied = entry.id;
            let version = match &entry.kind {
                EntryKind::Noop => None,
                EntryKind::Data(data) => replica.machine.apply(Command::decode(data)),
                EntryKind::Membership(members) => {
                    replica.members = members.clone();
                    leaves = (!members.contains(id) && !members.is_joint()).then_some(replica.life);
                    None
                }
            };
            if let Some((term, ticket)) = replica.proposals.remove(&entry.id.index) {
                let made = version.filter(|_| term == entry.id.term);
                let answer = made.map_or(Answer::Lost, |version| Answer::Written { version, id: entry.id });
                shard.answers.push((ticket, answer));
            }
        }
        self.running().multi.input(range).expect("it lives").handle_applied(now, last);
        if let Some(life) = leaves {
            let delay = within(&mut world.rng, Duration::from_secs(3));
            self.later(world, delay, Input::Bury { range, life });
        }
        self.reaches(CrashPoint::AfterApply)
    }

    /// A client wants a command done.
    pub(crate) fn propose(
        &mut self,
        world: &World,
        range: RangeId,
        data: bytes::Bytes,
        ticket: Ticket,
    ) -> Result<(), Option<NodeId>> {
        use bifro_raft::ProposeError;
        let now = self.clock.read(world.queue.now());
        let shard = self.running();
        let Some(group) = shard.multi.input(range) else { return Err(None) };
        match group.propose(now, data) {
            Ok(id) => {
                let replica = shard.replicas.get_mut(&range).expect("it lives");
                let before = replica.proposals.insert(id.index, (id.term, ticket));
                // What stood there before in this replica's own reign was overwritten by another leader.
                shard.answers.extend(before.map(|(_, ticket)| (ticket, Answer::Lost)));
                Ok(())
            }
            Err(ProposeError::NotLeader { leader }) => Err(leader),
            Err(ProposeError::Transferring { to }) => Err(Some(to)),
            Err(ProposeError::Busy | ProposeError::TooLarge { .. }) => Err(Some(self.id())),
        }
    }

    /// A client wants to read.
    pub(crate) fn read(
        &mut self,
        world: &mut World,
        range: RangeId,
        key: usize,
        ticket: Ticket,
    ) -> Result<(), Option<NodeId>> {
        use bifro_raft::ReadError;
        let now = self.clock.read(world.queue.now());
        world.reads += 1;
        let read = ReadId(world.reads);
        let shard = self.running();
        let Some(group) = shard.multi.input(range) else { return Err(None) };
        match group.read_index(now, read) {
            Ok(()) => {
                shard.replicas.get_mut(&range).expect("it lives").reads.insert(read, (key, ticket));
                Ok(())
            }
            Err(ReadError::NotLeader { leader }) => Err(leader),
            Err(ReadError::Busy) => Err(Some(self.id())),
        }
    }

    fn answer_read(&mut self, range: RangeId, read: ReadId) {
        let shard = self.running();
        let replica = shard.replicas.get_mut(&range).expect("it lives");
        let Some((key, ticket)) = replica.reads.remove(&read) else { return };
        let version = replica.machine.values[key].version;
        shard.answers.push((ticket, Answer::Read { version }));
    }

    /// Old entries from the log, unless reading fails.
    pub(crate) fn read_back(
        &self,
        world: &mut World,
        range: RangeId,
        first: Index,
        last: Index,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, FetchError> {
        world.report.fetches += 1;
        let fails = world.weather.fails && world.rng.below(20) == 0;
        let (_, replica) = self.replica(range).expect("it lives");
        if first <= replica.log.start().index {
            return Err(FetchError::Compacted);
        }
        replica.log.slice(first, last, bytes_max).filter(|_| !fails).ok_or(FetchError::Failed)
    }
}

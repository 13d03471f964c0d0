//! What the groups of a shard want, carried out: writes gathered for the log, entries applied, messages put into frames.

use super::change::Change;
use super::entry::{LOG_START, to_wal, write_hard_state, write_log_id};
use super::frame::Part;
use super::shard::{Host, Written};
use crate::wal::{GroupId, Record};
use bifro_core::ids::{NodeId, RangeId};
use bifro_core::time::Instant;
use bifro_raft::{Effect, Entry, EntryKind, FetchError, Group, HardState, LogWrite, Role, Term, WriteId};

impl Host {
    /// Carries out what groups want until they want nothing more.
    pub(super) fn carry_out(&mut self, now: Instant) {
        loop {
            self.multi.poll_effects(now, &mut self.effects);
            for (to, batch) in self.multi.take_batches() {
                for (range, message) in batch.into_messages() {
                    self.say(to, range, &Part::Raft(message));
                }
            }
            if self.effects.is_empty() {
                return;
            }
            for (range, effect) in std::mem::take(&mut self.effects) {
                self.carry_out_one(now, range, effect);
            }
        }
    }

    fn carry_out_one(&mut self, now: Instant, range: RangeId, effect: Effect) {
        match effect {
            Effect::Persist { write, hard_state, log } => self.persist(range, write, hard_state, &log),
            Effect::Apply { entries } => self.apply(now, range, &entries),
            Effect::RoleChanged { role, term, leader } => self.handle_role(now, range, role, term, leader),
            Effect::Send { .. } | Effect::ReadReady { .. } | Effect::ReadFailed { .. } => {}
            Effect::Fetch { fetch, first, last, bytes_max } => {
                // Entries that memory had no room for: to be applied after a start, or for a peer that is far behind.
                self.last_request += 1;
                if self.wal.read(self.last_request, GroupId(range.0), first.0..last.0 + 1, bytes_max) {
                    self.fetches.insert(self.last_request, (range, fetch));
                } else {
                    self.with_group(range, |group| group.handle_fetched(now, fetch, Err(FetchError::Failed)));
                }
            }
            Effect::PrepareSnapshot { to, .. } => self.want_snapshot(range, to),
            Effect::InstallSnapshot { from, meta } => self.begin_incoming(now, range, from, meta),
        }
    }

    /// A reign ends at once, and begins when everything before it is applied.
    fn handle_role(&mut self, now: Instant, id: RangeId, role: Role, term: Term, leader: Option<NodeId>) {
        tracing::debug!(range = %id, ?role, term = term.0, "role changed");
        let Some(range) = self.ranges.get_mut(&id) else { return };
        range.leaderless_since = if leader.is_some() { None } else { range.leaderless_since.or(Some(now)) };
        let goes_on = role == Role::Leader && range.reign().is_none_or(|reign| reign == term);
        if !goes_on {
            range.end_reign();
            self.reads.forget(id);
            self.unproposed.remove(&id);
            self.changes.push(Change::Follows { range: id, leader: leader.filter(|_| role != Role::Leader), term });
        }
    }

    /// Whether a reign begins with what was just applied: an entry of the leader's own term, before which everything is its predecessors'.
    fn begin_reign(&mut self, id: RangeId) {
        let (Some(range), Some(group)) = (self.ranges.get_mut(&id), self.multi.group(id)) else { return };
        let term = group.term();
        if group.role() == Role::Leader && range.reign().is_none() && range.applied_id().term == term {
            range.begin_reign(term);
            self.changes.push(Change::Leads { range: id, term });
        }
    }

    pub(super) fn with_group(&mut self, range: RangeId, call: impl FnOnce(&mut Group)) {
        if let Some(group) = self.multi.input(range) {
            call(group);
        }
    }

    fn persist(&mut self, id: RangeId, write: WriteId, hard_state: Option<HardState>, log: &LogWrite) {
        let (group, Some(range)) = (GroupId(id.0), self.ranges.get_mut(&id)) else { return };
        range.hard_state = hard_state.unwrap_or(range.hard_state);
        let state = write_hard_state(&range.hard_state);
        match log {
            LogWrite::Nothing => {}
            LogWrite::Append(entries) => self.batch.append(group, entries.iter().map(to_wal).collect()),
            LogWrite::Restart { start, entries } => {
                // Entries behind `start` that contradict it go as well, and with a group everything it had.
                self.batch.delete_group(group);
                self.batch.put_record(group, Record::HARD_STATE, state);
                self.batch.put_record(group, LOG_START, write_log_id(Vec::new(), *start));
                self.batch.append(group, entries.iter().map(to_wal).collect());
                self.batch_writes.push(Written::Group(id, write));
                return;
            }
        }
        if hard_state.is_some() {
            self.batch.put_record(group, Record::HARD_STATE, state);
        }
        self.batch_writes.push(Written::Group(id, write));
    }

    /// Applies what is committed, whoever leads. What a deposed leader proposed is among it if another leader had it: see
    /// [`super::range::HostedRange::end_reign`].
    fn apply(&mut self, now: Instant, id: RangeId, entries: &[Entry]) {
        let Some(last) = entries.last() else { return };
        let before = self.applied(id);
        for entry in entries {
            let Some(range) = self.ranges.get_mut(&id) else { return };
            let applied = match &entry.kind {
                EntryKind::Data(data) => range.apply(entry.id, data),
                EntryKind::Noop => {
                    range.mark_applied(entry.id);
                    Ok(())
                }
                EntryKind::Membership(members) => {
                    let (_, before) = range.set_members(entry.id, members.clone());
                    range.mark_applied(entry.id);
                    self.dismiss(id, entry.id, &before);
                    Ok(())
                }
            };
            if let Err(error) = applied {
                return (self.fatal)(&format!("{id}: entry {} of the log cannot be applied: it {error}", entry.id));
            }
        }
        if self.ranges.get(&id).is_some_and(|range| range.space.wants_checkpoint()) {
            self.swollen.insert(id);
        }
        if self.applied(id) != before {
            self.reached.push(id);
        }
        self.begin_reign(id);
        self.with_group(id, |group| group.handle_applied(now, last.id.index));
    }
}

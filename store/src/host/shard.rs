//! A shard's host: turns of its groups carried out on the log and the key-value engine.

use super::entry::{LOG_START, from_wal, to_wal, write_hard_state, write_log_id};
use super::error::HostError;
use super::range::{Gate, HostedRange, RefusedAppend};
use super::{Node, restore};
use crate::fatal::{Fatal, Wake};
use crate::kv::{KvDone, KvError, KvShard, Outcome, Page, Scan};
use crate::wal::{GroupId, Record, Space, Token, WalBatch, WalEntry, WalError, WalEvent, WalPort};
use bifro_core::ids::RangeId;
use bifro_core::time::{Instant, earlier};
use bifro_raft::{
    Config, Effect, Entry, EntryKind, FetchError, FetchId, HardState, Index, LogId, LogWrite, Multi, ProposeError,
    WriteId,
};
use bifro_range::record::RecordError;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Until an append that found no space is tried again, and a checkpoint that failed.
const RETRY: Duration = Duration::from_millis(200);
/// Bytes of one entry's changes at most: a turn of a shard changes far less.
const PROPOSAL_BYTES_MAX: usize = 256 << 20;
/// Batches of turns that have to wait are joined into entries of about this size.
const JOINED_BYTES: usize = 1 << 20;
/// Pairs and bytes of a page when everything is read.
const LOAD_PAGE: (usize, usize) = (4_096, 4 << 20);

/// The replicas of one shard. Owned by it; nothing blocks but [`Host::recover`] and [`Host::for_each`], before the shard runs.
pub struct Host {
    multi: Multi,
    wal: WalPort,
    kv: KvShard,
    ranges: BTreeMap<RangeId, HostedRange>,
    /// Ranges with batches to propose.
    unproposed: BTreeSet<RangeId>,
    /// The turn's writes, and what they are.
    batch: WalBatch,
    batch_writes: Vec<(RangeId, WriteId)>,
    /// Batches that are not durable.
    submitted: VecDeque<(Token, Vec<(RangeId, WriteId)>)>,
    fatal: Fatal,
    effects: Vec<(RangeId, Effect)>,
    wal_events: Vec<WalEvent>,
    kv_done: Vec<KvDone>,
    /// Ranges whose appends were refused.
    refused: BTreeSet<RangeId>,
    /// Ranges that may be due for a checkpoint.
    swollen: BTreeSet<RangeId>,
}

impl Host {
    /// The replicas of `ranges`, as they were left. `wake` is called from other threads whenever [`Host::poll`] has something new.
    ///
    /// # Errors
    /// [`HostError`]: what is wrong, and what to do.
    pub fn open(
        node: &Node,
        ranges: impl IntoIterator<Item = RangeId>,
        wake: Wake,
        fatal: Fatal,
        now: Instant,
    ) -> Result<Self, HostError> {
        let mut host = Self {
            multi: Multi::default(),
            wal: node.wal.port(wake.clone()),
            kv: node.kv.shard(wake, node.space.clone()),
            ranges: BTreeMap::new(),
            unproposed: BTreeSet::new(),
            batch: WalBatch::default(),
            batch_writes: Vec::new(),
            submitted: VecDeque::new(),
            fatal,
            effects: Vec::new(),
            wal_events: Vec::new(),
            kv_done: Vec::new(),
            refused: BTreeSet::new(),
            swollen: BTreeSet::new(),
        };
        node.cells.add(host.kv.metrics());
        let config = Config { proposal_bytes_max: PROPOSAL_BYTES_MAX, ..Config::DEFAULT };
        for range in ranges {
            let space = host.kv.open(crate::kv::SpaceId(range.0))?;
            let (group, applied) = restore::restore(node, config.clone(), range, &space, now)?;
            host.multi.insert(group);
            host.ranges.insert(range, HostedRange::new(space, applied));
        }
        Ok(host)
    }

    /// Waits until everything that the log holds of every range is applied. The wake given to [`Host::open`] must unpark this thread.
    pub fn recover(&mut self, started_at: Instant) {
        let clock = std::time::Instant::now();
        loop {
            let now = started_at + clock.elapsed();
            self.poll(now);
            self.end_turn(now);
            if self.multi.groups().all(|group| group.applied() == group.last().index && group.leader().is_some()) {
                return;
            }
            if self.is_quiet() {
                std::thread::park_timeout(RETRY);
            }
        }
    }

    /// Every record of a range, in the order of keys. Waits for the base. As [`Host::recover`], before the shard runs.
    ///
    /// # Errors
    /// What the base says, or what `take` does not understand.
    ///
    /// # Panics
    /// If the range is not hosted here.
    pub fn for_each(
        &mut self,
        now: Instant,
        range: RangeId,
        mut take: impl FnMut(&[u8], &[u8]) -> Result<(), RecordError>,
    ) -> Result<(), HostError> {
        let mut from = Some(Vec::new());
        while let Some(first) = from {
            let (limit, bytes_max) = LOAD_PAGE;
            let page = self.page(now, range, Scan { from: first, to: None, limit, bytes_max })?;
            for (key, value) in &page.pairs {
                take(key, value).map_err(|source| HostError::Record { range, key: key.to_vec(), source })?;
            }
            from = page.next;
        }
        Ok(())
    }

    fn page(&mut self, now: Instant, range: RangeId, scan: Scan) -> Result<Page, HostError> {
        let hosted = self.ranges.get_mut(&range).expect("the range is hosted here");
        if hosted.space.is_all_hot() {
            return Ok(hosted.space.scan_overlay(&scan));
        }
        assert!(hosted.space.scan(0, scan), "nothing else reads at this time");
        loop {
            self.kv.poll(&mut self.kv_done);
            let mut answer = None;
            for done in std::mem::take(&mut self.kv_done) {
                match self.complete(now, RangeId(done.space.0), done) {
                    Some(Outcome::Scanned { page, .. }) => answer = Some(Ok(page)),
                    Some(Outcome::Failed { request: Some(_), error }) => answer = Some(Err(error.into())),
                    _ => {}
                }
            }
            if let Some(answer) = answer {
                return answer;
            }
            if self.kv.is_quiet() {
                std::thread::park_timeout(RETRY);
            }
        }
    }

    /// Takes what a range's machine has changed in this turn. It is proposed when the turn ends.
    ///
    /// # Panics
    /// If the range is not hosted here.
    pub fn record(&mut self, range: RangeId, changes: Vec<u8>) {
        self.ranges.get_mut(&range).expect("the range is hosted here").record(changes);
        self.unproposed.insert(range);
    }

    /// The gate of the batch recorded last. What has been decided since depends on it.
    ///
    /// # Panics
    /// If the range is not hosted here.
    pub fn recorded(&self, range: RangeId) -> Gate {
        self.ranges[&range].recorded()
    }

    /// The gate of the last batch that is committed, durable and applied.
    ///
    /// # Panics
    /// If the range is not hosted here.
    pub fn applied(&self, range: RangeId) -> Gate {
        self.ranges[&range].applied()
    }

    /// Whether new proposals are welcome, as far as space goes. What makes room is always.
    pub fn space(&self) -> Space {
        self.wal.space()
    }

    /// Bytes that have been recorded and are not in the base yet, roughly.
    pub fn held_bytes(&self) -> u64 {
        self.ranges.values().map(|range| (range.waiting_bytes() + range.space.overlay_bytes()) as u64).sum()
    }

    /// When [`Host::poll`] wants to be called next, whatever happens.
    pub fn next_timeout(&self) -> Option<Instant> {
        let refused = self.refused.iter().filter_map(|range| self.ranges[range].refused);
        let wanting = self.swollen.iter().map(|id| &self.ranges[id]).filter(|range| range.wants_checkpoint());
        let swollen = wanting.map(|range| range.checkpoint_at);
        let retry = refused.map(|refused| refused.retry_at).chain(swollen).min();
        earlier(self.multi.next_timeout(), retry)
    }

    /// Whether [`Host::poll`] would find nothing. To be asked after announcing a park and before parking.
    pub fn is_quiet(&self) -> bool {
        self.wal.is_quiet() && self.kv.is_quiet()
    }

    /// Takes in what log and engine have done. True if there was anything.
    pub fn poll(&mut self, now: Instant) -> bool {
        let mut worked = !self.is_quiet();
        if worked {
            self.wal.poll(&mut self.wal_events);
            for event in std::mem::take(&mut self.wal_events) {
                self.handle_wal_event(now, event);
            }
            self.kv.poll(&mut self.kv_done);
            for done in std::mem::take(&mut self.kv_done) {
                self.complete(now, RangeId(done.space.0), done);
            }
        }
        if self.next_timeout().is_some_and(|at| at <= now) {
            self.multi.handle_timeout(now);
            self.retry_refused(now);
            worked = true;
        }
        if worked {
            self.carry_out(now);
        }
        worked
    }

    /// Ends the turn: proposes what was recorded, and hands the turn's writes to the log as one batch.
    pub fn end_turn(&mut self, now: Instant) {
        for range in std::mem::take(&mut self.unproposed) {
            self.propose(now, range);
        }
        self.carry_out(now);
        self.checkpoint(now);
        self.submit();
    }

    fn propose(&mut self, now: Instant, id: RangeId) {
        let (Some(range), Some(group)) = (self.ranges.get_mut(&id), self.multi.input(id)) else { return };
        while let Some(proposal) = range.next_proposal(JOINED_BYTES) {
            match group.propose(now, proposal.clone()) {
                Ok(at) => range.proposed(at.index),
                // Not a leader yet, or too much on its way: when something has been applied, or in the next turn.
                Err(ProposeError::NotLeader { .. } | ProposeError::Busy | ProposeError::Transferring { .. }) => {
                    range.put_back(proposal);
                    self.unproposed.insert(id);
                    return;
                }
                Err(error @ ProposeError::TooLarge { .. }) => {
                    return (self.fatal)(&format!("{id}: one turn changed more than an entry holds ({error})"));
                }
            }
        }
    }

    /// Carries out what groups want until they want nothing more.
    fn carry_out(&mut self, now: Instant) {
        loop {
            self.multi.poll_effects(now, &mut self.effects);
            // A group of one has nobody to talk to.
            self.multi.take_batches().for_each(drop);
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
            Effect::RoleChanged { role, term, .. } => tracing::debug!(%range, ?role, term = term.0, "role changed"),
            Effect::Send { .. } | Effect::ReadReady { .. } | Effect::ReadFailed { .. } => {}
            Effect::Fetch { fetch, first, last, bytes_max } => {
                // Entries that memory had no room for, to be applied: after a start, typically.
                if !self.wal.read(fetch.0, GroupId(range.0), first.0..last.0 + 1, bytes_max) {
                    self.with_group(range, |group| group.handle_fetched(now, fetch, Err(FetchError::Failed)));
                }
            }
            // Only a peer that lags behind makes a group ask for these, and there is none: the honest answers all the same.
            Effect::PrepareSnapshot { to, .. } => self.with_group(range, |group| {
                group.handle_snapshot_unavailable(now, to);
            }),
            Effect::InstallSnapshot { .. } => self.with_group(range, |group| group.handle_snapshot_failed(now)),
        }
    }

    fn with_group(&mut self, range: RangeId, call: impl FnOnce(&mut bifro_raft::Group)) {
        if let Some(group) = self.multi.input(range) {
            call(group);
        }
    }

    fn persist(&mut self, range: RangeId, write: WriteId, hard_state: Option<HardState>, log: &LogWrite) {
        let group = GroupId(range.0);
        if let Some(state) = hard_state {
            self.batch.put_record(group, Record::HARD_STATE, write_hard_state(&state));
        }
        match log {
            LogWrite::Nothing => {}
            LogWrite::Append(entries) => self.batch.append(group, entries.iter().map(to_wal).collect()),
            LogWrite::Restart { start, entries } => {
                self.begin_log(group, *start);
                self.batch.append(group, entries.iter().map(to_wal).collect());
            }
        }
        self.batch_writes.push((range, write));
    }

    fn apply(&mut self, now: Instant, id: RangeId, entries: &[Entry]) {
        let (Some(range), Some(last)) = (self.ranges.get_mut(&id), entries.last()) else { return };
        for entry in entries {
            let applied = match &entry.kind {
                EntryKind::Data(data) => range.apply(entry.id, data),
                EntryKind::Noop | EntryKind::Membership(_) => {
                    range.mark_applied(entry.id);
                    Ok(())
                }
            };
            if let Err(error) = applied {
                return (self.fatal)(&format!("{id}: entry {} of the log cannot be applied: it {error}", entry.id));
            }
        }
        if range.space.wants_checkpoint() {
            self.swollen.insert(id);
        }
        let last = last.id.index;
        self.with_group(id, |group| group.handle_applied(now, last));
    }

    fn submit(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        match self.wal.submit(std::mem::take(&mut self.batch)) {
            Ok(token) => self.submitted.push_back((token, std::mem::take(&mut self.batch_writes))),
            // What is queued is on its way; more joins this until then.
            Err(batch) => self.batch = batch,
        }
    }

    fn handle_wal_event(&mut self, now: Instant, event: WalEvent) {
        match event {
            WalEvent::Durable { token } => {
                while let Some((_, writes)) = self.submitted.pop_front_if(|(submitted, _)| *submitted <= token) {
                    for (range, write) in writes {
                        self.handle_durable(now, range, write);
                    }
                }
            }
            WalEvent::Refused { group, from, error, .. } => {
                let id = RangeId(group.0);
                let Some(range) = self.ranges.get_mut(&id) else { return };
                if range.refused.is_none() {
                    tracing::warn!(range = %id, %error, "the log takes no more entries; they are kept in memory and tried again");
                }
                let durable = range.refused.and_then(|refused| refused.durable);
                let first = range.refused.map_or(from, |refused| refused.from.0.min(from));
                range.refused = Some(RefusedAppend { from: Index(first), retry_at: now + RETRY, durable });
                self.refused.insert(id);
            }
            WalEvent::Pinned { group } => {
                let id = RangeId(group.0);
                if let Some(range) = self.ranges.get_mut(&id) {
                    range.is_pinning = true;
                    self.swollen.insert(id);
                }
            }
            WalEvent::Entries { request, group, result } => {
                self.handle_entries(now, RangeId(group.0), FetchId(request), result);
            }
            // It is asked for when it matters.
            WalEvent::SpaceChanged(_) => {}
        }
    }

    fn handle_entries(&mut self, now: Instant, id: RangeId, fetch: FetchId, result: Result<Vec<WalEntry>, WalError>) {
        let entries = match result {
            Ok(entries) => entries.iter().map(from_wal).collect::<Option<Vec<_>>>().ok_or(FetchError::Failed),
            Err(WalError::Compacted { .. }) => Err(FetchError::Compacted),
            Err(_) => Err(FetchError::Failed),
        };
        if entries == Err(FetchError::Failed) {
            tracing::error!(range = %id, "entries of the log cannot be read back; they are asked for again");
        }
        self.with_group(id, |group| group.handle_fetched(now, fetch, entries));
    }

    fn handle_durable(&mut self, now: Instant, id: RangeId, write: WriteId) {
        let Some(range) = self.ranges.get_mut(&id) else { return };
        match &mut range.refused {
            None => self.multi.handle_durable(now, id, write),
            // The write was made but for the entries that were refused: told when those are written again.
            Some(refused) => refused.durable = Some(write),
        }
    }

    fn retry_refused(&mut self, now: Instant) {
        for id in self.refused.clone() {
            let Some(range) = self.ranges.get_mut(&id) else { continue };
            let Some(refused) = range.refused.take_if(|refused| refused.retry_at <= now) else { continue };
            self.refused.remove(&id);
            self.with_group(id, |group| group.handle_refused(now, refused.from));
            if let Some(write) = refused.durable {
                self.multi.handle_durable(now, id, write);
            }
        }
    }

    /// Begins the checkpoints that are due. A range that has one on its way is looked at again when that is done.
    fn checkpoint(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.swollen) {
            let (Some(range), Some(group)) = (self.ranges.get_mut(&id), self.multi.group(id)) else { continue };
            if !range.wants_checkpoint() {
                continue;
            }
            if range.checkpoint_at > now {
                self.swollen.insert(id);
            } else {
                range.checkpoint(group.membership());
            }
        }
    }

    /// Takes in a finished job of the engine; what it came to, if it was a read.
    fn complete(&mut self, now: Instant, id: RangeId, done: KvDone) -> Option<Outcome> {
        let range = self.ranges.get_mut(&id)?;
        match range.space.complete(done) {
            Outcome::Checkpointed { applied, .. } => {
                self.swollen.insert(id);
                self.compact(id, Index(applied));
                None
            }
            Outcome::Failed { request: None, error } => {
                self.checkpoint_failed(now, id, &error);
                None
            }
            read => Some(read),
        }
    }

    /// The base has everything up to `to`: the log need not.
    fn compact(&mut self, id: RangeId, to: Index) {
        let Some(group) = self.multi.input(id) else { return };
        group.compact(to);
        let start = group.log_start();
        self.begin_log(GroupId(id.0), start);
    }

    /// The log goes on, or begins anew, behind `start`.
    fn begin_log(&mut self, group: GroupId, start: LogId) {
        self.batch.compact_to(group, start.index.0 + 1);
        self.batch.put_record(group, LOG_START, write_log_id(Vec::new(), start));
    }

    fn checkpoint_failed(&mut self, now: Instant, id: RangeId, error: &KvError) {
        match error {
            KvError::NoSpace { .. } | KvError::Corrupt { .. } => {
                tracing::error!(range = %id, %error, "a checkpoint failed; it is tried again, and the log grows meanwhile");
                if let Some(range) = self.ranges.get_mut(&id) {
                    range.checkpoint_at = now + RETRY;
                    // What was frozen is to be written whether or not more gathers.
                    range.is_pinning = true;
                }
                self.swollen.insert(id);
            }
            error => (self.fatal)(&format!("{id}: the key-value base failed: {error}")),
        }
    }
}

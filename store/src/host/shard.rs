//! A shard's host: turns of its groups carried out on the log and the key-value engine.

use super::burial::{Absent, Burial};
use super::change::Change;
use super::error::HostError;
use super::frame::FrameWriter;
use super::load::LOAD_PAGE;
use super::offers::Reading;
use super::range::{Gate, HostedRange, REIGNS_MAX};
use super::reads::Reads;
use super::restore::{Found, restore};
use super::{Genesis, Node, Replication};
use crate::fatal::{Fatal, Wake};
use crate::kv::{KvDone, KvShard, Outcome, Page, Scan, SpaceId};
use crate::wal::{Space, Token, WalBatch, WalEvent, WalPort};
use bifro_core::ids::{NodeId, RangeId};
use bifro_core::time::{Instant, earlier};
use bifro_raft::{Config, Effect, FetchId, Membership, Multi, ProposeError, Role, WriteId};
use bifro_range::record::RecordError;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

/// Until an append that found no space is tried again, and a checkpoint that failed.
pub(super) const RETRY: Duration = Duration::from_millis(200);
/// Bytes of one entry's changes at most: a turn of a shard changes far less.
const PROPOSAL_BYTES_MAX: usize = 256 << 20;
/// Batches of turns that have to wait are joined into entries of about this size.
const JOINED_BYTES: usize = 1 << 20;

/// A log that has not confirmed a batch for so long stalls: a sound one takes milliseconds, a busy one tenths of a second.
const STALL: Duration = Duration::from_secs(3);

/// A batch that the log has.
pub(super) struct Submitted {
    pub(super) token: Token,
    pub(super) at: Instant,
    pub(super) writes: Vec<Written>,
}

/// What a part of a batch for the log is reported to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Written {
    /// A group.
    Group(RangeId, WriteId),
    /// The removal of one.
    Burial(RangeId),
}

/// The replicas of one shard. Owned by it; nothing blocks but [`Host::recover`] and [`Host::for_each`], before the shard runs.
pub struct Host {
    pub(super) genesis: Genesis,
    pub(super) replication: Replication,
    pub(super) multi: Multi,
    pub(super) wal: WalPort,
    pub(super) kv: KvShard,
    pub(super) ranges: BTreeMap<RangeId, HostedRange>,
    /// Ranges without a replica here, and what the next one starts from.
    pub(super) absent: BTreeMap<RangeId, Absent>,
    /// Replicas on their way out.
    pub(super) burials: BTreeMap<RangeId, Burial>,
    /// Ranges whose replica is removed by what it has applied, and when it is to ask whether that is the last word.
    pub(super) leaving: BTreeMap<RangeId, Instant>,
    /// Ranges with batches to propose.
    pub(super) unproposed: BTreeSet<RangeId>,
    /// The turn's writes, and what they are.
    pub(super) batch: WalBatch,
    pub(super) batch_writes: Vec<Written>,
    /// Batches that are not durable.
    pub(super) submitted: VecDeque<Submitted>,
    /// The first of them waits for long.
    is_stalled: bool,
    pub(super) fatal: Fatal,
    pub(super) effects: Vec<(RangeId, Effect)>,
    wal_events: Vec<WalEvent>,
    kv_done: Vec<KvDone>,
    /// Ranges whose appends were refused.
    pub(super) refused: BTreeSet<RangeId>,
    /// Ranges that may be due for a checkpoint.
    pub(super) swollen: BTreeSet<RangeId>,
    /// Ranges that are being loaded.
    pub(super) loading: BTreeSet<RangeId>,
    /// Ranges with snapshots for peers.
    pub(super) offering: BTreeSet<RangeId>,
    /// Ranges with a snapshot on its way in.
    pub(super) receiving: BTreeSet<RangeId>,
    /// Numbers what is asked of log and engine: an answer that comes late finds nobody, even if the range has another replica by then.
    pub(super) last_request: u64,
    pub(super) fetches: HashMap<u64, (RangeId, FetchId)>,
    pub(super) reading: HashMap<u64, Reading>,
    pub(super) reads: Reads,
    /// For peers.
    pub(super) outgoing: BTreeMap<NodeId, FrameWriter>,
    /// For the owner.
    pub(super) changes: Vec<Change>,
    /// Ranges in which gates were reached, likewise.
    pub(super) reached: Vec<RangeId>,
}

impl Host {
    /// The replicas of `ranges`, as they were left. With each goes who founded it, which is the same on every node and at every start: a
    /// founder that has nothing on its disk begins with an empty replica, any other node when a leader or a candidate speaks to it. Frames
    /// about ranges that are not among these are for nobody. `wake` is called from other threads whenever [`Host::poll`] has something new.
    ///
    /// # Errors
    /// [`HostError`]: what is wrong, and what to do.
    pub fn open(
        node: &Node,
        ranges: impl IntoIterator<Item = (RangeId, Membership)>,
        wake: Wake,
        fatal: Fatal,
        now: Instant,
    ) -> Result<Self, HostError> {
        let (port, kv) = (node.wal.port(wake.clone()), node.kv.shard(wake, node.space.clone()));
        let mut host = Self::empty(node, port, kv, fatal);
        node.cells.add(host.kv.metrics());
        for (range, founders) in ranges {
            let space = host.kv.open(SpaceId(range.0))?;
            match restore(node, host.replication.raft.clone(), range, founders, space, now)? {
                Found::Replica(found) => {
                    let (group, hosted) = *found;
                    if !group.membership().is_empty() && !group.membership().contains(host.genesis.node) {
                        host.leaving.insert(range, now);
                    }
                    host.multi.insert(group);
                    host.ranges.insert(range, hosted);
                }
                Found::Nothing(hard_state, space) => {
                    let rest = Absent { hard_state, reigns_left: REIGNS_MAX };
                    match space {
                        Some(space) => host.bury_rest(range, rest, *space),
                        None => drop(host.absent.insert(range, rest)),
                    }
                }
            }
        }
        Ok(host)
    }

    fn empty(node: &Node, wal: WalPort, kv: KvShard, fatal: Fatal) -> Self {
        let mut replication = node.replication.clone();
        replication.raft = Config { proposal_bytes_max: PROPOSAL_BYTES_MAX, ..replication.raft };
        Self {
            genesis: node.genesis().clone(),
            replication,
            multi: Multi::default(),
            wal,
            kv,
            ranges: BTreeMap::new(),
            absent: BTreeMap::new(),
            burials: BTreeMap::new(),
            leaving: BTreeMap::new(),
            unproposed: BTreeSet::new(),
            batch: WalBatch::default(),
            batch_writes: Vec::new(),
            submitted: VecDeque::new(),
            is_stalled: false,
            fatal,
            effects: Vec::new(),
            wal_events: Vec::new(),
            kv_done: Vec::new(),
            refused: BTreeSet::new(),
            swollen: BTreeSet::new(),
            loading: BTreeSet::new(),
            offering: BTreeSet::new(),
            receiving: BTreeSet::new(),
            last_request: 0,
            fetches: HashMap::new(),
            reading: HashMap::new(),
            reads: Reads::default(),
            outgoing: BTreeMap::new(),
            changes: Vec::new(),
            reached: Vec::new(),
        }
    }

    /// Waits until everything that the log holds of every range with this node as its only voter is applied. What other ranges are is for
    /// their leaders to say. The wake given to [`Host::open`] must unpark this thread.
    pub fn recover(&mut self, storage: &Node, started_at: Instant) {
        let (clock, node) = (std::time::Instant::now(), self.genesis.node);
        loop {
            let now = started_at + storage.waited(clock);
            self.poll(now);
            self.end_turn(now);
            let mut alone = self.multi.groups().filter(|group| group.membership().is_sole_voter(node));
            if alone.all(|group| group.applied() == group.last().index && group.leader().is_some()) {
                return;
            }
            if self.is_quiet() {
                storage.wait();
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
        storage: &Node,
        now: Instant,
        range: RangeId,
        mut take: impl FnMut(&[u8], &[u8]) -> Result<(), RecordError>,
    ) -> Result<(), HostError> {
        let mut from = Some(Vec::new());
        while let Some(first) = from {
            let (limit, bytes_max) = LOAD_PAGE;
            let page = self.page(storage, now, range, Scan { from: first, to: None, limit, bytes_max })?;
            for (key, value) in &page.pairs {
                take(key, value).map_err(|source| HostError::Record { range, key: key.to_vec(), source })?;
            }
            from = page.next;
        }
        Ok(())
    }

    fn page(&mut self, storage: &Node, now: Instant, range: RangeId, scan: Scan) -> Result<Page, HostError> {
        let hosted = self.ranges.get_mut(&range).expect("the range is hosted here");
        if hosted.space.is_all_hot() {
            return Ok(hosted.space.scan_overlay(&scan));
        }
        assert!(hosted.space.scan(0, scan), "nothing else reads at this time");
        loop {
            self.kv.poll(&mut self.kv_done);
            let mut answer = None;
            for done in std::mem::take(&mut self.kv_done) {
                let id = RangeId(done.space.0);
                match self.complete(now, id, done) {
                    Some(Outcome::Scanned { request: 0, page }) => answer = Some(Ok(page)),
                    Some(Outcome::Failed { request: Some(0), error }) => answer = Some(Err(error.into())),
                    Some(read) => self.handle_read(id, read),
                    None => {}
                }
            }
            if let Some(answer) = answer {
                return answer;
            }
            if self.kv.is_quiet() {
                storage.wait();
            }
        }
    }

    /// Takes what a range's machine has changed in this turn. It is proposed when the turn ends. From a machine of no reign, or of one
    /// that is over, it is dropped, and its gate never opens: [`Change::Follows`] says or will say so.
    pub fn record(&mut self, range: RangeId, changes: Vec<u8>) {
        if self.ranges.get_mut(&range).is_some_and(|hosted| hosted.record(changes)) {
            self.unproposed.insert(range);
        }
    }

    /// The gate of the batch recorded last. What has been decided since depends on it. The default if there is no replica here.
    pub fn recorded(&self, range: RangeId) -> Gate {
        self.ranges.get(&range).map(HostedRange::recorded).unwrap_or_default()
    }

    /// The gate of the last batch that is committed, durable and applied. The default if there is no replica here.
    pub fn applied(&self, range: RangeId) -> Gate {
        self.ranges.get(&range).map(HostedRange::applied).unwrap_or_default()
    }

    /// Moves the ranges in which gates were reached since the last call into `reached`.
    pub fn take_reached(&mut self, reached: &mut Vec<RangeId>) {
        reached.append(&mut self.reached);
    }

    /// Whether new proposals are welcome, as far as space goes. What makes room is always.
    pub fn space(&self) -> Space {
        self.wal.space()
    }

    /// Whether the log has not confirmed for seconds what it was given: its disk stalls.
    pub fn is_stalled(&self) -> bool {
        self.is_stalled
    }

    /// Whether others should lead in this node's place: it is short of space, or its disk stalls.
    pub fn is_impaired(&self) -> bool {
        self.is_stalled || self.space() == Space::Short
    }

    /// From when on that is so, unless the log confirms something before.
    fn stalls_at(&self) -> Option<Instant> {
        self.submitted.front().map(|first| first.at + STALL)
    }

    /// Bytes that have been recorded and are not in the base yet, roughly.
    pub fn held_bytes(&self) -> u64 {
        self.ranges.values().map(|range| (range.waiting_bytes() + range.space.overlay_bytes()) as u64).sum()
    }

    /// When [`Host::poll`] wants to be called next, whatever happens.
    pub fn next_timeout(&self) -> Option<Instant> {
        let refused = self.refused.iter().filter_map(|id| self.ranges.get(id)?.refused);
        let wanting = self.swollen.iter().filter_map(|id| self.ranges.get(id)).filter(|range| range.wants_checkpoint());
        let swollen = wanting.map(|range| range.checkpoint_at);
        let retry = refused.map(|refused| refused.retry_at).chain(swollen).min();
        let load = self.has_load_due().then(Instant::default);
        let load = earlier(load, self.stalls_at().filter(|_| !self.is_stalled));
        let transfers = earlier(self.next_incoming(), self.next_offer());
        let transfers = earlier(transfers, self.leaving.values().copied().min());
        earlier(earlier(self.multi.next_timeout(), load), earlier(retry, transfers))
    }

    /// Whether [`Host::poll`] would find nothing. To be asked after announcing a park and before parking.
    pub fn is_quiet(&self) -> bool {
        self.wal.is_quiet() && self.kv.is_quiet() && !self.has_load_due()
    }

    /// Takes in what log and engine have done, and what time has brought. True if there was anything.
    pub fn poll(&mut self, now: Instant) -> bool {
        let mut worked = !self.is_quiet();
        if worked {
            self.wal.poll(&mut self.wal_events);
            for event in std::mem::take(&mut self.wal_events) {
                self.handle_wal_event(now, event);
            }
            self.kv.poll(&mut self.kv_done);
            for done in std::mem::take(&mut self.kv_done) {
                let id = RangeId(done.space.0);
                if let Some(read) = self.complete(now, id, done) {
                    self.handle_read(id, read);
                }
            }
        }
        if self.next_timeout().is_some_and(|at| at <= now) {
            self.multi.handle_timeout(now);
            self.retry_refused(now);
            worked = true;
        }
        self.is_stalled = self.stalls_at().is_some_and(|at| at <= now);
        if worked {
            self.settle(now);
        }
        worked
    }

    /// Applies what peers have confirmed since [`Host::poll`].
    pub fn catch_up(&mut self, now: Instant) {
        self.carry_out(now);
    }

    /// Ends the turn: proposes what was recorded, and hands the turn's writes to the log as one batch.
    pub fn end_turn(&mut self, now: Instant) {
        for range in std::mem::take(&mut self.unproposed) {
            self.propose(now, range);
        }
        self.settle(now);
    }

    /// Carries out what groups want, goes on with what takes longer, and hands the log what there is to write.
    fn settle(&mut self, now: Instant) {
        self.carry_out(now);
        self.checkpoint(now);
        self.drive_offers(now);
        self.drive_incoming(now);
        self.drive_loads();
        // A snapshot may have failed, or a removal be known by now.
        self.carry_out(now);
        self.bury_leaving(now);
        self.submit(now);
    }

    fn propose(&mut self, now: Instant, id: RangeId) {
        let (Some(range), Some(group)) = (self.ranges.get_mut(&id), self.multi.input(id)) else { return };
        // Leadership may have been lost in this very turn, and even won again: what was recorded is of the reign before. Its end is told
        // when the group's turn ends.
        if group.role() != Role::Leader || range.reign() != Some(group.term()) {
            return;
        }
        while let Some(proposal) = range.next_proposal(JOINED_BYTES) {
            match group.propose(now, proposal.clone()) {
                Ok(at) => range.proposed(at.index),
                // Too much on its way: in the next turn. A transfer that comes to nothing ends by itself.
                Err(ProposeError::Busy | ProposeError::Transferring { .. }) => {
                    range.put_back(proposal);
                    self.unproposed.insert(id);
                    return;
                }
                Err(ProposeError::NotLeader { .. }) => return range.put_back(proposal),
                Err(ProposeError::TooLarge { bytes_max }) => {
                    return (self.fatal)(&format!(
                        "{id}: one turn changed more than an entry holds ({bytes_max} bytes)"
                    ));
                }
            }
        }
    }
}

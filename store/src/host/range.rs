//! One range's replica, as its host keeps it.

use super::entry::write_meta;
use super::incoming::Incoming;
use super::load::Load;
use super::offers::Offers;
use crate::kv::KvSpace;
use bifro_core::time::Instant;
use bifro_raft::{HardState, Index, LogId, Membership, SnapshotMeta, Term, WriteId};
use bifro_range::changes::{Change, Changes};
use bifro_range::record::RecordError;
use bytes::Bytes;
use std::collections::VecDeque;

/// Counts the batches of a range: what depends on a batch waits until the range has applied its gate.
///
/// Gates of a reign of this node grow by one with each batch. Those of a later reign are all *below* those of an earlier one: a gate that a
/// lost reign has left closed stays above whatever is applied later, and so stays closed for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gate(pub u64);

/// Bits for the batches of a reign: at a hundred thousand a second they last for years.
const BATCH_BITS: u32 = 44;
/// Reigns of one range between two starts of a node, whatever replicas it has meanwhile.
pub(super) const REIGNS_MAX: u64 = u64::MAX >> BATCH_BITS;

/// Appends that the log refused for want of space.
#[derive(Clone, Copy, Debug)]
pub(super) struct RefusedAppend {
    /// First index that is to be written again.
    pub(super) from: Index,
    /// When.
    pub(super) retry_at: Instant,
    /// The last write that was reported durable meanwhile, but for what was refused.
    pub(super) durable: Option<WriteId>,
}

pub(super) struct HostedRange {
    pub(super) space: KvSpace,
    /// Batches not proposed yet, in order.
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// The last batch recorded.
    recorded: Gate,
    /// Entries proposed, with the last batch in each.
    proposed: VecDeque<(Index, Gate)>,
    applied: Gate,
    /// The last entry applied.
    applied_id: LogId,
    /// The members as of that entry, and which one they come from: a checkpoint speaks of these, not of members that may be undone.
    members: (LogId, Membership),
    /// Since when nobody is known to lead; none if somebody is, or nothing has been decided since the start.
    pub(super) leaderless_since: Option<Instant>,
    /// Term and vote as handed to the log.
    pub(super) hard_state: HardState,
    /// The term this replica leads in, once all before it is applied.
    reign: Option<Term>,
    /// As the owner was last told. Whatever it records while the two differ comes from a machine that is out of date.
    heard: Option<Term>,
    reigns_left: u64,
    pub(super) refused: Option<RefusedAppend>,
    /// A checkpoint failed: not before then again.
    pub(super) checkpoint_at: Instant,
    /// The log asks for a checkpoint.
    pub(super) is_pinning: bool,
    /// The checkpoint under way is one that the log asked for.
    pub(super) is_unpinning: bool,
    /// The owner is being given everything.
    pub(super) load: Option<Load>,
    /// Snapshots for peers.
    pub(super) offers: Offers,
    /// The snapshot on its way in.
    pub(super) incoming: Option<Incoming>,
}

impl HostedRange {
    /// A replica whose state machine is what `checkpoint` says. `reigns_left` goes on from the replica before it.
    pub(super) fn new(space: KvSpace, checkpoint: SnapshotMeta, hard_state: HardState, reigns_left: u64) -> Self {
        let start = Gate(reigns_left << BATCH_BITS);
        Self {
            space,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            recorded: start,
            proposed: VecDeque::new(),
            applied: start,
            applied_id: checkpoint.last,
            members: (checkpoint.last, checkpoint.membership),
            leaderless_since: None,
            hard_state,
            reign: None,
            heard: None,
            reigns_left,
            refused: None,
            checkpoint_at: Instant::default(),
            is_pinning: false,
            is_unpinning: false,
            load: None,
            offers: Offers::default(),
            incoming: None,
        }
    }

    /// Takes a batch. False if it was dropped, because its machine is one of a reign that is over or was none: its gate stays closed.
    pub(super) fn record(&mut self, changes: Vec<u8>) -> bool {
        self.recorded = Gate(self.recorded.0 + 1);
        if !self.is_heard_to_lead() {
            return false;
        }
        self.waiting_bytes += changes.len();
        self.waiting.push_back(changes);
        true
    }

    /// Whether this replica leads and the owner knows.
    pub(super) fn is_heard_to_lead(&self) -> bool {
        self.reign.is_some() && self.reign == self.heard
    }

    pub(super) const fn reigns_left(&self) -> u64 {
        self.reigns_left
    }

    pub(super) const fn reign(&self) -> Option<Term> {
        self.reign
    }

    pub(super) const fn applied_id(&self) -> LogId {
        self.applied_id
    }

    /// The members as of what is applied, and the entry they come from or a later one.
    pub(super) const fn members(&self) -> &(LogId, Membership) {
        &self.members
    }

    /// The replica leads in this term and has applied what came before.
    pub(super) fn begin_reign(&mut self, term: Term) {
        self.reign = Some(term);
    }

    /// The reign is over, and with it what was recorded and is not applied. Entries that were proposed may still be committed, by another
    /// leader, and are then applied like any other: the machines of the next reign are built from the space, so they have them. Only that
    /// nobody hears of it from here: what was held for their gates goes with the machine. To a client that is an answer lost, no more.
    pub(super) fn end_reign(&mut self) {
        self.reign = None;
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.proposed.clear();
        self.load = None;
        self.offers = Offers::default();
    }

    /// The owner has been told of a reign, or of the end of one.
    ///
    /// # Panics
    /// After a million reigns.
    pub(super) fn hear(&mut self, reign: Option<Term>) {
        self.heard = reign;
        if reign.is_some() {
            assert!(
                self.reigns_left > 0,
                "a range changes its leader a million times at most before the node is started again"
            );
            self.reigns_left -= 1;
            let start = Gate(self.reigns_left << BATCH_BITS);
            (self.recorded, self.applied) = (start, start);
        }
    }

    pub(super) const fn recorded(&self) -> Gate {
        self.recorded
    }

    pub(super) const fn applied(&self) -> Gate {
        self.applied
    }

    pub(super) const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// What the next proposal is to be: as many whole batches as fit, at least one.
    pub(super) fn next_proposal(&mut self, bytes_max: usize) -> Option<Bytes> {
        let mut proposal = self.waiting.pop_front()?;
        while let Some(next) = self.waiting.pop_front_if(|next| proposal.len() + next.len() <= bytes_max) {
            proposal.extend_from_slice(&next);
        }
        self.waiting_bytes -= proposal.len();
        Some(Bytes::from(proposal))
    }

    /// The proposal was not taken: it is the next again.
    pub(super) fn put_back(&mut self, proposal: Bytes) {
        self.waiting_bytes += proposal.len();
        self.waiting.push_front(proposal.into());
    }

    /// The proposal was taken, with every batch that waits no more.
    pub(super) fn proposed(&mut self, at: Index) {
        self.proposed.push_back((at, Gate(self.recorded.0 - self.waiting.len() as u64)));
    }

    /// Applies the changes of a committed entry.
    ///
    /// # Errors
    /// If it holds something else. A range whose log says what this version does not understand must not go on.
    pub(super) fn apply(&mut self, id: LogId, data: &[u8]) -> Result<(), RecordError> {
        for change in Changes::read(data) {
            match change? {
                Change::Put { key, value, fresh: true } => self.space.put_new(key, value),
                Change::Put { key, value, fresh: false } => self.space.put(key, value),
                Change::Delete { key } => self.space.delete(key),
            }
        }
        self.mark_applied(id);
        Ok(())
    }

    /// Everything up to the entry is applied.
    pub(super) fn mark_applied(&mut self, id: LogId) {
        self.space.set_applied(id.index.0);
        self.applied_id = id;
        while let Some((_, gate)) = self.proposed.pop_front_if(|(index, _)| *index <= id.index) {
            self.applied = gate;
        }
    }

    /// These members are applied with the entry, which is marked next. Returns those before.
    pub(super) fn set_members(&mut self, id: LogId, members: Membership) -> (LogId, Membership) {
        std::mem::replace(&mut self.members, (id, members))
    }

    /// The state machine was replaced.
    pub(super) fn install(&mut self, space: KvSpace, meta: &SnapshotMeta) {
        self.space = space;
        self.applied_id = meta.last;
        self.members = (meta.last, meta.membership.clone());
    }

    /// Whether a checkpoint is wanted, makes sense and is not on its way. While a snapshot comes in the space is to be replaced; and a
    /// replica that has not read who its members are has nothing that another could start from.
    pub(super) fn wants_checkpoint(&self) -> bool {
        let behind = self.applied_id.index.0 > self.space.checkpointed();
        let sound = self.incoming.is_none() && !self.members.1.is_empty();
        behind && sound && !self.space.is_checkpointing() && (self.is_pinning || self.space.wants_checkpoint())
    }

    /// Begins a checkpoint of what is applied.
    pub(super) fn checkpoint(&mut self) {
        self.is_unpinning = std::mem::take(&mut self.is_pinning);
        self.space.checkpoint(&self.checkpoint_meta());
    }

    /// Begins a checkpoint with a view of it.
    pub(super) fn snapshot(&mut self, request: u64) -> bool {
        let meta = self.checkpoint_meta();
        self.space.snapshot(request, &meta)
    }

    fn checkpoint_meta(&self) -> Vec<u8> {
        write_meta(Vec::new(), &SnapshotMeta { last: self.applied_id, membership: self.members.1.clone() })
    }
}

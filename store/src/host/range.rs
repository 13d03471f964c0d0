//! One range's replica, as its host keeps it.

use super::entry::write_meta;
use crate::kv::KvSpace;
use bifro_core::time::Instant;
use bifro_raft::{Index, LogId, Membership, SnapshotMeta, WriteId};
use bifro_range::changes::{Change, Changes};
use bifro_range::record::RecordError;
use bytes::Bytes;
use std::collections::VecDeque;

/// Counts the batches of a range: what depends on a batch waits until the range has applied its gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gate(pub u64);

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
    pub(super) refused: Option<RefusedAppend>,
    /// A checkpoint failed: not before then again.
    pub(super) checkpoint_at: Instant,
    /// The log asks for a checkpoint.
    pub(super) is_pinning: bool,
}

impl HostedRange {
    pub(super) fn new(space: KvSpace, applied_id: LogId) -> Self {
        Self {
            space,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            recorded: Gate(0),
            proposed: VecDeque::new(),
            applied: Gate(0),
            applied_id,
            refused: None,
            checkpoint_at: Instant::default(),
            is_pinning: false,
        }
    }

    pub(super) fn record(&mut self, changes: Vec<u8>) {
        self.waiting_bytes += changes.len();
        self.waiting.push_back(changes);
        self.recorded = Gate(self.recorded.0 + 1);
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

    /// Whether a checkpoint is wanted and none is on its way.
    pub(super) fn wants_checkpoint(&self) -> bool {
        let behind = self.applied_id.index.0 > self.space.checkpointed();
        behind && !self.space.is_checkpointing() && (self.is_pinning || self.space.wants_checkpoint())
    }

    /// Begins a checkpoint of what is applied.
    pub(super) fn checkpoint(&mut self, membership: &Membership) {
        self.is_pinning = false;
        let meta = SnapshotMeta { last: self.applied_id, membership: membership.clone() };
        self.space.checkpoint(&write_meta(&meta));
    }
}

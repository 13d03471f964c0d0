//! A replica from what the disk holds: hard state and entries from the log, the state machine from its last checkpoint.

use super::entry::{LOG_START, from_wal, read_hard_state, read_log_id, read_meta};
use super::error::HostError;
use super::range::{HostedRange, REIGNS_MAX};
use super::{Genesis, Node};
use crate::kv::KvSpace;
use crate::wal::{GroupId, Record, RecoveredGroup};
use bifro_core::ids::RangeId;
use bifro_core::rng::Prng;
use bifro_core::time::Instant;
use bifro_raft::{Config, Entry, Group, HardState, Identity, LogId, Membership, Restored, SnapshotMeta};

/// Bytes of entries read from the log at a time.
const READ_BYTES: usize = 16 << 20;

/// What the disk holds of a range.
pub(super) enum Found {
    /// A replica.
    Replica(Box<(Group, HostedRange)>),
    /// None, or one that was removed: what the next one starts from, and a space that was not removed yet, if there is one.
    Nothing(HardState, Option<Box<KvSpace>>),
}

/// The replica as it was left. `founders` are the members it was born with, should it have been born and never made a checkpoint.
pub(super) fn restore(
    node: &Node,
    config: Config,
    range: RangeId,
    founders: Membership,
    space: KvSpace,
    now: Instant,
) -> Result<Found, HostError> {
    let genesis = node.genesis();
    let recovered = node.take_recovered(range);
    let checkpoint = checkpoint_of(range, &space, &founders)?;
    let (hard_state, log_start) =
        recovered.as_ref().map_or(Ok(Default::default()), |found| records_of(range, found))?;
    let std::ops::Range { start: next, end } = recovered.map_or(0..0, |found| found.entries);
    if next == end && log_start.is_none() {
        // Without a log of its own a replica is no more than its checkpoint, or its birth. A removal that is later than those stands: the
        // crash came before the space was gone, or before the log of the next replica began, which till then had confirmed nothing.
        let is_checkpointed = !space.meta().is_empty();
        let is_removed = hard_state.removed > checkpoint.last;
        if is_removed || !is_checkpointed && !founders.contains(genesis.node) {
            return Ok(Found::Nothing(hard_state, is_checkpointed.then(|| Box::new(space))));
        }
    }
    let mut entries = Entries { node, range, next, end, page: Vec::new().into_iter(), error: None };
    let restored = Restored { hard_state, checkpoint: checkpoint.clone(), log_start: log_start.unwrap_or(LogId::ZERO) };
    let group = Group::new(config, identity(genesis, range), restored, &mut entries, rng(genesis, range, now), now);
    match entries.error {
        Some(error) => Err(error),
        None => {
            let group = group.map_err(|source| HostError::Restore { range, source })?;
            Ok(Found::Replica(Box::new((group, HostedRange::new(space, checkpoint, hard_state, REIGNS_MAX)))))
        }
    }
}

pub(super) const fn identity(genesis: &Genesis, range: RangeId) -> Identity {
    Identity { range, node: genesis.node }
}

/// A generator of the replica's own.
pub(super) const fn rng(genesis: &Genesis, range: RangeId, now: Instant) -> Prng {
    Prng::new(genesis.seed).derive(genesis.node.0).derive(range.0).derive(now.as_micros())
}

/// What the state machine contains. A range that has no checkpoint yet is as its founders made it: empty, with them as its members.
fn checkpoint_of(range: RangeId, space: &KvSpace, founders: &Membership) -> Result<SnapshotMeta, HostError> {
    if space.meta().is_empty() {
        return Ok(SnapshotMeta { last: LogId::ZERO, membership: founders.clone() });
    }
    let damaged = HostError::Damaged { range, what: "the checkpoint's record" };
    read_meta(space.meta()).filter(|meta| meta.last.index.0 == space.checkpointed()).ok_or(damaged)
}

fn records_of(range: RangeId, found: &RecoveredGroup) -> Result<(HardState, Option<LogId>), HostError> {
    let damaged = |what| HostError::Damaged { range, what };
    let hard_state = match found.record(Record::HARD_STATE) {
        Some(bytes) => read_hard_state(bytes).ok_or_else(|| damaged("the record of term and vote"))?,
        None => HardState::default(),
    };
    let log_start = match found.record(LOG_START) {
        Some(bytes) => Some(read_log_id(bytes).ok_or_else(|| damaged("the record of the log's beginning"))?),
        None => None,
    };
    Ok((hard_state, log_start))
}

/// The entries of a group, read page by page. Ends early at an error, which is then in `error`.
struct Entries<'a> {
    node: &'a Node,
    range: RangeId,
    next: u64,
    end: u64,
    page: std::vec::IntoIter<crate::wal::WalEntry>,
    error: Option<HostError>,
}

impl Iterator for &mut Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let range = self.range;
        if self.page.len() == 0 && self.next < self.end {
            match self.node.wal.read_now(GroupId(range.0), self.next..self.end, READ_BYTES) {
                Ok(page) => self.page = page.into_iter(),
                Err(source) => self.error = Some(HostError::Entries { range, source }),
            }
        }
        let entry = self.page.next()?;
        self.next = entry.index() + 1;
        let read = from_wal(&entry);
        if read.is_none() {
            self.error = Some(HostError::Damaged { range, what: "an entry of the log" });
        }
        read
    }
}

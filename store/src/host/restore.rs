//! A replica from what the disk holds: hard state and entries from the log, the state machine from its last checkpoint.

use super::entry::{LOG_START, from_wal, read_hard_state, read_log_id, read_meta};
use super::error::HostError;
use super::{Genesis, Node};
use crate::kv::KvSpace;
use crate::wal::{GroupId, Record, RecoveredGroup};
use bifro_core::ids::RangeId;
use bifro_core::rng::Prng;
use bifro_core::time::Instant;
use bifro_raft::{Config, Entry, Group, HardState, Identity, LogId, Membership, Restored, SnapshotMeta};

/// Bytes of entries read from the log at a time.
const READ_BYTES: usize = 16 << 20;

/// The group, and the last entry its state machine contains.
pub(super) fn restore(
    node: &Node,
    config: Config,
    range: RangeId,
    space: &KvSpace,
    now: Instant,
) -> Result<(Group, LogId), HostError> {
    let recovered = node.take_recovered(range);
    let checkpoint = checkpoint_of(node.genesis(), range, space)?;
    let (hard_state, log_start) =
        recovered.as_ref().map_or(Ok(Default::default()), |found| records_of(range, found))?;
    let std::ops::Range { start: next, end } = recovered.map_or(0..0, |found| found.entries);
    let mut entries = Entries { node, range, next, end, page: Vec::new().into_iter(), error: None };
    let last = checkpoint.last;
    let restored = Restored { hard_state, checkpoint, log_start };
    let genesis = node.genesis();
    let rng = Prng::new(genesis.seed).derive(range.0).derive(now.as_micros());
    let identity = Identity { range, node: genesis.node };
    let group = Group::new(config, identity, restored, &mut entries, rng, now);
    match entries.error {
        Some(error) => Err(error),
        None => Ok((group.map_err(|source| HostError::Restore { range, source })?, last)),
    }
}

/// What the state machine contains. A range that has no checkpoint yet is as its founder made it: empty, with this node its only member.
fn checkpoint_of(genesis: &Genesis, range: RangeId, space: &KvSpace) -> Result<SnapshotMeta, HostError> {
    if space.meta().is_empty() {
        return Ok(SnapshotMeta { last: LogId::ZERO, membership: Membership::single(genesis.node) });
    }
    let damaged = HostError::Damaged { range, what: "the checkpoint's record" };
    read_meta(space.meta()).filter(|meta| meta.last.index.0 == space.checkpointed()).ok_or(damaged)
}

fn records_of(range: RangeId, found: &RecoveredGroup) -> Result<(HardState, LogId), HostError> {
    let damaged = |what| HostError::Damaged { range, what };
    let hard_state = match found.record(Record::HARD_STATE) {
        Some(bytes) => read_hard_state(bytes).ok_or_else(|| damaged("the record of term and vote"))?,
        None => HardState::default(),
    };
    let log_start = match found.record(LOG_START) {
        Some(bytes) => read_log_id(bytes).ok_or_else(|| damaged("the record of the log's beginning"))?,
        None => LogId::ZERO,
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

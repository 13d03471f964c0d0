//! A node's disk: one write-ahead log for all its groups, whose writes are durable only when synced, and the durable checkpoints of
//! its state machines.
//!
//! A crash loses what was not synced, except for some writes from the front, as a real page cache would have it; a write is one
//! checksummed record, so one that is torn is no write. A slow disk takes long to sync, a full one does not sync at all until there is
//! room.

use crate::logcopy::LogCopy;
use crate::machine::Machine;
use crate::queue::Moment;
use bifro_core::ids::RangeId;
use bifro_core::rng::Prng;
use bifro_raft::{HardState, Index, LogWrite, SnapshotMeta, WriteId};
use std::collections::{BTreeMap, VecDeque};

/// A state machine at some entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) meta: SnapshotMeta,
    pub(crate) machine: Machine,
}

/// What is durable of one group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    pub(crate) hard_state: HardState,
    pub(crate) log: LogCopy,
    pub(crate) checkpoint: Checkpoint,
    /// The replica was removed; only its hard state is kept.
    pub(crate) buried: bool,
}

/// One record.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) range: RangeId,
    /// Which of the group's replicas on this node wrote it.
    pub(crate) life: u64,
    pub(crate) what: What,
}

/// What a record says.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A group's write.
    Persist { write: WriteId, hard_state: Option<HardState>, log: LogWrite },
    /// Entries up to this are no longer needed.
    Compact { to: Index },
    /// The replica is removed, but for this.
    Bury(HardState),
}

/// The disk.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    groups: BTreeMap<RangeId, Stored>,
    /// Written, not synced.
    cached: VecDeque<Write>,
    /// How many of them the sync under way will make durable; zero if none is.
    syncing: usize,
    pub(crate) slow_until: Moment,
    pub(crate) full_until: Moment,
}

impl Disk {
    /// Puts a founding member's state there.
    pub(crate) fn found(&mut self, range: RangeId, checkpoint: Checkpoint) {
        self.groups.insert(range, Stored { checkpoint, ..Stored::default() });
    }

    /// What is durable of the group.
    pub(crate) fn stored(&self, range: RangeId) -> Option<&Stored> {
        self.groups.get(&range)
    }

    /// Everything durable.
    pub(crate) fn all_stored(&self) -> impl Iterator<Item = (RangeId, &Stored)> {
        self.groups.iter().map(|(range, stored)| (*range, stored))
    }

    /// Writes a record, without making it durable.
    pub(crate) fn write(&mut self, write: Write) {
        self.cached.push_back(write);
    }

    /// Begins a sync of everything written, if none is under way and there is something. Returns whether it did.
    pub(crate) fn begin_sync(&mut self) -> bool {
        if self.syncing > 0 || self.cached.is_empty() {
            return false;
        }
        self.syncing = self.cached.len();
        true
    }

    /// The sync is done: what it covered is durable.
    pub(crate) fn finish_sync(&mut self) -> Vec<Write> {
        let done: Vec<Write> = self.cached.drain(..self.syncing).collect();
        self.syncing = 0;
        done.iter().for_each(|write| self.keep(write));
        done
    }

    /// Makes a checkpoint durable: that is another file than the log, with syncs of its own.
    pub(crate) fn keep_checkpoint(&mut self, range: RangeId, checkpoint: Checkpoint) {
        let stored = self.groups.entry(range).or_default();
        stored.buried = false;
        stored.checkpoint = checkpoint;
    }

    /// The node crashes: of what was not synced a part from the front may have got through.
    pub(crate) fn crash(&mut self, rng: &mut Prng) {
        let kept = if rng.below(2) == 0 { 0 } else { rng.below(self.cached.len() as u64 + 1) as usize };
        let kept: Vec<Write> = self.cached.drain(..).take(kept).collect();
        kept.iter().for_each(|write| self.keep(write));
        self.syncing = 0;
    }

    fn keep(&mut self, write: &Write) {
        let stored = self.groups.entry(write.range).or_default();
        match &write.what {
            What::Persist { hard_state, log, .. } => {
                stored.buried = false;
                stored.hard_state = hard_state.unwrap_or(stored.hard_state);
                stored.log.write(log);
            }
            What::Compact { to } => stored.log.compact(*to),
            What::Bury(tombstone) => {
                *stored = Stored { hard_state: *tombstone, buried: true, ..Stored::default() };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bifro_raft::Term;

    const RANGE: RangeId = RangeId(1);

    fn vote(term: u64) -> Write {
        let hard_state = Some(HardState { term: Term(term), ..HardState::default() });
        Write {
            range: RANGE,
            life: 0,
            what: What::Persist { write: WriteId(term), hard_state, log: LogWrite::Nothing },
        }
    }

    fn term(disk: &Disk) -> u64 {
        disk.stored(RANGE).map_or(0, |stored| stored.hard_state.term.0)
    }

    #[test]
    fn a_sync_covers_what_was_written_before_it_began() {
        let mut disk = Disk::default();
        disk.write(vote(1));
        assert!(disk.begin_sync());
        disk.write(vote(2));
        assert!(!disk.begin_sync(), "one at a time");
        assert_eq!(disk.finish_sync().len(), 1);
        assert_eq!(term(&disk), 1);
    }

    #[test]
    fn a_crash_keeps_a_part_from_the_front_and_everything_synced() {
        for seed in 0..50 {
            let mut disk = Disk::default();
            disk.write(vote(1));
            assert!(disk.begin_sync());
            disk.finish_sync();
            (2..6).for_each(|term| disk.write(vote(term)));
            disk.crash(&mut Prng::new(seed));
            assert!((1..6).contains(&term(&disk)), "seed {seed}");
            assert!(!disk.begin_sync(), "nothing is left to sync");
        }
    }
}

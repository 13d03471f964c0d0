//! The log without files and threads, for the simulator: memory in the place of a disk, and steps in the place of threads.
//!
//! A write is begun with what has been queued by then and is durable when it is finished. A process that ends in between has lost all of it, or
//! the simulator says how many of its batches have reached the disk: the first ones, each as a whole, since a record of the log is there or is not.

use super::batch::{GroupId, Record, Step, WalBatch, WalEntry, index_of};
use super::config::WalConfig;
use super::error::WalError;
use super::port::{Lane, Token, WalEvent};
use super::shared::{Shared, checked};
use super::{RecoveredGroup, Wal};
use crate::fatal::Fatal;
use protobuf::well_known_types::BytesValue;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a disk holds of the log. Clones share it, as processes started one after the other share a disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog(Arc<Mutex<BTreeMap<GroupId, Group>>>);

#[derive(Debug, Default)]
struct Group {
    entries: BTreeMap<u64, BytesValue>,
    records: BTreeMap<Record, Vec<u8>>,
}

/// A batch of the write under way.
struct Taken {
    lane: Arc<Lane>,
    token: Token,
    batch: WalBatch,
}

/// What happens in the place of the threads.
pub(super) struct Steps {
    disk: MemoryLog,
    under_way: Mutex<Vec<Taken>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryLog {
    fn write(&self, batch: &WalBatch) {
        let mut groups = locked(&self.0);
        for step in &batch.steps {
            match step {
                Step::Append { group, entries, .. } => groups.entry(*group).or_default().append(entries),
                Step::Put { group, record, value } => {
                    groups.entry(*group).or_default().records.insert(*record, value.clone());
                }
                Step::Compact { group, first_kept } => {
                    let entries = &mut groups.entry(*group).or_default().entries;
                    *entries = entries.split_off(first_kept);
                }
                Step::Delete { group } => drop(groups.remove(group)),
            }
        }
    }

    fn read(&self, group: GroupId, range: &Range<u64>, bytes_max: usize) -> Result<Vec<WalEntry>, WalError> {
        let groups = locked(&self.0);
        let Some(entries) = groups.get(&group).map(|group| &group.entries) else { return Err(WalError::NotFound) };
        let Some(&first) = entries.keys().next() else { return Err(WalError::NotFound) };
        if range.start < first {
            return Err(WalError::Compacted { first });
        }
        let mut bytes = 0;
        let fits = |entry: &&BytesValue| {
            let before = bytes;
            bytes += entry.value.len();
            before == 0 || bytes <= bytes_max
        };
        let found: Vec<_> = entries.range(range.clone()).map(|(_, entry)| entry).take_while(fits).cloned().collect();
        if found.is_empty() { Err(WalError::NotFound) } else { checked(found, range.start).map_err(WalError::Corrupt) }
    }

    fn recovered(&self) -> Vec<RecoveredGroup> {
        let recovered = |(&group, held): (&GroupId, &Group)| {
            let ends = held.entries.keys().next().zip(held.entries.keys().next_back());
            let entries = ends.map_or(0..0, |(&first, &last)| first..last + 1);
            let records = held.records.iter().map(|(&record, value)| (record, value.clone())).collect();
            RecoveredGroup { group, entries, records }
        };
        locked(&self.0).iter().map(recovered).collect()
    }
}

impl Group {
    fn append(&mut self, entries: &[BytesValue]) {
        let from = index_of(&entries[0]);
        let ends = self.entries.keys().next().zip(self.entries.keys().next_back());
        let fits = ends.is_none_or(|(&first, &last)| (first..=last + 1).contains(&from));
        assert!(fits, "no append is ever refused here, so none leaves a hole: {from} after {ends:?}");
        self.entries.split_off(&from);
        self.entries.extend(entries.iter().map(|entry| (index_of(entry), entry.clone())));
    }
}

impl Wal {
    /// A log on such a disk, of which nothing happens but what the next methods say.
    pub fn stepped(disk: &MemoryLog, config: WalConfig, fatal: Fatal) -> (Self, Vec<RecoveredGroup>) {
        let mut wal = Self::without_threads(Arc::new(Shared::new(config, fatal)));
        wal.steps = Some(Steps { disk: disk.clone(), under_way: Mutex::default() });
        (wal, disk.recovered())
    }

    /// Whether it has steps in the place of threads.
    pub fn is_stepped(&self) -> bool {
        self.steps.is_some()
    }

    /// Begins to write what is queued, unless a write is under way. False if there is nothing to write, or one is.
    pub fn begin_write(&self) -> bool {
        let Some(mut under_way) = self.steps.as_ref().map(|steps| locked(&steps.under_way)) else { return false };
        if !under_way.is_empty() {
            return false;
        }
        let mut lanes = Vec::new();
        self.shared.lanes(&mut lanes);
        for lane in lanes {
            while let Some((token, batch)) = lane.submitted.pop() {
                under_way.push(Taken { lane: lane.clone(), token, batch });
            }
        }
        !under_way.is_empty()
    }

    /// The write under way is on the disk, and those who wait are told.
    pub fn finish_write(&self) {
        self.cut_write(usize::MAX);
        for Taken { lane, token, batch } in
            self.steps.iter().flat_map(|steps| std::mem::take(&mut *locked(&steps.under_way)))
        {
            lane.submitted_bytes.fetch_sub(batch.bytes(), Ordering::Relaxed);
            lane.durable.store(token.0, Ordering::Release);
            (lane.wake)();
        }
    }

    /// This many batches of the write under way reach the disk, and nobody hears of it: the process is about to end.
    pub fn cut_write(&self, kept: usize) {
        if let Some(steps) = &self.steps {
            locked(&steps.under_way).iter().take(kept).for_each(|taken| steps.disk.write(&taken.batch));
        }
    }

    /// Whether reads wait.
    pub fn has_reads(&self) -> bool {
        !self.shared.reads.is_empty()
    }

    /// Answers the reads that wait. False if there are none.
    pub fn answer_reads(&self) -> bool {
        let Some(steps) = &self.steps else { return false };
        let mut found = false;
        while let Some(ask) = self.shared.reads.pop() {
            let result = steps.disk.read(ask.group, &ask.range, ask.bytes_max);
            ask.lane.tell(WalEvent::Entries { request: ask.request, group: ask.group, result });
            found = true;
        }
        found
    }
}

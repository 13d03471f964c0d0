//! The newest entries, in memory.

use crate::types::{Entry, Index};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// A stretch of entries without gaps that ends where the log ends. Knows the cost of any part of it in constant time.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail {
    entries: VecDeque<Kept>,
    /// Cost of every entry that was ever dropped from the front.
    dropped: u64,
}

#[derive(Clone, Debug)]
struct Kept {
    entry: Entry,
    /// Cost of this entry and all before it, those dropped included.
    total: u64,
}

impl Tail {
    /// The first entry here, if there is one.
    pub(super) fn first(&self) -> Option<Index> {
        self.entries.front().map(|kept| kept.entry.id.index)
    }

    /// The last entry here, if there is one.
    pub(super) fn last(&self) -> Option<Index> {
        self.entries.back().map(|kept| kept.entry.id.index)
    }

    /// Adds the entry that follows.
    pub(super) fn push(&mut self, entry: Entry) {
        let before = self.entries.back().map_or(self.dropped, |kept| kept.total);
        self.entries.push_back(Kept { total: before + entry.cost() as u64, entry });
    }

    /// Removes every entry from `index` on.
    pub(super) fn truncate_from(&mut self, index: Index) {
        let keep = self.position(index).unwrap_or(0);
        self.entries.truncate(keep);
    }

    /// Removes the first entry.
    pub(super) fn drop_first(&mut self) {
        if let Some(kept) = self.entries.pop_front() {
            self.dropped = kept.total;
        }
    }

    /// Cost of all entries here.
    pub(super) fn cost(&self) -> usize {
        let total = self.entries.back().map_or(self.dropped, |kept| kept.total);
        usize::try_from(total - self.dropped).expect("the entries are in memory")
    }

    /// Cost of the entries here that stand behind `index`.
    pub(super) fn cost_behind(&self, index: Index) -> usize {
        let Some(first) = self.first() else { return 0 };
        if index < first {
            return self.cost();
        }
        let total = self.entries.back().map_or(self.dropped, |kept| kept.total);
        let before = self.position(index).and_then(|at| self.entries.get(at)).map_or(total, |kept| kept.total);
        usize::try_from(total - before).expect("the entries are in memory")
    }

    /// The entries from `first` to `last`, as many as cost no more than `bytes_max`, but at least one. `None` if `first` is
    /// not here.
    pub(super) fn slice(&self, first: Index, last: Index, bytes_max: usize) -> Option<Vec<Entry>> {
        let from = self.position(first)?;
        let to = usize::try_from(last.0 + 1 - first.0).expect("the entries are in memory").saturating_add(from);
        let to = to.min(self.entries.len());
        let before = from.checked_sub(1).map_or(self.dropped, |at| self.entries[at].total);
        let fits = |kept: &&Kept| kept.total - before <= bytes_max as u64;
        let count = self.entries.range(from..to).take_while(fits).count().max(1);
        (from < to).then(|| self.entries.range(from..from + count).map(|kept| kept.entry.clone()).collect())
    }

    /// Where an entry is; `None` before the first one. May be beyond the end.
    fn position(&self, index: Index) -> Option<usize> {
        let first = self.first()?;
        index.0.checked_sub(first.0).and_then(|at| usize::try_from(at).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ENTRY_OVERHEAD_BYTES;
    use crate::types::{EntryKind, LogId};
    use bytes::Bytes;

    fn entry(index: u64, bytes: usize) -> Entry {
        Entry { id: LogId::new(1, index), kind: EntryKind::Data(Bytes::from(alloc::vec![0; bytes])) }
    }

    fn tail() -> Tail {
        let mut tail = Tail::default();
        (4..=8).for_each(|index| tail.push(entry(index, 100)));
        tail
    }

    fn indexes(entries: Option<Vec<Entry>>) -> Option<Vec<u64>> {
        entries.map(|entries| entries.iter().map(|entry| entry.id.index.0).collect())
    }

    #[test]
    fn a_slice_stops_at_its_bytes_but_has_one_entry() {
        let each = 100 + ENTRY_OVERHEAD_BYTES;
        assert_eq!(indexes(tail().slice(Index(5), Index(8), 2 * each)), Some(alloc::vec![5, 6]));
        assert_eq!(indexes(tail().slice(Index(5), Index(8), 1)), Some(alloc::vec![5]));
        assert_eq!(indexes(tail().slice(Index(5), Index(6), usize::MAX)), Some(alloc::vec![5, 6]));
        assert_eq!(indexes(tail().slice(Index(3), Index(6), usize::MAX)), None);
        assert_eq!(indexes(tail().slice(Index(9), Index(9), usize::MAX)), None);
    }

    #[test]
    fn costs_survive_dropping_and_truncating() {
        let each = 100 + ENTRY_OVERHEAD_BYTES;
        let mut tail = tail();
        assert_eq!((tail.cost(), tail.cost_behind(Index(6))), (5 * each, 2 * each));
        tail.drop_first();
        tail.truncate_from(Index(8));
        assert_eq!((tail.cost(), tail.cost_behind(Index(0)), tail.cost_behind(Index(7))), (3 * each, 3 * each, 0));
        tail.truncate_from(Index(0));
        assert_eq!((tail.cost(), tail.first()), (0, None));
        tail.push(entry(9, 100));
        assert_eq!(tail.cost(), each);
    }
}
